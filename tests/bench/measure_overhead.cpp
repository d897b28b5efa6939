// Time of measuring similarity (windows included) over the time of a plain forward pass through the same blocks, on the same rows:
//   measure_overhead CHECKPOINT [rows] [row length] [threads]
// Both run alternately, five times; the ratio of the fastest runs is printed, and the medians beside it.
#include "core/anatomy/anatomy.h"
#include "core/measure/similarity.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>

using namespace resect;

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: measure_overhead CHECKPOINT [rows] [row length] [threads]\n");
        return 2;
    }
    const int rows = argc > 2 ? std::atoi(argv[2]) : 64, length = argc > 3 ? std::atoi(argv[3]) : 256;
    configureRuntime(argc > 4 ? std::atoi(argv[4]) : 0);
    const Checkpoint checkpoint = Checkpoint::open(argv[1]);
    const std::int64_t vocabSize = Anatomy::of(checkpoint).shape().vocabSize;
    std::mt19937_64 random(1);
    Dataset data;
    for (int r = 0; r < rows; ++r) {
        TokenRow row;
        for (int t = 0; t < length; ++t) row.ids.push_back(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(vocabSize)));
        row.targets.assign(row.ids.size(), kIgnoredTarget);
        data.rows.push_back(row);
    }
    ModelRun run(checkpoint, data, {});
    std::vector<double> plain, measured;
    const auto time = [&](std::vector<double>& seconds, auto action) {
        const auto start = std::chrono::steady_clock::now();
        action();
        seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    };
    run.run(nullptr, {}, {});
    for (int round = 0; round < 5; ++round) {
        time(plain, [&] { run.run(nullptr, {}, {}); });
        time(measured, [&] { measureSimilarity(run, {}, {}); });
    }
    std::sort(plain.begin(), plain.end());
    std::sort(measured.begin(), measured.end());
    const double tokens = static_cast<double>(rows) * length;
    std::printf("plain forward    %8.0f tokens/s (median %.0f)\n", tokens / plain[0], tokens / plain[2]);
    std::printf("with similarity  %8.0f tokens/s (median %.0f)\n", tokens / measured[0], tokens / measured[2]);
    std::printf("time ratio       %.3f (medians %.3f)\n", measured[0] / plain[0], measured[2] / plain[2]);
    return 0;
}
