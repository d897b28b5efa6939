// Opens a checkpoint and streams all its tensors into new shards, as every export does, and says how long each took and how much memory was resident
// at most. Compare with `cp` of the same files followed by `sync`.
//   copy_checkpoint SOURCE TARGET_FOLDER
#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "core/checkpoint/checkpoint_writer.h"

#include <chrono>
#include <cstdio>
#include <sys/resource.h>

namespace {

double secondsSince(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int main(int argc, char** argv) try {
    using namespace resect;
    if (argc != 3) throw Error(ErrorCode::Usage, "", "expected: copy_checkpoint SOURCE TARGET_FOLDER");
    auto start = std::chrono::steady_clock::now();
    const Checkpoint source = Checkpoint::open(argv[1]);
    const Anatomy anatomy = Anatomy::of(source);
    std::printf("opened       %.3f s, %zu tensors in %zu shards, %s\n", secondsSince(start), source.tensors().size(), source.shards().size(),
                anatomy.understood() ? "understood" : "not understood");

    start = std::chrono::steady_clock::now();
    source.fingerprint();
    std::printf("fingerprint  %.3f s\n", secondsSince(start));

    std::vector<TensorSource> tensors;
    for (const TensorInfo& tensor : source.tensors()) tensors.push_back(copyOf(source, tensor));
    start = std::chrono::steady_clock::now();
    StagedFolder target(argv[2]);
    writeShards(target.path(), tensors, {}, {});
    writeJsonFile(target.path() / "config.json", source.config());
    target.commit();
    const double seconds = secondsSince(start);
    struct rusage usage {};
    getrusage(RUSAGE_SELF, &usage);
    std::printf("copied       %.2f s, %s/s, hashed and synced\n", seconds, formatBytes(static_cast<std::uint64_t>(source.totalBytes() / seconds)).c_str());
    std::printf("resident     %s at most\n", formatBytes(static_cast<std::uint64_t>(usage.ru_maxrss) * 1024).c_str());
    return 0;
} catch (const resect::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return exitCode(error.code());
}
