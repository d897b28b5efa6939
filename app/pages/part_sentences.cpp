#include "app/pages/part_sentences.h"

#include "widgets/plots/plot_table.h"
#include "widgets/plots/theme.h"

#include <QAccessible>
#include <QCoreApplication>

#include <cmath>

namespace resect::ui {
namespace {

QString tr(const char* text) { return QCoreApplication::translate("PartSentences", text); }

}  // namespace

QString capitalised(QString text) {
    if (!text.isEmpty()) text[0] = text[0].toUpper();
    return text;
}

QString percent(double share) {
    const double value = 100 * share;
    if (value > 0 && value < 0.01) return tr("under 0.01 %");
    return QString::number(value, 'f', value < 1 ? 2 : value < 10 ? 1 : 0) + tr(" %");
}

QString rankWords(int rank, int count) {
    if (rank <= 0 || count <= 0) return {};
    if (rank == 1) return tr("lowest of %1").arg(count);
    if (rank == count) return tr("highest of %1").arg(count);
    return tr("rank %1 of %2 from the lowest").arg(rank).arg(count);
}

QString planWords(const Document& document, const ComponentRef& part) {
    switch (document.dropState(part)) {
    case DropState::Dropped: return tr("; dropped by the plan");
    case DropState::Partly: return tr("; partly dropped by the plan");
    case DropState::Kept: break;
    }
    return {};
}

QString sentence(const Document& document, const protocol::DatasetMessage& info, const ComponentRef& part, const ScoreFacts& facts) {
    QString words = capitalised(text(part)) + QStringLiteral(": ");
    if (std::isfinite(facts.value)) {
        words += QStringLiteral("%1 %2").arg(QString::fromStdString(info.title), shortNumber(facts.value, 3));
        if (std::isfinite(facts.error)) words += QStringLiteral(" ± %1").arg(shortNumber(facts.error, 2));
        if (!info.unit.empty()) words += QStringLiteral(" [%1]").arg(QString::fromStdString(info.unit));
        const QString rank = rankWords(facts.rank, facts.count);
        if (!rank.isEmpty()) words += QStringLiteral(" (%1)").arg(rank);
        if (info.samples > 0) words += tr(", %1 samples").arg(info.samples);
    } else {
        words += tr("no value");
    }
    if (const auto* model = document.model(); model && model->parameters > 0)
        words += tr("; %1 of the parameters").arg(percent(parametersOf(*model, part) / double(model->parameters)));
    return words + planWords(document, part);
}

HoverCard::HoverCard(QWidget* parent) : QLabel(parent) {
    setTextFormat(Qt::RichText);
    setWordWrap(true);
    setAlignment(Qt::AlignLeft | Qt::AlignTop);
    setFixedHeight(fontMetrics().lineSpacing() * 3 + 6);
    setContentsMargins(6, 2, 6, 2);
    setTextInteractionFlags(Qt::TextSelectableByMouse);
    setFocusPolicy(Qt::NoFocus);
    setAccessibleName(tr("What is under the cursor"));
    connect(&ThemeNotifier::instance(), &ThemeNotifier::changed, this, [this] { say(m_sentence, m_help); });
}

void HoverCard::say(const QString& sentence, const QString& help) {
    if (&sentence != &m_sentence) {
        m_sentence = sentence;
        m_help = help;
    }
    const QString rich = sentence.toHtmlEscaped() +
                         (help.isEmpty() ? QString() : QStringLiteral("<br><span style='color:%1'>%2</span>").arg(currentTheme().mutedText.name(), help.toHtmlEscaped()));
    if (rich == text()) return;
    setText(rich);
    QAccessibleEvent event(this, QAccessible::NameChanged);
    setAccessibleDescription(sentence);
    QAccessible::updateAccessibility(&event);
}

}  // namespace resect::ui
