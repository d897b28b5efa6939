#pragma once
#include "core/export/gguf_architecture.h"
#include "core/surgery/cut.h"

#include <string>
#include <vector>

namespace resect {

/// The cut with every block dropped of which nothing is left: one that is nothing but its residual stream computes nothing.
Cut withoutEmptyBlocks(const ModelShape& source, Cut cut);
/// What the per-block architectures need: equal groups within a block, no attention without an MLP, and attention in block 0 (OpenELM: everywhere).
/// Zero layers of the smallest size stand in.
ModelShape perBlockShape(const GgufArchitecture& architecture, ModelShape shape);

/// Whether llama.cpp computes a cut model from one of our GGUF files, and which.
struct GgufChoice {
    enum class Kind {
        Own,       ///< as it is, under the family's own architecture
        PerBlock,  ///< as it is, under one that carries sizes per block
        Padded,    ///< only padded, under the family's own
        None
    } kind = Kind::None;
    const GgufArchitecture* architecture = nullptr;  ///< null with None
    std::vector<std::string> reasons;                ///< of None: what stands against it
};
/// Pure, under 1 ms for 80 blocks.
GgufChoice ggufChoice(const ModelShape& source, const Cut& cut);

}  // namespace resect
