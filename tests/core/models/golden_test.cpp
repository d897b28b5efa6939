#include "core/models/decoder.h"
#include "core/models/model.h"
#include "core/models/ops.h"
#include "core/models/tensor_file.h"
#include "tests/core/models/tensor_matchers.h"
#include "tests/support/test_data.h"

#include <filesystem>

namespace resect {
namespace {

using test::ownData;
using test::sharedData;

constexpr double kTolerance = 1e-4;

/// Keeps what it is shown: hidden states as Hugging Face numbers them, attention probabilities, router logits.
class Recorder : public Observer {
public:
    explicit Recorder(bool attention) : m_attention(attention) {}
    bool wants(TapPoint point, int block) const override {
        return point == TapPoint::BlockOutput || (point == TapPoint::BlockInput && block == 0) || point == TapPoint::RouterLogits ||
               (m_attention && point == TapPoint::AttentionWeights);
    }
    void observe(TapPoint point, int, const torch::Tensor& value) override {
        (point == TapPoint::AttentionWeights ? attentions : point == TapPoint::RouterLogits ? routers : states).push_back(value);
    }
    std::vector<torch::Tensor> states, attentions, routers;

private:
    bool m_attention;
};

/// Switch Transformer's balance loss as Hugging Face computes it for Mixtral, over all layers' tokens together.
torch::Tensor balanceLoss(const std::vector<torch::Tensor>& routers_BTE, int topK) {
    std::vector<torch::Tensor> flat;
    for (const auto& router : routers_BTE) {
        flat.push_back(router.reshape({-1, router.size(-1)}));
    }
    const auto weights_ME = torch::softmax(torch::cat(flat), -1);
    const auto experts = weights_ME.size(1);
    const auto chosen_MK = std::get<1>(weights_ME.topk(topK, -1));
    const auto tokens_KE = torch::one_hot(chosen_MK, experts).to(torch::kFloat32).mean(0);
    return (tokens_KE * weights_ME.mean(0).unsqueeze(0)).sum() * experts;
}

enum class Kernels { Plain, Fast };

struct Case {
    std::string name;
    Kernels kernels;
};
void PrintTo(const Case& value, std::ostream* out) { *out << value.name; }

class Golden : public testing::TestWithParam<Case> {
protected:
    void SetUp() override {
        if (GetParam().kernels == Kernels::Plain) {
            m_plain = std::make_unique<ops::PlainKernels>();
        }
        const auto folder = ownData("golden/" + GetParam().name);
        m_checkpoint = std::make_unique<Checkpoint>(Checkpoint::open(folder));
        m_model = LanguageModel::load(*m_checkpoint, {.device = torch::kCPU, .dtype = torch::kFloat32, .trainable = true});
        m_golden = readTensors(folder / "golden.safetensors");
        m_gradients = readTensors(folder / "grads.safetensors");
    }
    std::unique_ptr<ops::PlainKernels> m_plain;
    std::unique_ptr<Checkpoint> m_checkpoint;
    std::unique_ptr<LanguageModel> m_model;
    std::map<std::string, torch::Tensor> m_golden, m_gradients;
};

TEST_P(Golden, GivesTheReferenceLogitsAndHiddenStates) {
    const torch::NoGradGuard noGrad;
    const TokenBatch batch{m_golden.at("input_ids"), {}, {}};
    Recorder recorder(false);
    const int blocks = m_model->shape().numBlocks();
    const auto normed = m_model->finalNorm(m_model->runBlocks(m_model->embed(batch), batch, 0, blocks, &recorder));
    ASSERT_EQ(recorder.states.size(), static_cast<std::size_t>(blocks + 1));
    recorder.states.back() = normed;
    for (int i = 0; i <= blocks; ++i) {
        EXPECT_TENSOR_NEAR(recorder.states[static_cast<std::size_t>(i)], m_golden.at("hidden_states." + std::to_string(i)), kTolerance) << i;
    }
    EXPECT_TENSOR_NEAR(m_model->head(normed), m_golden.at("logits"), kTolerance);
    for (std::size_t i = 0; i < recorder.routers.size(); ++i) {
        const auto& expected = m_golden.at("router_logits." + std::to_string(i));
        EXPECT_TENSOR_NEAR(recorder.routers[i].reshape(expected.sizes()), expected, kTolerance);
    }
}

TEST_P(Golden, ShowsTheReferenceAttentionToObservers) {
    const torch::NoGradGuard noGrad;
    Recorder recorder(true);
    EXPECT_TENSOR_NEAR(m_model->logits({m_golden.at("input_ids"), {}, {}}, &recorder), m_golden.at("logits"), kTolerance);
    for (std::size_t i = 0; i < recorder.attentions.size(); ++i) {
        EXPECT_TENSOR_NEAR(recorder.attentions[i], m_golden.at("attentions." + std::to_string(i)), kTolerance) << i;
    }
}

TEST_P(Golden, GivesTheReferenceGradients) {
    const auto& ids = m_golden.at("input_ids");
    const auto targets = torch::cat({ids.slice(1, 1), torch::full({ids.size(0), 1}, -100, torch::kInt64)}, 1);
    auto loss = m_model->loss({ids, {}, {}}, targets);
    if (m_golden.contains("aux_loss")) {
        Recorder recorder(false);
        m_model->logits({ids, {}, {}}, &recorder);
        const auto balance = balanceLoss(recorder.routers, m_model->shape().numExpertsPerToken);
        EXPECT_TENSOR_NEAR(balance.view({1}), m_golden.at("aux_loss"), kTolerance);
        loss = loss + 0.02 * balance;
    }
    EXPECT_TENSOR_NEAR(loss.view({1}), m_golden.at("loss"), kTolerance);
    loss.backward();
    std::size_t compared = 0;
    m_model->visitParameters([&](const std::string& name, torch::Tensor& tensor) {
        ASSERT_TRUE(m_gradients.contains(name)) << name;
        EXPECT_TENSOR_CLOSE(tensor.grad(), m_gradients.at(name), 1e-4) << name;
        ++compared;
    });
    EXPECT_EQ(compared, m_gradients.size());
}

TEST_P(Golden, IgnoresPaddingOnEitherSide) {
    const torch::NoGradGuard noGrad;
    const auto& ids = m_golden.at("input_ids");
    const auto mask = m_golden.at("padded.attention_mask").to(torch::kBool);
    const auto select = mask.unsqueeze(2);
    const auto expected = m_golden.at("padded.logits") * select;
    EXPECT_TENSOR_NEAR(m_model->logits({ids, mask, {}}) * select, expected, kTolerance);
    for (std::int64_t row = 0; row < ids.size(0); ++row) {  // the same row, its padding moved to the left
        const auto real = mask[row].sum().item<std::int64_t>();
        const auto shifted = ids[row].roll(-real).unsqueeze(0), shiftedMask = mask[row].roll(-real).unsqueeze(0);
        const auto logits = m_model->logits({shifted, shiftedMask, {}});
        EXPECT_TENSOR_NEAR(logits[0].slice(0, ids.size(1) - real), m_golden.at("padded.logits")[row].slice(0, 0, real), kTolerance);
    }
}

TEST_P(Golden, CachesTheReferenceKeysAndValues) {
    const torch::NoGradGuard noGrad;
    const auto& ids = m_golden.at("input_ids");
    const auto cache = m_model->makeCache(static_cast<int>(ids.size(0)), static_cast<int>(ids.size(1)));
    m_model->logits({ids, {}, {}}, nullptr, cache.get());
    EXPECT_EQ(cache->length(), ids.size(1));
    const LayerCache* layer = dynamic_cast<DecoderCache&>(*cache).layer(0);
    EXPECT_TENSOR_NEAR(layer->k_BCGH.transpose(1, 2), m_golden.at("past_key.0"), kTolerance);
    EXPECT_TENSOR_NEAR(layer->v_BCGH.transpose(1, 2), m_golden.at("past_value.0"), kTolerance);
}

TEST_P(Golden, ContinuesLikeTheReferenceWithACache) {
    const auto& golden = m_golden.at("greedy_ids");
    const std::vector<std::int64_t> expected(golden.data_ptr<std::int64_t>(), golden.data_ptr<std::int64_t>() + golden.numel());
    const std::size_t promptTokens = 8;
    const auto ids = generate(*m_model, std::span(expected).first(promptTokens), {.maxNewTokens = static_cast<int>(expected.size() - promptTokens)}, {});
    const std::vector<std::int64_t> continued(expected.begin() + promptTokens, expected.begin() + static_cast<std::ptrdiff_t>(promptTokens + ids.size()));
    EXPECT_EQ(ids, continued);  // an end token stops it early
    EXPECT_TRUE(ids.size() == expected.size() - promptTokens || ids.back() == 2);
}

std::vector<Case> allCases() {
    std::vector<Case> cases;
    for (const char* name : {"llama-gqa", "llama-mha-tied", "llama-rope-llama3", "llama-rope-linear", "llama-bf16-sharded", "llama-f16",
                             "mistral-sliding", "qwen2", "mixtral", "gpt2"}) {
        cases.push_back({name, Kernels::Plain});
        cases.push_back({name, Kernels::Fast});
    }
    return cases;
}

INSTANTIATE_TEST_SUITE_P(Cases, Golden, testing::ValuesIn(allCases()), [](const testing::TestParamInfo<Case>& info) {
    std::string name = info.param.name + (info.param.kernels == Kernels::Plain ? "_plain" : "_fast");
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
});

struct Trained {
    std::string model, golden;
};
void PrintTo(const Trained& value, std::ostream* out) { *out << value.model; }

class TrainedCheckpoint : public testing::TestWithParam<Trained> {};

TEST_P(TrainedCheckpoint, GivesTheReferenceLogitsAndHiddenStates) {
    RESECT_NEED_SHARED_DATA("models/" + GetParam().model);
    RESECT_NEED_SHARED_DATA("golden/" + GetParam().golden);
    const torch::NoGradGuard noGrad;
    const auto checkpoint = Checkpoint::open(sharedData("models/" + GetParam().model));
    const auto golden = readTensors(sharedData("golden/" + GetParam().golden + "/golden.safetensors"));
    const auto model = LanguageModel::load(checkpoint, {});
    const TokenBatch batch{golden.at("input_ids"), {}, {}};
    Recorder recorder(false);
    const int blocks = model->shape().numBlocks();
    recorder.states.reserve(static_cast<std::size_t>(blocks + 1));
    const auto normed = model->finalNorm(model->runBlocks(model->embed(batch), batch, 0, blocks, &recorder));
    recorder.states.back() = normed;
    for (int i = 0; i <= blocks; ++i) {
        EXPECT_TENSOR_NEAR(recorder.states[static_cast<std::size_t>(i)], golden.at("hidden_states." + std::to_string(i)), kTolerance) << i;
    }
    EXPECT_TENSOR_NEAR(model->head(normed), golden.at("logits"), kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Models, TrainedCheckpoint,
                         testing::Values(Trained{"stories260K-hf", "stories260K"}, Trained{"llama-stories-12l", "trained/llama-stories-12l"},
                                         Trained{"qwen2-stories-8l", "trained/qwen2-stories-8l"},
                                         Trained{"mixtral-stories-6l", "trained/mixtral-stories-6l"}, Trained{"gpt2-stories-8l", "trained/gpt2-stories-8l"}),
                         [](const testing::TestParamInfo<Trained>& info) {
                             std::string name = info.param.model;
                             std::replace(name.begin(), name.end(), '-', '_');
                             return name;
                         });

}  // namespace
}  // namespace resect
