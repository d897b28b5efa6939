#include "app/window/select_dialog.h"

#include "widgets/models/structure_model.h"
#include "widgets/views/style.h"

#include <QComboBox>
#include <QDialogButtonBox>
#include <QDoubleSpinBox>
#include <QFormLayout>
#include <QLineEdit>

#include <algorithm>

namespace resect::ui {
namespace {

QString wordsFor(Document& document, const RefSet& refs) {
    SelectionModel scratch;
    scratch.setModel(document.sharedModel());
    scratch.select(refs);
    return scratch.words();
}

}  // namespace

RefSet leastImportant(const protocol::ModelMessage& model, const PartScores& scores, ScoreRule rule, double amount) {
    std::vector<std::pair<double, ComponentRef>> sorted;
    for (auto it = scores.values.begin(); it != scores.values.end(); ++it) sorted.emplace_back(scores.higherKeeps ? it.value() : -it.value(), it.key());
    std::sort(sorted.begin(), sorted.end());
    RefSet refs;
    double parameters = 0;
    const double limit = rule == ScoreRule::LowestShare ? amount / 100 * static_cast<double>(model.parameters) : 0;
    for (const auto& [importance, ref] : sorted) {
        if (rule == ScoreRule::LowestCount && static_cast<double>(refs.size()) >= amount) break;
        if (rule == ScoreRule::BelowValue && importance >= (scores.higherKeeps ? amount : -amount)) break;
        parameters += parametersOf(model, ref);
        if (rule == ScoreRule::LowestShare && parameters > limit) break;
        refs.push_back(ref);
    }
    return normalised(std::move(refs));
}

SelectByScoreDialog::SelectByScoreDialog(Document& document, Session& session, ScoreRule rule, QWidget* parent) : QDialog(parent), m_document(document), m_session(session) {
    setWindowTitle(tr("Select by score"));
    setMinimumWidth(fontMetrics().height() * 28);
    auto* form = new QFormLayout(this);
    m_kind = new QComboBox(this);
    for (const auto& [kind, scores] : session.scores()) m_kind->addItem(QStringLiteral("%1: %2").arg(countWords(kind, 2).mid(2), scores.title), static_cast<int>(kind));
    form->addRow(tr("Parts and score"), m_kind);
    m_rule = new QComboBox(this);
    m_rule->addItem(tr("the least important, so many"));
    m_rule->addItem(tr("the least important, up to this share of parameters (%)"));
    m_rule->addItem(tr("all less important than this value"));
    m_rule->setCurrentIndex(static_cast<int>(rule));
    form->addRow(tr("Rule"), m_rule);
    m_amount = new QDoubleSpinBox(this);
    m_amount->setRange(-1e9, 1e9);
    m_amount->setDecimals(4);
    m_amount->setValue(rule == ScoreRule::BelowValue ? 0 : 2);
    form->addRow(tr("Amount"), m_amount);
    m_words = makeLabel(QString(), "muted", this);
    form->addRow(m_words);
    auto* buttons = new QDialogButtonBox(QDialogButtonBox::Ok | QDialogButtonBox::Cancel, this);
    buttons->button(QDialogButtonBox::Ok)->setText(tr("Select"));
    buttons->button(QDialogButtonBox::Ok)->setEnabled(!session.scores().empty());
    connect(buttons, &QDialogButtonBox::accepted, this, &QDialog::accept);
    connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
    form->addRow(buttons);
    connect(m_kind, &QComboBox::currentIndexChanged, this, &SelectByScoreDialog::refresh);
    connect(m_rule, &QComboBox::currentIndexChanged, this, &SelectByScoreDialog::refresh);
    connect(m_amount, &QDoubleSpinBox::valueChanged, this, &SelectByScoreDialog::refresh);
    refresh();
}

RefSet SelectByScoreDialog::chosen() const {
    const auto it = m_session.scores().find(static_cast<PartKind>(m_kind->currentData().toInt()));
    if (it == m_session.scores().end() || !m_document.model()) return {};
    return leastImportant(*m_document.model(), it->second, static_cast<ScoreRule>(m_rule->currentIndex()), m_amount->value());
}

void SelectByScoreDialog::refresh() { m_words->setText(m_session.scores().empty() ? tr("Nothing is measured yet; use the Analyse menu first.") : wordsFor(m_document, chosen())); }

SelectByExpressionDialog::SelectByExpressionDialog(Document& document, Session& session, QWidget* parent) : QDialog(parent), m_document(document), m_session(session) {
    setWindowTitle(tr("Select by expression"));
    setMinimumWidth(fontMetrics().height() * 28);
    auto* form = new QFormLayout(this);
    m_kind = new QComboBox(this);
    for (const PartKind kind : {PartKind::Block, PartKind::Attention, PartKind::Mlp, PartKind::KvGroup, PartKind::Head, PartKind::Expert})
        if (document.model() && !partsOf(*document.model(), kind).empty()) m_kind->addItem(countWords(kind, 2).mid(2), static_cast<int>(kind));
    form->addRow(tr("Parts"), m_kind);
    m_line = new QLineEdit(this);
    m_line->setPlaceholderText(QStringLiteral("score<0.2 block>=10"));
    form->addRow(tr("Expression"), m_line);
    form->addRow(makeLabel(tr("All terms must hold: words of the name, score<0.2, block>=10, size>50MB, params<1M, dropped, kept."), "help", this));
    m_words = makeLabel(QString(), "muted", this);
    form->addRow(m_words);
    auto* buttons = new QDialogButtonBox(QDialogButtonBox::Ok | QDialogButtonBox::Cancel, this);
    buttons->button(QDialogButtonBox::Ok)->setText(tr("Select"));
    connect(buttons, &QDialogButtonBox::accepted, this, &QDialog::accept);
    connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
    form->addRow(buttons);
    connect(m_line, &QLineEdit::textChanged, this, &SelectByExpressionDialog::refresh);
    connect(m_kind, &QComboBox::currentIndexChanged, this, [this] { refresh(m_line->text()); });
    refresh(QString());
}

void SelectByExpressionDialog::refresh(const QString& text) {
    StructureModel model(m_document);
    QHash<ComponentRef, double> scores;
    for (const auto& [kind, entry] : m_session.scores()) scores.insert(entry.values);
    model.setScores(scores, QString(), QString());
    StructureFilter filter(m_document);
    filter.setSourceModel(&model);
    filter.setText(text);
    m_chosen.clear();
    const auto kind = static_cast<PartKind>(m_kind->currentData().toInt());
    if (m_document.model() && !text.trimmed().isEmpty())
        for (const auto& ref : partsOf(*m_document.model(), kind))
            if (filter.matches(model.indexOf(ref))) m_chosen.push_back(ref);
    m_words->setText(filter.problem().isEmpty() ? wordsFor(m_document, m_chosen) : filter.problem());
}

}  // namespace resect::ui
