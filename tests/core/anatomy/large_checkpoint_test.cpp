#include "core/anatomy/anatomy.h"
#include "core/base/files.h"
#include "tests/support/generated_checkpoint.h"
#include "tests/support/test_data.h"

#include <chrono>
#include <gtest/gtest.h>

namespace resect {
namespace {

TEST(LargeCheckpoint, SeventyBillionParametersOpenInUnderASecond) {
    test::TempFolder folder;
    const std::uint64_t bytes = test::generateCheckpoint(folder / "70b", {});
    const auto start = std::chrono::steady_clock::now();
    const auto checkpoint = Checkpoint::open(folder / "70b");
    const auto anatomy = Anatomy::of(checkpoint);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    EXPECT_EQ(checkpoint.shards().size(), 30u);
    EXPECT_EQ(checkpoint.totalBytes(), bytes);
    EXPECT_EQ(anatomy.root().parameters, 70'553'706'496);  // the published count of Llama 3 70B
    EXPECT_TRUE(anatomy.understood());
    EXPECT_TRUE(checkpoint.problems().empty());
#if defined(__SANITIZE_ADDRESS__)
    const double limit = 10;
#else
    const double limit = 1;
#endif
    EXPECT_LT(seconds, limit);
    RecordProperty("seconds", std::to_string(seconds));
}

}  // namespace
}  // namespace resect
