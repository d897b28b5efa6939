#include "tests/app/window/fake_worker.h"

#include "core/protocol/run_files.h"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <thread>

#include <unistd.h>

namespace resect::test {
namespace {

void reply(const Json& message) {
    std::cout << message.dump() << '\n' << std::flush;
}

Json checkOf(const Json& plan) {
    protocol::PlanCheckMessage check;
    const auto model = fakeModel();
    check.legal = true;
    check.hash = "sha256:fake";
    check.before.parameters = check.before.activeParameters = model.parameters;
    check.before.bytes = model.bytes;
    check.before.kvBytesPer1000 = 6 * 2 * 40 * 2 * 1000;
    check.before.prefillFlopsPerToken = check.before.decodeFlopsPerToken = 2.0 * static_cast<double>(model.parameters);
    check.after = check.before;
    check.blocks = model.blocks;
    for (std::size_t i = 0; i < plan.at("edits").size(); ++i) {
        const Json& edit = plan.at("edits")[i];
        check.titles.push_back("Edit " + std::to_string(i));
        if (edit.at("op") == "drop_blocks")
            for (const auto& block : edit.at("blocks")) check.after.parameters -= model.blocks[block.get<std::size_t>()].parameters;
        if (edit.at("op") == "drop_heads" && edit.at("heads").size() == 8) {
            check.legal = false;
            check.problems.push_back({{"error", "block " + edit.at("block").dump(), "removing every head is dropping the attention.", ""}, static_cast<int>(i), {Json{{"op", "drop_attention"}, {"blocks", {edit.at("block")}}}}, {"Drop attention of the block"}});
        }
    }
    check.after.bytes = check.after.parameters * 4;
    check.after.bytesBf16 = check.after.parameters * 2;
    check.verdicts = {{"transformers", "opens", {}, ""}, {"vLLM", "padded", {"heads differ per block"}, ""}};
    return check;
}

void work(const Json& request, std::int64_t id, int steps) {
    for (int step = 1; step <= steps; ++step) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        reply({{"id", id}, {"progress", {{"done", step}, {"total", steps}, {"unit", "rows"}, {"stage", "scoring"}}}, {"partial", {{"rowsDone", step}}}});
    }
    const std::string call = request.at("call");
    Json result = Json::object();
    if (call == "preview") {
        protocol::PreviewMessage preview;
        preview.rowsDone = preview.rowsTotal = steps;
        preview.perplexity = 7.5, preview.perplexityLow = 7.3, preview.perplexityHigh = 7.7;
        preview.baseline = 6.1, preview.baselineLow = 6.0, preview.baselineHigh = 6.2;
        preview.kl = 0.12;
        preview.final = true;
        result = preview;
    } else if (call == "measure") {
        protocol::MeasureMessage measure;
        measure.file = "/nowhere/" + request.at("args").at("method").get<std::string>() + ".h5";
        measure.method = request.at("args").at("method");
        measure.created = "2026-02-03T04:05:06Z";
        measure.samplesDone = measure.samplesTotal = 16;
        measure.datasets.push_back({"similarity/block", "bars", "Block influence", "", "How much the block changes its input.", "keep", {{"block", "block", {}}}, {6}, 16, false, 0, 1});
        result = measure;
    }
    reply({{"id", id}, {"result", result}});
}

Json answer(const std::string& call, const Json& args) {
    if (call == "open") {
        auto model = fakeModel();
        model.path = args.at("path");
        return model;
    }
    if (call == "plan_check") return checkOf(args.at("plan"));
    if (call == "methods") {
        protocol::MethodMessage method;
        method.id = "fake", method.title = "Fake measure", method.measures = true, method.plans = true;
        protocol::MethodMessage recipe;
        recipe.id = "lora", recipe.title = "Adapters", recipe.summary = "Trains small matrices.", recipe.trains = true;
        recipe.trainParameters.push_back({"lora_rank", "Rank", "Size of the matrices.", "integer", "", 8, 1, 256, {}, false});
        recipe.trainParameters.push_back({"learning_rate", "Learning rate", "", "real", "", 1e-4, 0.0, 1.0, {}, false});
        recipe.trainParameters.push_back({"components", "Own selection", "Parts to train.", "text", "components", "", nullptr, nullptr, {}, false});
        return {{"methods", {method}}, {"plugins", {{{"file", "bad.so"}, {"methods", Json::array()}, {"error", "no such symbol"}}}}, {"recipes", {recipe}}};
    }
    if (call == "measures") return {{"measures", Json::array()}};
    if (call == "dataset") return {{"shape", {6}}, {"values", {0.9, 0.1, nullptr, 0.4, 0.2, 0.8}}, {"errors", Json::array()}};
    if (call == "plan_suggest") return {{"plan", {{"edits", {{{"op", "drop_blocks"}, {"blocks", {1, 4}}}}}}}, {"title", "Drop the two least influential blocks"}};
    if (call == "recover_estimate" || call == "recover_time") {
        protocol::EstimateMessage estimate;
        estimate.memoryBytes = 123'000'000, estimate.trainableParameters = 4096, estimate.steps = 500, estimate.tokens = 64'000, estimate.seconds = call == "recover_time" ? 75 : 0;
        estimate.basis = "From the shapes.";
        return estimate;
    }
    if (call == "run_create") {
        const std::filesystem::path folder = std::filesystem::path(args.at("workspace").get<std::string>()) / "runs" / "2026-fake";
        std::filesystem::create_directories(folder);
        std::ofstream(folder / "job.json") << Json{{"recipe", args.at("recipe")}}.dump();
        return {{"folder", folder.string()}};
    }
    return args;
}

}  // namespace

protocol::ModelMessage fakeModel() {
    protocol::ModelMessage model;
    model.name = "fake-6l", model.fingerprint = "sha256:0123456789abcdef", model.family = "llama", model.familyTitle = "Llama", model.dtype = "F32";
    model.hiddenSize = 40, model.vocabSize = 97, model.maxPositions = 512;
    model.embeddingParameters = model.headParameters = 97 * 40;
    model.finalNormParameters = 40;
    model.edits = {"drop_blocks", "drop_heads"};
    model.parameters = 2 * 97 * 40 + 40;
    for (int i = 0; i < 6; ++i) {
        protocol::BlockMessage block;
        block.index = i, block.numHeads = 8, block.numKvHeads = 4, block.headDim = 10, block.ffnSize = 44, block.headsPerKv = {2, 2, 2, 2};
        block.attentionParameters = 40 * 10 * (8 + 4 + 4 + 8) + 40;
        block.ffnParameters = 3 * 40 * 44 + 40;
        block.parameters = block.attentionParameters + block.ffnParameters;
        model.parameters += block.parameters;
        model.blocks.push_back(block);
    }
    model.bytes = model.parameters * 4;
    return model;
}

int runFakeWorker() {
    const std::string mode = std::getenv("RESECT_FAKE") ? std::getenv("RESECT_FAKE") : "";
    std::cerr << "fake worker up" << std::endl;
    if (mode == "die") {
        std::cerr << "cannot allocate the moon" << std::endl;
        return 3;
    }
    std::string line;
    std::int64_t held = 0;
    while (std::getline(std::cin, line)) {
        const Json request = parseJson(line, "stdin");
        const std::int64_t id = request.at("id");
        const std::string call = request.at("call");
        const Json args = request.value("args", Json::object());
        if (mode == "garbage") std::cout << "{not json\n[1,2]\n{\"id\": 99999, \"result\": {}}\n" << std::flush;
        if (call == "hello") {
            protocol::HelloMessage hello;
            hello.protocol = mode == "old" ? 0 : protocol::kProtocolVersion;
            hello.version = "0.1.0", hello.devices = {"cpu"}, hello.threads = 2;
            reply({{"id", id}, {"result", hello}});
        } else if (call == "die") {
            std::raise(SIGKILL);
        } else if (call == "hold") {
            held = id;
        } else if (call == "late") {
            reply({{"id", held}, {"result", {{"late", true}}}});
            reply({{"id", id}, {"result", Json::object()}});
        } else if (call == "fail") {
            reply({{"id", id}, {"error", {{"code", "BadInput"}, {"subject", "model.safetensors"}, {"message", "too short"}}}});
        } else if (call == "cancel") {
            reply({{"id", id}, {"result", Json::object()}});
            if (held == args.at("id").get<std::int64_t>()) reply({{"id", held}, {"error", {{"code", "Stopped"}, {"subject", ""}, {"message", "stopped"}}}});
        } else if (call == "measure" || call == "preview" || call == "export") {
            work(request, id, 5);
        } else {
            reply({{"id", id}, {"result", answer(call, args)}});
        }
    }
    return 0;
}

int runFakeRun(const char* jobFile) {
    const std::filesystem::path folder = std::filesystem::path(jobFile).parent_path();
    protocol::RunStatus status;
    status.state = "running", status.pid = getpid(), status.totalSteps = 500;
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    status.host = host;
    std::ofstream metrics(folder / "metrics.jsonl", std::ios::app);
    for (int step = 1; step <= 500 && status.state == "running"; ++step) {
        const std::time_t now = std::time(nullptr);
        char text[32];
        std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
        status.heartbeat = text, status.step = step, status.loss = 2.0 / step;
        if (std::string word; std::ifstream(folder / "control") >> word && word == "stop") status.state = "stopped";
        writeJsonFile(folder / "status.json", status);
        metrics << Json{{"step", step}, {"tokens", step * 128}, {"seconds", step * 0.02}, {"event", ""}, {"loss", 2.0 / step}}.dump() << std::endl;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return 0;
}

}  // namespace resect::test
