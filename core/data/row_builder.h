#pragma once
#include "core/data/dataset.h"
#include "core/data/example.h"

#include <optional>

namespace resect {

/// Lays examples out as rows.
class RowBuilder {
public:
    /// `bos` is put at the front of every row of RowLayout::Chunks; nullopt for tokenizers that add none.
    RowBuilder(const DataOptions& options, std::optional<std::int64_t> bos);
    /// Returns the reason when nothing of the example can be used. `example` is tokenised.
    std::optional<std::string> add(const Example& example);
    /// True when maxRows is reached and more examples would change nothing.
    bool full() const noexcept;
    std::vector<TokenRow> finish();

    std::int64_t cutExamples() const noexcept { return m_cutExamples; }
    std::int64_t tokensSeen() const noexcept { return m_tokensSeen; }
    std::uint64_t memory() const noexcept { return m_memory; }  ///< bytes that the rows take so far

private:
    struct Tokens {
        std::vector<std::int64_t> ids;
        std::vector<bool> loss;
    };
    void addRow(const Tokens& tokens, std::vector<std::int64_t> documents);
    void cutChunks();
    void place(const Example& example, std::size_t begin, std::size_t end);
    void flushPacked();

    DataOptions m_options;
    std::optional<std::int64_t> m_bos;
    std::vector<TokenRow> m_rows;
    Tokens m_open;  ///< not yet a row
    std::vector<std::int64_t> m_openDocuments;
    std::int64_t m_cutExamples = 0, m_tokensSeen = 0;
    std::uint64_t m_memory = 0;
};

}  // namespace resect
