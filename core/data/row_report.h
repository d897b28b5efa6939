#pragma once
#include "core/base/problem.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace resect {

/// So many rows of a file were of one kind.
struct FormatCount {
    std::string format;  ///< "Alpaca rows"
    std::int64_t rows = 0;
};

/// Counts what was found in a data file, row by row: kinds of rows, and rejected ones with their reasons.
class RowReport {
public:
    void taken(const std::string& format);
    /// `where` is "line 17" or "row 17".
    void rejected(const std::string& where, const std::string& reason);

    std::int64_t rejectedRows() const noexcept { return m_rejected; }
    std::vector<FormatCount> formats() const { return m_formats; }
    /// The first five rows of each reason by number, in the order of the file, then for each reason the count of the others.
    std::vector<Problem> problems(const std::string& file) const;
    /// "Alpaca rows: 1,000, texts: 2, rejected: 3"; empty when there were no rows.
    std::string summary() const;

private:
    std::vector<FormatCount> m_formats;
    std::map<std::string, std::int64_t> m_reasons;
    std::vector<std::string> m_reasonOrder;
    std::vector<Problem> m_problems;
    std::int64_t m_rejected = 0;
};

}  // namespace resect
