#include "core/anatomy/family.h"

#include "core/base/error.h"

#include <algorithm>
#include <array>

namespace resect {

namespace {

using Flag = Family::Flag;
using Norm = Family::Norm;
using QkNorm = Family::QkNorm;
using Window = Family::Window;
using enum TensorRole;

// ---- Spelling: Llama's, and where others differ ----

constexpr RoleName kCommonNames[] = {
    {TokenEmbedding, "model.embed_tokens.weight"},
    {FinalNorm, "model.norm.weight"},
    {FinalNormBias, "model.norm.bias"},
    {LmHead, "lm_head.weight"},
    {AttentionNorm, "input_layernorm.weight"},
    {AttentionNormBias, "input_layernorm.bias"},
    {QueryWeight, "self_attn.q_proj.weight"},
    {QueryBias, "self_attn.q_proj.bias"},
    {KeyWeight, "self_attn.k_proj.weight"},
    {KeyBias, "self_attn.k_proj.bias"},
    {ValueWeight, "self_attn.v_proj.weight"},
    {ValueBias, "self_attn.v_proj.bias"},
    {QkvWeight, "self_attn.qkv_proj.weight"},
    {QkvBias, "self_attn.qkv_proj.bias"},
    {OutputWeight, "self_attn.o_proj.weight"},
    {OutputBias, "self_attn.o_proj.bias"},
    {QueryNorm, "self_attn.q_norm.weight"},
    {KeyNorm, "self_attn.k_norm.weight"},
    {FfnNorm, "post_attention_layernorm.weight"},
    {FfnNormBias, "post_attention_layernorm.bias"},
    {GateWeight, "mlp.gate_proj.weight"},
    {GateBias, "mlp.gate_proj.bias"},
    {UpWeight, "mlp.up_proj.weight"},
    {UpBias, "mlp.up_proj.bias"},
    {GateUpWeight, "mlp.gate_up_proj.weight"},
    {DownWeight, "mlp.down_proj.weight"},
    {DownBias, "mlp.down_proj.bias"},
    {RouterWeight, "mlp.gate.weight"},
    {RouterCorrection, "mlp.gate.e_score_correction_bias"},
    {ExpertGateWeight, "mlp.experts.{e}.gate_proj.weight"},
    {ExpertUpWeight, "mlp.experts.{e}.up_proj.weight"},
    {ExpertDownWeight, "mlp.experts.{e}.down_proj.weight"},
    {SharedGateWeight, "mlp.shared_experts.gate_proj.weight"},
    {SharedUpWeight, "mlp.shared_experts.up_proj.weight"},
    {SharedDownWeight, "mlp.shared_experts.down_proj.weight"},
};
constexpr RoleName kMixtralNames[] = {
    {RouterWeight, "block_sparse_moe.gate.weight"},
    {ExpertGateWeight, "block_sparse_moe.experts.{e}.w1.weight"},
    {ExpertUpWeight, "block_sparse_moe.experts.{e}.w3.weight"},
    {ExpertDownWeight, "block_sparse_moe.experts.{e}.w2.weight"},
};
constexpr RoleName kQwen2MoeNames[] = {
    {SharedGateWeight, "mlp.shared_expert.gate_proj.weight"},
    {SharedUpWeight, "mlp.shared_expert.up_proj.weight"},
    {SharedDownWeight, "mlp.shared_expert.down_proj.weight"},
    {SharedExpertGate, "mlp.shared_expert_gate.weight"},
};
constexpr RoleName kGemma2Names[] = {
    {PostAttentionNorm, "post_attention_layernorm.weight"},
    {FfnNorm, "pre_feedforward_layernorm.weight"},
    {PostFfnNorm, "post_feedforward_layernorm.weight"},
};
constexpr RoleName kGpt2Names[] = {
    {TokenEmbedding, "transformer.wte.weight"}, {PositionEmbedding, "transformer.wpe.weight"},
    {FinalNorm, "transformer.ln_f.weight"},     {FinalNormBias, "transformer.ln_f.bias"},
    {AttentionNorm, "ln_1.weight"},             {AttentionNormBias, "ln_1.bias"},
    {QkvWeight, "attn.c_attn.weight"},          {QkvBias, "attn.c_attn.bias"},
    {OutputWeight, "attn.c_proj.weight"},       {OutputBias, "attn.c_proj.bias"},
    {FfnNorm, "ln_2.weight"},                   {FfnNormBias, "ln_2.bias"},
    {UpWeight, "mlp.c_fc.weight"},              {UpBias, "mlp.c_fc.bias"},
    {DownWeight, "mlp.c_proj.weight"},          {DownBias, "mlp.c_proj.bias"},
};

constexpr RoleName kVitNames[] = {
    {ClassToken, "vit.embeddings.cls_token"},
    {PositionEmbedding, "vit.embeddings.position_embeddings"},
    {PatchWeight, "vit.embeddings.patch_embeddings.projection.weight"},
    {PatchBias, "vit.embeddings.patch_embeddings.projection.bias"},
    {FinalNorm, "vit.layernorm.weight"},
    {FinalNormBias, "vit.layernorm.bias"},
    {PoolerWeight, "vit.pooler.dense.weight"},
    {PoolerBias, "vit.pooler.dense.bias"},
};
constexpr RoleName kDeitNames[] = {
    {ClassToken, "deit.embeddings.cls_token"},
    {DistillationToken, "deit.embeddings.distillation_token"},
    {PositionEmbedding, "deit.embeddings.position_embeddings"},
    {PatchWeight, "deit.embeddings.patch_embeddings.projection.weight"},
    {PatchBias, "deit.embeddings.patch_embeddings.projection.bias"},
    {FinalNorm, "deit.layernorm.weight"},
    {FinalNormBias, "deit.layernorm.bias"},
    {PoolerWeight, "deit.pooler.dense.weight"},
    {PoolerBias, "deit.pooler.dense.bias"},
    {DistillationHead, "distillation_classifier.weight"},
    {DistillationHeadBias, "distillation_classifier.bias"},
};
constexpr RoleName kVitBlockNames[] = {
    {LmHead, "classifier.weight"},
    {LmHeadBias, "classifier.bias"},
    {AttentionNorm, "layernorm_before.weight"},
    {AttentionNormBias, "layernorm_before.bias"},
    {QueryWeight, "attention.attention.query.weight"},
    {QueryBias, "attention.attention.query.bias"},
    {KeyWeight, "attention.attention.key.weight"},
    {KeyBias, "attention.attention.key.bias"},
    {ValueWeight, "attention.attention.value.weight"},
    {ValueBias, "attention.attention.value.bias"},
    {OutputWeight, "attention.output.dense.weight"},
    {OutputBias, "attention.output.dense.bias"},
    {FfnNorm, "layernorm_after.weight"},
    {FfnNormBias, "layernorm_after.bias"},
    {UpWeight, "intermediate.dense.weight"},
    {UpBias, "intermediate.dense.bias"},
    {DownWeight, "output.dense.weight"},
    {DownBias, "output.dense.bias"},
};
constexpr RoleName kTimmNames[] = {
    {ClassToken, "cls_token"},                {DistillationToken, "dist_token"}, {PositionEmbedding, "pos_embed"},
    {PatchWeight, "patch_embed.proj.weight"}, {PatchBias, "patch_embed.proj.bias"},
    {FinalNorm, "norm.weight"},               {FinalNormBias, "norm.bias"},
    {LmHead, "head.weight"},                  {LmHeadBias, "head.bias"},
    {DistillationHead, "head_dist.weight"},   {DistillationHeadBias, "head_dist.bias"},
};
constexpr RoleName kTimmWrapperNames[] = {
    {ClassToken, "timm_model.cls_token"},                {PositionEmbedding, "timm_model.pos_embed"},
    {PatchWeight, "timm_model.patch_embed.proj.weight"}, {PatchBias, "timm_model.patch_embed.proj.bias"},
    {FinalNorm, "timm_model.norm.weight"},               {FinalNormBias, "timm_model.norm.bias"},
    {LmHead, "timm_model.head.weight"},                  {LmHeadBias, "timm_model.head.bias"},
};
constexpr RoleName kTimmBlockNames[] = {
    {AttentionNorm, "norm1.weight"},     {AttentionNormBias, "norm1.bias"}, {QkvWeight, "attn.qkv.weight"}, {QkvBias, "attn.qkv.bias"},
    {OutputWeight, "attn.proj.weight"},  {OutputBias, "attn.proj.bias"},    {FfnNorm, "norm2.weight"},      {FfnNormBias, "norm2.bias"},
    {UpWeight, "mlp.fc1.weight"},        {UpBias, "mlp.fc1.bias"},          {DownWeight, "mlp.fc2.weight"}, {DownBias, "mlp.fc2.bias"},
};
constexpr RoleName kClipNames[] = {
    {ClassToken, "vision_model.embeddings.class_embedding"},
    {PositionEmbedding, "vision_model.embeddings.position_embedding.weight"},
    {PatchWeight, "vision_model.embeddings.patch_embedding.weight"},
    {InputNorm, "vision_model.pre_layrnorm.weight"},
    {InputNormBias, "vision_model.pre_layrnorm.bias"},
    {FinalNorm, "vision_model.post_layernorm.weight"},
    {FinalNormBias, "vision_model.post_layernorm.bias"},
};
constexpr RoleName kClipBlockNames[] = {
    {AttentionNorm, "layer_norm1.weight"}, {AttentionNormBias, "layer_norm1.bias"},
    {OutputWeight, "self_attn.out_proj.weight"}, {OutputBias, "self_attn.out_proj.bias"},
    {FfnNorm, "layer_norm2.weight"},       {FfnNormBias, "layer_norm2.bias"},
    {UpWeight, "mlp.fc1.weight"},          {UpBias, "mlp.fc1.bias"},
    {DownWeight, "mlp.fc2.weight"},        {DownBias, "mlp.fc2.bias"},
};

constexpr RoleName kClipTextNames[] = {
    {TokenEmbedding, "text_model.embeddings.token_embedding.weight"},
    {PositionEmbedding, "text_model.embeddings.position_embedding.weight"},
    {FinalNorm, "text_model.final_layer_norm.weight"},
    {FinalNormBias, "text_model.final_layer_norm.bias"},
};
constexpr RoleName kClipLinkNames[] = {
    {VisualProjection, "visual_projection.weight"}, {TextProjection, "text_projection.weight"}, {LogitScale, "logit_scale"}};
constexpr RoleName kLlavaLinkNames[] = {
    {ProjectorInWeight, "multi_modal_projector.linear_1.weight"},  {ProjectorInBias, "multi_modal_projector.linear_1.bias"},
    {ProjectorOutWeight, "multi_modal_projector.linear_2.weight"}, {ProjectorOutBias, "multi_modal_projector.linear_2.bias"}};

constexpr TowerFields kClipTowers[] = {{"vision", "Vision tower", "", "vision_config", "clip_vision_model"},
                                       {"text", "Text tower", "", "text_config", "clip_text_model"}};
constexpr TowerFields kLlavaTowers[] = {
    {"vision", "Vision tower", "vision_tower.", "vision_config", "clip_vision_model",
     R"({"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14})"},
    {"text", "Language model", "language_model.", "text_config", "llama"}};

constexpr const char* kLlamaDefaults = R"({"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32000})";
constexpr const char* kMistralDefaults = R"({"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 32000, "max_position_embeddings": 131072})";
constexpr const char* kClipTextDefaults = R"({"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8, "vocab_size": 49408,
    "max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1})";
constexpr ConfigFields kClipTextFields{.kvHeads = nullptr, .headDim = nullptr, .eps = "layer_norm_eps"};

constexpr ConfigFields kVitFields{.kvHeads = nullptr, .headDim = nullptr, .positions = nullptr, .eps = "layer_norm_eps"};
constexpr ImageFields kVitImage{}, kDeitImage{.distilled = true}, kClipImage{.patchBias = false, .inputNorm = true, .plainTables = true};
constexpr ImageFields kTimmImage{.labelsField = "num_classes"}, kTimmDistilledImage{.distilled = true, .labelsField = "num_classes"};
constexpr const char* kVitDefaults =
    R"({"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "image_size": 224, "patch_size": 16})";
constexpr const char* kClipDefaults =
    R"({"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "image_size": 224, "patch_size": 32})";

constexpr ConfigFields kGpt2Fields{.blocks = "n_layer", .hidden = "n_embd", .heads = "n_head", .kvHeads = nullptr, .headDim = nullptr,
                                   .ffn = "n_inner", .positions = "n_positions", .eps = "layer_norm_epsilon", .activation = "activation_function"};
constexpr ConfigFields kGemmaFields{.activation = "hidden_activation"};

constexpr MoeFields kMixtralMoe{.experts = "num_local_experts", .width = "intermediate_size"};
constexpr MoeFields kQwen2Moe{.experts = "num_experts", .width = "moe_intermediate_size", .sharedWidth = "shared_expert_intermediate_size",
                              .defaultTopK = 4, .blocks = MoeFields::Blocks::SparseStep, .normTopK = MoeFields::NormTopK::FromConfig, .sharedGate = true};
constexpr MoeFields kQwen3Moe{.experts = "num_experts", .width = "moe_intermediate_size", .defaultTopK = 8, .blocks = MoeFields::Blocks::SparseStep,
                              .normTopK = MoeFields::NormTopK::FromConfig};
constexpr MoeFields kOlmoe{.experts = "num_experts", .width = "intermediate_size", .defaultTopK = 8, .normTopK = MoeFields::NormTopK::FromConfig};
constexpr MoeFields kDeepseekMoe{.experts = "n_routed_experts", .width = "moe_intermediate_size", .sharedCount = "n_shared_experts", .defaultTopK = 6,
                                 .blocks = MoeFields::Blocks::AfterFirst, .normTopK = MoeFields::NormTopK::FromConfig};
constexpr MoeFields kGlm4Moe{.experts = "n_routed_experts", .width = "moe_intermediate_size", .sharedCount = "n_shared_experts", .defaultTopK = 8,
                             .blocks = MoeFields::Blocks::AfterFirst, .normTopK = MoeFields::NormTopK::FromConfig, .sigmoidWithCorrection = true};

constexpr Family timm(std::string_view modelType, std::string_view title, std::span<const RoleName> names, const char* prefix, const ImageFields& image) {
    return {.modelType = modelType, .title = title, .architecture = "TimmWrapperForImageClassification", .names = names, .blockNames = kTimmBlockNames,
            .blockPrefix = prefix, .fields = kVitFields, .image = &image, .defaults = kVitDefaults, .qkvBias = Flag::FromConfig, .outputBias = Flag::Yes,
            .mlpBias = Flag::Yes, .norm = Norm::Layer, .gatedMlp = false, .fusedQkv = true, .learnedPositions = true, .needsHiddenDivisibleByHeads = true,
            .stockReadsHeadDim = false, .defaultActivation = "gelu"};
}

// Defaults as in the configuration classes of transformers 4.45 (Qwen3: 4.51, GLM-4 MoE: 4.54) and of DeepSeekMoE.
constexpr std::array kFamilies{
    Family{.modelType = "llama", .title = "Llama", .architecture = "LlamaForCausalLM", .defaults = kLlamaDefaults, .qkvBias = Flag::FromConfig,
           .outputBias = Flag::FromConfig, .mlpBias = Flag::FromConfig, .needsHiddenDivisibleByHeads = true},
    Family{.modelType = "mistral", .title = "Mistral", .architecture = "MistralForCausalLM", .defaults = kMistralDefaults, .window = Window::All, .defaultWindow = 4096},
    Family{.modelType = "qwen2", .title = "Qwen2", .architecture = "Qwen2ForCausalLM", .qkvBias = Flag::Yes, .window = Window::QwenRule,
           .needsHiddenDivisibleByHeads = true, .stockReadsHeadDim = false, .defaultWindow = 4096},
    Family{.modelType = "qwen3", .title = "Qwen3", .architecture = "Qwen3ForCausalLM", .qkvBias = Flag::FromConfig,
           .outputBias = Flag::FromConfig, .qkNorm = QkNorm::Head, .window = Window::QwenRule, .defaultHeadDim = 128, .defaultWindow = 4096},
    Family{.modelType = "gemma", .title = "Gemma", .architecture = "GemmaForCausalLM", .fields = kGemmaFields, .qkvBias = Flag::FromConfig,
           .outputBias = Flag::FromConfig, .norm = Norm::RmsPlusOne, .scaledEmbedding = true, .defaultHeadDim = 256,
           .defaultActivation = "gelu_pytorch_tanh", .tiedByDefault = true},
    Family{.modelType = "gemma2", .title = "Gemma 2", .architecture = "Gemma2ForCausalLM", .names = kGemma2Names, .fields = kGemmaFields,
           .qkvBias = Flag::FromConfig, .outputBias = Flag::FromConfig, .norm = Norm::RmsPlusOne, .window = Window::Alternating,
           .postNorms = true, .scaledEmbedding = true, .defaultHeadDim = 256, .defaultWindow = 4096, .defaultActivation = "gelu_pytorch_tanh",
           .tiedByDefault = true, .defaultAttentionSoftcap = 50, .defaultFinalSoftcap = 30, .defaultQueryScale = 256},
    Family{.modelType = "phi3", .title = "Phi-3", .architecture = "Phi3ForCausalLM", .window = Window::All, .fusedQkv = true, .fusedGateUp = true,
           .partialRotary = true, .stockReadsHeadDim = false, .defaultNormEps = 1e-5},
    Family{.modelType = "gpt2", .title = "GPT-2", .architecture = "GPT2LMHeadModel", .names = kGpt2Names, .blockPrefix = "transformer.h.",
           .fields = kGpt2Fields, .qkvBias = Flag::Yes, .outputBias = Flag::Yes, .mlpBias = Flag::Yes, .norm = Norm::Layer, .gatedMlp = false,
           .fusedQkv = true, .transposedLinears = true, .learnedPositions = true, .needsHiddenDivisibleByHeads = true,
           .stockReadsHeadDim = false, .defaultNormEps = 1e-5, .defaultActivation = "gelu_new", .tiedByDefault = true},
    Family{.modelType = "mixtral", .title = "Mixtral", .architecture = "MixtralForCausalLM", .names = kMixtralNames, .moe = &kMixtralMoe,
           .window = Window::All, .defaultRopeTheta = 1e6, .defaultNormEps = 1e-5},
    Family{.modelType = "qwen2_moe", .title = "Qwen2 MoE", .architecture = "Qwen2MoeForCausalLM", .names = kQwen2MoeNames, .moe = &kQwen2Moe,
           .qkvBias = Flag::Yes, .window = Window::QwenRule, .needsHiddenDivisibleByHeads = true, .stockReadsHeadDim = false, .defaultWindow = 4096},
    Family{.modelType = "qwen3_moe", .title = "Qwen3 MoE", .architecture = "Qwen3MoeForCausalLM", .moe = &kQwen3Moe, .qkvBias = Flag::FromConfig,
           .outputBias = Flag::FromConfig, .qkNorm = QkNorm::Head, .window = Window::QwenRule, .defaultWindow = 4096},
    Family{.modelType = "olmoe", .title = "OLMoE", .architecture = "OlmoeForCausalLM", .moe = &kOlmoe, .qkvBias = Flag::FromConfig,
           .outputBias = Flag::FromConfig, .qkNorm = QkNorm::Projection, .needsHiddenDivisibleByHeads = true, .stockReadsHeadDim = false,
           .defaultNormEps = 1e-5},
    Family{.modelType = "deepseek", .title = "DeepSeekMoE", .architecture = "DeepseekForCausalLM", .moe = &kDeepseekMoe, .qkvBias = Flag::FromConfig,
           .outputBias = Flag::FromConfig, .needsHiddenDivisibleByHeads = true, .stockReadsHeadDim = false},
    Family{.modelType = "glm4_moe", .title = "GLM-4 MoE", .architecture = "Glm4MoeForCausalLM", .moe = &kGlm4Moe, .qkvBias = Flag::FromConfig,
           .qkNorm = QkNorm::HeadIfConfigured, .partialRotary = true, .defaultNormEps = 1e-5, .defaultRotaryShare = 0.5},
    Family{.modelType = "vit", .title = "ViT", .architecture = "ViTForImageClassification", .names = kVitNames, .blockNames = kVitBlockNames,
           .blockPrefix = "vit.encoder.layer.", .fields = kVitFields, .image = &kVitImage, .defaults = kVitDefaults, .qkvBias = Flag::FromConfig,
           .outputBias = Flag::Yes, .mlpBias = Flag::Yes, .norm = Norm::Layer, .gatedMlp = false, .learnedPositions = true,
           .needsHiddenDivisibleByHeads = true, .stockReadsHeadDim = false, .defaultNormEps = 1e-12, .defaultActivation = "gelu"},
    Family{.modelType = "deit", .title = "DeiT", .architecture = "DeiTForImageClassificationWithTeacher", .names = kDeitNames,
           .blockNames = kVitBlockNames, .blockPrefix = "deit.encoder.layer.", .fields = kVitFields, .image = &kDeitImage, .defaults = kVitDefaults,
           .qkvBias = Flag::FromConfig, .outputBias = Flag::Yes, .mlpBias = Flag::Yes, .norm = Norm::Layer, .gatedMlp = false,
           .learnedPositions = true, .needsHiddenDivisibleByHeads = true, .stockReadsHeadDim = false, .defaultNormEps = 1e-12,
           .defaultActivation = "gelu"},
    // timm's own files have no model_type; these stand for it (see timm_config.h).
    timm("timm_vit", "ViT (timm)", kTimmNames, "blocks.", kTimmImage), timm("timm_deit", "DeiT (timm)", kTimmNames, "blocks.", kTimmDistilledImage),
    timm("timm_wrapper", "ViT (timm wrapper)", kTimmWrapperNames, "timm_model.blocks.", kTimmImage),
    Family{.modelType = "clip_vision_model", .title = "CLIP vision tower", .architecture = "CLIPVisionModel", .names = kClipNames,
           .blockNames = kClipBlockNames, .blockPrefix = "vision_model.encoder.layers.", .fields = kVitFields, .image = &kClipImage,
           .defaults = kClipDefaults, .qkvBias = Flag::Yes, .outputBias = Flag::Yes, .mlpBias = Flag::Yes, .norm = Norm::Layer, .gatedMlp = false,
           .learnedPositions = true, .needsHiddenDivisibleByHeads = true, .stockReadsHeadDim = false, .defaultNormEps = 1e-5,
           .defaultActivation = "quick_gelu"},
    Family{.modelType = "clip_text_model", .title = "CLIP text tower", .architecture = "CLIPTextModel", .names = kClipTextNames,
           .blockNames = kClipBlockNames, .blockPrefix = "text_model.encoder.layers.", .fields = kClipTextFields, .defaults = kClipTextDefaults,
           .qkvBias = Flag::Yes, .outputBias = Flag::Yes, .mlpBias = Flag::Yes, .norm = Norm::Layer, .gatedMlp = false, .learnedPositions = true,
           .headless = true, .needsHiddenDivisibleByHeads = true, .stockReadsHeadDim = false, .defaultNormEps = 1e-5, .defaultActivation = "quick_gelu"},
    Family{.modelType = "clip", .title = "CLIP", .architecture = "CLIPModel", .names = kClipLinkNames, .towers = kClipTowers},
    Family{.modelType = "llava", .title = "LLaVA", .architecture = "LlavaForConditionalGeneration", .names = kLlavaLinkNames, .towers = kLlavaTowers},
};

// ---- Units along axes ----

struct UnitsRow {
    TensorRole role;
    int axis;  // of [out, in]
    std::array<ComponentKind, 3> kinds;
    int segments = 1;
};
constexpr auto kHead = ComponentKind::Head, kGroup = ComponentKind::KvGroup, kChannel = ComponentKind::Channel, kExpert = ComponentKind::Expert, kShared = ComponentKind::SharedChannel;
constexpr UnitsRow kUnits[] = {
    {QueryWeight, 0, {kHead}},       {QueryBias, 0, {kHead}},          {OutputWeight, 1, {kHead}},
    {KeyWeight, 0, {kGroup}},        {KeyBias, 0, {kGroup}},           {ValueWeight, 0, {kGroup}},      {ValueBias, 0, {kGroup}},
    {QkvWeight, 0, {kHead, kGroup, kGroup}, 3},                        {QkvBias, 0, {kHead, kGroup, kGroup}, 3},
    {GateWeight, 0, {kChannel}},     {GateBias, 0, {kChannel}},        {UpWeight, 0, {kChannel}},       {UpBias, 0, {kChannel}},
    {GateUpWeight, 0, {kChannel, kChannel}, 2},                        {DownWeight, 1, {kChannel}},
    {ExpertGateWeight, 0, {kChannel}}, {ExpertUpWeight, 0, {kChannel}}, {ExpertDownWeight, 1, {kChannel}},
    {RouterWeight, 0, {kExpert}},    {RouterCorrection, 0, {kExpert}},
    {SharedGateWeight, 0, {kShared}}, {SharedUpWeight, 0, {kShared}},  {SharedDownWeight, 1, {kShared}},
};

const char* findName(std::span<const RoleName> names, TensorRole role) {
    const auto row = std::find_if(names.begin(), names.end(), [&](const RoleName& name) { return name.role == role; });
    return row == names.end() ? nullptr : row->name;
}

/// Lists the tensors of one shape.
class Lister {
public:
    /// `expertsListed`: at most so many of each mixture.
    Lister(const ModelShape& shape, int expertsListed) : m_shape(shape), m_family(familyOf(shape)), m_expertsListed(expertsListed) {}

    std::vector<ExpectedTensor> all() {
        const std::int64_t d = m_shape.hiddenSize;
        if (m_shape.image) {
            imageInput(*m_shape.image);
        } else {
            add(TokenEmbedding, {m_shape.vocabSize, d});
            if (m_family.learnedPositions) add(PositionEmbedding, {m_shape.maxPositions, d});
        }
        for (int b = 0; b < m_shape.numBlocks(); ++b) block(b);
        m_block = -1;
        norm(FinalNorm, FinalNormBias);
        if (m_shape.image) imageHead(*m_shape.image);
        else if (!m_shape.tiedEmbeddings && !m_family.headless) add(LmHead, {m_shape.vocabSize, d});
        return std::move(m_tensors);
    }
    std::vector<ExpectedTensor> ofBlock(int b) {
        block(b);
        return std::move(m_tensors);
    }
    /// What links the towers.
    std::vector<ExpectedTensor> links() {
        const std::int64_t vision = m_shape.towers.front().shape.hiddenSize, text = m_shape.towers.back().shape.hiddenSize;
        if (m_shape.modelType == "clip") {
            const std::int64_t projected = m_shape.link.projectionSize;
            add(VisualProjection, {projected, vision});
            add(TextProjection, {projected, text});
            add(LogitScale, {});
        } else {
            linear(ProjectorInWeight, ProjectorInBias, m_shape.link.projectorBias, text, vision * static_cast<std::int64_t>(m_shape.link.featureBlocks.size()));
            linear(ProjectorOutWeight, ProjectorOutBias, m_shape.link.projectorBias, text, text);
        }
        for (ExpectedTensor& tensor : m_tensors) tensor.tower = -1;
        return std::move(m_tensors);
    }

private:
    void add(TensorRole role, std::vector<std::int64_t> shape, int expert = -1) {
        m_tensors.push_back({tensorName(m_family, role, m_block, expert), std::move(shape), role, m_block, expert});
    }
    void matrix(TensorRole role, std::int64_t out, std::int64_t in, int expert = -1) {
        add(role, m_family.transposedLinears ? std::vector{in, out} : std::vector{out, in}, expert);
    }
    void norm(TensorRole weight, TensorRole bias) {
        add(weight, {m_shape.hiddenSize});
        if (m_family.norm == Norm::Layer) add(bias, {m_shape.hiddenSize});
    }
    void linear(TensorRole weight, TensorRole bias, bool hasBias, std::int64_t out, std::int64_t in) {
        matrix(weight, out, in);
        if (hasBias) add(bias, {out});
    }

    void imageInput(const ImageShape& image) {
        const std::int64_t d = m_shape.hiddenSize, tokens = image.tokens();
        const auto table = [&](std::int64_t rows) { return m_family.image->plainTables ? std::vector{rows, d} : std::vector{std::int64_t{1}, rows, d}; };
        add(ClassToken, m_family.image->plainTables ? std::vector{d} : table(1));
        if (m_family.image->distilled) add(DistillationToken, table(1));
        add(PositionEmbedding, table(tokens));
        add(PatchWeight, {d, image.channels, image.patchHeight, image.patchWidth});
        if (m_family.image->patchBias) add(PatchBias, {d});
        if (m_family.image->inputNorm) norm(InputNorm, InputNormBias);
    }
    void imageHead(const ImageShape& image) {
        const std::int64_t d = m_shape.hiddenSize, labels = image.labels;
        const bool two = image.heads == 2;
        if (labels > 0) {
            add(LmHead, {labels, d});
            add(LmHeadBias, {labels});
            if (two) add(DistillationHead, {labels, d}), add(DistillationHeadBias, {labels});
        }
        if (image.pooler) add(PoolerWeight, {d, d}), add(PoolerBias, {d});
    }

    void block(int b) {
        m_block = b;
        const BlockShape& block = m_shape.blocks[static_cast<std::size_t>(b)];
        if (block.hasAttention) attention(block);
        if (block.hasFfn) ffn(block);
    }

    void attention(const BlockShape& block) {
        const std::int64_t d = m_shape.hiddenSize;
        const std::int64_t q = std::int64_t{block.numHeads} * block.headDim, kv = std::int64_t{block.numKvHeads} * block.headDim;
        norm(AttentionNorm, AttentionNormBias);
        if (m_family.fusedQkv) {
            linear(QkvWeight, QkvBias, m_shape.qkvBias, q + 2 * kv, d);
        } else {
            linear(QueryWeight, QueryBias, m_shape.qkvBias, q, d);
            linear(KeyWeight, KeyBias, m_shape.qkvBias, kv, d);
            linear(ValueWeight, ValueBias, m_shape.qkvBias, kv, d);
        }
        linear(OutputWeight, OutputBias, m_shape.outputBias, d, q);
        if (m_shape.qkNorm) {
            const bool perHead = m_family.qkNorm != QkNorm::Projection;
            add(QueryNorm, {perHead ? block.headDim : q});
            add(KeyNorm, {perHead ? block.headDim : kv});
        }
        if (m_family.postNorms) add(PostAttentionNorm, {d});
    }

    void ffn(const BlockShape& block) {
        const std::int64_t d = m_shape.hiddenSize, f = block.ffnSize;
        norm(FfnNorm, FfnNormBias);
        if (block.numExperts > 0) {
            mixture(block);
        } else {
            if (m_family.fusedGateUp) {
                matrix(GateUpWeight, 2 * f, d);
            } else {
                if (m_family.gatedMlp) linear(GateWeight, GateBias, m_shape.mlpBias, f, d);
                linear(UpWeight, UpBias, m_shape.mlpBias, f, d);
            }
            linear(DownWeight, DownBias, m_shape.mlpBias, d, f);
        }
        if (m_family.postNorms) add(PostFfnNorm, {d});
    }

    void mixture(const BlockShape& block) {
        const std::int64_t d = m_shape.hiddenSize, f = block.ffnSize, shared = block.sharedFfnSize;
        matrix(RouterWeight, block.numExperts, d);
        if (m_family.moe->sigmoidWithCorrection) add(RouterCorrection, {block.numExperts});
        for (int e = 0; e < std::min(block.numExperts, m_expertsListed); ++e) {
            matrix(ExpertGateWeight, f, d, e);
            matrix(ExpertUpWeight, f, d, e);
            matrix(ExpertDownWeight, d, f, e);
        }
        if (shared == 0) return;
        matrix(SharedGateWeight, shared, d);
        matrix(SharedUpWeight, shared, d);
        matrix(SharedDownWeight, d, shared);
        if (m_family.moe->sharedGate) matrix(SharedExpertGate, 1, d);
    }

    const ModelShape& m_shape;
    const Family& m_family;
    int m_expertsListed;
    int m_block = -1;
    std::vector<ExpectedTensor> m_tensors;
};

}  // namespace

std::span<const Family> families() noexcept { return kFamilies; }

const Family* findFamily(std::string_view modelType) noexcept {
    const auto it = std::find_if(kFamilies.begin(), kFamilies.end(), [&](const Family& family) { return family.modelType == modelType; });
    return it == kFamilies.end() ? nullptr : &*it;
}

const Family& familyOf(const ModelShape& shape) {
    if (const Family* family = findFamily(shape.modelType)) return *family;
    std::string known;
    for (const Family& row : kFamilies) known += (known.empty() ? "" : ", ") + std::string(row.modelType);
    throw Error(ErrorCode::Unsupported, "config.json: model_type", "\"" + shape.modelType + "\" is not among the families that can be cut: " + known);
}

std::string tensorName(const Family& family, TensorRole role, int block, int expert) {
    const char* spelling = findName(family.names, role);
    if (!spelling) spelling = findName(family.blockNames, role);
    if (!spelling) spelling = findName(kCommonNames, role);
    if (!spelling) throw Error(ErrorCode::Internal, std::string(family.title), "has no tensor of role " + std::to_string(static_cast<int>(role)));
    std::string name = spelling;
    if (const auto at = name.find("{e}"); at != std::string::npos) name.replace(at, 3, std::to_string(expert));
    return block < 0 ? name : family.blockPrefix + std::to_string(block) + "." + name;
}

std::string tensorName(const ModelShape& shape, TensorRole role, int block, int expert) {
    const bool link = role >= ProjectorInWeight && role <= LogitScale;
    if (shape.towers.empty() || link) return tensorName(familyOf(shape), role, block, expert);
    const int index = block < 0 ? static_cast<int>(shape.towers.size()) - 1 : shape.blocks[static_cast<std::size_t>(block)].tower;
    const Tower& tower = shape.towers[static_cast<std::size_t>(index)];
    return tower.prefix + tensorName(familyOf(tower.shape), role, block < 0 ? block : block - blocksOf(shape, index).first, expert);
}

namespace {

/// A tower's tensors as those of the whole model.
void placeInWhole(std::vector<ExpectedTensor>& tensors, const ModelShape& whole, int tower) {
    const int first = blocksOf(whole, tower).first;
    for (ExpectedTensor& tensor : tensors) {
        tensor.name.insert(0, whole.towers[static_cast<std::size_t>(tower)].prefix);
        tensor.tower = tower;
        if (tensor.block >= 0) tensor.block += first;
    }
}

}  // namespace

std::vector<ExpectedTensor> expectedTensors(const ModelShape& shape) {
    if (shape.towers.empty()) return Lister(shape, 1 << 30).all();
    std::vector<ExpectedTensor> all;
    for (int tower = 0; tower < static_cast<int>(shape.towers.size()); ++tower) {
        std::vector<ExpectedTensor> own = expectedTensors(towerShape(shape, tower));
        placeInWhole(own, shape, tower);
        all.insert(all.end(), own.begin(), own.end());
    }
    const std::vector<ExpectedTensor> links = Lister(shape, 0).links();
    all.insert(all.end(), links.begin(), links.end());
    return all;
}

std::vector<ExpectedTensor> outerTensors(const ModelShape& shape) {
    ModelShape without = shape;
    without.blocks.clear();
    return expectedTensors(without);
}

std::vector<ExpectedTensor> blockTensors(const ModelShape& shape, int block) {
    if (shape.towers.empty()) return Lister(shape, 1).ofBlock(block);
    const int tower = shape.blocks[static_cast<std::size_t>(block)].tower;
    const ModelShape own = towerShape(shape, tower);
    std::vector<ExpectedTensor> tensors = Lister(own, 1).ofBlock(block - blocksOf(shape, tower).first);
    placeInWhole(tensors, shape, tower);
    return tensors;
}

std::vector<TensorRole> rolesOf(const ModelShape& shape, int block) {
    std::vector<TensorRole> roles;
    for (const ExpectedTensor& tensor : blockTensors(shape, block)) roles.push_back(tensor.role);
    return roles;
}

AxisUnits unitsAlong(const Family& family, TensorRole role) {
    const auto* row = std::find_if(std::begin(kUnits), std::end(kUnits), [&](const UnitsRow& candidate) { return candidate.role == role; });
    if (row == std::end(kUnits)) return {};
    AxisUnits units{row->axis, {row->kinds.begin(), row->kinds.begin() + row->segments}};
    if (family.transposedLinears && !isBiasRole(role)) units.axis = 1 - units.axis;
    return units;
}

std::int64_t unitCount(const BlockShape& block, ComponentKind kind) noexcept {
    switch (kind) {
    case ComponentKind::Head: return block.numHeads;
    case ComponentKind::KvGroup: return block.numKvHeads;
    case ComponentKind::Channel: return block.ffnSize;
    case ComponentKind::SharedChannel: return block.sharedFfnSize;
    default: return block.numExperts;
    }
}

std::int64_t placesPerUnit(const BlockShape& block, ComponentKind kind) noexcept {
    return kind == ComponentKind::Head || kind == ComponentKind::KvGroup ? block.headDim : 1;
}

int hiddenAxis(const Family& family, TensorRole role) noexcept {
    switch (role) {
    case TokenEmbedding: case LmHead: return 1;
    case FinalNorm: case AttentionNorm: case PostAttentionNorm: case FfnNorm: case PostFfnNorm: case OutputBias: case DownBias: return 0;
    case QueryWeight: case KeyWeight: case ValueWeight: case QkvWeight: case GateWeight: case UpWeight: case GateUpWeight: case RouterWeight:
    case ExpertGateWeight: case ExpertUpWeight: case SharedGateWeight: case SharedUpWeight: case SharedExpertGate: return family.transposedLinears ? 0 : 1;
    case OutputWeight: case DownWeight: case ExpertDownWeight: case SharedDownWeight: return family.transposedLinears ? 1 : 0;
    default: return -1;
    }
}

bool isEmbeddingRole(TensorRole role) noexcept { return role <= InputNormBias; }

bool isAttentionRole(TensorRole role) noexcept { return role >= AttentionNorm && role <= PostAttentionNorm; }

bool isNormRole(TensorRole role) noexcept {
    switch (role) {
    case InputNorm: case InputNormBias: case FinalNorm: case FinalNormBias: case AttentionNorm: case AttentionNormBias: case QueryNorm: case KeyNorm: case PostAttentionNorm:
    case FfnNorm: case FfnNormBias: case PostFfnNorm: return true;
    default: return false;
    }
}

bool isExpertRole(TensorRole role) noexcept { return role >= ExpertGateWeight && role <= ExpertDownWeight; }

bool isBiasRole(TensorRole role) noexcept {
    switch (role) {
    case QueryBias: case KeyBias: case ValueBias: case QkvBias: case OutputBias: case GateBias: case UpBias: case DownBias: case RouterCorrection:
    case PatchBias: case LmHeadBias: case DistillationHeadBias: case PoolerBias: case ProjectorInBias: case ProjectorOutBias: return true;
    default: return false;
    }
}

}  // namespace resect
