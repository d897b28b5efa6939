#pragma once
#include "core/anatomy/model_shape.h"
#include "core/base/job.h"
#include "core/checkpoint/checkpoint.h"
#include "core/surgery/cut.h"

#include <torch/types.h>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

// Shape letters: B batch, T tokens, D hidden, N heads, G kv heads, H head dim, F channels, E experts, V vocabulary.

namespace resect {

/// Named points of the forward pass that observers subscribe to. Tensors are [B, T, ...] on the model's device, in its dtype.
enum class TapPoint {
    BlockInput,        ///< residual stream entering block i [B,T,D]
    AfterAttention,    ///< residual stream after the attention add (= input of the FFN branch) [B,T,D]
    BlockOutput,       ///< residual stream leaving block i, final norm not applied [B,T,D]
    HeadOutputs,       ///< input of the output projection [B,T,N*H]
    Channels,          ///< input of the down projection [B,T,F]; dense MLPs only
    RouterLogits,      ///< [B,T,E]
    ExpertChoice,      ///< int64 [B,T,K]: the experts that each token is sent to
    ExpertGates,       ///< [B,T,K] f32 (f64): the weights of their outputs
    ExpertNorms,       ///< [B,T,K]: Euclidean norm of their outputs, before weighing
    AttentionWeights,  ///< post-softmax probabilities [B,N,T,T]; asking for it runs the written-out attention
};

/// Sees intermediate tensors while a model runs. Must not change them; called from the running thread, block by block in order.
class Observer {
public:
    virtual ~Observer() = default;
    virtual bool wants(TapPoint point, int block) const = 0;
    virtual void observe(TapPoint point, int block, const torch::Tensor& value) = 0;
};

/// Tokens to run. Ids are int64 [B,T] on the CPU or the model's device.
struct TokenBatch {
    torch::Tensor ids_BT;
    /// Bool [B,T], true = real token; undefined = all real. Padding may stand left or right; positions count real tokens only.
    torch::Tensor mask_BT;
    /// Int64 [B,T] document number for packed rows: tokens attend within their document only and positions restart. Undefined = one.
    torch::Tensor documents_BT;
    /// f32 [B,C,height,width], scaled and normalised as the model expects: what image families run instead of ids, which are then undefined. Of
    /// LLaVA the pictures for the placeholders among the ids, in order; of CLIP pictures or ids, to compare them both.
    torch::Tensor pixels_BCHW{};
    /// The same rows again on `device` (a no-op when they already are).
    TokenBatch to(torch::Device device) const;
};

class KvCache;
class Branch;
class AttentionKernel;

/// A linear map with frozen or trainable parts: dense, LoRA, masked, ... (one of the four seams).
class Linear {
public:
    virtual ~Linear() = default;
    virtual torch::Tensor forward(const torch::Tensor& x) const = 0;  ///< [..., in] -> [..., out]
    /// The weight [out, in] that a dense layer would need to compute the same (merged); for export and inspection.
    virtual torch::Tensor mergedWeight() const = 0;
    virtual torch::Tensor bias() const = 0;                           ///< [out], or undefined
    /// Calls `visit` with every parameter under its name relative to this layer ("weight", "bias", "lora_A.weight").
    virtual void visitParameters(const std::function<void(const std::string&, torch::Tensor&)>& visit) = 0;
};

struct LoadOptions {
    torch::Device device = torch::kCPU;
    /// kFloat32, kBFloat16, kFloat16, kFloat64 (for checks). f16 on the CPU: weights are rounded to f16, stored and computed in f32, since
    /// LibTorch has no f16 products there; the model's dtype() is then kFloat32.
    torch::ScalarType dtype = torch::kFloat32;
    bool trainable = false;                     ///< parameters require gradients
};

/// The dense Linear: weight [out, in], bias [out] or undefined.
std::unique_ptr<Linear> denseLinear(torch::Tensor weight, torch::Tensor bias);

/// Which residual branch of a block.
enum class BranchSlot { Attention, Ffn };

/// A runnable causal language model or vision transformer: embedding, blocks, final norm, head. Each block is a list of residual branches; a dropped one is absent.
/// Not thread-safe; one owner at a time.
class LanguageModel {
public:
    /// Reads the weights of `checkpoint` as its anatomy says. Throws Unsupported for a family that cannot run, OutOfMemory before loading when it cannot fit.
    static std::unique_ptr<LanguageModel> load(const Checkpoint& checkpoint, const LoadOptions& options, const JobContext& job = {});
    /// Random weights as Hugging Face initialises them: normal(0, `std`), norms 1, biases 0.
    static std::unique_ptr<LanguageModel> random(const ModelShape& shape, const LoadOptions& options, double std, std::uint64_t seed);
    virtual ~LanguageModel();

    virtual const ModelShape& shape() const noexcept = 0;
    virtual torch::Device device() const noexcept = 0;
    virtual torch::ScalarType dtype() const noexcept = 0;

    /// Makes this model compute what the cut checkpoint would compute, by masking: absent branches are skipped, heads and channels
    /// multiplied by zero. An empty cut (no blocks) removes the mask. Weights do not change. Block numbers stay the source's.
    virtual void setCut(const Cut& cut) = 0;

    /// [B,T,D]. `cache`: the one that the blocks will run with, which says where learned positions go on.
    virtual torch::Tensor embed(const TokenBatch& batch, const KvCache* cache = nullptr) const = 0;
    /// Runs blocks [first, last) over the residual stream. `cache` may be null; it counts the tokens as seen when the last block has run.
    /// A block that the cut drops emits no taps; an absent branch leaves the stream as it is.
    virtual torch::Tensor runBlocks(torch::Tensor x_BTD, const TokenBatch& batch, int first, int last, Observer* observer = nullptr,
                                    KvCache* cache = nullptr) const = 0;
    virtual torch::Tensor finalNorm(const torch::Tensor& x_BTD) const = 0;
    /// [B,T,V] logits, soft-capped where the family does. Of image families [B,1,labels], from the tokens before the patches; without a
    /// classifier the normed class token [B,1,D].
    virtual torch::Tensor head(const torch::Tensor& normed_BTD) const = 0;
    /// embed + blocks + finalNorm + head.
    virtual torch::Tensor logits(const TokenBatch& batch, Observer* observer = nullptr, KvCache* cache = nullptr) const;
    /// Mean cross entropy (f32 scalar) of the positions whose target is not -100; targets_BT int64, already shifted (targets[t] follows
    /// ids[t]); of image families [B,1], the label. Logits exist for a few rows at a time only. 0 without gradient contributions when no position has a target. Differentiable once.
    virtual torch::Tensor loss(const TokenBatch& batch, const torch::Tensor& targets_BT) const = 0;

    /// Every parameter under its checkpoint name. Changing a tensor in place changes the model.
    virtual void visitParameters(const std::function<void(const std::string&, torch::Tensor&)>& visit) = 0;
    /// Replaces the Linear of one role ("self_attn.q_proj", "mlp.down_proj") in a block by what `make` returns for it.
    virtual void replaceLinear(int block, const std::string& role, const std::function<std::unique_ptr<Linear>(std::unique_ptr<Linear>)>& make) = 0;
    /// Replaces a whole residual branch by what `make` returns for it; `make` gets null for an absent branch and may return null to remove it.
    virtual void replaceBranch(int block, BranchSlot slot, const std::function<std::unique_ptr<Branch>(std::unique_ptr<Branch>)>& make) = 0;
    /// Attention of one block from now on; null = exact.
    virtual void setAttentionKernel(int block, std::shared_ptr<const AttentionKernel> kernel) = 0;
    /// Names accepted by replaceLinear for this block, in forward order.
    virtual std::vector<std::string> linearRoles(int block) const = 0;
    /// A cache for `batchSize` rows of up to `capacity` tokens; holds nothing for absent attention layers.
    virtual std::unique_ptr<KvCache> makeCache(int batchSize, int capacity) const = 0;
    std::int64_t numParameters();  ///< a tied head counts once
};

/// Keys (after rotation) and values of the tokens seen so far, per attention layer that exists.
class KvCache {
public:
    virtual ~KvCache() = default;
    virtual int length() const noexcept = 0;            ///< tokens held
    virtual std::uint64_t bytes() const noexcept = 0;   ///< allocated
    virtual void truncate(int length) = 0;              ///< forget the tokens after `length`
};

/// The model's blocks one at a time: load a block, push all batches through, free it. Results equal the resident run.
/// For models larger than memory; the residual streams of all batches are kept.
class BlockStream {
public:
    BlockStream(const Checkpoint& checkpoint, const LoadOptions& options);
    ~BlockStream();
    const ModelShape& shape() const noexcept;
    void setCut(const Cut& cut);
    /// Runs all batches block by block without gradients and calls `finish` with each batch's final-norm output and logits.
    /// `observer` sees block 0 of all batches, then block 1, ...; `onBatch` is told which batch comes next. A stopped job returns early
    /// without calling `finish` for the rest.
    void run(std::span<const TokenBatch> batches, Observer* observer, const std::function<void(std::size_t batch)>& onBatch,
             const std::function<void(std::size_t batch, const torch::Tensor& normed_BTD, const torch::Tensor& logits_BTV)>& finish, const JobContext& job);

private:
    struct Data;
    std::unique_ptr<Data> m_data;
};

struct SamplingOptions {
    int maxNewTokens = 64;
    double temperature = 0;     ///< 0 = greedy
    int topK = 0;               ///< 0 = all
    double topP = 1;
    std::uint64_t seed = 0;
    std::int64_t idLimit = 0;   ///< only ids below it are chosen: a vocabulary may be padded past its tokenizer's. 0 = all
};
/// Generates after `prompt` with a KV cache; stops at an eos id of the shape. `onToken` is called as tokens come. Returns the new ids.
std::vector<std::int64_t> generate(const LanguageModel& model, std::span<const std::int64_t> prompt, const SamplingOptions& options,
                                   const JobContext& job, const std::function<void(std::int64_t id, double logProbability)>& onToken = {});

/// "cpu", "cuda", "cuda:1", "auto" (cuda where there is one). Throws Usage, or Unsupported when the device is not there.
torch::Device parseDevice(const std::string& text);
/// "f32", "bf16", "f16", "f64", also "float32", "bfloat16", "float16". Throws Usage.
torch::ScalarType parseDtype(const std::string& text);
/// The short form of what parseDtype gives: "f32", "bf16", ...
std::string dtypeName(torch::ScalarType dtype);
/// Sets threads, memory and wait policy of LibTorch once per process to the measured defaults; `threads` 0 = default.
void configureRuntime(int threads);

}  // namespace resect
