#include "widgets/models/plan.h"

#include "core/base/error.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

namespace resect::ui {
namespace {

/// Operations that the window draws and edits itself; plugins may add others, which are kept as they are.
struct DropOp {
    const char* op;
    const char* list;    ///< field with the indices
    PartKind kind;
    bool perBlock;       ///< has a "block" field
};
constexpr std::array kDropOps{
    DropOp{"drop_blocks", "blocks", PartKind::Block, false},       DropOp{"drop_attention", "blocks", PartKind::Attention, false},
    DropOp{"drop_mlp", "blocks", PartKind::Mlp, false},            DropOp{"drop_kv_groups", "groups", PartKind::KvGroup, true},
    DropOp{"drop_heads", "heads", PartKind::Head, true},           DropOp{"drop_channels", "channels", PartKind::Channel, true},
    DropOp{"drop_experts", "experts", PartKind::Expert, true},
};

std::string opOf(const Json& edit) {
    const auto it = edit.is_object() ? edit.find("op") : edit.end();
    if (it == edit.end() || !it->is_string()) return std::string();
    // Channels of one expert are not drawn here; the name is one that no drawn operation has.
    return it->get<std::string>() + (edit.contains("expert") ? " of an expert" : "");
}

const DropOp* findOp(const std::string& op) {
    for (const auto& entry : kDropOps)
        if (op == entry.op) return &entry;
    return nullptr;
}

const DropOp* findOp(PartKind kind) {
    for (const auto& entry : kDropOps)
        if (kind == entry.kind) return &entry;
    return nullptr;
}

std::vector<int> numbersOf(const Json& edit, const char* field) {
    std::vector<int> numbers;
    const auto it = edit.find(field);
    if (it == edit.end() || !it->is_array()) return numbers;
    for (const auto& number : *it)
        if (number.is_number_integer()) numbers.push_back(number.get<int>());
    return numbers;
}

int blockOf(const Json& edit) {
    const auto it = edit.find("block");
    return it != edit.end() && it->is_number_integer() ? it->get<int>() : -1;
}

Json makeEdit(const DropOp& op, int block, const std::set<int>& numbers) {
    Json edit{{"op", op.op}};
    if (op.perBlock) edit["block"] = block;
    edit[op.list] = numbers;
    return edit;
}

int numberOf(const ComponentRef& ref) {
    switch (ref.kind) {
    case PartKind::Block: case PartKind::Attention: case PartKind::Mlp: return ref.block;
    case PartKind::Expert: return ref.expert;
    default: return ref.index;
    }
}

ComponentRef refOf(const DropOp& op, int block, int number) {
    switch (op.kind) {
    case PartKind::Block: case PartKind::Attention: case PartKind::Mlp: return {op.kind, number, -1, -1};
    case PartKind::Expert: return expertRef(block, number);
    default: return {op.kind, block, -1, number};
    }
}

bool insideDropped(const RefSet& refs, const ComponentRef& ref, const protocol::ModelMessage& model) {
    if (ref.kind == PartKind::Block) return false;
    if (contains(refs, blockRef(ref.block))) return true;
    switch (ref.kind) {
    case PartKind::KvGroup: return contains(refs, attentionRef(ref.block));
    case PartKind::Head: {
        const auto* block = findBlock(model, ref.block);
        return contains(refs, attentionRef(ref.block)) || (block && contains(refs, kvGroupRef(ref.block, kvGroupOf(*block, ref.index))));
    }
    case PartKind::Channel: case PartKind::Expert: return contains(refs, mlpRef(ref.block));
    default: return false;
    }
}

QString several(const char* one, const char* many, size_t count) {
    return count == 1 ? QString::fromLatin1(one) : QString::fromLatin1(many);
}

}  // namespace

std::shared_ptr<const PlanEntry> planEntry(Json edit, QString origin) {
    return std::make_shared<const PlanEntry>(PlanEntry{std::move(edit), true, std::move(origin), QString()});
}

QString editTitle(const Json& edit) {
    const DropOp* op = findOp(opOf(edit));
    if (const auto expert = edit.is_object() ? edit.find("expert") : edit.end(); expert != edit.end() && expert->is_number_integer())
        return QStringLiteral("Remove %L1 channels of expert %2 of block %3").arg(numbersOf(edit, "channels").size()).arg(expert->get<int>()).arg(blockOf(edit));
    if (!op) return QString::fromStdString(opOf(edit).empty() ? "Edit without an operation" : opOf(edit));
    const auto numbers = numbersOf(edit, op->list);
    const QString list = rangesText(numbers);
    const size_t n = numbers.size();
    const int block = blockOf(edit);
    switch (op->kind) {
    case PartKind::Block: return QStringLiteral("Drop %1 %2").arg(several("block", "blocks", n), list);
    case PartKind::Attention: return QStringLiteral("Drop attention of %1 %2").arg(several("block", "blocks", n), list);
    case PartKind::Mlp: return QStringLiteral("Drop MLP of %1 %2").arg(several("block", "blocks", n), list);
    case PartKind::KvGroup: return QStringLiteral("Remove %1 %2 of block %3").arg(several("key group", "key groups", n), list).arg(block);
    case PartKind::Head: return QStringLiteral("Remove %1 %2 of block %3").arg(several("head", "heads", n), list).arg(block);
    case PartKind::Expert: return QStringLiteral("Remove %1 %2 of block %3").arg(several("expert", "experts", n), list).arg(block);
    default:
        if (n > 12) return QStringLiteral("Remove %L1 channels of block %2").arg(n).arg(block);
        return QStringLiteral("Remove %1 %2 of block %3").arg(several("channel", "channels", n), list).arg(block);
    }
}

RefSet refsOf(const Json& edit) {
    RefSet refs;
    if (const DropOp* op = findOp(opOf(edit)))
        for (const int number : numbersOf(edit, op->list)) refs.push_back(refOf(*op, blockOf(edit), number));
    return normalised(std::move(refs));
}

std::vector<Json> editsFor(const RefSet& given, const protocol::ModelMessage& model) {
    RefSet refs = given;
    for (const auto& block : model.blocks) {
        if (block.numHeads <= block.numKvHeads) continue;
        for (int group = 0; group < block.numKvHeads; ++group) {
            const auto heads = headsOf(block, group);
            const bool whole = !heads.empty() && std::all_of(heads.begin(), heads.end(), [&](int head) { return contains(refs, headRef(block.index, head)); });
            if (whole) refs = united(refs, {kvGroupRef(block.index, group)});
        }
    }
    std::map<std::pair<PartKind, int>, std::set<int>> byEdit;
    for (const auto& ref : refs) {
        const DropOp* op = findOp(ref.kind);
        if (!op || !exists(model, ref) || insideDropped(refs, ref, model)) continue;
        byEdit[{ref.kind, op->perBlock ? ref.block : -1}].insert(numberOf(ref));
    }
    std::vector<Json> edits;
    for (const auto& [key, numbers] : byEdit) edits.push_back(makeEdit(*findOp(key.first), key.second, numbers));
    return edits;
}

QString dropWords(const RefSet& refs) {
    std::map<PartKind, qint64> counts;
    std::set<int> blocks;
    for (const auto& ref : refs) {
        ++counts[ref.kind];
        blocks.insert(ref.block);
    }
    if (counts.empty()) return QStringLiteral("nothing");
    if (refs.size() == 1) return text(refs.front());
    if (counts.size() > 1) return QStringLiteral("%L1 parts of %2 blocks").arg(refs.size()).arg(blocks.size());
    const auto [kind, count] = *counts.begin();
    const QString what = kind == PartKind::Head ? (count == 1 ? QStringLiteral("1 head") : QStringLiteral("%L1 heads").arg(count)) : countWords(kind, count);
    if (kind == PartKind::Block || kind == PartKind::Attention || kind == PartKind::Mlp) return what;
    return blocks.size() == 1 ? QStringLiteral("%1 from block %2").arg(what).arg(*blocks.begin()) : QStringLiteral("%1 from %2 blocks").arg(what).arg(blocks.size());
}

Json planToJson(const Plan& plan, const std::string& fingerprint) {
    Json edits = Json::array();
    for (const auto& entry : plan)
        if (entry->enabled) edits.push_back(entry->edit);
    return Json{{"resect_plan", 1}, {"source", {{"fingerprint", fingerprint}}}, {"edits", edits}};
}

Json planToFile(const Plan& plan, const std::string& fingerprint) {
    Json json = planToJson(plan, fingerprint);
    Json rows = Json::array();
    for (const auto& entry : plan) {
        Json row{{"origin", entry->origin.toStdString()}, {"note", entry->note.toStdString()}};
        if (!entry->enabled) row["off"] = entry->edit;  // kept apart, so that other programs do not apply it
        rows.push_back(std::move(row));
    }
    json["notes"] = Json{{"rows", rows}};
    return json;
}

Plan planFromFile(const Json& json, const std::string& subject) {
    const auto bad = [&](const std::string& field, const std::string& message) -> Error { return {ErrorCode::BadInput, subject + ": " + field, message}; };
    if (!json.is_object() || !json.contains("resect_plan")) throw bad("resect_plan", "expected an edit plan (an object with the field resect_plan)");
    if (json.at("resect_plan") != 1) throw bad("resect_plan", "expected version 1, found " + json.at("resect_plan").dump());
    const auto edits = json.find("edits");
    if (edits == json.end() || !edits->is_array()) throw bad("edits", "expected a list of edits");
    for (size_t i = 0; i < edits->size(); ++i)
        if (opOf((*edits)[i]).empty()) throw bad("edits[" + std::to_string(i) + "]", "expected an object with the field op");
    Plan plan;
    size_t next = 0;
    if (json.contains("notes") && json.at("notes").is_object() && json.at("notes").contains("rows") && json.at("notes").at("rows").is_array()) {
        for (const auto& row : json.at("notes").at("rows")) {
            if (!row.is_object()) continue;
            PlanEntry entry;
            entry.origin = QString::fromStdString(row.value("origin", ""));
            entry.note = QString::fromStdString(row.value("note", ""));
            if (row.contains("off")) {
                entry.enabled = false;
                entry.edit = row.at("off");
            } else if (next < edits->size()) {
                entry.edit = (*edits)[next++];
            } else {
                continue;
            }
            if (!opOf(entry.edit).empty()) plan.push_back(std::make_shared<const PlanEntry>(std::move(entry)));
        }
    }
    for (; next < edits->size(); ++next) plan.push_back(planEntry((*edits)[next]));
    return plan;
}

std::string planFingerprint(const Json& json) {
    const auto source = json.find("source");
    if (source == json.end() || !source->is_object()) return {};
    const auto it = source->find("fingerprint");
    return it != source->end() && it->is_string() ? it->get<std::string>() : std::string();
}

Plan withEdits(Plan plan, const std::vector<Json>& edits, const QString& origin) {
    for (const Json& edit : edits) {
        const DropOp* op = findOp(opOf(edit));
        const auto host = !op ? plan.end() : std::find_if(plan.begin(), plan.end(), [&](const auto& entry) {
            return entry->enabled && entry->origin == origin && opOf(entry->edit) == op->op && (!op->perBlock || blockOf(entry->edit) == blockOf(edit));
        });
        if (host == plan.end()) {
            plan.push_back(planEntry(edit, origin));
            continue;
        }
        std::set<int> numbers;
        for (const int n : numbersOf((*host)->edit, op->list)) numbers.insert(n);
        for (const int n : numbersOf(edit, op->list)) numbers.insert(n);
        PlanEntry merged = **host;
        merged.edit[op->list] = numbers;
        *host = std::make_shared<const PlanEntry>(std::move(merged));
    }
    return plan;
}

namespace {

/// What has to leave the list of `op` so that the wanted parts stay; `extra` receives heads that must go on being dropped.
std::set<int> lifted(const DropOp& op, const Json& edit, const RefSet& wanted, const protocol::ModelMessage& model, RefSet& extra) {
    std::set<int> out;
    const std::vector<int> list = numbersOf(edit, op.list);
    const std::set<int> numbers(list.begin(), list.end());
    for (const auto& ref : wanted) {
        const bool inAttention = ref.kind == PartKind::Head || ref.kind == PartKind::KvGroup || ref.kind == PartKind::Attention;
        const bool inMlp = ref.kind == PartKind::Channel || ref.kind == PartKind::Expert || ref.kind == PartKind::Mlp || ref.kind == PartKind::Router;
        if (op.perBlock && blockOf(edit) != ref.block) continue;
        const auto all = [&] { out.insert(numbers.begin(), numbers.end()); };
        switch (op.kind) {
        case PartKind::Block: out.insert(ref.block); break;
        case PartKind::Attention: if (inAttention || ref.kind == PartKind::Block) out.insert(ref.block); break;
        case PartKind::Mlp: if (inMlp || ref.kind == PartKind::Block) out.insert(ref.block); break;
        case PartKind::KvGroup:
            if (ref.kind == PartKind::Block || ref.kind == PartKind::Attention) all();
            else if (ref.kind == PartKind::KvGroup) out.insert(ref.index);
            else if (const auto* block = ref.kind == PartKind::Head ? findBlock(model, ref.block) : nullptr) {
                const int group = kvGroupOf(*block, ref.index);
                if (!numbers.contains(group)) break;
                out.insert(group);
                for (const int head : headsOf(*block, group))
                    if (!contains(wanted, headRef(ref.block, head))) extra.push_back(headRef(ref.block, head));
            }
            break;
        case PartKind::Head:
            if (ref.kind == PartKind::Block || ref.kind == PartKind::Attention) all();
            else if (ref.kind == PartKind::Head) out.insert(ref.index);
            else if (const auto* block = ref.kind == PartKind::KvGroup ? findBlock(model, ref.block) : nullptr)
                for (const int head : headsOf(*block, ref.index)) out.insert(head);
            break;
        case PartKind::Channel:
            if (ref.kind == PartKind::Block || ref.kind == PartKind::Mlp) all();
            else if (ref.kind == PartKind::Channel) out.insert(ref.index);
            break;
        case PartKind::Expert:
            if (ref.kind == PartKind::Block || ref.kind == PartKind::Mlp) all();
            else if (ref.kind == PartKind::Expert) out.insert(ref.expert);
            break;
        default: break;
        }
    }
    return out;
}

}  // namespace

Plan without(const Plan& plan, const RefSet& wanted, const protocol::ModelMessage& model) {
    Plan out;
    for (const auto& entry : plan) {
        const DropOp* op = findOp(opOf(entry->edit));
        RefSet extra;
        const std::set<int> gone = op && entry->enabled ? lifted(*op, entry->edit, wanted, model, extra) : std::set<int>{};
        std::set<int> left;
        if (op)
            for (const int n : numbersOf(entry->edit, op->list))
                if (!gone.contains(n)) left.insert(n);
        if (!op || gone.empty() || left.size() == numbersOf(entry->edit, op->list).size()) out.push_back(entry);
        else if (!left.empty()) {
            PlanEntry changed = *entry;
            changed.edit[op->list] = left;
            out.push_back(std::make_shared<const PlanEntry>(std::move(changed)));
        }
        if (!extra.empty()) out = withEdits(std::move(out), editsFor(normalised(extra), model), entry->origin);
    }
    return out;
}

DropIndex::DropIndex(const Plan& plan, const protocol::ModelMessage& model) {
    int count = 0;
    for (const auto& block : model.blocks) count = std::max(count, block.index + 1);
    m_blocks.resize(static_cast<size_t>(count));
    for (const auto& source : model.blocks) {
        if (source.index < 0) continue;
        Block& block = m_blocks[static_cast<size_t>(source.index)];
        block.hasAttention = source.hasAttention;
        block.hasMlp = source.hasFfn;
        block.heads.resize(static_cast<size_t>(std::max(0, source.numHeads)));
        block.groups.resize(static_cast<size_t>(std::max(0, source.numKvHeads)));
        block.channels.resize(static_cast<size_t>(std::max(0, source.ffnSize)));
        block.experts.resize(static_cast<size_t>(std::max(0, source.numExperts)));
        for (int head = 0; head < source.numHeads; ++head) block.groupOfHead.push_back(kvGroupOf(source, head));
    }
    for (const auto& entry : plan) {
        if (!entry->enabled) continue;
        for (const auto& ref : refsOf(entry->edit)) {
            if (!exists(model, ref)) continue;
            Block& block = m_blocks[static_cast<size_t>(ref.block)];
            m_empty = false;
            switch (ref.kind) {
            case PartKind::Block: block.dropped = true; break;
            case PartKind::Attention: block.attention = true; break;
            case PartKind::Mlp: block.mlp = true; break;
            case PartKind::KvGroup: block.groups[static_cast<size_t>(ref.index)] = true; break;
            case PartKind::Head: block.heads[static_cast<size_t>(ref.index)] = true; break;
            case PartKind::Channel: block.channels[static_cast<size_t>(ref.index)] = true; break;
            case PartKind::Expert: block.experts[static_cast<size_t>(ref.expert)] = true; break;
            default: break;
            }
        }
    }
    for (Block& block : m_blocks) {
        std::vector<size_t> kept(block.groups.size());
        for (size_t head = 0; head < block.heads.size(); ++head) {
            const int group = block.groupOfHead[head];
            if (group >= 0 && block.groups[static_cast<size_t>(group)]) block.heads[head] = true;
            if (group >= 0 && !block.heads[head]) ++kept[static_cast<size_t>(group)];
        }
        for (size_t group = 0; group < kept.size(); ++group)
            if (kept[group] == 0) block.groups[group] = true;   // a group without heads does not stay
        block.droppedHeads = static_cast<size_t>(std::count(block.heads.begin(), block.heads.end(), true));
        block.droppedChannels = static_cast<size_t>(std::count(block.channels.begin(), block.channels.end(), true));
        block.droppedExperts = static_cast<size_t>(std::count(block.experts.begin(), block.experts.end(), true));
    }
}

const DropIndex::Block* DropIndex::find(int block) const {
    return block >= 0 && static_cast<size_t>(block) < m_blocks.size() ? &m_blocks[static_cast<size_t>(block)] : nullptr;
}

DropState DropIndex::stateOfLayer(const Block& block, bool whole, bool present, size_t dropped, size_t total) const {
    if (block.dropped || whole || (present && total > 0 && dropped == total)) return DropState::Dropped;
    return dropped > 0 ? DropState::Partly : DropState::Kept;
}

DropState DropIndex::state(const ComponentRef& ref) const {
    if (ref.kind == PartKind::Model) return m_empty ? DropState::Kept : DropState::Partly;
    const Block* block = find(ref.block);
    if (!block) return DropState::Kept;
    const auto at = [](const std::vector<bool>& flags, int index) { return index >= 0 && static_cast<size_t>(index) < flags.size() && flags[static_cast<size_t>(index)]; };
    const auto flag = [](bool dropped) { return dropped ? DropState::Dropped : DropState::Kept; };
    switch (ref.kind) {
    case PartKind::Attention: return stateOfLayer(*block, block->attention, block->hasAttention, block->droppedHeads, block->heads.size());
    case PartKind::Mlp: {
        const bool moe = !block->experts.empty();
        return stateOfLayer(*block, block->mlp, block->hasMlp, moe ? block->droppedExperts : block->droppedChannels, moe ? block->experts.size() : block->channels.size());
    }
    case PartKind::Block: {
        if (block->dropped) return DropState::Dropped;
        const DropState attention = state(attentionRef(ref.block)), mlp = state(mlpRef(ref.block));
        if ((attention == DropState::Dropped || !block->hasAttention) && (mlp == DropState::Dropped || !block->hasMlp)) return DropState::Dropped;
        return attention == DropState::Kept && mlp == DropState::Kept ? DropState::Kept : DropState::Partly;
    }
    case PartKind::Head: return flag(block->dropped || block->attention || at(block->heads, ref.index));
    case PartKind::KvGroup: {
        if (block->dropped || block->attention || at(block->groups, ref.index)) return DropState::Dropped;
        for (size_t head = 0; head < block->heads.size(); ++head)
            if (block->heads[head] && block->groupOfHead[head] == ref.index) return DropState::Partly;
        return DropState::Kept;
    }
    case PartKind::Channel: return flag(block->dropped || block->mlp || at(block->experts, ref.expert) || (ref.expert < 0 && at(block->channels, ref.index)));
    case PartKind::Expert: return flag(block->dropped || block->mlp || at(block->experts, ref.expert));
    case PartKind::Router: return flag(block->dropped || block->mlp);
    default: return DropState::Kept;
    }
}

int DropIndex::keptChannels(int index) const {
    const Block* block = find(index);
    return !block || block->dropped || block->mlp ? 0 : static_cast<int>(block->channels.size() - block->droppedChannels);
}

int DropIndex::keptHeads(int index) const {
    const Block* block = find(index);
    return !block || block->dropped || block->attention ? 0 : static_cast<int>(block->heads.size() - block->droppedHeads);
}

}  // namespace resect::ui
