#include "core/base/files.h"
#include "core/measure/perplexity.h"
#include "core/train/batches.h"
#include "core/train/losses.h"
#include "core/train/trainee.h"
#include "tests/core/data/byte_tokenizer.h"
#include "tests/core/train/train_support.h"

#include <gmock/gmock.h>
#include <torch/types.h>
#include <torch/utils.h>

namespace resect::test {
namespace {

/// Conversations of different lengths, laid out by the chat template beside them.
Dataset conversations(const TempFolder& folder, RowLayout layout) {
    writeFileAtomically(folder / "chat_template.jinja", "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}");
    std::string lines;
    for (int i = 0; i < 11; ++i) {
        const std::string question(static_cast<std::size_t>(2 + i * 5 % 9), static_cast<char>('a' + i)), answer(static_cast<std::size_t>(1 + i * 7 % 8), static_cast<char>('k' + i));
        Json messages = Json::array({{{"role", "user"}, {"content", question}}, {{"role", "assistant"}, {"content", answer}}});
        if (i % 3 == 0) {
            messages.push_back({{"role", "user"}, {"content", "more"}});
            messages.push_back({{"role", "assistant"}, {"content", question}});
        }
        lines += Json{{"messages", messages}}.dump() + "\n";
    }
    writeFileAtomically(folder / "rows.jsonl", lines);
    DataOptions options;
    options.layout = layout;
    options.rowLength = 120;
    options.chatTemplateFolder = folder.path();
    const ByteTokenizer tokenizer;
    return loadDataset(folder / "rows.jsonl", &tokenizer, 258, options);
}

TEST(PackedConversations, GiveTheLossAndGradientsOfSeparateRows) {
    const TempFolder folder;
    const Dataset packed = conversations(folder, RowLayout::Packed), separate = conversations(folder, RowLayout::Padded);
    ASSERT_LT(packed.rows.size(), separate.rows.size());
    EXPECT_EQ(packed.targets, separate.targets);
    const auto model = LanguageModel::load(tinyLlama({.vocabSize = 258}).open(), {torch::kCPU, torch::kFloat32, true});

    const auto lossOf = [&](const Dataset& data) {
        double sum = 0;
        for (const TrainBatch& batch : makeBatches(data.rows, 3)) sum += tokenLosses(model->logits(batch.tokens), batch.targets_BT).sum().item<double>();
        return sum / static_cast<double>(data.targets);
    };
    EXPECT_NEAR(lossOf(packed), lossOf(separate), 1e-5);

    const auto gradientsOf = [&](const Dataset& data) {
        double total = 0;
        for (const TrainBatch& batch : makeBatches(data.rows, 2)) {
            const double share = double(batch.counted) / double(data.targets);
            total += share * accumulateGradients(*model, nullptr, batch, {}, share).total;
        }
        std::map<std::string, torch::Tensor> gradients;
        model->visitParameters([&](const std::string& name, torch::Tensor& parameter) {
            if (parameter.grad().defined()) gradients[name] = parameter.grad().clone();
            parameter.mutable_grad() = torch::Tensor();
        });
        return std::pair(total, gradients);
    };
    const auto [packedLoss, packedGradients] = gradientsOf(packed);
    const auto [separateLoss, separateGradients] = gradientsOf(separate);
    EXPECT_NEAR(packedLoss, separateLoss, 1e-5);
    ASSERT_EQ(packedGradients.size(), separateGradients.size());
    for (const auto& [name, gradient] : packedGradients) EXPECT_LT((gradient - separateGradients.at(name)).abs().max().item<double>(), 1e-5) << name;
}

}  // namespace
}  // namespace resect::test
