#include "core/base/error.h"
#include "core/train/losses.h"
#include "core/train/lora.h"
#include "core/train/trainee.h"
#include "tests/core/train/train_support.h"

#include <gmock/gmock.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <map>

namespace resect::test {
namespace {

std::vector<TokenRow> someRows(int count, int length, int vocabulary, int masked = 0) {
    std::vector<TokenRow> rows;
    for (int r = 0; r < count; ++r) {
        TokenRow row;
        for (int t = 0; t < length - r; ++t) {
            row.ids.push_back((5 * r + 3 * t + t * t) % vocabulary);
            row.targets.push_back(t < masked ? kIgnoredTarget : (5 * r + 3 * (t + 1) + (t + 1) * (t + 1)) % vocabulary);
        }
        rows.push_back(std::move(row));
    }
    return rows;
}

TrainBatch batchOf(const std::vector<TokenRow>& rows) { return makeBatches(rows, static_cast<int>(rows.size())).front(); }

std::map<std::string, torch::Tensor> gradientsOf(LanguageModel& model) {
    std::map<std::string, torch::Tensor> gradients;
    model.visitParameters([&](const std::string& name, torch::Tensor& parameter) {
        if (parameter.grad().defined()) gradients[name] = parameter.grad().clone();
        parameter.mutable_grad() = torch::Tensor();
    });
    return gradients;
}

void expectSameGradients(const std::map<std::string, torch::Tensor>& a, const std::map<std::string, torch::Tensor>& b, double tolerance) {
    ASSERT_EQ(a.size(), b.size());
    for (const auto& [name, value] : a) EXPECT_LT((value - b.at(name)).abs().max().item<double>(), tolerance) << name;
}

std::unique_ptr<LanguageModel> trainable(const TinyCheckpoint& tiny) { return LanguageModel::load(tiny.open(), {torch::kCPU, torch::kFloat32, true}); }

TEST(Losses, AccumulatedBatchesWeighEveryTokenAlike) {
    const auto model = trainable(tinyLlama());
    const auto rows = someRows(4, 13, 61);
    const auto whole = batchOf(rows);
    const auto expected = accumulateGradients(*model, nullptr, whole, {}, 1);
    const auto wanted = gradientsOf(*model);
    double total = 0;
    for (const auto& part : makeBatches(rows, 3)) {  // 3 rows and 1 row
        const double share = double(part.counted) / double(whole.counted);
        total += share * accumulateGradients(*model, nullptr, part, {}, share).total;
    }
    EXPECT_NEAR(total, expected.total, 1e-5);
    expectSameGradients(gradientsOf(*model), wanted, 1e-5);
}

TEST(Losses, PiecewisePathEqualsTheModelsOwnLoss) {
    const auto tiny = tinyLlama();
    const auto model = trainable(tiny);
    const auto teacher = LanguageModel::load(tinyLlama({.seed = 9}).open(), {});
    const auto batch = batchOf(someRows(3, 11, 61, 2));
    const auto plain = accumulateGradients(*model, nullptr, batch, {}, 1);
    const auto wanted = gradientsOf(*model);
    // A vanishing share of distillation takes the other path.
    const auto piecewise = accumulateGradients(*model, teacher.get(), batch, {1e-9, 1, 0}, 1);
    EXPECT_NEAR(piecewise.crossEntropy, plain.crossEntropy, 1e-5);
    expectSameGradients(gradientsOf(*model), wanted, 1e-5);
}

TEST(Losses, OnlyPositionsWithATargetCount) {
    const auto model = trainable(tinyLlama());
    auto rows = someRows(1, 9, 61, 5);
    const auto masked = accumulateGradients(*model, nullptr, batchOf(rows), {}, 1);
    torch::NoGradGuard noGrad;
    const auto batch = batchOf(rows);
    EXPECT_EQ(batch.counted, 4);
    const auto logProbabilities_TV = torch::log_softmax(model->logits(batch.tokens).squeeze(0).to(torch::kFloat64), -1);
    double sum = 0;
    for (std::size_t t = 5; t < 9; ++t) sum -= logProbabilities_TV[static_cast<std::int64_t>(t)][rows[0].targets[t]].item<double>();
    EXPECT_NEAR(masked.total, sum / 4, 1e-5);
}

TEST(Losses, DistillationFromItselfCostsNothing) {
    const auto tiny = tinyLlama();
    const auto model = trainable(tiny), teacher = LanguageModel::load(tiny.open(), {});
    const auto loss = accumulateGradients(*model, teacher.get(), batchOf(someRows(3, 11, 61)), {1, 2, 0}, 1);
    EXPECT_NEAR(loss.kl, 0, 1e-6);
    EXPECT_NEAR(loss.total, 0, 1e-5);
    for (const auto& [name, gradient] : gradientsOf(*model)) EXPECT_LT(gradient.abs().max().item<double>(), 1e-5) << name;
}

TEST(Losses, DistillationIsTheKlDivergenceOfSoftenedProbabilities) {
    const auto model = trainable(tinyLlama()), teacher = LanguageModel::load(tinyLlama({.seed = 4}).open(), {});
    const auto batch = batchOf(someRows(2, 7, 61));
    const double T = 3, w = 0.4;
    const auto loss = accumulateGradients(*model, teacher.get(), batch, {w, T, 0}, 1);
    torch::NoGradGuard noGrad;
    const auto keep = (batch.targets_BT.reshape({-1}) != kIgnoredTarget).nonzero().squeeze(1);
    const auto probabilities = [&](const LanguageModel& m) {
        return torch::softmax(m.logits(batch.tokens).to(torch::kFloat64).reshape({-1, 61}).index_select(0, keep) / T, -1);
    };
    const auto p = probabilities(*teacher), q = probabilities(*model);
    const double kl = (p * (p.log() - q.log())).sum(-1).mean().item<double>();
    EXPECT_NEAR(loss.kl, kl, 1e-5);
    EXPECT_NEAR(loss.total, (1 - w) * loss.crossEntropy + w * T * T * kl, 1e-4);
    EXPECT_GT(kl, 1e-3);
}

TEST(RouterBalance, IsOneTimesKWhenEvenAndGrowsWhenOneExpertTakesAll) {
    const auto even = torch::tensor({{2.f, 1.f, 0.f, 0.f}, {0.f, 2.f, 1.f, 0.f}, {0.f, 0.f, 2.f, 1.f}, {1.f, 0.f, 0.f, 2.f}}).unsqueeze(0);
    EXPECT_NEAR(routerBalanceLoss({even, even}, {}, 2).item<double>(), 2, 1e-6);
    const auto all = torch::tensor({{30.f, 0.f, 0.f, -1.f}}).repeat({4, 1}).unsqueeze(0);
    EXPECT_NEAR(routerBalanceLoss({all}, {}, 1).item<double>(), 4, 1e-6);
    // Padding does not count.
    const auto mask = torch::tensor({{1, 1, 1, 1, 0, 0}}).to(torch::kBool);
    const auto padded = torch::cat({even, torch::tensor({{{9.f, 0.f, 0.f, 0.f}, {9.f, 0.f, 0.f, 0.f}}})}, 1);
    EXPECT_NEAR(routerBalanceLoss({padded}, mask, 2).item<double>(), 2, 1e-6);
}

TEST(RouterBalance, TrainsTheRouterOfAMixture) {
    const auto model = trainable(tinyMixtral());
    const auto batch = batchOf(someRows(3, 11, 61));
    const auto without = accumulateGradients(*model, nullptr, batch, {}, 1);
    const auto plain = gradientsOf(*model);
    const auto with = accumulateGradients(*model, nullptr, batch, {0, 1, 0.5}, 1);
    const auto balanced = gradientsOf(*model);
    EXPECT_NEAR(with.crossEntropy, without.crossEntropy, 1e-5);
    EXPECT_NEAR(with.total, with.crossEntropy + 0.5 * with.balance, 1e-6);
    EXPECT_GE(with.balance, 1.9);
    const std::string router = "model.layers.0.block_sparse_moe.gate.weight";
    EXPECT_GT((balanced.at(router) - plain.at(router)).abs().max().item<double>(), 1e-6);
}

TEST(Evaluate, AveragesOverTokensNotBatches) {
    const auto model = LanguageModel::load(tinyLlama().open(), {});
    const auto rows = someRows(5, 12, 61, 1);
    const auto one = evaluate(*model, rows, 5, {}), many = evaluate(*model, rows, 2, {});
    EXPECT_TRUE(one.complete);
    EXPECT_EQ(one.counted, many.counted);
    EXPECT_NEAR(one.loss, many.loss, 1e-6);
    EXPECT_TRUE(std::isnan(evaluate(*model, {}, 1, {}).loss));
}

LoraOptions loraOptions(std::vector<std::string> targets) { return {.rank = 3, .alpha = 7, .dropout = 0, .targets = std::move(targets), .rankStabilised = false}; }

torch::Tensor logitsOf(const LanguageModel& model) {
    torch::NoGradGuard noGrad;
    return model.logits(batchOf(someRows(2, 9, 61)).tokens);
}

void disturb(LoraAdapters& adapters) {
    torch::NoGradGuard noGrad;
    torch::manual_seed(11);
    for (auto& site : adapters.sites) site.layer->b().normal_(0, 0.1);
}

TEST(Lora, StartsAsExactlyTheBase) {
    const auto tiny = tinyLlama();
    const auto base = LanguageModel::load(tiny.open(), {}), adapted = LanguageModel::load(tiny.open(), {});
    const auto adapters = attachLora(*adapted, loraOptions({"all-linear"}), 1);
    EXPECT_EQ(adapters.sites.size(), 3u * 7u);
    EXPECT_TRUE(logitsOf(*adapted).equal(logitsOf(*base)));
}

TEST(Lora, TargetsGroupsRolesAndNames) {
    EXPECT_TRUE(loraTargets("attention", "self_attn.q_proj"));
    EXPECT_FALSE(loraTargets("attention", "mlp.gate_proj"));
    EXPECT_TRUE(loraTargets("mlp", "mlp.gate_proj"));
    EXPECT_TRUE(loraTargets("mlp", "block_sparse_moe.experts.2.w1"));
    EXPECT_FALSE(loraTargets("all-linear", "block_sparse_moe.gate"));
    EXPECT_TRUE(loraTargets("gate", "block_sparse_moe.gate"));
    EXPECT_FALSE(loraTargets("gate", "mlp.gate_proj"));
    EXPECT_TRUE(loraTargets("self_attn.v_proj", "self_attn.v_proj"));
    const auto model = LanguageModel::load(tinyLlama().open(), {});
    EXPECT_EQ(attachLora(*model, loraOptions({"q_proj", "down_proj"}), 1).sites.size(), 6u);
    EXPECT_THROW(attachLora(*model, loraOptions({"q_proj", "w_proj"}), 1), Error);
}

TEST(Lora, TrainsTheAdaptersOnly) {
    const auto model = LanguageModel::load(tinyLlama().open(), {});
    auto adapters = attachLora(*model, loraOptions({"all-linear"}), 1);
    disturb(adapters);
    accumulateGradients(*model, nullptr, batchOf(someRows(2, 9, 61)), {}, 1);
    const auto gradients = gradientsOf(*model);
    EXPECT_EQ(gradients.size(), 2 * adapters.sites.size());
    for (const auto& [name, gradient] : gradients) EXPECT_THAT(name, testing::HasSubstr(".lora_"));
}

TEST(Lora, MergedCheckpointComputesWhatTheAdapterDoes) {
    auto run = tinyRun("lora", {{"steps", 8}, {"lr", 0.02}, {"merge", true}, {"lora_rs", true}, {"lora_targets", "attention,down_proj"}});
    run.run();
    const auto merged = LanguageModel::load(Checkpoint::open(run.path() / "merged"), {});
    const auto base = run.source.open();
    const auto options = trainOptions(recipe("lora"), run.job.parameters);
    Trainee trainee({options, 1, &base}, {});
    trainee.restore(runResult(run.path()));
    trainee.parts().setTraining(false);
    const auto difference = (logitsOf(*merged) - logitsOf(trainee.model())).abs().max().item<double>();
    EXPECT_LT(difference, 1e-4);
    const auto untouched = LanguageModel::load(base, {});
    EXPECT_GT((logitsOf(*merged) - logitsOf(*untouched)).abs().max().item<double>(), 1e-2);
}

TEST(Lora, MergingRefusesAnAdapterOfAnotherModel) {
    auto run = tinyRun("lora", {});
    run.run();
    const auto other = tinyLlama({.ffnSize = 29});
    const TempFolder out;
    try {
        mergeAdapter(other.open(), runResult(run.path()), out / "merged");
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Mismatch);
    }
    EXPECT_FALSE(std::filesystem::exists(out / "merged"));
}

}  // namespace
}  // namespace resect::test
