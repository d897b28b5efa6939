#include "core/models/runtime.h"
#include "core/models/cpu_kernels.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string_view>

namespace resect {
namespace {

TEST(Runtime, DoesNotStartAgainWhenTheWaitPolicyIsSet) {
    setenv(kSpinVariable, "17", 0);
    char* arguments[] = {nullptr};
    restartWithWaitPolicy(arguments);  // would replace this program
    EXPECT_NE(std::getenv(kSpinVariable), nullptr);
    releaseFreedMemory();
}

TEST(Runtime, ChoosesOneOfTheKernelSets) {
    const std::string_view name = kernels::active().name;
    EXPECT_TRUE(name == "avx512" || name == "avx2" || name == "baseline") << name;
}

}  // namespace
}  // namespace resect
