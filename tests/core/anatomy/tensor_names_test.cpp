#include "core/anatomy/anatomy.h"
#include "tests/support/tiny_checkpoint.h"

#include <gmock/gmock.h>

namespace resect::test {
namespace {

using testing::HasSubstr;

/// Every tensor of the canonical checkpoint is found in the renamed one, with the same values, and nothing else.
void expectSame(const TinyCheckpoint& canonical, const TinyCheckpoint& renamed) {
    const Checkpoint expected = canonical.open(), found = renamed.open();
    const Anatomy anatomy = Anatomy::of(found);
    ASSERT_TRUE(anatomy.understood()) << anatomy.problems().front().subject << ": " << anatomy.problems().front().message;
    ASSERT_EQ(found.tensors().size(), expected.tensors().size());
    for (const TensorInfo& tensor : expected.tensors()) {
        ASSERT_TRUE(found.find(tensor.name)) << tensor.name;
        EXPECT_EQ(found.find(tensor.name)->shape, tensor.shape);
        EXPECT_EQ(valuesOf(found, tensor.name), valuesOf(expected, tensor.name)) << tensor.name;
    }
    EXPECT_EQ(found.fingerprint(), expected.fingerprint());
}

void append(TinyTensor& to, const TinyTensor& from) { to.values.insert(to.values.end(), from.values.begin(), from.values.end()); }

/// As transformers 5 holds experts: gate above up, expert after expert.
void fuseExperts(TinyCheckpoint& checkpoint, const std::string& module, const std::string& newModule, std::array<std::string, 3> names) {
    const ModelShape shape = Anatomy::of(checkpoint.open()).shape();
    for (int b = 0; b < shape.numBlocks(); ++b) {
        const BlockShape& block = shape.blocks[static_cast<std::size_t>(b)];
        if (block.numExperts == 0) continue;
        const std::string stem = "model.layers." + std::to_string(b) + ".";
        TinyTensor gateUp{DType::F32, {block.numExperts, 2 * block.ffnSize, shape.hiddenSize}, {}}, down{DType::F32, {block.numExperts, shape.hiddenSize, block.ffnSize}, {}};
        for (int e = 0; e < block.numExperts; ++e) {
            const auto take = [&](const std::string& projection) {
                return checkpoint.tensors.extract(stem + module + ".experts." + std::to_string(e) + "." + projection + ".weight").mapped();
            };
            append(gateUp, take(names[0]));
            append(gateUp, take(names[1]));
            append(down, take(names[2]));
        }
        checkpoint.tensors[stem + newModule + ".experts.gate_up_proj"] = std::move(gateUp);
        checkpoint.tensors[stem + newModule + ".experts.down_proj"] = std::move(down);
        if (module == newModule) continue;
        auto router = checkpoint.tensors.extract(stem + module + ".gate.weight");
        router.key() = stem + newModule + ".gate.weight";
        checkpoint.tensors.insert(std::move(router));
    }
    checkpoint.save();
}

TEST(TensorNames, FusedExpertsOpenLikeSingleOnes) {
    for (const char* type : {"qwen2_moe", "qwen3_moe", "olmoe"}) {
        SCOPED_TRACE(type);
        TinyCheckpoint fused = tinyFamily(type);
        fuseExperts(fused, "mlp", "mlp", {"gate_proj", "up_proj", "down_proj"});
        expectSame(tinyFamily(type), fused);
    }
}

TEST(TensorNames, MixtralOpensUnderItsNewerNames) {
    TinyCheckpoint fused = tinyFamily("mixtral");
    fuseExperts(fused, "block_sparse_moe", "mlp", {"w1", "w3", "w2"});
    expectSame(tinyFamily("mixtral"), fused);
}

TEST(TensorNames, ABaseModelOpensWithoutItsPrefix) {
    for (const auto& [type, prefix] : {std::pair{"gpt2", "transformer."}, std::pair{"gemma2", "model."}}) {
        SCOPED_TRACE(type);
        TinyCheckpoint bare = tinyFamily(type);
        std::map<std::string, TinyTensor> tensors;
        for (auto& [name, tensor] : bare.tensors) tensors[name.starts_with(prefix) ? name.substr(std::string(prefix).size()) : name] = tensor;
        bare.tensors = std::move(tensors);
        bare.save();
        expectSame(tinyFamily(type), bare);
        EXPECT_THAT(bare.open().problems().front().message, HasSubstr("without the prefix"));
    }
}

TEST(TensorNames, TablesThatFollowFromTheConfigurationAreIgnored) {
    TinyCheckpoint old = tinyFamily("gpt2");
    old.tensors["transformer.h.0.attn.bias"] = {DType::U8, {1, 1, 4, 4}, std::vector<double>(16, 1)};
    old.tensors["transformer.h.0.attn.masked_bias"] = {DType::F32, {}, {-10000}};
    old.save();
    const Anatomy anatomy = Anatomy::of(old.open());
    EXPECT_TRUE(anatomy.understood());
    ASSERT_EQ(anatomy.problems().size(), 1u);
    EXPECT_EQ(anatomy.problems()[0].severity, Severity::Note);
    EXPECT_THAT(anatomy.problems()[0].message, HasSubstr("2 stored rotary or mask tables"));
}

/// Names as the public checkpoints of each family spell them.
TEST(TensorNames, AreThoseOfTheFamilysPublicCheckpoints) {
    const std::map<std::string, std::vector<std::string>> expected{
        {"gemma2", {"model.layers.3.pre_feedforward_layernorm.weight", "model.layers.3.post_feedforward_layernorm.weight", "model.layers.3.post_attention_layernorm.weight"}},
        {"phi3", {"model.layers.3.self_attn.qkv_proj.weight", "model.layers.3.mlp.gate_up_proj.weight", "model.layers.3.mlp.down_proj.weight"}},
        {"gpt2", {"transformer.wpe.weight", "transformer.h.3.attn.c_attn.weight", "transformer.h.3.mlp.c_fc.bias", "transformer.ln_f.bias"}},
        {"qwen2_moe", {"model.layers.3.mlp.gate.weight", "model.layers.3.mlp.experts.5.down_proj.weight", "model.layers.3.mlp.shared_expert.up_proj.weight",
                       "model.layers.3.mlp.shared_expert_gate.weight", "model.layers.1.mlp.gate_proj.weight", "model.layers.3.self_attn.k_proj.bias"}},
        {"qwen3_moe", {"model.layers.3.mlp.experts.0.gate_proj.weight", "model.layers.2.mlp.up_proj.weight", "model.layers.3.self_attn.q_norm.weight"}},
        {"olmoe", {"model.layers.3.mlp.experts.0.up_proj.weight", "model.layers.3.self_attn.k_norm.weight"}},
        {"deepseek", {"model.layers.0.mlp.gate_proj.weight", "model.layers.3.mlp.experts.5.up_proj.weight", "model.layers.3.mlp.shared_experts.down_proj.weight"}},
        {"glm4_moe", {"model.layers.3.mlp.gate.e_score_correction_bias", "model.layers.3.self_attn.q_norm.weight", "model.layers.3.self_attn.v_proj.bias"}},
    };
    for (const auto& [type, names] : expected)
        for (const std::string& name : names) EXPECT_TRUE(tinyFamily(type).tensors.contains(name)) << type << " " << name;
}

}  // namespace
}  // namespace resect::test
