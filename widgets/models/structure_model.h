#pragma once
#include "widgets/models/document.h"

#include <QAbstractItemModel>
#include <QHash>
#include <QSortFilterProxyModel>

#include <memory>
#include <vector>

namespace resect::ui {

/// The open model as a tree: embedding, blocks (runs of alike blocks under one row), in them attention with key groups and heads,
/// MLP with experts, final norm and output head. Channels are counted, not listed. Heads and experts are made when first asked for.
class StructureModel final : public QAbstractItemModel {
    Q_OBJECT
public:
    enum Column { Name, Keep, Parameters, Share, Score, ColumnCount };
    enum Role { SortRole = Qt::UserRole, RefRole, DropStateRole, ScoreRole, IsGroupRole };

    explicit StructureModel(Document& document, QObject* parent = nullptr);
    ~StructureModel() override;

    QModelIndex indexOf(const ComponentRef& ref, int column = Name);  ///< makes lazy rows; invalid when there is no such row
    static ComponentRef refAt(const QModelIndex& index);
    /// Parts that a row stands for: itself, or the blocks of a folded run.
    RefSet refsAt(const QModelIndex& index) const;
    void fetchEverything();   ///< before filtering
    /// Score per part, as measured; parts without one show nothing. `title` heads the column.
    void setScores(QHash<ComponentRef, double> scores, const QString& title, const QString& help);

    QModelIndex index(int row, int column, const QModelIndex& parent = {}) const override;
    QModelIndex parent(const QModelIndex& child) const override;
    int rowCount(const QModelIndex& parent = {}) const override;
    int columnCount(const QModelIndex& parent = {}) const override;
    bool hasChildren(const QModelIndex& parent = {}) const override;
    bool canFetchMore(const QModelIndex& parent) const override;
    void fetchMore(const QModelIndex& parent) override;
    QVariant data(const QModelIndex& index, int role) const override;
    bool setData(const QModelIndex& index, const QVariant& value, int role) override;
    QVariant headerData(int section, Qt::Orientation orientation, int role) const override;
    Qt::ItemFlags flags(const QModelIndex& index) const override;

private:
    struct Node;
    void rebuild();
    void refreshDrops();
    std::vector<ComponentRef> childRefs(const Node& node) const;
    Node* nodeOf(const QModelIndex& index) const;
    QModelIndex indexOf(const Node* node, int column) const;
    QString nameOf(const Node& node) const;
    QString detailOf(const Node& node) const;
    double parametersOf(const Node& node) const;
    DropState dropStateOf(const Node& node) const;

    Document& m_document;
    std::unique_ptr<Node> m_root;
    QHash<ComponentRef, double> m_scores;
    QString m_scoreTitle, m_scoreHelp;
};

/// The filter line of the tree: words over names, plus comparisons `score<0.2`, `block>=10`, `size>50MB` (bytes as stored), `params>1M`, and `dropped`.
/// All terms must hold. A row is shown when it or something inside it matches.
class StructureFilter final : public QSortFilterProxyModel {
    Q_OBJECT
public:
    explicit StructureFilter(Document& document, QObject* parent = nullptr);
    void setText(const QString& text);
    /// Why a term is not understood; empty when all are.
    const QString& problem() const noexcept { return m_problem; }
    /// Whether a row of the source model meets all terms itself.
    bool matches(const QModelIndex& sourceIndex) const;

protected:
    bool filterAcceptsRow(int row, const QModelIndex& parent) const override;

private:
    struct Term {
        enum class Field { Text, Score, Block, Bytes, Parameters, Dropped, Kept } field = Field::Text;
        QString words;
        QString comparison;  ///< < <= > >= =
        double value = 0;
    };
    bool matches(const Term& term, const QModelIndex& index) const;
    std::optional<Term> parseComparison(const QString& text);

    Document& m_document;
    std::vector<Term> m_terms;
    QString m_problem;
};

}  // namespace resect::ui
