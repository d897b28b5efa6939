#include "core/surgery/slice_plan.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/base/numbers.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

namespace resect {

namespace {

/// Which source unit lies in each place of a result block; -1 = zeros.
struct BlockLayout {
    int source = 0;
    bool attentionFromSource = true, ffnFromSource = true;  ///< false: a layer of zeros
    std::vector<std::int64_t> heads, groups, channels, experts, shared;
    std::map<int, std::vector<std::int64_t>> expertChannels;  ///< by source expert, those with a cut of their own
};

std::vector<std::int64_t> padded(const std::vector<int>& kept, int count) {
    std::vector<std::int64_t> places(kept.begin(), kept.end());
    places.resize(static_cast<std::size_t>(count), -1);
    return places;
}

std::vector<std::int64_t> inPlace(const std::vector<int>& kept, int count) {
    std::vector<std::int64_t> places(static_cast<std::size_t>(count), -1);
    for (int i : kept) places[static_cast<std::size_t>(i)] = i;
    return places;
}

/// Kept heads group by group, each group filled up to the result's size with zero heads, then whole zero groups.
std::vector<std::int64_t> headPlaces(const BlockShape& source, const BlockCut& cut, const BlockShape& result) {
    std::vector<std::int64_t> places;
    const std::vector<int> kept = keptHeads(source, cut);
    std::size_t next = 0;
    for (int size : result.headsPerKv) {
        const std::size_t end = places.size() + static_cast<std::size_t>(size);
        const int group = next < kept.size() ? groupOfHead(source, kept[next]) : -1;
        while (next < kept.size() && groupOfHead(source, kept[next]) == group) places.push_back(kept[next++]);
        places.resize(end, -1);
    }
    return places;
}

BlockLayout layoutOf(const BlockShape& source, const BlockCut& cut, const BlockShape& result, int block, SliceWay way) {
    BlockLayout layout;
    layout.source = block;
    const std::vector<int> heads = keptHeads(source, cut), groups = keptKvGroups(source, cut),
                           channels = keptChannels(source, cut);
    layout.attentionFromSource = !heads.empty();
    layout.ffnFromSource = !channels.empty();
    for (const auto& [expert, removed] : cut.expertChannels) {
        const std::vector<int> own = keptChannels(source, cut, expert);
        layout.expertChannels[expert] = way == SliceWay::Zeroed ? inPlace(own, result.ffnSize) : padded(own, result.ffnSize);
    }
    if (way == SliceWay::Zeroed) {
        layout.heads = inPlace(heads, result.numHeads);
        layout.groups = inPlace(groups, result.numKvHeads);
        layout.channels = inPlace(channels, result.ffnSize);
    } else {
        layout.heads = headPlaces(source, cut, result);
        layout.groups = padded(groups, result.numKvHeads);
        layout.channels = padded(channels, result.ffnSize);
    }
    const std::vector<int> shared = keptSharedChannels(source, cut);
    layout.shared = way == SliceWay::Zeroed ? inPlace(shared, result.sharedFfnSize) : padded(shared, result.sharedFfnSize);
    layout.experts = padded(keptExperts(source, cut), result.numExperts);
    return layout;
}

bool isIdentity(const std::vector<std::int64_t>& places, std::int64_t count) {
    if (static_cast<std::int64_t>(places.size()) != count) return false;
    for (std::size_t i = 0; i < places.size(); ++i)
        if (places[i] != static_cast<std::int64_t>(i)) return false;
    return true;
}

/// Units to rows: every place becomes `rows` consecutive indices, counted from `offset`. Appends to `indices`.
void spread(const std::vector<std::int64_t>& places, std::int64_t rows, std::int64_t offset, std::vector<std::int64_t>& indices) {
    indices.reserve(indices.size() + places.size() * static_cast<std::size_t>(rows));
    for (std::int64_t place : places)
        for (std::int64_t row = 0; row < rows; ++row) indices.push_back(place < 0 ? -1 : offset + place * rows + row);
}

class Slicer {
public:
    Slicer(const Checkpoint& source, const Anatomy& anatomy, const Cut& cut, SliceWay way, const ModelShape* wanted = nullptr)
        : m_source(source), m_shape(anatomy.shape()), m_way(way) {
        for (const auto& [name, expected] : anatomy.expected())
            if (const TensorInfo* info = source.find(name)) m_dtypes.try_emplace(expected.role, info->dtype);
        if (wanted)
            m_plan.shape = *wanted;
        else
            m_plan.shape = way == SliceWay::Exact ? shapeAfter(m_shape, cut) : way == SliceWay::Padded ? paddedShape(m_shape, cut) : m_shape;
        if (!cut.hidden.empty()) {
            const std::vector<int> hidden = keptHidden(m_shape, cut);
            m_hidden = way == SliceWay::Zeroed ? inPlace(hidden, static_cast<int>(m_shape.hiddenSize)) : std::vector<std::int64_t>(hidden.begin(), hidden.end());
            if (way != SliceWay::Zeroed) m_widthRatio = std::sqrt(static_cast<double>(m_shape.hiddenSize) / static_cast<double>(hidden.size()));
        }
        std::vector<int> blocks(m_shape.blocks.size());
        std::iota(blocks.begin(), blocks.end(), 0);
        if (way != SliceWay::Zeroed) blocks = keptBlocks(cut);
        for (std::size_t i = 0; i < blocks.size(); ++i) {
            const auto b = static_cast<std::size_t>(blocks[i]);
            checkExperts(b, cut.blocks[b]);
            m_layouts.push_back(layoutOf(m_shape.blocks[b], cut.blocks[b], m_plan.shape.blocks[i], blocks[i], way));
        }
    }

    SlicePlan run() && {
        for (const ExpectedTensor& tensor : expectedTensors(m_plan.shape)) m_plan.tensors.push_back(slice(tensor));
        return std::move(m_plan);
    }

private:
    void checkExperts(std::size_t b, const BlockCut& cut) const {
        const BlockShape& source = m_shape.blocks[b];
        if (m_way == SliceWay::Zeroed && source.hasFfn && !cut.block && !cut.ffn && !cut.experts.empty())
            throw Error(ErrorCode::Unsupported, "block " + toText(static_cast<std::int64_t>(b)),
                        "a zeroed expert could still be chosen by the router, so experts cannot be dropped the zeroed way");
    }

    const BlockLayout* layout(const ExpectedTensor& tensor) const {
        return tensor.block < 0 ? nullptr : &m_layouts[static_cast<std::size_t>(tensor.block)];
    }

    DType dtypeOf(TensorRole role) const {
        auto found = m_dtypes.find(role);
        if (found == m_dtypes.end()) found = m_dtypes.find(TensorRole::TokenEmbedding);
        return found == m_dtypes.end() ? DType::F32 : found->second;
    }

    /// A layer that is not taken from the source is zeros, except that its norms keep their values where the source has them.
    bool fromSource(const ExpectedTensor& tensor, const BlockLayout* place) const {
        if (!place) return true;
        const BlockShape& source = m_shape.blocks[static_cast<std::size_t>(place->source)];
        const bool attention = isAttentionRole(tensor.role);
        if (!(attention ? source.hasAttention : source.hasFfn)) return false;
        return isNormRole(tensor.role) || (attention ? place->attentionFromSource : place->ffnFromSource);
    }

    SlicedTensor slice(const ExpectedTensor& tensor) const {
        SlicedTensor result;
        result.name = tensor.name;
        result.shape = tensor.shape;
        const BlockLayout* place = layout(tensor);
        const int expert = tensor.expert < 0 ? -1 : static_cast<int>(place->experts[static_cast<std::size_t>(tensor.expert)]);
        if (!fromSource(tensor, place) || (tensor.expert >= 0 && expert < 0)) {
            result.dtype = dtypeOf(tensor.role);
            result.sourceShape = result.shape;
            result.indices.resize(result.shape.size());
            return result;
        }
        result.source = place ? tensorName(m_shape, tensor.role, place->source, expert) : tensor.name;
        const TensorInfo* info = m_source.find(result.source);
        if (!info) throw Error(ErrorCode::NotFound, m_source.folder().string() + ": " + result.source, "the tensor is missing");
        result.dtype = info->dtype;
        result.sourceShape = info->shape;
        result.indices.resize(result.shape.size());
        if (place) fillIndices(result, tensor.role, *place, expert);
        if (!m_hidden.empty()) cutHidden(result, tensor.role);
        checkShape(result);
        return result;
    }

    void fillIndices(SlicedTensor& result, TensorRole role, const BlockLayout& place, int expert) const {
        const AxisUnits units = unitsAlong(familyOf(m_shape.of(place.source)), role);
        if (units.axis < 0) return;
        const BlockShape& block = m_shape.blocks[static_cast<std::size_t>(place.source)];
        std::vector<std::int64_t> indices;
        std::int64_t offset = 0;
        bool whole = true;
        for (const ComponentKind kind : units.segments) {
            const std::int64_t rows = placesPerUnit(block, kind), count = unitCount(block, kind);
            const std::vector<std::int64_t>& places = placesOf(place, kind, expert);
            spread(places, rows, offset, indices);
            whole = whole && isIdentity(places, count);
            offset += count * rows;
        }
        if (!whole) result.indices[static_cast<std::size_t>(units.axis)] = std::move(indices);
    }

    static const std::vector<std::int64_t>& placesOf(const BlockLayout& place, ComponentKind kind, int expert) {
        switch (kind) {
        case ComponentKind::Head: return place.heads;
        case ComponentKind::KvGroup: return place.groups;
        case ComponentKind::SharedChannel: return place.shared;
        case ComponentKind::Expert: return place.experts;
        default: break;
        }
        const auto own = expert >= 0 ? place.expertChannels.find(expert) : place.expertChannels.end();
        return own != place.expertChannels.end() ? own->second : place.channels;
    }

    /// A norm over fewer channels divides by less: its weights take that back (and shapeAfter() its epsilon). Queries and
    /// keys that are normed with the same epsilon grow as it does. Where the embedding is scaled by the
    /// root of the hidden size, it takes back that too; a tied head then grows with it, as the final norm would have to.
    void cutHidden(SlicedTensor& result, TensorRole role) const {
        const Family& family = familyOf(m_shape);
        const bool normed = role == TensorRole::QueryWeight || role == TensorRole::QueryBias || role == TensorRole::KeyWeight || role == TensorRole::KeyBias;
        if (m_shape.qkNorm && normed) result.scale = m_widthRatio;
        const int axis = hiddenAxis(family, role);
        if (axis < 0) return;
        // What only reads the stream finds zeros there; in the zeroed way it is left as it is.
        const bool writes = role == TensorRole::TokenEmbedding || role == TensorRole::OutputWeight || role == TensorRole::OutputBias || role == TensorRole::DownWeight ||
                            role == TensorRole::DownBias || role == TensorRole::ExpertDownWeight || role == TensorRole::SharedDownWeight;
        if (m_way != SliceWay::Zeroed || writes) result.indices[static_cast<std::size_t>(axis)] = m_hidden;
        const bool tiedGrowth = role == TensorRole::FinalNorm && family.scaledEmbedding && m_shape.tiedEmbeddings;
        const bool norm = isNormRole(role) && !tiedGrowth, embedding = role == TensorRole::TokenEmbedding && family.scaledEmbedding;
        if (norm || embedding) result.scale = m_widthRatio;
        if (norm && family.norm == Family::Norm::RmsPlusOne) result.offset = 1;
    }

    static void checkShape(const SlicedTensor& tensor) {
        for (std::size_t axis = 0; axis < tensor.shape.size(); ++axis) {
            const std::int64_t length = tensor.indices[axis].empty() ? tensor.sourceShape[axis]
                                                                     : static_cast<std::int64_t>(tensor.indices[axis].size());
            if (tensor.sourceShape.size() != tensor.shape.size() || length != tensor.shape[axis])
                throw Error(ErrorCode::Internal, tensor.name,
                            "the slice along axis " + toText(static_cast<std::int64_t>(axis)) + " has " + toText(length) +
                                " entries, the shape calls for " + toText(tensor.shape[axis]));
        }
    }

    const Checkpoint& m_source;
    const ModelShape& m_shape;
    SliceWay m_way;
    std::map<TensorRole, DType> m_dtypes;
    std::vector<BlockLayout> m_layouts;
    std::vector<std::int64_t> m_hidden;  // kept hidden channels; empty = all
    double m_widthRatio = 1;             // root of hidden size before / after
    SlicePlan m_plan;
};

/// Is there a place in `result` for everything that is kept of a block?
bool holds(const BlockShape& result, const BlockShape& kept) {
    if ((kept.hasAttention && !result.hasAttention) || (kept.hasFfn && !result.hasFfn)) return false;
    if (result.numKvHeads < kept.numKvHeads || result.ffnSize < kept.ffnSize || result.numExperts < kept.numExperts || result.sharedFfnSize < kept.sharedFfnSize) return false;
    for (std::size_t group = 0; group < kept.headsPerKv.size(); ++group)
        if (result.headsPerKv[group] < kept.headsPerKv[group]) return false;
    return true;
}

void checkCut(const ModelShape& shape, const Cut& cut) {
    if (cut.blocks.size() != shape.blocks.size())
        throw Error(ErrorCode::Mismatch, "cut",
                    "it describes " + toText(static_cast<std::int64_t>(cut.blocks.size())) + " blocks, the checkpoint has " +
                        toText(static_cast<std::int64_t>(shape.blocks.size())));
}

}  // namespace

std::string_view name(SliceWay way) noexcept {
    return way == SliceWay::Exact ? "exact" : way == SliceWay::Padded ? "padded" : "zeroed";
}

std::uint64_t SlicePlan::bytes(std::optional<DType> dtype) const noexcept {
    std::uint64_t total = 0;
    for (const SlicedTensor& tensor : tensors) {
        std::uint64_t bytes = sizeOf(dtype.value_or(tensor.dtype));
        for (std::int64_t length : tensor.shape) bytes *= static_cast<std::uint64_t>(length);
        total += bytes;
    }
    return total;
}

/// What runs beside the family's parts has no place in the formats that are written from slices.
static void refuseExtensions(const Checkpoint& source) {
    const Json& resect = source.resectConfig();
    if (!resect.is_object() || !resect.contains("extensions") || resect.at("extensions").empty()) return;
    throw Error(ErrorCode::Unsupported, source.folder().string(),
                "the checkpoint runs with modules of its own (\"extensions\" in resect.json), which a cut or another format would lose: cut and export the checkpoint that they "
                "were added to; of trained routers `resect-cli adapter merge` writes the checkpoint that Resect runs");
}

SlicePlan slicePlan(const Checkpoint& source, const Anatomy& anatomy, const Cut& cut, SliceWay way) {
    refuseExtensions(source);
    checkCut(anatomy.shape(), cut);
    if (keptBlocks(cut).empty() && way != SliceWay::Zeroed) throw Error(ErrorCode::BadInput, "cut", "it removes every block");
    return Slicer(source, anatomy, cut, way).run();
}

SlicePlan slicePlan(const Checkpoint& source, const Anatomy& anatomy, const Cut& cut, const ModelShape& result) {
    refuseExtensions(source);
    checkCut(anatomy.shape(), cut);
    const ModelShape after = shapeAfter(anatomy.shape(), cut);
    if (after.blocks.empty()) throw Error(ErrorCode::BadInput, "cut", "it removes every block");
    for (std::size_t b = 0; b < after.blocks.size(); ++b)
        if (b >= result.blocks.size() || !holds(result.blocks[b], after.blocks[b]))
            throw Error(ErrorCode::BadInput, "block " + toText(static_cast<std::int64_t>(b)), "the shape to write does not hold what is kept of it");
    return Slicer(source, anatomy, cut, SliceWay::Padded, &result).run();
}

}  // namespace resect
