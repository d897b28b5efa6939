#include "core/base/error.h"
#include "core/export/gguf_architecture.h"
#include "core/export/gguf_layout.h"
#include "tests/core/export/exported.h"
#include "tests/core/surgery/shapes.h"

#include <cstring>

namespace resect::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

GgufPlace place(const char* modelType, const char* name, int block = -1, int expert = -1) {
    return ggufPlace(*findGgufArchitecture(modelType), {name, {4, 4}, TensorRole::QueryWeight, block, expert});
}

TEST(GgufArchitecture, EveryTensorOfEveryFamilyHasAPlaceOfItsOwn) {
    for (const std::string type : {"llama", "mistral", "mixtral", "qwen2", "qwen3"}) {
        const GgufArchitecture* architecture = findGgufArchitecture(type);
        ASSERT_NE(architecture, nullptr) << type;
        ModelShape shape = stockShape(type, {.numExperts = type == "mixtral" ? 4 : 0});
        shape.qkNorm = architecture->qkNorm;
        shape.qkvBias = architecture->qkvBias;
        std::map<std::string, int> used;
        for (const ExpectedTensor& tensor : expectedTensors(shape)) {
            const GgufPlace found = ggufPlace(*architecture, tensor);
            const bool shared = found.step == GgufStep::Expert || found.step == GgufStep::Fused;
            EXPECT_TRUE(shared || ++used[found.name] == 1) << tensor.name;
        }
    }
}

TEST(GgufArchitecture, NamesAsOtherFamiliesSpellThem) {
    EXPECT_EQ(place("gpt2", "transformer.wpe.weight").name, "position_embd.weight");
    EXPECT_EQ(place("gpt2", "transformer.h.2.attn.c_attn.weight", 2).name, "blk.2.attn_qkv.weight");
    EXPECT_EQ(place("gpt2", "h.2.mlp.c_fc.weight", 2).step, GgufStep::Transposed);
    EXPECT_EQ(place("gpt2", "transformer.ln_f.bias").name, "output_norm.bias");
    EXPECT_EQ(place("gemma2", "model.layers.1.post_attention_layernorm.weight", 1).name, "blk.1.post_attention_norm.weight");
    EXPECT_EQ(place("gemma2", "model.layers.1.pre_feedforward_layernorm.weight", 1).name, "blk.1.ffn_norm.weight");
    EXPECT_EQ(place("gemma2", "model.norm.weight").step, GgufStep::PlusOne);
    EXPECT_EQ(place("phi3", "model.layers.0.mlp.gate_up_proj.weight", 0).name, "blk.0.ffn_up.weight");
    EXPECT_EQ(place("phi3", "model.layers.0.self_attn.qkv_proj.weight", 0).name, "blk.0.attn_qkv.weight");
    EXPECT_EQ(place("qwen2_moe", "model.layers.3.mlp.experts.17.up_proj.weight", 3, 17).name, "blk.3.ffn_up_exps.weight");
    EXPECT_EQ(place("qwen2_moe", "model.layers.3.mlp.shared_expert_gate.weight", 3).step, GgufStep::Vector);
    EXPECT_EQ(place("qwen3_moe", "model.layers.3.mlp.gate.weight", 3).step, GgufStep::KeepF32);
    EXPECT_EQ(place("deepseek", "model.layers.3.mlp.shared_experts.down_proj.weight", 3).name, "blk.3.ffn_down_shexp.weight");
    EXPECT_EQ(place("olmoe", "model.layers.3.self_attn.q_norm.weight", 3).name, "blk.3.attn_q_norm.weight");
    EXPECT_THAT(errorOf([] { place("llama", "model.layers.3.self_attn.rotary_emb.inv_freq", 3); }).what(), HasSubstr("inv_freq"));
}

TEST(GgufArchitecture, WindowsByBlockNumberMustStayThere) {
    ModelShape shape = stockShape("gemma2", {.numBlocks = 4});
    shape.activation = "gelu_pytorch_tanh";
    shape.tiedEmbeddings = true;
    shape.attentionSoftcap = shape.finalSoftcap = 30;
    shape.blocks[0].slidingWindow = shape.blocks[2].slidingWindow = 16;
    const GgufArchitecture& gemma = *findGgufArchitecture("gemma2");
    EXPECT_THAT(ggufObstacles(gemma, shape), IsEmpty()) << listed(ggufObstacles(gemma, shape));
    shape.blocks.erase(shape.blocks.begin());
    const auto problems = ggufObstacles(gemma, shape);
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_THAT(problems[0].advice, HasSubstr("runs of 2"));
}

std::vector<float> streamed(const Checkpoint& source, const GgufPlannedTensor& tensor) {
    std::vector<float> values;
    streamTensor(source, tensor).produce([&](std::span<const std::byte> piece) {
        const std::size_t before = values.size();
        values.resize(before + piece.size() / sizeof(float));
        std::memcpy(values.data() + before, piece.data(), piece.size());
    });
    return values;
}

TEST(GgufLayout, TransposesAndAddsOneOnTheWay) {
    const TinyCheckpoint tiny = tinyLlama();
    const Checkpoint source = tiny.open();
    const auto part = [](const std::string& name, std::vector<std::int64_t> shape) {
        SlicedTensor slice{name, name, DType::F32, shape, {}, shape};
        slice.indices.resize(shape.size());
        return slice;
    };
    const std::string down = "model.layers.0.mlp.down_proj.weight", norm = "model.norm.weight";
    const auto turned = streamed(source, {"t", GgufType::F32, {43, 48}, {part(down, {48, 43})}, GgufStep::Transposed, {}});
    const auto stored = valuesOf(source, down);
    ASSERT_EQ(turned.size(), stored.size());
    for (std::size_t r = 0; r < 43; ++r)
        for (std::size_t c = 0; c < 48; ++c) ASSERT_EQ(turned[r * 48 + c], stored[c * 43 + r]);
    const auto raised = streamed(source, {"n", GgufType::F32, {48}, {part(norm, {48})}, GgufStep::PlusOne, {}});
    for (std::size_t i = 0; i < 48; ++i) EXPECT_EQ(raised[i], static_cast<float>(valuesOf(source, norm)[i]) + 1.0f);
}

}  // namespace
}  // namespace resect::test
