#include "plugins/s2ft/s2_scores.h"

#include "core/base/error.h"
#include "core/models/ops.h"
#include "core/train/batches.h"
#include "core/train/losses.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

namespace resect::s2 {

namespace {

constexpr std::array<std::string_view, 5> kWords{"random", "weight", "activation", "product", "gradient"};

/// Adds up |x| of the inputs of a linear map that it stands in for.
class Meter final : public Linear {
public:
    explicit Meter(std::unique_ptr<Linear> base) : m_base(std::move(base)) {}
    torch::Tensor forward(const torch::Tensor& x) const override {
        const auto rows_MK = x.detach().reshape({-1, x.size(-1)});
        const auto sum_K = rows_MK.abs().sum(0, false, torch::kFloat64);
        m_sum = m_sum.defined() ? m_sum + sum_K : sum_K;
        m_tokens += rows_MK.size(0);
        return m_base->forward(x);
    }
    torch::Tensor mergedWeight() const override { return m_base->mergedWeight(); }
    torch::Tensor bias() const override { return m_base->bias(); }
    void visitParameters(const std::function<void(const std::string&, torch::Tensor&)>& visit) override { m_base->visitParameters(visit); }
    std::unique_ptr<Linear> takeBase() { return std::move(m_base); }
    /// Mean over tokens of |x|, [K] f64 on the CPU; undefined when no token came.
    torch::Tensor mean() const { return m_tokens > 0 ? (m_sum / double(m_tokens)).to(torch::kCPU) : torch::Tensor(); }

private:
    std::unique_ptr<Linear> m_base;
    mutable torch::Tensor m_sum;
    mutable std::int64_t m_tokens = 0;
};

using Place = std::pair<int, std::string>;   // block and role

/// The weight [out, in] that a role runs with, as stored in the model.
torch::Tensor weightOf(LanguageModel& model, const Place& place) {
    torch::Tensor weight;
    model.replaceLinear(place.first, place.second, [&](std::unique_ptr<Linear> linear) {
        weight = linear->mergedWeight();
        return linear;
    });
    return weight;
}

/// Batches of rows of one length, so that nothing is padded.
std::vector<TrainBatch> unpadded(std::span<const TokenRow> rows, int batchRows) {
    std::map<std::size_t, std::vector<const TokenRow*>> byLength;
    for (const auto& row : rows) byLength[row.ids.size()].push_back(&row);
    std::vector<TrainBatch> batches;
    for (const auto& [length, same] : byLength)
        for (std::size_t begin = 0; begin < same.size(); begin += static_cast<std::size_t>(batchRows))
            batches.push_back(makeBatch(std::span(same).subspan(begin, std::min(same.size() - begin, static_cast<std::size_t>(batchRows)))));
    return batches;
}

void goOn(const JobContext& job, std::size_t done, std::size_t all) {
    if (job.stopped()) throw Error(ErrorCode::Stopped, "choosing what is trained", "stopped on request");
    job.progress({double(done), double(all), "batches", "choosing what is trained"});
}

/// What reads the activations of the units: heads and channels at the output of their branch.
Pool reader(const Pool& pool, const ModelShape& shape) {
    const Part part = pool.part == Part::Value ? Part::Output : pool.part == Part::Up ? Part::Down : pool.part;
    const auto readers = poolsOf(shape, part);
    return *std::ranges::find_if(readers, [&](const Pool& known) { return known.block == pool.block && known.expert == pool.expert; });
}

/// Mean |input| [K] per reading projection.
std::map<Place, torch::Tensor> inputMeans(LanguageModel& model, const std::map<Part, std::vector<Pool>>& pools, const std::vector<TrainBatch>& batches, const JobContext& job) {
    torch::NoGradGuard noGrad;
    std::map<Place, Meter*> meters;
    for (const auto& [part, list] : pools)
        for (const Pool& pool : list) {
            const Place place{pool.block, reader(pool, model.shape()).role};
            if (meters.contains(place)) continue;
            model.replaceLinear(place.first, place.second, [&](std::unique_ptr<Linear> base) {
                auto meter = std::make_unique<Meter>(std::move(base));
                meters[place] = meter.get();
                return meter;
            });
        }
    std::map<Place, torch::Tensor> means;
    const auto takeOut = [&] {
        for (const auto& [place, meter] : meters) {
            means[place] = meter->mean();
            model.replaceLinear(place.first, place.second, [own = meter](std::unique_ptr<Linear> held) {
                auto base = own->takeBase();
                held.reset();
                return base;
            });
        }
    };
    try {
        for (std::size_t i = 0; i < batches.size(); ++i) {
            goOn(job, i, batches.size());
            const auto there = batches[i].to(model.device());
            model.runBlocks(model.embed(there.tokens), there.tokens, 0, model.shape().numBlocks());
        }
    } catch (...) {
        takeOut();
        throw;
    }
    takeOut();
    return means;
}

std::vector<double> numbers(const torch::Tensor& x) {
    const auto values = x.to(torch::kCPU, torch::kFloat64).contiguous();
    return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
}

std::vector<double> activations(const Pool& pool, const torch::Tensor& mean_K, const BlockShape& block) {
    const auto units = static_cast<std::size_t>(pool.units);
    if (!mean_K.defined()) return std::vector<double>(units, std::numeric_limits<double>::quiet_NaN());
    if (pool.part == Part::Down || pool.part == Part::Up) return numbers(mean_K);
    const auto perHead = numbers(mean_K.view({-1, block.headDim}).mean(1));
    if (pool.part == Part::Output) return perHead;
    std::vector<double> groups(units);
    for (int group = 0, head = 0; group < pool.units; ++group) {
        const int count = block.headsPerKv[static_cast<std::size_t>(group)];
        for (int i = 0; i < count; ++i, ++head) groups[static_cast<std::size_t>(group)] += perHead[static_cast<std::size_t>(head)] / count;
    }
    return groups;
}

/// Frobenius norm of each unit's slice of a matrix [out, in].
std::vector<double> sliceNorms(const Pool& pool, const torch::Tensor& matrix) {
    const int axis = pool.side() == Side::In ? 1 : 0;
    const auto own = matrix.narrow(axis, pool.offset, std::int64_t{pool.units} * pool.width);
    return numbers(own.to(torch::kFloat64).square().sum(1 - axis).view({-1, pool.width}).sum(1).sqrt());
}

void requireFinite(const Pool& pool, const std::vector<double>& scores) {
    for (std::size_t i = 0; i < scores.size(); ++i)
        if (std::isinf(scores[i]) || (std::isnan(scores[i]) && pool.expert < 0))
            throw Error(ErrorCode::BadInput, "block " + std::to_string(pool.block) + ", " + pool.role + ", unit " + std::to_string(i),
                        "the score is not finite; the weights hold NaN or infinity, or the activations overflow in this precision");
}

/// dL/dW of each projection's weight, summed in f32 (f64) over the batches.
std::map<Place, torch::Tensor> gradients(LanguageModel& model, const std::map<Part, std::vector<Pool>>& pools, const std::vector<TrainBatch>& batches, const JobContext& job) {
    std::map<Place, torch::Tensor> weights, sums;
    std::int64_t counted = 0;
    for (const auto& batch : batches) counted += batch.counted;
    if (counted == 0) throw Error(ErrorCode::BadInput, "ranking", "the rows for measuring have no target, so there is no gradient");
    const auto setTrained = [&](bool trained) {
        for (auto& [place, weight] : weights) {
            // The stored tensor is the leaf; a transposed one only views it.
            model.replaceLinear(place.first, place.second, [&](std::unique_ptr<Linear> linear) {
                linear->visitParameters([&](const std::string& name, torch::Tensor& parameter) {
                    if (name != "weight") return;
                    parameter.set_requires_grad(trained);
                    if (trained) weight = parameter;
                    else parameter.mutable_grad() = torch::Tensor();
                });
                return linear;
            });
        }
    };
    for (const auto& [part, list] : pools)
        for (const Pool& pool : list) weights[{pool.block, pool.role}];
    setTrained(true);
    try {
        for (std::size_t i = 0; i < batches.size(); ++i) {
            goOn(job, i, batches.size());
            if (batches[i].counted == 0) continue;
            accumulateGradients(model, nullptr, batches[i].to(model.device()), {}, double(batches[i].counted) / double(counted));
            for (auto& [place, weight] : weights) {
                auto& gradient = weight.mutable_grad();
                if (!gradient.defined()) continue;
                torch::NoGradGuard noGrad;
                const auto wide = gradient.to(gradient.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32);
                sums[place] = sums[place].defined() ? sums[place] + wide : wide;
                gradient = torch::Tensor();
            }
        }
    } catch (...) {
        setTrained(false);
        throw;
    }
    setTrained(false);
    for (const auto& [place, weight] : weights) {
        const auto like = weightOf(model, place);
        auto& sum = sums[place];
        if (!sum.defined()) sum = torch::zeros_like(like, torch::kFloat32);
        else if (!like.is_contiguous()) sum = sum.t();   // stored [in, out]
    }
    return sums;
}

}  // namespace

Ranking rankingOf(const std::string& word) {
    const auto found = std::ranges::find(kWords, word);
    if (found == kWords.end()) throw Error(ErrorCode::Usage, "ranking", "expected random, weight, activation, product or gradient, found " + word);
    return static_cast<Ranking>(found - kWords.begin());
}

std::string_view name(Ranking ranking) noexcept { return kWords[static_cast<std::size_t>(ranking)]; }

std::map<Part, Scores> measureScores(LanguageModel& model, const std::map<Part, std::vector<Pool>>& pools, Ranking ranking, std::span<const TokenRow> rows, int batchRows,
                                     std::uint64_t seed, const JobContext& job) {
    std::map<Part, Scores> scores;
    if (ranking == Ranking::Random) {
        for (const auto& [part, list] : pools) scores[part] = randomScores(list, seed);
        return scores;
    }
    const bool runs = ranking != Ranking::Weight;
    if (runs && rows.empty()) throw Error(ErrorCode::BadInput, "ranking", "ranking by " + std::string(name(ranking)) + " needs rows to run, and there are none");
    const auto batches = runs ? unpadded(rows, batchRows) : std::vector<TrainBatch>{};
    const auto slopes = ranking == Ranking::Gradient ? gradients(model, pools, batches, job) : std::map<Place, torch::Tensor>{};
    const auto means = ranking == Ranking::Activation || ranking == Ranking::Product ? inputMeans(model, pools, batches, job) : std::map<Place, torch::Tensor>{};
    torch::NoGradGuard noGrad;
    for (const auto& [part, list] : pools)
        for (const Pool& pool : list) {
            const Place place{pool.block, pool.role};
            std::vector<double> own;
            if (ranking == Ranking::Gradient) own = sliceNorms(pool, slopes.at(place));
            if (ranking == Ranking::Weight || ranking == Ranking::Product) own = sliceNorms(pool, weightOf(model, place));
            if (!means.empty()) {
                const auto active = activations(pool, means.at({pool.block, reader(pool, model.shape()).role}), model.shape().blocks[static_cast<std::size_t>(pool.block)]);
                if (own.empty()) own = active;
                else for (std::size_t i = 0; i < own.size(); ++i) own[i] *= active[i];
            }
            requireFinite(pool, own);
            scores[part].push_back(std::move(own));
        }
    return scores;
}

}  // namespace resect::s2
