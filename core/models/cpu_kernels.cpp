#include "core/models/cpu_kernels.h"

#include <cstdlib>
#include <string_view>

namespace resect::kernels {

#define RESECT_DECLARE(set)              \
    namespace set {                      \
    const Table<float>& tableF32();      \
    const Table<Bf16>& tableBf16();      \
    }
RESECT_DECLARE(baseline)
#ifdef __x86_64__
RESECT_DECLARE(avx2)
RESECT_DECLARE(avx512)
#endif
#undef RESECT_DECLARE

std::int64_t attentionScratch(std::int64_t headDim) { return 2 * kQueryTile * roundUp(headDim, 16) + kQueryTile * kKeyTile + 2 * kQueryTile; }

std::int64_t attentionBackwardScratch(std::int64_t tokens, std::int64_t keys, std::int64_t headDim) {
    const std::int64_t width = roundUp(headDim, 16), padded = roundUp(keys, kKeyTile);
    return 5 * padded * width + 3 * tokens * width + roundUp(tokens, 16) + 2 * kQueryTile * kKeyTile;
}

const Set& active() {
    static const Set set = [] {
        const char* wish = std::getenv("RESECT_CPU");
        const std::string_view most = wish ? wish : "avx512";
#ifdef __x86_64__
        if (most == "avx512" && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd")) {
            return Set{"avx512", avx512::tableF32(), avx512::tableBf16()};
        }
        if (most != "baseline" && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
            return Set{"avx2", avx2::tableF32(), avx2::tableBf16()};
        }
#endif
        return Set{"baseline", baseline::tableF32(), baseline::tableBf16()};
    }();
    return set;
}

}  // namespace resect::kernels
