#include "widgets/models/structure_model.h"

#include "core/base/numbers.h"

#include <QColor>
#include <QLocale>
#include <QRegularExpression>

#include <algorithm>
#include <cmath>

namespace resect::ui {

struct StructureModel::Node {
    ComponentRef ref;
    int lastBlock = -1;      ///< of a folded run of blocks that starts at ref.block
    Node* parent = nullptr;
    int row = 0;
    bool fetched = false;
    std::vector<std::unique_ptr<Node>> children;
    bool isGroup() const { return lastBlock >= 0; }
    Node* add(const ComponentRef& child) {
        children.push_back(std::make_unique<Node>());
        children.back()->ref = child;
        children.back()->parent = this;
        children.back()->row = static_cast<int>(children.size()) - 1;
        return children.back().get();
    }
};

namespace {

bool alike(const protocol::BlockMessage& a, const protocol::BlockMessage& b) {
    return a.hasAttention == b.hasAttention && a.hasFfn == b.hasFfn && a.numHeads == b.numHeads && a.numKvHeads == b.numKvHeads && a.headDim == b.headDim
           && a.ffnSize == b.ffnSize && a.numExperts == b.numExperts && a.headsPerKv == b.headsPerKv && a.tower == b.tower && a.parameters == b.parameters;
}

QString countText(double count) { return QString::fromStdString(formatCount(std::round(count))); }

}  // namespace

StructureModel::StructureModel(Document& document, QObject* parent) : QAbstractItemModel(parent), m_document(document), m_root(std::make_unique<Node>()) {
    connect(&document, &Document::modelChanged, this, &StructureModel::rebuild);
    connect(&document, &Document::planChanged, this, &StructureModel::refreshDrops);
    rebuild();
}

StructureModel::~StructureModel() = default;

void StructureModel::rebuild() {
    beginResetModel();
    m_root = std::make_unique<Node>();
    m_root->fetched = true;
    m_scores.clear();
    m_scoreTitle.clear();
    if (const auto* model = m_document.model()) {
        Node* top = m_root->add({PartKind::Model, -1, -1, -1});
        top->fetched = true;
        top->add({PartKind::Embedding, -1, -1, -1});
        const auto addBlock = [&](Node* parent, const protocol::BlockMessage& block) {
            Node* node = parent->add(blockRef(block.index));
            node->fetched = true;
            if (block.hasAttention) node->add(attentionRef(block.index));
            if (block.hasFfn) node->add(mlpRef(block.index));
            for (auto& layer : node->children) layer->fetched = childRefs(*layer).empty();
        };
        for (size_t i = 0; i < model->blocks.size();) {
            size_t end = i + 1;
            while (end < model->blocks.size() && alike(model->blocks[i], model->blocks[end])) ++end;
            Node* parent = top;
            if (end - i > 1) {
                parent = top->add(blockRef(model->blocks[i].index));
                parent->lastBlock = model->blocks[end - 1].index;
                parent->fetched = true;
            }
            for (; i < end; ++i) addBlock(parent, model->blocks[i]);
        }
        for (const PartKind kind : {PartKind::FinalNorm, PartKind::LmHead}) top->add({kind, -1, -1, -1});
        if (model->linkParameters > 0) top->add({PartKind::Projector, -1, -1, -1});
        for (auto& node : top->children)
            if (node->ref.kind != PartKind::Block) node->fetched = true;
    }
    endResetModel();
}

std::vector<ComponentRef> StructureModel::childRefs(const Node& node) const {
    const auto* model = m_document.model();
    const auto* block = model ? findBlock(*model, node.ref.block) : nullptr;
    if (!block) return {};
    switch (node.ref.kind) {
    case PartKind::Attention: return partsOfBlock(*model, block->numHeads == block->numKvHeads ? PartKind::Head : PartKind::KvGroup, node.ref.block);
    case PartKind::KvGroup: {
        std::vector<ComponentRef> heads;
        for (const int head : headsOf(*block, node.ref.index)) heads.push_back(headRef(node.ref.block, head));
        return heads;
    }
    case PartKind::Mlp: {
        auto refs = partsOfBlock(*model, PartKind::Expert, node.ref.block);
        if (!refs.empty()) refs.insert(refs.begin(), {PartKind::Router, node.ref.block, -1, -1});
        return refs;
    }
    default: return {};
    }
}

StructureModel::Node* StructureModel::nodeOf(const QModelIndex& index) const {
    return index.isValid() ? static_cast<Node*>(index.internalPointer()) : m_root.get();
}

QModelIndex StructureModel::indexOf(const Node* node, int column) const {
    return !node || node == m_root.get() ? QModelIndex() : createIndex(node->row, column, node);
}

QModelIndex StructureModel::index(int row, int column, const QModelIndex& parent) const {
    const Node* node = nodeOf(parent);
    if (row < 0 || row >= static_cast<int>(node->children.size()) || column < 0 || column >= ColumnCount || (parent.isValid() && parent.column() != 0)) return {};
    return createIndex(row, column, node->children[static_cast<size_t>(row)].get());
}

QModelIndex StructureModel::parent(const QModelIndex& child) const {
    return child.isValid() ? indexOf(nodeOf(child)->parent, 0) : QModelIndex();
}

int StructureModel::rowCount(const QModelIndex& parent) const { return parent.column() > 0 ? 0 : static_cast<int>(nodeOf(parent)->children.size()); }

int StructureModel::columnCount(const QModelIndex&) const { return ColumnCount; }

bool StructureModel::hasChildren(const QModelIndex& parent) const {
    if (parent.column() > 0) return false;
    const Node* node = nodeOf(parent);
    return !node->fetched || !node->children.empty();
}

bool StructureModel::canFetchMore(const QModelIndex& parent) const { return parent.column() <= 0 && !nodeOf(parent)->fetched; }

void StructureModel::fetchMore(const QModelIndex& parent) {
    Node* node = nodeOf(parent);
    if (node->fetched) return;
    const auto refs = childRefs(*node);
    if (!refs.empty()) {
        beginInsertRows(indexOf(node, 0), 0, static_cast<int>(refs.size()) - 1);
        for (const auto& ref : refs) node->add(ref)->fetched = ref.kind != PartKind::KvGroup;
    }
    node->fetched = true;
    if (!refs.empty()) endInsertRows();
}

void StructureModel::fetchEverything() {
    const auto visit = [&](const auto& self, Node* node) -> void {
        if (!node->fetched) fetchMore(indexOf(node, 0));
        for (auto& child : node->children) self(self, child.get());
    };
    visit(visit, m_root.get());
}

QModelIndex StructureModel::indexOf(const ComponentRef& ref, int column) {
    const auto find = [&](const auto& self, Node* node) -> Node* {
        if (node->ref == ref && node != m_root.get() && !node->isGroup()) return node;
        const bool inside = node == m_root.get() || node->ref.kind == PartKind::Model || node->isGroup()
                                ? !node->isGroup() || (ref.block >= node->ref.block && ref.block <= node->lastBlock)
                                : node->ref.block == ref.block;
        if (!inside) return nullptr;
        if (!node->fetched) fetchMore(indexOf(node, 0));
        for (auto& child : node->children)
            if (Node* found = self(self, child.get())) return found;
        return nullptr;
    };
    return indexOf(find(find, m_root.get()), column);
}

ComponentRef StructureModel::refAt(const QModelIndex& index) { return index.data(RefRole).value<ComponentRef>(); }

RefSet StructureModel::refsAt(const QModelIndex& index) const {
    const Node* node = nodeOf(index);
    if (node == m_root.get()) return {};
    if (!node->isGroup()) return {node->ref};
    RefSet refs;
    for (const auto& child : node->children) refs.push_back(child->ref);
    return refs;
}

QString StructureModel::nameOf(const Node& node) const {
    const auto* model = m_document.model();
    const auto* block = model ? findBlock(*model, node.ref.block) : nullptr;
    const QString tower = block ? QString::fromStdString(block->tower) : QString();
    if (node.isGroup() && !tower.isEmpty()) return tr("Blocks %1-%2 (%3 alike, %4)").arg(node.ref.block).arg(node.lastBlock).arg(node.children.size()).arg(tower);
    if (node.isGroup()) return tr("Blocks %1-%2 (%3 alike)").arg(node.ref.block).arg(node.lastBlock).arg(node.children.size());
    switch (node.ref.kind) {
    case PartKind::Model: return model ? QString::fromStdString(model->name) : QString();
    case PartKind::Block: return tower.isEmpty() ? tr("Block %1").arg(node.ref.block) : tr("Block %1 (%2)").arg(node.ref.block).arg(tower);
    case PartKind::Attention: return tr("Attention");
    case PartKind::Mlp: return tr("MLP");
    case PartKind::Head: return tr("Head %1").arg(node.ref.index);
    case PartKind::KvGroup: return tr("Key group %1").arg(node.ref.index);
    case PartKind::Expert: return tr("Expert %1").arg(node.ref.expert);
    case PartKind::Router: return tr("Router");
    case PartKind::Embedding: return tr("Embedding");
    case PartKind::FinalNorm: return tr("Final norm");
    case PartKind::LmHead: return tr("Output head");
    case PartKind::Projector: return tr("Projector");
    default: return text(node.ref);
    }
}

QString StructureModel::detailOf(const Node& node) const {
    const auto* model = m_document.model();
    const auto* block = model ? findBlock(*model, node.ref.block) : nullptr;
    if (node.ref.kind == PartKind::LmHead && model && model->tied) return tr("shares the embedding");
    if (node.ref.kind == PartKind::Model && model) return QString::fromStdString(model->familyTitle.empty() ? model->family : model->familyTitle);
    if (!block || node.isGroup()) return {};
    if (node.ref.kind == PartKind::Attention)
        return block->numHeads == block->numKvHeads ? tr("%1 heads").arg(block->numHeads) : tr("%1 heads, %2 key groups").arg(block->numHeads).arg(block->numKvHeads);
    if (node.ref.kind == PartKind::Mlp)
        return block->numExperts > 0 ? tr("%1 experts of %L2 channels").arg(block->numExperts).arg(block->ffnSize) : tr("%L1 channels").arg(block->ffnSize);
    return {};
}

double StructureModel::parametersOf(const Node& node) const {
    const auto* model = m_document.model();
    if (!model) return 0;
    if (!node.isGroup()) return ui::parametersOf(*model, node.ref);
    double sum = 0;
    for (const auto& child : node.children) sum += ui::parametersOf(*model, child->ref);
    return sum;
}

DropState StructureModel::dropStateOf(const Node& node) const {
    if (!node.isGroup()) return m_document.dropState(node.ref);
    bool any = false, all = true;
    for (const auto& child : node.children) {
        const DropState state = m_document.dropState(child->ref);
        any = any || state != DropState::Kept;
        all = all && state == DropState::Dropped;
    }
    return all ? DropState::Dropped : any ? DropState::Partly : DropState::Kept;
}

QVariant StructureModel::data(const QModelIndex& index, int role) const {
    if (!index.isValid()) return {};
    const Node& node = *nodeOf(index);
    switch (role) {
    case RefRole: return QVariant::fromValue(node.isGroup() ? ComponentRef{} : node.ref);
    case DropStateRole: return static_cast<int>(dropStateOf(node));
    case IsGroupRole: return node.isGroup();
    case ScoreRole: {
        const auto it = node.isGroup() ? m_scores.constEnd() : m_scores.constFind(node.ref);
        return it == m_scores.constEnd() ? QVariant() : QVariant(*it);
    }
    case Qt::CheckStateRole:
        if (index.column() != Keep || !(flags(index) & Qt::ItemIsUserCheckable)) return {};
        switch (dropStateOf(node)) {
        case DropState::Kept: return Qt::Checked;
        case DropState::Partly: return Qt::PartiallyChecked;
        default: return Qt::Unchecked;
        }
    case Qt::TextAlignmentRole: return index.column() == Name ? QVariant() : QVariant(index.column() == Keep ? Qt::AlignCenter : Qt::AlignRight | Qt::AlignVCenter);
    case Qt::ToolTipRole: {
        QStringList lines{node.isGroup() ? nameOf(node) : text(node.ref)};
        lines[0][0] = lines[0][0].toUpper();
        if (const QString detail = detailOf(node); !detail.isEmpty()) lines[0] += QStringLiteral(": ") + detail;
        const QString share = data(index.siblingAtColumn(Share), Qt::DisplayRole).toString();
        lines << tr("%L1 parameters").arg(static_cast<qint64>(std::round(parametersOf(node)))) + (share.isEmpty() ? QString() : tr(", %1 of the model").arg(share));
        if (dropStateOf(node) == DropState::Dropped) lines << tr("Dropped by the plan");
        if (dropStateOf(node) == DropState::Partly) lines << tr("Partly dropped by the plan");
        if (index.column() == Score && !m_scoreHelp.isEmpty()) lines << m_scoreHelp;
        return lines.join(QLatin1Char('\n'));
    }
    case SortRole:
        switch (index.column()) {
        case Parameters: case Share: return parametersOf(node);
        case Score: return data(index, ScoreRole);
        case Keep: return static_cast<int>(dropStateOf(node));
        default: return nameOf(node);
        }
    case Qt::DisplayRole: case Qt::AccessibleTextRole: break;
    default: return {};
    }
    switch (index.column()) {
    case Name: {
        const QString detail = detailOf(node);
        return detail.isEmpty() ? nameOf(node) : nameOf(node) + QStringLiteral("  ") + detail;
    }
    case Parameters: return parametersOf(node) > 0 ? countText(parametersOf(node)) : QString();
    case Share: {
        const auto* model = m_document.model();
        if (!model || model->parameters <= 0 || parametersOf(node) <= 0) return {};
        const double share = 100 * parametersOf(node) / static_cast<double>(model->parameters);
        return QString::number(share, 'f', share < 0.095 ? 2 : 1) + QStringLiteral(" %");
    }
    case Score: {
        const QVariant score = data(index, ScoreRole);
        return score.isValid() ? QString::fromStdString(toText(score.toDouble(), 3)) : QString();
    }
    default: return {};
    }
}

bool StructureModel::setData(const QModelIndex& index, const QVariant& value, int role) {
    if (role != Qt::CheckStateRole || index.column() != Keep || !(flags(index) & Qt::ItemIsUserCheckable)) return false;
    const RefSet refs = refsAt(index);
    // A half-checked row is completed to kept, as everywhere in Qt a click on it does.
    if (static_cast<Qt::CheckState>(value.toInt()) == Qt::Unchecked) m_document.drop(refs);
    else m_document.undrop(refs);
    return true;
}

QVariant StructureModel::headerData(int section, Qt::Orientation orientation, int role) const {
    if (orientation != Qt::Horizontal) return {};
    if (role == Qt::TextAlignmentRole && section > Keep) return QVariant(Qt::AlignRight | Qt::AlignVCenter);
    if (role == Qt::ToolTipRole && section == Score) return m_scoreHelp;
    if (role == Qt::ToolTipRole && section == Keep) return tr("Checked: kept. Empty: dropped by the plan. Half: partly dropped.");
    if (role != Qt::DisplayRole) return {};
    switch (section) {
    case Name: return tr("Part");
    case Keep: return tr("Keep");
    case Parameters: return tr("Weights");
    case Share: return tr("Share");
    case Score: return m_scoreTitle.isEmpty() ? tr("Score") : m_scoreTitle;
    default: return {};
    }
}

Qt::ItemFlags StructureModel::flags(const QModelIndex& index) const {
    if (!index.isValid()) return Qt::NoItemFlags;
    const Node& node = *nodeOf(index);
    Qt::ItemFlags flags = Qt::ItemIsSelectable | Qt::ItemIsEnabled;
    const auto* model = m_document.model();
    const bool canDrop = node.ref.block >= 0 && node.ref.kind != PartKind::Router && model && model->understood;
    if (index.column() == Keep && canDrop) flags |= Qt::ItemIsUserCheckable;
    if (childRefs(node).empty() && node.children.empty()) flags |= Qt::ItemNeverHasChildren;
    return flags;
}

void StructureModel::refreshDrops() {
    const auto visit = [&](const auto& self, const Node& node) -> void {
        if (node.children.empty()) return;
        Q_EMIT dataChanged(indexOf(node.children.front().get(), 0), indexOf(node.children.back().get(), ColumnCount - 1));
        for (const auto& child : node.children) self(self, *child);
    };
    visit(visit, *m_root);
}

void StructureModel::setScores(QHash<ComponentRef, double> scores, const QString& title, const QString& help) {
    m_scores = std::move(scores);
    m_scoreTitle = title;
    m_scoreHelp = help;
    Q_EMIT headerDataChanged(Qt::Horizontal, Score, Score);
    refreshDrops();
}

StructureFilter::StructureFilter(Document& document, QObject* parent) : QSortFilterProxyModel(parent), m_document(document) {
    setRecursiveFilteringEnabled(true);
    connect(&document, &Document::planChanged, this, [this] {
        const bool onDrops = std::any_of(m_terms.begin(), m_terms.end(), [](const Term& term) { return term.field == Term::Field::Dropped || term.field == Term::Field::Kept; });
        if (onDrops) invalidateFilter();
    });
}

std::optional<StructureFilter::Term> StructureFilter::parseComparison(const QString& text) {
    static const QRegularExpression pattern(QStringLiteral("^([a-zA-Z]+)(<=|>=|<|>|=)(.*)$"));
    const auto match = pattern.match(text);
    if (!match.hasMatch()) return std::nullopt;
    Term term;
    const QString name = match.captured(1).toLower();
    if (name == QLatin1String("score")) term.field = Term::Field::Score;
    else if (name == QLatin1String("block") || name == QLatin1String("layer")) term.field = Term::Field::Block;
    else if (name == QLatin1String("size")) term.field = Term::Field::Bytes;
    else if (name == QLatin1String("params") || name == QLatin1String("parameters")) term.field = Term::Field::Parameters;
    else {
        m_problem = tr("\"%1\" cannot be compared; score, block, size and params can.").arg(match.captured(1));
        return std::nullopt;
    }
    term.comparison = match.captured(2);
    static const QRegularExpression number(QStringLiteral("^\\s*(-?[0-9.]+(?:[eE][-+]?[0-9]+)?)\\s*([kKmMgGbBtT]?)[bB]?\\s*$"));
    const auto value = number.match(match.captured(3));
    bool ok = false;
    term.value = value.hasMatch() ? value.captured(1).toDouble(&ok) : 0;
    if (!ok) {
        m_problem = tr("\"%1\" is not a number.").arg(match.captured(3));
        return std::nullopt;
    }
    const QString unit = value.captured(2).toLower();
    const bool bytes = term.field == Term::Field::Bytes;
    if (unit == QLatin1String("k")) term.value *= 1e3;
    else if (unit == QLatin1String("m")) term.value *= 1e6;
    else if (unit == QLatin1String("g") || (unit == QLatin1String("b") && !bytes)) term.value *= 1e9;
    else if (unit == QLatin1String("t")) term.value *= 1e12;
    return term;
}

void StructureFilter::setText(const QString& text) {
    m_terms.clear();
    m_problem.clear();
    for (const QString& word : text.split(QRegularExpression(QStringLiteral("\\s+")), Qt::SkipEmptyParts)) {
        Term term;
        if (word.compare(QLatin1String("dropped"), Qt::CaseInsensitive) == 0) term.field = Term::Field::Dropped;
        else if (word.compare(QLatin1String("kept"), Qt::CaseInsensitive) == 0) term.field = Term::Field::Kept;
        else if (auto comparison = parseComparison(word)) term = *comparison;
        else if (!m_problem.isEmpty()) continue;
        else term.words = word;
        m_terms.push_back(term);
    }
    if (!m_terms.empty())
        if (auto* structure = qobject_cast<StructureModel*>(sourceModel())) structure->fetchEverything();
    invalidateFilter();
}

bool StructureFilter::matches(const Term& term, const QModelIndex& index) const {
    const auto compare = [&](double value) {
        if (term.comparison == QLatin1String("<")) return value < term.value;
        if (term.comparison == QLatin1String("<=")) return value <= term.value;
        if (term.comparison == QLatin1String(">")) return value > term.value;
        if (term.comparison == QLatin1String(">=")) return value >= term.value;
        return value == term.value;
    };
    const auto* model = m_document.model();
    const ComponentRef ref = StructureModel::refAt(index);
    switch (term.field) {
    case Term::Field::Text: {
        QString name = index.data(Qt::DisplayRole).toString();
        if (ref.block >= 0) name += QLatin1Char(' ') + text(ref);
        return name.contains(term.words, Qt::CaseInsensitive);
    }
    case Term::Field::Score: {
        const QVariant score = index.data(StructureModel::ScoreRole);
        return score.isValid() && std::isfinite(score.toDouble()) && compare(score.toDouble());
    }
    case Term::Field::Block: return ref.block >= 0 && compare(ref.block);
    case Term::Field::Bytes:
        return model && model->parameters > 0 && compare(parametersOf(*model, ref) * static_cast<double>(model->bytes) / static_cast<double>(model->parameters));
    case Term::Field::Parameters: return model && compare(parametersOf(*model, ref));
    case Term::Field::Dropped: return static_cast<DropState>(index.data(StructureModel::DropStateRole).toInt()) == DropState::Dropped;
    case Term::Field::Kept: return static_cast<DropState>(index.data(StructureModel::DropStateRole).toInt()) == DropState::Kept;
    }
    return false;
}

bool StructureFilter::filterAcceptsRow(int row, const QModelIndex& parent) const {
    if (m_terms.empty()) return true;
    const QModelIndex index = sourceModel()->index(row, StructureModel::Name, parent);
    // Folding rows and the model itself match only through what is inside them.
    if (index.data(StructureModel::IsGroupRole).toBool() || StructureModel::refAt(index).kind == PartKind::Model) return false;
    return matches(index);
}

bool StructureFilter::matches(const QModelIndex& index) const {
    return index.isValid() && std::all_of(m_terms.begin(), m_terms.end(), [&](const Term& term) { return matches(term, index); });
}

}  // namespace resect::ui
