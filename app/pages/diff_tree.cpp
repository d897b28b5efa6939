#include "app/pages/diff_tree.h"

#include "core/base/numbers.h"
#include "widgets/models/component_ref.h"
#include "widgets/plots/plot_table.h"
#include "widgets/plots/theme.h"

#include <QApplication>
#include <QCoreApplication>
#include <QPainter>

#include <algorithm>
#include <cmath>

namespace resect::ui {
namespace {

QString tr(const char* text, const char* = nullptr, int n = -1) { return QCoreApplication::translate("DiffTree", text, nullptr, n); }

QString field(const Json& row, const char* name) { return QString::fromStdString(row.value(name, std::string())); }

QString typeText(const Json& row, const char* dtype, const char* shape) {
    if (!row.contains(shape)) return {};
    QStringList sizes;
    for (const Json& size : row[shape]) sizes << QString::number(size.get<qint64>());
    return QStringLiteral("%1 [%2]").arg(field(row, dtype), sizes.join(QStringLiteral(", ")));
}

QString valueText(const Json& value) {
    if (value.is_null()) return QStringLiteral("-");
    if (value.is_string()) return QString::fromStdString(value.get<std::string>());
    return QString::fromStdString(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

/// The number after "stack." in a tensor name; -1 when the name is not of that stack.
int blockNumber(const QString& name, const QString& stack) {
    if (!name.startsWith(stack) || name.size() <= stack.size() || name[stack.size()] != QLatin1Char('.')) return -1;
    const qsizetype begin = stack.size() + 1, end = name.indexOf(QLatin1Char('.'), begin);
    bool number = false;
    const int block = end < 0 ? -1 : name.mid(begin, end - begin).toInt(&number);
    return number ? block : -1;
}

DiffGroup& groupOf(std::vector<DiffGroup>& groups, const DiffRow& row) {
    for (DiffGroup& group : groups) {
        if (group.stack.isEmpty()) continue;
        if (row.a.isEmpty() ? group.b >= 0 && blockNumber(row.b, group.stack) == group.b : group.a >= 0 && blockNumber(row.a, group.stack) == group.a) return group;
    }
    return groups.front();
}

QString blocksText(const std::vector<int>& blocks) { return (blocks.size() == 1 ? tr("block ") : tr("blocks ")) + rangesText(blocks); }

QString elementsText(const DiffRow& row) { return tr("%1 numbers changed").arg(QString::fromStdString(formatThousands(row.changedElements))); }

QString changeText(const DiffRow& row) {
    if (row.kind == QLatin1String("added")) return tr("only in the other");
    if (row.kind == QLatin1String("removed")) return tr("only in the original");
    if (row.kind == QLatin1String("reshaped")) return tr("other shape");
    if (row.kind == QLatin1String("unchanged")) return tr("equal");
    if (row.changedElements == 0) return tr("same values, other type");
    return std::isfinite(row.relative) ? shortNumber(row.relative, 3) : elementsText(row);
}

}  // namespace

CheckpointComparison comparisonFrom(const Json& result) {
    CheckpointComparison comparison;
    const auto side = [&](const char* name, QString& folder, qint64& parameters, qint64& bytes) {
        const Json one = result.value(name, Json::object());
        folder = field(one, "folder");
        parameters = one.value("parameters", qint64(0));
        bytes = one.value("bytes", qint64(0));
    };
    side("left", comparison.folderA, comparison.parametersA, comparison.bytesA);
    side("right", comparison.folderB, comparison.parametersB, comparison.bytesB);
    comparison.complete = result.value("complete", true);
    comparison.equal = result.value("equalTensors", qint64(0));
    for (const Json& one : result.value("config", Json::array())) comparison.config.push_back({field(one, "field"), valueText(one.at("a")), valueText(one.at("b"))});
    comparison.groups.emplace_back();
    for (const Json& one : result.value("blocks", Json::array()))
        comparison.groups.push_back({field(one, "stack"), one.at("a").is_null() ? -1 : one.at("a").get<int>(), one.at("b").is_null() ? -1 : one.at("b").get<int>(), {}, 0});
    // Rows come block by block: the last group is tried first, so that a hundred thousand tensors need no search each.
    std::size_t last = 0;
    const auto add = [&](DiffRow row) {
        DiffGroup& before = comparison.groups[last];
        const bool again = !before.stack.isEmpty() && !row.a.isEmpty() && before.a >= 0 && blockNumber(row.a, before.stack) == before.a;
        DiffGroup& group = again ? before : groupOf(comparison.groups, row);
        last = std::size_t(&group - comparison.groups.data());
        group.differing += row.kind != QLatin1String("unchanged");
        group.rows.push_back(std::move(row));
    };
    for (const Json& one : result.value("tensors", Json::array())) {
        DiffRow row{field(one, "a"), field(one, "b"), typeText(one, "dtypeA", "shapeA"), typeText(one, "dtypeB", "shapeB"), field(one, "kind")};
        readField(one, "relative", row.relative);
        row.changedElements = one.value("changedElements", qint64(0));
        comparison.typesDiffer |= !row.typeB.isEmpty() && row.typeA != row.typeB;
        if (row.kind == QLatin1String("changed")) ++comparison.changed;
        else if (row.kind == QLatin1String("reshaped")) ++comparison.reshaped;
        else if (row.kind == QLatin1String("added")) ++comparison.added;
        else if (row.kind == QLatin1String("removed")) ++comparison.removed;
        if (std::isfinite(row.relative) && row.relative > comparison.mostRelative) {
            comparison.mostRelative = row.relative;
            comparison.mostRelativeName = row.a;
        }
        add(std::move(row));
    }
    for (const Json& one : result.value("unchanged", Json::array())) {
        const QString type = typeText(one, "dtype", "shape");
        add({field(one, "a"), field(one, "b"), type, type, QStringLiteral("unchanged")});
    }
    return comparison;
}

QString summaryOf(const CheckpointComparison& comparison) {
    QStringList sentences;
    std::vector<int> gone, fresh, moved;
    for (const DiffGroup& group : comparison.groups) {
        if (group.stack.isEmpty()) continue;
        if (group.b < 0) gone.push_back(group.a);
        else if (group.a < 0) fresh.push_back(group.b);
        else if (group.a != group.b) moved.push_back(group.a);
    }
    if (comparison.same()) return tr("The two checkpoints are the same: every tensor is equal to the byte, and so is the configuration.");
    if (!gone.empty()) sentences << tr("The other model lacks %1.").arg(blocksText(gone));
    if (!fresh.empty()) sentences << tr("It has %1 that the original lacks.").arg(blocksText(fresh));
    if (!moved.empty()) sentences << tr("The original's %1 carry other numbers there.").arg(blocksText(moved));
    QStringList counts;
    const auto count = [&](qint64 n, const char* words) {
        if (n > 0) counts << QStringLiteral("%1 %2").arg(QString::fromStdString(formatThousands(n)), tr(words));
    };
    count(comparison.reshaped, "with another shape");
    count(comparison.changed, "with other values");
    count(comparison.removed, "only in the original");
    count(comparison.added, "only in the other");
    count(comparison.equal, "equal to the byte");
    if (!counts.isEmpty()) sentences << tr("Tensors: %1.").arg(counts.join(QStringLiteral(", ")));
    if (!comparison.mostRelativeName.isEmpty()) sentences << tr("The largest relative change is %1, of %2.").arg(shortNumber(comparison.mostRelative, 3), comparison.mostRelativeName);
    if (!comparison.config.empty()) sentences << (comparison.config.size() == 1 ? tr("One setting differs.") : tr("%1 settings differ.").arg(comparison.config.size()));
    if (!comparison.complete) sentences << tr("Stopped before all weights were compared.");
    return sentences.join(QLatin1Char(' '));
}

QString textOf(const CheckpointComparison& comparison) {
    QString text = tr("Original: %1\nOther: %2\n%3\n").arg(comparison.folderA, comparison.folderB, summaryOf(comparison));
    for (const auto& [name, a, b] : comparison.config) text += QStringLiteral("config\t%1\t%2\t%3\n").arg(name, a, b);
    for (const DiffGroup& group : comparison.groups)
        for (const DiffRow& row : group.rows)
            if (row.kind != QLatin1String("unchanged")) text += QStringList{row.kind, row.a, row.typeA, row.b, row.typeB, changeText(row), row.changedElements > 0 ? elementsText(row) : QString()}.join(QLatin1Char('\t')) + QLatin1Char('\n');
    return text;
}

void DiffTreeModel::setComparison(CheckpointComparison comparison) {
    beginResetModel();
    m_comparison = std::move(comparison);
    rebuild();
    endResetModel();
}

void DiffTreeModel::setShowAll(bool all) {
    beginResetModel();
    m_all = all;
    rebuild();
    endResetModel();
}

void DiffTreeModel::rebuild() {
    m_shown.clear();
    for (const DiffGroup& group : m_comparison.groups) {
        if (!m_all && group.differing == 0 && group.a == group.b) continue;
        Shown shown{&group, {}};
        for (const DiffRow& row : group.rows)
            if (m_all || row.kind != QLatin1String("unchanged")) shown.rows.push_back(&row);
        if (group.stack.isEmpty() && shown.rows.empty()) continue;
        m_shown.push_back(std::move(shown));
    }
}

// The internal id is 0 for a group, else 1 + the place of its group.
QModelIndex DiffTreeModel::index(int row, int column, const QModelIndex& parent) const {
    if (!hasIndex(row, column, parent)) return {};
    return createIndex(row, column, parent.isValid() ? quintptr(parent.row()) + 1 : quintptr(0));
}

QModelIndex DiffTreeModel::parent(const QModelIndex& index) const {
    return !index.isValid() || index.internalId() == 0 ? QModelIndex() : createIndex(int(index.internalId()) - 1, 0, quintptr(0));
}

int DiffTreeModel::rowCount(const QModelIndex& parent) const {
    if (!parent.isValid()) return int(m_shown.size());
    return parent.internalId() == 0 && parent.column() == 0 ? int(m_shown[std::size_t(parent.row())].rows.size()) : 0;
}

QVariant DiffTreeModel::headerData(int section, Qt::Orientation orientation, int role) const {
    if (orientation != Qt::Horizontal || role != Qt::DisplayRole) return {};
    switch (section) {
    case Original: return tr("Original");
    case Other: return tr("Other");
    case OriginalType:
    case OtherType: return tr("Shape");
    default: return tr("Relative change");
    }
}

QVariant DiffTreeModel::groupData(const Shown& shown, int column) const {
    const DiffGroup& group = *shown.group;
    const auto block = [&](int number) { return number < 0 ? QStringLiteral("\u2013") : tr("Block %1").arg(number); };
    switch (column) {
    case Original: return group.stack.isEmpty() ? tr("Outside the blocks") : block(group.a);
    case Other: return group.stack.isEmpty() ? QString() : block(group.b);
    case Change:
        if (group.b < 0 && !group.stack.isEmpty()) return tr("only in the original");
        if (group.a < 0 && !group.stack.isEmpty()) return tr("only in the other");
        if (group.differing == 0) return tr("equal");
        return tr("%1 of %2 tensors differ").arg(group.differing).arg(group.rows.size());
    default: return {};
    }
}

QVariant DiffTreeModel::rowData(const DiffGroup& group, const DiffRow& row, int column) const {
    const auto shortName = [&](const QString& name, int block) {
        if (group.stack.isEmpty() || name.isEmpty()) return name;
        return name.mid(group.stack.size() + 2 + QString::number(block).size());
    };
    switch (column) {
    case Original: return shortName(row.a, group.a);
    case Other: return shortName(row.b, group.b);
    case OriginalType: return row.typeA;
    case OtherType: return row.typeB;
    default: return changeText(row);
    }
}

QVariant DiffTreeModel::data(const QModelIndex& index, int role) const {
    if (!index.isValid()) return {};
    const bool isGroup = index.internalId() == 0;
    const Shown& shown = m_shown[std::size_t(isGroup ? index.row() : int(index.internalId()) - 1)];
    if (role == Qt::DisplayRole) return isGroup ? groupData(shown, index.column()) : rowData(*shown.group, *shown.rows[std::size_t(index.row())], index.column());
    if (isGroup) {
        if (role == Qt::FontRole && index.column() != Change) {
            QFont bold = QApplication::font();
            bold.setBold(true);
            return bold;
        }
        return {};
    }
    const DiffRow& row = *shown.rows[std::size_t(index.row())];
    if (role == Qt::ToolTipRole && index.column() == Change) return row.changedElements > 0 ? elementsText(row) : changeText(row);
    if (role == Qt::ToolTipRole) {
        const bool other = index.column() == Other || index.column() == OtherType;
        return QStringLiteral("%1  %2").arg(other ? row.b : row.a, other ? row.typeB : row.typeA);
    }
    // Square root: a recovery moves most weights by a few hundredths, which shall still be seen beside a large change.
    if (role == ShareRole && index.column() == Change && std::isfinite(row.relative) && row.relative > 0) return std::sqrt(std::min(1.0, row.relative));
    return {};
}

void ShareBarDelegate::paint(QPainter* painter, const QStyleOptionViewItem& given, const QModelIndex& index) const {
    QStyleOptionViewItem option = given;
    initStyleOption(&option, index);
    const QString text = option.text;
    option.text.clear();
    QStyle* style = option.widget ? option.widget->style() : QApplication::style();
    style->drawControl(QStyle::CE_ItemViewItem, &option, painter, option.widget);
    painter->save();
    QRect area = option.rect.adjusted(4, 0, -4, 0);
    const int most = std::min(area.width() / 2, option.fontMetrics.averageCharWidth() * 14);
    if (const QVariant share = index.data(DiffTreeModel::ShareRole); share.isValid()) {
        const QRect track(area.left(), area.center().y() - option.fontMetrics.height() / 4, most, option.fontMetrics.height() / 2);
        painter->fillRect(track, currentTheme().nan);
        painter->fillRect(QRect(track.topLeft(), QSize(std::max(2, int(share.toDouble() * most)), track.height())), currentTheme().seriesColour(4));
        area.setLeft(area.left() + most + option.fontMetrics.averageCharWidth());
    }
    painter->setPen(option.palette.color(option.state.testFlag(QStyle::State_Selected) ? QPalette::HighlightedText : QPalette::Text));
    painter->drawText(area, Qt::AlignLeft | Qt::AlignVCenter | Qt::TextSingleLine, option.fontMetrics.elidedText(text, Qt::ElideRight, area.width()));
    painter->restore();
}

}  // namespace resect::ui
