#pragma once
#include "app/pages/page.h"
#include "widgets/plots/token_strip.h"

#include <array>

class QCheckBox;
class QDoubleSpinBox;
class QLabel;
class QLineEdit;
class QPlainTextEdit;
class QPushButton;
class QSpinBox;

namespace resect::ui {

/// The same prompt continued by the uncut model, by what the plan would leave, and by a recovered checkpoint, side by side.
class TextPage final : public Page {
    Q_OBJECT
public:
    enum Column { Original, Candidate, Recovered, ColumnCount };

    TextPage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent = nullptr);
    QString title() const override { return tr("Text"); }
    QString id() const override { return QStringLiteral("text"); }
    void rerun() override { generate(); }
    bool busy() const override { return m_job != 0; }
    TokenStrip& strip(Column column) const noexcept { return *m_columns[column].strip; }
    /// The arguments of one column's request.
    Json arguments(Column column) const;

public Q_SLOTS:
    void generate();
    void stop();

private:
    struct ColumnViews {
        QWidget* box = nullptr;
        QLabel *heading = nullptr, *foot = nullptr;
        TokenStrip* strip = nullptr;
    };
    void build();
    void startNext();
    void finish(Column column, const Json& result);
    void fail(Column column, const QString& why);
    void addToken(Column column, const Json& token);
    void compare();
    void updateState();
    void chooseCheckpoint();
    std::array<ColumnViews, ColumnCount> m_columns;
    QPlainTextEdit* m_prompt = nullptr;
    QSpinBox *m_length = nullptr, *m_topK = nullptr, *m_seed = nullptr;
    QDoubleSpinBox *m_temperature = nullptr, *m_topP = nullptr;
    QPushButton *m_generate = nullptr, *m_stop = nullptr;
    QCheckBox* m_recovered = nullptr;
    QLineEdit* m_checkpoint = nullptr;
    QLabel* m_note = nullptr;
    std::vector<Column> m_waiting;
    qint64 m_job = 0;
};

}  // namespace resect::ui
