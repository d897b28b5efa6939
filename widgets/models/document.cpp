#include "widgets/models/document.h"

#include <QUndoCommand>

#include <algorithm>
#include <set>

namespace resect::ui {

/// Every change of the plan: the rows before and after. Rows are shared, so a step costs pointers, not channel lists.
class PlanCommand : public QUndoCommand {
public:
    PlanCommand(Document& document, Plan after, const QString& text, int gesture)
        : QUndoCommand(text), m_document(document), m_before(document.m_plan), m_after(std::move(after)), m_gesture(gesture) {}
    void redo() override { m_document.setPlan(m_after); }
    void undo() override { m_document.setPlan(m_before); }
    int id() const override { return m_gesture == 0 ? -1 : 1; }
    bool mergeWith(const QUndoCommand* other) override {
        const auto* later = static_cast<const PlanCommand*>(other);
        if (later->m_gesture != m_gesture) return false;
        m_after = later->m_after;
        setText(later->text());
        return true;
    }

private:
    Document& m_document;
    Plan m_before, m_after;
    int m_gesture;
};

Document::Document(QObject* parent) : QObject(parent) {}

void Document::setModel(protocol::ModelMessage model) {
    m_model = std::make_shared<const protocol::ModelMessage>(std::move(model));
    m_measures.clear();
    m_selection.setModel(m_model);
    loadPlan({});
    Q_EMIT modelChanged();
    Q_EMIT measuresChanged();
}

void Document::closeModel() {
    m_model.reset();
    m_measures.clear();
    m_workspace.clear();
    m_selection.setModel(nullptr);
    loadPlan({});
    Q_EMIT modelChanged();
    Q_EMIT measuresChanged();
    Q_EMIT workspaceChanged();
}

void Document::setPlan(Plan plan) {
    m_plan = std::move(plan);
    m_drops = m_model ? DropIndex(m_plan, *m_model) : DropIndex();
    ++m_revision;
    const bool hadPreview = m_preview.has_value();
    m_check.reset();
    m_preview.reset();
    Q_EMIT planChanged();
    Q_EMIT checkChanged();
    if (hadPreview) Q_EMIT previewChanged();
}

void Document::push(Plan plan, const QString& text, int gesture) {
    const auto same = [](const auto& a, const auto& b) { return a == b || *a == *b; };
    if (plan.size() == m_plan.size() && std::equal(plan.begin(), plan.end(), m_plan.begin(), same)) return;
    m_undoStack.push(new PlanCommand(*this, std::move(plan), text, gesture));
}

Json Document::planJson() const { return planToJson(m_plan, m_model ? m_model->fingerprint : std::string()); }

bool Document::planIsEmpty() const {
    return std::none_of(m_plan.begin(), m_plan.end(), [](const auto& entry) { return entry->enabled; });
}

void Document::drop(const RefSet& given, const QString& origin) {
    if (!m_model) return;
    RefSet refs;
    for (const auto& ref : given)
        if (exists(*m_model, ref) && !isDropped(ref)) refs.push_back(ref);
    refs = normalised(std::move(refs));
    const auto edits = editsFor(refs, *m_model);
    if (edits.empty()) return;
    const bool layers = std::all_of(refs.begin(), refs.end(), [](const auto& ref) { return ref.index < 0 && ref.expert < 0; });
    push(withEdits(m_plan, edits, origin), (layers ? tr("Drop %1") : tr("Remove %1")).arg(dropWords(refs)));
}

void Document::undrop(const RefSet& given) {
    if (!m_model) return;
    RefSet refs;
    for (const auto& ref : given)
        if (dropState(ref) != DropState::Kept) refs.push_back(ref);
    refs = normalised(std::move(refs));
    if (!refs.empty()) push(without(m_plan, refs, *m_model), tr("Keep %1").arg(dropWords(refs)));
}

void Document::addEdits(const std::vector<Json>& edits, const QString& title, const QString& origin) {
    push(withEdits(m_plan, edits, origin), title);
}

void Document::replaceEntry(int row, const std::vector<Json>& edits, const QString& title) {
    if (row < 0 || row >= static_cast<int>(m_plan.size())) return;
    Plan plan = m_plan;
    const QString origin = plan[static_cast<size_t>(row)]->origin;
    plan.erase(plan.begin() + row);
    for (size_t i = 0; i < edits.size(); ++i) plan.insert(plan.begin() + row + static_cast<int>(i), planEntry(edits[i], origin));
    push(std::move(plan), title);
}

void Document::removeEntries(std::vector<int> rows) {
    const std::set<int> gone(rows.begin(), rows.end());
    Plan plan;
    QString last;
    for (int row = 0; row < static_cast<int>(m_plan.size()); ++row) {
        if (gone.contains(row)) last = editTitle(m_plan[static_cast<size_t>(row)]->edit);
        else plan.push_back(m_plan[static_cast<size_t>(row)]);
    }
    const auto removed = m_plan.size() - plan.size();
    push(std::move(plan), removed == 1 ? tr("Delete edit \"%1\"").arg(last) : tr("Delete %1 edits").arg(removed));
}

void Document::moveEntry(int from, int to) {
    const int size = static_cast<int>(m_plan.size());
    if (from < 0 || from >= size || to < 0 || to >= size || from == to) return;
    Plan plan = m_plan;
    auto entry = plan[static_cast<size_t>(from)];
    plan.erase(plan.begin() + from);
    plan.insert(plan.begin() + to, entry);
    push(std::move(plan), tr("Move edit \"%1\"").arg(editTitle(entry->edit)));
}

void Document::setEntryEnabled(int row, bool enabled) {
    if (row < 0 || row >= static_cast<int>(m_plan.size())) return;
    Plan plan = m_plan;
    PlanEntry entry = *plan[static_cast<size_t>(row)];
    entry.enabled = enabled;
    plan[static_cast<size_t>(row)] = std::make_shared<const PlanEntry>(entry);
    push(std::move(plan), (enabled ? tr("Switch on \"%1\"") : tr("Switch off \"%1\"")).arg(editTitle(entry.edit)));
}

void Document::setEntryNote(int row, const QString& note) {
    if (row < 0 || row >= static_cast<int>(m_plan.size())) return;
    Plan plan = m_plan;
    PlanEntry entry = *plan[static_cast<size_t>(row)];
    entry.note = note;
    plan[static_cast<size_t>(row)] = std::make_shared<const PlanEntry>(entry);
    push(std::move(plan), tr("Note on \"%1\"").arg(editTitle(entry.edit)));
}

void Document::clearPlan() { push({}, tr("Clear the plan")); }

void Document::setDroppedChannels(int block, const std::vector<int>& channels, int gesture) {
    setDroppedChannels(std::vector<std::pair<int, std::vector<int>>>{{block, channels}}, gesture);
}

void Document::setDroppedChannels(const std::vector<std::pair<int, std::vector<int>>>& channelsOfBlocks, int gesture) {
    if (!m_model) return;
    Plan plan = m_plan;
    for (const auto& [block, channels] : channelsOfBlocks) {
        std::erase_if(plan, [&, index = block](const auto& entry) {
            if (!entry->enabled) return false;
            const auto refs = refsOf(entry->edit);
            return !refs.empty() && refs.front().kind == PartKind::Channel && refs.front().block == index;
        });
        RefSet refs;
        for (const int channel : channels) refs.push_back(channelRef(block, channel));
        for (auto& edit : editsFor(normalised(std::move(refs)), *m_model)) plan.push_back(planEntry(std::move(edit)));
    }
    const QString text = channelsOfBlocks.size() == 1
                             ? tr("Set MLP width of block %1").arg(channelsOfBlocks.front().first)
                             : tr("Set MLP width of %1 blocks").arg(channelsOfBlocks.size());
    push(std::move(plan), text, gesture);
}

void Document::loadPlan(Plan plan) {
    m_undoStack.clear();
    setPlan(std::move(plan));
    m_undoStack.setClean();
}

void Document::replacePlan(Plan plan, const QString& title) { push(std::move(plan), title); }

void Document::setCheck(protocol::PlanCheckMessage check, int revision) {
    if (revision != m_revision) return;
    m_check = std::move(check);
    Q_EMIT checkChanged();
}

int Document::rowOfEdit(int edit) const {
    for (int row = 0, enabled = 0; row < static_cast<int>(m_plan.size()); ++row)
        if (m_plan[static_cast<size_t>(row)]->enabled && enabled++ == edit) return row;
    return -1;
}

void Document::setPreview(protocol::PreviewMessage preview, int revision) {
    if (revision != m_revision) return;
    m_preview = std::move(preview);
    Q_EMIT previewChanged();
}

void Document::clearPreview() {
    if (!m_preview) return;
    m_preview.reset();
    Q_EMIT previewChanged();
}

void Document::setMeasures(std::vector<protocol::MeasureMessage> measures) {
    m_measures = std::move(measures);
    std::stable_sort(m_measures.begin(), m_measures.end(), [](const auto& a, const auto& b) { return a.created > b.created; });
    Q_EMIT measuresChanged();
}

void Document::addMeasure(protocol::MeasureMessage measure) {
    std::erase_if(m_measures, [&](const auto& entry) { return entry.file == measure.file; });
    m_measures.insert(m_measures.begin(), std::move(measure));
    Q_EMIT measuresChanged();
}

const protocol::MeasureMessage* Document::findMeasure(std::string_view dataset) const {
    for (const auto& measure : m_measures)
        for (const auto& entry : measure.datasets)
            if (entry.name == dataset) return &measure;
    return nullptr;
}

void Document::setMethods(std::vector<protocol::MethodMessage> methods, std::vector<protocol::MethodMessage> recipes) {
    m_methods = std::move(methods);
    m_recipes = std::move(recipes);
    Q_EMIT methodsChanged();
}

void Document::setData(protocol::DataMessage data) {
    m_data = std::move(data);
    Q_EMIT dataChanged();
}

void Document::setCompute(ComputeSettings compute) {
    if (compute == m_compute) return;
    m_compute = std::move(compute);
    Q_EMIT dataChanged();
}

void Document::setWorkspace(const QString& folder) {
    if (folder == m_workspace) return;
    m_workspace = folder;
    Q_EMIT workspaceChanged();
}

}  // namespace resect::ui
