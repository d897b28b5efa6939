#pragma once
#include "app/window/session.h"

#include <QDialog>

class QButtonGroup;
class QCheckBox;
class QComboBox;
class QDoubleSpinBox;
class QLabel;
class QLineEdit;
class QProgressBar;
class QPushButton;
class QRadioButton;
class QStackedWidget;
class QVBoxLayout;

namespace resect::ui {

/// Export in three steps (target, shape, write), then progress and the report: verified or not, what opens it, and the commands that load it.
class ExportDialog final : public QDialog {
    Q_OBJECT
public:
    enum Step { Target, Shape, Write, Progress, Report };

    ExportDialog(Document& document, WorkerClient& client, Session& session, RunList& runs, QWidget* parent = nullptr);
    ~ExportDialog() override;

    QLineEdit& folderLine() const { return *m_folder; }
    QComboBox& sourceBox() const { return *m_source; }   ///< the plan first, then the runs that kept a checkpoint
    Step step() const;
    bool verified() const noexcept { return m_verified; } ///< the last export was compared with the candidate
    void goTo(int step);
    void startWriting();
    QRadioButton& ggufTarget() const { return *m_toGguf; }

private:
    QWidget* makeTargetStep();
    QWidget* makeShapeStep();
    QWidget* makeWriteStep();
    QWidget* makeProgressStep();
    QWidget* makeReportStep();
    void refreshSpace();
    void showReport(const protocol::ExportMessage& report);
    void showFailure(const QString& text, bool stopped);
    void writePlanOnly();
    void reject() override;
    bool exportsPlanOnly() const;
    bool exportsGguf() const;
    void refreshNumberFormats();
    void setEnding();
    QString chosenWay() const;
    std::int64_t bytesOf(const QString& way) const;   ///< estimated, in the chosen dtype; 0 = unknown

    Document& m_document;
    WorkerClient& m_client;
    Session& m_session;
    RunList& m_runs;
    QStackedWidget* m_steps;
    QLabel *m_title, *m_space, *m_problem, *m_progressWords, *m_licence;
    QComboBox *m_source, *m_dtype;
    QRadioButton *m_toFolder, *m_toGguf, *m_toPlan;
    QButtonGroup* m_ways;
    std::vector<std::pair<QLabel*, std::string>> m_runtimeLabels;
    QLineEdit* m_folder;
    QDoubleSpinBox* m_shardGigabytes;
    QProgressBar* m_bar;
    QVBoxLayout* m_reportLayout;
    QPushButton *m_back, *m_next, *m_cancel;
    qint64 m_job = 0;
    bool m_verified = false;
};

/// Bytes of the candidate written with every kept block padded to the largest kept sizes, at `bytesPerWeight`; an estimate from shapes.
std::int64_t paddedBytes(const protocol::ModelMessage& source, const protocol::PlanCheckMessage& check, double bytesPerWeight);

}  // namespace resect::ui
