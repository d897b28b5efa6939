#include "core/models/tower_model.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/models/ops.h"

#include <torch/types.h>

#include <algorithm>

namespace resect {

namespace {

/// A tower is loaded like a model of its own; its tensors carry a prefix here.
WeightSource prefixed(const WeightSource& source, const Tower& tower) {
    return [&source, prefix = tower.prefix](ExpectedTensor wanted) {
        wanted.name.insert(0, prefix);
        return source(wanted);
    };
}

/// Tells an observer of the whole model what a tower's blocks do.
class Shifted final : public Observer {
public:
    Shifted(Observer& observer, int by) : m_observer(observer), m_by(by) {}
    bool wants(TapPoint point, int block) const override { return m_observer.wants(point, block + m_by); }
    void observe(TapPoint point, int block, const torch::Tensor& value) override { m_observer.observe(point, block + m_by, value); }

private:
    Observer& m_observer;
    int m_by;
};

}  // namespace

TowerModel::TowerModel(ModelShape shape, const LoadOptions& options, const WeightSource& source, const JobContext& job)
    : m_shape(std::move(shape)), m_visionBlocks(blocksOf(m_shape, 0).last),
      m_vision(towerShape(m_shape, 0), options, prefixed(source, m_shape.towers[0]), Decoder::Parts::All, job),
      m_text(towerShape(m_shape, 1), options, prefixed(source, m_shape.towers[1]), Decoder::Parts::All, job) {
    for (const ExpectedTensor& tensor : outerTensors(m_shape)) {
        if (tensor.tower < 0) {
            m_links[tensor.role] = source(tensor);
        }
    }
}

void TowerModel::setCut(const Cut& cut) {
    if (!cut.blocks.empty() && cut.blocks.size() != m_shape.blocks.size()) {
        throw Error(ErrorCode::Mismatch, "cut", "is for " + std::to_string(cut.blocks.size()) + " blocks, the model has " + std::to_string(m_shape.blocks.size()));
    }
    const auto middle = cut.blocks.begin() + (cut.blocks.empty() ? 0 : m_visionBlocks);
    m_vision.setCut({{cut.blocks.begin(), middle}, {}});
    m_text.setCut({{middle, cut.blocks.end()}, {}});
}

Decoder& TowerModel::towerOf(int block) {
    if (block < 0 || block >= m_shape.numBlocks()) {
        throw Error(ErrorCode::NotFound, "block " + std::to_string(block), "the model has " + std::to_string(m_shape.numBlocks()) + " blocks");
    }
    return isVision(block) ? m_vision : m_text;
}

torch::Tensor TowerModel::embed(const TokenBatch& batch, const KvCache* cache) const {
    const bool pictures = batch.pixels_BCHW.defined();
    if (isClip() && pictures && batch.ids_BT.defined()) {
        throw Error(ErrorCode::BadInput, "batch", "CLIP runs pictures or texts; give one of them, or compare both by their logits");
    }
    m_onPictures = pictures;
    if (pictures) {
        return m_vision.embed({{}, {}, {}, batch.pixels_BCHW});
    }
    if (!isClip() && batch.ids_BT.eq(m_shape.link.imageTokenId).any().item<bool>()) {
        throw Error(ErrorCode::BadInput, "pixel_values", "the text has places for a picture, but there is none");
    }
    return m_text.embed(batch, cache);
}

torch::Tensor TowerModel::runVision(torch::Tensor x_BTD, const TokenBatch& batch, int first, int last, Observer* observer, std::vector<torch::Tensor>* features) const {
    const TokenBatch pictures{{}, {}, {}, batch.pixels_BCHW};
    if (!features) {
        return m_vision.runBlocks(std::move(x_BTD), pictures, first, last, observer, nullptr);
    }
    const std::vector<int>& wanted = m_shape.link.featureBlocks;
    last = std::min(last, *std::max_element(wanted.begin(), wanted.end()));
    if (first > *std::min_element(wanted.begin(), wanted.end()) && wanted.size() > 1) {
        throw Error(ErrorCode::Unsupported, "vision_feature_layer", "several layers can only be run in one piece, not from block " + std::to_string(first));
    }
    features->resize(wanted.size());
    for (int block = first;; ++block) {
        for (std::size_t i = 0; i < wanted.size(); ++i) {
            if (wanted[i] == block || (block >= last && wanted[i] <= block && !(*features)[i].defined())) {
                (*features)[i] = x_BTD;
            }
        }
        if (block >= last) {
            return x_BTD;
        }
        x_BTD = m_vision.runBlocks(std::move(x_BTD), pictures, block, block + 1, observer, nullptr);
    }
}

torch::Tensor TowerModel::runText(torch::Tensor x_BTD, const TokenBatch& batch, int first, int last, Observer* observer, KvCache* cache) const {
    TokenBatch text = batch;
    text.pixels_BCHW = torch::Tensor();
    if (!observer) {
        return m_text.runBlocks(std::move(x_BTD), text, first, last, nullptr, cache);
    }
    Shifted shifted(*observer, m_visionBlocks);
    return m_text.runBlocks(std::move(x_BTD), text, first, last, &shifted, cache);
}

torch::Tensor TowerModel::runBlocks(torch::Tensor x_BTD, const TokenBatch& batch, int first, int last, Observer* observer, KvCache* cache) const {
    const bool pictures = batch.pixels_BCHW.defined();
    const int end = std::min(last, m_visionBlocks);
    if (pictures && (isClip() || last <= m_visionBlocks)) {
        const int used = isClip() ? end : std::min(end, *std::max_element(m_shape.link.featureBlocks.begin(), m_shape.link.featureBlocks.end()));
        return runVision(std::move(x_BTD), batch, std::min(first, used), used, observer, nullptr);
    }
    if (pictures && first <= m_visionBlocks) {
        std::vector<torch::Tensor> features;
        runVision(std::move(x_BTD), batch, first, end, observer, &features);
        x_BTD = withImages(batch, features);
    }
    const int start = std::max(first - m_visionBlocks, 0);
    return last <= m_visionBlocks ? x_BTD : runText(std::move(x_BTD), batch, start, last - m_visionBlocks, observer, cache);
}

torch::Tensor TowerModel::project(const std::vector<torch::Tensor>& features) const {
    std::vector<torch::Tensor> rows;
    for (const torch::Tensor& feature_BTD : features) {
        rows.push_back(m_shape.link.dropsClassToken ? feature_BTD.narrow(1, 1, feature_BTD.size(1) - 1) : feature_BTD);
    }
    const auto link = [&](TensorRole role) {
        const auto found = m_links.find(role);
        return found == m_links.end() ? torch::Tensor() : found->second;
    };
    const auto hidden = ops::linear(torch::cat(rows, -1), link(TensorRole::ProjectorInWeight), link(TensorRole::ProjectorInBias));
    return ops::linear(ops::activation(hidden, m_shape.link.projectorActivation), link(TensorRole::ProjectorOutWeight), link(TensorRole::ProjectorOutBias));
}

torch::Tensor TowerModel::withImages(const TokenBatch& batch, const std::vector<torch::Tensor>& features) const {
    const auto rows_PTD = project(features);
    const auto ids_BT = batch.ids_BT.to(device());
    const auto places_BT = ids_BT.eq(m_shape.link.imageTokenId);
    const std::int64_t places = places_BT.sum().item<std::int64_t>(), rows = rows_PTD.size(0) * rows_PTD.size(1);
    if (places != rows) {
        throw Error(ErrorCode::BadInput, "input_ids", "hold " + std::to_string(places) + " places for pictures (token " + std::to_string(m_shape.link.imageTokenId) + "), but " +
                                                          std::to_string(rows_PTD.size(0)) + " pictures fill " + std::to_string(rows) + ": each needs " + std::to_string(rows_PTD.size(1)));
    }
    TokenBatch text = batch;
    text.ids_BT = ids_BT.masked_fill(places_BT, 0);  // the placeholder may lie beyond the vocabulary
    text.pixels_BCHW = torch::Tensor();
    const auto x_BTD = m_text.embed(text);
    return x_BTD.masked_scatter(places_BT.unsqueeze(-1).expand_as(x_BTD), rows_PTD.to(x_BTD.scalar_type()));
}

torch::Tensor TowerModel::imageFeatures(const torch::Tensor& pixels_BCHW, Observer* observer) const {
    const TokenBatch batch{{}, {}, {}, pixels_BCHW};
    std::vector<torch::Tensor> features;
    runVision(m_vision.embed(batch), batch, 0, m_visionBlocks, observer, &features);
    return project(features);
}

torch::Tensor TowerModel::normalised(const torch::Tensor& pooled_BD, TensorRole projection) const {
    const auto projected_BP = ops::linear(pooled_BD, m_links.at(projection), {});
    return projected_BP / projected_BP.norm(2, -1, true);
}

torch::Tensor TowerModel::imageEmbeddings(const torch::Tensor& pixels_BCHW, Observer* observer) const {
    const TokenBatch batch{{}, {}, {}, pixels_BCHW};
    const auto x_BTD = m_vision.runBlocks(m_vision.embed(batch), batch, 0, m_visionBlocks, observer, nullptr);
    return normalised(m_vision.finalNorm(x_BTD).select(1, 0), TensorRole::VisualProjection);
}

torch::Tensor TowerModel::textEmbeddings(const TokenBatch& batch, Observer* observer) const {
    const auto x_BTD = m_text.finalNorm(runText(m_text.embed(batch), batch, 0, m_text.shape().numBlocks(), observer, nullptr));
    // The first end-of-text token stands for the text. Files of before 2023 name another id (2); theirs is the largest of the vocabulary.
    constexpr int kLegacyEos = 2;
    const std::vector<int>& eos = m_shape.towers[1].shape.eosIds;
    const auto ids_BT = batch.ids_BT.to(device());
    const auto at_B = eos.empty() || eos.front() == kLegacyEos ? ids_BT.argmax(-1) : ids_BT.eq(eos.front()).to(torch::kInt32).argmax(-1);
    return normalised(x_BTD.index({torch::arange(x_BTD.size(0), at_B.options()), at_B}), TensorRole::TextProjection);
}

torch::Tensor TowerModel::finalNorm(const torch::Tensor& x_BTD) const { return isClip() && m_onPictures ? m_vision.finalNorm(x_BTD) : m_text.finalNorm(x_BTD); }

torch::Tensor TowerModel::head(const torch::Tensor& normed_BTD) const {
    if (!isClip()) {
        return m_text.head(normed_BTD);
    }
    return m_onPictures ? ops::linear(normed_BTD.narrow(1, 0, 1), m_links.at(TensorRole::VisualProjection), {})
                        : ops::linear(normed_BTD, m_links.at(TensorRole::TextProjection), {});
}

torch::Tensor TowerModel::logits(const TokenBatch& batch, Observer* observer, KvCache* cache) const {
    if (!isClip() || !batch.pixels_BCHW.defined() || !batch.ids_BT.defined()) {
        return LanguageModel::logits(batch, observer, cache);
    }
    const auto image_BP = imageEmbeddings(batch.pixels_BCHW, observer), text_SP = textEmbeddings(batch, observer);
    return (torch::matmul(image_BP, text_SP.t()) * m_links.at(TensorRole::LogitScale).exp()).unsqueeze(1);
}

torch::Tensor TowerModel::loss(const TokenBatch& batch, const torch::Tensor& targets_BT) const {
    if (isClip()) {
        throw Error(ErrorCode::Unsupported, "loss", "CLIP predicts no next token: it can be opened, measured, cut and exported, not trained here");
    }
    return m_text.lossAfter(runBlocks(embed(batch), batch, 0, m_shape.numBlocks(), nullptr, nullptr), targets_BT);
}

void TowerModel::visitParameters(const std::function<void(const std::string&, torch::Tensor&)>& visit) {
    for (int tower = 0; tower < 2; ++tower) {
        const std::string& prefix = m_shape.towers[static_cast<std::size_t>(tower)].prefix;
        (tower == 0 ? m_vision : m_text).visitParameters([&](const std::string& name, torch::Tensor& tensor) { visit(prefix + name, tensor); });
    }
    for (auto& [role, tensor] : m_links) {
        visit(tensorName(m_shape, role), tensor);
    }
}

void TowerModel::replaceLinear(int block, const std::string& role, const std::function<std::unique_ptr<Linear>(std::unique_ptr<Linear>)>& make) {
    towerOf(block).replaceLinear(within(block), role, make);
}

void TowerModel::replaceBranch(int block, BranchSlot slot, const std::function<std::unique_ptr<Branch>(std::unique_ptr<Branch>)>& make) {
    towerOf(block).replaceBranch(within(block), slot, make);
}

void TowerModel::setAttentionKernel(int block, std::shared_ptr<const AttentionKernel> kernel) { towerOf(block).setAttentionKernel(within(block), std::move(kernel)); }

std::vector<std::string> TowerModel::linearRoles(int block) const { return towerOf(block).linearRoles(within(block)); }

std::unique_ptr<KvCache> TowerModel::makeCache(int batchSize, int capacity) const { return m_text.makeCache(batchSize, capacity); }

int imageRows(const ModelShape& shape) { return shape.towers.front().shape.image->tokens() - (shape.link.dropsClassToken ? 1 : 0); }

std::vector<std::int64_t> withPicturePlaces(std::span<const std::int64_t> ids, const ModelShape& shape, std::int64_t pictures) {
    if (shape.link.featureBlocks.empty()) {
        throw Error(ErrorCode::Unsupported, std::string(familyOf(shape).title), "takes no pictures into its text");
    }
    const auto found = std::count(ids.begin(), ids.end(), shape.link.imageTokenId);
    if (found != pictures) {
        throw Error(ErrorCode::BadInput, "prompt", "has " + std::to_string(found) + " image tokens (number " + std::to_string(shape.link.imageTokenId) + ", in most files <image>), but there " +
                                                       (pictures == 1 ? "is 1 picture" : "are " + std::to_string(pictures) + " pictures"));
    }
    std::vector<std::int64_t> expanded;
    for (const std::int64_t id : ids) {
        expanded.insert(expanded.end(), id == shape.link.imageTokenId ? static_cast<std::size_t>(imageRows(shape)) : 1, id);
    }
    return expanded;
}

std::unique_ptr<LanguageModel> makeModel(const ModelShape& shape, const LoadOptions& options, const WeightSource& source, const JobContext& job) {
    if (!shape.towers.empty()) {
        return std::make_unique<TowerModel>(shape, options, source, job);
    }
    return std::make_unique<Decoder>(shape, options, source, Decoder::Parts::All, job);
}

}  // namespace resect
