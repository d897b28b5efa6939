#pragma once
#include "core/data/dataset.h"

#include <cstdint>
#include <random>
#include <vector>

namespace resect::test {

/// Rows of random tokens with next-token targets.
inline Dataset randomRows(const std::vector<int>& lengths, int vocabSize, std::uint64_t seed = 1) {
    std::mt19937_64 random(seed);
    Dataset data;
    for (const int length : lengths) {
        TokenRow row;
        for (int t = 0; t < length; ++t) row.ids.push_back(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(vocabSize)));
        row.targets.assign(row.ids.begin() + 1, row.ids.end());
        row.targets.push_back(kIgnoredTarget);
        data.tokens += length;
        data.rows.push_back(std::move(row));
    }
    data.fingerprint = "sha256:rows" + std::to_string(seed);
    data.description = "random rows";
    return data;
}

/// Stops by itself after a number of progress reports.
class StopAfter {
public:
    explicit StopAfter(int reports) : m_left(reports) {}
    JobContext job() {
        return JobContext(m_source.get_token(), [this](const Progress&) {
            if (--m_left == 0) m_source.request_stop();
        });
    }

private:
    int m_left;
    std::stop_source m_source;
};

}  // namespace resect::test
