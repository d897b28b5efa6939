#include "tests/widgets/plots/sample_experts.h"

#include <QApplication>
#include <QStyleFactory>
#include <gtest/gtest.h>

#include <cstring>
#include <iostream>
#include <string>

namespace {

using resect::Json;
namespace protocol = resect::protocol;

void reply(const Json& message) { std::cout << message.dump() << std::endl; }

Json rectangle(const Json& args, const protocol::ModelMessage& model) {
    auto measures = resect::ui::test::sampleMeasures(model);
    measures.push_back(resect::ui::test::sampleExpertMeasure());
    for (const auto& measure : measures)
        for (const auto& info : measure.datasets) {
            if (info.name != args["name"]) continue;
            const auto first = args["first"].get<std::vector<std::int64_t>>(), count = args["count"].get<std::vector<std::int64_t>>();
            Json values = Json::array(), errors = Json::array();
            const std::int64_t columns = count.size() > 1 ? count[1] : 1;
            for (std::int64_t row = 0; row < count[0]; ++row)
                for (std::int64_t column = 0; column < columns; ++column) {
                    std::vector<std::int64_t> cell = {first[0] + row};
                    if (count.size() > 1) cell.push_back(first[1] + column);
                    const double value = resect::ui::test::sampleExpertValue(info.name, cell, info.shape);
                    values.push_back(std::isfinite(value) ? Json(value) : Json());
                    if (info.hasErrors) errors.push_back(0.04 * value);
                }
            return {{"shape", count}, {"values", values}, {"errors", errors}};
        }
    return {};
}

/// 40 tokens; in block b token t goes to experts t + b and t + b + 1.
Json routing() {
    Json tokens = Json::array(), blocks = Json::array();
    for (int t = 0; t < 40; ++t) tokens.push_back(" word" + std::to_string(t));
    for (const int block : {0, 2, 3, 4, 5}) {
        Json experts = Json::array(), gates = Json::array();
        for (int t = 0; t < 40; ++t) experts.push_back({(t + block) % 8, (t + block + 1) % 8}), gates.push_back({0.7, 0.3});
        blocks.push_back({{"block", block}, {"numExperts", 8}, {"experts", experts}, {"gates", gates}});
    }
    return {{"tokens", tokens}, {"blocks", blocks}, {"shortened", false}};
}

/// 300 tensors t0, t1, ...; the last one is large. The filter is a part of the name.
Json tensors(const Json& args) {
    Json rows = Json::array();
    int total = 0;
    for (int i = 0; i < 300; ++i) {
        const std::string name = "t" + std::to_string(i);
        if (name.find(args.value("filter", "")) == std::string::npos) continue;
        if (total++ < args["offset"] || total > int(args["offset"]) + int(args["count"])) continue;
        rows.push_back({{"name", name}, {"dtype", "BF16"}, {"shape", {480, 1376}}, {"bytes", i == 299 ? 3'000'000'000 : 1'320'960}, {"file", "model-00001-of-00002.safetensors"}});
    }
    return {{"total", total}, {"rows", rows}};
}

Json tensorLook() {
    Json bins = Json::array(), rows = Json::array(), columns = Json::array(), cells = Json::array();
    for (int i = 0; i < 60; ++i) bins.push_back(int(1000 * std::exp(-std::pow((i - 30) / 10.0, 2))));
    for (int i = 0; i < 32; ++i) rows.push_back(15 * i);
    for (int i = 0; i < 48; ++i) columns.push_back(28 * i);
    for (int i = 0; i < 32 * 48; ++i) cells.push_back(i == 77 ? Json() : Json(0.02 + 0.01 * resect::ui::test::noise(i) + (i % 48 == 11 ? 0.05 : 0)));
    return {{"count", 660480}, {"zeros", 12}, {"nonFinite", 2}, {"minimum", -1.5}, {"maximum", 2}, {"mean", 0.25}, {"deviation", 0.1}, {"low", -0.25}, {"high", 0.75}, {"bins", bins},
            {"below", 3}, {"above", 1}, {"rows", 480}, {"columns", 1376}, {"cellRows", rows}, {"cellColumns", columns}, {"cells", cells}};
}

/// Of a model with 6 blocks that lost block 2 and learnt a little.
Json difference() {
    Json blocks = Json::array(), tensors = Json::array(), unchanged = Json::array();
    for (int block = 0; block < 6; ++block) {
        const int other = block < 2 ? block : block - 1;
        blocks.push_back({{"stack", "model.layers"}, {"a", block}, {"b", block == 2 ? Json() : Json(other)}});
        for (const char* role : {"self_attn.q_proj.weight", "mlp.up_proj.weight", "input_layernorm.weight"}) {
            const std::string a = "model.layers." + std::to_string(block) + "." + role, b = "model.layers." + std::to_string(other) + "." + role;
            const Json shape = {480, 1376};
            if (block == 2) tensors.push_back({{"kind", "removed"}, {"a", a}, {"shapeA", shape}, {"dtypeA", "BF16"}});
            else if (block == 0) unchanged.push_back({{"a", a}, {"b", b}, {"shape", shape}, {"dtype", "BF16"}});
            else tensors.push_back({{"kind", "changed"}, {"a", a}, {"shapeA", shape}, {"dtypeA", "BF16"}, {"b", b}, {"shapeB", shape}, {"dtypeB", "BF16"}, {"relative", 0.004 * block * block}, {"largest", 0.1}, {"changedElements", 600'000}});
        }
    }
    return {{"complete", true}, {"equalTensors", 3}, {"config", {{{"field", "num_hidden_layers"}, {"a", 6}, {"b", 5}}, {{"field", "torch_dtype"}, {"a", "bfloat16"}, {"b", nullptr}}}}, {"blocks", blocks},
            {"tensors", tensors}, {"unchanged", unchanged}, {"left", {{"folder", "/models/sample"}}}, {"right", {{"folder", "/models/other"}}}};
}

/// This program as the worker of its own tests: answers from the sample model, so that pages are tested over real pipes.
int serve() {
    const auto model = resect::ui::test::sampleModel(14);
    std::string line;
    while (std::getline(std::cin, line)) {
        const Json request = Json::parse(line);
        const Json id = request["id"], args = request.value("args", Json::object());
        const std::string call = request["call"];
        const auto result = [&](const Json& value) { reply({{"id", id}, {"result", value}}); };
        if (call == "hello") {
            result(protocol::HelloMessage{});
        } else if (call == "dataset") {
            result(rectangle(args, model));
        } else if (call == "measure") {
            reply({{"id", id}, {"progress", {{"done", 1}, {"total", 2}, {"unit", "rows"}, {"stage", "scoring"}}}});
            if (args["data"]["file"] == "/bad.txt") reply({{"id", id}, {"error", {{"code", "BadInput"}, {"subject", "/bad.txt"}, {"message", "holds no text"}}}});
            else if (args["method"] == "expert-drop") result(resect::ui::test::sampleExpertMeasure());
            else result(resect::ui::test::sampleMeasures(model)[args["method"] == "llm-drop" ? 0 : 1]);
        } else if (call == "attention") {
            Json tokens = Json::array(), weights = Json::array();
            for (int i = 0; i < 20; ++i) {
                tokens.push_back("t" + std::to_string(i));
                Json row = Json::array();
                for (int j = 0; j < 20; ++j) row.push_back(j > i ? 0.0 : j == 0 ? 0.5 : 0.5 / i);
                weights.push_back(row);
            }
            result({{"tokens", tokens}, {"weights", weights}});
        } else if (call == "generate") {
            Json tokens = Json::array();
            for (int i = 0; i < 30; ++i) {
                const bool other = args.contains("plan") && i > 11 && i % 3 == 0;
                const Json token = {{"id", i}, {"text", (other ? " other" : " word") + std::to_string(i)}, {"logProbability", -0.1 * (i % 7)}};
                tokens.push_back(token);
                reply({{"id", id}, {"progress", {{"done", i}, {"total", 30}}}, {"partial", {{"token", token}}}});
            }
            result({{"text", "..."}, {"tokens", tokens}});
        } else if (call == "router_tokens") {
            if (args.value("text", "") == "fail") reply({{"id", id}, {"error", {{"code", "Usage"}, {"subject", "text"}, {"message", "it has no tokens"}}}});
            else result(routing());
        } else if (call == "tensors") {
            result(tensors(args));
        } else if (call == "tensor_look") {
            result(tensorLook());
        } else if (call == "diff") {
            if (args["path"] == "/nowhere") reply({{"id", id}, {"error", {{"code", "NotFound"}, {"subject", "/nowhere"}, {"message", "no checkpoint here"}}}});
            else result(difference());
        } else if (call == "health") {
            result({{"problems", Json::array({{{"severity", "error"}, {"subject", "model.layers.3.mlp.up_proj.weight"}, {"message", "holds 4 values that are not numbers"}, {"advice", "Drop that MLP or get the file again."}}})}, {"badTensors", 1}, {"complete", true}});
        } else {
            result(Json::object());
        }
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc > 1 && std::strcmp(argv[1], "serve") == 0) return serve();
    testing::InitGoogleTest(&argc, argv);
    qputenv("QT_QPA_PLATFORM", "offscreen");
    QApplication app(argc, argv);
    QApplication::setStyle(QStyleFactory::create(QStringLiteral("Fusion")));
    return RUN_ALL_TESTS();
}
