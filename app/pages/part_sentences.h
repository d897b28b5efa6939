#pragma once
#include "widgets/models/document.h"

#include <QLabel>

namespace resect::ui {

/// What is known about a value on show.
struct ScoreFacts {
    double value = 0, error = 0;   ///< NaN = none
    int rank = 0, count = 0;       ///< rank 1 = lowest; 0 = none
};

/// "Block 19 attention: block influence 0.03 ± 0.004 (lowest but 1 of 32), 256 samples; 0.5 % of the parameters; dropped by the plan"
QString sentence(const Document& document, const protocol::DatasetMessage& info, const ComponentRef& part, const ScoreFacts& facts);
/// "2nd lowest of 32", "lowest of 32", "highest of 32".
QString rankWords(int rank, int count);
/// "0.53 %", "12 %", "under 0.01 %"
QString percent(double share);
QString capitalised(QString text);
/// The plan's effect on a part, "" when there is none.
QString planWords(const Document& document, const ComponentRef& part);

/// Two lines under a canvas that say what the mouse or the keyboard cursor is on; keeps its height so that nothing jumps.
class HoverCard final : public QLabel {
    Q_OBJECT
public:
    explicit HoverCard(QWidget* parent = nullptr);
    /// `help` in a muted second line.
    void say(const QString& sentence, const QString& help = QString());

private:
    QString m_sentence, m_help;
};

}  // namespace resect::ui
