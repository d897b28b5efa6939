#include "widgets/models/component_ref.h"

#include <QCoreApplication>
#include <QStringList>

#include <algorithm>
#include <array>

namespace resect::ui {
namespace {

struct KindWords {
    PartKind kind;
    std::string_view wire;
    const char* one;
    const char* many;
};

constexpr std::array kKinds{
    KindWords{PartKind::Model, "model", "model", "models"},
    KindWords{PartKind::Embedding, "embedding", "embedding", "embeddings"},
    KindWords{PartKind::Block, "block", "block", "blocks"},
    KindWords{PartKind::Attention, "attention", "attention layer", "attention layers"},
    KindWords{PartKind::Mlp, "ffn", "MLP", "MLPs"},
    KindWords{PartKind::Head, "head", "query head", "query heads"},
    KindWords{PartKind::KvGroup, "kv_group", "key group", "key groups"},
    KindWords{PartKind::Channel, "channel", "channel", "channels"},
    KindWords{PartKind::Expert, "expert", "expert", "experts"},
    KindWords{PartKind::Router, "router", "router", "routers"},
    KindWords{PartKind::FinalNorm, "final_norm", "final norm", "final norms"},
    KindWords{PartKind::LmHead, "lm_head", "output head", "output heads"},
    KindWords{PartKind::Projector, "projector", "projector", "projectors"},
};

const KindWords& words(PartKind kind) { return kKinds[static_cast<size_t>(kind)]; }

}  // namespace

QString text(const ComponentRef& ref) {
    const QString block = QStringLiteral("block %1").arg(ref.block);
    switch (ref.kind) {
    case PartKind::Block: return block;
    case PartKind::Attention: return block + QStringLiteral(" attention");
    case PartKind::Mlp: return block + QStringLiteral(" MLP");
    case PartKind::Head: return block + QStringLiteral(" head %1").arg(ref.index);
    case PartKind::KvGroup: return block + QStringLiteral(" key group %1").arg(ref.index);
    case PartKind::Channel:
        return ref.expert < 0 ? block + QStringLiteral(" channel %1").arg(ref.index)
                              : block + QStringLiteral(" expert %1 channel %2").arg(ref.expert).arg(ref.index);
    case PartKind::Expert: return block + QStringLiteral(" expert %1").arg(ref.expert);
    case PartKind::Router: return block + QStringLiteral(" router");
    default: return QString::fromLatin1(words(ref.kind).one);
    }
}

QString countWords(PartKind kind, qint64 count) {
    return QStringLiteral("%L1 %2").arg(count).arg(QLatin1String(count == 1 ? words(kind).one : words(kind).many));
}

std::optional<PartKind> partKind(std::string_view wireName) {
    for (const auto& entry : kKinds)
        if (entry.wire == wireName) return entry.kind;
    if (wireName == "mlp") return PartKind::Mlp;
    return std::nullopt;
}

std::string_view wireName(PartKind kind) { return words(kind).wire; }

std::optional<ComponentRef> cellRef(const protocol::DatasetMessage& dataset, const std::vector<qint64>& cell) {
    ComponentRef ref;
    bool named = false;
    for (size_t axis = 0; axis < dataset.axes.size() && axis < cell.size(); ++axis) {
        const auto kind = partKind(dataset.axes[axis].component);
        if (!kind) continue;
        const auto& ids = dataset.axes[axis].ids;
        if (cell[axis] < 0 || (!ids.empty() && cell[axis] >= static_cast<qint64>(ids.size()))) return std::nullopt;
        const int id = static_cast<int>(ids.empty() ? cell[axis] : ids[static_cast<size_t>(cell[axis])]);
        switch (*kind) {
        case PartKind::Block: case PartKind::Attention: case PartKind::Mlp: case PartKind::Router: ref.block = id; break;
        case PartKind::Expert: ref.expert = id; break;
        default: ref.index = id; break;
        }
        // The finest axis names the part: a block axis only places the head axis beside it.
        if (!named || *kind != PartKind::Block) ref.kind = *kind;
        named = true;
    }
    if (!named) return std::nullopt;
    return ref;
}

size_t qHash(const ComponentRef& ref, size_t seed) noexcept {
    return qHashMulti(seed, static_cast<int>(ref.kind), ref.block, ref.expert, ref.index);
}

RefSet normalised(std::vector<ComponentRef> refs) {
    if (!std::is_sorted(refs.begin(), refs.end())) std::sort(refs.begin(), refs.end());
    refs.erase(std::unique(refs.begin(), refs.end()), refs.end());
    return refs;
}

bool contains(const RefSet& refs, const ComponentRef& ref) { return std::binary_search(refs.begin(), refs.end(), ref); }

RefSet united(const RefSet& a, const RefSet& b) {
    RefSet out;
    out.reserve(a.size() + b.size());
    std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(out));
    return out;
}

RefSet subtracted(const RefSet& a, const RefSet& b) {
    RefSet out;
    out.reserve(a.size());
    std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(out));
    return out;
}

QString rangesText(std::vector<int> numbers) {
    std::sort(numbers.begin(), numbers.end());
    numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
    QStringList parts;
    for (size_t i = 0; i < numbers.size();) {
        size_t j = i;
        while (j + 1 < numbers.size() && numbers[j + 1] == numbers[j] + 1) ++j;
        if (j == i) parts << QString::number(numbers[i]);
        else if (j == i + 1) parts << QString::number(numbers[i]) << QString::number(numbers[j]);
        else parts << QStringLiteral("%1-%2").arg(numbers[i]).arg(numbers[j]);
        i = j + 1;
    }
    return parts.join(QStringLiteral(", "));
}

const protocol::BlockMessage* findBlock(const protocol::ModelMessage& model, int block) {
    if (block < 0) return nullptr;
    const auto position = static_cast<size_t>(block);
    if (position < model.blocks.size() && model.blocks[position].index == block) return &model.blocks[position];
    for (const auto& entry : model.blocks)
        if (entry.index == block) return &entry;
    return nullptr;
}

bool exists(const protocol::ModelMessage& model, const ComponentRef& ref) {
    if (ref.block < 0) return ref.kind == PartKind::Model || ref.kind == PartKind::Embedding || ref.kind == PartKind::FinalNorm || ref.kind == PartKind::LmHead ||
                              (ref.kind == PartKind::Projector && model.linkParameters > 0);
    const auto* block = findBlock(model, ref.block);
    if (!block) return false;
    switch (ref.kind) {
    case PartKind::Block: return true;
    case PartKind::Attention: return block->hasAttention;
    case PartKind::Mlp: return block->hasFfn;
    case PartKind::Head: return block->hasAttention && ref.index >= 0 && ref.index < block->numHeads;
    case PartKind::KvGroup: return block->hasAttention && ref.index >= 0 && ref.index < block->numKvHeads;
    case PartKind::Channel: return block->hasFfn && ref.index >= 0 && ref.index < block->ffnSize && ref.expert < block->numExperts;
    case PartKind::Expert: return block->hasFfn && ref.expert >= 0 && ref.expert < block->numExperts;
    case PartKind::Router: return block->hasFfn && block->numExperts > 0;
    default: return false;
    }
}

RefSet partsOfBlock(const protocol::ModelMessage& model, PartKind kind, int index) {
    const auto* block = findBlock(model, index);
    RefSet out;
    if (!block) return out;
    const auto addIndexed = [&](int count) {
        out.reserve(static_cast<size_t>(count));
        for (int i = 0; i < count; ++i) out.push_back({kind, index, -1, i});
    };
    switch (kind) {
    case PartKind::Head: if (block->hasAttention) addIndexed(block->numHeads); break;
    case PartKind::KvGroup: if (block->hasAttention) addIndexed(block->numKvHeads); break;
    case PartKind::Channel: if (block->hasFfn && block->numExperts == 0) addIndexed(block->ffnSize); break;
    case PartKind::Expert:
        for (int e = 0; block->hasFfn && e < block->numExperts; ++e) out.push_back(expertRef(index, e));
        break;
    default:
        if (const ComponentRef ref{kind, index, -1, -1}; exists(model, ref)) out.push_back(ref);
    }
    return out;
}

RefSet partsOf(const protocol::ModelMessage& model, PartKind kind) {
    RefSet out;
    for (const auto& block : model.blocks) {
        const RefSet parts = partsOfBlock(model, kind, block.index);
        out.insert(out.end(), parts.begin(), parts.end());
    }
    return normalised(std::move(out));
}

int kvGroupOf(const protocol::BlockMessage& block, int head) {
    if (head < 0 || head >= block.numHeads || block.numKvHeads <= 0) return -1;
    if (block.headsPerKv.empty()) return head / std::max(1, block.numHeads / block.numKvHeads);
    for (int group = 0, end = 0; group < static_cast<int>(block.headsPerKv.size()); ++group) {
        end += block.headsPerKv[static_cast<size_t>(group)];
        if (head < end) return group;
    }
    return -1;
}

std::vector<int> headsOf(const protocol::BlockMessage& block, int group) {
    std::vector<int> heads;
    for (int head = 0; head < block.numHeads; ++head)
        if (kvGroupOf(block, head) == group) heads.push_back(head);
    return heads;
}

double parametersOf(const protocol::ModelMessage& model, const ComponentRef& ref) {
    const auto hidden = static_cast<double>(model.hiddenSize);
    switch (ref.kind) {
    case PartKind::Model: return static_cast<double>(model.parameters);
    case PartKind::Embedding: return static_cast<double>(model.embeddingParameters);
    case PartKind::FinalNorm: return static_cast<double>(model.finalNormParameters);
    case PartKind::LmHead: return static_cast<double>(model.headParameters);
    case PartKind::Projector: return static_cast<double>(model.linkParameters);
    default: break;
    }
    const auto* block = findBlock(model, ref.block);
    if (!block || !exists(model, ref)) return 0;
    const double oneHead = 2.0 * hidden * block->headDim;  // a query's rows or an output's columns, twice; a key and a value row
    switch (ref.kind) {
    case PartKind::Block: return static_cast<double>(block->parameters);
    case PartKind::Attention: return static_cast<double>(block->attentionParameters);
    case PartKind::Mlp: return static_cast<double>(block->ffnParameters);
    case PartKind::Head: return block->numHeads == block->numKvHeads ? 2 * oneHead : oneHead;
    case PartKind::KvGroup: return oneHead * (1 + static_cast<double>(headsOf(*block, ref.index).size()));
    case PartKind::Channel:
        return static_cast<double>(block->ffnParameters) / std::max(1, block->ffnSize) / std::max(1, ref.expert >= 0 ? block->numExperts : 1);
    case PartKind::Expert: return static_cast<double>(block->ffnParameters) / std::max(1, block->numExperts);
    default: return 0;
    }
}

}  // namespace resect::ui
