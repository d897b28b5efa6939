#include "core/data/row_builder.h"

#include <algorithm>

namespace resect {

RowBuilder::RowBuilder(const DataOptions& options, std::optional<std::int64_t> bos) : m_options(options), m_bos(bos) {}

bool RowBuilder::full() const noexcept {
    return m_options.maxRows > 0 && static_cast<std::int64_t>(m_rows.size()) >= m_options.maxRows;
}

void RowBuilder::addRow(const Tokens& tokens, std::vector<std::int64_t> documents) {
    if (full()) return;
    TokenRow row;
    row.ids = tokens.ids;
    row.targets.assign(tokens.ids.size(), kIgnoredTarget);
    for (std::size_t t = 0; t + 1 < tokens.ids.size(); ++t) {
        const bool sameDocument = documents.empty() || documents[t] == documents[t + 1];
        if (tokens.loss[t + 1] && sameDocument) row.targets[t] = tokens.ids[t + 1];
    }
    row.documents = std::move(documents);
    m_memory += sizeof(TokenRow) + (row.ids.size() + row.targets.size() + row.documents.size()) * sizeof(std::int64_t);
    m_rows.push_back(std::move(row));
}

void RowBuilder::cutChunks() {
    const auto length = static_cast<std::size_t>(m_options.rowLength);
    std::size_t from = 0;
    for (; from + length <= m_open.ids.size() && !full(); from += length) {
        const auto begin = static_cast<std::ptrdiff_t>(from), end = static_cast<std::ptrdiff_t>(from + length);
        Tokens row{{m_open.ids.begin() + begin, m_open.ids.begin() + end},
                   {m_open.loss.begin() + begin, m_open.loss.begin() + end}};
        if (m_bos) row.ids.front() = *m_bos;
        addRow(row, {});
    }
    m_open.ids.erase(m_open.ids.begin(), m_open.ids.begin() + static_cast<std::ptrdiff_t>(from));
    m_open.loss.erase(m_open.loss.begin(), m_open.loss.begin() + static_cast<std::ptrdiff_t>(from));
}

void RowBuilder::flushPacked() {
    if (m_open.ids.size() >= 2) addRow(m_open, m_openDocuments);
    m_open = {};
    m_openDocuments.clear();
}

void RowBuilder::place(const Example& example, std::size_t begin, std::size_t end) {
    if (m_options.layout == RowLayout::Packed &&
        m_open.ids.size() + end - begin > static_cast<std::size_t>(m_options.rowLength))
        flushPacked();
    const std::int64_t document = m_openDocuments.empty() ? 0 : m_openDocuments.back() + 1;
    for (std::size_t i = begin; i < end; ++i) {
        m_open.ids.push_back(example.ids[i]);
        m_open.loss.push_back(example.loss[i]);
        m_openDocuments.push_back(document);
    }
    if (m_options.layout == RowLayout::Padded) {
        addRow(m_open, {});
        m_open = {};
        m_openDocuments.clear();
    }
}

std::optional<std::string> RowBuilder::add(const Example& example) {
    const auto length = static_cast<std::size_t>(m_options.rowLength);
    m_tokensSeen += static_cast<std::int64_t>(example.ids.size());
    if (m_options.layout == RowLayout::Chunks) {
        m_open.ids.insert(m_open.ids.end(), example.ids.begin(), example.ids.end());
        m_open.loss.insert(m_open.loss.end(), example.loss.begin(), example.loss.end());
        if (m_open.ids.size() >= 64 * length) cutChunks();
        return std::nullopt;
    }
    // A row of one token predicts nothing, so that the last token of a long text may be lost with it.
    const auto predicts = [&](std::size_t begin, std::size_t end) {
        return end - begin >= 2 && std::find(example.loss.begin() + static_cast<std::ptrdiff_t>(begin) + 1,
                                             example.loss.begin() + static_cast<std::ptrdiff_t>(end),
                                             true) != example.loss.begin() + static_cast<std::ptrdiff_t>(end);
    };
    const std::size_t first = std::min(length, example.ids.size());
    if (!predicts(0, first)) {
        return example.ids.size() > length ? "has its answer behind token " + std::to_string(length) + ", where the row ends"
                                           : "has nothing to predict";
    }
    if (example.ids.size() > length && example.instruction) ++m_cutExamples;
    const std::size_t end = example.instruction ? first : example.ids.size();
    for (std::size_t begin = 0; begin < end; begin += length) {
        const std::size_t stop = std::min(begin + length, end);
        if (predicts(begin, stop)) place(example, begin, stop);
    }
    return std::nullopt;
}

std::vector<TokenRow> RowBuilder::finish() {
    if (m_options.layout == RowLayout::Chunks) cutChunks();
    if (m_options.layout == RowLayout::Packed) flushPacked();
    return std::move(m_rows);
}

}  // namespace resect
