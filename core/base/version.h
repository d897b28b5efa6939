#pragma once

namespace resect {

const char* versionText() noexcept;  ///< of Resect: "0.1.0"

}  // namespace resect
