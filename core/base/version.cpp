#include "core/base/version.h"

namespace resect {

const char* versionText() noexcept { return RESECT_VERSION; }

}  // namespace resect
