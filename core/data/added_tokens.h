#pragma once
#include "core/data/unicode.h"

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

/// A token that is found in the text before the model sees it.
struct AddedToken {
    std::int64_t id = -1;
    std::string content;
    bool singleWord = false;  ///< only where no word character touches it
    bool stripLeft = false;   ///< takes the white space before it along
    bool stripRight = false;
    bool normalized = false;  ///< looked for in the normalised text
    bool special = false;
};

/// Finds added tokens in a text: from left to right, the longest of those that begin at the same place.
class AddedTokenMatcher {
public:
    /// `content` is what is looked for, so that a normalised token is added with its normalised content. Empty content is left
    /// out.
    void add(std::string_view content, const AddedToken& token);
    bool empty() const noexcept { return m_tokens.empty(); }

    struct Segment {
        ByteRange range;
        std::int64_t id = -1;  ///< of the added token, -1 for ordinary text
    };
    /// Covers the text without gaps and without empty segments. `text` must be well-formed UTF-8.
    std::vector<Segment> split(std::string_view text) const;

private:
    struct Node {
        std::map<unsigned char, std::size_t> children;
        int token = -1;
    };
    std::vector<Node> m_nodes{Node{}};
    std::vector<AddedToken> m_tokens;
    std::array<bool, 256> m_begins{};
};

}  // namespace resect
