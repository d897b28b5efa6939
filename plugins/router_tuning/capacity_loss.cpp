#include "plugins/router_tuning/capacity_loss.h"

#include "core/base/error.h"

#include <torch/types.h>

#include <algorithm>
#include <limits>

namespace resect::router {

namespace {

constexpr double kMemory = 0.9;  // of the moving mean

}  // namespace

torch::Tensor capacityLoss(const std::vector<Routing::Decision>& decisions, const CapacityOptions& options, double weight) {
    if (decisions.empty()) return {};
    std::vector<torch::Tensor> shares;
    for (const auto& decision : decisions) shares.push_back(decision.capacity());
    const auto shares_n = torch::stack(shares);
    const auto n = static_cast<double>(decisions.size());
    if (options.scope == CapacityScope::Layer) return torch::relu(shares_n - options.target).sum() * weight;
    return torch::relu(shares_n.mean() - options.target) * (weight * n);
}

void CapacityMeter::add(const std::vector<Routing::Decision>& decisions) {
    for (const auto& decision : decisions) {
        auto& [sum, count] = m_batches[decision.block];
        sum += decision.capacity().item<double>();
        ++count;
    }
}

void CapacityMeter::endStep() {
    if (m_batches.empty()) return;
    double overall = 0;
    for (const auto& [block, batches] : m_batches) {
        const double share = batches.first / batches.second;
        const auto [mean, isFirst] = m_means.try_emplace(block, share);
        if (!isFirst) mean->second = kMemory * mean->second + (1 - kMemory) * share;
        overall += share / static_cast<double>(m_batches.size());
    }
    m_batches.clear();
    m_weight = std::max(0.0, m_weight + m_options.dualRate * (overall - m_options.target));
}

double CapacityMeter::overall() const noexcept {
    if (m_means.empty()) return std::numeric_limits<double>::quiet_NaN();
    double sum = 0;
    for (const auto& [block, mean] : m_means) sum += mean;
    return sum / static_cast<double>(m_means.size());
}

Json CapacityMeter::toJson() const {
    Json blocks = Json::object();
    for (const auto& [block, mean] : m_means) blocks[std::to_string(block)] = mean;
    return {{"target", m_options.target}, {"overall", m_means.empty() ? Json() : Json(overall())}, {"blocks", blocks}, {"lambda", m_weight}};
}

void CapacityMeter::restore(const Json& json, const std::string& subject) {
    reset();
    m_weight = numberField(json, "lambda", subject);
    const Json blocks = json.value("blocks", Json::object());   // must outlive the loop over its items
    for (const auto& [block, mean] : blocks.items()) {
        if (!mean.is_number()) throw Error(ErrorCode::BadInput, subject + ": blocks", "expected a number for block " + block);
        m_means[std::atoi(block.c_str())] = mean.get<double>();
    }
}

void CapacityMeter::reset() {
    m_weight = m_options.weight;
    m_means.clear();
    m_batches.clear();
}

}  // namespace resect::router
