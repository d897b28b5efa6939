#pragma once
#include "core/models/branch.h"
#include "core/models/model.h"

#include <map>
#include <memory>
#include <vector>

namespace resect {

/// Keys and values of every attention layer, allocated for its whole capacity at once; a layer that chooses its rows allocates its own when it has chosen.
class DecoderCache final : public KvCache {
public:
    enum class Keeps { Nothing, AllRows, ChosenRows };
    DecoderCache(const ModelShape& shape, const std::vector<Keeps>& keeps, int batchSize, int capacity, torch::TensorOptions options);
    int length() const noexcept override { return m_length; }
    std::uint64_t bytes() const noexcept override;
    void truncate(int length) override;

    LayerCache* layer(int block);
    int capacity() const noexcept { return m_capacity; }
    int batchSize() const noexcept { return m_batchSize; }
    void advance(int tokens) { m_length += tokens; }
    std::vector<std::int64_t> leftPadding;  ///< of each row, empty = none; set by the first run

private:
    std::vector<LayerCache> m_layers;
    int m_batchSize, m_capacity, m_length = 0;
};

struct DecoderBlock {
    std::unique_ptr<Branch> attention, ffn;  ///< null = absent
};
DecoderBlock buildBlock(const ModelShape& shape, int block, const WeightSource& source);

/// The decoder families: which of them is only data. Parts may be missing when it serves a block stream.
class Decoder final : public LanguageModel {
public:
    enum class Parts { All, None };
    Decoder(ModelShape shape, const LoadOptions& options, const WeightSource& source, Parts parts, const JobContext& job = {});

    const ModelShape& shape() const noexcept override { return m_shape; }
    torch::Device device() const noexcept override { return m_device; }
    torch::ScalarType dtype() const noexcept override { return m_dtype; }
    void setCut(const Cut& cut) override;
    torch::Tensor embed(const TokenBatch& batch, const KvCache* cache = nullptr) const override;
    torch::Tensor runBlocks(torch::Tensor x_BTD, const TokenBatch& batch, int first, int last, Observer* observer, KvCache* cache) const override;
    torch::Tensor finalNorm(const torch::Tensor& x_BTD) const override;
    torch::Tensor head(const torch::Tensor& normed_BTD) const override;
    torch::Tensor loss(const TokenBatch& batch, const torch::Tensor& targets_BT) const override;
    void visitParameters(const std::function<void(const std::string&, torch::Tensor&)>& visit) override;
    void replaceLinear(int block, const std::string& role,
                       const std::function<std::unique_ptr<Linear>(std::unique_ptr<Linear>)>& make) override;
    void replaceBranch(int block, BranchSlot slot, const std::function<std::unique_ptr<Branch>(std::unique_ptr<Branch>)>& make) override;
    void setAttentionKernel(int block, std::shared_ptr<const AttentionKernel> kernel) override;
    std::vector<std::string> linearRoles(int block) const override;
    std::unique_ptr<KvCache> makeCache(int batchSize, int capacity) const override;

    /// The loss of what leaves the last block.
    torch::Tensor lossAfter(const torch::Tensor& x_BTD, const torch::Tensor& targets_BT) const;

    // For a block stream: one part at a time.
    void loadEmbedding(const WeightSource& source);
    void loadBlock(int block, const WeightSource& source);
    void loadHead(const WeightSource& source);
    void freeEmbedding();
    void freeBlock(int block);

private:
    DecoderBlock& blockAt(int block);
    bool skips(int block, BranchSlot slot) const;
    void applyCut(int block);
    torch::Tensor embedImages(const torch::Tensor& pixels_BCHW) const;
    torch::Tensor classify(const torch::Tensor& normed_BTD) const;
    torch::Tensor outer(TensorRole role) const;  // undefined where the family has none
    TokenLayout layoutOf(const TokenBatch& batch, const KvCache* cache) const;
    const torch::Tensor& headWeight() const { return m_head.defined() ? m_head : m_embedding; }

    ModelShape m_shape;
    torch::Device m_device;
    torch::ScalarType m_dtype;
    const Family& m_family;
    torch::Tensor m_embedding, m_norm, m_head;  // [V,D], [D], [V,D]; m_head undefined when tied
    std::map<TensorRole, torch::Tensor> m_outer;    // the others that belong to no block, as far as they are loaded
    std::vector<DecoderBlock> m_blocks;
    Cut m_cut;                                  // without blocks = none
    torch::Tensor m_hiddenMask;                 // [D], undefined = all hidden channels are there
    mutable std::map<int, RotaryTable> m_rotary;// by rotating dimensions
};

/// The dtype in which a model of these options computes.
torch::ScalarType computeDtype(const LoadOptions& options);
/// Reads one weight after the other from the mapped checkpoint. Throws NotFound, Mismatch (shape), Unsupported (dtype).
WeightSource checkpointWeights(const Checkpoint& checkpoint, const LoadOptions& options);

}  // namespace resect
