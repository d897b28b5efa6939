// How fast an export is, against `cp` of the bytes that it wrote, and how much memory it takes.
//   export_throughput [--folder DIR] [--blocks N] [--rounds N]
// Generates a Llama-shaped checkpoint of about 4 GB with content (no holes), exports it with one block dropped, and copies the
// result with `cp`, in turn. Both end with everything synced; before each, the pages of what is read are dropped (cold) or read
// (warm). A process of its own exports, so that its memory is only that: RssAnon is what it holds beside mapped files, VmHWM
// includes them.
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "core/export/hf_writer.h"
#include "core/surgery/edit_plan.h"
#include "tests/support/generated_checkpoint.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fcntl.h>
#include <fstream>
#include <numeric>
#include <spawn.h>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

extern char** environ;

namespace {

using namespace resect;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double secondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// A line of /proc/self/status in MB (10^6 bytes).
double statusMegabytes(const std::string& field) {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.starts_with(field + ":")) return std::stod(line.substr(field.size() + 1)) * 1024 / 1e6;
    return 0;
}

int exportOnce(const fs::path& source, const fs::path& target) {
    double anonymous = 0;
    std::jthread sampler([&](std::stop_token stop) {
        while (!stop.stop_requested()) {
            anonymous = std::max(anonymous, statusMegabytes("RssAnon"));
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
    });
    const auto start = Clock::now();
    {
        const Checkpoint checkpoint = Checkpoint::open(source);
        const Anatomy anatomy = Anatomy::of(checkpoint);
        const EditPlan plan{"", {dropBlocks({anatomy.shape().numBlocks() / 2})}, nullptr};
        exportHuggingFace(checkpoint, anatomy, cutOf(plan, anatomy.shape()), target, {}, {});
    }
    const double seconds = secondsSince(start);
    sampler.request_stop();
    sampler.join();
    std::printf("%.6f %.1f %.1f\n", seconds, anonymous, statusMegabytes("VmHWM"));
    return 0;
}

/// Runs a program and waits; its output goes to `output` where one is given.
void run(std::vector<std::string> arguments, const fs::path& output = {}) {
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    if (!output.empty())
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    pid_t pid = 0;
    int status = -1;
    if (posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ) == 0) waitpid(pid, &status, 0);
    posix_spawn_file_actions_destroy(&actions);
    if (status != 0) throw Error(ErrorCode::Internal, arguments[0], "failed");
}

enum class Cache { Cold, Warm };

void prepare(const fs::path& folder, Cache cache) {
    ::sync();
    for (const auto& entry : fs::directory_iterator(folder)) {
        const int file = ::open(entry.path().c_str(), O_RDONLY);
        if (cache == Cache::Cold) {
            ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
        } else {
            std::vector<char> buffer(8 << 20);
            while (::read(file, buffer.data(), buffer.size()) > 0) {
            }
        }
        ::close(file);
    }
}

std::uint64_t bytesOf(const fs::path& folder) {
    std::uint64_t bytes = 0;
    for (const auto& entry : fs::directory_iterator(folder)) bytes += entry.file_size();
    return bytes;
}

struct Sample {
    double seconds = 0, anonymous = 0, resident = 0;
};

Sample timeExport(const fs::path& self, const fs::path& source, const fs::path& target) {
    fs::remove_all(target);
    const fs::path output = target.string() + ".txt";
    run({self.string(), "--export", source.string(), target.string()}, output);
    Sample sample;
    std::ifstream(output) >> sample.seconds >> sample.anonymous >> sample.resident;
    return sample;
}

double timeCopy(const fs::path& from, const fs::path& to) {
    fs::remove_all(to);
    const auto start = Clock::now();
    run({"cp", "-r", "--reflink=never", from.string(), to.string()});
    for (const auto& entry : fs::directory_iterator(to)) syncToDisk(entry.path());
    syncToDisk(to);
    return secondsSince(start);
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values.empty() ? 0 : (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

/// Checks of a large plan and verdicts: what the window runs on every click.
void timeChecks() {
    ModelShape shape;
    shape.modelType = "llama";
    shape.hiddenSize = 8192;
    BlockShape block;
    block.numHeads = 64;
    block.numKvHeads = 8;
    block.headDim = 128;
    block.headsPerKv.assign(8, 8);
    block.ffnSize = 28672;
    shape.blocks.assign(80, block);
    EditPlan plan;
    std::vector<int> channels(28672 / 4);
    std::iota(channels.begin(), channels.end(), 100);
    for (int b = 0; b < 80; ++b) {
        plan.edits.push_back(dropChannels(b, channels));
        plan.edits.push_back(dropHeads(b, {1, 9, 17, 25}));
    }
    plan.edits.push_back(dropBlocks({40, 41, 42}));
    const auto time = [](auto action) {
        std::vector<double> seconds;
        for (int i = 0; i < 21; ++i) {
            const auto start = Clock::now();
            action();
            seconds.push_back(secondsSince(start));
        }
        return median(seconds) * 1e3;
    };
    const Cut cut = cutOf(plan, shape);
    std::printf("80 blocks, 161 edits, 573,440 channels named: check %.2f ms, verdicts %.2f ms\n",
                time([&] { checkPlan(plan, shape, {}); }), time([&] { verdicts(shape, cut); }));
}

int measure(const fs::path& self, const fs::path& folder, int numBlocks, int rounds) {
    test::GeneratedOptions options;
    options.numBlocks = numBlocks;
    options.hiddenSize = 4096;
    options.numHeads = 32;
    options.ffnSize = 14336;
    options.vocabSize = 32000;
    options.numShards = 2;
    options.fill = true;
    timeChecks();
    const fs::path source = folder / "source", exported = folder / "exported", copied = folder / "copied";
    std::printf("source %s in %s\n", formatBytes(test::generateCheckpoint(source, options)).c_str(), folder.c_str());
    timeExport(self, source, exported);
    const fs::path reference = folder / "reference";
    fs::rename(exported, reference);
    const double megabytes = static_cast<double>(bytesOf(reference)) / 1e6;
    double anonymous = 0, resident = 0;
    for (Cache cache : {Cache::Cold, Cache::Warm}) {
        std::vector<double> exports, copies, ratios;
        for (int round = 0; round < rounds; ++round) {
            const auto one = [&] {
                prepare(source, cache);
                const Sample sample = timeExport(self, source, exported);
                exports.push_back(sample.seconds);
                anonymous = std::max(anonymous, sample.anonymous);
                resident = std::max(resident, sample.resident);
                fs::remove_all(exported);
            };
            const auto other = [&] {
                prepare(reference, cache);
                copies.push_back(timeCopy(reference, copied));
                fs::remove_all(copied);
            };
            round % 2 ? other() : one();
            round % 2 ? one() : other();
            ratios.push_back(copies.back() / exports.back());
        }
        std::printf("%s: export %.0f MB/s, cp %.0f MB/s (medians of %d, %.0f MB each), export runs at %.2f of cp (%.2f-%.2f)\n",
                    cache == Cache::Cold ? "cold" : "warm", megabytes / median(exports), megabytes / median(copies), rounds,
                    megabytes, median(ratios), *std::min_element(ratios.begin(), ratios.end()),
                    *std::max_element(ratios.begin(), ratios.end()));
    }
    std::printf("memory: %.0f MB at most beside mapped files, %.0f MB with them\n", anonymous, resident);
    return 0;
}

}  // namespace

int main(int argc, char** argv) try {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (arguments.size() == 3 && arguments[0] == "--export") return exportOnce(arguments[1], arguments[2]);
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    fs::path folder = fs::temp_directory_path() / ("resect-bench-" + std::to_string(getpid()));
    int numBlocks = 8, rounds = 3;
    for (std::size_t i = 0; i + 1 < arguments.size(); i += 2) {
        if (arguments[i] == "--folder")
            folder = fs::path(arguments[i + 1]) / ("resect-bench-" + std::to_string(getpid()));
        else if (arguments[i] == "--blocks")
            numBlocks = static_cast<int>(parseInt(arguments[i + 1]).value_or(8));
        else if (arguments[i] == "--rounds")
            rounds = static_cast<int>(parseInt(arguments[i + 1]).value_or(3));
        else
            throw Error(ErrorCode::Usage, arguments[i], "expected --folder DIR, --blocks N or --rounds N");
    }
    fs::create_directories(folder);
    int result = 1;
    try {
        result = measure(fs::canonical("/proc/self/exe"), folder, numBlocks, rounds);
    } catch (...) {
        fs::remove_all(folder);
        throw;
    }
    fs::remove_all(folder);
    return result;
} catch (const resect::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return exitCode(error.code());
}
