#include "core/anatomy/component.h"

namespace resect {

std::string_view name(ComponentKind kind) noexcept {
    switch (kind) {
    case ComponentKind::Model: return "model";
    case ComponentKind::Embedding: return "embedding";
    case ComponentKind::Block: return "block";
    case ComponentKind::AttentionLayer: return "attention";
    case ComponentKind::FfnLayer: return "ffn";
    case ComponentKind::Head: return "head";
    case ComponentKind::KvGroup: return "kv_group";
    case ComponentKind::Channel: return "channel";
    case ComponentKind::Expert: return "expert";
    case ComponentKind::SharedExpert: return "shared_expert";
    case ComponentKind::Router: return "router";
    case ComponentKind::FinalNorm: return "final_norm";
    case ComponentKind::LmHead: return "lm_head";
    case ComponentKind::Projector: return "projector";
    case ComponentKind::SharedChannel: return "shared_channel";
    }
    return "";
}

}  // namespace resect
