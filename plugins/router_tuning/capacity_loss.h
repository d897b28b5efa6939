#pragma once
#include "plugins/router_tuning/routing.h"

#include <map>
#include <vector>

namespace resect::router {

/// Over which routers the executed share is compared with the target.
enum class CapacityScope { Layer, Model };

struct CapacityOptions {
    double target = 0.5;         ///< executed share, in [0, 1]
    double weight = 5e-3;        ///< lambda, at the start
    double dualRate = 0;         ///< eta of lambda <- max(0, lambda + eta (share - target)) after every step; 0 = lambda stays
    CapacityScope scope = CapacityScope::Model;
};

/// lambda sum_layers relu(share - target) (Layer), or lambda n relu(mean of the shares - target) (Model), so that both push n open routers alike:
/// differentiable scalar in the dtype of the gates. Undefined without decisions.
torch::Tensor capacityLoss(const std::vector<Routing::Decision>& decisions, const CapacityOptions& options, double weight);

/// The weight of the loss and the executed share of every router as the training goes on.
class CapacityMeter {
public:
    explicit CapacityMeter(CapacityOptions options) : m_options(options), m_weight(options.weight) {}
    const CapacityOptions& options() const noexcept { return m_options; }
    double weight() const noexcept { return m_weight; }
    /// Shares of one batch.
    void add(const std::vector<Routing::Decision>& decisions);
    /// After the batches of a step: moving means (0.9 of what was) and the weight follow. Nothing without batches.
    void endStep();
    void discardStep() { m_batches.clear(); }   ///< of a step that was not taken
    const std::map<int, double>& means() const noexcept { return m_means; }  ///< by block
    double overall() const noexcept;                                         ///< mean of the means; NaN before the first step
    Json toJson() const;
    void restore(const Json& json, const std::string& subject);              ///< throws BadInput
    void reset();

private:
    CapacityOptions m_options;
    double m_weight;
    std::map<int, double> m_means;
    std::map<int, std::pair<double, int>> m_batches;   // sums and numbers of the step
};

}  // namespace resect::router
