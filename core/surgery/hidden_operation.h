#pragma once
#include "core/surgery/edit_plan.h"

#include <string>
#include <string_view>
#include <vector>

namespace resect {

constexpr std::string_view kDropHidden = "drop_hidden";

/// Why hidden channels of this model cannot be cut exactly; empty when they can: norms must work on each channel alone but for a common factor.
std::string whyHiddenStays(const ModelShape& source);

/// Removes hidden channels: {"op": "drop_hidden", "channels": [3, 17]}. Exact, because what the narrower norms make larger is taken back by their weights
/// and their epsilon. Internal to core/surgery; made by dropHidden().
class HiddenOperation final : public EditOperation {
public:
    explicit HiddenOperation(std::vector<int> channels);
    std::string_view op() const noexcept override { return kDropHidden; }
    Json toJson() const override;
    std::string title() const override;
    std::vector<Problem> check(const ModelShape& source) const override;
    void addTo(Cut& cut, const ModelShape& source) const override;
    EditPointer nearestLegal(const ModelShape& source) const override;
    static EditPointer read(const Json& entry, const std::string& subject);

private:
    std::vector<int> m_channels;  // as given
    IndexSet m_set;
};

}  // namespace resect
