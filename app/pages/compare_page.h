#pragma once
#include "app/pages/diff_tree.h"
#include "app/pages/page.h"

class QCheckBox;
class QComboBox;
class QFrame;
class QLabel;
class QProgressBar;
class QPushButton;
class QTableWidget;
class QTreeView;

namespace resect::ui {

/// The open checkpoint beside another one: what a cut, a recovery or somebody else's training made of it.
class ComparePage final : public Page {
    Q_OBJECT
public:
    ComparePage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent = nullptr);
    QString title() const override { return tr("Compare"); }
    QString id() const override { return QStringLiteral("compare"); }
    void rerun() override;
    bool busy() const override { return m_job != 0; }
    /// The other checkpoint, or a run folder: its result is taken.
    void compareWith(const QString& folder);
    DiffTreeModel& tree() const noexcept { return *m_model; }
    QLabel& summary() const noexcept { return *m_summary; }
    QCheckBox& showAll() const noexcept { return *m_all; }
    void copyText() const;

protected:
    void dragEnterEvent(QDragEnterEvent* event) override;
    void dropEvent(QDropEvent* event) override;
    void resizeEvent(QResizeEvent* event) override;

private:
    void build();
    void choose();
    void show(const Json& result);
    void fail(const QString& why);
    void remember(const QString& folder);
    void refill();
    void clearResult();
    void updateState();
    void expandChanged();
    void fitColumns();
    QComboBox* m_other = nullptr;
    QPushButton *m_compare = nullptr, *m_copy = nullptr;
    QCheckBox* m_all = nullptr;
    QProgressBar* m_progress = nullptr;
    QLabel *m_summary = nullptr, *m_hintText = nullptr;
    QFrame* m_hint = nullptr;
    QTreeView* m_view = nullptr;
    QTableWidget* m_config = nullptr;
    QWidget* m_result = nullptr;
    DiffTreeModel* m_model = nullptr;
    QString m_error;
    qint64 m_job = 0;
};

}  // namespace resect::ui
