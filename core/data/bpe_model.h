#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace resect {

struct BpeOptions {
    std::string unknownToken;             ///< empty = characters without a token are dropped
    std::string continuingSubwordPrefix;  ///< put before every character of a word but the first
    std::string endOfWordSuffix;          ///< put behind the last character of a word ("</w>" in CLIP)
    bool fuseUnknown = false;             ///< neighbouring unknown characters become one unknown token
    bool byteFallback = false;  ///< a character without a token becomes its bytes "<0xE4>..." when all of them have one
    bool ignoreMerges = false;  ///< a whole word that is a token is taken without merging (Llama 3)
};

/// Byte-pair encoding over the characters of a word (Sennrich et al. 2016): the pair of lowest rank is merged first, the
/// leftmost of equals. Time is n log n in the length of the word. Immutable; encode() is thread-safe with a workspace per
/// thread.
class BpeModel {
public:
    using Vocabulary = std::vector<std::pair<std::string, std::int64_t>>;
    using Merges = std::vector<std::pair<std::string, std::string>>;

    /// `merges` in order of rank. Throws BadInput with `subject`: an id that is negative, over 2^26 or given twice, a token
    /// given twice, a merge that names a token (left, right or result) the vocabulary does not hold, an unknown token that it
    /// does not hold.
    BpeModel(Vocabulary vocabulary, const Merges& merges, BpeOptions options, const std::string& subject);

    /// Scratch memory of encode(), kept between calls.
    class Workspace {
        friend class BpeModel;
        struct Symbol {
            std::int32_t id, previous, next;
        };
        struct Candidate {
            std::uint32_t rank, position;
            std::int32_t left, right;
        };
        std::vector<Symbol> symbols;
        std::vector<Candidate> heap;
    };

    /// Appends the tokens of one word (well-formed UTF-8, as the pre-tokenizer left it).
    void encode(std::string_view word, Workspace& workspace, std::vector<std::int32_t>& out) const;

    std::int64_t vocabSize() const noexcept { return static_cast<std::int64_t>(m_tokens.size()); }  ///< largest id + 1
    /// Negative when there is none.
    std::int32_t idOf(std::string_view token) const noexcept;
    /// Null when no token has this id.
    const std::string* token(std::int64_t id) const noexcept;

private:
    struct MergeSlot {
        std::uint64_t pair = ~0ull;
        std::uint32_t rank = 0;
    };

    void addMerges(const Merges& merges, const std::string& subject);
    void insertMerge(std::uint64_t pair, std::uint32_t rank);
    const MergeSlot* findMerge(std::int32_t left, std::int32_t right) const noexcept;
    std::int32_t characterId(std::string_view character) const noexcept;
    void splitIntoSymbols(std::string_view word, Workspace& workspace) const;
    void mergeSymbols(Workspace& workspace) const;

    BpeOptions m_options;
    std::vector<std::string> m_tokens;  ///< by id; empty = a hole
    std::unordered_map<std::string_view, std::int32_t> m_ids;
    std::vector<std::int32_t> m_shortCharacters;  ///< token of code points below 0x800, -1 where there is none
    std::vector<std::int32_t> m_byteIds;          ///< token of each fallback byte
    std::vector<MergeSlot> m_merges;              ///< open addressing, a power of two
    std::vector<std::int32_t> m_mergeResults;     ///< by rank
    std::int32_t m_unknownId = -1;
};

}  // namespace resect
