#include "core/protocol/json.h"
#include "core/surgery/edit_plan.h"
#include "tests/support/process.h"
#include "tests/support/tiny_checkpoint.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace resect::test {
namespace {

namespace fs = std::filesystem;

/// A tiny model without tokenizer and already tokenised rows for it.
class Cli : public testing::Test {
protected:
    TinyCheckpoint m_model = tinyLlama();
    TempFolder m_folder;
    std::string m_path = m_model.path().string();
    std::string m_data = (m_folder / "rows.jsonl").string();

    void SetUp() override {
        std::ofstream rows(m_data);
        for (int r = 0; r < 6; ++r) {
            rows << R"({"input_ids": [)";
            for (int t = 0; t < 24; ++t) rows << (t ? "," : "") << (7 * r + 5 * t * t + t) % 61;
            rows << "]}\n";
        }
    }
    std::string file(const std::string& name) const { return (m_folder / name).string(); }
    std::vector<std::string> withData(std::vector<std::string> arguments) const {
        for (const std::string& more : {std::string("--data"), m_data, std::string("--row-length"), std::string("24"), std::string("--layout"), std::string("padded")}) arguments.push_back(more);
        return arguments;
    }
    void writePlan(const EditPlan& plan) { writeJsonFile(file("plan.json"), plan.toJson()); }
};

Json jsonOf(const ProcessResult& result) { return parseJson(result.out, "stdout"); }

TEST_F(Cli, InspectsAsTextAndAsOneJsonDocument) {
    const auto text = runCli({"inspect", m_path});
    EXPECT_EQ(text.exitCode, 0) << text.err;
    EXPECT_NE(text.out.find("Llama"), std::string::npos);
    const auto json = runCli({"inspect", m_path, "--json", "--tensors"});
    ASSERT_EQ(json.exitCode, 0) << json.err;
    const Json model = jsonOf(json);
    EXPECT_EQ(model["blocks"].size(), 3u);
    EXPECT_EQ(model["tensors"].size(), m_model.tensors.size());
    std::int64_t bytes = 0;
    for (const auto& tensor : model["tensors"]) bytes += tensor["bytes"].get<std::int64_t>();
    EXPECT_EQ(model["bytes"].get<std::int64_t>(), bytes);
}

TEST_F(Cli, TrainsChosenUnitsAndHandsTheAdapterOn) {
    const auto trained = runCli({"recover", "s2ft", m_path, "--data", m_data, "--out", file("run"), "--set", "steps=4", "--set", "row_length=24", "--set", "layout=padded", "--set", "lr=0.02",
                                 "--set", R"(components=[{"block": 1, "heads": [0, 4]}, {"block": 2, "channels": [7]}])"});
    ASSERT_EQ(trained.exitCode, 0) << trained.err;
    EXPECT_NE(trained.err.find("trained weights; optimiser"), std::string::npos) << "the price stands before the first step: " << trained.err;
    const auto run = file("run");
    for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{{"adapter", "merge", run, "--base", m_path, "--to", file("merged")},
                                                                                          {"adapter", "peft", run, "--to", file("lora")},
                                                                                          {"adapter", "merge", file("lora"), "--base", m_path, "--to", file("from-lora")},
                                                                                          {"adapter", "fuse", run + "=0.25", run + "=0.75", "--to", file("fused")},
                                                                                          {"adapter", "merge", file("fused"), "--base", m_path, "--to", file("from-fused")},
                                                                                          {"adapter", "merge", run + "=0.5", run + "=0.5", "--base", m_path, "--to", file("from-halves")},
                                                                                          {"export", run, "--to", file("exported")}}) {
        const auto result = runCli(arguments);
        ASSERT_EQ(result.exitCode, 0) << arguments[1] << " " << arguments[2] << ": " << result.err;
    }
    const auto values = [&](const std::string& folder) { return valuesOf(Checkpoint::open(file(folder)), "model.layers.1.self_attn.o_proj.weight"); };
    const auto before = valuesOf(Checkpoint::open(m_path), "model.layers.1.self_attn.o_proj.weight"), merged = values("merged");
    EXPECT_NE(merged, before);
    EXPECT_EQ(values("exported"), merged);
    for (const char* other : {"from-lora", "from-fused", "from-halves"}) {
        const auto same = values(other);
        for (std::size_t i = 0; i < merged.size(); ++i) ASSERT_NEAR(same[i], merged[i], 1e-6) << other;
    }
    EXPECT_FALSE(fs::exists(file("merged.adapter"))) << "nothing is left over";
    const auto mixed = runCli({"adapter", "fuse", run, file("lora"), "--to", file("mixed")});
    EXPECT_EQ(mixed.exitCode, 3) << mixed.err;
    EXPECT_NE(mixed.err.find("another kind"), std::string::npos) << mixed.err;
    EXPECT_EQ(runCli({"adapter", "peft", m_path, "--to", file("none")}).exitCode, 3);
    EXPECT_FALSE(fs::exists(file("none")));
    const auto refused = runCli({"recover", "s2ft", m_path, "--data", m_data, "--out", file("other"), "--set", "components=[{\"block\": 9, \"heads\": [0]}]", "--set", "row_length=24"});
    EXPECT_EQ(refused.exitCode, 3);
    EXPECT_NE(refused.err.find("entry 0"), std::string::npos) << refused.err;
}

TEST_F(Cli, UsageErrorsExitWithTwo) {
    EXPECT_EQ(runCli({}).exitCode, 2);
    EXPECT_EQ(runCli({"inspect"}).exitCode, 2);
    EXPECT_EQ(runCli({"no-such-command"}).exitCode, 2);
    EXPECT_EQ(runCli(withData({"measure", "no-such-method", m_path})).exitCode, 2);
    EXPECT_EQ(runCli(withData({"measure", "llm-drop", m_path, "--set", "nonsense"})).exitCode, 2);
}

TEST_F(Cli, BadInputExitsWithThreeAndNamesTheFile) {
    const auto missing = runCli({"inspect", file("nowhere")});
    EXPECT_EQ(missing.exitCode, 3);
    EXPECT_NE(missing.err.find("nowhere"), std::string::npos);
    fs::resize_file(m_model.path() / "model.safetensors", 3000);
    const auto truncated = runCli({"inspect", m_path});
    EXPECT_EQ(truncated.exitCode, 3);
    EXPECT_NE(truncated.err.find("model.safetensors"), std::string::npos) << truncated.err;
    EXPECT_TRUE(truncated.out.empty());
}

TEST_F(Cli, UnknownFamilyIsInspectedButNotCut) {
    m_model.config["model_type"] = "foo_lm";
    m_model.save();
    const auto inspect = runCli({"inspect", m_path, "--json"});
    ASSERT_EQ(inspect.exitCode, 0) << inspect.err;
    EXPECT_FALSE(jsonOf(inspect)["understood"].get<bool>());
    writePlan({"", {dropBlocks({1})}, {}});
    const auto verdict = runCli({"verdict", file("plan.json"), m_path});
    EXPECT_EQ(verdict.exitCode, 3);
    EXPECT_NE(verdict.err.find("foo_lm"), std::string::npos) << verdict.err;
}

TEST_F(Cli, DropListsGoBothWays) {
    writePlan({"", {dropAttention({1})}, {}});
    const auto written = runCli({"drop-lists", m_path, "--plan", file("plan.json"), "--to", file("dropped"), "--json"});
    ASSERT_EQ(written.exitCode, 0) << written.err;
    EXPECT_EQ(readJsonFile(file("dropped") + "/config.json")["drop_attn_list"], Json::array({1}));
    const auto read = runCli({"drop-lists", m_path, "--from", file("dropped") + "/config.json"});
    ASSERT_EQ(read.exitCode, 0) << read.err;
    EXPECT_EQ(jsonOf(read)["edits"], Json::parse(R"([{"op": "drop_attention", "blocks": [1]}])"));
    const auto reserved = runCli({"drop-lists", m_path, "--from", file("dropped") + "/reserved_layers.json", "--counts", "attn"});
    ASSERT_EQ(reserved.exitCode, 0) << reserved.err;
    EXPECT_EQ(jsonOf(reserved)["edits"], jsonOf(read)["edits"]);
    EXPECT_EQ(runCli({"drop-lists", m_path, "--from", m_path + "/config.json"}).exitCode, 3) << "it has no lists";
    EXPECT_EQ(runCli({"drop-lists", m_path}).exitCode, 2);
    EXPECT_EQ(runCli({"drop-lists", m_path, "--plan", file("plan.json"), "--to", file("dropped")}).exitCode, 3) << "exists already";
}

TEST_F(Cli, MeasuresOncePlansPreviewsAndExports) {
    const auto measured = runCli(withData({"measure", "llm-drop", m_path, "--out", file("scores.h5"), "--json"}));
    ASSERT_EQ(measured.exitCode, 0) << measured.err;
    EXPECT_FALSE(jsonOf(measured)["cached"].get<bool>());
    EXPECT_TRUE(jsonOf(runCli(withData({"measure", "llm-drop", m_path, "--json"})))["cached"].get<bool>());

    const auto plan = runCli({"plan", "llm-drop", m_path, "--measure", file("scores.h5"), "--set", "target=block", "--set", "count=1", "--out", file("plan.json")});
    ASSERT_EQ(plan.exitCode, 0) << plan.err;
    const auto verdict = runCli({"verdict", file("plan.json"), m_path, "--json"});
    ASSERT_EQ(verdict.exitCode, 0) << verdict.err;
    EXPECT_TRUE(jsonOf(verdict)["legal"].get<bool>());

    const auto preview = runCli(withData({"preview", file("plan.json"), m_path, "--json"}));
    ASSERT_EQ(preview.exitCode, 0) << preview.err;
    const auto exported = runCli({"export", m_path, "--plan", file("plan.json"), "--to", file("smaller"), "--json"});
    ASSERT_EQ(exported.exitCode, 0) << exported.err;
    EXPECT_TRUE(jsonOf(exported)["verified"].get<bool>());
    EXPECT_EQ(runCli({"verify", file("smaller")}).exitCode, 0);

    const auto before = jsonOf(preview)["perplexity"].get<double>();
    const auto after = runCli(withData({"eval", file("smaller"), "--json"}));
    ASSERT_EQ(after.exitCode, 0) << after.err;
    EXPECT_NEAR(jsonOf(after)["perplexity"].get<double>(), before, 1e-4 * before);
}

TEST_F(Cli, RefusesTheMeasurementOfAnotherCheckpoint) {
    ASSERT_EQ(runCli(withData({"measure", "llm-drop", m_path, "--out", file("scores.h5")})).exitCode, 0);
    TinyOptions other;
    other.seed = 2;
    const TinyCheckpoint another = tinyLlama(other);
    const auto plan = runCli({"plan", "llm-drop", another.path().string(), "--measure", file("scores.h5")});
    EXPECT_EQ(plan.exitCode, 3);
    EXPECT_NE(plan.err.find("another checkpoint"), std::string::npos) << plan.err;
}

TEST_F(Cli, VerdictOfAnIllegalPlanNamesTheNearestLegalEdit) {
    writePlan({"", {dropHeads(1, {0, 1, 2, 3, 4, 5})}, {}});
    const auto verdict = runCli({"verdict", file("plan.json"), m_path, "--json"});
    EXPECT_EQ(verdict.exitCode, 3);
    const Json check = jsonOf(verdict);
    EXPECT_FALSE(check["legal"].get<bool>());
    ASSERT_FALSE(check["problems"].empty());
    EXPECT_FALSE(check["problems"][0]["instead"].empty());
}

TEST_F(Cli, ExportRefusesAnExistingTargetAndLeavesItAlone) {
    fs::create_directories(file("there"));
    writeText(file("there/mine.txt"), "keep");
    const auto exported = runCli({"export", m_path, "--to", file("there")});
    EXPECT_EQ(exported.exitCode, 3);
    EXPECT_TRUE(fs::exists(file("there/mine.txt")));
    EXPECT_FALSE(fs::exists(file("there/model.safetensors")));
}

TEST_F(Cli, ExportsEachWayOfAPlanWithUnequalBlocks) {
    writePlan({"", {dropChannels(1, {0, 5, 9}), dropAttention({2})}, {}});
    EXPECT_EQ(runCli({"export", m_path, "--plan", file("plan.json"), "--to", file("u"), "--way", "uniform"}).exitCode, 3);
    EXPECT_FALSE(fs::exists(file("u")));
    for (const std::string way : {"padded", "zeroed", "exact"}) {
        const auto exported = runCli({"export", m_path, "--plan", file("plan.json"), "--to", file(way), "--way", way, "--json"});
        ASSERT_EQ(exported.exitCode, 0) << way << exported.err;
        EXPECT_LE(jsonOf(exported)["maxAbsLogitError"].get<double>(), 1e-4) << way;
        EXPECT_EQ(runCli({"verify", file(way)}).exitCode, 0) << way;
    }
}

TEST_F(Cli, LogitsRefuseTokensPastTheVocabulary) {
    const auto logits = runCli({"logits", m_path, "--ids", "1,2,61"});
    EXPECT_EQ(logits.exitCode, 3);
    EXPECT_NE(logits.err.find("61"), std::string::npos) << logits.err;
}

TEST_F(Cli, EmptyDataIsRefused) {
    writeText(m_data, "");
    const auto measured = runCli(withData({"measure", "llm-drop", m_path}));
    EXPECT_EQ(measured.exitCode, 3);
    EXPECT_NE(measured.err.find("rows.jsonl"), std::string::npos) << measured.err;
}

TEST_F(Cli, EveryCommandHasHelpWithAnExample) {
    for (const std::string command : {"inspect", "measure", "plan", "verdict", "preview", "recover", "run", "resume", "eval", "export", "adapter", "verify", "logits", "tokenize", "generate"}) {
        const auto help = runCli({command, "--help"});
        EXPECT_EQ(help.exitCode, 0) << command;
        EXPECT_NE(help.out.find("Example"), std::string::npos) << command;
    }
}

TEST_F(Cli, ServeAnswersAndEndsWithItsInput) {
    const std::string open = Json{{"id", 2}, {"call", "open"}, {"args", {{"path", m_path}}}}.dump();
    const std::string check = Json{{"id", 3}, {"call", "plan_check"}, {"args", {{"plan", {{"resect_plan", 1}, {"edits", {{{"op", "drop_blocks"}, {"blocks", {1}}}}}}}}}}.dump();
    const auto served = runCli({"serve"}, R"({"id": 1, "call": "hello", "args": {"protocol": 1}})" "\n" + open + "\n" + check + "\n");
    ASSERT_EQ(served.exitCode, 0) << served.err;
    std::istringstream lines(served.out);
    std::vector<Json> replies;
    for (std::string line; std::getline(lines, line);) replies.push_back(parseJson(line, "reply"));
    ASSERT_EQ(replies.size(), 3u) << served.out;
    EXPECT_EQ(replies[0]["result"]["protocol"], 1);
    EXPECT_EQ(replies[1]["result"]["blocks"].size(), 3u);
    EXPECT_TRUE(replies[2]["result"]["legal"].get<bool>());
}

TEST_F(Cli, ServeRefusesAnotherProtocol) {
    const auto served = runCli({"serve"}, R"({"id": 1, "call": "hello", "args": {"protocol": 99}})" "\n");
    EXPECT_EQ(served.exitCode, 2);
    EXPECT_NE(served.out.find("error"), std::string::npos);
}

TEST_F(Cli, ExportsInspectsAndImportsGguf) {
    writePlan({"", {dropChannels(1, {0, 7})}, nullptr});
    const auto refused = runCli({"export", m_path, "--plan", file("plan.json"), "--to", file("cut.gguf")});
    EXPECT_EQ(refused.exitCode, 3);
    EXPECT_NE(refused.err.find("heterogeneous"), std::string::npos) << refused.err;
    EXPECT_FALSE(fs::exists(file("cut.gguf")));
    const auto exported = runCli({"export", m_path, "--plan", file("plan.json"), "--to", file("cut.gguf"), "--way", "heterogeneous", "--json"});
    ASSERT_EQ(exported.exitCode, 0) << exported.err;
    EXPECT_EQ(jsonOf(exported)["tensorsCompared"], 30);
    EXPECT_EQ(jsonOf(exported)["tokenizer"], "none");
    EXPECT_EQ(jsonOf(exported)["opensIn"][1]["runtime"], "llama.cpp");
    const auto inspected = runCli({"inspect", file("cut.gguf"), "--json", "--tensors"});
    ASSERT_EQ(inspected.exitCode, 0) << inspected.err;
    const Json facts = jsonOf(inspected);
    EXPECT_EQ(facts["architecture"], "deci");
    EXPECT_EQ(facts["metadata"]["deci.feed_forward_length"], (Json{43, 41, 43}));
    EXPECT_EQ(facts["tensors"].size(), 30u);
    EXPECT_TRUE(facts["importable"].get<bool>());
    EXPECT_NE(runCli({"inspect", file("cut.gguf")}).out.find("deci.block_count"), std::string::npos);
    const auto imported = runCli({"import", file("cut.gguf"), "--to", file("back")});
    ASSERT_EQ(imported.exitCode, 0) << imported.err;
    // What the file holds computes what the exactly cut checkpoint computes.
    ASSERT_EQ(runCli({"export", m_path, "--plan", file("plan.json"), "--to", file("exact"), "--way", "exact"}).exitCode, 0);
    const Json a = jsonOf(runCli({"logits", file("back"), "--ids", "1,5,9,33"})), b = jsonOf(runCli({"logits", file("exact"), "--ids", "1,5,9,33"}));
    EXPECT_EQ(a["next"], b["next"]);
    EXPECT_EQ(runCli({"export", m_path, "--to", file("x.gguf"), "--dtype", "q5_1"}).exitCode, 2);
    const auto folder = runCli({"export", m_path, "--plan", file("plan.json"), "--to", file("deci"), "--way", "heterogeneous"});
    ASSERT_EQ(folder.exitCode, 0) << folder.err;
    EXPECT_NE(folder.out.find("--trust-remote-code"), std::string::npos) << folder.out;
    EXPECT_EQ(jsonOf(runCli({"logits", file("deci"), "--ids", "1,5,9,33"}))["next"], b["next"]);
    for (const char* carried : {"configuration_decilm.py", "verify_export.py", "verify_export.json"}) EXPECT_TRUE(fs::exists(file("deci") + "/" + carried)) << carried;
    EXPECT_EQ(runCli({"verify", file("deci")}).exitCode, 0);
    fs::resize_file(file("cut.gguf"), 3000);
    EXPECT_EQ(runCli({"inspect", file("cut.gguf")}).exitCode, 3);
}

}  // namespace
}  // namespace resect::test
