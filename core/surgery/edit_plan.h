#pragma once
#include "core/base/problem.h"
#include "core/protocol/json.h"
#include "core/surgery/cut.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

/// One entry of a plan. All indices name components of the source checkpoint, whatever else the plan drops. Immutable.
class EditOperation {
public:
    virtual ~EditOperation() = default;
    virtual std::string_view op() const noexcept = 0;  ///< "drop_blocks"
    virtual Json toJson() const = 0;
    virtual std::string title() const = 0;  ///< "Drop attention of blocks 18-20, 22" for lists and undo texts
    /// Problems of this entry alone: indices out of range, repeated, a kind that the family does not have.
    virtual std::vector<Problem> check(const ModelShape& source) const = 0;
    /// Adds its removals. Needs a check() without errors.
    virtual void addTo(Cut& cut, const ModelShape& source) const = 0;
    /// The closest operation that passes check(), null when nothing of this one is legal.
    virtual std::shared_ptr<const EditOperation> nearestLegal(const ModelShape&) const { return nullptr; }
};
using EditPointer = std::shared_ptr<const EditOperation>;

/// How plans spell an operation. Plugins add theirs before plans are read; the built-in ones are always there. Thread-safe.
class OperationRegistry {
public:
    /// Builds the operation from its plan entry. Throws BadInput "subject: field: ..." for a bad one.
    using Reader = std::function<EditPointer(const Json& entry, const std::string& subject)>;
    static OperationRegistry& instance();
    void add(std::string op, Reader reader);  ///< throws Usage when the name is taken
    Reader find(std::string_view op) const;   ///< empty when unknown
    std::vector<std::string> names() const;   ///< ascending

private:
    OperationRegistry();
    ~OperationRegistry();
    struct Data;
    std::unique_ptr<Data> m_data;
};

/// Removes whole blocks. {"op": "drop_blocks", "blocks": [..]}; drop_attention and drop_mlp look alike.
std::shared_ptr<const EditOperation> dropBlocks(std::vector<int> blocks);
std::shared_ptr<const EditOperation> dropAttention(std::vector<int> blocks);
std::shared_ptr<const EditOperation> dropMlp(std::vector<int> blocks);
/// Parts of one block:
/// {"op": "drop_kv_groups", "block": 2, "groups": [0]}, {"op": "drop_heads", "block": 3, "heads": [1]}, {"op": "drop_channels",
/// "block": 4, "channels": [7]}, in a mixture {"op": "drop_channels", "block": 4, "expert": 0, "channels": [7]};
/// {"op": "drop_experts", "block": 6, "experts": [2]}: the router's rows go with them.
std::shared_ptr<const EditOperation> dropKvGroups(int block, std::vector<int> groups);
std::shared_ptr<const EditOperation> dropHeads(int block, std::vector<int> heads);
std::shared_ptr<const EditOperation> dropChannels(int block, std::vector<int> channels);
std::shared_ptr<const EditOperation> dropExpertChannels(int block, int expert, std::vector<int> channels);
std::shared_ptr<const EditOperation> dropSharedChannels(int block, std::vector<int> channels);  ///< of a mixture's shared expert
std::shared_ptr<const EditOperation> dropHidden(std::vector<int> channels);  ///< hidden channels, of the whole model
std::shared_ptr<const EditOperation> dropExperts(int block, std::vector<int> experts);

/// An edit plan: data that is saved, shown, checked after every operation and applied without the method that proposed it.
struct EditPlan {
    std::string fingerprint;  ///< of the source; empty = not bound to one yet
    std::vector<std::shared_ptr<const EditOperation>> edits;
    Json notes;  ///< free: who proposed what; kept as it is

    /// Throws BadInput naming the entry and field: unknown operations, unknown fields, wrong types, another version. `subject`
    /// = file name.
    static EditPlan fromJson(const Json& json, const std::string& subject);
    Json toJson() const;
    std::string hash() const;  ///< "sha256:..." of the cut it describes: independent of order and spelling of the edits
};

/// The operations that a checkpoint of this shape supports, in the order in which they are offered. Empty for an unknown
/// family.
std::vector<std::string> supportedOperations(const ModelShape& source);

/// A finding about a plan. Each of `instead` is one alternative: replacing entry `edit` by it settles the finding (when it
/// stands for the only trouble).
struct PlanProblem {
    Problem problem;
    int edit = -1;  ///< index into EditPlan::edits; -1 = the plan as a whole
    std::vector<std::shared_ptr<const EditOperation>> instead;
};

/// Every problem of the plan: another fingerprint, indices, last head / channel / block removed, everything removed, family
/// cannot be cut, fewer experts than each token is sent to (errors); expert counts that differ between blocks, unequal query heads per kv group, first block without attention (warnings: stock runtimes need the
/// padded way); edits that overlap, head counts that the stock class refuses (notes). Without errors it can be applied. Pass an
/// empty fingerprint to skip that comparison. Pure, under 5 ms for 80 blocks.
std::vector<PlanProblem> checkPlan(const EditPlan& plan, const ModelShape& source, std::string_view fingerprint);

/// The union of all edits. Throws BadInput with the first Error of checkPlan (fingerprint not compared).
Cut cutOf(const EditPlan& plan, const ModelShape& source);

}  // namespace resect
