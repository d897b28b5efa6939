#pragma once
#include "widgets/models/plan.h"
#include "widgets/models/selection_model.h"

#include <QObject>
#include <QUndoStack>

#include <memory>
#include <optional>
#include <vector>

namespace resect::ui {

/// How jobs are run; the same for measuring, preview and recovery.
struct ComputeSettings {
    std::string device = "auto";   ///< "auto", "cpu", "cuda:0"
    std::string dtype = "f32";     ///< "f32", "bf16", "f16"
    bool operator==(const ComputeSettings&) const = default;
};

/// What is open: the model, the plan with its undo stack, the latest check of the plan, measurements, the chosen calibration data.
///
/// Never calls the worker. All changes of the plan go through the undo stack; everything else is not undone.
class Document : public QObject {
    Q_OBJECT
public:
    explicit Document(QObject* parent = nullptr);

    /// Null when nothing is open. The pointer changes with every model.
    const protocol::ModelMessage* model() const noexcept { return m_model.get(); }
    std::shared_ptr<const protocol::ModelMessage> sharedModel() const noexcept { return m_model; }
    /// Replaces model and clears plan, undo stack, check, measures. The selection follows.
    void setModel(protocol::ModelMessage model);
    void closeModel();
    SelectionModel& selection() noexcept { return m_selection; }
    const SelectionModel& selection() const noexcept { return m_selection; }

    const Plan& plan() const noexcept { return m_plan; }
    QUndoStack& undoStack() noexcept { return m_undoStack; }
    const DropIndex& drops() const noexcept { return m_drops; }
    bool isDropped(const ComponentRef& ref) const { return m_drops.dropped(ref); }
    DropState dropState(const ComponentRef& ref) const { return m_drops.state(ref); }
    /// What the worker takes: enabled edits with the fingerprint of the open model.
    Json planJson() const;
    bool planIsEmpty() const;      ///< no enabled edit
    /// Counts up with every change of the plan; replies for an older one are stale.
    int planRevision() const noexcept { return m_revision; }

    // Each is one undo step; the ones without effect make none.
    void drop(const RefSet& refs, const QString& origin = QString());
    void undrop(const RefSet& refs);
    void dropSelection() { drop(m_selection.refs()); }
    void undropSelection() { undrop(m_selection.refs()); }
    void addEdits(const std::vector<Json>& edits, const QString& title, const QString& origin);
    void replaceEntry(int row, const std::vector<Json>& edits, const QString& title);
    void removeEntries(std::vector<int> rows);
    void moveEntry(int from, int to);          ///< `to` is the row it has afterwards
    void setEntryEnabled(int row, bool enabled);
    void setEntryNote(int row, const QString& note);
    void clearPlan();
    /// Makes exactly these channels of a block's MLP the dropped ones. Steps of one drag (same `gesture`, not 0) merge into one.
    void setDroppedChannels(int block, const std::vector<int>& channels, int gesture = 0);
    /// Several blocks at once, the same rules.
    void setDroppedChannels(const std::vector<std::pair<int, std::vector<int>>>& channelsOfBlocks, int gesture = 0);
    int newGesture() { return ++m_lastGesture; }
    /// A plan that was read from a file: no undo step, the stack starts anew.
    void loadPlan(Plan plan);
    /// One that replaces the current one as an undo step ("Open plan NAME").
    void replacePlan(Plan plan, const QString& title);

    /// The verdict on the plan as it is now; null while it is being asked for.
    const protocol::PlanCheckMessage* check() const noexcept { return m_check ? &*m_check : nullptr; }
    void setCheck(protocol::PlanCheckMessage check, int revision);  ///< ignored when the plan has changed since
    /// Row of the plan that entry `edit` of a check belongs to; -1 = the plan as a whole.
    int rowOfEdit(int edit) const;

    const protocol::PreviewMessage* preview() const noexcept { return m_preview ? &*m_preview : nullptr; }
    void setPreview(protocol::PreviewMessage preview, int revision);
    void clearPreview();           ///< other data or settings: what was measured no longer holds

    const std::vector<protocol::MeasureMessage>& measures() const noexcept { return m_measures; }
    void setMeasures(std::vector<protocol::MeasureMessage> measures);
    /// Newest first; one with the same file is replaced.
    void addMeasure(protocol::MeasureMessage measure);
    /// Newest measurement that has a dataset of this name; null when there is none.
    const protocol::MeasureMessage* findMeasure(std::string_view dataset) const;

    const std::vector<protocol::MethodMessage>& methods() const noexcept { return m_methods; }
    const std::vector<protocol::MethodMessage>& recipes() const noexcept { return m_recipes; }
    void setMethods(std::vector<protocol::MethodMessage> methods, std::vector<protocol::MethodMessage> recipes);

    /// Calibration text for measuring and preview; file "" = none chosen yet.
    const protocol::DataMessage& data() const noexcept { return m_data; }
    void setData(protocol::DataMessage data);
    const ComputeSettings& compute() const noexcept { return m_compute; }
    void setCompute(ComputeSettings compute);

    /// The workspace folder, absolute; set as soon as a model is open.
    const QString& workspace() const noexcept { return m_workspace; }
    void setWorkspace(const QString& folder);

Q_SIGNALS:
    void modelChanged();
    void planChanged();
    void checkChanged();
    void previewChanged();
    void measuresChanged();
    void methodsChanged();
    void dataChanged();       ///< data or compute settings
    void workspaceChanged();

private:
    friend class PlanCommand;
    void push(Plan plan, const QString& text, int gesture = 0);
    void setPlan(Plan plan);

    std::shared_ptr<const protocol::ModelMessage> m_model;
    SelectionModel m_selection;
    QUndoStack m_undoStack;
    Plan m_plan;
    DropIndex m_drops;
    int m_revision = 0, m_lastGesture = 0;
    std::optional<protocol::PlanCheckMessage> m_check;
    std::optional<protocol::PreviewMessage> m_preview;
    std::vector<protocol::MeasureMessage> m_measures;
    std::vector<protocol::MethodMessage> m_methods, m_recipes;
    protocol::DataMessage m_data;
    ComputeSettings m_compute;
    QString m_workspace;
};

}  // namespace resect::ui
