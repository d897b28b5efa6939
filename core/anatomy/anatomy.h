#pragma once
#include "core/anatomy/component.h"
#include "core/anatomy/family.h"
#include "core/anatomy/model_shape.h"
#include "core/base/job.h"
#include "core/base/problem.h"
#include "core/checkpoint/checkpoint.h"

#include <map>
#include <optional>
#include <vector>

namespace resect {

/// The parts of a checkpoint as a tree: blocks, layers, then heads, kv groups and experts. Channels are counted, not listed.
class Anatomy {
public:
    /// Never throws for a strange config or family: problems() says what is wrong, shape() is then empty and cutting refused.
    static Anatomy of(const Checkpoint& checkpoint);

    bool understood() const noexcept { return m_shape.has_value(); } ///< the family is known and every tensor has its place
    const ModelShape& shape() const;                    ///< throws Unsupported or BadInput with the reason when not understood
    const Component& root() const noexcept { return m_root; }
    /// Tensors that the shape calls for, by name. Empty when not understood.
    const std::map<std::string, ExpectedTensor>& expected() const noexcept { return m_expected; }
    /// The slices a component owns, children included. Throws NotFound.
    std::vector<TensorSlice> slices(const ComponentId& id) const;
    std::int64_t parameters(const ComponentId& id) const;
    /// Missing, unexpected, misshapen, tied-but-different, unknown family, bad fields. Errors among them = not understood.
    const std::vector<Problem>& problems() const noexcept { return m_problems; }

private:
    std::optional<ModelShape> m_shape;
    Component m_root;
    std::map<std::string, ExpectedTensor> m_expected;
    std::vector<Problem> m_problems;
};

/// Reads all data and reports tensors with NaN or infinity, naming the first position. Stops early with a note when the job is stopped.
std::vector<Problem> findNonFinite(const Checkpoint& checkpoint, const JobContext& job);

}  // namespace resect
