#include "widgets/models/selection_model.h"

#include <QLocale>
#include <QSet>
#include <QStringList>

#include <algorithm>
#include <map>
#include <set>

namespace resect::ui {

SelectionModel::SelectionModel(QObject* parent) : QObject(parent) {}

void SelectionModel::setModel(std::shared_ptr<const protocol::ModelMessage> model) {
    m_model = std::move(model);
    m_anchor.reset();
    setHover(std::nullopt);
    m_history = {RefSet{}};
    m_position = 0;
    m_live = 0;
    m_refs.clear();
    scheduleSelection();
    Q_EMIT historyChanged();
}

bool SelectionModel::covers(const ComponentRef& ref) const {
    if (contains(ref)) return true;
    if (ref.block < 0 || m_refs.empty()) return false;
    if (ref.kind != PartKind::Block && contains(blockRef(ref.block))) return true;
    switch (ref.kind) {
    case PartKind::Head: {
        if (contains(attentionRef(ref.block))) return true;
        const auto* block = m_model ? findBlock(*m_model, ref.block) : nullptr;
        return block && contains(kvGroupRef(ref.block, kvGroupOf(*block, ref.index)));
    }
    case PartKind::KvGroup: return contains(attentionRef(ref.block));
    case PartKind::Channel: return contains(mlpRef(ref.block)) || (ref.expert >= 0 && contains(expertRef(ref.block, ref.expert)));
    case PartKind::Expert: case PartKind::Router: return contains(mlpRef(ref.block));
    default: return false;
    }
}

std::vector<int> SelectionModel::blocks() const {
    std::set<int> blocks;
    for (const auto& ref : m_refs)
        if (ref.block >= 0) blocks.insert(ref.block);
    return {blocks.begin(), blocks.end()};
}

void SelectionModel::setHover(std::optional<ComponentRef> ref) {
    if (ref == m_hover) return;
    m_hover = ref;
    m_hoverPending = true;
    emitPending();
}

void SelectionModel::assign(RefSet refs) {
    if (m_model) std::erase_if(refs, [&](const ComponentRef& ref) { return !exists(*m_model, ref); });
    if (refs == m_refs) return;
    m_refs = std::move(refs);
    if (m_live == 0) pushHistory();
    scheduleSelection();
}

void SelectionModel::pushHistory() {
    m_history.resize(m_position + 1);
    if (m_history.back() == m_refs) return;
    m_history.push_back(m_refs);
    if (m_history.size() > kHistoryLength + 1) m_history.erase(m_history.begin());
    m_position = m_history.size() - 1;
    Q_EMIT historyChanged();
}

void SelectionModel::scheduleSelection() {
    m_selectionPending = true;
    emitPending();
}

void SelectionModel::emitPending() {
    if (m_posted) return;
    m_posted = true;
    QMetaObject::invokeMethod(this, [this] {
        m_posted = false;
        if (std::exchange(m_selectionPending, false)) Q_EMIT selectionChanged();
        if (std::exchange(m_hoverPending, false)) Q_EMIT hoverChanged();
    }, Qt::QueuedConnection);
}

void SelectionModel::selectOne(const ComponentRef& ref) {
    m_anchor = ref;
    assign({ref});
}

void SelectionModel::toggle(const ComponentRef& ref) {
    m_anchor = ref;
    select({ref}, Gesture::Toggle);
}

void SelectionModel::selectRange(const ComponentRef& ref) {
    if (!m_anchor || m_anchor->kind != ref.kind || (m_anchor->expert < 0) != (ref.expert < 0)) return selectOne(ref);
    const auto [block0, block1] = std::minmax(m_anchor->block, ref.block);
    const auto [expert0, expert1] = std::minmax(m_anchor->expert, ref.expert);
    const auto [index0, index1] = std::minmax(m_anchor->index, ref.index);
    RefSet refs;
    for (int block = block0; block <= block1; ++block)
        for (int expert = expert0; expert <= expert1; ++expert)
            for (int index = index0; index <= index1; ++index) refs.push_back({ref.kind, block, expert, index});
    assign(std::move(refs));
}

void SelectionModel::select(std::vector<ComponentRef> refs, Gesture gesture) {
    RefSet given = normalised(std::move(refs));
    switch (gesture) {
    case Gesture::Replace: return assign(std::move(given));
    case Gesture::Add: return assign(united(m_refs, given));
    case Gesture::Remove: return assign(subtracted(m_refs, given));
    case Gesture::Toggle: return assign(united(subtracted(m_refs, given), subtracted(given, m_refs)));
    }
}

void SelectionModel::click(const ComponentRef& ref, Qt::KeyboardModifiers modifiers) {
    if (modifiers & Qt::ControlModifier) toggle(ref);
    else if (modifiers & Qt::ShiftModifier) selectRange(ref);
    else selectOne(ref);
}

SelectionModel::Gesture SelectionModel::rectangleGesture(Qt::KeyboardModifiers modifiers) {
    if (modifiers & Qt::AltModifier) return Gesture::Remove;
    return modifiers & Qt::ControlModifier ? Gesture::Add : Gesture::Replace;
}

void SelectionModel::clear() { assign({}); }

void SelectionModel::beginLiveGesture() { ++m_live; }

void SelectionModel::endLiveGesture() {
    if (m_live == 0 || --m_live > 0) return;
    pushHistory();
}

void SelectionModel::selectAll(PartKind kind) {
    if (m_model) assign(partsOf(*m_model, kind));
}

void SelectionModel::invert() {
    if (!m_model) return;
    std::set<PartKind> kinds;
    for (const auto& ref : m_refs) kinds.insert(ref.kind);
    if (kinds.empty()) kinds.insert(PartKind::Block);
    RefSet all;
    for (const PartKind kind : kinds) all = united(all, partsOf(*m_model, kind));
    assign(subtracted(all, m_refs));
}

void SelectionModel::narrow(PartKind kind) {
    if (!m_model) return;
    RefSet kept;
    std::copy_if(m_refs.begin(), m_refs.end(), std::back_inserter(kept), [&](const auto& ref) { return ref.kind == kind; });
    if (kept.empty())
        for (const int block : blocks()) kept = united(kept, partsOfBlock(*m_model, kind, block));
    assign(std::move(kept));
}

void SelectionModel::spreadToOtherBlocks() {
    if (!m_model) return;
    RefSet spread;
    for (const auto& ref : m_refs) {
        if (ref.block < 0) continue;
        for (const auto& block : m_model->blocks) spread.push_back({ref.kind, block.index, ref.expert, ref.index});
    }
    assign(normalised(std::move(spread)));
}

void SelectionModel::growToLegalGroups() {
    if (!m_model) return;
    RefSet grown = m_refs;
    for (const auto& ref : m_refs) {
        if (ref.kind != PartKind::Head) continue;
        if (const auto* block = findBlock(*m_model, ref.block))
            for (const int head : headsOf(*block, kvGroupOf(*block, ref.index))) grown.push_back(headRef(ref.block, head));
    }
    assign(normalised(std::move(grown)));
}

void SelectionModel::stepBlock(int step) {
    if (!m_model || m_model->blocks.empty()) return;
    const int last = m_model->blocks.back().index;
    const auto current = blocks();
    if (current.empty()) return selectOne(blockRef(step > 0 ? 0 : last));
    if (current.front() + step < 0 || current.back() + step > last) return;
    RefSet moved;
    for (ComponentRef ref : m_refs) {
        if (ref.block < 0) continue;
        ref.block += step;
        moved.push_back(ref);
    }
    if (m_anchor && m_anchor->block >= 0) m_anchor->block += step;
    assign(normalised(std::move(moved)));
}

void SelectionModel::goBack() {
    if (!canGoBack()) return;
    m_refs = m_history[--m_position];
    scheduleSelection();
    Q_EMIT historyChanged();
}

void SelectionModel::goForward() {
    if (!canGoForward()) return;
    m_refs = m_history[++m_position];
    scheduleSelection();
    Q_EMIT historyChanged();
}

double SelectionModel::parameters() const {
    if (!m_model) return 0;
    double sum = 0;
    std::map<std::pair<int, int>, size_t> headsInGroup;
    for (const auto& ref : m_refs) {
        if (ref.kind == PartKind::Model) return parametersOf(*m_model, ref);
        if (ref.kind != PartKind::Block && ref.block >= 0 && contains(blockRef(ref.block))) continue;
        const bool inAttention = ref.kind == PartKind::Head || ref.kind == PartKind::KvGroup;
        if (inAttention && contains(attentionRef(ref.block))) continue;
        const bool inMlp = ref.kind == PartKind::Channel || ref.kind == PartKind::Expert || ref.kind == PartKind::Router;
        if (inMlp && contains(mlpRef(ref.block))) continue;
        if (ref.kind == PartKind::Head) {
            const auto* block = findBlock(*m_model, ref.block);
            const int group = block ? kvGroupOf(*block, ref.index) : -1;
            if (contains(kvGroupRef(ref.block, group))) continue;
            // With its last head a group's key and value go too.
            if (block && block->numHeads != block->numKvHeads && ++headsInGroup[{ref.block, group}] == headsOf(*block, group).size())
                sum += 2.0 * static_cast<double>(m_model->hiddenSize) * block->headDim;
        }
        sum += parametersOf(*m_model, ref);
    }
    return sum;
}

QString SelectionModel::words() const {
    if (m_refs.empty()) return tr("Nothing selected");
    std::map<PartKind, qint64> counts;
    std::map<PartKind, std::set<int>> blocksOfKind;
    std::map<std::pair<int, int>, size_t> headsInGroup;
    for (const auto& ref : m_refs) {
        ++counts[ref.kind];
        if (ref.block >= 0) blocksOfKind[ref.kind].insert(ref.block);
        if (ref.kind != PartKind::Head || !m_model) continue;
        if (const auto* block = findBlock(*m_model, ref.block)) ++headsInGroup[{ref.block, kvGroupOf(*block, ref.index)}];
    }
    QStringList parts;
    for (const auto& [kind, count] : counts) {
        QString part = countWords(kind, count);
        if (m_refs.size() == 1) part = text(m_refs.front());
        else if (kind == PartKind::Block || kind == PartKind::Attention || kind == PartKind::Mlp)
            part += QStringLiteral(" (%1)").arg(rangesText({blocksOfKind[kind].begin(), blocksOfKind[kind].end()}));
        else if (blocksOfKind[kind].size() == 1) part += tr(" in block %1").arg(*blocksOfKind[kind].begin());
        else if (!blocksOfKind[kind].empty()) part += tr(" in %1 blocks").arg(blocksOfKind[kind].size());
        parts << part;
    }
    qint64 wholeGroups = 0;
    for (const auto& [key, heads] : headsInGroup) {
        const auto* block = findBlock(*m_model, key.first);
        if (block->numHeads != block->numKvHeads && heads == headsOf(*block, key.second).size()) ++wholeGroups;
    }
    if (wholeGroups > 0) parts << (wholeGroups == 1 ? tr("1 whole key group") : tr("%1 whole key groups").arg(wholeGroups));
    if (m_model && m_model->parameters > 0) {
        const double share = 100 * parameters() / static_cast<double>(m_model->parameters);
        parts << tr("%1 % of parameters").arg(QLocale::c().toString(share, 'f', share < 0.095 ? 3 : share < 9.95 ? 1 : 0));
    }
    QString words = parts.join(QStringLiteral(", "));
    words[0] = words[0].toUpper();
    return words;
}

}  // namespace resect::ui
