#pragma once
#include "widgets/models/document.h"

#include <QAbstractListModel>
#include <QAbstractTableModel>

#include <vector>

namespace resect::ui {

/// The rows of the plan: number, title, who proposed it, on or off, problems. Dragging a row moves it, as an undo step.
class PlanModel final : public QAbstractListModel {
    Q_OBJECT
public:
    enum Role { OriginRole = Qt::UserRole, NoteRole, SeverityRole, ProblemRole, EnabledRole };

    explicit PlanModel(Document& document, QObject* parent = nullptr);

    int rowCount(const QModelIndex& parent = {}) const override;
    QVariant data(const QModelIndex& index, int role) const override;
    bool setData(const QModelIndex& index, const QVariant& value, int role) override;
    Qt::ItemFlags flags(const QModelIndex& index) const override;
    Qt::DropActions supportedDropActions() const override { return Qt::MoveAction; }
    QStringList mimeTypes() const override;
    QMimeData* mimeData(const QModelIndexList& indexes) const override;
    bool dropMimeData(const QMimeData* data, Qt::DropAction action, int row, int column, const QModelIndex& parent) override;

private:
    Document& m_document;
};

/// Before and after: parameters, bytes, cache, work per token, perplexity (of images accuracy and loss). Estimates are computed; those and KL come from the preview.
class CostModel final : public QAbstractTableModel {
    Q_OBJECT
public:
    enum Column { What, Before, After, Change, ColumnCount };

    explicit CostModel(Document& document, QObject* parent = nullptr);

    int rowCount(const QModelIndex& parent = {}) const override;
    int columnCount(const QModelIndex& parent = {}) const override;
    QVariant data(const QModelIndex& index, int role) const override;
    QVariant headerData(int section, Qt::Orientation orientation, int role) const override;

private:
    struct Row {
        QString what, before, after, change, help;
        bool better = false, worse = false;
    };
    void rebuild();

    Document& m_document;
    std::vector<Row> m_rows;
};

}  // namespace resect::ui
