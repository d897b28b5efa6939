#include "core/surgery/drop_operation.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/surgery/hidden_operation.h"

#include <algorithm>
#include <array>
#include <limits>

namespace resect {

namespace {

constexpr std::array kWords{
    DropWords{DropTarget::Blocks, "drop_blocks", "blocks", "block", "blocks", "Drop blocks", false},
    DropWords{DropTarget::Attention, "drop_attention", "blocks", "block", "blocks", "Drop attention of blocks", false},
    DropWords{DropTarget::Mlp, "drop_mlp", "blocks", "block", "blocks", "Drop MLP of blocks", false},
    DropWords{DropTarget::KvGroups, "drop_kv_groups", "groups", "kv group", "kv groups", "Drop kv groups", true},
    DropWords{DropTarget::Heads, "drop_heads", "heads", "head", "heads", "Drop heads", true},
    DropWords{DropTarget::Channels, "drop_channels", "channels", "channel", "channels", "Drop channels", true},
    DropWords{DropTarget::Experts, "drop_experts", "experts", "expert", "experts", "Drop experts", true},
};

const DropWords& wordsOf(DropTarget target) { return kWords[static_cast<std::size_t>(target)]; }

std::string text(std::int64_t number) { return toText(number); }

/// Why block `b` of the source lacks what this operation removes; empty when it has it.
std::string whyMissing(const DropOperation& edit, const ModelShape& source, const BlockShape& block) {
    const DropTarget target = edit.target();
    if (target == DropTarget::Blocks) return {};
    const bool attention = target == DropTarget::Attention || target == DropTarget::KvGroups || target == DropTarget::Heads;
    if (attention && !block.hasAttention) return "has no attention any more";
    if (!attention && !block.hasFfn) return "has no MLP any more";
    const Family* family = findFamily(source.of(block).modelType);
    if ((target == DropTarget::KvGroups || target == DropTarget::Heads) && family && family->qkNorm == Family::QkNorm::Projection)
        return "normalises its queries and keys over all heads together, so that removing one would change the others: drop its attention as a whole";
    if (target == DropTarget::Experts && block.numExperts == 0) return "has one MLP, not a mixture of experts";
    if (target != DropTarget::Channels) return {};
    if (edit.expert() == DropOperation::kSharedExpert) return block.sharedFfnSize > 0 ? "" : "has no shared expert";
    if (block.numExperts > 0 && edit.expert() < 0) return "has a mixture of experts: name the expert whose channels are dropped (\"expert\": its index, or \"shared\")";
    if (block.numExperts == 0 && edit.expert() >= 0) return "has one MLP, so that no expert can be named";
    if (edit.expert() >= block.numExperts && edit.expert() >= 0) return "has experts 0-" + text(block.numExperts - 1) + ", there is no expert " + text(edit.expert());
    return {};
}

int countInside(DropTarget target, const BlockShape& block, int expert) {
    if (expert == DropOperation::kSharedExpert) return block.sharedFfnSize;
    if (target == DropTarget::KvGroups) return block.numKvHeads;
    if (target == DropTarget::Experts) return block.numExperts;
    return target == DropTarget::Heads ? block.numHeads : block.ffnSize;
}

}  // namespace

std::span<const DropWords> dropWords() noexcept { return kWords; }

std::vector<int> repeatedIn(std::vector<int> indices) {
    std::sort(indices.begin(), indices.end());
    std::vector<int> repeated;
    for (std::size_t i = 1; i < indices.size(); ++i)
        if (indices[i] == indices[i - 1] && (repeated.empty() || repeated.back() != indices[i])) repeated.push_back(indices[i]);
    return repeated;
}

std::string indexText(std::span<const int> indices, std::size_t most) {
    std::string result;
    std::size_t ranges = 0;
    for (std::size_t i = 0; i < indices.size();) {
        std::size_t end = i + 1;
        while (end < indices.size() && indices[end] == indices[end - 1] + 1) ++end;
        if (!result.empty()) result += ", ";
        if (ranges++ == most) return result + "...";
        result += text(indices[i]);
        if (end - i > 1) result += (end - i == 2 ? ", " : "-") + text(indices[end - 1]);
        i = end;
    }
    return result;
}

DropOperation::DropOperation(DropTarget target, int block, std::vector<int> indices, int expert)
    : m_words(&wordsOf(target)), m_block(m_words->insideBlock ? block : -1), m_expert(target == DropTarget::Channels ? expert : -1), m_indices(std::move(indices)), m_set(m_indices) {}

Json DropOperation::toJson() const {
    Json json{{"op", m_words->op}};
    if (m_words->insideBlock) json["block"] = m_block;
    if (m_expert >= 0) json["expert"] = m_expert;
    if (m_expert == kSharedExpert) json["expert"] = "shared";
    json[std::string(m_words->field)] = m_indices;
    return json;
}

std::string DropOperation::title() const {
    const std::vector<int>& sorted = m_set.values();
    std::string verb(m_words->title);
    const bool single = sorted.size() == 1;
    if (single && verb.ends_with('s')) verb.pop_back();
    if (!m_words->insideBlock) return verb + " " + indexText(sorted);
    constexpr std::size_t kListed = 8;
    const std::string of = (m_expert == kSharedExpert ? " of the shared expert" : m_expert < 0 ? "" : " of expert " + text(m_expert)) + " of block " + text(m_block);
    if (sorted.size() > kListed)
        return "Drop " + text(static_cast<std::int64_t>(sorted.size())) + " " + std::string(m_words->many) + of;
    return verb + " " + indexText(sorted) + of;
}

std::vector<Problem> DropOperation::check(const ModelShape& source) const {
    std::vector<Problem> problems;
    const auto error = [&](std::string message, std::string advice = {}) {
        problems.push_back({Severity::Error, title(), std::move(message), std::move(advice)});
    };
    const int numBlocks = source.numBlocks();
    const std::string many(m_words->many), blocksThere = "the model has blocks 0-" + text(numBlocks - 1);
    int count = numBlocks;
    if (m_words->insideBlock) {
        if (m_block < 0 || m_block >= numBlocks) {
            error("Block " + text(m_block) + " does not exist; " + blocksThere + ".");
            return problems;
        }
        const BlockShape& block = source.blocks[static_cast<std::size_t>(m_block)];
        if (const std::string why = whyMissing(*this, source, block); !why.empty()) {
            error("Block " + text(m_block) + " " + why + ".");
            return problems;
        }
        count = countInside(target(), block, m_expert);
    }
    if (m_indices.empty()) error("The list of " + many + " is empty.", "Name at least one, or remove this entry.");

    std::vector<int> outside, missing;
    const std::vector<int> repeated = m_set.size() == m_indices.size() ? std::vector<int>() : repeatedIn(m_indices);
    if (!m_set.empty() && (*m_set.begin() < 0 || m_set.values().back() >= count))
        std::copy_if(m_set.begin(), m_set.end(), std::back_inserter(outside), [&](int i) { return i < 0 || i >= count; });
    if (!m_words->insideBlock)
        std::copy_if(m_set.begin(), m_set.end(), std::back_inserter(missing), [&](int b) {
            return b >= 0 && b < count && !whyMissing(*this, source, source.blocks[static_cast<std::size_t>(b)]).empty();
        });
    const std::string there =
        m_words->insideBlock ? "block " + text(m_block) + " has " + many + " 0-" + text(count - 1) : blocksThere;
    if (!outside.empty())
        error("There is no " + std::string(m_words->one) + " " + indexText(outside) + "; " + there + ".",
              "Indices count from 0.");
    if (!repeated.empty()) error("Named more than once: " + many + " " + indexText(repeated) + ".", "Name each index once.");
    for (int b : missing)
        error("Block " + text(b) + " " + whyMissing(*this, source, source.blocks[static_cast<std::size_t>(b)]) + ".");
    return problems;
}

EditPointer DropOperation::nearestLegal(const ModelShape& source) const {
    const int numBlocks = source.numBlocks();
    if (m_words->insideBlock &&
        (m_block < 0 || m_block >= numBlocks || !whyMissing(*this, source, source.blocks[static_cast<std::size_t>(m_block)]).empty()))
        return nullptr;
    const int count =
        m_words->insideBlock ? countInside(target(), source.blocks[static_cast<std::size_t>(m_block)], m_expert) : numBlocks;
    std::vector<int> kept;
    for (int i : m_set)
        if (i >= 0 && i < count && (m_words->insideBlock || whyMissing(*this, source, source.blocks[static_cast<std::size_t>(i)]).empty()))
            kept.push_back(i);
    if (kept.empty()) return nullptr;
    return std::make_shared<DropOperation>(target(), m_block, std::move(kept), m_expert);
}

void DropOperation::addTo(Cut& cut, const ModelShape& source) const {
    cut.blocks.resize(source.blocks.size());
    if (m_words->insideBlock) {
        BlockCut& block = cut.blocks[static_cast<std::size_t>(m_block)];
        (target() == DropTarget::KvGroups  ? block.kvGroups
         : target() == DropTarget::Heads   ? block.heads
         : target() == DropTarget::Experts ? block.experts
         : m_expert == kSharedExpert       ? block.sharedChannels
         : m_expert >= 0                   ? block.expertChannels[m_expert]
                                           : block.channels)
            .insert(m_set);
        return;
    }
    for (int b : m_set) {
        BlockCut& block = cut.blocks[static_cast<std::size_t>(b)];
        (target() == DropTarget::Blocks ? block.block : target() == DropTarget::Attention ? block.attention : block.ffn) = true;
    }
}

namespace {

int readIndex(const Json& value, const std::string& where) {
    if (!value.is_number_integer())
        throw Error(ErrorCode::BadInput, where, "expected an index (a whole number), found " + value.dump());
    const bool fits = value.is_number_unsigned()
                          ? value.get<std::uint64_t>() <= std::uint64_t(std::numeric_limits<int>::max())
                          : value.get<std::int64_t>() >= std::numeric_limits<int>::min();
    if (!fits) throw Error(ErrorCode::BadInput, where, "expected an index, found " + value.dump());
    return value.get<int>();
}

}  // namespace

std::vector<int> readIndices(const Json& entry, std::string_view field, const std::string& subject) {
    const auto list = entry.find(std::string(field));
    const std::string where = subject + ": " + std::string(field);
    if (list == entry.end()) throw Error(ErrorCode::BadInput, where, "expected a list of indices, found nothing");
    if (!list->is_array())
        throw Error(ErrorCode::BadInput, where, "expected a list of indices, found " + list->dump().substr(0, 80));
    std::vector<int> indices;
    indices.reserve(list->size());
    for (const Json& value : *list)
        indices.push_back(readIndex(value, where + "[" + text(static_cast<std::int64_t>(indices.size())) + "]"));
    return indices;
}

EditPointer DropOperation::read(DropTarget target, const Json& entry, const std::string& subject) {
    const DropWords& words = wordsOf(target);
    for (const auto& [key, value] : entry.items())
        if (key != "op" && key != words.field && !(words.insideBlock && key == "block") && !(target == DropTarget::Channels && key == "expert"))
            throw Error(ErrorCode::BadInput, subject + ": " + key,
                        std::string(words.op) + " has no such field; it takes " + (words.insideBlock ? "\"block\" and " : "") +
                            "\"" + std::string(words.field) + "\"" + (target == DropTarget::Channels ? ", in a mixture also \"expert\"" : ""));
    int block = -1;
    if (words.insideBlock) {
        if (!entry.contains("block"))
            throw Error(ErrorCode::BadInput, subject + ": block", "expected the block's index, found nothing");
        block = readIndex(entry.at("block"), subject + ": block");
    }
    int expert = -1;
    if (entry.contains("expert") && entry.at("expert") == "shared")
        expert = kSharedExpert;
    else if (entry.contains("expert") && (expert = readIndex(entry.at("expert"), subject + ": expert")) < 0)
        throw Error(ErrorCode::BadInput, subject + ": expert", "expected an index from 0, found " + text(expert));
    std::vector<int> indices = readIndices(entry, words.field, subject);
    return std::make_shared<DropOperation>(target, block, std::move(indices), expert);
}

EditPointer dropBlocks(std::vector<int> blocks) {
    return std::make_shared<DropOperation>(DropTarget::Blocks, -1, std::move(blocks));
}
EditPointer dropAttention(std::vector<int> blocks) {
    return std::make_shared<DropOperation>(DropTarget::Attention, -1, std::move(blocks));
}
EditPointer dropMlp(std::vector<int> blocks) { return std::make_shared<DropOperation>(DropTarget::Mlp, -1, std::move(blocks)); }
EditPointer dropKvGroups(int block, std::vector<int> groups) {
    return std::make_shared<DropOperation>(DropTarget::KvGroups, block, std::move(groups));
}
EditPointer dropHeads(int block, std::vector<int> heads) {
    return std::make_shared<DropOperation>(DropTarget::Heads, block, std::move(heads));
}
EditPointer dropChannels(int block, std::vector<int> channels) {
    return std::make_shared<DropOperation>(DropTarget::Channels, block, std::move(channels));
}
EditPointer dropExpertChannels(int block, int expert, std::vector<int> channels) {
    return std::make_shared<DropOperation>(DropTarget::Channels, block, std::move(channels), expert);
}
EditPointer dropSharedChannels(int block, std::vector<int> channels) {
    return std::make_shared<DropOperation>(DropTarget::Channels, block, std::move(channels), DropOperation::kSharedExpert);
}
EditPointer dropExperts(int block, std::vector<int> experts) {
    return std::make_shared<DropOperation>(DropTarget::Experts, block, std::move(experts));
}

std::vector<std::string> supportedOperations(const ModelShape& source) {
    std::vector<std::string> names;
    if (!findFamily(source.modelType)) return names;
    for (const DropWords& words : kWords)
        if (std::any_of(source.blocks.begin(), source.blocks.end(), [&](const BlockShape& block) {
                return whyMissing(DropOperation(words.target, 0, {}, block.numExperts > 0 ? 0 : -1), source, block).empty();
            }))
            names.emplace_back(words.op);
    if (whyHiddenStays(source).empty()) names.emplace_back(kDropHidden);
    return names;
}

}  // namespace resect
