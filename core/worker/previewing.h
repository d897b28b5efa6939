#pragma once
#include "core/protocol/messages.h"
#include "core/worker/opened.h"

#include <functional>
#include <memory>

namespace resect {

/// Previews plans of one model on one data set after another; what does not depend on the plan is computed once and reused.
class Previewer {
public:
    Previewer();
    ~Previewer();
    /// Throws as checkPlan's first Error, Usage, BadInput. A stopped one returns what is finished. `onPartial` may be empty.
    protocol::PreviewMessage preview(OpenedCheckpoint& opened, const EditPlan& plan, const protocol::DataMessage& data, const Compute& compute, const JobContext& job,
                                     const std::function<void(const protocol::PreviewMessage&)>& onPartial);
    /// What the last preview ran on; empty before the first.
    const Dataset& data() const noexcept;

private:
    struct Data;
    std::unique_ptr<Data> m_data;
};

}  // namespace resect
