#include "core/worker/routing.h"

#include "core/base/error.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

namespace resect {

namespace {

/// Keeps what the router of one block chose for a single row.
class ChoiceObserver final : public Observer {
public:
    bool wants(TapPoint point, int) const override { return point == TapPoint::ExpertChoice || point == TapPoint::ExpertGates; }
    void observe(TapPoint point, int, const torch::Tensor& value_BTK) override {
        const torch::Tensor first_TK = value_BTK[0].detach().to(torch::kCPU);
        if (point == TapPoint::ExpertChoice) choice_TK = first_TK.to(torch::kInt64).contiguous();
        else gates_TK = first_TK.to(torch::kFloat64).contiguous();
    }
    torch::Tensor choice_TK, gates_TK;
};

RoutedText::Block blockOf(int block, int numExperts, const ChoiceObserver& seen) {
    RoutedText::Block routed{block, numExperts, {}, {}};
    const torch::Tensor order_TK = std::get<1>(seen.gates_TK.sort(/*stable=*/true, -1, /*descending=*/true));
    const torch::Tensor choice_TK = seen.choice_TK.gather(1, order_TK).contiguous(), gates_TK = seen.gates_TK.gather(1, order_TK).contiguous();
    const std::int64_t tokens = choice_TK.size(0), k = choice_TK.size(1);
    for (std::int64_t t = 0; t < tokens; ++t) {
        const auto* experts = choice_TK.data_ptr<std::int64_t>() + t * k;
        const auto* gates = gates_TK.data_ptr<double>() + t * k;
        routed.experts.emplace_back(experts, experts + k);
        routed.gates.emplace_back(gates, gates + k);
    }
    return routed;
}

RoutedText routeIds(OpenedCheckpoint& opened, std::vector<std::int64_t> ids, int maxTokens, const Compute& compute, const JobContext& job) {
    const ModelShape& shape = opened.shape();
    int last = -1;  // the blocks after the last one with experts need not run
    for (int i = 0; i < shape.numBlocks(); ++i)
        if (shape.blocks[static_cast<std::size_t>(i)].numExperts > 0) last = i;
    if (last < 0) throw Error(ErrorCode::Unsupported, opened.name(), "has no experts, so there is no router to look at");
    if (ids.empty()) throw Error(ErrorCode::Usage, "text", "it has no tokens; write at least one word");
    RoutedText routed;
    std::int64_t longest = maxTokens;
    if (shape.maxPositions > 0) longest = std::min<std::int64_t>(longest, shape.maxPositions);
    routed.shortened = static_cast<std::int64_t>(ids.size()) > longest;
    if (routed.shortened) ids.resize(static_cast<std::size_t>(longest));
    const Tokenizer* tokenizer = opened.findTokenizer();
    for (const std::int64_t id : ids) routed.tokens.push_back(tokenizer ? tokenizer->piece(id) : std::to_string(id));

    const torch::InferenceMode guard;
    const auto model = opened.model(compute, job);
    TokenBatch batch;
    batch.ids_BT = torch::tensor(ids, torch::kInt64).unsqueeze(0);
    batch = batch.to(model->device());
    torch::Tensor x_BTD = model->embed(batch);
    for (int i = 0; i <= last; ++i) {
        if (job.stopped()) throw Error(ErrorCode::Stopped, "router", "stopped before the text had passed all blocks");
        ChoiceObserver seen;
        x_BTD = model->runBlocks(x_BTD, batch, i, i + 1, &seen);
        if (seen.choice_TK.defined()) routed.blocks.push_back(blockOf(i, shape.blocks[static_cast<std::size_t>(i)].numExperts, seen));
        job.progress({static_cast<double>(i + 1), static_cast<double>(last + 1), "blocks", "routing"});
    }
    return routed;
}

}  // namespace

RoutedText routeText(OpenedCheckpoint& opened, const std::string& text, int maxTokens, const Compute& compute, const JobContext& job) {
    return routeIds(opened, opened.tokenizer().encode(text), maxTokens, compute, job);
}

RoutedText routeRow(OpenedCheckpoint& opened, const protocol::DataMessage& data, std::int64_t row, int maxTokens, const Compute& compute, const JobContext& job) {
    if (row < 0) throw Error(ErrorCode::Usage, "row", "expected 0 or more, found " + std::to_string(row));
    protocol::DataMessage part = data;
    part.maxRows = row + 1;
    const Dataset dataset = opened.data(part);
    if (row >= static_cast<std::int64_t>(dataset.rows.size()))
        throw Error(ErrorCode::NotFound, data.file, "has " + std::to_string(dataset.rows.size()) + " rows, so there is no row " + std::to_string(row));
    return routeIds(opened, dataset.rows[static_cast<std::size_t>(row)].ids, maxTokens, compute, job);
}

Json toJson(const RoutedText& routed) {
    Json blocks = Json::array();
    for (const auto& block : routed.blocks) blocks.push_back({{"block", block.block}, {"numExperts", block.numExperts}, {"experts", block.experts}, {"gates", block.gates}});
    return {{"tokens", routed.tokens}, {"blocks", std::move(blocks)}, {"shortened", routed.shortened}};
}

}  // namespace resect
