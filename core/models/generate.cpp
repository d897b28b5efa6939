#include "core/base/error.h"
#include "core/models/tower_model.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace resect {

namespace {

/// Chooses from the logits of one position.
class Sampler {
public:
    explicit Sampler(const SamplingOptions& options) : m_options(options), m_engine(options.seed) {}

    /// logits_V f32 on the CPU; returns the id and its log-probability under the plain softmax.
    std::pair<std::int64_t, double> choose(const torch::Tensor& logits_V) {
        const auto logProbabilities_V = torch::log_softmax(logits_V.to(torch::kFloat64), 0).contiguous();
        const auto size = m_options.idLimit > 0 ? std::min(m_options.idLimit, logProbabilities_V.size(0)) : logProbabilities_V.size(0);
        const std::span<const double> values(logProbabilities_V.data_ptr<double>(), static_cast<std::size_t>(size));
        if (!std::isfinite(*std::max_element(values.begin(), values.end()))) {
            throw Error(ErrorCode::BadInput, "generation", "the logits are not finite");
        }
        const std::int64_t id = m_options.temperature <= 0 ? std::max_element(values.begin(), values.end()) - values.begin() : sample(values);
        return {id, values[static_cast<std::size_t>(id)]};
    }

private:
    std::int64_t sample(std::span<const double> logProbabilities) {
        std::vector<std::int64_t> order(logProbabilities.size());
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
            return logProbabilities[static_cast<std::size_t>(a)] > logProbabilities[static_cast<std::size_t>(b)];
        });
        if (m_options.topK > 0 && static_cast<std::size_t>(m_options.topK) < order.size()) {
            order.resize(static_cast<std::size_t>(m_options.topK));
        }
        std::vector<double> weights;
        const double best = logProbabilities[static_cast<std::size_t>(order.front())];
        for (const std::int64_t id : order) {
            weights.push_back(std::exp((logProbabilities[static_cast<std::size_t>(id)] - best) / m_options.temperature));
        }
        // Nucleus: the shortest head of the list that holds at least topP of the mass.
        const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
        double mass = 0;
        std::size_t kept = 0;
        while (kept < weights.size() && (kept == 0 || mass < m_options.topP * total)) {
            mass += weights[kept++];
        }
        double draw = static_cast<double>(m_engine() >> 11) * 0x1.0p-53 * mass;  // the same on every standard library
        for (std::size_t i = 0; i < kept; ++i) {
            draw -= weights[i];
            if (draw < 0) {
                return order[i];
            }
        }
        return order[kept - 1];
    }

    SamplingOptions m_options;
    std::mt19937_64 m_engine;
};

}  // namespace

std::vector<std::int64_t> generate(const LanguageModel& model, std::span<const std::int64_t> prompt, const SamplingOptions& options,
                                   const JobContext& job, const std::function<void(std::int64_t, double)>& onToken) {
    TokenBatch batch;
    batch.ids_BT = torch::tensor(std::vector<std::int64_t>(prompt.begin(), prompt.end()), torch::kInt64).unsqueeze(0);
    return generateAbout(model, batch, options, job, onToken);
}

std::vector<std::int64_t> generateAbout(const LanguageModel& model, const TokenBatch& prompt, const SamplingOptions& options, const JobContext& job,
                                        const std::function<void(std::int64_t, double)>& onToken) {
    if (prompt.ids_BT.numel() == 0) {
        throw Error(ErrorCode::BadInput, "prompt", "expected at least one token");
    }
    const torch::NoGradGuard noGrad;
    const ModelShape& shape = model.shape();
    const auto cache = model.makeCache(1, static_cast<int>(prompt.ids_BT.size(1)) + std::max(options.maxNewTokens, 1));
    Sampler sampler(options);
    std::vector<std::int64_t> generated;
    TokenBatch batch = prompt;
    while (static_cast<int>(generated.size()) < options.maxNewTokens && !job.stopped()) {
        const auto x_BTD = model.runBlocks(model.embed(batch, cache.get()), batch, 0, shape.numBlocks(), nullptr, cache.get());
        const auto last_BD = x_BTD.select(1, x_BTD.size(1) - 1);
        const auto logits_V = model.head(model.finalNorm(last_BD)).view({-1}).to(torch::kCPU, torch::kFloat32);
        const auto [id, logProbability] = sampler.choose(logits_V);
        generated.push_back(id);
        batch = {torch::tensor({id}, torch::kInt64).unsqueeze(0), {}, {}};
        if (onToken) {
            onToken(id, logProbability);
        }
        job.progress({static_cast<double>(generated.size()), static_cast<double>(options.maxNewTokens), "tokens", "generating"});
        if (std::find(shape.eosIds.begin(), shape.eosIds.end(), static_cast<int>(id)) != shape.eosIds.end()) {
            break;
        }
    }
    return generated;
}

}  // namespace resect
