#include "core/measure/latency.h"

#include "core/base/error.h"
#include "core/models/runtime.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <set>

namespace resect {

namespace {

constexpr int kCopies = 4;              // blocks of a probe: what a pass costs besides its blocks counts for less
constexpr double kSecondsEach = 0.15;
constexpr int kLeast = 5, kMost = 400;

using Clock = std::chrono::steady_clock;

/// The shortest time of one call after a first one that warms up: what else runs on the machine only makes it longer.
template <class Pass> double shortestSeconds(const torch::Device& device, Pass pass) {
    pass();
    double shortest = std::numeric_limits<double>::infinity();
    const auto start = Clock::now();
    for (int n = 0; n < kLeast || (n < kMost && std::chrono::duration<double>(Clock::now() - start).count() < kSecondsEach); ++n) {
        const auto begin = Clock::now();
        pass();
        if (device.is_cuda()) torch::zeros({1}, device).cpu();   // waits for the device
        shortest = std::min(shortest, std::chrono::duration<double>(Clock::now() - begin).count());
    }
    return shortest;
}

/// A model of nothing but copies of one block.
std::unique_ptr<LanguageModel> probeOf(const ModelShape& source, const BlockShape& block, const LoadOptions& load) {
    ModelShape shape = source;
    shape.vocabSize = 8;
    shape.tiedEmbeddings = true;
    shape.bosId.reset(), shape.padId.reset(), shape.eosIds.clear();
    shape.blocks.assign(kCopies, block);
    return LanguageModel::random(shape, load, 0.02, 1);
}

struct Times {
    double decode, prefill;
};

TokenBatch zeros(int tokens, torch::Device device) { return {torch::zeros({1, tokens}, torch::TensorOptions().dtype(torch::kInt64).device(device)), {}, {}}; }

/// Seconds of one copy, what a pass takes without blocks taken off.
Times timeBlock(const ModelShape& source, const BlockShape& block, const LoadOptions& load, int context) {
    const auto model = probeOf(source, block, load);
    const TokenBatch one = zeros(1, load.device), all = zeros(context, load.device);
    const auto x_1 = model->embed(one), x_all = model->embed(all);
    const auto cache = model->makeCache(1, context);
    model->runBlocks(x_all.narrow(1, 0, context - 1), zeros(context - 1, load.device), 0, kCopies, nullptr, cache.get());
    const auto shortest = [&](auto pass) { return shortestSeconds(load.device, pass); };
    const double decode = shortest([&] { model->runBlocks(x_1, one, 0, kCopies, nullptr, cache.get()); cache->truncate(context - 1); });
    const double emptyDecode = shortest([&] { model->runBlocks(x_1, one, 0, 0, nullptr, cache.get()); });
    const double prefill = shortest([&] { model->runBlocks(x_all, all, 0, kCopies); });
    const double emptyPrefill = shortest([&] { model->runBlocks(x_all, all, 0, 0); });
    return {std::max(0.0, decode - emptyDecode) / kCopies, std::max(0.0, prefill - emptyPrefill) / kCopies};
}

/// Quarters of a size, ascending, at least 1.
std::vector<int> sizesOf(int full) {
    std::set<int> sizes;
    for (int quarter = 1; quarter <= 4; ++quarter) sizes.insert(std::max(1, static_cast<int>(std::lround(full * quarter / 4.0))));
    return {sizes.begin(), sizes.end()};
}

BlockShape attentionOnly(BlockShape block, int units) {
    block.hasFfn = false;
    block.ffnSize = block.numExperts = block.sharedFfnSize = 0;
    if (block.numKvHeads > 1) {
        block.headsPerKv.resize(static_cast<std::size_t>(units));
    } else {
        block.headsPerKv = {units};
    }
    block.numKvHeads = static_cast<int>(block.headsPerKv.size());
    block.numHeads = 0;
    for (const int heads : block.headsPerKv) block.numHeads += heads;
    return block;
}

BlockShape ffnOnly(BlockShape block, int channels) {
    block.hasAttention = false;
    block.numHeads = block.numKvHeads = 0;
    block.headsPerKv.clear();
    block.ffnSize = channels;
    return block;
}

}  // namespace

Latencies measureLatencies(ModelRun& run, int context, const JobContext& job) {
    const torch::NoGradGuard noGrad;
    const ModelShape& source = run.shape();
    if (run.streamsBlocks()) throw Error(ErrorCode::Unsupported, "latency", "a model that streams block by block from files has no latency worth timing; run it resident");
    if (context < 2 || (source.maxPositions > 0 && context > source.maxPositions))
        throw Error(ErrorCode::Usage, "latency_context", "expected 2 to " + std::to_string(source.maxPositions) + " tokens, found " + std::to_string(context));
    LoadOptions load = run.options().load;
    load.trainable = false;
    Latencies result;
    result.decode.context = result.prefill.context = context;
    std::vector<std::pair<BlockShape, std::pair<LatencyCurve, LatencyCurve>>> known;   // layer alone at full size -> decode, prefill
    const auto timed = [&](const BlockShape& full, const std::vector<BlockShape>& variants, auto sizeOf) {
        for (const auto& [shape, curves] : known)
            if (shape == full) return curves;
        std::pair<LatencyCurve, LatencyCurve> curves;
        for (const BlockShape& variant : variants) {
            if (job.stopped()) throw Error(ErrorCode::Stopped, "latency", "stopped before all sizes were timed");
            const Times times = timeBlock(source, variant, load, context);
            curves.first.points.emplace_back(sizeOf(variant), times.decode);
            curves.second.points.emplace_back(sizeOf(variant), times.prefill);
        }
        known.emplace_back(full, curves);
        return curves;
    };
    int block = 0;
    for (const BlockShape& own : source.blocks) {
        std::pair<LatencyCurve, LatencyCurve> attention, ffn;
        if (own.hasAttention) {
            const int units = own.numKvHeads > 1 ? own.numKvHeads : own.numHeads;
            std::vector<BlockShape> variants;
            for (const int size : sizesOf(units)) variants.push_back(attentionOnly(own, size));
            attention = timed(attentionOnly(own, units), variants, [](const BlockShape& shape) { return shape.numHeads; });
        }
        if (own.hasFfn) {
            std::vector<BlockShape> variants;
            for (const int size : sizesOf(own.ffnSize)) variants.push_back(ffnOnly(own, size));
            ffn = timed(ffnOnly(own, own.ffnSize), variants, [](const BlockShape& shape) { return shape.ffnSize; });
        }
        result.decode.attention.push_back(attention.first), result.prefill.attention.push_back(attention.second);
        result.decode.ffn.push_back(ffn.first), result.prefill.ffn.push_back(ffn.second);
        job.progress({++block * 1.0, static_cast<double>(source.numBlocks()), "blocks", "timing layers"});
    }
    LanguageModel& model = run.model();
    const TokenBatch one = zeros(1, load.device);
    const double ends = shortestSeconds(load.device, [&] { model.head(model.finalNorm(model.embed(one))); });
    result.decode.fixed = result.prefill.fixed = ends;
    releaseFreedMemory();
    return result;
}

}  // namespace resect
