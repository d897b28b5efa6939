#pragma once
#include "app/window/session.h"

#include <QAction>
#include <QDialog>
#include <QList>

class QComboBox;
class QKeySequenceEdit;
class QLineEdit;
class QSpinBox;
class QTableWidget;

namespace resect::ui {

class ParameterForm;

/// Chooses the text or the images that measuring and preview run on.
class DataDialog final : public QDialog {
    Q_OBJECT
public:
    explicit DataDialog(Document& document, QWidget* parent = nullptr);
    protocol::DataMessage data() const;

private:
    protocol::DataMessage m_before;   ///< what this dialog does not ask for stays
    QLineEdit* m_file;
    QSpinBox *m_rowLength, *m_maxRows;
    QComboBox* m_layout;
};

/// Settings of one measurement, or of one plan suggestion from a measurement, from the method's declared parameters.
class MethodDialog final : public QDialog {
    Q_OBJECT
public:
    enum class Use { Measure, Plan };
    MethodDialog(const protocol::MethodMessage& method, Use use, Document& document, const Json& last, QWidget* parent = nullptr);
    Json values() const;
    QString measureFile() const;   ///< for Plan: the measurement to start from

private:
    ParameterForm* m_form;
    QComboBox* m_measure = nullptr;
};

/// Theme, colour map, device, number format, threads, preview, shortcuts.
class SettingsDialog final : public QDialog {
    Q_OBJECT
public:
    SettingsDialog(Document& document, WorkerClient& client, Session& session, const QList<QAction*>& actions, QWidget* parent = nullptr);

private:
    void apply();
    QWidget* makeGeneral();
    QWidget* makeKeyboard();

    Document& m_document;
    WorkerClient& m_client;
    Session& m_session;
    QList<QAction*> m_actions;
    QComboBox *m_theme, *m_colourMap, *m_device, *m_dtype;
    QSpinBox* m_threads;
    class QCheckBox* m_autoPreview;
    std::vector<std::pair<QAction*, QKeySequenceEdit*>> m_keys;
};

}  // namespace resect::ui
