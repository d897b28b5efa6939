#pragma once
#include "app/window/session.h"

#include <QDialog>
#include <QTimer>

class QCheckBox;
class QComboBox;
class QDialogButtonBox;
class QLabel;
class QLineEdit;
class QPushButton;
class QSpinBox;

namespace resect::ui {

class ParameterForm;

/// Sets up a recovery run from a recipe's declared parameters, shows what it will need, writes the run folder and starts the run as a process of its own.
class RecoverDialog final : public QDialog {
    Q_OBJECT
public:
    RecoverDialog(Document& document, WorkerClient& client, Session& session, QWidget* parent = nullptr);
    ~RecoverDialog() override;

    ParameterForm& form() const { return *m_form; }
    QPushButton& startButton() const { return *m_start; }
    QLineEdit& dataLine() const { return *m_data; }
    QString problem() const;                            ///< what keeps the run from starting, as it is shown; empty = nothing
    QCheckBox& controlBox() const { return *m_control; }
    bool isTimed() const noexcept { return m_timed; }   ///< the estimate shown holds a measured time

Q_SIGNALS:
    void runStarted(const QString& folder);

private:
    void chooseRecipe(int index);
    void scheduleEstimate();
    void askEstimate();
    void askTime();
    void dropTime();
    void showEstimate(const protocol::EstimateMessage& estimate);
    void startRun();
    void remember();
    QString firstProblem() const;
    void showProblem(const QString& text);
    Json args() const;

    Document& m_document;
    WorkerClient& m_client;
    Session& m_session;
    QComboBox *m_recipe, *m_device, *m_dtype;
    QLabel *m_summary, *m_planWords, *m_estimate, *m_basis, *m_problem;
    QLineEdit *m_data, *m_evalData;
    QSpinBox* m_maxRows;
    QCheckBox* m_control;
    std::int64_t m_timeJob = 0;   ///< under way; 0 = none
    bool m_timed = false;
    ParameterForm* m_form;
    QPushButton* m_start;
    QTimer m_estimateTimer;
    bool m_busy = false;
};

}  // namespace resect::ui
