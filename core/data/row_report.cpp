#include "core/data/row_report.h"

#include "core/base/numbers.h"

#include <algorithm>

namespace resect {
namespace {

constexpr std::int64_t kShown = 5;        // of each reason
constexpr std::size_t kMaxReasons = 200;  // reasons may quote the row
const std::string kOtherReasons = "other reasons";

}  // namespace

void RowReport::taken(const std::string& format) {
    const auto known =
        std::find_if(m_formats.begin(), m_formats.end(), [&](const FormatCount& count) { return count.format == format; });
    if (known != m_formats.end())
        ++known->rows;
    else
        m_formats.push_back({format, 1});
}

void RowReport::rejected(const std::string& where, const std::string& reason) {
    ++m_rejected;
    const bool known = m_reasons.contains(reason) || m_reasons.size() < kMaxReasons;
    const std::string& counted = known ? reason : kOtherReasons;
    const auto [entry, isNew] = m_reasons.try_emplace(counted, 0);
    if (isNew) m_reasonOrder.push_back(counted);
    if (++entry->second <= kShown) m_problems.push_back({Severity::Warning, where, reason, ""});
}

std::vector<Problem> RowReport::problems(const std::string& file) const {
    std::vector<Problem> all = m_problems;
    for (const std::string& reason : m_reasonOrder) {
        const std::int64_t more = m_reasons.at(reason) - kShown;
        if (more > 0)
            all.push_back({Severity::Warning, file,
                           formatThousands(more) + (more == 1 ? " further row: " : " further rows: ") + reason, ""});
    }
    return all;
}

std::string RowReport::summary() const {
    std::string out;
    for (const auto& [format, rows] : m_formats) out += (out.empty() ? "" : ", ") + format + ": " + formatThousands(rows);
    if (m_rejected > 0) out += (out.empty() ? "" : ", ") + ("rejected: " + formatThousands(m_rejected));
    return out;
}

}  // namespace resect
