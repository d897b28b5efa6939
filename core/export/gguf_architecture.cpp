#include "core/export/gguf_architecture.h"

#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/export/verdict.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace resect {

namespace {

using enum GgufStep;
using Rotation = GgufArchitecture::Rotation;

constexpr GgufName kCommon[] = {
    {"embed_tokens.weight", "token_embd.weight"},
    {"norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight", RotaryRows},
    {"self_attn.q_proj.bias", "attn_q.bias", RotaryRows},
    {"self_attn.k_proj.weight", "attn_k.weight", RotaryRows},
    {"self_attn.k_proj.bias", "attn_k.bias", RotaryRows},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"self_attn.o_proj.bias", "attn_output.bias"},
    {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.gate_proj.bias", "ffn_gate.bias"},
    {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.up_proj.bias", "ffn_up.bias"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
    {"mlp.down_proj.bias", "ffn_down.bias"},
    // Mixtures of experts, as Mixtral and as everybody else names them.
    {"block_sparse_moe.gate.weight", "ffn_gate_inp.weight", KeepF32},
    {"block_sparse_moe.experts.{e}.w1.weight", "ffn_gate_exps.weight", Expert},
    {"block_sparse_moe.experts.{e}.w2.weight", "ffn_down_exps.weight", Expert},
    {"block_sparse_moe.experts.{e}.w3.weight", "ffn_up_exps.weight", Expert},
    {"mlp.gate.weight", "ffn_gate_inp.weight", KeepF32},
    {"mlp.experts.{e}.gate_proj.weight", "ffn_gate_exps.weight", Expert},
    {"mlp.experts.{e}.down_proj.weight", "ffn_down_exps.weight", Expert},
    {"mlp.experts.{e}.up_proj.weight", "ffn_up_exps.weight", Expert},
    {"mlp.shared_expert.gate_proj.weight", "ffn_gate_shexp.weight"},
    {"mlp.shared_expert.down_proj.weight", "ffn_down_shexp.weight"},
    {"mlp.shared_expert.up_proj.weight", "ffn_up_shexp.weight"},
    {"mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight", Vector},
    {"mlp.shared_experts.gate_proj.weight", "ffn_gate_shexp.weight"},
    {"mlp.shared_experts.down_proj.weight", "ffn_down_shexp.weight"},
    {"mlp.shared_experts.up_proj.weight", "ffn_up_shexp.weight"},
};

constexpr GgufName kOpenElm[] = {
    {"self_attn.q_proj.weight", "attn_qkv.weight", Fused},
    {"self_attn.k_proj.weight", "attn_qkv.weight", Fused},
    {"self_attn.v_proj.weight", "attn_qkv.weight", Fused},
};
constexpr GgufName kGemma[] = {
    {"norm.weight", "output_norm.weight", PlusOne},
    {"input_layernorm.weight", "attn_norm.weight", PlusOne},
    {"post_attention_layernorm.weight", "ffn_norm.weight", PlusOne},
};
constexpr GgufName kGemma2[] = {
    {"norm.weight", "output_norm.weight", PlusOne},
    {"input_layernorm.weight", "attn_norm.weight", PlusOne},
    {"post_attention_layernorm.weight", "post_attention_norm.weight", PlusOne},
    {"pre_feedforward_layernorm.weight", "ffn_norm.weight", PlusOne},
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight", PlusOne},
};
constexpr GgufName kPhi3[] = {
    {"self_attn.qkv_proj.weight", "attn_qkv.weight"},
    {"mlp.gate_up_proj.weight", "ffn_up.weight"},
};
constexpr GgufName kGpt2[] = {
    {"wte.weight", "token_embd.weight"},
    {"wpe.weight", "position_embd.weight", KeepF32},
    {"ln_f.weight", "output_norm.weight"},
    {"ln_f.bias", "output_norm.bias"},
    {"ln_1.weight", "attn_norm.weight"},
    {"ln_1.bias", "attn_norm.bias"},
    {"attn.c_attn.weight", "attn_qkv.weight", Transposed},
    {"attn.c_attn.bias", "attn_qkv.bias"},
    {"attn.c_proj.weight", "attn_output.weight", Transposed},
    {"attn.c_proj.bias", "attn_output.bias"},
    {"ln_2.weight", "ffn_norm.weight"},
    {"ln_2.bias", "ffn_norm.bias"},
    {"mlp.c_fc.weight", "ffn_up.weight", Transposed},
    {"mlp.c_fc.bias", "ffn_up.bias"},
    {"mlp.c_proj.weight", "ffn_down.weight", Transposed},
    {"mlp.c_proj.bias", "ffn_down.bias"},
};

constexpr GgufField kGemma2Fields[] = {{"attn_logit_softcapping", "attn_logit_softcapping", GgufValueType::F32, 50},
                                       {"final_logit_softcapping", "final_logit_softcapping", GgufValueType::F32, 30},
                                       {"attention.sliding_window", "sliding_window", GgufValueType::U32, 4096}};
constexpr GgufField kPhi3Fields[] = {{"attention.sliding_window", "sliding_window"}};
constexpr GgufField kQwen2MoeFields[] = {{"expert_feed_forward_length", "moe_intermediate_size"},
                                         {"expert_shared_feed_forward_length", "shared_expert_intermediate_size"}};
constexpr GgufField kQwen3MoeFields[] = {{"expert_feed_forward_length", "moe_intermediate_size"}};
constexpr GgufField kDeepseekFields[] = {{"leading_dense_block_count", "first_k_dense_replace", GgufValueType::U32, 0},
                                         {"expert_feed_forward_length", "moe_intermediate_size"},
                                         {"expert_shared_count", "n_shared_experts", GgufValueType::U32, 0},
                                         {"expert_weights_scale", "routed_scaling_factor", GgufValueType::F32, 1}};

// What each graph of llama.cpp (2025-26) reads. A row that is not `checked` waits for its comparison in tests/interop.
constexpr std::array kArchitectures{
    GgufArchitecture{.modelType = "llama", .name = "llama", .rotation = Rotation::Neighbours, .qkvBias = true, .outputBias = true, .mlpBias = true, .ropeFactors = true},
    GgufArchitecture{.modelType = "mistral", .name = "llama", .rotation = Rotation::Neighbours, .ropeFactors = true},
    GgufArchitecture{.modelType = "mixtral", .name = "llama", .rotation = Rotation::Neighbours, .ropeFactors = true},
    GgufArchitecture{.modelType = "qwen2", .name = "qwen2", .rotation = Rotation::Halves, .qkvBias = true, .hiddenIsHeads = true},
    GgufArchitecture{.modelType = "qwen3", .name = "qwen3", .rotation = Rotation::Halves, .qkNorm = true},
    GgufArchitecture{.modelType = "qwen2_moe", .name = "qwen2moe", .rotation = Rotation::Halves, .fields = kQwen2MoeFields, .qkvBias = true, .sharedExperts = true,
                     .normTopK = false, .hiddenIsHeads = true},
    GgufArchitecture{.modelType = "qwen3_moe", .name = "qwen3moe", .rotation = Rotation::Halves, .fields = kQwen3MoeFields, .qkNorm = true},
    GgufArchitecture{.modelType = "olmoe", .name = "olmoe", .rotation = Rotation::Halves, .qkNorm = true, .normTopK = false, .hiddenIsHeads = true},
    GgufArchitecture{.modelType = "deepseek", .name = "deepseek", .rotation = Rotation::Neighbours, .fields = kDeepseekFields, .sharedExperts = true,
                     .denseFirst = true, .normTopK = false},
    GgufArchitecture{.modelType = "gemma", .name = "gemma", .rotation = Rotation::Halves, .names = kGemma, .activations = "gelu_pytorch_tanh", .tiedOnly = true},
    GgufArchitecture{.modelType = "gemma2", .name = "gemma2", .rotation = Rotation::Halves, .names = kGemma2, .fields = kGemma2Fields,
                     .activations = "gelu_pytorch_tanh", .softcaps = true, .tiedOnly = true, .windowPeriod = 2},
    GgufArchitecture{.modelType = "phi3", .name = "phi3", .rotation = Rotation::Halves, .names = kPhi3, .fields = kPhi3Fields, .partialRotation = true,
                     .hiddenIsHeads = true},
    GgufArchitecture{.modelType = "gpt2", .name = "gpt2", .rotation = Rotation::None, .names = kGpt2, .activations = "gelu_new gelu_pytorch_tanh", .qkvBias = true,
                     .outputBias = true, .mlpBias = true, .hiddenIsHeads = true, .normEps = "attention.layer_norm_epsilon"},
};
// For blocks that differ. DeciLM turns neighbours whatever the family does: the rows are interleaved when they are written.
constexpr GgufArchitecture kDeci{.modelType = "", .name = "deci", .rotation = Rotation::Neighbours, .qkvBias = true, .outputBias = true, .mlpBias = true,
                                 .ropeFactors = true, .perBlock = true};
// Qwen2 with fewer heads: the graph of Llama with biases, its rows interleaved.
constexpr GgufArchitecture kQwen2AsLlama{.modelType = "qwen2", .name = "llama", .rotation = Rotation::Neighbours, .qkvBias = true, .outputBias = true, .mlpBias = true,
                                         .ropeFactors = true};
constexpr GgufArchitecture kElm{.modelType = "", .name = "openelm", .rotation = Rotation::Halves, .names = kOpenElm, .qkNorm = true, .perBlock = true, .tiedOnly = true};

const GgufName* findName(std::span<const GgufName> names, std::string_view huggingFace) {
    const auto row = std::find_if(names.begin(), names.end(), [&](const GgufName& name) { return name.huggingFace == huggingFace; });
    return row == names.end() ? nullptr : &*row;
}

/// Without what stands before the names of the table: "model.layers.3.mlp.experts.2.up_proj.weight" -> "mlp.experts.{e}.up_proj.weight".
std::string bareName(const ExpectedTensor& tensor) {
    std::string name = tensor.name;
    if (tensor.block >= 0) {
        const std::string number = "." + toText(tensor.block) + ".";
        if (const auto at = name.find(number); at != std::string::npos) name.erase(0, at + number.size());
    } else {
        for (const std::string_view prefix : {"model.", "transformer."})
            if (name.starts_with(prefix)) name.erase(0, prefix.size());
    }
    if (tensor.expert < 0) return name;
    const std::string number = "experts." + toText(tensor.expert) + ".";
    if (const auto at = name.find(number); at != std::string::npos) name.replace(at, number.size(), "experts.{e}.");
    return name;
}

bool contains(std::string_view list, std::string_view word) {
    return (" " + std::string(list) + " ").find(" " + std::string(word) + " ") != std::string::npos;
}

bool headsFillHidden(const ModelShape& shape) {
    return std::all_of(shape.blocks.begin(), shape.blocks.end(), [&](const BlockShape& block) { return std::int64_t{block.numHeads} * block.headDim == shape.hiddenSize; });
}

/// Collects errors with one advice each.
class Obstacles {
public:
    Obstacles(const GgufArchitecture& architecture, const ModelShape& shape) : m_architecture(architecture), m_shape(shape) {}

    std::vector<Problem> run() {
        const std::string graph = "llama.cpp's graph \"" + std::string(m_architecture.name) + "\"";
        if (!contains(m_architecture.activations, m_shape.activation))
            add("hidden_act", graph + " computes " + std::string(m_architecture.activations) + ", the model " + m_shape.activation, kFolder);
        if (m_shape.qkNorm && !m_architecture.qkNorm) add("query and key norms", graph + " has none", kUniform);
        if (!m_shape.qkNorm && m_architecture.name == kElm.name) add("query and key norms", graph + " needs them", kUniform);
        if (m_shape.qkvBias && !m_architecture.qkvBias) add("query, key and value biases", graph + " has none", kUniform);
        if (m_shape.outputBias && !m_architecture.outputBias) add("attention output bias", graph + " has none", kUniform);
        if (m_shape.mlpBias && !m_architecture.mlpBias) add("MLP biases", graph + " has none", kUniform);
        if (m_architecture.tiedOnly && !m_shape.tiedEmbeddings) add("lm_head.weight", graph + " always uses the embedding as its head", kUniform);
        if (m_shape.ropeScaling.kind == RopeScaling::Kind::Llama3 && !m_architecture.ropeFactors)
            add("rope_scaling llama3", graph + " does not read frequency factors", kUniform);
        if (m_shape.ropeScaling.kind == RopeScaling::Kind::Yarn && rampOf(m_shape.ropeScaling.betaFast, m_shape.ropeScaling.betaSlow) != rampOf(32, 1))
            add("rope_scaling yarn", graph + " computes with beta_fast 32 and beta_slow 1 only, found " + toText(m_shape.ropeScaling.betaFast, 4) + " and " +
                                         toText(m_shape.ropeScaling.betaSlow, 4), kFolder);
        constexpr int kMostBlocks = 512;
        if (m_shape.numBlocks() > kMostBlocks) add("blocks", "llama.cpp opens up to 512, found " + toText(m_shape.numBlocks()), "Drop blocks.");
        if (m_architecture.hiddenIsHeads && !headsFillHidden(m_shape))
            add("heads", graph + " expects query matrices of hidden_size " + toText(m_shape.hiddenSize), kUniform);
        if (m_architecture.perBlock) perBlock(graph);
        else if (!isUniform(m_shape)) add("blocks", "they differ in size, and " + graph + " takes the sizes of block 0 for all", "Use --way padded or heterogeneous.");
        experts(graph);
        windows(graph);
        numbers(graph);
        return std::move(m_problems);
    }

private:
    static constexpr const char* kFolder = "Export a Hugging Face folder (--to without .gguf).";
    static constexpr const char* kUniform = "Use --way padded, or export a Hugging Face folder.";

    void add(std::string subject, std::string message, std::string advice) {
        m_problems.push_back({Severity::Error, std::move(subject), std::move(message), std::move(advice)});
    }

    /// The pairs between which YaRN goes over from one frequency to the other.
    std::pair<double, double> rampOf(double betaFast, double betaSlow) const {
        const int headDim = m_shape.blocks.front().headDim;
        const RopeScaling& rope = m_shape.ropeScaling;
        const auto original = static_cast<double>(rope.originalMaxPositions > 0 ? rope.originalMaxPositions : m_shape.maxPositions);
        const auto pair = [&](double rotations) { return headDim * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(m_shape.ropeTheta)); };
        return {std::max(0.0, std::floor(pair(betaFast))), std::min(headDim - 1.0, std::ceil(pair(betaSlow)))};
    }

    void perBlock(const std::string& graph) {
        for (int b = 0; b < m_shape.numBlocks(); ++b) {
            const BlockShape& block = m_shape.blocks[static_cast<std::size_t>(b)];
            if (block.headDim != m_shape.blocks.front().headDim) add("block " + toText(b), graph + " has one head size for all blocks", kFolder);
        }
    }

    /// Settings that only some graphs compute.
    void numbers(const std::string& graph) {
        const double headDim = m_shape.blocks.front().headDim;
        if (m_shape.clipQkv > 0) add("clip_qkv", graph + " does not clip queries, keys and values", kFolder);
        if (m_shape.rotaryShare != 1 && !m_architecture.partialRotation) add("partial_rotary_factor", graph + " rotates whole heads", kFolder);
        if (m_shape.ropeScaling.kind == RopeScaling::Kind::LongRope) add("rope_scaling longrope", "it is not written for llama.cpp", kFolder);
        if ((m_shape.attentionSoftcap > 0 || m_shape.finalSoftcap > 0) && !m_architecture.softcaps) add("soft-capping", graph + " has none", kFolder);
        if (m_architecture.softcaps && (m_shape.attentionSoftcap == 0 || m_shape.finalSoftcap == 0)) add("soft-capping", graph + " always caps", kFolder);
        if (m_shape.queryScale > 0 && m_shape.queryScale != headDim)
            add("query_pre_attn_scalar", graph + " scales by the head size " + toText(headDim, 4) + ", found " + toText(m_shape.queryScale, 4), kFolder);
        if (m_shape.expertGroups > 1) add("n_group", graph + " chooses among all experts", kFolder);
    }

    void windows(const std::string& graph) {
        const int period = m_architecture.windowPeriod;
        for (int b = 0; period > 0 && b < m_shape.numBlocks(); ++b) {
            const bool slides = m_shape.blocks[static_cast<std::size_t>(b)].slidingWindow > 0;
            if (slides == (b % period != period - 1)) continue;
            add("block " + toText(b), graph + " gives a sliding window to blocks by their number, and this one has " + (slides ? "one" : "none") + " against that rule",
                "Drop runs of " + toText(period) + " blocks that begin at a multiple of " + toText(period) + ", or export a Hugging Face folder.");
            return;
        }
    }

    void experts(const std::string& graph) {
        const bool mixture = std::any_of(m_shape.blocks.begin(), m_shape.blocks.end(), [](const BlockShape& block) { return block.numExperts > 0; });
        if (!mixture && !m_architecture.perBlock && familyOf(m_shape).moe && m_architecture.name != "llama")
            add("experts", graph + " expects experts, and none are left", kFolder);
        if (!mixture) return;
        bool routed = false;  // dense blocks may stand before the mixtures, where the graph counts them
        for (const BlockShape& block : m_shape.blocks) {
            routed = routed || block.numExperts > 0;
            if (block.numExperts > 0 ? block.sharedFfnSize > 0 && !m_architecture.sharedExperts : routed || !m_architecture.denseFirst) {
                add(block.numExperts > 0 ? "shared expert" : "dense blocks", graph + (block.numExperts > 0 ? " has none" : " expects experts in every block"), kFolder);
                break;
            }
        }
        if (m_architecture.perBlock) add("experts", graph + " has none", "Keep as many experts in every block, or use --way padded.");
        if (m_shape.normTopK != m_architecture.normTopK)
            add("norm_topk_prob", graph + (m_architecture.normTopK ? " always" : " never") + " renormalises the routing weights", kFolder);
    }

    const GgufArchitecture& m_architecture;
    const ModelShape& m_shape;
    std::vector<Problem> m_problems;
};

}  // namespace

const GgufArchitecture* findGgufArchitecture(std::string_view modelType) noexcept {
    const auto row = std::find_if(kArchitectures.begin(), kArchitectures.end(), [&](const GgufArchitecture& candidate) { return candidate.modelType == modelType; });
    return row == kArchitectures.end() ? nullptr : &*row;
}

const GgufArchitecture* findUniformArchitecture(const ModelShape& shape) noexcept {
    const GgufArchitecture* own = findGgufArchitecture(shape.modelType);
    return shape.modelType == kQwen2AsLlama.modelType && !headsFillHidden(shape) ? &kQwen2AsLlama : own;
}

const GgufArchitecture* findPerBlockArchitecture(const ModelShape& shape) noexcept {
    const bool likeLlama = shape.modelType == "llama" || shape.modelType == "mistral" || shape.modelType == "qwen2";
    return likeLlama ? &kDeci : shape.modelType == "qwen3" ? &kElm : nullptr;
}

std::vector<const GgufArchitecture*> architecturesNamed(std::string_view name) {
    std::vector<const GgufArchitecture*> rows;
    for (const GgufArchitecture& row : kArchitectures)
        if (row.name == name) rows.push_back(&row);
    for (const GgufArchitecture* row : {&kQwen2AsLlama, &kDeci, &kElm})
        if (row->name == name) rows.push_back(row);
    return rows;
}

GgufPlace ggufPlace(const GgufArchitecture& architecture, const ExpectedTensor& tensor) {
    const std::string bare = bareName(tensor);
    const GgufName* row = findName(architecture.names, bare);
    if (!row) row = findName(kCommon, bare);
    if (!row) throw Error(ErrorCode::Unsupported, tensor.name, "llama.cpp's architecture \"" + std::string(architecture.name) + "\" has no place for it");
    return {tensor.block < 0 ? std::string(row->gguf) : "blk." + toText(tensor.block) + "." + std::string(row->gguf), row->step};
}

std::vector<Problem> ggufObstacles(const GgufArchitecture& architecture, const ModelShape& shape) { return Obstacles(architecture, shape).run(); }

}  // namespace resect
