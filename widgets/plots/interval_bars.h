#pragma once
#include <QString>
#include <QWidget>

#include <limits>
#include <vector>

namespace resect::ui {

struct IntervalRow {
    QString label;
    double value = std::numeric_limits<double>::quiet_NaN();
    double low = std::numeric_limits<double>::quiet_NaN(), high = std::numeric_limits<double>::quiet_NaN();  ///< NaN = no interval
    int colour = 4;
};

/// A few values with their intervals over one scale: uncut, candidate, recovered. Small, for docks and cards.
class IntervalBars final : public QWidget {
    Q_OBJECT
public:
    explicit IntervalBars(QWidget* parent = nullptr);
    void setRows(std::vector<IntervalRow> rows, const QString& unit = QString());
    const std::vector<IntervalRow>& rows() const noexcept { return m_rows; }
    QSize sizeHint() const override;
    QSize minimumSizeHint() const override;

protected:
    void paintEvent(QPaintEvent* event) override;

private:
    std::vector<IntervalRow> m_rows;
    QString m_unit;
};

}  // namespace resect::ui
