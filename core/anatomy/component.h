#pragma once
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace resect {

enum class ComponentKind { Model, Embedding, Block, AttentionLayer, FfnLayer, Head, KvGroup, Channel, Expert, SharedExpert, Router, FinalNorm, LmHead, Projector, SharedChannel };

std::string_view name(ComponentKind kind) noexcept;  ///< "block", "attention", "ffn", "head", "kv_group", "channel", "expert", "shared_channel" (of a shared expert), ...

/// Names a component by position, so that a selection outlives the loaded model. -1 where a field does not apply.
struct ComponentId {
    ComponentKind kind = ComponentKind::Block;
    int block = -1;   ///< 0-based; N in `model.layers.N`
    int expert = -1;  ///< within the FFN layer of `block`
    int index = -1;   ///< head, kv group or channel within its layer
    auto operator<=>(const ComponentId&) const = default;
};

/// Half-open range of indices along one axis.
struct IndexRange {
    std::int64_t begin = 0, end = 0;
    auto operator<=>(const IndexRange&) const = default;
};

/// The part of a stored tensor that belongs to a component: `ranges` along `axis`, everything along the others. axis -1 = the whole tensor.
struct TensorSlice {
    std::string tensor;
    int axis = -1;
    std::vector<IndexRange> ranges;
};

struct Component {
    ComponentId id;
    std::string title;              ///< "Block 3", "Head 5"
    std::int64_t parameters = 0;
    std::uint64_t bytes = 0;        ///< as stored
    std::vector<TensorSlice> slices;///< tensors it owns itself, children's not repeated
    std::vector<Component> children;
};

}  // namespace resect
