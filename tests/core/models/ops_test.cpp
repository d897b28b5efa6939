#include "core/models/ops.h"
#include "core/base/error.h"
#include "tests/core/models/tensor_matchers.h"

namespace resect {
namespace {

using torch::Tensor;
using Operation = std::function<Tensor(const std::vector<Tensor>&)>;

struct Outcome {
    Tensor value;
    std::vector<Tensor> gradients;
};

/// Runs the operation on fresh leaves and sends a fixed gradient back.
Outcome run(const Operation& operation, const std::vector<Tensor>& inputs) {
    std::vector<Tensor> leaves;
    for (const auto& input : inputs) {
        leaves.push_back(input.detach().clone().requires_grad_(true));
    }
    Outcome outcome;
    outcome.value = operation(leaves);
    torch::manual_seed(5);
    outcome.value.backward(torch::randn(outcome.value.sizes()).to(outcome.value.scalar_type()));
    for (const auto& leaf : leaves) {
        outcome.gradients.push_back(leaf.grad());
    }
    return outcome;
}

/// The fast version in `type` against the plain one in f64.
void expectFastEqualsPlain(const Operation& operation, const std::vector<Tensor>& inputs, torch::ScalarType type, double tolerance) {
    std::vector<Tensor> given, exact;
    for (const auto& input : inputs) {
        given.push_back(input.to(type));
        exact.push_back(given.back().to(torch::kFloat64));
    }
    const Outcome fast = run(operation, given), plain = run(operation, exact);
    EXPECT_TENSOR_CLOSE(fast.value, plain.value, tolerance);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        ASSERT_EQ(fast.gradients[i].defined(), plain.gradients[i].defined()) << "input " << i;
        EXPECT_TENSOR_CLOSE(fast.gradients[i], plain.gradients[i], tolerance) << "input " << i;
    }
}

class FastOps : public testing::TestWithParam<torch::ScalarType> {
protected:
    void SetUp() override { torch::manual_seed(3); }
    double tolerance() const { return GetParam() == torch::kFloat32 ? 2e-6 : 2e-2; }
    void check(const Operation& operation, const std::vector<Tensor>& inputs) { expectFastEqualsPlain(operation, inputs, GetParam(), tolerance()); }
};

TEST_P(FastOps, RmsNormEqualsThePlainOne) {
    const Operation norm = [](const std::vector<Tensor>& in) { return ops::rmsNorm(in[0], in[1], 1e-5); };
    check(norm, {torch::randn({3, 5, 48}), torch::randn({48})});
    check(norm, {torch::randn({1, 300, 43}) * 4, torch::randn({43})});
    check(norm, {torch::randn({2, 7, 3, 10}), torch::randn({10})});
}

TEST_P(FastOps, RotationEqualsThePlainOne) {
    const auto angle = torch::rand({1, 7, 5}) * 6;
    const auto perRow = torch::rand({3, 7, 9}) * 6;
    check([&](const std::vector<Tensor>& in) { return ops::rotate(in[0], angle.cos(), angle.sin()); }, {torch::randn({3, 7, 4, 10})});
    check([&](const std::vector<Tensor>& in) { return ops::rotate(in[0], perRow.cos(), perRow.sin()); }, {torch::randn({3, 7, 2, 18})});
    check([&](const std::vector<Tensor>& in) { return ops::rotate(in[0].narrow(2, 1, 2), angle.cos(), angle.sin()); }, {torch::randn({3, 7, 4, 10})});
}

TEST_P(FastOps, GatedSiluEqualsThePlainOne) {
    const Operation gated = [](const std::vector<Tensor>& in) { return ops::gatedActivation(in[0], in[1], "silu"); };
    check(gated, {torch::randn({2, 3, 43}) * 5, torch::randn({2, 3, 43})});
    check(gated, {torch::tensor({-200.0f, -90.0f, -1e-8f, 0.0f, 90.0f, 200.0f}), torch::ones({6})});
}

TEST_P(FastOps, LinearEqualsThePlainOne) {
    check([](const std::vector<Tensor>& in) { return ops::linear(in[0], in[1], {}); }, {torch::randn({2, 33, 24}), torch::randn({70, 24})});
    check([](const std::vector<Tensor>& in) { return ops::linear(in[0], in[1], in[2]); },
          {torch::randn({2, 3, 24}), torch::randn({7, 24}), torch::randn({7})});
    check([](const std::vector<Tensor>& in) { return ops::linear(in[0].transpose(0, 1), in[1], {}); }, {torch::randn({5, 3, 24}), torch::randn({1, 24})});
    check([](const std::vector<Tensor>& in) { return ops::linear(in[0], in[1], {}); }, {torch::randn({1, 1, 240}), torch::randn({700, 240})});
}

TEST_P(FastOps, HeadLossEqualsThePlainOne) {
    auto targets = torch::randint(61, {37}, torch::kInt64);
    const Operation loss = [&](const std::vector<Tensor>& in) { return ops::headLoss(in[0], in[1], targets) * 3; };
    check(loss, {torch::randn({37, 20}), torch::randn({61, 20})});
    targets.slice(0, 4, 20).fill_(-100);
    check(loss, {torch::randn({37, 20}), torch::randn({61, 20})});
}

INSTANTIATE_TEST_SUITE_P(Types, FastOps, testing::Values(torch::kFloat32, torch::kBFloat16),
                         [](const auto& info) { return info.param == torch::kFloat32 ? "f32" : "bf16"; });

TEST(HeadLoss, IsZeroWithoutTargets) {
    const auto hidden = torch::randn({4, 6}).requires_grad_(true);
    const auto loss = ops::headLoss(hidden, torch::randn({9, 6}), torch::full({4}, -100, torch::kInt64));
    EXPECT_EQ(loss.item<float>(), 0);
    loss.backward();
    EXPECT_TENSOR_NEAR(hidden.grad(), torch::zeros({4, 6}), 0);
}

TEST(HeadLoss, ShowsANanInsteadOfHidingIt) {
    auto hidden = torch::randn({4, 6});
    hidden[2][3] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(std::isnan(ops::headLoss(hidden, torch::randn({9, 6}), torch::zeros({4}, torch::kInt64)).item<float>()));
}

TEST(HeadLoss, RefusesASecondBackwardPass) {  // its gradients are handed over, not kept
    const auto hidden = torch::randn({4, 6}).requires_grad_(true);
    const auto loss = ops::headLoss(hidden, torch::randn({9, 6}), torch::zeros({4}, torch::kInt64));
    loss.backward({}, /*retain_graph=*/true);
    EXPECT_THROW(loss.backward(), c10::Error);
}

TEST(HeadLoss, ChunksOfRowsAddUpToTheWhole) {  // 40,000 classes x 1,100 rows do not fit one chunk
    torch::manual_seed(1);
    const auto hidden = torch::randn({1100, 6}).requires_grad_(true), weight = torch::randn({40000, 6}).requires_grad_(true);
    const auto targets = torch::randint(40000, {1100}, torch::kInt64);
    ops::headLoss(hidden, weight, targets).backward();
    const auto dHidden = hidden.grad().clone(), dWeight = weight.grad().clone();
    hidden.mutable_grad().reset();
    weight.mutable_grad().reset();
    const ops::PlainKernels plain;
    ops::headLoss(hidden, weight, targets).backward();
    EXPECT_TENSOR_CLOSE(dHidden, hidden.grad(), 1e-4);
    EXPECT_TENSOR_CLOSE(dWeight, weight.grad(), 1e-4);
}

TEST(GatedActivation, KnowsTheOtherActivationsAndRefusesUnknownOnes) {
    const auto x = torch::randn({3, 5}), one = torch::ones({3, 5});
    EXPECT_TENSOR_NEAR(ops::gatedActivation(x, one, "gelu"), torch::gelu(x), 1e-6);
    EXPECT_TENSOR_NEAR(ops::gatedActivation(x, one, "gelu_pytorch_tanh"), torch::gelu(x, "tanh"), 1e-6);
    EXPECT_TENSOR_NEAR(ops::gatedActivation(x, one, "relu"), torch::relu(x), 1e-6);
    EXPECT_THROW(ops::gatedActivation(x, one, "mystery"), Error);
}

}  // namespace
}  // namespace resect
