#pragma once
#include "widgets/models/document.h"

#include <QAction>
#include <QDialog>
#include <QList>

class QLineEdit;
class QListWidget;

namespace resect::ui {

/// Ctrl+K: finds commands by any words of their names, and parts of the model ("block 3 head 5", "b3 h5").
class PaletteDialog final : public QDialog {
    Q_OBJECT
public:
    PaletteDialog(const QList<QAction*>& actions, Document& document, QWidget* parent = nullptr);
    QLineEdit& line() const { return *m_line; }
    QListWidget& list() const { return *m_list; }

Q_SIGNALS:
    void partChosen(const resect::ui::ComponentRef& ref);

protected:
    bool eventFilter(QObject* watched, QEvent* event) override;

private:
    void refresh(const QString& text);
    void choose();

    QList<QAction*> m_actions;
    Document& m_document;
    QLineEdit* m_line;
    QListWidget* m_list;
};

/// "block 3 head 5", "b12", "3.5" (block.head), "block 2 channel 100"; nullopt when the words name no part.
std::optional<ComponentRef> parsePart(const QString& words);

/// F1: every shortcut of the given actions by menu, and the gestures of the canvases.
class CheatSheet final : public QDialog {
    Q_OBJECT
public:
    CheatSheet(const QList<std::pair<QString, QList<QAction*>>>& groups, QWidget* parent = nullptr);
};

}  // namespace resect::ui
