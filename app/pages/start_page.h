#pragma once
#include <QWidget>

class QFrame;
class QLabel;
class QTableWidget;

namespace resect::ui {

/// What the window shows while nothing is open: a place to drop a model, Open, the demo, and what was open lately with sizes and dates.
class StartPage final : public QWidget {
    Q_OBJECT
public:
    explicit StartPage(QWidget* parent = nullptr);

    void refreshRecent();
    void setOpening(const QString& path);                              ///< "" = nothing is being opened
    void showProblem(const QString& path, const QString& reason);      ///< a card with the reason; empty reason hides it

Q_SIGNALS:
    void openRequested(const QString& path);
    void chooseRequested();
    void chooseWorkspaceRequested();
    void demoRequested();

protected:
    void dragEnterEvent(QDragEnterEvent* event) override;
    void dragLeaveEvent(QDragLeaveEvent* event) override;
    void dropEvent(QDropEvent* event) override;

private:
    void restyle();
    QFrame *m_dropArea, *m_problem;
    QLabel *m_logo, *m_problemText, *m_opening, *m_recentTitle;
    QTableWidget* m_recent;
    QWidget* m_buttons;
};

}  // namespace resect::ui
