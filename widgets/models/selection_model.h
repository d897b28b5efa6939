#pragma once
#include "widgets/models/component_ref.h"

#include <QObject>

#include <memory>
#include <optional>
#include <vector>

namespace resect::ui {

/// What is highlighted now, shared by every view of a document: a set of parts, the hovered part, the anchor of range selection.
///
/// Setters take effect at once; selectionChanged and hoverChanged are broadcast at most once per turn of the event loop.
/// A new model clears everything. Parts that the model does not have are left out.
class SelectionModel : public QObject {
    Q_OBJECT
public:
    enum class Gesture { Replace, Toggle, Add, Remove };

    explicit SelectionModel(QObject* parent = nullptr);

    void setModel(std::shared_ptr<const protocol::ModelMessage> model);
    const protocol::ModelMessage* model() const noexcept { return m_model.get(); }

    const RefSet& refs() const noexcept { return m_refs; }
    bool isEmpty() const noexcept { return m_refs.empty(); }
    bool contains(const ComponentRef& ref) const { return ui::contains(m_refs, ref); }
    /// Selected, or inside something selected: a head of a selected block.
    bool covers(const ComponentRef& ref) const;
    std::vector<int> blocks() const;  ///< blocks that the selection touches, ascending

    const std::optional<ComponentRef>& hover() const noexcept { return m_hover; }
    const std::optional<ComponentRef>& anchor() const noexcept { return m_anchor; }
    void setHover(std::optional<ComponentRef> ref);
    void setAnchor(std::optional<ComponentRef> ref) { m_anchor = ref; }

    // The gestures of every canvas. Each is one step of the history unless a live gesture is open.
    void selectOne(const ComponentRef& ref);
    void toggle(const ComponentRef& ref);
    /// Everything of the same kind between the anchor and `ref`: blocks of the span, and in them the indices of the span.
    void selectRange(const ComponentRef& ref);
    void select(std::vector<ComponentRef> refs, Gesture gesture = Gesture::Replace);
    /// Click with the modifiers of the canvases: none = one, Ctrl = toggle, Shift = range.
    void click(const ComponentRef& ref, Qt::KeyboardModifiers modifiers);
    /// none = Replace, Ctrl = Add, Alt = Remove.
    static Gesture rectangleGesture(Qt::KeyboardModifiers modifiers);
    void clear();

    /// Between these (a handle being dragged) changes are broadcast live but make one history step.
    void beginLiveGesture();
    void endLiveGesture();

    void selectAll(PartKind kind);
    /// All other parts of the kinds that are selected; nothing selected: all blocks.
    void invert();
    /// Keeps the parts of that kind; when there are none, the parts of that kind inside what is selected (or around it).
    void narrow(PartKind kind);
    /// The same head, group or channel numbers (or layer) in every other block.
    void spreadToOtherBlocks();
    /// Query heads grow to whole key groups.
    void growToLegalGroups();
    /// Moves a selection of blocks (or the blocks of the selection) by `step`.
    void stepBlock(int step);

    bool canGoBack() const noexcept { return m_position > 0; }
    bool canGoForward() const noexcept { return m_position + 1 < m_history.size(); }
    void goBack();
    void goForward();

    /// "12 query heads in 7 blocks, 3 whole key groups, 0.9 % of parameters"; empty selection: "Nothing selected".
    QString words() const;
    double parameters() const;  ///< of everything selected; a part inside another selected part counts once

Q_SIGNALS:
    void selectionChanged();
    void hoverChanged();
    void historyChanged();

private:
    void assign(RefSet refs);
    void pushHistory();
    void scheduleSelection();
    void emitPending();

    static constexpr size_t kHistoryLength = 64;

    std::shared_ptr<const protocol::ModelMessage> m_model;
    RefSet m_refs;
    std::optional<ComponentRef> m_hover, m_anchor;
    std::vector<RefSet> m_history{RefSet{}};
    size_t m_position = 0;
    int m_live = 0;
    bool m_selectionPending = false, m_hoverPending = false, m_posted = false;
};

}  // namespace resect::ui
