#pragma once
#include <cstdint>
#include <optional>

namespace resect {

/// Gives the process the OpenMP wait policy that was measured best, which libgomp reads before main(): workers spin for some ten
/// microseconds between pieces of work, then sleep. (Its default spins for milliseconds: no faster alone, and several times slower when
/// another program wants the cores.) Starts the program anew with the variable set, unless GOMP_SPINCOUNT or OMP_WAIT_POLICY is set already.
/// For the first line of a main() that computes; returns when there is nothing to do or the restart fails. A parent that starts such
/// a program can put kSpinVariable = kSpinCount into its environment instead and save the second start.
void restartWithWaitPolicy(char** arguments);
inline constexpr const char* kSpinVariable = "GOMP_SPINCOUNT";
inline constexpr const char* kSpinCount = "3000";

/// Hands memory that freed models have left behind back to the system; configureRuntime keeps it otherwise.
void releaseFreedMemory();

/// "MemAvailable" of the kernel, in bytes; nullopt where there is none.
std::optional<std::uint64_t> freeHostMemory();

}  // namespace resect
