#include "core/data/added_tokens.h"

#include <algorithm>

namespace resect {
namespace {

bool endsWithWord(std::string_view text) {
    std::size_t at = text.size();
    while (at > 0 && (static_cast<unsigned char>(text[at - 1]) & 0xC0) == 0x80) --at;
    if (at == 0) return false;
    --at;
    return isWordCharacter(nextCodePoint(text, at));
}

bool startsWithWord(std::string_view text) {
    std::size_t at = 0;
    return !text.empty() && isWordCharacter(nextCodePoint(text, at));
}

std::size_t withoutSpaceBefore(std::string_view text, std::size_t end) {
    while (end > 0) {
        std::size_t at = end - 1;
        while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
        std::size_t pos = at;
        if (!isWhiteSpace(nextCodePoint(text, pos))) break;
        end = at;
    }
    return end;
}

std::size_t withoutSpaceAfter(std::string_view text, std::size_t begin) {
    while (begin < text.size()) {
        std::size_t pos = begin;
        if (!isWhiteSpace(nextCodePoint(text, pos))) break;
        begin = pos;
    }
    return begin;
}

}  // namespace

void AddedTokenMatcher::add(std::string_view content, const AddedToken& token) {
    if (content.empty()) return;
    std::size_t node = 0;
    for (const char c : content) {
        const auto [child, isNew] = m_nodes[node].children.try_emplace(static_cast<unsigned char>(c), m_nodes.size());
        node = child->second;
        if (isNew) m_nodes.emplace_back();
    }
    m_nodes[node].token = static_cast<int>(m_tokens.size());
    m_tokens.push_back(token);
    m_begins[static_cast<unsigned char>(content.front())] = true;
}

std::vector<AddedTokenMatcher::Segment> AddedTokenMatcher::split(std::string_view text) const {
    std::vector<Segment> segments;
    std::size_t covered = 0;
    const auto cover = [&](std::size_t begin, std::size_t end, std::int64_t id) {
        if (covered < begin) segments.push_back({{covered, begin}, -1});
        if (begin < end) segments.push_back({{begin, end}, id});
        covered = end;
    };
    std::size_t at = 0;
    while (!m_tokens.empty() && at < text.size()) {
        if (!m_begins[static_cast<unsigned char>(text[at])]) {
            ++at;
            continue;
        }
        int longest = -1;
        std::size_t end = at;
        for (std::size_t node = 0, pos = at; pos < text.size(); ++pos) {
            const auto child = m_nodes[node].children.find(static_cast<unsigned char>(text[pos]));
            if (child == m_nodes[node].children.end()) break;
            node = child->second;
            if (m_nodes[node].token >= 0) {
                longest = m_nodes[node].token;
                end = pos + 1;
            }
        }
        if (longest < 0) {
            ++at;
            continue;
        }
        const AddedToken& token = m_tokens[static_cast<std::size_t>(longest)];
        if (!token.singleWord || (!endsWithWord(text.substr(0, at)) && !startsWithWord(text.substr(end)))) {
            const std::size_t begin = token.stripLeft ? std::max(withoutSpaceBefore(text, at), covered) : at;
            cover(std::max(begin, covered), token.stripRight ? withoutSpaceAfter(text, end) : end, token.id);
        }
        at = std::max(end, covered);
    }
    cover(text.size(), text.size(), -1);
    return segments;
}

}  // namespace resect
