#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "app/cli/data_options.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/worker/catalogue.h"
#include "core/worker/describe.h"
#include "core/worker/measuring.h"
#include "core/workspace/report_file.h"

#include <iostream>

namespace resect::cli {

namespace {

struct MeasureOptions : Common {
    std::string method, checkpoint, out;
    protocol::DataMessage data;
    bool stream = false;
};

/// Bars and curves as columns side by side; matrices only by size, they are for the window and for --json.
void printReport(const Report& report) {
    std::vector<std::vector<std::string>> rows;
    std::vector<std::string> head{""};
    std::vector<const ReportDataset*> columns;
    for (const auto& dataset : report.datasets)
        if (dataset.shape.size() == 1 && dataset.shape[0] <= 512 && !dataset.axes.empty() && (columns.empty() || dataset.shape == columns[0]->shape)) columns.push_back(&dataset);
    if (!columns.empty()) {
        head[0] = columns[0]->axes[0].name;
        for (const auto* column : columns) head.push_back(column->name);
        rows.push_back(head);
        for (std::int64_t i = 0; i < columns[0]->shape[0]; ++i) {
            std::vector<std::string> row{std::to_string(columns[0]->axes[0].ids.empty() ? i : columns[0]->axes[0].ids[i])};
            for (const auto* column : columns) row.push_back(toText(column->values[i], 4));
            rows.push_back(std::move(row));
        }
        printTable(rows);
    }
    for (const auto& dataset : report.datasets) {
        if (dataset.shape.size() < 2) continue;
        std::cout << dataset.name << ": " << dataset.title << ", ";
        for (std::size_t i = 0; i < dataset.shape.size(); ++i) std::cout << (i ? " x " : "") << dataset.shape[i];
        std::cout << "\n";
    }
}

void runMeasure(MeasureOptions& options) {
    configureRuntime(options.threads);
    const Catalogue catalogue = loadCatalogue();
    OpenedCheckpoint opened(options.checkpoint);
    MeasureRequest request{options.method, settingsOf(options), options.data, {options.device, options.dtype}, options.stream, options.seed, options.workspace, options.out};
    Measured measured;
    {
        const CommandJob job(options);
        measured = measure(opened, catalogue.registry, request, job.context());
    }
    const Report report = readReport(measured.file);
    if (options.json) {
        Json json = toJson(report);
        json["file"] = measured.file.string();
        json["cached"] = measured.cached;
        printJson(json);
    } else {
        std::cout << report.method << " on " << report.dataDescription << (measured.cached ? " (measured before)" : "") << "\n";
        if (report.partial()) std::cout << "partial: " << report.samplesDone << " of " << report.samplesTotal << " samples\n";
        printReport(report);
        printProblems(describe(report.notes));
        std::cout << "written to " << measured.file.string() << "\n";
    }
    if (report.partial()) setExitCode(exitCode(ErrorCode::Stopped));
}

}  // namespace

void addData(CLI::App& command, protocol::DataMessage& data) {
    data.maxRows = -1;
    data.rowLength = 0;
    command.add_option("--data", data.file, kDataHelp)->required();
    command.add_option("--row-length", data.rowLength, "Tokens per row")->default_str("256, or the model's context")->check(CLI::PositiveNumber);
    command.add_option("--max-rows", data.maxRows, "Rows or images to use, 0 = all")->default_str("64; of images 1024")->check(CLI::NonNegativeNumber);
    command.add_option("--layout", data.layout, "chunks of running text, packed or padded examples; auto: packed for rows with prompt and answer, else chunks")->check(CLI::IsMember({"auto", "chunks", "packed", "padded"}))->capture_default_str();
    addImageAspect(command, data.imageAspect);
}

void addImageAspect(CLI::App& command, std::string& imageAspect) {
    command.add_option("--image-aspect", imageAspect, "pad: pad pictures to squares with the mean colour before they are resized")->check(CLI::IsMember({"pad"}));
}

void addMeasure(CLI::App& app) {
    auto options = std::make_shared<MeasureOptions>();
    CLI::App* command = app.add_subcommand("measure", "Score the parts of a model; the result is an HDF5 file that is never computed twice");
    command->add_option("METHOD", options->method, "llm-drop, importance, ... (see: resect-cli methods)")->required();
    command->add_option("CKPT", options->checkpoint, "Checkpoint")->required();
    addData(*command, options->data);
    command->add_option("--out", options->out, "HDF5 file to write (default: only the workspace or the user's cache)");
    command->add_flag("--stream", options->stream, "Block by block from the files, for models larger than memory");
    addSettings(*command, *options);
    addCommon(*command, *options, Shared::Compute);
    command->footer("Examples:\n  resect-cli measure llm-drop MODEL --data text.txt --out scores.h5\n  resect-cli measure importance MODEL --data text.txt --max-rows 32 --json\n"
                    "  resect-cli measure llm-drop VIT --data images/ --out scores.h5\n"
                    "Ctrl+C keeps what is finished, marked partial (exit code 5).");
    command->callback([options] { runMeasure(*options); });
}

}  // namespace resect::cli
