#include "core/anatomy/anatomy.h"

#include "core/anatomy/component_tree.h"
#include "core/anatomy/health.h"
#include "core/base/numbers.h"

#include <algorithm>

namespace resect {

namespace {

void collect(const Component& component, std::vector<TensorSlice>& slices) {
    slices.insert(slices.end(), component.slices.begin(), component.slices.end());
    for (const Component& child : component.children) collect(child, slices);
}

const Component* search(const Component& component, const ComponentId& id) noexcept {
    if (component.id == id) return &component;
    for (const Component& child : component.children) {
        if (child.id.block >= 0 && child.id.block != id.block) continue;
        if (const Component* found = search(child, id)) return found;
    }
    return nullptr;
}

bool isChannel(const ModelShape& shape, const ComponentId& id) noexcept {
    const bool shared = id.kind == ComponentKind::SharedChannel;
    if ((id.kind != ComponentKind::Channel && !shared) || id.block < 0 || id.block >= shape.numBlocks()) return false;
    const BlockShape& block = shape.blocks[static_cast<std::size_t>(id.block)];
    if (shared) return block.hasFfn && id.index >= 0 && id.index < block.sharedFfnSize;
    const bool expertFits = block.numExperts > 0 ? id.expert >= 0 && id.expert < block.numExperts : id.expert == -1;
    return block.hasFfn && expertFits && id.index >= 0 && id.index < block.ffnSize;
}

Error notFound(const ComponentId& id) {
    std::string text(name(id.kind));
    if (id.block >= 0) text += " of block " + toText(id.block);
    return Error(ErrorCode::NotFound, text, "the checkpoint has no component with index " + toText(std::max(id.index, id.expert)));
}

}  // namespace

Anatomy Anatomy::of(const Checkpoint& checkpoint) {
    Anatomy anatomy;
    if (checkpoint.config().is_null()) {
        anatomy.m_reason.emplace(ErrorCode::NotFound, "config.json", "is missing, so that the tensors cannot be understood");
        anatomy.m_problems.push_back({Severity::Error, "config.json", "is missing, so that the tensors cannot be understood",
                                      "Put the config.json of the model beside its weights."});
    } else {
        try {
            anatomy.m_shape = readModelShape(checkpoint.config(), checkpoint.resectConfig(), "config.json");
        } catch (const Error& error) {
            anatomy.m_reason = error;
            const bool unknown = error.code() == ErrorCode::Unsupported;
            anatomy.m_problems.push_back({Severity::Error, error.subject(), error.message(),
                                          unknown ? "Its tensors can be inspected; it cannot be cut, run or trained here." : "Correct the field in the file."});
        }
    }
    if (anatomy.m_shape) {
        for (ExpectedTensor& tensor : expectedTensors(*anatomy.m_shape)) {
            std::string name = tensor.name;
            anatomy.m_expected.emplace(std::move(name), std::move(tensor));
        }
        const auto found = compareTensors(checkpoint, *anatomy.m_shape, anatomy.m_expected);
        anatomy.m_problems.insert(anatomy.m_problems.end(), found.begin(), found.end());
        const auto takeReason = [&](const std::vector<Problem>& problems) {
            for (const Problem& problem : problems)
                if (problem.severity == Severity::Error && !anatomy.m_reason) anatomy.m_reason.emplace(ErrorCode::BadInput, problem.subject, problem.message);
        };
        takeReason(anatomy.m_problems);
        takeReason(checkpoint.problems());
        if (anatomy.m_reason) anatomy.m_shape.reset(), anatomy.m_expected.clear();
    }
    anatomy.m_root = anatomy.m_shape ? componentTree(*anatomy.m_shape, anatomy.m_expected, checkpoint) : componentTreeByName(checkpoint);
    return anatomy;
}

const ModelShape& Anatomy::shape() const {
    if (!m_shape) throw Error(m_reason ? *m_reason : Error(ErrorCode::Internal, "anatomy", "is empty"));
    return *m_shape;
}

const Component* Anatomy::find(const ComponentId& id) const noexcept { return search(m_root, id); }

std::vector<TensorSlice> Anatomy::slices(const ComponentId& id) const {
    if (m_shape && isChannel(*m_shape, id)) return unitSlices(*m_shape, id);
    const Component* component = find(id);
    if (!component) throw notFound(id);
    std::vector<TensorSlice> slices;
    collect(*component, slices);
    if (m_shape && id.kind == ComponentKind::Expert) {
        const auto router = unitSlices(*m_shape, id);
        slices.insert(slices.end(), router.begin(), router.end());
    }
    return slices;
}

std::int64_t Anatomy::parameters(const ComponentId& id) const {
    if (m_shape && isChannel(*m_shape, id)) {
        std::int64_t count = 0;
        for (const TensorSlice& slice : unitSlices(*m_shape, id)) {
            const auto& shape = m_expected.at(slice.tensor).shape;
            count += shape.size() == 1 ? 1 : shape[static_cast<std::size_t>(1 - slice.axis)];
        }
        return count;
    }
    const Component* component = find(id);
    if (!component) throw notFound(id);
    return component->parameters;
}

}  // namespace resect
