#pragma once
#include "core/base/problem.h"
#include "core/surgery/slice_plan.h"

#include <optional>
#include <vector>

namespace resect {

/// config.json of an edited checkpoint, and resect.json where the stock class cannot express the shape (null otherwise).
struct ConfigRewrite {
    Json config, resect;
    std::vector<Problem> notes;  ///< what was removed or interpreted; never an error
};

/// Says in config.json that the weights are stored as `dtype`. Throws Unsupported for other types than F32, F16 and BF16.
void setConfigDtype(Json& config, DType dtype);

/// Rewrites every field that the edit touches (export.md E-6): block counts, lists with one entry per block, lists of block
/// indices, maps keyed by block, counters over blocks, head counts, head_dim, MLP width, expert count, dtype; all other fields
/// stay as they are, in their order. `result` is the shape that is written (SlicePlan::shape). Throws Unsupported naming the
/// field for what cannot be kept (a period that the dropped blocks break, a per-block list of another length, quantised
/// weights, ...). The result is read back and must describe `result`.
ConfigRewrite rewriteConfig(const Json& config, const ModelShape& source, const Cut& cut, const ModelShape& result,
                            SliceWay way, std::optional<DType> dtype);

}  // namespace resect
