#include "core/anatomy/family.h"

#include <algorithm>
#include <array>

namespace resect {

namespace {

using Flag = Family::Flag;
using Window = Family::Window;

// Columns: see Family. Defaults as in the configuration classes of transformers 4.45.
constexpr std::array<Family, 5> kFamilies{{
    // type, title, architecture | q/k/v bias, o bias, mlp bias, qk norm, window | moe | hidden % heads, reads head_dim | head_dim, window, theta, eps
    {"llama", "Llama", "LlamaForCausalLM", Flag::FromConfig, Flag::FromConfig, Flag::FromConfig, false, Window::None, false, true, true, 0, 0, 1e4, 1e-6},
    {"mistral", "Mistral", "MistralForCausalLM", Flag::No, Flag::No, Flag::No, false, Window::All, false, false, true, 0, 4096, 1e4, 1e-6},
    {"qwen2", "Qwen2", "Qwen2ForCausalLM", Flag::Yes, Flag::No, Flag::No, false, Window::QwenRule, false, true, false, 0, 4096, 1e4, 1e-6},
    {"qwen3", "Qwen3", "Qwen3ForCausalLM", Flag::FromConfig, Flag::FromConfig, Flag::No, true, Window::QwenRule, false, false, true, 128, 4096, 1e4, 1e-6},
    {"mixtral", "Mixtral", "MixtralForCausalLM", Flag::No, Flag::No, Flag::No, false, Window::All, true, false, true, 0, 0, 1e6, 1e-5},
}};

struct RoleName {
    TensorRole role;
    const char* name;  ///< after the block's prefix, or whole; {e} is the expert
};

constexpr RoleName kNames[] = {
    {TensorRole::TokenEmbedding, "model.embed_tokens.weight"},
    {TensorRole::FinalNorm, "model.norm.weight"},
    {TensorRole::LmHead, "lm_head.weight"},
    {TensorRole::AttentionNorm, "input_layernorm.weight"},
    {TensorRole::QueryWeight, "self_attn.q_proj.weight"},
    {TensorRole::QueryBias, "self_attn.q_proj.bias"},
    {TensorRole::KeyWeight, "self_attn.k_proj.weight"},
    {TensorRole::KeyBias, "self_attn.k_proj.bias"},
    {TensorRole::ValueWeight, "self_attn.v_proj.weight"},
    {TensorRole::ValueBias, "self_attn.v_proj.bias"},
    {TensorRole::OutputWeight, "self_attn.o_proj.weight"},
    {TensorRole::OutputBias, "self_attn.o_proj.bias"},
    {TensorRole::QueryNorm, "self_attn.q_norm.weight"},
    {TensorRole::KeyNorm, "self_attn.k_norm.weight"},
    {TensorRole::FfnNorm, "post_attention_layernorm.weight"},
    {TensorRole::GateWeight, "mlp.gate_proj.weight"},
    {TensorRole::GateBias, "mlp.gate_proj.bias"},
    {TensorRole::UpWeight, "mlp.up_proj.weight"},
    {TensorRole::UpBias, "mlp.up_proj.bias"},
    {TensorRole::DownWeight, "mlp.down_proj.weight"},
    {TensorRole::DownBias, "mlp.down_proj.bias"},
    {TensorRole::RouterWeight, "block_sparse_moe.gate.weight"},
    {TensorRole::ExpertGateWeight, "block_sparse_moe.experts.{e}.w1.weight"},
    {TensorRole::ExpertUpWeight, "block_sparse_moe.experts.{e}.w3.weight"},
    {TensorRole::ExpertDownWeight, "block_sparse_moe.experts.{e}.w2.weight"},
};

constexpr Coupling kHead[] = {{TensorRole::QueryWeight, 0}, {TensorRole::QueryBias, 0}, {TensorRole::OutputWeight, 1}};
constexpr Coupling kKvGroup[] = {{TensorRole::KeyWeight, 0}, {TensorRole::KeyBias, 0}, {TensorRole::ValueWeight, 0}, {TensorRole::ValueBias, 0}};
constexpr Coupling kChannel[] = {{TensorRole::GateWeight, 0},       {TensorRole::GateBias, 0},       {TensorRole::UpWeight, 0},
                                 {TensorRole::UpBias, 0},           {TensorRole::DownWeight, 1},     {TensorRole::ExpertGateWeight, 0},
                                 {TensorRole::ExpertUpWeight, 0},   {TensorRole::ExpertDownWeight, 1}};
constexpr Coupling kExpert[] = {{TensorRole::RouterWeight, 0}};

/// Lists the tensors of one shape.
class Lister {
public:
    explicit Lister(const ModelShape& shape) : m_shape(shape), m_family(*findFamily(shape.modelType)) {}

    std::vector<ExpectedTensor> run() {
        const std::int64_t d = m_shape.hiddenSize;
        add(TensorRole::TokenEmbedding, {m_shape.vocabSize, d});
        for (m_block = 0; m_block < m_shape.numBlocks(); ++m_block) {
            const BlockShape& block = m_shape.blocks[static_cast<std::size_t>(m_block)];
            if (block.hasAttention) attention(block);
            if (block.hasFfn) ffn(block);
        }
        m_block = -1;
        add(TensorRole::FinalNorm, {d});
        if (!m_shape.tiedEmbeddings) add(TensorRole::LmHead, {m_shape.vocabSize, d});
        return std::move(m_tensors);
    }

private:
    void add(TensorRole role, std::vector<std::int64_t> shape, int expert = -1) {
        m_tensors.push_back({tensorName(m_family, role, m_block, expert), std::move(shape), role, m_block, expert});
    }

    void attention(const BlockShape& block) {
        const std::int64_t d = m_shape.hiddenSize;
        const std::int64_t q = std::int64_t{block.numHeads} * block.headDim, kv = std::int64_t{block.numKvHeads} * block.headDim;
        add(TensorRole::AttentionNorm, {d});
        add(TensorRole::QueryWeight, {q, d});
        if (m_shape.qkvBias) add(TensorRole::QueryBias, {q});
        add(TensorRole::KeyWeight, {kv, d});
        if (m_shape.qkvBias) add(TensorRole::KeyBias, {kv});
        add(TensorRole::ValueWeight, {kv, d});
        if (m_shape.qkvBias) add(TensorRole::ValueBias, {kv});
        add(TensorRole::OutputWeight, {d, q});
        if (m_shape.outputBias) add(TensorRole::OutputBias, {d});
        if (!m_shape.qkNorm) return;
        add(TensorRole::QueryNorm, {block.headDim});
        add(TensorRole::KeyNorm, {block.headDim});
    }

    void ffn(const BlockShape& block) {
        const std::int64_t d = m_shape.hiddenSize, f = block.ffnSize;
        add(TensorRole::FfnNorm, {d});
        if (block.numExperts > 0) {
            add(TensorRole::RouterWeight, {block.numExperts, d});
            for (int e = 0; e < block.numExperts; ++e) {
                add(TensorRole::ExpertGateWeight, {f, d}, e);
                add(TensorRole::ExpertUpWeight, {f, d}, e);
                add(TensorRole::ExpertDownWeight, {d, f}, e);
            }
            return;
        }
        add(TensorRole::GateWeight, {f, d});
        if (m_shape.mlpBias) add(TensorRole::GateBias, {f});
        add(TensorRole::UpWeight, {f, d});
        if (m_shape.mlpBias) add(TensorRole::UpBias, {f});
        add(TensorRole::DownWeight, {d, f});
        if (m_shape.mlpBias) add(TensorRole::DownBias, {d});
    }

    const ModelShape& m_shape;
    const Family& m_family;
    int m_block = -1;
    std::vector<ExpectedTensor> m_tensors;
};

}  // namespace

std::span<const Family> families() noexcept { return kFamilies; }

const Family* findFamily(std::string_view modelType) noexcept {
    const auto it = std::find_if(kFamilies.begin(), kFamilies.end(), [&](const Family& family) { return family.modelType == modelType; });
    return it == kFamilies.end() ? nullptr : &*it;
}

std::string tensorName(const Family&, TensorRole role, int block, int expert) {
    const auto* row = std::find_if(std::begin(kNames), std::end(kNames), [&](const RoleName& name) { return name.role == role; });
    std::string name = row->name;  // the families so far share their spelling
    if (const auto at = name.find("{e}"); at != std::string::npos) name.replace(at, 3, std::to_string(expert));
    return block < 0 ? name : "model.layers." + std::to_string(block) + "." + name;
}

std::vector<ExpectedTensor> expectedTensors(const ModelShape& shape) { return Lister(shape).run(); }

std::span<const Coupling> couplings(ComponentKind kind) noexcept {
    switch (kind) {
    case ComponentKind::Head: return kHead;
    case ComponentKind::KvGroup: return kKvGroup;
    case ComponentKind::Channel: return kChannel;
    case ComponentKind::Expert: return kExpert;
    default: return {};
    }
}

}  // namespace resect
