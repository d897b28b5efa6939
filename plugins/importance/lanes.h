#pragma once
#include "core/anatomy/component.h"
#include "core/anatomy/model_shape.h"
#include "core/method/report.h"
#include "core/surgery/edit_plan.h"

#include <set>
#include <string>
#include <vector>

namespace resect {

/// Units that are cut together so that the shape stays one that stock attention and mixtures can hold: one head of every kv group, one channel of
/// every expert, one expert of every group of experts; elsewhere a single unit.
struct Bundle {
    double score = 0;                             ///< mean over its units
    std::vector<std::pair<int, int>> units;       ///< expert (-1 = none) and index
};

/// All units of one kind in one block, lowest score first; ties go to the lower index. Cutting n of them means the first n bundles.
struct Lane {
    ComponentKind kind = ComponentKind::Channel;  ///< KvGroup, Head, Channel or Expert
    int block = 0;
    std::vector<Bundle> bundles;
    int leastKept = 1;                            ///< bundles that stay in any case
    int perCount = 1;                             ///< units of a bundle as the user counts them (channels of experts: per expert)
    int most() const noexcept { return std::max(0, static_cast<int>(bundles.size()) - leastKept); }
};

/// The kinds that a target of the plan parameters names.
std::vector<ComponentKind> kindsOf(const std::string& target);

/// The datasets of a kind: "kv_group", "head", "channel", "expert"; those of experts' channels are "expert_channel".
std::string datasetGroup(ComponentKind kind);

/// A lane per kind and block; blocks that are protected, have no such units or no scores have none. Throws NotFound when `metric` was not measured,
/// Mismatch when the report is of another model.
std::vector<Lane> lanesOf(const ModelShape& shape, const Report& report, const std::vector<ComponentKind>& kinds, const std::string& metric, const std::set<int>& protect);

/// Puts the scores of a lane on a common scale: none, sum, mean, max, min_max, gaussian (z-score), quantile (divided by the median), l2, lamp (each by the
/// sum of those not smaller; arXiv 2010.07611). sum, mean, max, quantile, l2 and lamp leave a lane as it is when it would be divided by 0 or less.
void normalise(Lane& lane, const std::string& how);

/// How many of each lane are cut -> the plan. All counts at most Lane::most().
EditPlan planOf(const std::vector<Lane>& lanes, const std::vector<int>& counts);

/// The count nearest to `cut` at which a multiple of `rounding` channels stays (other kinds: `cut`), within what may be cut.
int snapped(const Lane& lane, double cut, int rounding);

}  // namespace resect
