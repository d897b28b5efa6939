#include "core/base/version.h"
#include "core/method/method.h"

namespace resect {

Report startReport(const Method& method, const ModelRun& run, const Parameters& parameters) {
    Report report;
    report.method = method.info().id;
    report.parameters = parameters.json();
    report.modelFingerprint = run.checkpoint().fingerprint();
    report.dataFingerprint = run.data().fingerprint;
    report.dataDescription = run.data().description;
    report.dtype = run.dtypeName();
    report.version = versionText();
    report.samplesTotal = static_cast<std::int64_t>(run.data().rows.size());
    return report;
}

}  // namespace resect
