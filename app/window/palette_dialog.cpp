#include "app/window/palette_dialog.h"

#include "widgets/views/style.h"

#include <QDialogButtonBox>
#include <QGridLayout>
#include <QKeyEvent>
#include <QLineEdit>
#include <QListWidget>
#include <QRegularExpression>
#include <QScrollArea>
#include <QTimer>
#include <QVBoxLayout>

namespace resect::ui {

std::optional<ComponentRef> parsePart(const QString& given) {
    const QString words = given.trimmed().toLower();
    static const QRegularExpression block(QStringLiteral("^(?:b|block|layer)\\s*(\\d+)\\s*(.*)$")), dotted(QStringLiteral("^(\\d+)\\.(\\d+)$")),
        part(QStringLiteral("^(h|head|g|group|key group|kv group|c|channel|e|expert)\\s*(\\d+)$"));
    if (const auto match = dotted.match(words); match.hasMatch()) return headRef(match.captured(1).toInt(), match.captured(2).toInt());
    const auto match = block.match(words);
    if (!match.hasMatch()) return std::nullopt;
    const int number = match.captured(1).toInt();
    const QString rest = match.captured(2).trimmed();
    if (rest.isEmpty()) return blockRef(number);
    if (QStringLiteral("attention").startsWith(rest)) return attentionRef(number);
    if (rest == QLatin1String("mlp") || rest == QLatin1String("ffn")) return mlpRef(number);
    const auto inner = part.match(rest);
    if (!inner.hasMatch()) return std::nullopt;
    const int index = inner.captured(2).toInt();
    switch (inner.captured(1).front().toLatin1()) {
    case 'h': return headRef(number, index);
    case 'c': return channelRef(number, index);
    case 'e': return expertRef(number, index);
    default: return kvGroupRef(number, index);
    }
}

PaletteDialog::PaletteDialog(const QList<QAction*>& actions, Document& document, QWidget* parent)
    : QDialog(parent, Qt::Popup | Qt::FramelessWindowHint), m_actions(actions), m_document(document), m_line(new QLineEdit(this)), m_list(new QListWidget(this)) {
    const int unit = fontMetrics().height();
    resize(unit * 32, unit * 22);
    auto* layout = new QVBoxLayout(this);
    layout->setContentsMargins(6, 6, 6, 6);
    m_line->setPlaceholderText(tr("Command, or a part: block 3 head 5"));
    m_line->setAccessibleName(tr("Search for commands and parts"));
    layout->addWidget(m_line);
    layout->addWidget(m_list);
    m_list->setUniformItemSizes(true);
    m_list->setIconSize({unit, unit});
    m_line->installEventFilter(this);
    connect(m_line, &QLineEdit::textChanged, this, &PaletteDialog::refresh);
    connect(m_line, &QLineEdit::returnPressed, this, &PaletteDialog::choose);
    connect(m_list, &QListWidget::itemActivated, this, &PaletteDialog::choose);
    connect(m_list, &QListWidget::itemClicked, this, &PaletteDialog::choose);
    refresh(QString());
    m_line->setFocus();
}

bool PaletteDialog::eventFilter(QObject* watched, QEvent* event) {
    if (watched == m_line && event->type() == QEvent::KeyPress) {
        const int key = static_cast<QKeyEvent*>(event)->key();
        const int step = key == Qt::Key_Down ? 1 : key == Qt::Key_Up ? -1 : key == Qt::Key_PageDown ? 10 : key == Qt::Key_PageUp ? -10 : 0;
        if (step != 0 && m_list->count() > 0) {
            m_list->setCurrentRow(std::clamp(m_list->currentRow() + step, 0, m_list->count() - 1));
            return true;
        }
    }
    return QDialog::eventFilter(watched, event);
}

void PaletteDialog::refresh(const QString& text) {
    m_list->clear();
    if (const auto ref = parsePart(text); ref && m_document.model() && exists(*m_document.model(), *ref)) {
        auto* item = new QListWidgetItem(icon(QStringLiteral("structure")), tr("Go to %1").arg(ui::text(*ref)), m_list);
        item->setData(Qt::UserRole + 1, QVariant::fromValue(*ref));
    }
    const QStringList words = text.split(QLatin1Char(' '), Qt::SkipEmptyParts);
    QPixmap nothing(16, 16);   // keeps the names of commands without a picture in line with the others
    nothing.fill(Qt::transparent);
    const QIcon blank(nothing);
    for (int i = 0; i < m_actions.size(); ++i) {
        const QAction* action = m_actions[i];
        const QString name = action->text().remove(QLatin1Char('&'));
        const QString haystack = name + QLatin1Char(' ') + action->data().toString();
        const bool matches = std::all_of(words.begin(), words.end(), [&](const QString& word) { return haystack.contains(word, Qt::CaseInsensitive); });
        if (!matches) continue;
        const QString keys = action->shortcut().toString(QKeySequence::NativeText);
        auto* item = new QListWidgetItem(action->icon().isNull() ? blank : action->icon(), keys.isEmpty() ? name : QStringLiteral("%1    %2").arg(name, keys), m_list);
        item->setData(Qt::UserRole, i);
        if (!action->isEnabled()) item->setFlags(item->flags() & ~Qt::ItemIsEnabled);
    }
    m_list->setCurrentRow(0);
}

void PaletteDialog::choose() {
    const QListWidgetItem* item = m_list->currentItem();
    if (!item || !(item->flags() & Qt::ItemIsEnabled)) return;
    const QVariant part = item->data(Qt::UserRole + 1);
    QAction* action = part.isValid() ? nullptr : m_actions.value(item->data(Qt::UserRole).toInt());
    accept();
    if (part.isValid()) Q_EMIT partChosen(part.value<ComponentRef>());
    // After the popup is gone, so that dialogs opened by the action have the window as their parent.
    if (action) QTimer::singleShot(0, action, &QAction::trigger);
}

CheatSheet::CheatSheet(const QList<std::pair<QString, QList<QAction*>>>& groups, QWidget* parent) : QDialog(parent) {
    setWindowTitle(tr("Keyboard and mouse"));
    const int unit = fontMetrics().height();
    resize(unit * 56, unit * 38);
    auto* outer = new QVBoxLayout(this);
    auto* scroll = new QScrollArea(this);
    auto* page = new QWidget(scroll);
    auto* columns = new QHBoxLayout(page);
    QVBoxLayout* column[2] = {new QVBoxLayout, new QVBoxLayout};
    int filled[2] = {0, 0};
    const auto addGroup = [&](const QString& title, const QList<std::pair<QString, QString>>& rows) {
        const int side = filled[0] <= filled[1] ? 0 : 1;
        filled[side] += static_cast<int>(rows.size()) + 2;
        column[side]->addWidget(makeLabel(title, "heading", page));
        auto* grid = new QGridLayout;
        grid->setContentsMargins(0, 0, 0, unit / 2);
        grid->setColumnMinimumWidth(0, unit * 9);
        for (int row = 0; row < rows.size(); ++row) {
            auto* keys = makeLabel(rows[row].first, nullptr, page);
            keys->setWordWrap(false);
            grid->addWidget(keys, row, 0, Qt::AlignTop);
            grid->addWidget(makeLabel(rows[row].second, "muted", page), row, 1, Qt::AlignTop);
        }
        grid->setColumnStretch(1, 1);
        column[side]->addLayout(grid);
    };
    for (const auto& [title, actions] : groups) {
        QList<std::pair<QString, QString>> rows;
        for (const QAction* action : actions) {
            QStringList keys;
            for (const auto& sequence : action->shortcuts()) keys << sequence.toString(QKeySequence::NativeText);
            if (!keys.isEmpty()) rows.append({keys.join(QStringLiteral(", ")), action->text().remove(QLatin1Char('&'))});
        }
        if (!rows.isEmpty()) addGroup(title, rows);
    }
    addGroup(tr("In every picture"), {{tr("Click"), tr("select one")}, {tr("Ctrl+click"), tr("add or take out")}, {tr("Shift+click"), tr("range from the last one")},
                                      {tr("Drag"), tr("rectangle; Ctrl adds, Alt takes out")}, {tr("Double click"), tr("open the part")}, {tr("Wheel, Shift+wheel"), tr("zoom, move")},
                                      {tr("Arrows, Space"), tr("move, select")}});
    addGroup(tr("In curves"), {{QStringLiteral("R"), tr("raw values")}, {QStringLiteral("L"), tr("logarithmic")}, {QStringLiteral("F"), tr("follow the end")}});
    for (auto* side : column) {
        side->addStretch();
        columns->addLayout(side, 1);
    }
    scroll->setWidget(page);
    scroll->setWidgetResizable(true);
    scroll->setFrameShape(QFrame::NoFrame);
    outer->addWidget(scroll);
    auto* buttons = new QDialogButtonBox(QDialogButtonBox::Close, this);
    connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
    outer->addWidget(buttons);
}

}  // namespace resect::ui
