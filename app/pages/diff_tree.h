#pragma once
#include "core/protocol/json.h"

#include <QAbstractItemModel>
#include <QStyledItemDelegate>

#include <array>
#include <limits>
#include <vector>

namespace resect::ui {

using resect::Json;

/// One tensor of the comparison of two checkpoints.
struct DiffRow {
    QString a, b;               ///< names; empty on the side that lacks it
    QString typeA, typeB;       ///< "F32 [48, 96]"
    QString kind;               ///< added, removed, reshaped, changed, unchanged
    double relative = std::numeric_limits<double>::quiet_NaN();   ///< of changed ones: |B - A| / |A|
    qint64 changedElements = 0;
};

/// The rows of one block, or of everything outside the blocks. Numbers are -1 on the side that lacks the block.
struct DiffGroup {
    QString stack;              ///< "model.layers"; empty outside the blocks
    int a = -1, b = -1;
    std::vector<DiffRow> rows;
    int differing = 0;
};

/// What the worker's `diff` answers, sorted into blocks.
struct CheckpointComparison {
    QString folderA, folderB;
    qint64 parametersA = 0, parametersB = 0, bytesA = 0, bytesB = 0;
    std::vector<DiffGroup> groups;
    std::vector<std::array<QString, 3>> config;   ///< field, original, other
    qint64 equal = 0, changed = 0, reshaped = 0, added = 0, removed = 0;
    bool complete = true;
    bool typesDiffer = false;   ///< some tensor of both has another shape or dtype in the other
    double mostRelative = 0;
    QString mostRelativeName;

    bool same() const { return complete && config.empty() && changed + reshaped + added + removed == 0; }
};
/// Throws what Json throws on other types.
CheckpointComparison comparisonFrom(const Json& result);
/// "The other model lacks blocks 1 and 4. 12 tensors changed, most of all ..., by 0.31. ..."
QString summaryOf(const CheckpointComparison& comparison);
/// Everything that differs, for the clipboard.
QString textOf(const CheckpointComparison& comparison);

/// Two trees in one, so that matched blocks always stand beside each other.
class DiffTreeModel final : public QAbstractItemModel {
    Q_OBJECT
public:
    enum Column { Original, OriginalType, Other, OtherType, Change, ColumnCount };
    enum Role { ShareRole = Qt::UserRole };   ///< of Change: 0..1 = length of the bar; not set = no bar

    using QAbstractItemModel::QAbstractItemModel;
    void setComparison(CheckpointComparison comparison);
    void setShowAll(bool all);
    const CheckpointComparison& comparison() const noexcept { return m_comparison; }

    QModelIndex index(int row, int column, const QModelIndex& parent = {}) const override;
    QModelIndex parent(const QModelIndex& index) const override;
    int rowCount(const QModelIndex& parent = {}) const override;
    int columnCount(const QModelIndex& = {}) const override { return ColumnCount; }
    QVariant data(const QModelIndex& index, int role) const override;
    QVariant headerData(int section, Qt::Orientation orientation, int role) const override;

private:
    struct Shown {
        const DiffGroup* group = nullptr;
        std::vector<const DiffRow*> rows;
    };
    void rebuild();
    QVariant groupData(const Shown& shown, int column) const;
    QVariant rowData(const DiffGroup& group, const DiffRow& row, int column) const;
    CheckpointComparison m_comparison;
    std::vector<Shown> m_shown;
    bool m_all = false;
};

/// Draws DiffTreeModel::ShareRole as a bar before the text.
class ShareBarDelegate final : public QStyledItemDelegate {
    Q_OBJECT
public:
    using QStyledItemDelegate::QStyledItemDelegate;
    void paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const override;
};

}  // namespace resect::ui
