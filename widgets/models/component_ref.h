#pragma once
#include "core/protocol/messages.h"

#include <QHash>
#include <QMetaType>
#include <QString>

#include <compare>
#include <optional>
#include <string_view>
#include <vector>

namespace resect::ui {

enum class PartKind { Model, Embedding, Block, Attention, Mlp, Head, KvGroup, Channel, Expert, Router, FinalNorm, LmHead, Projector };

/// Names a part of the model by position, so that it outlives the loaded model. -1 where a field does not apply. All indices are 0-based and of the source.
struct ComponentRef {
    PartKind kind = PartKind::Model;
    int block = -1;
    int expert = -1;  ///< the expert itself, or the expert that a channel belongs to
    int index = -1;   ///< head, kv group or channel within its block
    auto operator<=>(const ComponentRef&) const = default;
    bool operator==(const ComponentRef&) const = default;
};

inline ComponentRef blockRef(int block) { return {PartKind::Block, block, -1, -1}; }
inline ComponentRef attentionRef(int block) { return {PartKind::Attention, block, -1, -1}; }
inline ComponentRef mlpRef(int block) { return {PartKind::Mlp, block, -1, -1}; }
inline ComponentRef headRef(int block, int head) { return {PartKind::Head, block, -1, head}; }
inline ComponentRef kvGroupRef(int block, int group) { return {PartKind::KvGroup, block, -1, group}; }
inline ComponentRef channelRef(int block, int channel) { return {PartKind::Channel, block, -1, channel}; }
inline ComponentRef expertRef(int block, int expert) { return {PartKind::Expert, block, expert, -1}; }

/// "block 3 head 5", "block 12 attention", "block 0 key group 2", "final norm".
QString text(const ComponentRef& ref);
/// One kind, with the number: "1 query head", "12 query heads".
QString countWords(PartKind kind, qint64 count);
/// The spelling of AxisMessage::component: "block", "attention", "ffn", "head", "kv_group", "channel", "expert"; nullopt for others.
std::optional<PartKind> partKind(std::string_view wireName);
std::string_view wireName(PartKind kind);
/// The part that a dataset cell names, from the components and ids along its axes: {block 3} x {head 5} -> head 5 of block 3.
/// nullopt when the axes name no part (span length, token).
std::optional<ComponentRef> cellRef(const protocol::DatasetMessage& dataset, const std::vector<qint64>& cell);

size_t qHash(const ComponentRef& ref, size_t seed = 0) noexcept;

/// Ascending, without repeats.
using RefSet = std::vector<ComponentRef>;
RefSet normalised(std::vector<ComponentRef> refs);
bool contains(const RefSet& refs, const ComponentRef& ref);
RefSet united(const RefSet& a, const RefSet& b);
RefSet subtracted(const RefSet& a, const RefSet& b);

/// "0, 3-7, 12"
QString rangesText(std::vector<int> numbers);

// What a model holds. All of these accept refs that do not exist in it.

const protocol::BlockMessage* findBlock(const protocol::ModelMessage& model, int block);
bool exists(const protocol::ModelMessage& model, const ComponentRef& ref);
/// Every part of that kind, ascending.
RefSet partsOf(const protocol::ModelMessage& model, PartKind kind);
RefSet partsOfBlock(const protocol::ModelMessage& model, PartKind kind, int block);
/// The kv group of a query head; -1 when unknown.
int kvGroupOf(const protocol::BlockMessage& block, int head);
/// Query heads of a kv group, ascending.
std::vector<int> headsOf(const protocol::BlockMessage& block, int group);
/// Weights that go when the part goes; norms and biases of a layer are shared out with it. A KV group counts its query heads.
/// Heads of grouped attention count their query and output weights only, because keys and values stay while the group has heads.
double parametersOf(const protocol::ModelMessage& model, const ComponentRef& ref);

}  // namespace resect::ui

Q_DECLARE_METATYPE(resect::ui::ComponentRef)
