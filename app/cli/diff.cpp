#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/export/checkpoint_diff.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>

namespace resect::cli {

namespace {

using Kind = TensorDifference::Kind;

struct DiffOptions : Common {
    std::string a, b;
    std::size_t most = 20;
    bool shapesOnly = false;
};

std::string typed(const std::vector<std::int64_t>& shape, DType dtype) { return std::string(name(dtype)) + " " + shapeText(shape); }

std::string shownValue(const Json& value) {
    if (value.is_null()) return "-";
    std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (text.size() > 60) text.replace(57, std::string::npos, "...");
    return text;
}

void printBlocks(const CheckpointDiff& diff) {
    std::map<std::string, std::string> removed, added, moved;
    const auto append = [](std::string& list, const std::string& entry) { list += (list.empty() ? "" : ", ") + entry; };
    for (const auto& pair : diff.blocks) {
        if (pair.b < 0) append(removed[pair.stack], std::to_string(pair.a));
        else if (pair.a < 0) append(added[pair.stack], std::to_string(pair.b));
        else if (pair.a != pair.b) append(moved[pair.stack], std::to_string(pair.a) + " -> " + std::to_string(pair.b));
    }
    for (const auto& [title, lists] : {std::pair{"only in A: ", &removed}, {"only in B: ", &added}, {"renumbered: ", &moved}})
        for (const auto& [stack, list] : *lists) std::cout << stack << " " << title << list << "\n";
}

void printTensors(const CheckpointDiff& diff, std::size_t most) {
    std::vector<const TensorDifference*> structural, changed;
    for (const auto& entry : diff.tensors) (entry.kind == Kind::Changed ? changed : structural).push_back(&entry);
    std::ranges::stable_sort(changed, [](const auto* x, const auto* y) { return std::isnan(y->relative) ? !std::isnan(x->relative) : x->relative > y->relative; });
    const auto more = [&](std::size_t count) {
        if (count > most) std::cout << "... and " << count - most << " more (--most)\n";
    };
    std::vector<std::vector<std::string>> rows{{"tensor", "what", "A", "B"}};
    for (std::size_t i = 0; i < std::min(most, structural.size()); ++i) {
        const auto& entry = *structural[i];
        rows.push_back({entry.a.empty() ? entry.b : entry.a, std::string(name(entry.kind)), entry.a.empty() ? "" : typed(entry.shapeA, entry.dtypeA),
                        entry.b.empty() ? "" : typed(entry.shapeB, entry.dtypeB)});
    }
    if (!structural.empty()) std::cout << "\n", printTable(rows), more(structural.size());
    if (changed.empty()) return;
    rows = {{"tensor", "relative change", "largest change", "elements changed"}};
    for (std::size_t i = 0; i < std::min(most, changed.size()); ++i) {
        const auto& entry = *changed[i];
        std::string label = entry.a;
        if (entry.b != entry.a) label += " (B: " + entry.b + ")";
        if (entry.dtypeA != entry.dtypeB) label += " " + std::string(name(entry.dtypeA)) + " -> " + std::string(name(entry.dtypeB));
        const auto number = [](double value) { return std::isnan(value) ? std::string("-") : toText(value, 3); };
        rows.push_back({label, number(entry.relative), number(entry.largest), entry.changedElements > 0 ? formatThousands(entry.changedElements) : "-"});
    }
    std::cout << "\n";
    printTable(rows);
    more(changed.size());
}

void runDiff(DiffOptions& options) {
    const auto a = Checkpoint::open(options.a), b = Checkpoint::open(options.b);
    CheckpointDiff diff;
    {
        const CommandJob job(options);
        diff = diffCheckpoints(a, b, options.shapesOnly ? DiffContent::Skip : DiffContent::Read, job.context());
    }
    if (!diff.complete) setExitCode(exitCode(ErrorCode::Stopped));
    if (options.json) return printJson(toJson(diff));
    for (const auto& [side, checkpoint] : {std::pair{"A", &a}, {"B", &b}})
        std::cout << side << ": " << checkpoint->folder().string() << ", " << formatThousands(checkpoint->totalParameters()) << " parameters, "
                  << formatBytes(checkpoint->totalBytes()) << "\n";
    printBlocks(diff);
    if (!diff.config.empty()) {
        std::vector<std::vector<std::string>> rows{{"config.json", "A", "B"}};
        for (const auto& entry : diff.config) rows.push_back({entry.field, shownValue(entry.a), shownValue(entry.b)});
        std::cout << "\n";
        printTable(rows);
    }
    printTensors(diff, options.most);
    std::cout << "\n";
    if (options.shapesOnly) std::cout << "Weights were not compared.\n";
    else std::cout << formatThousands(diff.equalTensors) << " tensors are equal to the byte, " << formatThousands(diff.comparedTensors - diff.equalTensors) << " changed"
                   << (diff.complete ? ".\n" : "; stopped before the rest was compared.\n");
}

}  // namespace

void addDiff(CLI::App& app) {
    auto options = std::make_shared<DiffOptions>();
    CLI::App* command = app.add_subcommand("diff", "What differs between two checkpoints: blocks, shapes, configuration, weights");
    command->add_option("A", options->a, "Checkpoint: the original")->required();
    command->add_option("B", options->b, "Checkpoint: what became of it")->required();
    command->add_flag("--shapes-only", options->shapesOnly, "Do not read the weights");
    command->add_option("--most", options->most, "Rows of each table; --json has all")->capture_default_str();
    addCommon(*command, *options, Shared::OutputOnly);
    command->footer("Blocks are matched by their weights, so that a model without blocks 1 and 5 is compared block by block with its original.\n"
                    "Example:\n  resect-cli diff MODEL smaller-model");
    command->callback([options] { runDiff(*options); });
}

}  // namespace resect::cli
