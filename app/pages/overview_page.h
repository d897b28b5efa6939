#pragma once
#include "app/pages/dataset_source.h"
#include "app/pages/dataset_view.h"
#include "app/pages/measure_starter.h"
#include "app/pages/page.h"

class QGridLayout;
class QLabel;
class QPushButton;
class QTreeWidget;
class QVBoxLayout;

namespace resect::ui {

/// The open model at a glance: what it is, how healthy, what can be cut, what to try, and everything that was measured.
class OverviewPage final : public Page {
    Q_OBJECT
public:
    OverviewPage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent = nullptr);
    QString title() const override { return tr("Overview"); }
    QString id() const override { return QStringLiteral("overview"); }
    void rerun() override { checkHealth(); }
    bool busy() const override { return m_pending > 0; }

private:
    QWidget* buildModel();
    QWidget* buildMeasures();
    void refreshModel();
    void refreshHealth();
    QString tensorSentence() const;
    void refreshMeasures();
    void showDataset();
    void checkHealth();
    void suggest(const std::string& method, const std::string& target, const QString& pageId);
    void takeSuggestion(const std::string& method, const std::string& target, const std::string& file);

    DatasetSource m_source;
    MeasureStarter m_redundancy, m_importance;
    QGridLayout* m_cards = nullptr;
    QVBoxLayout *m_health = nullptr, *m_cuts = nullptr;
    QPushButton* m_checkAll = nullptr;
    QLabel *m_empty = nullptr, *m_healthNote = nullptr, *m_suggestNote = nullptr;
    QWidget *m_content = nullptr, *m_wishes = nullptr;
    QTreeWidget* m_measures = nullptr;
    DatasetView* m_view = nullptr;
    std::vector<protocol::ProblemMessage> m_problems;
    QString m_waitingFor;    ///< page that a running suggestion will open
    qint64 m_healthJob = 0;
    int m_pending = 0;
    int m_generation = 0;
};

}  // namespace resect::ui
