#include "core/worker/previewing.h"

#include "core/base/error.h"
#include "core/measure/preview.h"

namespace resect {

struct Previewer::Data {
    PreviewCache cache;
    // The data set of the last preview: it is tokenised once while plans change.
    std::string key;
    Dataset dataset;
};

Previewer::Previewer() : m_data(std::make_unique<Data>()) {}
Previewer::~Previewer() = default;

const Dataset& Previewer::data() const noexcept { return m_data->dataset; }

protocol::PreviewMessage Previewer::preview(OpenedCheckpoint& opened, const EditPlan& plan, const protocol::DataMessage& data, const Compute& compute, const JobContext& job,
                                            const std::function<void(const protocol::PreviewMessage&)>& onPartial) {
    requireLegal(plan, opened);
    Cut cut = cutOf(plan, opened.shape());
    cut.blocks.resize(opened.shape().blocks.size());
    const std::string key = opened.checkpoint().fingerprint() + Json(data).dump();
    if (key != m_data->key) {
        m_data->dataset = opened.data(data, job);
        m_data->key = key;
    }
    RunOptions options;
    options.load = opened.loadOptions(compute);
    ModelRun run(opened.checkpoint(), m_data->dataset, options, opened.model(compute, job));
    return resect::preview(run, cut, m_data->cache, {}, onPartial, job);
}

}  // namespace resect
