#pragma once
#include "core/base/error.h"

namespace resect {

/// The exception being handled as an Error: LibTorch's and the standard library's gain a code (OutOfMemory, DiskFull, NoPermission, Internal).
/// Call inside a catch block only.
Error currentFailure();

}  // namespace resect
