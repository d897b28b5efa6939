#include "core/models/decoder.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/models/ops.h"

#include <torch/types.h>

#include <cmath>
#include <map>

namespace resect {

namespace {

std::string modelTensor(const ModelShape& shape, TensorRole role) { return tensorName(familyOf(shape), role); }

/// The same model with one block only, so that what a block needs is listed without the others.
ModelShape withoutOtherBlocks(const ModelShape& shape, int block) {
    ModelShape own = shape;
    for (int i = 0; i < shape.numBlocks(); ++i) {
        if (i != block) {
            own.blocks[static_cast<std::size_t>(i)].hasAttention = own.blocks[static_cast<std::size_t>(i)].hasFfn = false;
        }
    }
    return own;
}

}  // namespace

void LayerCache::allocate(std::int64_t rows) {
    auto wanted = sizes;
    wanted.front() = rows;
    k_BCGH = torch::zeros(wanted, options);
    v_BCGH = torch::zeros(wanted, options);
}

DecoderCache::DecoderCache(const ModelShape& shape, const std::vector<Keeps>& keeps, int batchSize, int capacity, torch::TensorOptions options)
    : m_layers(shape.blocks.size()), m_batchSize(batchSize), m_capacity(capacity) {
    for (std::size_t i = 0; i < shape.blocks.size(); ++i) {
        if (keeps[i] == Keeps::Nothing) {
            continue;
        }
        m_layers[i].sizes = {batchSize, capacity, shape.blocks[i].numKvHeads, shape.blocks[i].headDim};
        m_layers[i].options = options;
        if (keeps[i] == Keeps::AllRows) {
            m_layers[i].allocate(batchSize);
        }
    }
}

std::uint64_t DecoderCache::bytes() const noexcept {
    std::uint64_t total = 0;
    for (const LayerCache& layer : m_layers) {
        total += layer.k_BCGH.defined() ? 2 * layer.k_BCGH.nbytes() : 0;
    }
    return total;
}

void DecoderCache::truncate(int length) {
    if (length < 0 || length > m_length) {
        throw Error(ErrorCode::Internal, "kv cache", "cannot be cut to " + std::to_string(length) + " of " + std::to_string(m_length) + " tokens");
    }
    m_length = length;
}

LayerCache* DecoderCache::layer(int block) {
    LayerCache& layer = m_layers[static_cast<std::size_t>(block)];
    return layer.sizes.empty() ? nullptr : &layer;
}

DecoderBlock buildBlock(const ModelShape& shape, int block, const WeightSource& source) {
    std::map<std::pair<TensorRole, int>, ExpectedTensor> wanted;  // by role and expert
    for (ExpectedTensor& tensor : expectedTensors(withoutOtherBlocks(shape, block))) {
        if (tensor.block == block) {
            wanted.emplace(std::pair(tensor.role, tensor.expert), std::move(tensor));
        }
    }
    const TakeWeight take = [&](TensorRole role, int expert) {
        const auto found = wanted.find({role, expert});
        return found == wanted.end() ? torch::Tensor() : source(found->second);
    };
    return {attentionBranch(shape, block, take), ffnBranch(shape, block, take)};
}

Decoder::Decoder(ModelShape shape, const LoadOptions& options, const WeightSource& source, Parts parts, const JobContext& job)
    : m_shape(std::move(shape)), m_device(options.device), m_dtype(computeDtype(options)), m_family(familyOf(m_shape)), m_blocks(m_shape.blocks.size()) {
    for (const BlockShape& block : m_shape.blocks) {
        const int rotating = rotaryDim(m_shape, block.headDim);
        if (block.hasAttention && rotating > 0 && !m_rotary.contains(rotating)) {
            m_rotary.try_emplace(rotating, m_shape, rotating, m_device);
        }
    }
    if (parts == Parts::None) {
        return;
    }
    loadEmbedding(source);
    for (int block = 0; block < m_shape.numBlocks(); ++block) {
        if (job.stopped()) {
            throw Error(ErrorCode::Stopped, "loading the model", "stopped on request");
        }
        loadBlock(block, source);
        job.progress({block + 1.0, static_cast<double>(m_shape.numBlocks()), "blocks", "loading"});
    }
    loadHead(source);
}

void Decoder::loadEmbedding(const WeightSource& source) {
    for (const ExpectedTensor& tensor : outerTensors(m_shape)) {
        if (tensor.role == TensorRole::TokenEmbedding) {
            m_embedding = source(tensor);
        } else if (isEmbeddingRole(tensor.role)) {
            m_outer[tensor.role] = source(tensor);
        }
    }
}

void Decoder::freeEmbedding() {
    m_embedding.reset();
    std::erase_if(m_outer, [](const auto& entry) { return isEmbeddingRole(entry.first); });
}

torch::Tensor Decoder::outer(TensorRole role) const {
    const auto found = m_outer.find(role);
    return found == m_outer.end() ? torch::Tensor() : found->second;
}

void Decoder::loadBlock(int block, const WeightSource& source) {
    m_blocks[static_cast<std::size_t>(block)] = buildBlock(m_shape, block, source);
    applyCut(block);
}

void Decoder::freeBlock(int block) { m_blocks[static_cast<std::size_t>(block)] = {}; }

void Decoder::loadHead(const WeightSource& source) {
    for (const ExpectedTensor& tensor : outerTensors(m_shape)) {
        if (tensor.role == TensorRole::FinalNorm) {
            m_norm = source(tensor);
        } else if (tensor.role == TensorRole::LmHead) {
            m_head = source(tensor);
        } else if (!isEmbeddingRole(tensor.role)) {
            m_outer[tensor.role] = source(tensor);
        }
    }
    if (m_shape.tiedEmbeddings && !m_embedding.defined()) {
        loadEmbedding(source);
    }
}

DecoderBlock& Decoder::blockAt(int block) {
    if (block < 0 || block >= m_shape.numBlocks()) {
        throw Error(ErrorCode::NotFound, "block " + std::to_string(block), "the model has " + std::to_string(m_shape.numBlocks()) + " blocks");
    }
    return m_blocks[static_cast<std::size_t>(block)];
}

void Decoder::setCut(const Cut& cut) {
    if (!cut.blocks.empty() && cut.blocks.size() != m_shape.blocks.size()) {
        throw Error(ErrorCode::Mismatch, "cut", "is for " + std::to_string(cut.blocks.size()) + " blocks, the model has " +
                                                    std::to_string(m_shape.blocks.size()));
    }
    m_cut = cut;
    m_hiddenMask = torch::Tensor();
    if (!cut.hidden.empty()) {
        const std::vector<int> kept = keptHidden(m_shape, cut);
        const auto indices = torch::tensor(std::vector<std::int64_t>(kept.begin(), kept.end()), torch::kInt64);
        m_hiddenMask = torch::zeros({m_shape.hiddenSize}, torch::kFloat32).index_fill(0, indices, 1).to(m_device, m_dtype);
    }
    for (int block = 0; block < m_shape.numBlocks(); ++block) {
        applyCut(block);
    }
}

void Decoder::applyCut(int block) {
    const auto index = static_cast<std::size_t>(block);
    const BlockCut cut = m_cut.blocks.empty() ? BlockCut{} : m_cut.blocks[index];
    for (Branch* branch : {m_blocks[index].attention.get(), m_blocks[index].ffn.get()}) {
        if (branch) {
            branch->setCut(cut);
        }
    }
}

bool Decoder::skips(int block, BranchSlot slot) const {
    const auto index = static_cast<std::size_t>(block);
    const DecoderBlock& own = m_blocks[index];
    if (!(slot == BranchSlot::Attention ? own.attention : own.ffn)) {
        return true;
    }
    if (m_cut.blocks.empty()) {
        return false;
    }
    const BlockShape& shape = m_shape.blocks[index];
    const BlockCut& cut = m_cut.blocks[index];
    if (slot == BranchSlot::Attention) {
        return cut.block || cut.attention || (shape.numHeads > 0 && keptHeads(shape, cut).empty());
    }
    return cut.block || cut.ffn || (shape.ffnSize > 0 && keptChannels(shape, cut).empty()) ||
           (shape.numExperts > 0 && keptExperts(shape, cut).empty());
}

torch::Tensor Decoder::embed(const TokenBatch& batch, const KvCache* cache) const {
    if (m_shape.image) {
        return embedImages(batch.pixels_BCHW);
    }
    if (batch.ids_BT.is_cpu() && batch.ids_BT.numel() > 0) {
        const auto [low, high] = torch::aminmax(batch.ids_BT);
        if (low.item<std::int64_t>() < 0 || high.item<std::int64_t>() >= m_shape.vocabSize) {
            throw Error(ErrorCode::BadInput, "token ids", "expected 0 to " + std::to_string(m_shape.vocabSize - 1) + ", found " +
                                                              std::to_string(low.item<std::int64_t>() < 0 ? low.item<std::int64_t>() : high.item<std::int64_t>()));
        }
    }
    auto x_BTD = torch::embedding(m_embedding, batch.ids_BT.to(m_device));
    if (m_family.scaledEmbedding) {  // the factor is rounded to the model's precision, as it was trained
        x_BTD = x_BTD * torch::full({}, std::sqrt(static_cast<double>(m_shape.hiddenSize)), x_BTD.options());
    }
    if (const auto table_PD = outer(TensorRole::PositionEmbedding); table_PD.defined()) {
        const auto positions_BT = layoutOf(batch, cache).positions(m_device);
        if (const auto last = positions_BT.max().item<std::int64_t>(); last >= table_PD.size(0)) {
            throw Error(ErrorCode::BadInput, "tokens", "the model knows positions up to " + std::to_string(table_PD.size(0) - 1) + ", found " +
                                                           std::to_string(last) + "; use a shorter context");
        }
        x_BTD = x_BTD + torch::embedding(table_PD, positions_BT);
    }
    return m_hiddenMask.defined() ? x_BTD * m_hiddenMask : x_BTD;
}

torch::Tensor Decoder::embedImages(const torch::Tensor& pixels_BCHW) const {
    const ImageShape& image = *m_shape.image;
    const std::vector<std::int64_t> expected{image.channels, image.height, image.width};
    if (!pixels_BCHW.defined() || pixels_BCHW.dim() != 4 || pixels_BCHW.sizes().slice(1) != c10::IntArrayRef(expected)) {
        throw Error(ErrorCode::BadInput, "pixel_values", std::string(m_family.title) + " runs pictures [batch, " + std::to_string(image.channels) + ", " +
                                                             std::to_string(image.height) + ", " + std::to_string(image.width) + "], found " +
                                                             (pixels_BCHW.defined() ? c10::str(pixels_BCHW.sizes()) : std::string("text")));
    }
    const auto patchBias = outer(TensorRole::PatchBias);
    const auto patches_BDHW = torch::conv2d(pixels_BCHW.to(m_device, m_dtype), outer(TensorRole::PatchWeight), patchBias, {image.patchHeight, image.patchWidth});
    const std::int64_t b = pixels_BCHW.size(0), d = m_shape.hiddenSize;
    std::vector<torch::Tensor> tokens{outer(TensorRole::ClassToken).view({1, 1, d}).expand({b, 1, d})};
    if (const auto token = outer(TensorRole::DistillationToken); token.defined()) {
        tokens.push_back(token.expand({b, 1, d}));
    }
    tokens.push_back(patches_BDHW.flatten(2).transpose(1, 2));  // row by row
    const auto x_BTD = torch::cat(tokens, 1) + outer(TensorRole::PositionEmbedding).view({1, image.tokens(), d});
    const auto norm = outer(TensorRole::InputNorm);
    return norm.defined() ? ops::norm(m_family.norm, x_BTD, norm, outer(TensorRole::InputNormBias), m_shape.normEps) : x_BTD;
}

torch::Tensor Decoder::classify(const torch::Tensor& normed_BTD) const {
    if (!m_head.defined()) {
        return normed_BTD.narrow(1, 0, 1);
    }
    const auto logits = ops::linear(normed_BTD.narrow(1, 0, 1), m_head, outer(TensorRole::LmHeadBias));
    const auto second = outer(TensorRole::DistillationHead);
    return second.defined() ? (logits + ops::linear(normed_BTD.narrow(1, 1, 1), second, outer(TensorRole::DistillationHeadBias))) / 2 : logits;
}

TokenLayout Decoder::layoutOf(const TokenBatch& batch, const KvCache* cache) const {
    if (m_shape.image) {
        const std::int64_t rows = batch.pixels_BCHW.defined() ? batch.pixels_BCHW.size(0) : 1;
        return TokenLayout({torch::zeros({rows, m_shape.image->tokens()}, torch::kInt64), {}, {}, {}}, m_device, 0, {});
    }
    const auto* held = dynamic_cast<const DecoderCache*>(cache);
    return TokenLayout(batch, m_device, held ? held->length() : 0, held ? held->leftPadding : std::vector<std::int64_t>{});
}

torch::Tensor Decoder::runBlocks(torch::Tensor x_BTD, const TokenBatch& batch, int first, int last, Observer* observer, KvCache* cache) const {
    auto* held = dynamic_cast<DecoderCache*>(cache);
    const std::int64_t offset = held ? held->length() : 0;
    const TokenLayout layout = layoutOf(batch, cache);
    if (held && (offset + layout.tokens() > held->capacity() || x_BTD.size(0) != held->batchSize())) {
        throw Error(ErrorCode::BadInput, "kv cache", "holds " + std::to_string(held->batchSize()) + " rows of " + std::to_string(held->capacity()) +
                                                         " tokens, asked for " + std::to_string(x_BTD.size(0)) + " of " +
                                                         std::to_string(offset + layout.tokens()));
    }
    std::map<int, RotaryTable::Rows> rows;
    RunContext context;
    context.observer = observer;
    context.layout = &layout;
    context.hiddenMask = m_hiddenMask;
    context.rotary = [&](int rotating) -> const RotaryTable::Rows& {
        auto found = rows.find(rotating);
        return found != rows.end() ? found->second : rows.emplace(rotating, layout.rotary(m_rotary.at(rotating))).first->second;
    };
    for (int block = first; block < last; ++block) {
        if (!m_cut.blocks.empty() && m_cut.blocks[static_cast<std::size_t>(block)].block) {
            continue;
        }
        const DecoderBlock& own = m_blocks[static_cast<std::size_t>(block)];
        context.block = block;
        context.cache = held ? held->layer(block) : nullptr;
        context.tap(TapPoint::BlockInput, x_BTD);
        if (!skips(block, BranchSlot::Attention)) {
            x_BTD = x_BTD + own.attention->forward(x_BTD, context);
        }
        context.tap(TapPoint::AfterAttention, x_BTD);
        if (!skips(block, BranchSlot::Ffn)) {
            x_BTD = x_BTD + own.ffn->forward(x_BTD, context);
        }
        context.tap(TapPoint::BlockOutput, x_BTD);
    }
    if (held && last == m_shape.numBlocks()) {
        if (offset == 0) {
            held->leftPadding = layout.leftPadding();
        }
        held->advance(static_cast<int>(layout.tokens()));
    }
    return x_BTD;
}

torch::Tensor Decoder::finalNorm(const torch::Tensor& x_BTD) const { return ops::norm(m_family.norm, x_BTD, m_norm, outer(TensorRole::FinalNormBias), m_shape.normEps); }

torch::Tensor Decoder::head(const torch::Tensor& normed_BTD) const {
    if (m_shape.image) {
        return classify(normed_BTD);
    }
    return m_family.headless ? normed_BTD : ops::softcap(ops::linear(normed_BTD, headWeight(), {}), m_shape.finalSoftcap);
}

torch::Tensor Decoder::loss(const TokenBatch& batch, const torch::Tensor& targets_BT) const {
    if (!m_shape.image && targets_BT.sizes() != batch.ids_BT.sizes()) {
        throw Error(ErrorCode::BadInput, "targets", "have another shape than the token ids");
    }
    return lossAfter(runBlocks(embed(batch, nullptr), batch, 0, m_shape.numBlocks(), nullptr, nullptr), targets_BT);
}

torch::Tensor Decoder::lossAfter(const torch::Tensor& x_BTD, const torch::Tensor& targets_BT) const {
    if (m_family.headless || (m_shape.image && m_shape.image->labels == 0)) {
        throw Error(ErrorCode::Unsupported, "loss", std::string(m_family.title) + " has no head, so that there is nothing to be right or wrong about");
    }
    const auto normed_BTD = finalNorm(x_BTD);
    if (m_shape.image) {
        const auto logits_BV = classify(normed_BTD).select(1, 0);
        const auto wide = logits_BV.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
        return torch::cross_entropy_loss(logits_BV.to(wide), targets_BT.reshape({-1}).to(m_device));
    }
    return ops::headLoss(normed_BTD.view({-1, normed_BTD.size(2)}), headWeight(), targets_BT.reshape({-1}), m_shape.finalSoftcap);
}

void Decoder::visitParameters(const std::function<void(const std::string&, torch::Tensor&)>& visit) {
    if (m_embedding.defined()) {
        visit(modelTensor(m_shape, TensorRole::TokenEmbedding), m_embedding);
    }
    for (auto& [role, tensor] : m_outer) {
        visit(modelTensor(m_shape, role), tensor);
    }
    const std::string prefix = m_family.blockPrefix;
    for (int block = 0; block < m_shape.numBlocks(); ++block) {
        const DecoderBlock& own = m_blocks[static_cast<std::size_t>(block)];
        for (Branch* branch : {own.attention.get(), own.ffn.get()}) {
            if (branch) {
                branch->visitParameters([&](const std::string& name, torch::Tensor& tensor) {
                    visit(prefix + std::to_string(block) + "." + name, tensor);
                });
            }
        }
    }
    if (m_norm.defined()) {
        visit(modelTensor(m_shape, TensorRole::FinalNorm), m_norm);
    }
    if (m_head.defined()) {
        visit(modelTensor(m_shape, TensorRole::LmHead), m_head);
    }
}

void Decoder::replaceLinear(int block, const std::string& role, const std::function<std::unique_ptr<Linear>(std::unique_ptr<Linear>)>& make) {
    bool found = false;
    DecoderBlock& own = blockAt(block);
    for (Branch* branch : {own.attention.get(), own.ffn.get()}) {
        if (branch) {
            branch->visitLinears([&](const std::string& name, std::unique_ptr<Linear>& linear) {
                if (name == role) {
                    linear = make(std::move(linear));
                    found = true;
                }
            });
        }
    }
    if (!found) {
        throw Error(ErrorCode::NotFound, "block " + std::to_string(block), "has no linear map \"" + role + "\"");
    }
}

void Decoder::replaceBranch(int block, BranchSlot slot, const std::function<std::unique_ptr<Branch>(std::unique_ptr<Branch>)>& make) {
    DecoderBlock& own = blockAt(block);
    std::unique_ptr<Branch>& branch = slot == BranchSlot::Attention ? own.attention : own.ffn;
    branch = make(std::move(branch));
    applyCut(block);
}

void Decoder::setAttentionKernel(int block, std::shared_ptr<const AttentionKernel> kernel) {
    if (Branch* attention = blockAt(block).attention.get()) {
        attention->setAttentionKernel(std::move(kernel));
    }
}

std::vector<std::string> Decoder::linearRoles(int block) const {
    std::vector<std::string> roles;
    DecoderBlock& own = const_cast<Decoder*>(this)->blockAt(block);
    for (Branch* branch : {own.attention.get(), own.ffn.get()}) {
        if (branch) {
            branch->visitLinears([&](const std::string& role, std::unique_ptr<Linear>&) { roles.push_back(role); });
        }
    }
    return roles;
}

std::unique_ptr<KvCache> Decoder::makeCache(int batchSize, int capacity) const {
    using Keeps = DecoderCache::Keeps;
    std::vector<Keeps> keeps;
    for (int block = 0; block < m_shape.numBlocks(); ++block) {
        const bool absent = skips(block, BranchSlot::Attention);
        keeps.push_back(absent ? Keeps::Nothing : m_blocks[static_cast<std::size_t>(block)].attention->choosesRows() ? Keeps::ChosenRows : Keeps::AllRows);
    }
    return std::make_unique<DecoderCache>(m_shape, keeps, batchSize, capacity, torch::TensorOptions(m_device).dtype(m_dtype));
}

LanguageModel::~LanguageModel() = default;

torch::Tensor LanguageModel::logits(const TokenBatch& batch, Observer* observer, KvCache* cache) const {
    return head(finalNorm(runBlocks(embed(batch, cache), batch, 0, shape().numBlocks(), observer, cache)));
}

std::int64_t LanguageModel::numParameters() {
    std::int64_t total = 0;
    visitParameters([&](const std::string&, torch::Tensor& tensor) { total += tensor.numel(); });
    return total;
}

}  // namespace resect
