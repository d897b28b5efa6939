#pragma once
#include "core/anatomy/component.h"
#include "core/anatomy/family.h"
#include "core/anatomy/model_shape.h"
#include "core/base/error.h"
#include "core/base/job.h"
#include "core/base/problem.h"
#include "core/checkpoint/checkpoint.h"

#include <map>
#include <optional>
#include <vector>

namespace resect {

/// The parts of a checkpoint as a tree: blocks, layers, then kv groups with their heads, or router and experts. Channels are counted, not listed.
///
/// Every stored parameter is owned by exactly one component, so that counts add up to the checkpoint's total. A dropped layer of a block is not in
/// the tree. A tied head is not a component of its own. Of a checkpoint that is not understood the tree holds what the tensor names suggest:
/// blocks without layers, and everything else at the root.
class Anatomy {
public:
    /// Never throws for a strange config or family: problems() says what is wrong, shape() is then empty and cutting refused.
    static Anatomy of(const Checkpoint& checkpoint);

    bool understood() const noexcept { return m_shape.has_value(); } ///< the family is known and every tensor has its place
    const ModelShape& shape() const;                    ///< throws Unsupported or BadInput with the reason when not understood
    const Component& root() const noexcept { return m_root; }
    /// Tensors that the shape calls for, by name. Empty when not understood.
    const std::map<std::string, ExpectedTensor>& expected() const noexcept { return m_expected; }
    /// The slices that go when the component goes: its own, those of its children, and the router's row of an expert. Also of a Channel
    /// (`expert` names the expert in a mixture). Throws NotFound.
    std::vector<TensorSlice> slices(const ComponentId& id) const;
    /// The component's count in the tree: children included, the router's row of an expert not. Of a Channel: its rows and columns. Throws NotFound.
    std::int64_t parameters(const ComponentId& id) const;
    /// Missing, unexpected, misshapen, tied-but-different, unknown family, bad fields. Errors among them, or among Checkpoint::problems()
    /// (which are not repeated here), = not understood.
    const std::vector<Problem>& problems() const noexcept { return m_problems; }

private:
    const Component* find(const ComponentId& id) const noexcept;

    std::optional<ModelShape> m_shape;
    std::optional<Error> m_reason;      ///< why there is no shape
    Component m_root;
    std::map<std::string, ExpectedTensor> m_expected;
    std::vector<Problem> m_problems;
};

/// Reads all data and reports tensors with NaN or infinity, naming the first position and the number of them. Stops early with a note when the
/// job is stopped.
std::vector<Problem> findNonFinite(const Checkpoint& checkpoint, const JobContext& job);

}  // namespace resect
