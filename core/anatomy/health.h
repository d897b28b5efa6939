#pragma once
#include "core/anatomy/family.h"
#include "core/base/problem.h"
#include "core/checkpoint/checkpoint.h"

#include <map>
#include <string>
#include <vector>

namespace resect {

/// Accounts for every tensor: what the shape calls for and the checkpoint lacks or holds in another shape, and what nothing calls for.
/// Reads headers, and a sample of the rows where a tied head is stored too.
std::vector<Problem> compareTensors(const Checkpoint& checkpoint, const ModelShape& shape, const std::map<std::string, ExpectedTensor>& expected);

}  // namespace resect
