#include "core/anatomy/component_tree.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <numeric>
#include <optional>

namespace resect {

namespace {

std::vector<TensorSlice> slicesOfUnit(const ModelShape& shape, const std::vector<TensorRole>& roles, const ComponentId& id) {
    const BlockShape& block = shape.blocks[static_cast<std::size_t>(id.block)];
    const Family& family = familyOf(shape.of(id.block));
    const std::int64_t index = id.kind == ComponentKind::Expert ? id.expert : id.index;
    std::vector<TensorSlice> slices;
    for (const TensorRole role : roles) {
        const AxisUnits units = unitsAlong(family, role);
        std::vector<IndexRange> ranges;
        std::int64_t at = 0;
        for (const ComponentKind kind : units.segments) {
            const std::int64_t places = placesPerUnit(block, kind);
            if (kind == id.kind) ranges.push_back({at + index * places, at + (index + 1) * places});
            at += unitCount(block, kind) * places;
        }
        if (!ranges.empty()) slices.push_back({tensorName(shape, role, id.block, isExpertRole(role) ? id.expert : -1), units.axis, std::move(ranges)});
    }
    return slices;
}

class Builder {
public:
    Builder(const ModelShape& shape, const std::map<std::string, ExpectedTensor>& expected, const Checkpoint& checkpoint)
        : m_shape(shape), m_family(familyOf(shape)), m_expected(expected), m_checkpoint(checkpoint) {}

    Component run() {
        Component root = make(ComponentKind::Model, -1, -1, -1, std::string(m_family.title));
        if (m_shape.towers.empty()) {
            addTower(root, m_shape, -1, {0, m_shape.numBlocks()});
        } else {
            for (int tower = 0; tower < static_cast<int>(m_shape.towers.size()); ++tower)
                addTower(root, m_shape.towers[static_cast<std::size_t>(tower)].shape, tower, blocksOf(m_shape, tower));
            Component link = make(ComponentKind::Projector, -1, -1, -1, m_shape.modelType == "clip" ? "Projections" : "Projector");
            for (const auto& [name, tensor] : m_expected)
                if (tensor.tower < 0) link.slices.push_back({name, -1, {}});
            root.children.push_back(std::move(link));
        }
        addUp(root);
        return root;
    }

private:
    static Component make(ComponentKind kind, int block, int expert, int index, std::string title) {
        Component component;
        component.id = {kind, block, expert, index};
        component.title = std::move(title);
        return component;
    }
    /// Embedding, blocks, final norm and head of the model (tower -1) or of one tower. Where there are several, those outside the blocks have its
    /// number as their index; the language tower's have none.
    void addTower(Component& root, const ModelShape& shape, int tower, BlockSpan blocks) {
        const bool several = tower >= 0;
        const int index = several && tower + 1 < static_cast<int>(m_shape.towers.size()) ? tower : -1;
        const std::string of = several ? m_shape.towers[static_cast<std::size_t>(tower)].title + ": " : "";
        const auto title = [&](std::string text) {
            if (several) text.front() = static_cast<char>(std::tolower(static_cast<unsigned char>(text.front())));
            return of + text;
        };
        Component embedding = make(ComponentKind::Embedding, -1, -1, index, title(shape.image ? "Patch embedding" : shape.tiedEmbeddings ? "Embedding and output head (tied)" : "Embedding"));
        Component norm = make(ComponentKind::FinalNorm, -1, -1, index, title("Final norm"));
        Component head = make(ComponentKind::LmHead, -1, -1, index, title(shape.image ? "Classifier" : "Output head"));
        for (const auto& [name, tensor] : m_expected)
            if (tensor.block < 0 && tensor.tower == std::max(tower, 0))
                (isEmbeddingRole(tensor.role) ? embedding : isNormRole(tensor.role) ? norm : head).slices.push_back({name, -1, {}});
        root.children.push_back(std::move(embedding));
        for (int b = blocks.first; b < blocks.last; ++b) {
            root.children.push_back(block(b));
            if (several) root.children.back().title = title("Block " + std::to_string(b));
        }
        root.children.push_back(std::move(norm));
        if (!head.slices.empty()) root.children.push_back(std::move(head));
    }
    void own(Component& component, TensorRole role, int expert = -1) const {
        component.slices.push_back({tensorName(m_shape, role, component.id.block, expert), -1, {}});
    }
    Component unit(ComponentKind kind, int block, int index, std::string title) const {
        Component component = make(kind, block, -1, index, std::move(title));
        component.slices = slicesOfUnit(m_shape, m_roles, component.id);
        return component;
    }

    Component block(int b) {
        const BlockShape& shape = m_shape.blocks[static_cast<std::size_t>(b)];
        m_roles = rolesOf(m_shape, b);
        Component block = make(ComponentKind::Block, b, -1, -1, "Block " + std::to_string(b));
        if (shape.hasAttention) block.children.push_back(attention(b, shape));
        if (shape.hasFfn) block.children.push_back(ffn(b, shape));
        return block;
    }

    /// What of an attention layer no head or kv group owns: norms, the output bias.
    Component attention(int b, const BlockShape& shape) const {
        Component layer = make(ComponentKind::AttentionLayer, b, -1, -1, "Attention");
        for (const TensorRole role : m_roles)
            if (isAttentionRole(role) && unitsAlong(familyOf(m_shape.of(b)), role).axis < 0) own(layer, role);
        int head = 0;
        for (int g = 0; g < shape.numKvHeads; ++g) {
            Component group = unit(ComponentKind::KvGroup, b, g, "KV group " + std::to_string(g));
            for (int i = 0; i < shape.headsPerKv[static_cast<std::size_t>(g)]; ++i, ++head)
                group.children.push_back(unit(ComponentKind::Head, b, head, "Head " + std::to_string(head)));
            layer.children.push_back(std::move(group));
        }
        return layer;
    }

    Component ffn(int b, const BlockShape& shape) const {
        Component layer = make(ComponentKind::FfnLayer, b, -1, -1, shape.numExperts > 0 ? "MoE" : "MLP");
        Component router = make(ComponentKind::Router, b, -1, -1, "Router");
        Component shared = make(ComponentKind::SharedExpert, b, -1, -1, "Shared expert");
        std::vector<TensorRole> expertRoles;
        for (const TensorRole role : m_roles) {
            if (isAttentionRole(role)) continue;
            if (isExpertRole(role)) expertRoles.push_back(role);
            else if (role == TensorRole::RouterWeight || role == TensorRole::RouterCorrection) own(router, role);
            else if (role >= TensorRole::SharedGateWeight) own(shared, role);
            else own(layer, role);
        }
        if (shape.numExperts == 0) return layer;
        layer.children.push_back(std::move(router));
        if (shape.sharedFfnSize > 0) layer.children.push_back(std::move(shared));
        for (int e = 0; e < shape.numExperts; ++e) {
            Component expert = make(ComponentKind::Expert, b, e, -1, "Expert " + std::to_string(e));
            for (const TensorRole role : expertRoles) own(expert, role, e);
            layer.children.push_back(std::move(expert));
        }
        return layer;
    }

    /// Sums parameters and bytes from the leaves up.
    void addUp(Component& component) const {
        for (const TensorSlice& slice : component.slices) {
            const ExpectedTensor& tensor = m_expected.at(slice.tensor);
            std::int64_t count = 1;
            for (std::size_t axis = 0; axis < tensor.shape.size(); ++axis) {
                std::int64_t length = tensor.shape[axis];
                if (slice.axis == static_cast<int>(axis)) {
                    length = 0;
                    for (const IndexRange& range : slice.ranges) length += range.end - range.begin;
                }
                count *= length;
            }
            component.parameters += count;
            component.bytes += static_cast<std::uint64_t>(count) * sizeOf(m_checkpoint.find(slice.tensor)->dtype);
        }
        for (Component& child : component.children) {
            addUp(child);
            component.parameters += child.parameters;
            component.bytes += child.bytes;
        }
    }

    const ModelShape& m_shape;
    const Family& m_family;
    const std::map<std::string, ExpectedTensor>& m_expected;
    const Checkpoint& m_checkpoint;
    std::vector<TensorRole> m_roles;  ///< of the block in hand
};

/// The first part of a dotted name that is a number.
std::optional<int> blockNumber(std::string_view name) {
    for (std::size_t at = 0; at < name.size();) {
        const std::size_t dot = std::min(name.find('.', at), name.size());
        int number = 0;
        const auto [end, error] = std::from_chars(name.data() + at, name.data() + dot, number);
        if (error == std::errc{} && end == name.data() + dot && number >= 0) return number;
        at = dot + 1;
    }
    return std::nullopt;
}

}  // namespace

std::vector<TensorSlice> unitSlices(const ModelShape& shape, const ComponentId& id) {
    return slicesOfUnit(shape, rolesOf(shape, id.block), id);
}

Component componentTree(const ModelShape& shape, const std::map<std::string, ExpectedTensor>& expected, const Checkpoint& checkpoint) {
    return Builder(shape, expected, checkpoint).run();
}

Component componentTreeByName(const Checkpoint& checkpoint) {
    Component root;
    root.id.kind = ComponentKind::Model;
    root.title = "Model";
    std::map<int, Component> blocks;
    for (const TensorInfo& tensor : checkpoint.tensors()) {
        const auto number = blockNumber(tensor.name);
        Component& owner = number ? blocks[*number] : root;
        owner.slices.push_back({tensor.name, -1, {}});
        for (Component* component : {number ? &owner : nullptr, &root}) {
            if (!component) continue;
            component->parameters += tensor.numel();
            component->bytes += tensor.bytes();
        }
    }
    for (auto& [number, block] : blocks) {
        block.id = {ComponentKind::Block, number, -1, -1};
        block.title = "Block " + std::to_string(number);
        root.children.push_back(std::move(block));
    }
    return root;
}

}  // namespace resect
