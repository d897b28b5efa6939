#pragma once
#include "core/base/job.h"
#include "core/data/dataset.h"
#include "core/models/model.h"
#include "plugins/s2ft/s2_selection.h"

#include <cstdint>
#include <map>
#include <span>

namespace resect::s2 {

/// What the units of a projection are ranked by; formulas in the card of the measurement below.
enum class Ranking { Random, Weight, Activation, Product, Gradient };
Ranking rankingOf(const std::string& word);       ///< "random", "weight", "activation", "product", "gradient"
std::string_view name(Ranking ranking) noexcept;

/// Scores of units of a model, on its training or calibration rows. The paper (arXiv 2412.06289) names the quantities; the formulas are:
///   weight      W_u = Frobenius norm of the unit's trained slice: ||W[:, u]||_F or ||W[u, :]||_F
///   activation  A_u = mean over tokens of |z_u|, z the input of down_proj (channels, also of up_proj) or o_proj (heads: mean over the head's
///               dimensions; kv groups: mean over its heads)
///   product     W_u A_u
///   gradient    G_u = Frobenius norm of dL/dW over the slice, L the mean next-token loss over all rows
///   random      numbers drawn from the seed
/// Padding never counts: rows of one length run together. An expert's channels are averaged over the tokens routed to it; NaN when none was.
/// Gradient holds one f32 matrix per projection while it measures. Honours job.stopped() between batches (throws Stopped).
/// Throws BadInput when there are no rows, or naming block and unit of a score that is not finite.
std::map<Part, Scores> measureScores(LanguageModel& model, const std::map<Part, std::vector<Pool>>& pools, Ranking ranking, std::span<const TokenRow> rows, int batchRows,
                                     std::uint64_t seed, const JobContext& job);

}  // namespace resect::s2
