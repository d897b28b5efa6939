#include "core/measure/model_run.h"

#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/measure/image_batch.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <chrono>

namespace resect {

namespace {

constexpr std::int64_t kStreamBytes = std::int64_t{2} << 30;
constexpr double kTokensPerBatch = 2048, kTokensPerDeviceBatch = 16384;
constexpr double kLogitsPerBatch = 1 << 27, kLogitsPerDeviceBatch = 1 << 30;

/// Keeps the products fed and the logits of a batch small.
int chooseBatchRows(std::int64_t longest, std::int64_t vocabSize, bool cpu) {
    const double tokens = std::min(cpu ? kTokensPerBatch : kTokensPerDeviceBatch, (cpu ? kLogitsPerBatch : kLogitsPerDeviceBatch) / static_cast<double>(vocabSize));
    return std::max(1, static_cast<int>(tokens / static_cast<double>(longest)));
}

double secondsSince(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

struct ModelRun::Data {
    Data(const Checkpoint& checkpoint, const Dataset& rows, RunOptions wanted, std::shared_ptr<LanguageModel> model)
        : source(checkpoint), data(rows), options(std::move(wanted)), shape(Anatomy::of(checkpoint).shape()), resident(std::move(model)) {}

    const Checkpoint& source;
    const Dataset& data;
    RunOptions options;
    ModelShape shape;
    std::shared_ptr<LanguageModel> resident;
    std::size_t batchRows = 1;
    Cut cut;
    double lastBatchSeconds = 1e9;

    std::size_t firstRow(std::size_t batch) const { return batch * batchRows; }
    std::size_t endRow(std::size_t batch) const { return std::min(data.rows.size(), (batch + 1) * batchRows); }
    std::int64_t longest(std::size_t batch) const {
        std::int64_t length = 0;
        for (std::size_t row = firstRow(batch); row < endRow(batch); ++row) length = std::max(length, data.rows[row].tokens());
        return length;
    }
    bool runResident(LanguageModel& model, std::size_t index, const TokenBatch& batch, BatchObserver* observer, const OnLogits& onLogits, const JobContext& job);
};

ModelRun::ModelRun(const Checkpoint& checkpoint, const Dataset& data, RunOptions options, std::shared_ptr<LanguageModel> resident) {
    if (data.rows.empty()) throw Error(ErrorCode::BadInput, "calibration data", "expected at least one row of tokens, found none");
    m_data = std::make_unique<Data>(checkpoint, data, std::move(options), std::move(resident));
    std::int64_t longest = 1;
    for (const auto& row : data.rows) {
        if (row.tokens() == 0) throw Error(ErrorCode::BadInput, "calibration data", "a row without tokens");
        if (m_data->shape.image.has_value() != (row.image.set != nullptr))
            throw Error(ErrorCode::BadInput, "calibration data", m_data->shape.image ? "is text; the model runs images" : "is images; the model runs text");
        longest = std::max(longest, row.tokens());
    }
    if (m_data->resident) m_data->options.load.device = m_data->resident->device();
    const int asked = m_data->options.batchRows;
    m_data->batchRows = static_cast<std::size_t>(asked > 0 ? asked : chooseBatchRows(longest, std::max<std::int64_t>(1, shape().vocabSize), m_data->options.load.device.is_cpu()));
}

ModelRun::~ModelRun() = default;

const ModelShape& ModelRun::shape() const { return m_data->shape; }
const Checkpoint& ModelRun::checkpoint() const { return m_data->source; }
const Dataset& ModelRun::data() const { return m_data->data; }
const RunOptions& ModelRun::options() const { return m_data->options; }
std::string ModelRun::dtypeName() const { return resect::dtypeName(m_data->options.load.dtype); }
bool ModelRun::streamsBlocks() const { return m_data->options.streamBlocks; }
std::size_t ModelRun::numBatches() const { return (data().rows.size() + m_data->batchRows - 1) / m_data->batchRows; }

std::vector<RowSpan> ModelRun::rowSpans(std::size_t index) const {
    std::vector<RowSpan> spans;
    const std::int64_t longest = m_data->longest(index);
    for (std::size_t row = m_data->firstRow(index); row < m_data->endRow(index); ++row) {
        const std::int64_t length = data().rows[row].tokens();
        const std::int64_t begin = m_data->options.padding == PaddingSide::Left ? longest - length : 0;
        spans.push_back({row, begin, begin + length});
    }
    return spans;
}

std::vector<RowSpan> ModelRun::targetSpans(std::size_t index) const {
    auto spans = rowSpans(index);
    if (data().holdsImages())
        for (RowSpan& span : spans) span.begin = 0, span.end = 1;
    return spans;
}

const char* ModelRun::unit() const { return data().holdsImages() ? "images" : "rows"; }

TokenBatch ModelRun::batch(std::size_t index) const {
    if (data().holdsImages()) {
        std::vector<const TokenRow*> rows;
        for (std::size_t row = m_data->firstRow(index); row < m_data->endRow(index); ++row) rows.push_back(&data().rows[row]);
        TokenBatch pictures;
        pictures.pixels_BCHW = imagePixels(rows);
        return pictures;
    }
    const auto spans = rowSpans(index);
    const std::int64_t count = static_cast<std::int64_t>(spans.size()), longest = m_data->longest(index);
    TokenBatch batch;
    batch.ids_BT = torch::zeros({count, longest}, torch::kInt64);
    auto mask_BT = torch::zeros({count, longest}, torch::kBool);
    auto documents_BT = torch::full({count, longest}, -1, torch::kInt64);
    bool padded = false, packed = false;
    for (std::int64_t b = 0; b < count; ++b) {
        const RowSpan& span = spans[static_cast<std::size_t>(b)];
        const TokenRow& row = data().rows[span.row];
        std::copy(row.ids.begin(), row.ids.end(), batch.ids_BT.data_ptr<std::int64_t>() + b * longest + span.begin);
        std::fill_n(mask_BT.data_ptr<bool>() + b * longest + span.begin, span.end - span.begin, true);
        std::int64_t* documents = documents_BT.data_ptr<std::int64_t>() + b * longest + span.begin;
        if (row.documents.empty()) std::fill_n(documents, span.end - span.begin, 0);
        else std::copy(row.documents.begin(), row.documents.end(), documents);
        padded = padded || span.end - span.begin < longest;
        packed = packed || !row.documents.empty();
    }
    if (padded) batch.mask_BT = mask_BT;
    if (packed) batch.documents_BT = documents_BT;
    return batch;
}

torch::Tensor ModelRun::targets(std::size_t index) const {
    const auto spans = targetSpans(index);
    const std::int64_t longest = data().holdsImages() ? 1 : m_data->longest(index);
    auto targets_BT = torch::full({static_cast<std::int64_t>(spans.size()), longest}, kIgnoredTarget, torch::kInt64);
    for (std::size_t b = 0; b < spans.size(); ++b) {
        const TokenRow& row = data().rows[spans[b].row];
        std::copy(row.targets.begin(), row.targets.end(), targets_BT.data_ptr<std::int64_t>() + static_cast<std::int64_t>(b) * longest + spans[b].begin);
    }
    return targets_BT;
}

LanguageModel& ModelRun::model() {
    if (streamsBlocks()) throw Error(ErrorCode::Unsupported, "model run", "this method needs the whole model in memory and cannot run block by block");
    if (!m_data->resident) m_data->resident = LanguageModel::load(m_data->source, m_data->options.load);
    return *m_data->resident;
}

void ModelRun::setCut(const Cut& cut) { m_data->cut = cut; }
const Cut& ModelRun::cut() const { return m_data->cut; }

/// False when the job was stopped within the batch.
bool ModelRun::Data::runResident(LanguageModel& model, std::size_t index, const TokenBatch& batch, BatchObserver* observer, const OnLogits& onLogits,
                                 const JobContext& job) {
    const auto start = std::chrono::steady_clock::now();
    const int numBlocks = shape.numBlocks();
    const int step = lastBatchSeconds < 0.5 ? std::max(1, numBlocks) : 1;  // asks for a stop often enough, but not more often than needed
    if (observer) observer->setBatch(index);
    auto x_BTD = model.embed(batch);
    for (int block = 0; block < numBlocks; block += step) {
        if (job.stopped()) return false;
        x_BTD = model.runBlocks(std::move(x_BTD), batch, block, std::min(numBlocks, block + step), observer);
    }
    if (observer) observer->batchFinished(index);
    if (onLogits) onLogits(index, model.head(model.finalNorm(x_BTD)));
    lastBatchSeconds = secondsSince(start);
    return true;
}

std::size_t ModelRun::run(BatchObserver* observer, const OnLogits& onLogits, const JobContext& job) { return run(observer, onLogits, job, 0, numBatches()); }

std::size_t ModelRun::run(BatchObserver* observer, const OnLogits& onLogits, const JobContext& job, std::size_t first, std::size_t last) {
    const torch::NoGradGuard noGrad;
    const auto device = m_data->options.load.device;
    std::size_t rowsDone = 0;
    const auto rowsOf = [&](std::size_t index) { return m_data->endRow(index) - m_data->firstRow(index); };
    const double totalRows = static_cast<double>(m_data->endRow(last - 1) - m_data->firstRow(first));
    if (!streamsBlocks()) {
        LanguageModel& resident = model();
        resident.setCut(m_data->cut);
        for (std::size_t index = first; index < last && !job.stopped(); ++index) {
            if (!m_data->runResident(resident, index, batch(index).to(device), observer, onLogits, job)) break;
            rowsDone += rowsOf(index);
            job.progress({static_cast<double>(rowsDone), totalRows, unit(), "running"});
        }
        resident.setCut({});
        return rowsDone;
    }
    BlockStream stream(m_data->source, m_data->options.load);
    stream.setCut(m_data->cut);
    for (std::size_t begin = first; begin < last && !job.stopped();) {
        std::vector<TokenBatch> group;
        std::int64_t bytes = 0;
        while (begin + group.size() < last) {
            TokenBatch next = batch(begin + group.size());
            bytes += static_cast<std::int64_t>(rowsOf(begin + group.size())) * m_data->longest(begin + group.size()) * shape().hiddenSize * 4;
            if (next.pixels_BCHW.defined()) bytes += static_cast<std::int64_t>(next.pixels_BCHW.nbytes());
            if (bytes > kStreamBytes && !group.empty()) break;
            group.push_back(next.to(device));
        }
        const auto onBatch = [&](std::size_t i) {
            if (observer) observer->setBatch(begin + i);
        };
        const auto finish = [&](std::size_t i, const torch::Tensor&, const torch::Tensor& logits_BTV) {
            if (observer) observer->batchFinished(begin + i);
            if (onLogits) onLogits(begin + i, logits_BTV);
            rowsDone += rowsOf(begin + i);
        };
        stream.run(group, observer, onBatch, finish, job);
        begin += group.size();
    }
    return rowsDone;
}

}  // namespace resect
