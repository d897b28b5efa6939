#pragma once

namespace resect {

const char* torchVersionText() noexcept;  ///< of the LibTorch that was built against

}  // namespace resect
