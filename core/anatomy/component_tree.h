#pragma once
#include "core/anatomy/component.h"
#include "core/anatomy/family.h"
#include "core/anatomy/model_shape.h"
#include "core/checkpoint/checkpoint.h"

#include <map>
#include <string>

namespace resect {

/// The tree of a checkpoint whose tensors all fit `shape`.
Component componentTree(const ModelShape& shape, const std::map<std::string, ExpectedTensor>& expected, const Checkpoint& checkpoint);
/// The tree that tensor names suggest when the family is unknown or something does not fit: the first number in a name is its block.
Component componentTreeByName(const Checkpoint& checkpoint);
/// The slices of one unit of a layer along the axes that the family's table gives (core/anatomy/family.h).
std::vector<TensorSlice> unitSlices(const ModelShape& shape, const ComponentId& id);

}  // namespace resect
