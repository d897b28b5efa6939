#include "core/models/attention.h"
#include "tests/core/models/tensor_matchers.h"

#include <cmath>
#include <numeric>

namespace resect {
namespace {

using torch::Tensor;

struct Case {
    std::string name;
    std::int64_t batch, tokens;
    std::vector<int> headsPerKv;
    std::int64_t headDim;
    int window = 0;
    bool bounds = false;  ///< lower bounds per token, as packed documents and padding give
    std::int64_t offset = 0;
    torch::ScalarType type = torch::kFloat32;
};
void PrintTo(const Case& value, std::ostream* out) { *out << value.name; }

class BlockedAttention : public testing::TestWithParam<Case> {
protected:
    void SetUp() override {
        torch::manual_seed(11);
        const Case& c = GetParam();
        const std::int64_t heads = std::accumulate(c.headsPerKv.begin(), c.headsPerKv.end(), 0), groups = static_cast<std::int64_t>(c.headsPerKv.size());
        q = torch::randn({c.batch, c.tokens, heads, c.headDim}).to(c.type);
        k = torch::randn({c.batch, c.offset + c.tokens, groups, c.headDim}).to(c.type);
        v = torch::randn({c.batch, c.offset + c.tokens, groups, c.headDim}).to(c.type);
        if (c.bounds) {
            first = torch::zeros({c.batch, c.tokens}, torch::kInt32);
            for (std::int64_t b = 0; b < c.batch; ++b) {
                const std::int64_t cut = c.tokens / 3 + b;
                first[b].slice(0, cut).fill_(c.offset + cut);
            }
        }
    }
    AttentionInput input(const Tensor& qq, const Tensor& kk, const Tensor& vv) const {
        AttentionInput in;
        in.q_BTNH = qq;
        in.k_BSGH = kk;
        in.v_BSGH = vv;
        in.headsPerKv = &GetParam().headsPerKv;
        in.span = {first, GetParam().offset, GetParam().window};
        in.scale = 1 / std::sqrt(static_cast<double>(GetParam().headDim));
        return in;
    }
    double tolerance() const { return GetParam().type == torch::kFloat32 ? 3e-6 : 2e-2; }
    Tensor q, k, v, first;
};

TEST_P(BlockedAttention, EqualsTheWrittenOutOne) {
    const torch::NoGradGuard noGrad;
    const auto wide = [](const Tensor& x) { return x.to(torch::kFloat64); };
    EXPECT_TENSOR_CLOSE(exactAttention()->forward(input(q, k, v)), plainAttention(input(wide(q), wide(k), wide(v))), tolerance());
}

TEST_P(BlockedAttention, SendsTheSameGradientsBack) {
    if (GetParam().offset > 0) {
        GTEST_SKIP() << "a cache is for inference";
    }
    std::vector<Tensor> fast, plain;
    for (const auto& x : {q, k, v}) {
        fast.push_back(x.detach().clone().requires_grad_(true));
        plain.push_back(x.detach().to(torch::kFloat64).requires_grad_(true));
    }
    const auto gradient = torch::randn(q.sizes()).to(GetParam().type);
    const auto out = exactAttention()->forward(input(fast[0], fast[1], fast[2]));
    const auto expected = plainAttention(input(plain[0], plain[1], plain[2]));
    EXPECT_TENSOR_CLOSE(out, expected, tolerance());
    out.backward(gradient);
    expected.backward(gradient.to(torch::kFloat64));
    for (std::size_t i = 0; i < 3; ++i) {
        const double size = std::max(1.0, plain[i].grad().abs().max().item<double>());  // exactly 0 where only one key is seen
        EXPECT_TENSOR_NEAR(fast[i].grad(), plain[i].grad(), 2 * tolerance() * size) << "qkv"[i];
    }
}

TEST_P(BlockedAttention, TakesStridedViews) {
    const torch::NoGradGuard noGrad;
    const auto strided = [](const Tensor& x) { return x.transpose(1, 2).contiguous().transpose(1, 2); };
    EXPECT_TENSOR_NEAR(exactAttention()->forward(input(strided(q), strided(k), strided(v))), exactAttention()->forward(input(q, k, v)), 0);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, BlockedAttention,
    testing::Values(Case{"grouped", 2, 130, {3, 3}, 16}, Case{"one_token", 3, 1, {2, 2}, 10}, Case{"odd_head_dim", 1, 70, {2}, 10},
                    Case{"wide_heads", 1, 67, {1, 1}, 136}, Case{"unequal_groups", 2, 33, {1, 3, 2}, 24}, Case{"window", 2, 150, {2, 2}, 24, 9},
                    Case{"wide_window", 1, 200, {2}, 16, 100}, Case{"documents", 3, 90, {2, 2}, 12, 0, true},
                    Case{"documents_and_window", 2, 140, {2}, 16, 20, true}, Case{"cached", 2, 70, {2, 2}, 16, 0, false, 37},
                    Case{"cached_one", 2, 1, {3, 1}, 20, 0, false, 300}, Case{"cached_few_window", 2, 3, {2, 2}, 20, 11, true, 40},
                    Case{"bf16", 2, 130, {3, 3}, 16, 0, false, 0, torch::kBFloat16}, Case{"bf16_cached", 2, 2, {3, 3}, 20, 0, false, 9, torch::kBFloat16}),
    [](const auto& info) { return info.param.name; });

TEST(Attention, UnequalGroupsFollowTheDefinition) {  // head by head, key by key
    torch::manual_seed(2);
    const std::vector<int> headsPerKv{1, 3, 2};
    const std::vector<int> groupOfHead{0, 1, 1, 1, 2, 2};
    const auto q = torch::randn({1, 5, 6, 8}), k = torch::randn({1, 5, 3, 8}), v = torch::randn({1, 5, 3, 8});
    AttentionInput input{q, k, v, &headsPerKv, {}, 0.25};
    const auto out = exactAttention()->forward(input);
    for (int head = 0; head < 6; ++head) {
        const int group = groupOfHead[static_cast<std::size_t>(head)];
        for (int t = 0; t < 5; ++t) {
            std::vector<double> weight;
            for (int s = 0; s <= t; ++s) {
                weight.push_back(std::exp(0.25 * torch::dot(q[0][t][head], k[0][s][group]).item<double>()));
            }
            const double mass = std::accumulate(weight.begin(), weight.end(), 0.0);
            auto expected = torch::zeros({8}, torch::kFloat64);
            for (int s = 0; s <= t; ++s) {
                expected += v[0][s][group].to(torch::kFloat64) * (weight[static_cast<std::size_t>(s)] / mass);
            }
            EXPECT_TENSOR_NEAR(out[0][t][head], expected, 1e-5);
        }
    }
}

}  // namespace
}  // namespace resect
