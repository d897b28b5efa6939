#pragma once
#include "core/measure/importance.h"
#include "core/measure/model_run.h"

#include <cstdint>
#include <vector>

namespace resect {

/// How the routers of a model use their experts on the data. Tables are [L][E], a block without experts has an empty row; pairs are [L][E x E]
/// row-major. Padding never counts.
struct ExpertScores {
    UnitTable load, loadError;  ///< share of tokens that an expert is chosen for (sums to k), and its standard error over rows
    UnitTable mass;             ///< mean probability before choosing: softmax over all experts, or the sigmoid score
    UnitTable gate;             ///< mean weight of its output, 0 for tokens that it is not chosen for
    UnitTable gateChosen;       ///< mean weight over the tokens that it is chosen for; NaN when there is none
    UnitTable saliency;         ///< mean over those tokens of weight x norm of its output (REAP, arXiv 2510.13999); 0 when there is none
    std::vector<std::vector<double>> coActivation;  ///< share of tokens for which both are chosen; the diagonal is the load
    std::vector<std::vector<double>> similarity;    ///< cosine over tokens of the two experts' router logits (MC-SMoE, arXiv 2310.01334)
    std::int64_t tokens = 0, rowsDone = 0, rowsTotal = 0;
};

/// Throws Unsupported when no block has experts. Stopping keeps what each block saw; a block that saw nothing has empty rows.
ExpertScores measureExperts(ModelRun& run, const JobContext& job);

}  // namespace resect
