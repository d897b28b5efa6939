#pragma once
#include "core/base/problem.h"
#include "core/protocol/json.h"

#include <vector>

namespace resect {

/// Rewrites what config.json says about single blocks when only `kept` of `numBlocks` stay (source numbers, ascending): counts,
/// lists with one entry per block, lists of block indices, maps keyed by block, counters over the first blocks. Unknown lists
/// of that length are taken as one entry per block, with a note. Throws Unsupported naming the field that cannot be kept.
void rewriteBlockFields(Json& config, int numBlocks, const std::vector<int>& kept, std::vector<Problem>& notes);

}  // namespace resect
