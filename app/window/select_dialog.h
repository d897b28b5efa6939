#pragma once
#include "app/window/session.h"

#include <QDialog>

class QComboBox;
class QDoubleSpinBox;
class QLabel;
class QLineEdit;

namespace resect::ui {

enum class ScoreRule { LowestCount, LowestShare, BelowValue };

/// The least important parts of a kind by measured scores: `amount` of them, until they make up `amount` percent of the model's parameters,
/// or all beyond the value. Ties go to the lower position. Parts without a score are never chosen.
RefSet leastImportant(const protocol::ModelMessage& model, const PartScores& scores, ScoreRule rule, double amount);

/// Select > Lowest N, Lowest until -X %, Below value: shows live what would be selected.
class SelectByScoreDialog final : public QDialog {
    Q_OBJECT
public:
    SelectByScoreDialog(Document& document, Session& session, ScoreRule rule, QWidget* parent = nullptr);
    RefSet chosen() const;

private:
    void refresh();
    Document& m_document;
    Session& m_session;
    QComboBox *m_kind, *m_rule;
    QDoubleSpinBox* m_amount;
    QLabel* m_words;
};

/// Select > By expression: the filter language of the structure tree.
class SelectByExpressionDialog final : public QDialog {
    Q_OBJECT
public:
    SelectByExpressionDialog(Document& document, Session& session, QWidget* parent = nullptr);
    RefSet chosen() const { return m_chosen; }

private:
    void refresh(const QString& text);
    Document& m_document;
    Session& m_session;
    QComboBox* m_kind;
    QLineEdit* m_line;
    QLabel* m_words;
    RefSet m_chosen;
};

}  // namespace resect::ui
