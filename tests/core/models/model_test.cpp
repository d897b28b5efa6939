#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/models/branch.h"
#include "core/models/decoder.h"
#include "core/surgery/slice_plan.h"
#include "tests/core/models/tensor_matchers.h"
#include "tests/support/tiny_checkpoint.h"

#include <cstring>

namespace resect {
namespace {

using test::TinyCheckpoint;
using test::TinyOptions;
using torch::Tensor;

Tensor someIds(std::int64_t rows, std::int64_t tokens, std::uint64_t seed = 4) {
    torch::manual_seed(seed);
    return torch::randint(61, {rows, tokens}, torch::kInt64);
}

struct FamilyCase {
    std::string name;
    TinyCheckpoint (*make)(const TinyOptions&);
    TinyOptions options;
};
void PrintTo(const FamilyCase& value, std::ostream* out) { *out << value.name; }

std::vector<FamilyCase> families() {
    return {{"llama", test::tinyLlama, {}},
            {"llama_biased_tied", test::tinyLlama, {.tied = true, .attentionBias = true, .mlpBias = true}},
            {"mistral", test::tinyMistral, {.slidingWindow = 5}},
            {"qwen2", test::tinyQwen2, {.slidingWindow = 6}},
            {"qwen3", test::tinyQwen3, {}},
            {"mixtral", test::tinyMixtral, {}}};
}

class EveryFamily : public testing::TestWithParam<FamilyCase> {
protected:
    void SetUp() override {
        m_checkpoint = GetParam().make(GetParam().options);
        m_opened = std::make_unique<Checkpoint>(m_checkpoint.open());
        m_model = LanguageModel::load(*m_opened, {});
    }
    torch::NoGradGuard m_noGrad;
    TinyCheckpoint m_checkpoint;
    std::unique_ptr<Checkpoint> m_opened;
    std::unique_ptr<LanguageModel> m_model;
};

TEST_P(EveryFamily, CachedPiecesEqualTheWholeForwardPass) {
    const auto ids = someIds(3, 19);
    const auto whole = m_model->logits({ids, {}, {}});
    const auto cache = m_model->makeCache(3, 19);
    std::vector<Tensor> pieces;
    for (const auto& [begin, end] : {std::pair{0, 7}, {7, 8}, {8, 9}, {9, 17}, {17, 19}}) {
        pieces.push_back(m_model->logits({ids.slice(1, begin, end), {}, {}}, nullptr, cache.get()));
        EXPECT_EQ(cache->length(), end);
    }
    EXPECT_TENSOR_NEAR(torch::cat(pieces, 1), whole, 2e-5);
    cache->truncate(9);  // and again from there
    EXPECT_TENSOR_NEAR(m_model->logits({ids.slice(1, 9), {}, {}}, nullptr, cache.get()), whole.slice(1, 9), 2e-5);
}

TEST_P(EveryFamily, CachesRowsPaddedOnTheLeft) {
    const auto ids = someIds(2, 12);
    auto mask = torch::ones({2, 12}, torch::kBool);
    mask[1].slice(0, 0, 5).fill_(false);
    const auto whole = m_model->logits({ids, mask, {}});
    const auto cache = m_model->makeCache(2, 12);
    m_model->logits({ids.slice(1, 0, 8), mask.slice(1, 0, 8), {}}, nullptr, cache.get());
    const auto rest = m_model->logits({ids.slice(1, 8), {}, {}}, nullptr, cache.get());
    EXPECT_TENSOR_NEAR(rest, whole.slice(1, 8), 2e-5);
    EXPECT_TENSOR_NEAR(whole[1].slice(0, 5), m_model->logits({ids.slice(0, 1).slice(1, 5), {}, {}})[0], 2e-5);
}

TEST_P(EveryFamily, PackedDocumentsDoNotSeeEachOther) {
    const auto a = someIds(1, 8, 1), b = someIds(1, 11, 2);
    const auto packed = torch::cat({a, b}, 1);
    const auto documents = torch::cat({torch::zeros({1, 8}, torch::kInt64), torch::ones({1, 11}, torch::kInt64)}, 1);
    const auto logits = m_model->logits({packed, {}, documents});
    EXPECT_TENSOR_NEAR(logits.slice(1, 0, 8), m_model->logits({a, {}, {}}), 2e-5);
    EXPECT_TENSOR_NEAR(logits.slice(1, 8), m_model->logits({b, {}, {}}), 2e-5);
}

TEST_P(EveryFamily, LossIsTheMeanCrossEntropyOfItsLogits) {
    const auto ids = someIds(2, 9);
    auto targets = ids.roll(-1, 1).clone();
    targets.select(1, 8).fill_(-100);
    targets[0].slice(0, 0, 4).fill_(-100);
    const auto logits = m_model->logits({ids, {}, {}});
    const auto expected = torch::cross_entropy_loss(logits.view({-1, 61}), targets.view({-1}));
    EXPECT_TENSOR_NEAR(m_model->loss({ids, {}, {}}, targets), expected, 1e-5);
}

TEST_P(EveryFamily, BlockStreamEqualsTheResidentRun) {
    class Sum : public Observer {
    public:
        bool wants(TapPoint point, int) const override { return point == TapPoint::AfterAttention; }
        void observe(TapPoint, int block, const Tensor& value) override { sums[block] += value.abs().sum().item<double>(); }
        std::map<int, double> sums;
    };
    const std::vector<TokenBatch> batches{{someIds(2, 7), {}, {}}, {someIds(1, 12, 9), {}, {}}};
    Sum resident, streamed;
    std::vector<Tensor> expected, actual(2);
    for (const auto& batch : batches) {
        expected.push_back(m_model->logits(batch, &resident));
    }
    BlockStream stream(*m_opened, {});
    std::vector<std::size_t> order;
    stream.run(batches, &streamed, [&](std::size_t i) { order.push_back(i); }, [&](std::size_t i, const Tensor&, const Tensor& logits) { actual[i] = logits; }, {});
    for (std::size_t i = 0; i < 2; ++i) {
        EXPECT_TENSOR_NEAR(actual[i], expected[i], 0) << i;
    }
    EXPECT_EQ(order, (std::vector<std::size_t>{0, 1, 0, 1, 0, 1, 0, 1}));
    for (const auto& [block, sum] : resident.sums) {
        EXPECT_NEAR(streamed.sums[block], sum, 1e-9 * sum);
    }
}

TEST_P(EveryFamily, HalfPrecisionStaysClose) {
    const auto ids = someIds(2, 16);
    const auto exact = m_model->logits({ids, {}, {}});
    const auto f16 = LanguageModel::load(*m_opened, {.dtype = torch::kFloat16});
    EXPECT_EQ(f16->dtype(), torch::kFloat32);
    EXPECT_TENSOR_CLOSE(f16->logits({ids, {}, {}}), exact, 1e-2);
    const auto f64 = LanguageModel::load(*m_opened, {.dtype = torch::kFloat64});
    EXPECT_TENSOR_CLOSE(exact, f64->logits({ids, {}, {}}), 1e-5);
    if (m_model->shape().numExpertsPerToken == 0) {  // rounding may send a token to another expert
        const auto bf16 = LanguageModel::load(*m_opened, {.dtype = torch::kBFloat16});
        EXPECT_EQ(bf16->dtype(), torch::kBFloat16);
        EXPECT_TENSOR_CLOSE(bf16->logits({ids, {}, {}}), exact, 6e-2);
    }
}

TEST_P(EveryFamily, ParametersCarryTheCheckpointsNames) {
    std::set<std::string> names;
    m_model->visitParameters([&](const std::string& name, Tensor& tensor) {
        const TensorInfo* info = m_opened->find(name);
        ASSERT_NE(info, nullptr) << name;
        EXPECT_EQ(tensor.sizes().vec(), info->shape);
        names.insert(name);
    });
    EXPECT_EQ(names.size(), m_opened->tensors().size());
    EXPECT_EQ(m_model->numParameters(), m_opened->totalParameters());
}

TEST_P(EveryFamily, MaskedRunEqualsTheCutCheckpoint) {
    const Anatomy anatomy = Anatomy::of(*m_opened);
    Cut cut;
    cut.blocks.resize(3);
    cut.blocks[0].heads = {1};
    if (m_model->shape().numExpertsPerToken == 0) {
        cut.blocks[0].channels = {0, 7, 41};
    } else {
        cut.blocks[0].experts = {2};
    }
    cut.blocks[1].attention = true;
    cut.blocks[2].kvGroups = {0};
    const auto ids = someIds(2, 14);
    for (int dropped = -1; dropped < 3; ++dropped) {  // also with a whole block gone
        Cut whole = cut;
        if (dropped >= 0) {
            whole.blocks[static_cast<std::size_t>(dropped)].block = true;
        }
        const SlicePlan plan = slicePlan(*m_opened, anatomy, whole, SliceWay::Exact);
        const WeightSource source = [&](const ExpectedTensor& wanted) {
            for (const SlicedTensor& sliced : plan.tensors) {
                if (sliced.name == wanted.name) {
                    auto tensor = torch::empty(sliced.shape, torch::kFloat32);
                    auto* to = static_cast<std::byte*>(tensor.data_ptr());
                    streamSlice(*m_opened, sliced, DType::F32).produce([&](std::span<const std::byte> piece) {
                        std::memcpy(to, piece.data(), piece.size());
                        to += piece.size();
                    });
                    return tensor;
                }
            }
            throw std::runtime_error("no " + wanted.name);
        };
        const Decoder cutModel(plan.shape, {}, source, Decoder::Parts::All);
        m_model->setCut(whole);
        EXPECT_TENSOR_NEAR(m_model->logits({ids, {}, {}}), cutModel.logits({ids, {}, {}}), 2e-5) << "block " << dropped;
    }
    const auto uncut = LanguageModel::load(*m_opened, {});
    m_model->setCut({});
    EXPECT_TENSOR_NEAR(m_model->logits({ids, {}, {}}), uncut->logits({ids, {}, {}}), 0);
}

INSTANTIATE_TEST_SUITE_P(Families, EveryFamily, testing::ValuesIn(families()), [](const auto& info) { return info.param.name; });

std::unique_ptr<LanguageModel> tinyModel(const TinyOptions& options = {}, LoadOptions load = {}) {
    const auto checkpoint = test::tinyLlama(options);
    return LanguageModel::load(checkpoint.open(), load);
}

TEST(LanguageModel, ObserversSeeTheDocumentedTensors) {
    class All : public Observer {
    public:
        bool wants(TapPoint point, int) const override { return point != TapPoint::AttentionWeights; }
        void observe(TapPoint point, int block, const Tensor& value) override { seen[{point, block}] = value; }
        std::map<std::pair<TapPoint, int>, Tensor> seen;
    };
    const torch::NoGradGuard noGrad;
    const auto model = tinyModel();
    Cut cut;
    cut.blocks.resize(3);
    cut.blocks[1].attention = true;
    model->setCut(cut);
    All all;
    model->logits({someIds(2, 9), {}, {}}, &all);
    for (int block = 0; block < 3; ++block) {
        const auto at = [&](TapPoint point) { return all.seen.at({point, block}); };
        EXPECT_EQ(at(TapPoint::BlockInput).sizes(), (std::vector<std::int64_t>{2, 9, 48}));
        EXPECT_EQ(at(TapPoint::Channels).sizes(), (std::vector<std::int64_t>{2, 9, 43}));
        const auto added = test::distance(at(TapPoint::BlockInput), at(TapPoint::AfterAttention));
        EXPECT_EQ(added == 0, block == 1);
        EXPECT_EQ(all.seen.contains({TapPoint::HeadOutputs, block}), block != 1);
        if (block > 0) {
            EXPECT_TENSOR_NEAR(at(TapPoint::BlockInput), all.seen.at({TapPoint::BlockOutput, block - 1}), 0);
        }
    }
    EXPECT_EQ(all.seen.at({TapPoint::HeadOutputs, 0}).sizes(), (std::vector<std::int64_t>{2, 9, 60}));
}

TEST(LanguageModel, ReplacesLinearsAndBranches) {
    class Doubled : public Linear {
    public:
        explicit Doubled(std::unique_ptr<Linear> inner) : m_inner(std::move(inner)) {}
        Tensor forward(const Tensor& x) const override { return 2 * m_inner->forward(x); }
        Tensor mergedWeight() const override { return 2 * m_inner->mergedWeight(); }
        Tensor bias() const override { return m_inner->bias(); }
        void visitParameters(const std::function<void(const std::string&, Tensor&)>& visit) override { m_inner->visitParameters(visit); }

    private:
        std::unique_ptr<Linear> m_inner;
    };
    const torch::NoGradGuard noGrad;
    const auto model = tinyModel(), other = tinyModel();
    EXPECT_EQ(model->linearRoles(1), (std::vector<std::string>{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                                              "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}));
    model->replaceLinear(1, "mlp.down_proj", [](std::unique_ptr<Linear> inner) { return std::make_unique<Doubled>(std::move(inner)); });
    other->visitParameters([](const std::string& name, Tensor& tensor) {
        if (name == "model.layers.1.mlp.down_proj.weight") {
            tensor.mul_(2);
        }
    });
    const auto ids = someIds(1, 6);
    EXPECT_TENSOR_NEAR(model->logits({ids, {}, {}}), other->logits({ids, {}, {}}), 1e-5);
    EXPECT_THROW(model->replaceLinear(0, "mlp.up", [](std::unique_ptr<Linear> inner) { return inner; }), Error);
    EXPECT_THROW(model->replaceLinear(7, "mlp.up_proj", [](std::unique_ptr<Linear> inner) { return inner; }), Error);

    Cut cut;
    cut.blocks.resize(3);
    cut.blocks[2].attention = true;
    other->setCut(cut);
    model->replaceBranch(2, BranchSlot::Attention, [](std::unique_ptr<Branch>) { return nullptr; });
    EXPECT_TENSOR_NEAR(model->logits({ids, {}, {}}), other->logits({ids, {}, {}}), 1e-5);
}

TEST(LanguageModel, UsesTheAttentionKernelItIsGiven) {
    class Last : public AttentionKernel {  // every token takes its own value
    public:
        Tensor forward(const AttentionInput& input) const override { return input.v_BSGH.repeat_interleave(3, 2); }
    };
    const torch::NoGradGuard noGrad;
    const auto model = tinyModel();
    const auto ids = someIds(1, 6);
    const auto exact = model->logits({ids, {}, {}});
    model->setAttentionKernel(1, std::make_shared<Last>());
    EXPECT_GT(test::distance(model->logits({ids, {}, {}}), exact), 1e-3);
    model->setAttentionKernel(1, nullptr);
    EXPECT_TENSOR_NEAR(model->logits({ids, {}, {}}), exact, 0);
}

TEST(LanguageModel, RandomWeightsFollowTheSeed) {
    const auto checkpoint = test::tinyQwen3({});
    const ModelShape shape = Anatomy::of(checkpoint.open()).shape();
    const auto ids = someIds(1, 6);
    const auto a = LanguageModel::random(shape, {}, 0.02, 5), b = LanguageModel::random(shape, {}, 0.02, 5), c = LanguageModel::random(shape, {}, 0.02, 6);
    EXPECT_TENSOR_NEAR(a->logits({ids, {}, {}}), b->logits({ids, {}, {}}), 0);
    EXPECT_GT(test::distance(a->logits({ids, {}, {}}), c->logits({ids, {}, {}})), 1e-5);
}

TEST(LanguageModel, RefusesBadBatches) {
    const torch::NoGradGuard noGrad;
    const auto model = tinyModel();
    const auto ids = someIds(1, 6);
    auto past = ids.clone();
    past[0][3] = 61;
    EXPECT_THROW(model->logits({past, {}, {}}), Error);
    EXPECT_THROW(model->logits({ids, torch::ones({1, 5}, torch::kBool).logical_not(), {}}), Error);
    EXPECT_THROW(model->logits({ids, torch::tensor({{true, false, true, true, true, true}}), {}}), Error);
    EXPECT_THROW(model->logits({ids, {}, torch::tensor({{0, 0, 1, 1, 0, 0}}, torch::kInt64)}), Error);
    EXPECT_THROW(model->loss({ids, {}, {}}, someIds(1, 5)), Error);
    const auto cache = model->makeCache(1, 8);
    model->logits({ids, {}, {}}, nullptr, cache.get());
    EXPECT_THROW(model->logits({ids, {}, {}}, nullptr, cache.get()), Error);
    const auto rightPadded = torch::tensor({{true, true, true, true, false, false}});
    EXPECT_THROW(model->logits({ids, rightPadded, {}}, nullptr, model->makeCache(1, 8).get()), Error);
    Cut cut;
    cut.blocks.resize(2);
    EXPECT_THROW(model->setCut(cut), Error);
}

TEST(Olmoe, ClipsQueriesAndKeysAfterTheirNorms) {
    test::TinyCheckpoint tiny = test::tinyFamily("olmoe", {{"clip_qkv", 1e4}});
    const auto run = [&] { return LanguageModel::load(tiny.open(), {torch::kCPU, torch::kFloat64, false})->logits({torch::arange(20).view({2, 10}), {}, {}}); };
    const torch::NoGradGuard noGrad;
    const auto plain = run();
    for (const char* name : {"q_proj", "k_proj"})  // far beyond the limit, were it not for the norm that follows
        for (double& value : tiny.tensor("model.layers.1.self_attn." + std::string(name) + ".weight").values) value *= 1 << 20;
    tiny.save();
    EXPECT_LE((run() - plain).abs().max().item<double>(), 1e-3);
}

TEST(Generate, IsReproducibleAndRespectsItsLimits) {
    const auto model = tinyModel();
    const std::vector<std::int64_t> prompt{1, 5, 9};
    const SamplingOptions sampled{.maxNewTokens = 12, .temperature = 1.2, .topK = 20, .topP = 0.9, .seed = 3};
    const auto first = generate(*model, prompt, sampled, {});
    EXPECT_EQ(generate(*model, prompt, sampled, {}), first);
    EXPECT_LE(first.size(), 12u);
    const auto greedy = generate(*model, prompt, {.maxNewTokens = 5}, {});
    EXPECT_EQ(generate(*model, prompt, {.maxNewTokens = 5, .temperature = 0.7, .topK = 1, .seed = 8}, {}), greedy);
    double total = 0;
    generate(*model, prompt, {.maxNewTokens = 5}, {}, [&](std::int64_t, double logProbability) { total += logProbability; });
    EXPECT_LT(total, 0);
    // A vocabulary that is padded past the tokenizer's: ids there are never chosen.
    const auto limited = generate(*model, prompt, {.maxNewTokens = 40, .temperature = 5, .seed = 2, .idLimit = 7}, {});
    for (const auto id : limited) EXPECT_LT(id, 7);
    EXPECT_THROW(generate(*model, std::span<const std::int64_t>{}, {}, {}), Error);
    std::stop_source source;
    const JobContext job(source.get_token(), {});
    int seen = 0;
    generate(*model, prompt, {.maxNewTokens = 12}, job, [&](std::int64_t, double) { ++seen, source.request_stop(); });
    EXPECT_EQ(seen, 1);
}

TEST(Names, OfDevicesAndTypesAreChecked) {
    EXPECT_EQ(parseDevice("cpu"), torch::Device(torch::kCPU));
    EXPECT_THROW(parseDevice("gpu"), Error);
    EXPECT_THROW(parseDevice("cuda:x"), Error);
    if (!at::hasCUDA()) {
        EXPECT_THROW(parseDevice("cuda"), Error);
        EXPECT_EQ(parseDevice("auto"), torch::Device(torch::kCPU));
    }
    EXPECT_EQ(parseDtype("bf16"), torch::kBFloat16);
    EXPECT_EQ(parseDtype("float32"), torch::kFloat32);
    EXPECT_THROW(parseDtype("int8"), Error);
}

}  // namespace
}  // namespace resect
