#include "core/base/error.h"
#include "core/measure/experts.h"
#include "core/worker/comparing.h"
#include "core/worker/describe.h"
#include "core/worker/routing.h"
#include "core/worker/tensor_look.h"
#include "tests/support/tiny_checkpoint.h"

#include <gmock/gmock.h>

#include <cmath>
#include <fstream>
#include <numeric>

namespace resect::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

ErrorCode codeOf(const std::function<void()>& call) {
    try {
        call();
    } catch (const Error& error) {
        return error.code();
    }
    return ErrorCode::Internal;
}

JobContext stoppedJob() {
    static std::stop_source source = [] {
        std::stop_source stopped;
        stopped.request_stop();
        return stopped;
    }();
    return JobContext(source.get_token(), {});
}

/// A tiny mixture without tokenizer, and rows of ids for it.
class Routing : public testing::Test {
protected:
    TinyCheckpoint m_model = tinyMixtral();
    TempFolder m_folder;
    protocol::DataMessage m_data;
    const Compute m_compute{"cpu", "float32"};

    void SetUp() override {
        m_data.file = (m_folder / "rows.jsonl").string();
        m_data.rowLength = 20;
        m_data.layout = "padded";
        std::ofstream rows(m_data.file);
        for (int r = 0; r < 3; ++r) {
            rows << R"({"input_ids": [)";
            for (int t = 0; t < 20; ++t) rows << (t ? "," : "") << (7 * r + 5 * t * t + t) % 61;
            rows << "]}\n";
        }
    }
};

TEST_F(Routing, AgreesWithTheMeasuredLoadOfTheSameRow) {
    OpenedCheckpoint opened(m_model.path());
    const RoutedText routed = routeRow(opened, m_data, 1, 256, m_compute, {});
    ASSERT_EQ(routed.tokens.size(), 20u);
    EXPECT_EQ(routed.tokens[2], std::to_string((7 + 20 + 2) % 61)) << "without a tokenizer the ids are shown";
    EXPECT_FALSE(routed.shortened);
    ASSERT_EQ(routed.blocks.size(), 3u);

    Dataset dataset = opened.data(m_data);
    dataset.rows = {dataset.rows[1]};
    RunOptions options;
    options.load = opened.loadOptions(m_compute);
    ModelRun run(opened.checkpoint(), dataset, options, opened.model(m_compute));
    const ExpertScores scores = measureExperts(run, {});
    for (const auto& block : routed.blocks) {
        ASSERT_EQ(block.numExperts, 4);
        ASSERT_EQ(block.experts.size(), 20u);
        std::vector<double> load(4, 0.0), gate(4, 0.0);
        for (std::size_t t = 0; t < 20; ++t) {
            ASSERT_EQ(block.experts[t].size(), 2u);
            EXPECT_NE(block.experts[t][0], block.experts[t][1]);
            EXPECT_GE(block.gates[t][0], block.gates[t][1]) << "most weight first";
            EXPECT_NEAR(block.gates[t][0] + block.gates[t][1], 1, 1e-6);
            for (int k = 0; k < 2; ++k) load[block.experts[t][k]] += 1.0 / 20, gate[block.experts[t][k]] += block.gates[t][k] / 20;
        }
        for (int e = 0; e < 4; ++e) {
            EXPECT_NEAR(load[e], scores.load[block.block][e], 1e-12);
            EXPECT_NEAR(gate[e], scores.gate[block.block][e], 1e-6);
        }
    }
}

TEST_F(Routing, CutsLongTextsAndSaysWhatIsMissing) {
    OpenedCheckpoint opened(m_model.path());
    const RoutedText routed = routeRow(opened, m_data, 0, 6, m_compute, {});
    EXPECT_EQ(routed.tokens.size(), 6u);
    EXPECT_TRUE(routed.shortened);
    EXPECT_EQ(toJson(routed)["blocks"][0]["gates"].size(), 6u);
    EXPECT_EQ(codeOf([&] { routeRow(opened, m_data, 3, 6, m_compute, {}); }), ErrorCode::NotFound);
    EXPECT_EQ(codeOf([&] { routeRow(opened, m_data, -1, 6, m_compute, {}); }), ErrorCode::Usage);
    EXPECT_EQ(codeOf([&] { routeText(opened, "words", 6, m_compute, {}); }), ErrorCode::NotFound) << "no tokenizer";
    opened.model(m_compute);   // loading would be stopped first
    EXPECT_EQ(codeOf([&] { routeRow(opened, m_data, 0, 6, m_compute, stoppedJob()); }), ErrorCode::Stopped);
    const TinyCheckpoint dense = tinyLlama();
    OpenedCheckpoint other(dense.path());
    EXPECT_EQ(codeOf([&] { routeRow(other, m_data, 0, 6, m_compute, {}); }), ErrorCode::Unsupported);
}

const char* const kDown = "model.layers.1.mlp.down_proj.weight";   // [48, 43]

TEST(TensorLook, CountsAndSumsWhatIsStored) {
    TinyCheckpoint model = tinyLlama();
    auto& values = model.tensor(kDown).values;
    values[0] = 0, values[5] = 0, values[7] = 40, values[11] = -3;
    model.save();
    const TensorLook look = lookAtTensor(model.open(), kDown, 256, {});
    const auto stored = valuesOf(model.open(), kDown);
    const double mean = std::accumulate(stored.begin(), stored.end(), 0.0) / double(stored.size());
    double squares = 0;
    for (const double value : stored) squares += (value - mean) * (value - mean);
    EXPECT_EQ(look.count, 48 * 43);
    EXPECT_EQ(look.zeros, 2);
    EXPECT_EQ(look.nonFinite, 0);
    EXPECT_EQ(look.maximum, 40);
    EXPECT_EQ(look.minimum, -3);
    EXPECT_NEAR(look.mean, mean, 1e-12);
    EXPECT_NEAR(look.deviation, std::sqrt(squares / double(stored.size())), 1e-12);
    EXPECT_EQ(look.above, 1) << "40 lies far outside 5 deviations";
    EXPECT_EQ(std::accumulate(look.bins.begin(), look.bins.end(), look.above + look.below), look.count);
    ASSERT_EQ(look.cells.size(), stored.size()) << "small enough for a cell each";
    for (std::size_t i = 0; i < stored.size(); ++i) EXPECT_EQ(look.cells[i], std::fabs(stored[i]));
}

TEST(TensorLook, DecimatesToTheMeanOfEachCell) {
    const TinyCheckpoint model = tinyLlama();
    const auto stored = valuesOf(model.open(), kDown);
    const TensorLook look = lookAtTensor(model.open(), kDown, 5, {});
    EXPECT_EQ(look.rows, 48);
    EXPECT_EQ(look.columns, 43);
    EXPECT_THAT(look.cellRows, ElementsAre(0, 10, 20, 29, 39));
    EXPECT_THAT(look.cellColumns, ElementsAre(0, 9, 18, 26, 35));
    double sum = 0;
    for (int row = 10; row < 20; ++row)
        for (int column = 35; column < 43; ++column) sum += std::fabs(stored[static_cast<std::size_t>(row * 43 + column)]);
    EXPECT_NEAR(look.cells[1 * 5 + 4], sum / 80, 1e-12);
}

TEST(TensorLook, LeavesOutWhatIsNotFiniteAndTakesVectorsAndOtherTypes) {
    TinyCheckpoint model = tinyLlama({.dtype = DType::BF16});
    auto& norm = model.tensor("model.norm.weight").values;
    std::fill(norm.begin(), norm.end(), 2.0);
    norm[3] = std::nan("");
    model.save();
    const TensorLook look = lookAtTensor(model.open(), "model.norm.weight", 256, {});
    EXPECT_EQ(look.nonFinite, 1);
    EXPECT_EQ(look.rows, 1);
    EXPECT_EQ(look.columns, 48);
    EXPECT_EQ(look.minimum, 2);
    EXPECT_EQ(look.deviation, 0);
    EXPECT_EQ(std::accumulate(look.bins.begin(), look.bins.end(), std::int64_t{0}), 47);
    EXPECT_TRUE(std::isnan(look.cells[3]));
    EXPECT_TRUE(Json::parse(toJson(look).dump())["cells"][3].is_null());
    EXPECT_EQ(codeOf([&] { lookAtTensor(model.open(), "no.such.tensor", 256, {}); }), ErrorCode::NotFound);
    EXPECT_EQ(codeOf([&] { lookAtTensor(model.open(), "model.norm.weight", 256, stoppedJob()); }), ErrorCode::Stopped);
}

TEST(TensorLook, ReadsSmallAndWholeNumbers) {
    const TempFolder folder;
    // 0x38 is 1 in E4M3, 0x7e its largest 448, 0x80 -0, 0x7f NaN, 0x01 2^-9; in E5M2 0x3c is 1 and 0x7c infinity.
    writeRawSafetensors(folder / "model.safetensors",
                        R"({"a":{"dtype":"F8_E4M3","shape":[5],"data_offsets":[0,5]},"b":{"dtype":"F8_E5M2","shape":[2],"data_offsets":[5,7]},"c":{"dtype":"I16","shape":[2],"data_offsets":[7,11]}})",
                        std::string("\x38\x7e\x80\x7f\x01\x3c\x7c\x05\x00\xfe\xff", 11));
    const auto checkpoint = Checkpoint::open(folder.path());
    const TensorLook a = lookAtTensor(checkpoint, "a", 256, {}), b = lookAtTensor(checkpoint, "b", 256, {}), c = lookAtTensor(checkpoint, "c", 256, {});
    EXPECT_EQ(a.maximum, 448);
    EXPECT_EQ(a.nonFinite, 1);
    EXPECT_EQ(a.zeros, 1);
    EXPECT_EQ(a.cells[4], std::ldexp(1, -9));
    EXPECT_EQ(b.maximum, 1);
    EXPECT_EQ(b.nonFinite, 1);
    EXPECT_EQ(c.minimum, -2);
    EXPECT_EQ(c.maximum, 5);
}

TEST(TensorList, SortsFiltersAndGivesOutParts) {
    const TinyCheckpoint model = tinyLlama();
    const auto opened = std::make_shared<OpenedCheckpoint>(model.path());
    TensorList list;
    const Json all = list.rows(opened, {{"count", 1000}});
    EXPECT_EQ(all["total"], model.tensors.size());
    EXPECT_EQ(all["rows"].size(), model.tensors.size());
    const Json bySize = list.rows(opened, {{"sort", "elements"}, {"descending", true}, {"offset", 1}, {"count", 3}});
    EXPECT_EQ(bySize["total"], model.tensors.size());
    ASSERT_EQ(bySize["rows"].size(), 3u);
    EXPECT_LE(bySize["rows"][1]["bytes"].get<std::int64_t>(), bySize["rows"][0]["bytes"].get<std::int64_t>());
    const Json found = list.rows(opened, {{"filter", "LAYERS.1. proj"}});
    EXPECT_EQ(found["total"], 7);
    EXPECT_EQ(found["rows"][0]["name"].get<std::string>().find("model.layers.1."), 0u);
    EXPECT_EQ(list.rows(opened, {{"filter", "nothing like this"}})["total"], 0);
    EXPECT_EQ(list.rows(opened, {{"offset", 5000}})["rows"].size(), 0u);
    EXPECT_EQ(codeOf([&] { list.rows(opened, {{"sort", "colour"}}); }), ErrorCode::Usage);
    const TinyCheckpoint larger = tinyLlama({.numBlocks = 5});
    EXPECT_EQ(list.rows(std::make_shared<OpenedCheckpoint>(larger.path()), Json::object())["total"], larger.tensors.size()) << "another checkpoint has another list";
}

TEST(Comparing, TellsWhatIsUnchangedUnderItsNewNumber) {
    const TinyCheckpoint a = tinyLlama();
    TinyCheckpoint b = tinyLlama();
    // Without block 1; block 2 becomes block 1, with one weight changed.
    std::map<std::string, TinyTensor> kept;
    for (auto& [name, tensor] : b.tensors) {
        if (name.starts_with("model.layers.1.")) continue;
        kept[name.starts_with("model.layers.2.") ? "model.layers.1." + name.substr(15) : name] = tensor;
    }
    b.tensors = std::move(kept);
    b.tensor(kDown).values[4] += 1;
    b.config["num_hidden_layers"] = 2;
    b.save();
    const Json json = compareCheckpoints(a.open(), b.open(), false, {});
    EXPECT_EQ(json["left"]["tensors"], a.tensors.size());
    EXPECT_EQ(json["right"]["tensors"], b.tensors.size());
    bool moved = false;
    for (const Json& row : json["unchanged"]) {
        EXPECT_NE(row["a"], "model.layers.2.mlp.down_proj.weight");
        EXPECT_THAT(row["a"].get<std::string>(), testing::Not(HasSubstr("layers.1.")));
        moved |= row["a"] == "model.layers.2.mlp.up_proj.weight" && row["b"] == "model.layers.1.mlp.up_proj.weight";
    }
    EXPECT_TRUE(moved);
    EXPECT_EQ(json["unchanged"].size() + 9 + 1, a.tensors.size());
    EXPECT_FALSE(compareCheckpoints(a.open(), b.open(), false, stoppedJob())["complete"]);
}

TEST(TensorCounts, CountWhatIsMissingMisshapenAndUnexpected) {
    TinyCheckpoint model = tinyLlama({.tied = true});
    const auto whole = describe(OpenedCheckpoint(model.path())).tensorCounts;
    EXPECT_TRUE(whole.known);
    EXPECT_EQ(whole.expected, static_cast<std::int64_t>(model.tensors.size()));
    EXPECT_EQ(whole.missing + whole.misshapen + whole.unexpected + whole.ignored, 0);

    model.tensors["lm_head.weight"] = model.tensor("model.embed_tokens.weight");   // a copy of the tied one does no harm
    model.tensors["model.layers.0.surprise"] = {DType::F32, {2}, {1, 2}};
    model.tensors.erase("model.layers.1.input_layernorm.weight");
    model.tensors.erase(kDown);
    model.tensors["model.norm.weight"] = {DType::F32, {3}, {1, 2, 3}};
    model.save();
    const auto broken = describe(OpenedCheckpoint(model.path()));
    EXPECT_FALSE(broken.understood);
    EXPECT_EQ(broken.tensorCounts.expected, whole.expected);
    EXPECT_EQ(broken.tensorCounts.missing, 2);
    EXPECT_EQ(broken.tensorCounts.misshapen, 1);
    EXPECT_EQ(broken.tensorCounts.unexpected, 1);
    EXPECT_EQ(broken.tensorCounts.ignored, 1);

    model.config["model_type"] = "something_else";
    model.save();
    EXPECT_FALSE(describe(OpenedCheckpoint(model.path())).tensorCounts.known);
}

}  // namespace
}  // namespace resect::test
