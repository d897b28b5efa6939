#include "core/base/files.h"
#include "core/checkpoint/gguf_file.h"
#include "core/export/gguf_export.h"
#include "core/export/gguf_import.h"
#include "core/export/gguf_layout.h"
#include "core/export/gguf_metadata.h"
#include "core/surgery/block_quant.h"
#include "tests/core/export/exported.h"

#include <cmath>
#include <cstring>
#include <stop_token>

namespace resect::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

struct GgufCase : ExportCase {
    using ExportCase::ExportCase;
    fs::path file() const { return out / "model.gguf"; }
    GgufResult write(std::vector<EditPointer> edits = {}, GgufOptions options = {}, const JobContext& job = {}) const {
        return exportGguf(checkpoint, anatomy, cut(std::move(edits)), file(), options, job);
    }
    GgufResult write(std::vector<EditPointer> edits, GgufWay way, std::optional<GgufType> type = {}) const {
        GgufOptions options;
        options.way = way;
        options.type = type;
        return write(std::move(edits), options);
    }
    GgufFile open() const { return GgufFile::open(file()); }
    Checkpoint readBack() const {
        importGguf(open(), out / "imported", std::nullopt, {});
        return Checkpoint::open(out / "imported");
    }
    Error refusal(std::vector<EditPointer> edits, GgufWay way) const {
        const Error error = errorOf([&] { write(std::move(edits), way); });
        EXPECT_FALSE(fs::exists(file()));
        return error;
    }
};

std::vector<float> floats(const GgufFile& file, const std::string& name) {
    const GgufTensor* tensor = file.findTensor(name);
    if (!tensor) {
        ADD_FAILURE() << name << " is missing";
        return {};
    }
    std::vector<float> values(static_cast<std::size_t>(tensor->numel()));
    decodeBlocks(tensor->type, file.bytes(*tensor).data(), values.size(), values.data());
    return values;
}

std::vector<std::int64_t> numbers(const GgufFile& file, const std::string& key) {
    std::vector<std::int64_t> values;
    const GgufArray& array = file.find(key)->array();
    for (std::size_t i = 0; i < array.size(); ++i) values.push_back(static_cast<std::int64_t>(array.number(i)));
    return values;
}

void expectSameTensors(const Checkpoint& expected, const Checkpoint& found) {
    ASSERT_EQ(expected.tensors().size(), found.tensors().size());
    for (const TensorInfo& tensor : expected.tensors()) {
        const TensorInfo* other = found.find(tensor.name);
        ASSERT_NE(other, nullptr) << tensor.name;
        EXPECT_EQ(other->shape, tensor.shape) << tensor.name;
        EXPECT_EQ(valuesOf(found, tensor.name), valuesOf(expected, tensor.name)) << tensor.name;
    }
}

bool allZero(const std::vector<double>& values) {
    return std::all_of(values.begin(), values.end(), [](double value) { return value == 0; });
}

class EveryFamily : public testing::TestWithParam<std::string> {
protected:
    TinyCheckpoint make() const {
        const std::string name = GetParam();
        if (name == "llama") return tinyLlama();
        if (name == "llama-biases-tied") return tinyLlama({.tied = true, .attentionBias = true, .mlpBias = true});
        if (name == "llama-bf16") return tinyLlama({.dtype = DType::BF16});
        if (name == "mistral") return tinyMistral();
        if (name == "qwen2") return tinyQwen2({.hiddenSize = 60});
        if (name == "qwen2-as-llama") return tinyQwen2();
        if (name == "qwen3-tied") return tinyQwen3({.tied = true});
        return tinyMixtral();
    }
};

TEST_P(EveryFamily, ComesBackFromTheFileAsItWas) {
    const GgufCase c(make());
    const GgufResult result = c.write();
    EXPECT_EQ(result.maxError, 0);
    EXPECT_EQ(result.bytes, fs::file_size(c.file()));
    EXPECT_EQ(c.left(), std::vector<std::string>{"model.gguf"});
    const Checkpoint back = c.readBack();
    expectSameTensors(c.checkpoint, back);
    const Anatomy anatomy = Anatomy::of(back);
    ASSERT_TRUE(anatomy.understood()) << listed(anatomy.problems());
    ModelShape expected = c.anatomy.shape(), found = anatomy.shape();
    if (expected.modelType == "mistral") expected.modelType = "llama", expected.architecture = "LlamaForCausalLM";
    expected.bosId = found.bosId;  // of the tokenizer, which this file has none of
    expected.eosIds = found.eosIds;
    EXPECT_EQ(found, expected);
}

TEST_P(EveryFamily, HalfTheBlocksAndPaddedWidths) {
    const GgufCase c(make());
    const GgufResult result = c.write({dropBlocks({0})}, GgufWay::Uniform);
    EXPECT_EQ(c.open().integer(result.architecture + ".block_count"), 2);
    EXPECT_EQ(valuesOf(c.readBack(), "model.layers.0.self_attn.k_proj.weight"), valuesOf(c.checkpoint, "model.layers.1.self_attn.k_proj.weight"));
}

INSTANTIATE_TEST_SUITE_P(Families, EveryFamily,
                         testing::Values("llama", "llama-biases-tied", "llama-bf16", "mistral", "qwen2", "qwen2-as-llama", "qwen3-tied", "mixtral"),
                         [](const auto& info) {
                             std::string name = info.param;
                             std::replace(name.begin(), name.end(), '-', '_');
                             return name;
                         });

TEST(ExportGguf, LlamaInterleavesTheHalvesOfEachHead) {
    const GgufCase c(tinyLlama({.attentionBias = true}));
    c.write();
    const GgufFile file = c.open();
    const auto source = valuesOf(c.checkpoint, "model.layers.1.self_attn.q_proj.weight"), bias = valuesOf(c.checkpoint, "model.layers.1.self_attn.k_proj.bias");
    const auto found = floats(file, "blk.1.attn_q.weight"), foundBias = floats(file, "blk.1.attn_k.bias");
    constexpr std::size_t heads = 6, dim = 10, width = 48;
    for (std::size_t head = 0; head < heads; ++head)
        for (std::size_t i = 0; i < dim; ++i)
            for (std::size_t x = 0; x < width; ++x)
                ASSERT_EQ(found[(head * dim + i) * width + x], source[(head * dim + (i % 2) * dim / 2 + i / 2) * width + x]);
    for (std::size_t i = 0; i < 20; ++i) EXPECT_EQ(foundBias[i], bias[i / dim * dim + (i % dim % 2) * dim / 2 + i % dim / 2]);
}

TEST(ExportGguf, QwenKeepsTheRowsOfQueries) {
    const GgufCase c(tinyQwen2({.hiddenSize = 60}));
    EXPECT_EQ(c.write().architecture, "qwen2");
    const auto found = floats(c.open(), "blk.2.attn_q.weight");
    EXPECT_EQ(std::vector<double>(found.begin(), found.end()), valuesOf(c.checkpoint, "model.layers.2.self_attn.q_proj.weight"));
}

TEST(ExportGguf, QwenWithHeadsThatDoNotFillTheHiddenSizeGoesByLlamasGraph) {
    const GgufCase c(tinyQwen2());
    const GgufResult result = c.write();
    EXPECT_EQ(result.architecture, "llama");
    EXPECT_THAT(listed(result.notes), HasSubstr("computes the same"));
    EXPECT_THAT(listed(result.notes), HasSubstr("query biases"));
    EXPECT_EQ(Anatomy::of(c.readBack()).shape().modelType, "qwen2");
}

TEST(ExportGguf, MixtralStacksItsExperts) {
    const GgufCase c(tinyMixtral());
    c.write();
    const GgufFile file = c.open();
    EXPECT_EQ(file.text("general.architecture"), "llama");
    EXPECT_EQ(file.integer("llama.expert_count"), 4);
    EXPECT_EQ(file.integer("llama.expert_used_count"), 2);
    EXPECT_EQ(file.findTensor("blk.0.ffn_gate_exps.weight")->shape, (std::vector<std::int64_t>{4, 43, 48}));
    EXPECT_EQ(file.findTensor("blk.0.ffn_down_exps.weight")->shape, (std::vector<std::int64_t>{4, 48, 43}));
    const auto stack = floats(file, "blk.1.ffn_up_exps.weight");
    const auto third = valuesOf(c.checkpoint, "model.layers.1.block_sparse_moe.experts.2.w3.weight");
    EXPECT_TRUE(std::equal(third.begin(), third.end(), stack.begin() + 2 * 43 * 48));
    EXPECT_EQ(file.findTensor("blk.0.ffn_gate_inp.weight")->type, GgufType::F32);
    EXPECT_THAT(file.text("general.size_label"), HasSubstr("4x"));
}

TEST(ExportGguf, MetadataSaysWhatTheModelIs) {
    const GgufCase c(tinyLlama({.ropeScaling = {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32}, {"attention_factor", 1.5}}, .ropeTheta = 5e5}));
    const GgufResult result = c.write();
    const GgufFile file = c.open();
    EXPECT_EQ(file.integer("llama.context_length"), 128);
    EXPECT_EQ(file.integer("llama.embedding_length"), 48);
    EXPECT_EQ(file.integer("llama.feed_forward_length"), 43);
    EXPECT_EQ(file.integer("llama.attention.head_count"), 6);
    EXPECT_EQ(file.integer("llama.attention.head_count_kv"), 2);
    EXPECT_EQ(file.integer("llama.attention.key_length"), 10);
    EXPECT_EQ(file.integer("llama.attention.value_length"), 10);
    EXPECT_EQ(file.integer("llama.rope.dimension_count"), 10);
    EXPECT_EQ(file.number("llama.rope.freq_base"), 5e5);
    EXPECT_EQ(file.number("llama.attention.layer_norm_rms_epsilon"), double{1e-5f});
    EXPECT_EQ(file.text("llama.rope.scaling.type"), "yarn");
    EXPECT_EQ(file.number("llama.rope.scaling.factor"), 4);
    EXPECT_EQ(file.integer("llama.rope.scaling.original_context_length"), 32);
    EXPECT_NEAR(file.number("llama.rope.scaling.attn_factor"), 1.5 / (0.1 * std::log(4) + 1), 1e-6);
    EXPECT_EQ(file.integer("llama.vocab_size"), 61);
    EXPECT_EQ(readGgufModel(file).shape.ropeScaling.kind, RopeScaling::Kind::Yarn);
    EXPECT_NEAR(*readGgufModel(file).shape.ropeScaling.attentionFactor, 1.5, 1e-6);
    EXPECT_THAT(result.notes, IsEmpty());
}

TEST(ExportGguf, Llama3ScalingBecomesDivisorsOfTheFrequencies) {
    const Json cases = readJsonFile(ownData("golden/rope_inv_freq.json")).at("rows");
    int compared = 0;
    for (const Json& entry : cases) {
        if (entry.at("rope_type") != "llama3") continue;
        Json config = tinyLlama().config;
        for (const char* field : {"rope_scaling", "rope_theta", "head_dim", "max_position_embeddings"}) config[field] = entry.at(field);
        const ModelShape shape = readModelShape(config, nullptr, "config.json");
        const auto factors = ropeFactors(shape);
        const auto expected = entry.at("inv_freq").get<std::vector<double>>();
        ASSERT_EQ(factors.size(), expected.size());
        for (std::size_t i = 0; i < factors.size(); ++i) {
            const double plain = std::pow(shape.ropeTheta, -2.0 * static_cast<double>(i) / shape.blocks.front().headDim);
            EXPECT_NEAR(plain / factors[i] / expected[i], 1, 1e-5);
        }
        ++compared;
    }
    EXPECT_GT(compared, 0);

    const GgufCase c(tinyLlama({.ropeScaling = {{"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 64}}}));
    c.write();
    EXPECT_EQ(c.open().findTensor("rope_freqs.weight")->shape, (std::vector<std::int64_t>{5}));
    const RopeScaling back = readGgufModel(c.open()).shape.ropeScaling;
    EXPECT_EQ(back, c.anatomy.shape().ropeScaling);
}

TEST(ExportGguf, TheWindowBoundsTheContextWhereLlamaCppHasNone) {
    const GgufCase c(tinyMistral({.slidingWindow = 24}));
    const GgufResult result = c.write();
    EXPECT_EQ(c.open().integer("llama.context_length"), 24);
    EXPECT_THAT(listed(result.notes), HasSubstr("sliding window"));
}

// ---- blocks of different sizes ----

TEST(ExportGguf, BlocksOfDifferentSizesBecomeDeci) {
    const GgufCase c(tinyLlama({.numBlocks = 6}));
    const GgufResult result = c.write({dropKvGroups(0, {1}), dropHeads(1, {0}), dropAttention({2}), dropMlp({3}), dropAttention({4}), dropMlp({4}), dropChannels(5, {1, 2, 3})},
                                      GgufWay::Heterogeneous);
    EXPECT_EQ(result.architecture, "deci");
    const GgufFile file = c.open();
    EXPECT_EQ(file.integer("deci.block_count"), 5) << "block 4 is only its residual stream";
    EXPECT_THAT(numbers(file, "deci.attention.head_count"), ElementsAre(3, 6, 0, 6, 6)) << "block 1 has groups of 2 and 3 heads, padded to 3";
    EXPECT_THAT(numbers(file, "deci.attention.head_count_kv"), ElementsAre(1, 2, 0, 2, 2));
    EXPECT_THAT(numbers(file, "deci.feed_forward_length"), ElementsAre(43, 43, 43, 256, 40)) << "no attention without an MLP";
    EXPECT_EQ(file.integer("deci.rope.dimension_count"), file.integer("deci.attention.key_length"));
    EXPECT_EQ(file.findTensor("blk.2.attn_q.weight"), nullptr);
    EXPECT_EQ(file.findTensor("blk.2.attn_norm.weight"), nullptr);
    const Checkpoint back = c.readBack();
    const ModelShape shape = Anatomy::of(back).shape();
    EXPECT_EQ(shape.modelType, "llama");
    EXPECT_FALSE(shape.blocks[2].hasAttention);
    EXPECT_TRUE(allZero(valuesOf(back, "model.layers.3.mlp.down_proj.weight")));
    EXPECT_EQ(valuesOf(back, "model.layers.3.self_attn.q_proj.weight"), valuesOf(c.checkpoint, "model.layers.3.self_attn.q_proj.weight"));
    EXPECT_EQ(valuesOf(back, "model.layers.4.mlp.gate_proj.weight").size(), 40u * 48);
    const auto q = valuesOf(back, "model.layers.1.self_attn.q_proj.weight"), sourceQ = valuesOf(c.checkpoint, "model.layers.1.self_attn.q_proj.weight");
    EXPECT_TRUE(std::equal(q.begin(), q.begin() + 2 * 10 * 48, sourceQ.begin() + 10 * 48)) << "heads 1 and 2 move up";
    EXPECT_TRUE(allZero({q.begin() + 2 * 10 * 48, q.begin() + 3 * 10 * 48}));
}

TEST(ExportGguf, Block0KeepsAnAttentionOfZeros) {
    const GgufCase c(tinyLlama());
    c.write({dropAttention({0})}, GgufWay::Exact);
    const GgufFile file = c.open();
    EXPECT_THAT(numbers(file, "deci.attention.head_count"), ElementsAre(1, 6, 6));
    EXPECT_TRUE(allZero(valuesOf(c.readBack(), "model.layers.0.self_attn.o_proj.weight")));
}

TEST(ExportGguf, NormedQueriesAndATiedHeadBecomeOpenElm) {
    const GgufCase c(tinyQwen3({.tied = true}));
    const GgufResult result = c.write({dropKvGroups(0, {1}), dropAttention({2}), dropMlp({1})}, GgufWay::Heterogeneous);
    EXPECT_EQ(result.architecture, "openelm");
    const GgufFile file = c.open();
    EXPECT_THAT(numbers(file, "openelm.attention.head_count"), ElementsAre(3, 6, 1)) << "OpenELM has attention in every block";
    EXPECT_THAT(numbers(file, "openelm.feed_forward_length"), ElementsAre(43, 256, 43));
    EXPECT_EQ(file.findTensor("blk.0.attn_qkv.weight")->shape, (std::vector<std::int64_t>{(3 + 1 + 1) * 10, 48}));
    EXPECT_EQ(file.findTensor("blk.0.attn_q.weight"), nullptr);
    const auto fused = floats(file, "blk.1.attn_qkv.weight");
    const auto value = valuesOf(c.checkpoint, "model.layers.1.self_attn.v_proj.weight");
    EXPECT_TRUE(std::equal(value.begin(), value.end(), fused.begin() + (6 + 2) * 10 * 48));
    const Checkpoint back = c.readBack();
    EXPECT_EQ(Anatomy::of(back).shape().modelType, "qwen3");
    EXPECT_EQ(valuesOf(back, "model.layers.1.self_attn.k_proj.weight"), valuesOf(c.checkpoint, "model.layers.1.self_attn.k_proj.weight"));
}

TEST(ExportGguf, RefusalsNameAnAlternative) {
    const auto advice = [](const TinyCheckpoint& tiny, std::vector<EditPointer> edits, GgufWay way) {
        const Error error = GgufCase(tiny).refusal(std::move(edits), way);
        return std::string(error.what());
    };
    EXPECT_THAT(advice(tinyLlama(), {dropChannels(1, {0})}, GgufWay::Uniform), HasSubstr("heterogeneous or padded"));
    EXPECT_THAT(advice(tinyQwen3(), {dropChannels(1, {0})}, GgufWay::Heterogeneous), HasSubstr("--way padded"));
    EXPECT_THAT(advice(tinyMixtral(), {dropAttention({1})}, GgufWay::Heterogeneous), HasSubstr("--way padded"));
    EXPECT_THAT(advice(tinyQwen3({.attentionBias = true}), {}, GgufWay::Uniform), HasSubstr("folder"));
    const Json yarn{{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32}, {"beta_fast", 4.0}, {"beta_slow", 0.1}};
    EXPECT_THAT(advice(tinyLlama({.ropeScaling = yarn}), {}, GgufWay::Uniform), HasSubstr("beta_fast 32"));
    const Json llama3{{"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 64}};
    EXPECT_THAT(advice(tinyQwen2({.hiddenSize = 60, .ropeScaling = llama3}), {}, GgufWay::Uniform), HasSubstr("frequency factors"));
    TinyCheckpoint gelu = tinyLlama();
    gelu.config["hidden_act"] = "gelu";
    gelu.save();
    EXPECT_THAT(advice(gelu, {}, GgufWay::Uniform), HasSubstr("silu"));
}

TEST(ExportGguf, PaddedAndZeroedKeepTheFamily) {
    const GgufCase c(tinyQwen3());
    EXPECT_EQ(c.write({dropKvGroups(1, {0}), dropMlp({2})}, GgufWay::Padded).architecture, "qwen3");
    EXPECT_EQ(c.open().integer("qwen3.attention.head_count_kv"), 2);
    fs::remove(c.file());
    EXPECT_EQ(c.write({dropBlocks({1})}, GgufWay::Zeroed).architecture, "qwen3");
    EXPECT_EQ(c.open().integer("qwen3.block_count"), 3);
}

// ---- types ----

TEST(ExportGguf, BlockTypesAreForMatricesWhoseRowsFit) {
    const GgufCase c(tinyLlama({.hiddenSize = 64, .ffnSize = 43, .tied = true}));
    const GgufResult result = c.write({}, GgufWay::Uniform, GgufType::Q4_0);
    const GgufFile file = c.open();
    EXPECT_EQ(file.findTensor("blk.0.attn_q.weight")->type, GgufType::Q4_0);
    EXPECT_EQ(file.findTensor("token_embd.weight")->type, GgufType::Q8_0) << "it is the head too";
    EXPECT_EQ(file.findTensor("blk.0.ffn_down.weight")->type, GgufType::F16) << "rows of 43";
    EXPECT_EQ(file.findTensor("blk.0.attn_norm.weight")->type, GgufType::F32);
    EXPECT_EQ(file.integer("general.file_type"), 2);
    EXPECT_GT(result.maxError, 0);
    EXPECT_THAT(listed(result.notes), HasSubstr("multiple of 32"));
    fs::remove(c.file());
    c.write({}, GgufWay::Uniform, GgufType::Q8_0);
    const auto found = floats(c.open(), "blk.0.ffn_up.weight");
    const auto source = valuesOf(c.checkpoint, "model.layers.0.mlp.up_proj.weight");
    double worst = 0;
    for (std::size_t i = 0; i < found.size(); ++i) worst = std::max(worst, std::fabs(found[i] - source[i]));
    EXPECT_LT(worst, 0.003);
    EXPECT_GT(worst, 0);
}

TEST(ExportGguf, TypesAreKeptAsStoredOrConverted) {
    const GgufCase c(tinyLlama({.dtype = DType::BF16}));
    c.write();
    EXPECT_EQ(c.open().findTensor("token_embd.weight")->type, GgufType::BF16);
    EXPECT_EQ(c.open().integer("general.file_type"), 32);
    fs::remove(c.file());
    c.write({}, GgufWay::Uniform, GgufType::F16);
    EXPECT_EQ(c.open().findTensor("token_embd.weight")->type, GgufType::F16);
    EXPECT_EQ(c.open().findTensor("output_norm.weight")->type, GgufType::F32);
}

// ---- files ----

TEST(ExportGguf, NothingIsReplacedAndNothingRemainsAfterAStop) {
    const GgufCase c(tinyLlama());
    writeText(c.file(), "mine");
    EXPECT_THAT(errorOf([&] { c.write(); }).what(), HasSubstr("exists"));
    EXPECT_EQ(readFile(c.file()), "mine");
    fs::remove(c.file());
    EXPECT_THAT(errorOf([&] { exportGguf(c.checkpoint, c.anatomy, c.cut({}), c.tiny.path() / "x.gguf", {}, {}); }).what(), HasSubstr("never written to"));
    std::stop_source stop;
    const JobContext job(stop.get_token(), [&](const Progress& progress) {
        if (progress.stage == "reading back") stop.request_stop();
    });
    EXPECT_EQ(errorOf([&] { c.write({}, {}, job); }).code(), ErrorCode::Stopped);
    EXPECT_THAT(c.left(), IsEmpty());
}

TEST(ExportGguf, TheSameInputsGiveTheSameBytes) {
    const GgufCase c(tinyMixtral());
    const std::string first = c.write().sha256;
    fs::remove(c.file());
    EXPECT_EQ(c.write().sha256, first);
}

TEST(ExportGguf, TheSizeIsKnownBefore) {
    const GgufCase c(tinyLlama());
    EXPECT_EQ(ggufExportBytes(c.checkpoint, c.anatomy, c.cut({}), {}), c.write().bytes);
}

TEST(ImportGguf, NamesWhatIsMissingOrLeftOver) {
    const GgufCase c(tinyLlama());
    c.write();
    const GgufFile file = c.open();
    const GgufModel model = readGgufModel(file);
    GgufModel wider = model;
    wider.shape.blocks[1].ffnSize = 44;
    EXPECT_THAT(errorOf([&] { huggingFaceTensors(file, wider, {}); }).what(), HasSubstr("blk.1.ffn_gate.weight"));
    GgufModel fewer = model;
    fewer.shape.blocks.pop_back();
    EXPECT_THAT(errorOf([&] { huggingFaceTensors(file, fewer, {}); }).what(), HasSubstr("no use"));
    GgufModel more = model;
    more.shape.blocks.push_back(more.shape.blocks.back());
    EXPECT_EQ(errorOf([&] { huggingFaceTensors(file, more, {}); }).code(), ErrorCode::NotFound);
}

TEST(GgufMetadata, TitlesAndSizeLabels) {
    EXPECT_EQ(ggufTitle("stories260K-hf"), "stories260K Hf");
    EXPECT_EQ(ggufTitle("tiny"), "Tiny");
    EXPECT_EQ(ggufSizeLabel(260032, 0, 0), "260K");
    EXPECT_EQ(ggufSizeLabel(7'241'732'096, 0, 0), "7.2B");
    EXPECT_EQ(ggufSizeLabel(46'702'792'704, 45'097'156'608, 8), "8x7.2B");
}

}  // namespace
}  // namespace resect::test
