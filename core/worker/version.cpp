#include "core/worker/version.h"

#include <torch/version.h>

namespace resect {

const char* torchVersionText() noexcept { return TORCH_VERSION; }

}  // namespace resect
