#pragma once
#include "tests/widgets/plots/sample_model.h"

namespace resect::ui::test {

/// A mixture: 6 blocks, the second one dense, 8 experts in the others.
inline protocol::ModelMessage sampleMixture() {
    protocol::ModelMessage model = sampleModel(6);
    model.family = "mixtral";
    model.edits.push_back("drop_experts");
    for (auto& block : model.blocks)
        if (block.index != 1) block.numExperts = 8;
    return model;
}

/// What the measurement of experts gives for it. Values come from sampleValue; those of the dense block are no numbers.
inline protocol::MeasureMessage sampleExpertMeasure() {
    protocol::MeasureMessage measure;
    measure.file = "/data/measures/experts.h5";
    measure.method = "expert-drop";
    measure.created = "2026-01-31T14:00:00Z";
    measure.samplesDone = measure.samplesTotal = 64;
    const auto table = [&](const char* name, const char* title) {
        auto info = sampleDataset(std::string("expert/") + name, "matrix", title, {{"block", "block", {}}, {"expert", "expert", {}}}, {6, 8});
        info.hasErrors = std::string_view(name) == "load";
        info.unit = "share of tokens";
        measure.datasets.push_back(std::move(info));
    };
    table("load", "Load");
    table("saliency", "Saliency");
    for (const std::string pairs : {"coactivation", "similarity"})
        for (const int block : {0, 2, 3, 4, 5})
            measure.datasets.push_back(sampleDataset("pairs/" + pairs + "/block " + std::to_string(block), "matrix", pairs + ", block " + std::to_string(block),
                                                     {{"expert", "", {}}, {"other expert", "", {}}}, {8, 8}, "neutral"));
    return measure;
}

/// As sampleValue, but nothing for the dense block.
inline double sampleExpertValue(const std::string& name, const std::vector<std::int64_t>& cell, const std::vector<std::int64_t>& shape) {
    if (name.rfind("expert/", 0) == 0 && cell[0] == 1) return std::numeric_limits<double>::quiet_NaN();
    return sampleValue(name, cell, shape);
}

}  // namespace resect::ui::test
