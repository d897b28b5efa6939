#pragma once
#include "core/models/decoder.h"

namespace resect {

/// A vision and a language tower that work together as ModelShape::link says: LLaVA (pictures become rows of the text) or CLIP (both are compared).
/// Blocks count through both, the vision tower's first.
///
/// LLaVA: a batch without pictures runs the language tower alone. With pictures, the stream is the vision tower's up to its last block and the
/// text's from there on. Blocks of the tower that give nothing to the features are not run. Ids hold one placeholder for every row of features.
/// CLIP: a batch holds pictures or texts, and runs the blocks of its own tower; head() projects what leaves it, position by position. logits() takes
/// a batch with both.
class TowerModel final : public LanguageModel {
public:
    TowerModel(ModelShape shape, const LoadOptions& options, const WeightSource& source, const JobContext& job = {});

    const ModelShape& shape() const noexcept override { return m_shape; }
    torch::Device device() const noexcept override { return m_text.device(); }
    torch::ScalarType dtype() const noexcept override { return m_text.dtype(); }
    void setCut(const Cut& cut) override;
    torch::Tensor embed(const TokenBatch& batch, const KvCache* cache = nullptr) const override;
    torch::Tensor runBlocks(torch::Tensor x_BTD, const TokenBatch& batch, int first, int last, Observer* observer, KvCache* cache) const override;
    torch::Tensor finalNorm(const torch::Tensor& x_BTD) const override;
    torch::Tensor head(const torch::Tensor& normed_BTD) const override;
    /// Of CLIP with pictures [B,...] and texts [S,T]: [B,1,S], similarities times the learned scale.
    torch::Tensor logits(const TokenBatch& batch, Observer* observer = nullptr, KvCache* cache = nullptr) const override;
    torch::Tensor loss(const TokenBatch& batch, const torch::Tensor& targets_BT) const override;
    void visitParameters(const std::function<void(const std::string&, torch::Tensor&)>& visit) override;
    void replaceLinear(int block, const std::string& role, const std::function<std::unique_ptr<Linear>(std::unique_ptr<Linear>)>& make) override;
    void replaceBranch(int block, BranchSlot slot, const std::function<std::unique_ptr<Branch>(std::unique_ptr<Branch>)>& make) override;
    void setAttentionKernel(int block, std::shared_ptr<const AttentionKernel> kernel) override;
    std::vector<std::string> linearRoles(int block) const override;
    std::unique_ptr<KvCache> makeCache(int batchSize, int capacity) const override;

    /// LLaVA: what the pictures put into the text, [pictures, rows, text width].
    torch::Tensor imageFeatures(const torch::Tensor& pixels_BCHW, Observer* observer = nullptr) const;
    /// CLIP: where pictures [B,P] and texts [S,P] lie on the unit sphere on which they are compared.
    torch::Tensor imageEmbeddings(const torch::Tensor& pixels_BCHW, Observer* observer = nullptr) const;
    torch::Tensor textEmbeddings(const TokenBatch& batch, Observer* observer = nullptr) const;

private:
    bool isClip() const noexcept { return m_shape.link.projectionSize > 0; }
    bool isVision(int block) const noexcept { return block < m_visionBlocks; }
    Decoder& towerOf(int block);
    const Decoder& towerOf(int block) const { return const_cast<TowerModel*>(this)->towerOf(block); }
    int within(int block) const noexcept { return isVision(block) ? block : block - m_visionBlocks; }
    torch::Tensor runVision(torch::Tensor x_BTD, const TokenBatch& batch, int first, int last, Observer* observer, std::vector<torch::Tensor>* features) const;
    torch::Tensor runText(torch::Tensor x_BTD, const TokenBatch& batch, int first, int last, Observer* observer, KvCache* cache) const;
    torch::Tensor project(const std::vector<torch::Tensor>& features) const;
    torch::Tensor withImages(const TokenBatch& batch, const std::vector<torch::Tensor>& features) const;
    torch::Tensor normalised(const torch::Tensor& pooled_BD, TensorRole projection) const;

    ModelShape m_shape;
    int m_visionBlocks;
    Decoder m_vision, m_text;
    std::map<TensorRole, torch::Tensor> m_links;
    mutable bool m_onPictures = false;  ///< CLIP: what the last embed() was for; finalNorm() and head() belong to it
};

/// How many rows of features one picture puts into the text of a LLaVA: as many places must be there for it.
int imageRows(const ModelShape& shape);
/// The tokens of a text with each image token repeated for every row of its picture, as the model runs it. Throws Unsupported for a model that takes
/// no pictures into its text, BadInput when the text has not one image token for each picture.
std::vector<std::int64_t> withPicturePlaces(std::span<const std::int64_t> ids, const ModelShape& shape, std::int64_t pictures);
/// generate() for a prompt with pictures: `prompt` holds one row of ids with their places, and the pictures.
std::vector<std::int64_t> generateAbout(const LanguageModel& model, const TokenBatch& prompt, const SamplingOptions& options, const JobContext& job,
                                        const std::function<void(std::int64_t id, double logProbability)>& onToken = {});

/// The model class that a shape calls for.
std::unique_ptr<LanguageModel> makeModel(const ModelShape& shape, const LoadOptions& options, const WeightSource& source, const JobContext& job = {});

}  // namespace resect
