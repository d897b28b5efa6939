#include "widgets/models/plan_model.h"

#include "core/base/numbers.h"

#include <QDataStream>
#include <QIODevice>
#include <QMimeData>

#include <algorithm>
#include <array>
#include <cmath>

namespace resect::ui {
namespace {

const QString kMimeType = QStringLiteral("application/x-resect-plan-row");

QString fromStd(const std::string& text) { return QString::fromStdString(text); }

}  // namespace

PlanModel::PlanModel(Document& document, QObject* parent) : QAbstractListModel(parent), m_document(document) {
    // A plan is a handful of rows and every undo step may change all of them: a reset is honest and cheap.
    connect(&document, &Document::planChanged, this, [this] {
        beginResetModel();
        endResetModel();
    });
    connect(&document, &Document::checkChanged, this, [this] {
        if (const int rows = rowCount(); rows > 0) Q_EMIT dataChanged(index(0), index(rows - 1));
    });
}

int PlanModel::rowCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : static_cast<int>(m_document.plan().size()); }

QVariant PlanModel::data(const QModelIndex& index, int role) const {
    if (!index.isValid() || index.row() >= rowCount()) return {};
    const PlanEntry& entry = *m_document.plan()[static_cast<size_t>(index.row())];
    const auto problems = [&] {
        std::vector<const protocol::PlanProblemMessage*> found;
        if (const auto* check = m_document.check())
            for (const auto& problem : check->problems)
                if (problem.edit >= 0 && m_document.rowOfEdit(problem.edit) == index.row()) found.push_back(&problem);
        return found;
    };
    switch (role) {
    case Qt::DisplayRole: return editTitle(entry.edit);
    case Qt::CheckStateRole: return entry.enabled ? Qt::Checked : Qt::Unchecked;
    case EnabledRole: return entry.enabled;
    case OriginRole: return entry.origin.isEmpty() ? tr("by hand") : entry.origin;
    case NoteRole: return entry.note;
    case SeverityRole: {
        QString worst;
        for (const auto* problem : problems()) {
            if (problem->problem.severity == "error") return QStringLiteral("error");
            if (problem->problem.severity == "warning") worst = QStringLiteral("warning");
            else if (worst.isEmpty()) worst = QStringLiteral("note");
        }
        return worst;
    }
    case ProblemRole: {
        QStringList lines;
        for (const auto* problem : problems()) lines << fromStd(problem->problem.message);
        return lines.join(QLatin1Char('\n'));
    }
    case Qt::ToolTipRole: {
        QStringList lines{editTitle(entry.edit), data(index, OriginRole).toString()};
        if (!entry.note.isEmpty()) lines << entry.note;
        if (const QString problem = data(index, ProblemRole).toString(); !problem.isEmpty()) lines << problem;
        return lines.join(QLatin1Char('\n'));
    }
    default: return {};
    }
}

bool PlanModel::setData(const QModelIndex& index, const QVariant& value, int role) {
    if (!index.isValid()) return false;
    if (role == Qt::CheckStateRole) m_document.setEntryEnabled(index.row(), static_cast<Qt::CheckState>(value.toInt()) == Qt::Checked);
    else if (role == NoteRole) m_document.setEntryNote(index.row(), value.toString());
    else return false;
    return true;
}

Qt::ItemFlags PlanModel::flags(const QModelIndex& index) const {
    if (!index.isValid()) return Qt::ItemIsDropEnabled;
    return Qt::ItemIsSelectable | Qt::ItemIsEnabled | Qt::ItemIsUserCheckable | Qt::ItemIsDragEnabled | Qt::ItemNeverHasChildren;
}

QStringList PlanModel::mimeTypes() const { return {kMimeType}; }

QMimeData* PlanModel::mimeData(const QModelIndexList& indexes) const {
    if (indexes.isEmpty()) return nullptr;
    auto* mime = new QMimeData;
    mime->setData(kMimeType, QByteArray::number(indexes.front().row()));
    return mime;
}

bool PlanModel::dropMimeData(const QMimeData* data, Qt::DropAction action, int row, int, const QModelIndex& parent) {
    if (action != Qt::MoveAction || !data->hasFormat(kMimeType)) return false;
    const int from = data->data(kMimeType).toInt();
    int to = row >= 0 ? row : parent.isValid() ? parent.row() : rowCount();
    if (to > from) --to;
    m_document.moveEntry(from, std::clamp(to, 0, rowCount() - 1));
    return false;  // the document has moved the row; the view must not remove the dragged one
}

CostModel::CostModel(Document& document, QObject* parent) : QAbstractTableModel(parent), m_document(document) {
    for (const auto signal : {&Document::checkChanged, &Document::previewChanged, &Document::modelChanged}) connect(&document, signal, this, &CostModel::rebuild);
    rebuild();
}

int CostModel::rowCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : static_cast<int>(m_rows.size()); }
int CostModel::columnCount(const QModelIndex&) const { return ColumnCount; }

void CostModel::rebuild() {
    beginResetModel();
    m_rows.clear();
    const auto* check = m_document.check();
    const auto add = [&](const QString& what, double before, double after, const auto& format, const QString& help) {
        Row row{what, format(before), format(after), QString(), help};
        if (before > 0 && std::isfinite(after) && after != before) {
            const double change = 100 * (after / before - 1);
            row.change = QStringLiteral("%1%2 %").arg(change > 0 ? QStringLiteral("+") : QString()).arg(change, 0, 'f', std::abs(change) < 9.95 ? 1 : 0);
            row.better = after < before;
            row.worse = after > before;
        }
        m_rows.push_back(row);
    };
    if (check) {
        const auto bytes = [](double value) { return fromStd(formatBytes(static_cast<std::uint64_t>(value))); };
        const auto count = [](double value) { return fromStd(formatCount(value)); };
        const auto number = [](auto value) { return static_cast<double>(value); };
        const auto &before = check->before, &after = check->after;
        add(tr("Parameters"), number(before.parameters), number(after.parameters), count, tr("Weights in the checkpoint; a shared embedding counts once."));
        if (before.activeParameters != before.parameters)
            add(tr("Active parameters"), number(before.activeParameters), number(after.activeParameters), count, tr("Weights that one token passes through."));
        add(tr("On disk"), number(before.bytes), number(after.bytes), bytes, tr("Bytes of the weights in the stored number format."));
        add(tr("On disk, bf16"), number(before.bytesBf16), number(after.bytesBf16), bytes, tr("The same with 2 bytes per weight."));
        add(tr("Cache / 1,000 tokens"), number(before.kvBytesPer1000), number(after.kvBytesPer1000), bytes, tr("Keys and values of 1,000 tokens at 2 bytes per number."));
        add(tr("Work, prompt token"), before.prefillFlopsPerToken, after.prefillFlopsPerToken, count,
            tr("Floating-point operations per token, averaged over a prompt of 1,024 tokens or the model's context. Computed from the shapes, 1 multiply-add = 2."));
        add(tr("Work, new token"), before.decodeFlopsPerToken, after.decodeFlopsPerToken, count, tr("Floating-point operations for one more token at that context. Computed from the shapes."));
    }
    const auto* preview = m_document.preview();
    if (check && preview && preview->rowsDone > 0) {
        const auto withInterval = [](double value, double low, double high) {
            if (!std::isfinite(value)) return tr("not a number");
            const QString number = fromStd(toText(value, 3));
            return std::isfinite(high - low) && high > low ? QStringLiteral("%1 ± %2").arg(number, fromStd(toText((high - low) / 2, 2))) : number;
        };
        const bool images = preview->unit == "images";
        const QString samples = (images ? tr("Measured on %1 of %2 images; ± is the 95 % interval.") : tr("Measured on %1 of %2 rows; ± is the 95 % interval.")).arg(preview->rowsDone).arg(preview->rowsTotal);
        const auto addMeasured = [&](const QString& what, const QString& help, std::array<double, 3> before, std::array<double, 3> after) {
            add(what, before[0], after[0], [](double) { return QString(); }, samples + help);
            m_rows.back().before = withInterval(before[0], before[1], before[2]);
            m_rows.back().after = withInterval(after[0], after[1], after[2]);
        };
        if (images && std::isfinite(preview->accuracy)) {
            const auto nats = [](double perplexity) { return std::log(perplexity); };
            addMeasured(tr("Accuracy"), tr(" Share of the labelled images whose likeliest label is right; higher is better."),
                        {preview->baselineAccuracy, preview->baselineAccuracyLow, preview->baselineAccuracyHigh}, {preview->accuracy, preview->accuracyLow, preview->accuracyHigh});
            m_rows.back().change = tr("%1 points").arg(100 * (preview->accuracy - preview->baselineAccuracy), 0, 'f', 1);
            addMeasured(tr("Loss"), tr(" Cross entropy of the labels, nats; lower is better."), {nats(preview->baseline), nats(preview->baselineLow), nats(preview->baselineHigh)},
                        {nats(preview->perplexity), nats(preview->perplexityLow), nats(preview->perplexityHigh)});
        } else if (!images) {
            addMeasured(tr("Perplexity"), tr(" Lower is better."), {preview->baseline, preview->baselineLow, preview->baselineHigh}, {preview->perplexity, preview->perplexityLow, preview->perplexityHigh});
        }
        m_rows.push_back({images ? tr("KL per image") : tr("KL per token"), QString(), withInterval(preview->kl, preview->klLow, preview->klHigh), QString(),
                          tr("How far the candidate's predictions are from the uncut model's (Kullback-Leibler divergence, nats). ") + samples});
    }
    endResetModel();
}

QVariant CostModel::data(const QModelIndex& index, int role) const {
    if (!index.isValid()) return {};
    const Row& row = m_rows[static_cast<size_t>(index.row())];
    if (role == Qt::ToolTipRole) return row.help;
    if (role == Qt::TextAlignmentRole) return index.column() == What ? QVariant(Qt::AlignLeft | Qt::AlignVCenter) : QVariant(Qt::AlignRight | Qt::AlignVCenter);
    if (role != Qt::DisplayRole) return {};
    switch (index.column()) {
    case What: return row.what;
    case Before: return row.before;
    case After: return row.after;
    default: return row.change;
    }
}

QVariant CostModel::headerData(int section, Qt::Orientation orientation, int role) const {
    if (orientation != Qt::Horizontal) return {};
    if (role == Qt::TextAlignmentRole) return section == What ? QVariant(Qt::AlignLeft | Qt::AlignVCenter) : QVariant(Qt::AlignRight | Qt::AlignVCenter);
    if (role != Qt::DisplayRole) return {};
    switch (section) {
    case Before: return tr("Before");
    case After: return tr("After");
    case Change: return tr("Change");
    default: return QString();
    }
}

}  // namespace resect::ui
