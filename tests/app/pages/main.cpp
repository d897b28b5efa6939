#include "tests/widgets/plots/sample_model.h"

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
    for (const auto& measure : resect::ui::test::sampleMeasures(model))
        for (const auto& info : measure.datasets) {
            if (info.name != args["name"]) continue;
            const auto first = args["first"].get<std::vector<std::int64_t>>(), count = args["count"].get<std::vector<std::int64_t>>();
            Json values = Json::array(), errors = Json::array();
            const std::int64_t columns = count.size() > 1 ? count[1] : 1;
            for (std::int64_t row = 0; row < count[0]; ++row)
                for (std::int64_t column = 0; column < columns; ++column) {
                    std::vector<std::int64_t> cell = {first[0] + row};
                    if (count.size() > 1) cell.push_back(first[1] + column);
                    const double value = resect::ui::test::sampleValue(info.name, cell, info.shape);
                    values.push_back(std::isfinite(value) ? Json(value) : Json());
                    if (info.hasErrors) errors.push_back(0.04 * value);
                }
            return {{"shape", count}, {"values", values}, {"errors", errors}};
        }
    return {};
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
        } else if (call == "health") {
            result({{"problems", Json::array({{{"severity", "error"}, {"subject", "model.layers.3.mlp.up_proj.weight"}, {"message", "holds 4 values that are not numbers"}, {"advice", "Drop that MLP or get the file again."}}})}});
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
