#include "core/measure/gradients.h"

#include "core/base/error.h"
#include "core/measure/classification.h"
#include "core/base/numbers.h"
#include "core/measure/expert_taps.h"
#include "core/measure/statistics.h"
#include "core/models/decoder.h"
#include "core/models/runtime.h"

#include <torch/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

namespace resect {

namespace {

torch::ScalarType wideOf(torch::ScalarType dtype) { return dtype == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32; }
torch::Tensor doubles(const torch::Tensor& x) { return x.detach().to(torch::kCPU, torch::kFloat64); }
std::vector<double> numbers(const torch::Tensor& x) {
    const auto values = x.contiguous();
    return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
}

/// Running sums over the gates of one kind in one block; f64 [units].
struct Gates {
    torch::Tensor absolute, squares, signedSum, token;

    /// gates_RU: one row of gate gradients per data row; token_U: sums of |.| per token.
    void add(const torch::Tensor& gates_RU, const torch::Tensor& token_U) {
        if (!absolute.defined()) absolute = torch::zeros_like(token_U), squares = absolute.clone(), signedSum = absolute.clone(), token = absolute.clone();
        absolute += gates_RU.abs().sum(0);
        squares += gates_RU.square().sum(0);
        signedSum += gates_RU.sum(0);
        token += token_U;
    }
    void appendTo(GateTables& tables, double rows, double tokens, int block, const char* unit) const {
        for (UnitTable* table : {&tables.row, &tables.rowError, &tables.token, &tables.batch, &tables.signedMean}) table->emplace_back();
        if (!absolute.defined() || rows == 0) return;
        tables.row.back() = numbers(absolute / rows);
        tables.token.back() = numbers(token / tokens);
        tables.signedMean.back() = numbers(signedSum / rows);
        tables.batch.back() = numbers(signedSum.abs() / rows);
        const auto sums = numbers(absolute), squared = numbers(squares);
        for (std::size_t i = 0; i < sums.size(); ++i)
            tables.rowError.back().push_back(clusteredMean(ClusterTotals{sums[i], squared[i], sums[i]}, ClusterCounts{rows, rows, rows}).error);
        requireFiniteScores(tables.row.back(), block, unit);
    }
};

/// What the forward pass of one block left behind, inside its graph.
class BlockTaps final : public Observer {
public:
    bool wants(TapPoint point, int) const override { return point == TapPoint::HeadOutputs || point == TapPoint::Channels || point == TapPoint::ExpertChoice; }
    void observe(TapPoint point, int, const torch::Tensor& value) override {
        (point == TapPoint::HeadOutputs ? heads_BTC : point == TapPoint::Channels ? channels_BTF : choice_BTK) = value;
    }
    void clear() { *this = BlockTaps(); }

    torch::Tensor heads_BTC, channels_BTF, choice_BTK;
    std::vector<std::pair<int, torch::Tensor>> experts;   // expert, [n,F]
};

/// A model whose weights may take part in a graph: those that were made in inference mode may not.
bool canDifferentiate(LanguageModel& model) {
    bool can = true;
    model.visitParameters([&](const std::string&, torch::Tensor& parameter) { can = can && !parameter.is_inference(); });
    return can;
}

class GradientPass {
public:
    GradientPass(ModelRun& run, const GradientOptions& options) : m_run(run), m_options(options), m_shape(run.shape()), m_gates(m_shape.blocks.size()) {
        if (run.streamsBlocks())
            throw Error(ErrorCode::Unsupported, "gradients", "need the whole model in memory and cannot be taken while it streams block by block");
        if (!canDifferentiate(run.model())) m_own = LanguageModel::load(run.checkpoint(), run.options().load);
        if (m_options.elements) prepareElements();
    }
    std::size_t measure(const JobContext& job);
    GradientScores result(std::size_t rowsDone) const;

private:
    struct BlockGates {
        Gates head, group, channel, expert;
    };
    LanguageModel& model() { return m_own ? *m_own : m_run.model(); }
    void prepareElements();
    bool batch(std::size_t index, std::span<const RowSpan> spans, const TokenBatch& batch, const torch::Tensor& targets_BT, const JobContext& job);
    torch::Tensor lossGradient(const torch::Tensor& state, const torch::Tensor& targets_BT, std::span<const RowSpan> spans);
    torch::Tensor throughBlock(int block, const torch::Tensor& state, const torch::Tensor& gradient, const TokenBatch& batch, std::span<const RowSpan> spans);
    void addUnits(BlockGates& gates, int block, const BlockTaps& taps, const std::vector<torch::Tensor>& gradients, std::span<const RowSpan> spans);
    void addExperts(BlockGates& gates, int block, const BlockTaps& taps, std::span<const torch::Tensor> gradients, std::span<const RowSpan> spans);
    void commit();

    ModelRun& m_run;
    GradientOptions m_options;
    const ModelShape& m_shape;
    std::unique_ptr<LanguageModel> m_own;
    std::vector<BlockGates> m_gates;
    std::map<std::string, torch::Tensor> m_sums, m_squares;         // by tensor: of G and F, committed batches
    std::map<int, std::vector<std::string>> m_matrices;             // by block: names of the coupled matrices
    // Of the batch that runs; joins the sums when it is finished.
    BlockTaps m_taps;
    std::vector<BlockGates> m_batchGates;
    std::map<std::string, torch::Tensor> m_batchGradients;
    double m_batchLoss = 0, m_batchRows = 0, m_batchTokens = 0, m_batchGradient = 0;
    double m_loss = 0, m_rows = 0, m_tokens = 0, m_gradient = 0;
};

void GradientPass::prepareElements() {
    const BlockMatrices matrices(m_shape, {});
    std::uint64_t elements = 0;
    std::set<std::string> wanted;
    for (int block = 0; block < m_shape.numBlocks(); ++block) {
        m_matrices[block] = matrices.names(block);
        wanted.insert(m_matrices[block].begin(), m_matrices[block].end());
    }
    const auto type = wideOf(model().dtype());
    model().visitParameters([&](const std::string& name, torch::Tensor& parameter) {
        if (wanted.contains(name)) elements += static_cast<std::uint64_t>(parameter.numel());
    });
    // Sums, a batch's gradients until it is finished, and squares.
    const std::uint64_t needed = elements * c10::elementSize(type) * (m_options.perRow ? 3 : 2);
    if (const auto available = freeHostMemory(); available && needed > *available)
        throw Error(ErrorCode::OutOfMemory, "gradients", "of all weights need " + formatBytes(needed) + ", " + formatBytes(*available) + " are free; the gate forms need none of it");
    model().visitParameters([&](const std::string& name, torch::Tensor& parameter) {
        if (!wanted.contains(name)) return;
        m_sums[name] = torch::zeros(parameter.sizes(), type);
        if (m_options.perRow) m_squares[name] = torch::zeros(parameter.sizes(), type);
    });
}

/// d(sum over rows of L_n) / d(state leaving the last block). Adds to the batch's loss, rows and tokens.
torch::Tensor GradientPass::lossGradient(const torch::Tensor& state, const torch::Tensor& targets_BT, std::span<const RowSpan> spans) {
    const auto leaf = state.detach().requires_grad_(true);
    const auto logits_BTV = model().head(model().finalNorm(leaf));
    const auto targets = targets_BT.to(logits_BTV.device());
    const auto losses_BT = torch::cross_entropy_loss(logits_BTV.reshape({-1, logits_BTV.size(-1)}).to(wideOf(logits_BTV.scalar_type())), targets.reshape({-1}), {},
                                                     at::Reduction::None, kIgnoredTarget).view(targets.sizes());
    const auto counts_B = targets.ne(kIgnoredTarget).sum(1);
    const auto rows_B = losses_BT.sum(1) / counts_B.clamp_min(1).to(losses_BT.scalar_type());
    for (std::size_t b = 0; b < spans.size(); ++b) {
        const double loss = rows_B[static_cast<std::int64_t>(b)].item<double>();
        if (!std::isfinite(loss))
            throw Error(ErrorCode::BadInput, "row " + std::to_string(spans[b].row), "the loss is not finite; the weights hold NaN or infinity, or overflow in this precision");
        if (counts_B[static_cast<std::int64_t>(b)].item<std::int64_t>() == 0) continue;
        m_batchLoss += loss;
        m_batchRows += 1;
        m_batchTokens += static_cast<double>(spans[b].end - spans[b].begin);
    }
    if (m_batchRows == 0) return torch::zeros_like(state);
    const auto gradient = torch::autograd::grad({rows_B.sum()}, {leaf})[0];
    m_batchGradient += gradient.to(torch::kFloat64).norm().item<double>();
    return gradient;
}

void GradientPass::addExperts(BlockGates& gates, int block, const BlockTaps& taps, std::span<const torch::Tensor> gradients, std::span<const RowSpan> spans) {
    const BlockShape& shape = m_shape.blocks[static_cast<std::size_t>(block)];
    const std::int64_t experts = shape.numExperts, width = shape.ffnSize, length = taps.choice_BTK.size(1), rows = static_cast<std::int64_t>(spans.size());
    const auto options = torch::TensorOptions().dtype(torch::kFloat64);
    auto channel_REF = torch::zeros({rows, experts, width}, options);
    auto channelToken_EF = torch::zeros({experts, width}, options), expertToken_E = torch::zeros({experts}, options);
    for (std::size_t i = 0; i < taps.experts.size(); ++i) {
        const auto& [expert, channels_nF] = taps.experts[i];
        if (!gradients[i].defined()) continue;
        const auto gates_nF = doubles(channels_nF) * doubles(gradients[i]);   // 0 at padding: no loss depends on it
        const auto row_n = tokensOfExpert(taps.choice_BTK, expert).div(length, "floor");
        channel_REF.select(1, expert).index_add_(0, row_n, gates_nF);
        channelToken_EF[expert] += gates_nF.abs().sum(0);
        expertToken_E[expert] += gates_nF.sum(1).abs().sum();
    }
    gates.channel.add(channel_REF.view({rows, experts * width}), channelToken_EF.view({-1}));
    gates.expert.add(channel_REF.sum(2), expertToken_E);
}

/// `gradients`: of heads, channels, then each expert's channels, undefined where there are none.
void GradientPass::addUnits(BlockGates& gates, int block, const BlockTaps& taps, const std::vector<torch::Tensor>& gradients, std::span<const RowSpan> spans) {
    const BlockShape& shape = m_shape.blocks[static_cast<std::size_t>(block)];
    const auto perRow = [&](const torch::Tensor& gates_BTU) {
        std::vector<torch::Tensor> rows;
        for (std::size_t b = 0; b < spans.size(); ++b) rows.push_back(gates_BTU[static_cast<std::int64_t>(b)].narrow(0, spans[b].begin, spans[b].end - spans[b].begin).sum(0));
        return torch::stack(rows);
    };
    const auto perToken = [&](const torch::Tensor& gates_BTU) {
        auto sum = torch::zeros({gates_BTU.size(2)}, gates_BTU.options());
        for (std::size_t b = 0; b < spans.size(); ++b) sum += gates_BTU[static_cast<std::int64_t>(b)].narrow(0, spans[b].begin, spans[b].end - spans[b].begin).abs().sum(0);
        return sum;
    };
    if (gradients[0].defined()) {
        const auto product = doubles(taps.heads_BTC) * doubles(gradients[0]);
        const auto heads_BTN = product.view({product.size(0), product.size(1), shape.numHeads, shape.headDim}).sum(3);
        gates.head.add(perRow(heads_BTN), perToken(heads_BTN));
    }
    if (gradients[1].defined()) {
        const auto channels_BTF = doubles(taps.channels_BTF) * doubles(gradients[1]);
        gates.channel.add(perRow(channels_BTF), perToken(channels_BTF));
    }
    if (shape.numExperts > 0 && taps.choice_BTK.defined()) addExperts(gates, block, taps, std::span(gradients).subspan(2), spans);
}

/// Runs the block again inside a graph and takes the gradient through it; collects what the scores need on the way.
torch::Tensor GradientPass::throughBlock(int block, const torch::Tensor& state, const torch::Tensor& gradient, const TokenBatch& batch, std::span<const RowSpan> spans) {
    const BlockShape& shape = m_shape.blocks[static_cast<std::size_t>(block)];
    if (!shape.hasAttention && !shape.hasFfn) return gradient;
    std::vector<std::string> names;
    std::vector<torch::Tensor> weights;
    struct Restore {
        std::vector<torch::Tensor>& weights;
        ~Restore() { for (auto& weight : weights) weight.set_requires_grad(false); }
    } restore{weights};
    if (m_options.elements) {
        const auto& wanted = m_matrices.at(block);
        model().visitParameters([&](const std::string& name, torch::Tensor& parameter) {
            if (std::find(wanted.begin(), wanted.end(), name) == wanted.end()) return;
            names.push_back(name);
            weights.push_back(parameter.set_requires_grad(true));
        });
    }
    m_taps.clear();
    const auto leaf = state.detach().requires_grad_(true);
    const auto out = model().runBlocks(leaf, batch, block, block + 1, &m_taps);
    std::vector<torch::Tensor> inputs{leaf};
    const auto addInput = [&](const torch::Tensor& tensor) { if (tensor.defined()) inputs.push_back(tensor); };
    addInput(m_taps.heads_BTC);
    addInput(m_taps.channels_BTF);
    for (const auto& [expert, channels] : m_taps.experts) inputs.push_back(channels);
    inputs.insert(inputs.end(), weights.begin(), weights.end());
    const auto gradients = torch::autograd::grad({out}, inputs, {gradient}, /*retain_graph=*/false, /*create_graph=*/false, /*allow_unused=*/true);
    std::size_t next = 1;
    const auto take = [&](const torch::Tensor& tensor) { return tensor.defined() ? gradients[next++] : torch::Tensor(); };
    std::vector<torch::Tensor> units{take(m_taps.heads_BTC)};
    units.push_back(take(m_taps.channels_BTF));
    for (const auto& [expert, channels] : m_taps.experts) units.push_back(take(channels));
    addUnits(m_batchGates[static_cast<std::size_t>(block)], block, m_taps, units, spans);
    for (std::size_t i = 0; i < names.size(); ++i) {
        const auto& own = gradients[next + i];
        if (own.defined()) m_batchGradients[names[i]] = own.detach().to(torch::kCPU, m_sums.at(names[i]).scalar_type());
    }
    m_taps.clear();
    return gradients[0];
}

/// False when it was stopped within the batch.
bool GradientPass::batch(std::size_t, std::span<const RowSpan> spans, const TokenBatch& batch, const torch::Tensor& targets_BT, const JobContext& job) {
    m_batchGates.assign(m_shape.blocks.size(), {});
    m_batchGradients.clear();
    m_batchLoss = m_batchRows = m_batchTokens = m_batchGradient = 0;
    std::vector<torch::Tensor> states;
    {
        const torch::NoGradGuard noGrad;
        states.push_back(model().embed(batch));
        for (int block = 0; block < m_shape.numBlocks(); ++block) {
            if (job.stopped()) return false;
            states.push_back(model().runBlocks(states.back(), batch, block, block + 1));
        }
    }
    const torch::AutoGradMode gradients(true);
    auto gradient = lossGradient(states.back(), targets_BT, spans);
    if (m_batchRows == 0) return true;
    for (int block = m_shape.numBlocks() - 1; block >= 0; --block) {
        if (job.stopped()) return false;
        states.resize(static_cast<std::size_t>(block) + 1);
        gradient = throughBlock(block, states.back(), gradient, batch, spans);
    }
    commit();
    return true;
}

/// A stopped batch must not count for some blocks only, so a batch joins the sums as a whole.
void GradientPass::commit() {
    m_loss += m_batchLoss;
    m_rows += m_batchRows;
    m_tokens += m_batchTokens;
    m_gradient += m_batchGradient;
    for (std::size_t block = 0; block < m_gates.size(); ++block) {
        const auto join = [](Gates& all, const Gates& own) {
            if (!own.absolute.defined()) return;
            if (!all.absolute.defined()) all = own;
            else all.absolute += own.absolute, all.squares += own.squares, all.signedSum += own.signedSum, all.token += own.token;
        };
        BlockGates &all = m_gates[block], &own = m_batchGates[block];
        join(all.head, own.head);
        join(all.channel, own.channel);
        join(all.expert, own.expert);
    }
    for (const auto& [name, own] : m_batchGradients) {
        m_sums.at(name) += own;
        if (m_options.perRow) m_squares.at(name).addcmul_(own, own);
    }
}

std::size_t GradientPass::measure(const JobContext& job) {
    model().setCut({});
    std::optional<ExpertTaps> taps;
    const bool routed = std::any_of(m_shape.blocks.begin(), m_shape.blocks.end(), [](const BlockShape& block) { return block.numExperts > 0; });
    // Outside throughBlock() the taps collect too, which clear() throws away.
    if (routed) taps.emplace(model(), [this](int, int expert, const torch::Tensor& channels_nF) { if (torch::GradMode::is_enabled()) m_taps.experts.emplace_back(expert, channels_nF); });
    const auto device = model().device();
    const double total = static_cast<double>(m_run.data().rows.size());
    std::size_t done = 0;
    for (std::size_t index = 0; index < m_run.numBatches() && !job.stopped(); ++index) {
        const TokenBatch whole = m_run.batch(index).to(device);
        const auto targets_BT = m_run.targets(index);
        const auto spans = m_run.rowSpans(index);
        if (!m_options.perRow) {
            if (!batch(index, spans, whole, targets_BT, job)) break;
            done += spans.size();
            job.progress({static_cast<double>(done), total, "rows", "gradients"});
            continue;
        }
        for (std::size_t b = 0; b < spans.size(); ++b) {
            const auto row = [&](const torch::Tensor& x) { return x.defined() ? x.narrow(0, static_cast<std::int64_t>(b), 1) : x; };
            if (!batch(index, std::span(spans).subspan(b, 1), {row(whole.ids_BT), row(whole.mask_BT), row(whole.documents_BT)}, row(targets_BT), job)) return done;
            job.progress({static_cast<double>(++done), total, "rows", "gradients"});
        }
    }
    return done;
}

GradientScores GradientPass::result(std::size_t rowsDone) const {
    GradientScores scores;
    scores.rowsDone = static_cast<std::int64_t>(rowsDone);
    scores.rowsTotal = static_cast<std::int64_t>(m_run.data().rows.size());
    scores.loss = m_rows > 0 ? m_loss / m_rows : std::numeric_limits<double>::quiet_NaN();
    for (std::size_t block = 0; block < m_gates.size(); ++block) {
        const int number = static_cast<int>(block);
        m_gates[block].head.appendTo(scores.head, m_rows, m_tokens, number, "head");
        m_gates[block].channel.appendTo(scores.channel, m_rows, m_tokens, number, "channel");
        m_gates[block].expert.appendTo(scores.expert, m_rows, m_tokens, number, "expert");
        const auto& headsPerKv = m_shape.blocks[block].headsPerKv;
        const auto fold = [&](UnitTable& to, const UnitTable& from) { to.push_back(from.back().empty() ? from.back() : foldHeads(from.back(), headsPerKv)); };
        fold(scores.group.row, scores.head.row);
        fold(scores.group.token, scores.head.token);
        fold(scores.group.batch, scores.head.batch);
        fold(scores.group.signedMean, scores.head.signedMean);
    }
    if (m_rows > 0 && (scores.loss < 1e-3 || m_gradient / m_rows < 1e-9))
        scores.notes.push_back({Severity::Warning, "gradients", "the loss on this data is " + toText(scores.loss, 3) + " and its gradients nearly vanish, so that scores from gradients say nothing",
                                "Measure on text that the model has not learned by heart."});
    if (!m_options.elements || m_rows == 0) return scores;
    LoadOptions load = m_run.options().load;
    load.dtype = wideOf(load.dtype);
    load.device = torch::kCPU;
    const WeightSource weights = checkpointWeights(m_run.checkpoint(), load);
    const auto gradientOf = [&](const std::string& name) { return m_sums.at(name).to(torch::kFloat64) / m_rows; };
    const auto squareOf = [&](const std::string& name) { return m_squares.at(name).to(torch::kFloat64) / m_rows; };
    const BlockMatrices first(m_shape, [&](const ExpectedTensor& tensor) { return weights(tensor).to(torch::kFloat64) * gradientOf(tensor.name); });
    const BlockMatrices second(m_shape, [&](const ExpectedTensor& tensor) { return weights(tensor).to(torch::kFloat64).square() * squareOf(tensor.name); });
    const BlockMatrices mixed(m_shape, [&](const ExpectedTensor& tensor) {
        const auto weight = weights(tensor).to(torch::kFloat64);
        return weight * gradientOf(tensor.name) - weight.square() * squareOf(tensor.name) / 2;
    });
    for (const ComponentKind kind : {ComponentKind::Head, ComponentKind::KvGroup, ComponentKind::Channel, ComponentKind::Expert}) {
        TaylorTables& tables = scores.taylor[kind];
        for (int block = 0; block < m_shape.numBlocks(); ++block) {
            tables.first.push_back(coupledScores(first, block, kind, {.power = 1}, m_options.reduction));
            tables.vectorised.push_back(coupledScores(first, block, kind, {.vectorised = true}, m_options.reduction));
            if (!m_options.perRow) continue;
            tables.second.push_back(coupledScores(second, block, kind, {.power = 1}, m_options.reduction));
            tables.mixed.push_back(coupledScores(mixed, block, kind, {.power = 1}, m_options.reduction));
        }
    }
    return scores;
}

}  // namespace

GradientScores measureGradients(ModelRun& run, const GradientOptions& options, const JobContext& job) {
    requireHead(run.shape());
    if (options.perRow && !options.elements) throw Error(ErrorCode::Usage, "gradients", "squared gradients of each row need the gradients of all weights");
    GradientPass pass(run, options);
    const std::size_t rows = pass.measure(job);
    return pass.result(rows);
}

}  // namespace resect
