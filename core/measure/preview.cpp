#include "core/measure/preview.h"

#include "core/base/error.h"
#include "core/measure/classification.h"
#include "core/measure/perplexity.h"
#include "core/measure/statistics.h"
#include "core/models/decoder.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

namespace resect {

namespace {

using Clock = std::chrono::steady_clock;
double secondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// What is known of the uncut model for one batch.
struct UncutBatch {
    torch::Tensor normed_BTD;                 // final norm's output; the logits follow from it
    std::map<int, torch::Tensor> streams;     // residual stream entering a block
    RowLosses losses;
};

int firstCutBlock(const Cut& cut) {
    if (!cut.hidden.empty()) return -1;  // the embedding is another one already
    for (std::size_t block = 0; block < cut.blocks.size(); ++block)
        if (!cut.blocks[block].empty()) return static_cast<int>(block);
    return static_cast<int>(cut.blocks.size());
}

/// Runs without the cut whatever happens.
class CutGuard {
public:
    explicit CutGuard(LanguageModel& model) : m_model(model) {}
    ~CutGuard() { m_model.setCut({}); }
    CutGuard(const CutGuard&) = delete;
    CutGuard& operator=(const CutGuard&) = delete;

private:
    LanguageModel& m_model;
};

}  // namespace

struct PreviewCache::Data {
    std::uint64_t limit = 0, held = 0;
    std::string key;
    std::map<std::size_t, UncutBatch> batches;
    std::int64_t blocksRun = 0;
    int stride = 1;                           // every stride-th block's input is kept
    double baselineTokens = 0, baselineSeconds = 0;

    void clear() {
        batches.clear();
        held = 0;
        baselineTokens = baselineSeconds = 0;
    }
    void openFor(const ModelRun& run) {
        std::string wanted = run.checkpoint().fingerprint() + run.data().fingerprint + run.dtypeName() + run.options().load.device.str() +
                             std::to_string(run.numBatches()) + (run.streamsBlocks() ? "s" : "r");
        if (wanted == key) return;
        clear();
        key = std::move(wanted);
        double tokens = 0;
        for (const auto& row : run.data().rows) tokens += static_cast<double>(row.tokens());
        const double perStream = tokens * static_cast<double>(run.shape().hiddenSize) * (run.dtypeName() == "bf16" ? 2 : run.dtypeName() == "f64" ? 8 : 4);
        const double room = static_cast<double>(limit) / std::max(1.0, perStream) - 1;  // the final states come first
        stride = std::max(1, static_cast<int>(std::ceil(run.shape().numBlocks() / std::max(1.0, room))));
    }
    bool keep(const torch::Tensor& x) {
        if (held + x.nbytes() > limit) return false;
        held += x.nbytes();
        return true;
    }
};

PreviewCache::PreviewCache(std::uint64_t memoryLimit) : m_data(std::make_unique<Data>()) { m_data->limit = memoryLimit; }
PreviewCache::~PreviewCache() = default;
void PreviewCache::clear() {
    m_data->clear();
    m_data->key.clear();
}
std::uint64_t PreviewCache::bytes() const noexcept { return m_data->held; }
std::int64_t PreviewCache::blocksRun() const noexcept { return m_data->blocksRun; }

namespace {

/// What speed is counted in: tokens, of images images.
double unitsOf(const TokenBatch& batch) { return static_cast<double>(batch.pixels_BCHW.defined() ? batch.pixels_BCHW.size(0) : batch.ids_BT.numel()); }

/// Sums of one preview, turned into a message whenever it is asked for.
struct Tally {
    RowLosses candidate, baseline, divergence;
    bool images = false;
    LabelHits candidateHits, baselineHits;
    double candidateTokens = 0, candidateSeconds = 0, baselineTokens = 0, baselineSeconds = 0;

    void addBatch(const torch::Tensor& candidateLogits, const torch::Tensor& baselineLogits, const RowLosses& uncut, const torch::Tensor& targets,
                  const std::vector<RowSpan>& spans) {
        addRowLosses(candidate, tokenLosses(candidateLogits, targets), targets, spans, Positions::All);
        addRowLosses(divergence, tokenDivergences(baselineLogits, candidateLogits), images ? torch::zeros_like(targets) : targets, spans, Positions::All);
        if (images) candidateHits.add(countHits(candidateLogits, targets)), baselineHits.add(countHits(baselineLogits, targets));
        baseline.loss.insert(baseline.loss.end(), uncut.loss.begin(), uncut.loss.end());
        baseline.count.insert(baseline.count.end(), uncut.count.begin(), uncut.count.end());
    }
    protocol::PreviewMessage message(std::int64_t rowsTotal) const {
        const Perplexity cut = candidate.result(rowsTotal), uncut = baseline.result(rowsTotal);
        const MeanError kl = clusteredMean(divergence.loss, divergence.count);
        const double half = halfWidth95(cut.rowsDone) * kl.error;
        protocol::PreviewMessage message;
        message.unit = images ? "images" : "tokens";
        message.rowsDone = cut.rowsDone;
        message.rowsTotal = rowsTotal;
        message.perplexity = cut.perplexity, message.perplexityLow = cut.low, message.perplexityHigh = cut.high;
        message.baseline = uncut.perplexity, message.baselineLow = uncut.low, message.baselineHigh = uncut.high;
        message.kl = kl.mean, message.klLow = std::max(0.0, kl.mean - half), message.klHigh = kl.mean + half;
        if (const Proportion right = proportion(candidateHits.right1, candidateHits.total); images)
            message.accuracy = right.share, message.accuracyLow = right.low, message.accuracyHigh = right.high;
        if (const Proportion right = proportion(baselineHits.right1, baselineHits.total); images)
            message.baselineAccuracy = right.share, message.baselineAccuracyLow = right.low, message.baselineAccuracyHigh = right.high;
        message.tokensPerSecond = candidateSeconds > 0 ? candidateTokens / candidateSeconds : 0;
        message.baselineTokensPerSecond = baselineSeconds > 0 ? baselineTokens / baselineSeconds : 0;
        return message;
    }
    bool narrowEnough(const PreviewOptions& options) const {
        if (images) {
            const Proportion right = proportion(candidateHits.right1, candidateHits.total);
            return options.accuracyInterval > 0 && right.total >= options.minimumImages && std::max(right.high - right.share, right.share - right.low) < options.accuracyInterval;
        }
        if (options.relativeInterval <= 0 || static_cast<std::int64_t>(candidate.loss.size()) < options.minimumRows) return false;
        const Perplexity cut = candidate.result(0);
        return std::max(cut.high - cut.perplexity, cut.perplexity - cut.low) < options.relativeInterval * cut.perplexity;
    }
};

/// The uncut model on one batch, from the cache or run now (block inputs are kept as memory allows).
const UncutBatch& uncutBatch(ModelRun& run, PreviewCache::Data& cache, std::size_t index, const TokenBatch& batch, UncutBatch& scratch) {
    const auto found = cache.batches.find(index);
    if (found != cache.batches.end()) return found->second;
    LanguageModel& model = run.model();
    const auto start = Clock::now();
    auto x_BTD = model.embed(batch);
    scratch = UncutBatch();
    const std::uint64_t heldBefore = cache.held;
    for (int block = 0; block < run.shape().numBlocks(); ++block) {
        if (block > 0 && block % cache.stride == 0 && cache.keep(x_BTD)) scratch.streams[block] = x_BTD;
        x_BTD = model.runBlocks(x_BTD, batch, block, block + 1);
    }
    scratch.normed_BTD = model.finalNorm(x_BTD);
    const auto logits_BTV = model.head(scratch.normed_BTD);
    cache.baselineSeconds += secondsSince(start);
    cache.baselineTokens += unitsOf(batch);
    const auto targets_BT = run.targets(index);
    addRowLosses(scratch.losses, tokenLosses(logits_BTV, targets_BT), targets_BT, run.targetSpans(index), Positions::All);
    if (!cache.keep(scratch.normed_BTD)) {  // no room: used for this preview only
        cache.held = heldBefore;
        return scratch;
    }
    UncutBatch& kept = cache.batches[index];
    kept = std::move(scratch);
    return kept;
}

protocol::PreviewMessage previewResident(ModelRun& run, const Cut& cut, PreviewCache::Data& cache, const PreviewOptions& options,
                                         const std::function<void(const protocol::PreviewMessage&)>& update, const JobContext& job) {
    LanguageModel& model = run.model();
    const CutGuard guard(model);
    const int numBlocks = run.shape().numBlocks(), firstCut = firstCutBlock(cut);
    const auto rowsTotal = static_cast<std::int64_t>(run.data().rows.size());
    Tally tally;
    tally.images = run.data().holdsImages();
    for (std::size_t index = 0; index < run.numBatches() && !job.stopped(); ++index) {
        const TokenBatch batch = run.batch(index).to(run.options().load.device);
        model.setCut({});
        UncutBatch scratch;
        const UncutBatch& uncut = uncutBatch(run, cache, index, batch, scratch);
        model.setCut(cut);
        auto from = uncut.streams.upper_bound(firstCut);
        const bool fromStart = index == 0 || from == uncut.streams.begin();  // the first batch is run whole, to time the candidate
        int block = 0;
        torch::Tensor x_BTD;
        if (!fromStart) {
            --from;
            block = from->first;
            x_BTD = from->second;
        }
        const auto start = Clock::now();
        if (fromStart) x_BTD = model.embed(batch);
        cache.blocksRun += numBlocks - block;
        const auto logits_BTV = model.head(model.finalNorm(model.runBlocks(x_BTD, batch, block, numBlocks)));
        if (fromStart) tally.candidateSeconds += secondsSince(start), tally.candidateTokens += unitsOf(batch);
        tally.addBatch(logits_BTV, model.head(uncut.normed_BTD), uncut.losses, run.targets(index), run.targetSpans(index));
        tally.baselineTokens = cache.baselineTokens;
        tally.baselineSeconds = cache.baselineSeconds;
        job.progress({static_cast<double>(tally.candidate.loss.size()), static_cast<double>(rowsTotal), run.unit(), "preview"});
        if (tally.narrowEnough(options)) break;
        if (update) update(tally.message(rowsTotal));
    }
    if (tally.candidate.loss.empty()) throw Error(ErrorCode::Stopped, "preview", "stopped before the first rows were finished");
    return tally.message(rowsTotal);
}

/// Block by block: first the uncut model on all rows (its final states are kept), then the candidate.
protocol::PreviewMessage previewStreamed(ModelRun& run, const Cut& cut, PreviewCache::Data& cache,
                                         const std::function<void(const protocol::PreviewMessage&)>& update, const JobContext& job) {
    const auto rowsTotal = static_cast<std::int64_t>(run.data().rows.size());
    const LoadOptions& load = run.options().load;
    std::vector<TokenBatch> batches;
    for (std::size_t index = 0; index < run.numBatches(); ++index) batches.push_back(run.batch(index).to(load.device));
    BlockStream stream(run.checkpoint(), load);
    if (cache.batches.size() != batches.size()) {
        cache.clear();
        stream.run(batches, nullptr, {}, [&](std::size_t index, const torch::Tensor& normed_BTD, const torch::Tensor& logits_BTV) {
            UncutBatch& own = cache.batches[index];
            own.normed_BTD = normed_BTD;
            cache.held += normed_BTD.nbytes();
            const auto targets_BT = run.targets(index);
            addRowLosses(own.losses, tokenLosses(logits_BTV, targets_BT), targets_BT, run.targetSpans(index), Positions::All);
        }, job);
    }
    const WeightSource source = checkpointWeights(run.checkpoint(), load);
    Decoder head(run.shape(), load, source, Decoder::Parts::None);
    head.loadHead(source);
    Tally tally;
    tally.images = run.data().holdsImages();
    stream.setCut(cut);
    stream.run(batches, nullptr, {}, [&](std::size_t index, const torch::Tensor&, const torch::Tensor& logits_BTV) {
        const auto found = cache.batches.find(index);
        if (found == cache.batches.end()) return;
        tally.addBatch(logits_BTV, head.head(found->second.normed_BTD), found->second.losses, run.targets(index), run.targetSpans(index));
        cache.blocksRun += run.shape().numBlocks();
        if (update) update(tally.message(rowsTotal));
    }, job);
    if (tally.candidate.loss.empty()) throw Error(ErrorCode::Stopped, "preview", "stopped before the first rows were finished");
    return tally.message(rowsTotal);
}

}  // namespace

protocol::PreviewMessage preview(ModelRun& run, const Cut& cut, PreviewCache& cache, const PreviewOptions& options,
                                 const std::function<void(const protocol::PreviewMessage&)>& update, const JobContext& job) {
    const torch::NoGradGuard noGrad;
    if (!cut.blocks.empty() && static_cast<int>(cut.blocks.size()) != run.shape().numBlocks())
        throw Error(ErrorCode::Mismatch, "plan", "is for " + std::to_string(cut.blocks.size()) + " blocks, the model has " + std::to_string(run.shape().numBlocks()));
    requireHead(run.shape());
    PreviewCache::Data& data = cache.data();
    data.openFor(run);
    const Cut whole = cut.blocks.empty() ? emptyCut(run.shape()) : cut;
    auto message = run.streamsBlocks() ? previewStreamed(run, whole, data, update, job) : previewResident(run, whole, data, options, update, job);
    message.final = true;
    if (update) update(message);
    return message;
}

}  // namespace resect
