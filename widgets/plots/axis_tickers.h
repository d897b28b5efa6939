#pragma once
#include "widgets/plots/qcp.h"

#include <cstdint>
#include <vector>

namespace resect::ui {

/// Ticks at whole positions 0, 1, 2, ..., thinned to whole multiples when they come too close; the label is the id there.
class IdTicker final : public QCPAxisTickerFixed {
public:
    explicit IdTicker(std::vector<std::int64_t> ids = {}, int count = 0) : m_ids(std::move(ids)), m_count(count) {
        setTickStep(1);
        setScaleStrategy(ssMultiples);
    }

protected:
    int getSubTickCount(double) override { return 0; }
    QString getTickLabel(double tick, const QLocale&, QChar, int) override {
        const auto position = std::int64_t(tick < 0 ? tick - 0.5 : tick + 0.5);
        if (position < 0 || (m_count > 0 && position >= m_count)) return {};
        return QString::number(position < std::int64_t(m_ids.size()) ? m_ids[std::size_t(position)] : position);
    }

private:
    std::vector<std::int64_t> m_ids;
    int m_count;
};

}  // namespace resect::ui
