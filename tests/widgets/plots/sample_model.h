#pragma once
#include "core/protocol/messages.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace resect::ui::test {

/// A Llama-like model as the worker describes it. Every size differs from every other.
inline protocol::ModelMessage sampleModel(int blocks, int heads = 12, int kvHeads = 4, int ffn = 1376) {
    protocol::ModelMessage model;
    model.path = "/models/sample";
    model.name = "sample";
    model.fingerprint = "sha256:0123";
    model.family = "llama";
    model.familyTitle = "Llama";
    model.dtype = "BF16";
    model.hasTokenizer = true;
    model.vocabSize = 4096;
    model.hiddenSize = 480;
    model.maxPositions = 2048;
    model.licence = "apache-2.0";
    model.numShards = 2;
    model.numTensors = 3 + 9 * blocks;
    model.edits = {"drop_blocks", "drop_attention", "drop_mlp", "drop_kv_groups", "drop_heads", "drop_channels"};
    model.embeddingParameters = model.vocabSize * model.hiddenSize;
    model.headParameters = model.embeddingParameters;
    for (int i = 0; i < blocks; ++i) {
        protocol::BlockMessage block;
        block.index = i;
        block.numHeads = heads;
        block.numKvHeads = kvHeads;
        block.headDim = 40;
        block.ffnSize = ffn;
        block.headsPerKv.assign(std::size_t(kvHeads), heads / kvHeads);
        block.attentionParameters = 2 * 480 * heads * 40 + 2 * 480 * kvHeads * 40 + 480;
        block.ffnParameters = 3 * 480 * ffn + 480;
        block.parameters = block.attentionParameters + block.ffnParameters;
        model.parameters += block.parameters;
        model.blocks.push_back(block);
    }
    model.parameters += 2 * model.embeddingParameters + 480;
    model.bytes = 2 * model.parameters;
    return model;
}

inline double noise(int seed) {
    const std::uint32_t state = std::uint32_t(seed) * 2654435761u ^ 0x9e3779b9u;
    return double((state * 1664525u + 1013904223u) >> 8) / double(1u << 24);
}

/// Shaped like real scores: the first block far above the others, the middle and end redundant, the last one up again.
inline double sampleBlockScore(int block, int blocks) {
    const double depth = double(block) / std::max(1, blocks - 1);
    return block == 0 ? 0.62 : (block == blocks - 1 ? 0.11 : 0.02) + 0.12 * std::pow(1 - depth, 2) + 0.01 * noise(block + 31);
}

inline double sampleValue(const std::string& name, const std::vector<std::int64_t>& cell, const std::vector<std::int64_t>& shape) {
    const int row = int(cell[0]), column = cell.size() > 1 ? int(cell[1]) : 0, rows = int(shape[0]);
    if (name == "similarity/window" || name == "similarity/window_angular") {
        if (row + column + 1 > rows) return std::numeric_limits<double>::quiet_NaN();
        double sum = 0;
        for (int i = row; i <= row + column; ++i) sum += sampleBlockScore(i, rows);
        return 1 - std::exp(-0.8 * sum);
    }
    if (name == "similarity/attention") return 0.6 * sampleBlockScore(row, rows) + 0.004 * noise(row + 7);
    if (name == "similarity/mlp") return 0.8 * sampleBlockScore(row, rows) + 0.006 * noise(row + 99);
    if (name == "similarity/block") return sampleBlockScore(row, rows);
    if (name.rfind("head/", 0) == 0) return 0.2 + 0.8 * std::pow(noise(row * 131 + column * 7), 2);
    if (name.rfind("channel/", 0) == 0) return std::exp(-6 + 3.5 * noise(row * 4099 + column) + (column % 211 == 5 ? 3 : 0));
    return noise(row * 17 + column);
}

inline protocol::DatasetMessage sampleDataset(const std::string& name, const std::string& kind, const std::string& title,
                                              std::vector<protocol::AxisMessage> axes, std::vector<std::int64_t> shape, const std::string& higher = "keep") {
    protocol::DatasetMessage info;
    info.name = name;
    info.kind = kind;
    info.title = title;
    info.help = "How much the part changes what flows through it: near 0 it changes almost nothing and can go.";
    info.higher = higher;
    info.axes = std::move(axes);
    info.shape = std::move(shape);
    info.samples = 64;
    info.hasErrors = kind == "bars";
    return info;
}

inline std::vector<protocol::MeasureMessage> sampleMeasures(const protocol::ModelMessage& model) {
    const auto blocks = std::int64_t(model.blocks.size());
    const std::int64_t heads = model.blocks.front().numHeads, channels = model.blocks.front().ffnSize;
    protocol::MeasureMessage similarity, importance;
    similarity.file = "/data/measures/a.h5";
    similarity.method = "llm-drop";
    similarity.created = "2026-01-31T12:00:00Z";
    similarity.samplesDone = similarity.samplesTotal = 64;
    std::vector<std::int64_t> lengths;
    for (std::int64_t i = 1; i <= blocks; ++i) lengths.push_back(i);
    similarity.datasets = {
        sampleDataset("similarity/block", "bars", "block influence", {{"block", "block", {}}}, {blocks}),
        sampleDataset("similarity/attention", "bars", "attention influence", {{"block", "attention", {}}}, {blocks}),
        sampleDataset("similarity/mlp", "bars", "MLP influence", {{"block", "ffn", {}}}, {blocks}),
        sampleDataset("similarity/window", "matrix", "cosine distance", {{"first block", "block", {}}, {"blocks in the span", "", lengths}}, {blocks, blocks}),
        sampleDataset("similarity/best_span", "curve", "best span", {{"blocks in the span", "", lengths}}, {blocks})};
    importance.file = "/data/measures/b.h5";
    importance.method = "importance";
    importance.created = "2026-01-31T13:00:00Z";
    importance.samplesDone = 40;
    importance.samplesTotal = 64;
    importance.datasets = {sampleDataset("head/act", "matrix", "mean activation", {{"block", "block", {}}, {"head", "head", {}}}, {blocks, heads}),
                           sampleDataset("head/mag", "matrix", "weight norm", {{"block", "block", {}}, {"head", "head", {}}}, {blocks, heads}),
                           sampleDataset("channel/act", "matrix", "mean activation", {{"block", "block", {}}, {"channel", "channel", {}}}, {blocks, channels})};
    return {similarity, importance};
}

/// All values of a sample dataset.
inline std::vector<double> sampleValues(const protocol::DatasetMessage& info) {
    std::vector<double> values;
    const std::int64_t columns = info.shape.size() > 1 ? info.shape[1] : 1;
    for (std::int64_t row = 0; row < info.shape[0]; ++row)
        for (std::int64_t column = 0; column < columns; ++column)
            values.push_back(sampleValue(info.name, info.shape.size() > 1 ? std::vector<std::int64_t>{row, column} : std::vector<std::int64_t>{row}, info.shape));
    return values;
}

}  // namespace resect::ui::test
