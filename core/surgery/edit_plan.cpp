#include "core/surgery/edit_plan.h"

#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/surgery/drop_operation.h"
#include "core/surgery/hidden_operation.h"

#include <algorithm>
#include <map>
#include <mutex>

namespace resect {

struct OperationRegistry::Data {
    mutable std::mutex mutex;
    std::map<std::string, Reader, std::less<>> readers;
};

OperationRegistry::OperationRegistry() : m_data(std::make_unique<Data>()) {
    for (const DropWords& words : dropWords())
        m_data->readers.emplace(words.op, [target = words.target](const Json& entry, const std::string& subject) {
            return DropOperation::read(target, entry, subject);
        });
    m_data->readers.emplace(kDropHidden, &HiddenOperation::read);
}

OperationRegistry::~OperationRegistry() = default;

OperationRegistry& OperationRegistry::instance() {
    static OperationRegistry registry;
    return registry;
}

void OperationRegistry::add(std::string op, Reader reader) {
    const std::scoped_lock lock(m_data->mutex);
    if (!m_data->readers.emplace(op, std::move(reader)).second)
        throw Error(ErrorCode::Usage, op, "an edit operation of this name exists already");
}

OperationRegistry::Reader OperationRegistry::find(std::string_view op) const {
    const std::scoped_lock lock(m_data->mutex);
    const auto found = m_data->readers.find(op);
    return found == m_data->readers.end() ? Reader{} : found->second;
}

std::vector<std::string> OperationRegistry::names() const {
    const std::scoped_lock lock(m_data->mutex);
    std::vector<std::string> names;
    for (const auto& [name, reader] : m_data->readers) names.push_back(name);
    return names;
}

namespace {

constexpr int kPlanVersion = 1;

EditPointer readEntry(const Json& entry, const std::string& subject) {
    if (!entry.is_object())
        throw Error(ErrorCode::BadInput, subject,
                    "expected an object such as {\"op\": \"drop_blocks\", \"blocks\": [3]}, found " +
                        entry.dump().substr(0, 80));
    const std::string op = stringField(entry, "op", subject);
    const OperationRegistry::Reader read = OperationRegistry::instance().find(op);
    if (read) return read(entry, subject);
    std::string known;
    for (const std::string& name : OperationRegistry::instance().names()) known += (known.empty() ? "" : ", ") + name;
    throw Error(ErrorCode::BadInput, subject + ": op", "unknown operation \"" + op + "\"; known are " + known);
}

/// Indices that a coarser edit of the same plan removes anyway say nothing about the result.
bool removedByLarger(const Cut& cut, const DropOperation& edit) {
    const int b = edit.block();
    if (b < 0 || static_cast<std::size_t>(b) >= cut.blocks.size()) return false;
    const BlockCut& block = cut.blocks[static_cast<std::size_t>(b)];
    const bool ffn = edit.target() == DropTarget::Channels || edit.target() == DropTarget::Experts;
    return block.block || (ffn ? block.ffn : block.attention);
}

}  // namespace

EditPlan EditPlan::fromJson(const Json& json, const std::string& subject) {
    if (!json.is_object())
        throw Error(ErrorCode::BadInput, subject,
                    "expected an edit plan (an object with \"resect_plan\": 1), found " + std::string(json.type_name()));
    const std::int64_t version = intField(json, "resect_plan", subject);
    if (version != kPlanVersion)
        throw Error(ErrorCode::BadInput, subject + ": resect_plan",
                    "expected version 1, found " + toText(version) + "; this plan needs a newer Resect");
    for (const auto& [key, value] : json.items())
        if (key != "resect_plan" && key != "source" && key != "edits" && key != "notes")
            throw Error(ErrorCode::BadInput, subject + ": " + key,
                        "a plan has no such field; it has resect_plan, source, edits and notes");
    EditPlan plan;
    if (const auto source = json.find("source"); source != json.end() && !source->is_null()) {
        if (!source->is_object())
            throw Error(ErrorCode::BadInput, subject + ": source", "expected an object, found " + source->dump().substr(0, 80));
        plan.fingerprint = stringField(*source, "fingerprint", subject + ": source", "");
    }
    const auto edits = json.find("edits");
    if (edits == json.end() || !edits->is_array())
        throw Error(ErrorCode::BadInput, subject + ": edits",
                    "expected a list of edits, found " + (edits == json.end() ? "nothing" : edits->dump().substr(0, 80)));
    for (const Json& entry : *edits)
        plan.edits.push_back(
            readEntry(entry, subject + ": edits[" + toText(static_cast<std::int64_t>(plan.edits.size())) + "]"));
    plan.notes = json.value("notes", Json());
    return plan;
}

Json EditPlan::toJson() const {
    Json json{{"resect_plan", kPlanVersion}};
    json["source"] = fingerprint.empty() ? Json::object() : Json{{"fingerprint", fingerprint}};
    json["edits"] = Json::array();
    for (const EditPointer& edit : edits) json["edits"].push_back(edit->toJson());
    if (!notes.is_null()) json["notes"] = notes;
    return json;
}

std::string EditPlan::hash() const {
    Cut whole;  // whole blocks and layers, as far as indices make sense
    const auto cutOfBlock = [&](int b) -> BlockCut& {
        if (whole.blocks.size() <= static_cast<std::size_t>(b)) whole.blocks.resize(static_cast<std::size_t>(b) + 1);
        return whole.blocks[static_cast<std::size_t>(b)];
    };
    constexpr int kMostBlocks = 1 << 20;
    for (const EditPointer& edit : edits)
        if (const auto* drop = dynamic_cast<const DropOperation*>(edit.get()); drop && drop->block() < 0)
            for (int b : drop->indices())
                if (b >= 0 && b < kMostBlocks)
                    (drop->target() == DropTarget::Blocks      ? cutOfBlock(b).block
                     : drop->target() == DropTarget::Attention ? cutOfBlock(b).attention
                                                               : cutOfBlock(b).ffn) = true;

    std::map<std::string, IndexSet> parts;  // "drop_heads 3" -> heads
    std::vector<std::string> lines;
    for (const EditPointer& edit : edits) {
        const auto* drop = dynamic_cast<const DropOperation*>(edit.get());
        if (!drop) {
            lines.push_back(edit->toJson().dump());
        } else if (drop->block() >= 0) {
            const std::string expert = drop->expert() == -1 ? "" : " " + toText(std::int64_t{drop->expert()});
            if (!removedByLarger(whole, *drop))
                parts[std::string(drop->op()) + " " + toText(std::int64_t{drop->block()}) + expert].insert(drop->indices());
        } else {
            for (int b : drop->indices()) {
                const bool inside = b >= 0 && b < kMostBlocks && drop->target() != DropTarget::Blocks && cutOfBlock(b).block;
                if (!inside) lines.push_back(std::string(drop->op()) + " " + toText(std::int64_t{b}));
            }
        }
    }
    for (const auto& [name, indices] : parts) {
        std::string line = name + ":";
        for (int i : indices) line += " " + toText(std::int64_t{i});
        lines.push_back(std::move(line));
    }
    std::sort(lines.begin(), lines.end());
    lines.erase(std::unique(lines.begin(), lines.end()), lines.end());
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    return "sha256:" + sha256Hex(text);
}

}  // namespace resect
