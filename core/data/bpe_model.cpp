#include "core/data/bpe_model.h"

#include "core/base/error.h"
#include "core/data/byte_level.h"
#include "core/data/unicode.h"

#include <algorithm>
#include <bit>

namespace resect {
namespace {

constexpr std::int64_t kMaxId = 1 << 26;  // an id beyond this is a damaged file, and m_tokens is as long as the largest id
constexpr char32_t kShortCharacters = 0x800;

std::uint64_t pairKey(std::int32_t left, std::int32_t right) noexcept {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

std::size_t hashPair(std::uint64_t pair) noexcept {
    pair *= 0x9E3779B97F4A7C15ull;
    return static_cast<std::size_t>(pair ^ pair >> 32);
}

}  // namespace

BpeModel::BpeModel(Vocabulary vocabulary, const Merges& merges, BpeOptions options, const std::string& subject)
    : m_options(std::move(options)) {
    std::int64_t largest = -1;
    for (const auto& [token, id] : vocabulary) {
        if (id < 0 || id > kMaxId)
            throw Error(ErrorCode::BadInput, subject + ".vocab",
                        "token '" + token + "' has the impossible id " + std::to_string(id));
        largest = std::max(largest, id);
    }
    m_tokens.resize(static_cast<std::size_t>(largest + 1));
    m_ids.reserve(vocabulary.size());
    for (auto& [token, id] : vocabulary) {
        if (token.empty())
            throw Error(ErrorCode::BadInput, subject + ".vocab", "id " + std::to_string(id) + " belongs to an empty token");
        std::string& slot = m_tokens[static_cast<std::size_t>(id)];
        if (!slot.empty())
            throw Error(ErrorCode::BadInput, subject + ".vocab",
                        "id " + std::to_string(id) + " belongs to both '" + slot + "' and '" + token + "'");
        slot = std::move(token);
        if (!m_ids.emplace(slot, static_cast<std::int32_t>(id)).second) {
            throw Error(ErrorCode::BadInput, subject + ".vocab", "token '" + slot + "' stands there twice");
        }
    }
    m_shortCharacters.assign(kShortCharacters, -1);
    for (char32_t c = 0; c < kShortCharacters; ++c) {
        std::string character;
        appendUtf8(character, c);
        m_shortCharacters[c] = idOf(character);
    }
    for (int byte = 0; byte < 256; ++byte) m_byteIds.push_back(idOf(byteFallbackName(static_cast<unsigned char>(byte))));
    if (!m_options.unknownToken.empty()) {
        m_unknownId = idOf(m_options.unknownToken);
        if (m_unknownId < 0)
            throw Error(ErrorCode::BadInput, subject + ".unk_token",
                        "'" + m_options.unknownToken + "' is not in the vocabulary");
    }
    addMerges(merges, subject);
}

void BpeModel::addMerges(const Merges& merges, const std::string& subject) {
    m_merges.resize(std::bit_ceil(merges.size() * 3 / 2 + 2));
    m_mergeResults.reserve(merges.size());
    std::string result;
    for (std::size_t rank = 0; rank < merges.size(); ++rank) {
        const auto& [left, right] = merges[rank];
        const std::string& prefix = m_options.continuingSubwordPrefix;
        const std::size_t dropped = !prefix.empty() && right.starts_with(prefix) ? prefix.size() : 0;
        result.assign(left).append(right, dropped);
        const std::int32_t ids[] = {idOf(left), idOf(right), idOf(result)};
        for (int i = 0; i < 3; ++i) {
            if (ids[i] >= 0) continue;
            throw Error(ErrorCode::BadInput, subject + ".merges[" + std::to_string(rank) + "]",
                        "'" +
                            (i == 0   ? left
                             : i == 1 ? right
                                      : result) +
                            "' is not in the vocabulary");
        }
        insertMerge(pairKey(ids[0], ids[1]), static_cast<std::uint32_t>(rank));
        m_mergeResults.push_back(ids[2]);
    }
}

void BpeModel::insertMerge(std::uint64_t pair, std::uint32_t rank) {
    const std::size_t mask = m_merges.size() - 1;
    std::size_t slot = hashPair(pair) & mask;
    while (m_merges[slot].pair != ~0ull && m_merges[slot].pair != pair) slot = (slot + 1) & mask;
    m_merges[slot] = {pair, rank};  // of two equal merges the later counts, as in the tokenizers library
}

const BpeModel::MergeSlot* BpeModel::findMerge(std::int32_t left, std::int32_t right) const noexcept {
    const std::uint64_t pair = pairKey(left, right);
    const std::size_t mask = m_merges.size() - 1;
    for (std::size_t slot = hashPair(pair) & mask;; slot = (slot + 1) & mask) {
        if (m_merges[slot].pair == pair) return &m_merges[slot];
        if (m_merges[slot].pair == ~0ull) return nullptr;
    }
}

std::int32_t BpeModel::idOf(std::string_view token) const noexcept {
    const auto found = m_ids.find(token);
    return found == m_ids.end() ? -1 : found->second;
}

const std::string* BpeModel::token(std::int64_t id) const noexcept {
    if (id < 0 || id >= vocabSize() || m_tokens[static_cast<std::size_t>(id)].empty()) return nullptr;
    return &m_tokens[static_cast<std::size_t>(id)];
}

std::int32_t BpeModel::characterId(std::string_view character) const noexcept {
    if (character.size() <= 2) {
        std::size_t pos = 0;
        return m_shortCharacters[nextCodePoint(character, pos)];
    }
    return idOf(character);
}

void BpeModel::splitIntoSymbols(std::string_view word, Workspace& workspace) const {
    auto& symbols = workspace.symbols;
    symbols.clear();
    const auto add = [&](std::int32_t id) {
        const auto at = static_cast<std::int32_t>(symbols.size());
        symbols.push_back({id, at - 1, at + 1});
    };
    const bool decorated = !m_options.continuingSubwordPrefix.empty() || !m_options.endOfWordSuffix.empty();
    std::string decoratedCharacter;
    bool lastWasUnknown = false;
    for (std::size_t pos = 0; pos < word.size();) {
        const std::size_t begin = pos;
        nextCodePoint(word, pos);
        std::string_view character = word.substr(begin, pos - begin);
        if (decorated) {
            decoratedCharacter = begin > 0 ? m_options.continuingSubwordPrefix : std::string();
            decoratedCharacter += character;
            if (pos == word.size()) decoratedCharacter += m_options.endOfWordSuffix;
            character = decoratedCharacter;
        }
        const std::int32_t id = decorated ? idOf(character) : characterId(character);
        if (id >= 0) {
            add(id);
            lastWasUnknown = false;
            continue;
        }
        const auto byteId = [&](char c) { return m_byteIds[static_cast<unsigned char>(c)]; };
        if (m_options.byteFallback && std::all_of(character.begin(), character.end(), [&](char c) { return byteId(c) >= 0; })) {
            for (const char c : character) add(byteId(c));
            lastWasUnknown = false;
        } else if (m_unknownId >= 0) {
            if (!(lastWasUnknown && m_options.fuseUnknown)) add(m_unknownId);
            lastWasUnknown = true;
        }
    }
    if (!symbols.empty()) symbols.back().next = -1;
}

void BpeModel::mergeSymbols(Workspace& workspace) const {
    using Candidate = Workspace::Candidate;
    auto& symbols = workspace.symbols;
    auto& heap = workspace.heap;
    heap.clear();
    const auto later = [](const Candidate& a, const Candidate& b) {
        return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
    };
    const auto candidateAt = [&](std::int32_t position) -> bool {
        const auto& symbol = symbols[static_cast<std::size_t>(position)];
        if (symbol.next < 0) return false;
        const std::int32_t right = symbols[static_cast<std::size_t>(symbol.next)].id;
        const MergeSlot* merge = findMerge(symbol.id, right);
        if (merge) heap.push_back({merge->rank, static_cast<std::uint32_t>(position), symbol.id, right});
        return merge;
    };
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) candidateAt(static_cast<std::int32_t>(i));
    std::make_heap(heap.begin(), heap.end(), later);
    while (!heap.empty()) {
        std::pop_heap(heap.begin(), heap.end(), later);
        const Candidate best = heap.back();
        heap.pop_back();
        auto& symbol = symbols[best.position];
        // A symbol that was merged into its left neighbour has id -1; one whose pair changed has an entry of its own.
        if (symbol.id != best.left || symbol.next < 0) continue;
        auto& right = symbols[static_cast<std::size_t>(symbol.next)];
        if (right.id != best.right) continue;
        symbol.id = m_mergeResults[best.rank];
        symbol.next = right.next;
        right.id = -1;
        if (symbol.next >= 0)
            symbols[static_cast<std::size_t>(symbol.next)].previous = static_cast<std::int32_t>(best.position);
        if (symbol.previous >= 0 && candidateAt(symbol.previous)) std::push_heap(heap.begin(), heap.end(), later);
        if (candidateAt(static_cast<std::int32_t>(best.position))) std::push_heap(heap.begin(), heap.end(), later);
    }
}

void BpeModel::encode(std::string_view word, Workspace& workspace, std::vector<std::int32_t>& out) const {
    if (m_options.ignoreMerges) {
        if (const std::int32_t whole = idOf(word); whole >= 0) return out.push_back(whole);
    }
    splitIntoSymbols(word, workspace);
    mergeSymbols(workspace);
    for (std::int32_t at = workspace.symbols.empty() ? -1 : 0; at >= 0;
         at = workspace.symbols[static_cast<std::size_t>(at)].next) {
        out.push_back(workspace.symbols[static_cast<std::size_t>(at)].id);
    }
}

}  // namespace resect
