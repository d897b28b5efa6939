#pragma once
#include "widgets/models/component_ref.h"

#include <QString>

#include <memory>
#include <vector>

namespace resect::ui {

/// One row of the plan. Immutable, so that undo steps share rows.
struct PlanEntry {
    Json edit;           ///< as in plan.json: {"op": "drop_heads", "block": 3, "heads": [1, 5]}
    bool enabled = true; ///< temporarily off: stays in the list, is not sent
    QString origin;      ///< "by hand" or the method that proposed it
    QString note;
    bool operator==(const PlanEntry&) const = default;
};

using Plan = std::vector<std::shared_ptr<const PlanEntry>>;

std::shared_ptr<const PlanEntry> planEntry(Json edit, QString origin = QString());

/// "Drop attention of blocks 18-20, 22", "Remove heads 3, 7 of block 12"; an operation that the window does not know keeps its name.
QString editTitle(const Json& edit);
/// The parts that an edit names; empty for operations that the window does not know.
RefSet refsOf(const Json& edit);
/// The fewest edits that drop these parts: blocks, attention and MLPs in one edit each, the rest one edit per block.
/// Parts inside another dropped part are left out; query heads that make up a whole key group become the group.
std::vector<Json> editsFor(const RefSet& refs, const protocol::ModelMessage& model);
/// "Drop 2 blocks", "Remove 3 heads from block 12", "Remove 5 heads from 3 blocks": for undo texts.
QString dropWords(const RefSet& refs);

/// {"resect_plan": 1, "source": {...}, "edits": [the enabled ones], "notes": {...}}
Json planToJson(const Plan& plan, const std::string& fingerprint);
/// Everything, also what is switched off and who proposed it (in "notes"), so that a saved plan opens as it was.
Json planToFile(const Plan& plan, const std::string& fingerprint);
/// Throws resect::Error (BadInput) naming the field.
Plan planFromFile(const Json& json, const std::string& subject);
std::string planFingerprint(const Json& json);

/// Adds edits, folding each into the last enabled entry of the same operation (and block) by the same origin.
Plan withEdits(Plan plan, const std::vector<Json>& edits, const QString& origin);
/// Takes parts out of every edit that names them, an edit left empty disappears. A head of a dropped group turns the group
/// into its other heads; a part of a dropped layer or block brings the layer or block back.
Plan without(const Plan& plan, const RefSet& refs, const protocol::ModelMessage& model);

enum class DropState { Kept, Partly, Dropped };

/// What the enabled edits of a plan drop, for quick questions. A part inside a dropped part is dropped; a part with dropped parts inside is partly dropped.
class DropIndex {
public:
    DropIndex() = default;
    DropIndex(const Plan& plan, const protocol::ModelMessage& model);
    DropState state(const ComponentRef& ref) const;
    bool dropped(const ComponentRef& ref) const { return state(ref) == DropState::Dropped; }
    int keptChannels(int block) const;   ///< 0 when the MLP is dropped
    int keptHeads(int block) const;
    bool empty() const noexcept { return m_empty; }

private:
    struct Block {
        bool dropped = false, attention = false, mlp = false, hasAttention = false, hasMlp = false;
        std::vector<bool> heads, groups, channels, experts;
        std::vector<int> groupOfHead;
        size_t droppedHeads = 0, droppedChannels = 0, droppedExperts = 0;
    };
    DropState stateOfLayer(const Block& block, bool whole, bool present, size_t dropped, size_t total) const;
    const Block* find(int block) const;

    std::vector<Block> m_blocks;
    bool m_empty = true;
};

}  // namespace resect::ui
