#include "core/base/error.h"
#include "core/train/adamw.h"
#include "core/train/batches.h"
#include "core/train/recipe.h"

#include <gmock/gmock.h>
#include <torch/types.h>

#include <cmath>
#include <set>

namespace resect::test {
namespace {

AdamWSlot slotOf(const torch::Tensor& values, double decay) {
    AdamWSlot slot{"w", values.clone(), {}, torch::zeros_like(values), torch::zeros_like(values), {}, decay};
    slot.master = slot.parameter;
    return slot;
}

TEST(AdamW, FollowsThePublishedFormulaInDoublePrecision) {
    const std::vector<double> gradients{0.5, -2, 0.25, 1e-3};
    const double lr = 0.01, b1 = 0.9, b2 = 0.95, eps = 1e-8, decay = 0.1;
    double p = 1.25, m = 0, v = 0;
    std::vector<AdamWSlot> slots{slotOf(torch::full({3}, 1.25), decay)};
    for (std::size_t t = 1; t <= gradients.size(); ++t) {
        const double g = gradients[t - 1];
        m = b1 * m + (1 - b1) * g;
        v = b2 * v + (1 - b2) * g * g;
        p -= lr * (m / (1 - std::pow(b1, double(t))) / (std::sqrt(v / (1 - std::pow(b2, double(t)))) + eps) + decay * p);
        slots[0].gradient = torch::full({3}, g);
        adamwStep(slots, {lr, b1, b2, eps, static_cast<std::int64_t>(t), 1});
        EXPECT_NEAR(slots[0].parameter[2].item<double>(), p, 1e-6) << "step " << t;
    }
}

TEST(AdamW, FirstStepMovesByTheRateAgainstTheSign) {
    std::vector<AdamWSlot> slots{slotOf(torch::tensor({1.0f, 1.0f}), 0)};
    slots[0].gradient = torch::tensor({3e-4f, -70.0f});
    adamwStep(slots, {.learningRate = 0.125, .step = 1});
    EXPECT_NEAR(slots[0].parameter[0].item<float>(), 0.875, 1e-4);
    EXPECT_NEAR(slots[0].parameter[1].item<float>(), 1.125, 1e-6);
}

TEST(AdamW, FusedEqualsPlainForOddSizesAndBf16) {
    torch::manual_seed(3);
    for (const bool bf16 : {false, true}) {
        std::vector<AdamWSlot> fused, plain;
        for (const std::int64_t size : {1, 7, 33, 2049, 70001}) {
            const auto start = torch::randn({size});
            for (auto* slots : {&fused, &plain}) {
                auto slot = slotOf(start, 0.1);
                if (bf16) slot.parameter = slot.master.to(torch::kBFloat16);
                slots->push_back(std::move(slot));
            }
        }
        for (int t = 1; t <= 3; ++t) {
            for (std::size_t i = 0; i < fused.size(); ++i) {
                auto gradient = torch::randn(fused[i].master.sizes());
                if (bf16) gradient = gradient.to(torch::kBFloat16);
                fused[i].gradient = plain[i].gradient = gradient;
            }
            const AdamWStep step{1e-2, 0.9, 0.99, 1e-8, t, 0.5};
            adamwStep(fused, step);
            adamwStepPlain(plain, step);
        }
        for (std::size_t i = 0; i < fused.size(); ++i) {
            EXPECT_LT((fused[i].master - plain[i].master).abs().max().item<double>(), 2e-6);
            if (bf16) {
                EXPECT_TRUE(fused[i].parameter.equal(fused[i].master.to(torch::kBFloat16)));
            }
        }
    }
}

TEST(AdamW, MasterWeightsKeepUpdatesThatBf16WouldLose) {
    auto slot = slotOf(torch::ones({4}), 0);
    slot.parameter = slot.master.to(torch::kBFloat16);
    std::vector<AdamWSlot> slots{slot};
    for (int t = 1; t <= 10; ++t) {
        slots[0].gradient = torch::ones({4}, torch::kBFloat16);
        adamwStep(slots, {.learningRate = 1e-3, .step = t});
    }
    EXPECT_NEAR(slots[0].master[0].item<double>(), 0.99, 1e-4);
    EXPECT_NEAR(slots[0].parameter[0].item<double>(), 0.99, 4e-3);
    EXPECT_LT(slots[0].parameter[0].item<double>(), 1);
}

TEST(AdamW, LeavesTensorsWithoutGradientAlone) {
    std::vector<AdamWSlot> slots{slotOf(torch::ones({2}), 0.5)};
    adamwStep(slots, {.learningRate = 1});
    EXPECT_TRUE(slots[0].parameter.equal(torch::ones({2})));
}

TEST(GradientNorm, IsTheLengthOfAllGradientsTogether) {
    std::vector<AdamWSlot> slots{slotOf(torch::zeros({2}), 0), slotOf(torch::zeros({40000}), 0), slotOf(torch::zeros({5}), 0)};
    slots[0].gradient = torch::tensor({3.0f, 4.0f});
    slots[1].gradient = torch::full({40000}, 0.06f);
    EXPECT_NEAR(gradientNorm(slots), 13, 1e-5);
    slots[2].gradient = torch::tensor({0.0f, 0.0f, INFINITY, 0.0f, 0.0f});
    EXPECT_FALSE(std::isfinite(gradientNorm(slots)));
    slots[2].gradient = torch::tensor({0.0f, 0.0f, NAN, 0.0f, 0.0f});
    EXPECT_FALSE(std::isfinite(gradientNorm(slots)));
}

TrainOptions scheduled(Schedule schedule) {
    TrainOptions options;
    options.learningRate = 2;
    options.warmupSteps = 4;
    options.minRateRatio = 0.1;
    options.schedule = schedule;
    return options;
}

TEST(LearningRate, WarmsUpLinearlyThenFollowsTheSchedule) {
    for (const auto schedule : {Schedule::Constant, Schedule::Linear, Schedule::Cosine}) {
        const auto options = scheduled(schedule);
        EXPECT_DOUBLE_EQ(learningRateAt(options, 1, 24), 0.5);
        EXPECT_DOUBLE_EQ(learningRateAt(options, 4, 24), 2);
    }
    EXPECT_DOUBLE_EQ(learningRateAt(scheduled(Schedule::Constant), 24, 24), 2);
    EXPECT_DOUBLE_EQ(learningRateAt(scheduled(Schedule::Linear), 14, 24), 2 * (0.1 + 0.9 * 0.5));
    EXPECT_DOUBLE_EQ(learningRateAt(scheduled(Schedule::Linear), 24, 24), 0.2);
    EXPECT_NEAR(learningRateAt(scheduled(Schedule::Cosine), 9, 24), 2 * (0.1 + 0.9 * (0.5 + std::sqrt(0.125))), 1e-12);
    EXPECT_NEAR(learningRateAt(scheduled(Schedule::Cosine), 24, 24), 0.2, 1e-12);
    EXPECT_NEAR(learningRateAt(scheduled(Schedule::Cosine), 30, 24), 0.2, 1e-12);
}

TEST(TotalSteps, CountsEpochsWhenNoStepsAreGiven) {
    TrainOptions options;
    options.steps = 0;
    options.epochs = 2.5;
    options.batchRows = 3;
    options.accumulation = 2;
    EXPECT_EQ(totalSteps(options, 13), 6);  // 32.5 rows at 6 a step
    options.steps = 4;
    EXPECT_EQ(totalSteps(options, 13), 4);
}

TEST(DataOrder, EveryEpochIsAnotherPermutationThatDependsOnTheSeedOnly) {
    DataOrder order(13, 7), again(13, 7), other(13, 8);
    std::vector<std::size_t> first, second, fromOther;
    for (std::uint64_t i = 0; i < 13; ++i) first.push_back(order.rowAt(i));
    for (std::uint64_t i = 13; i < 26; ++i) second.push_back(order.rowAt(i));
    for (std::uint64_t i = 0; i < 13; ++i) fromOther.push_back(other.rowAt(i));
    EXPECT_EQ(std::set<std::size_t>(first.begin(), first.end()).size(), 13u);
    EXPECT_EQ(std::set<std::size_t>(second.begin(), second.end()).size(), 13u);
    EXPECT_NE(first, second);
    EXPECT_NE(first, fromOther);
    EXPECT_EQ(again.rowAt(17), second[4]) << "a position alone is enough to continue";
    EXPECT_EQ(again.rowAt(3), first[3]);
}

TEST(Recipes, RefuseEveryWrongParameterByName) {
    try {
        trainOptions(recipe("lora"), {{"lr", -1}, {"lora_rank", "many"}, {"colour", 3}});
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Usage);
        EXPECT_THAT(error.what(), testing::AllOf(testing::HasSubstr("lr"), testing::HasSubstr("lora_rank"), testing::HasSubstr("colour")));
    }
    EXPECT_THROW(recipe("bold"), Error);
    EXPECT_THROW(trainOptions(recipe("full"), {{"steps", 0}, {"epochs", 0}}), Error);
}

TEST(Recipes, DefaultsOfEveryRecipeAreValid) {
    for (const char* id : {"full", "lora", "pretrain"}) {
        const auto known = recipe(id);
        const auto options = trainOptions(known, nullptr);
        EXPECT_GT(options.learningRate, 0) << known->info().id;
        EXPECT_EQ(known->kind() == Recipe::Kind::Adapter, known->info().id == "lora");
        EXPECT_EQ(known->origin() == Recipe::Origin::RandomWeights, known->info().id == "pretrain");
    }
}

}  // namespace
}  // namespace resect::test
