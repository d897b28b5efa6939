#include "app/cli/commands.h"
#include "app/cli/common.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/worker/describe.h"
#include "core/worker/opened.h"

#include <cmath>
#include <iostream>

namespace resect::cli {

namespace {

struct VerdictOptions : Common {
    std::string plan, checkpoint;
};

std::string change(double before, double after) {
    if (before == 0) return "";
    const double percent = 100 * (after - before) / before;
    return (percent > 0 ? "+" : "") + toText(std::round(percent * 10) / 10) + " %";
}

void printText(const protocol::PlanCheckMessage& check) {
    for (std::size_t i = 0; i < check.titles.size(); ++i) std::cout << i + 1 << ". " << check.titles[i] << "\n";
    for (const auto& problem : check.problems) {
        printProblems({problem.problem});
        for (const auto& title : problem.insteadTitles) std::cout << "  instead: " << title << "\n";
    }
    if (!check.legal) return;
    const auto& [before, after] = std::pair(check.before, check.after);
    std::cout << "\n";
    printTable({{"", "before", "after", "change"},
                {"parameters", formatThousands(before.parameters), formatThousands(after.parameters), change(before.parameters, after.parameters)},
                {"on disk", formatBytes(before.bytes), formatBytes(after.bytes), change(before.bytes, after.bytes)},
                {"as bf16", formatBytes(before.bytesBf16), formatBytes(after.bytesBf16), change(before.bytesBf16, after.bytesBf16)},
                {"KV cache, 1,000 tokens, 16 bit", formatBytes(before.kvBytesPer1000), formatBytes(after.kvBytesPer1000), change(before.kvBytesPer1000, after.kvBytesPer1000)},
                {"FLOPs per token, prefill", formatCount(before.prefillFlopsPerToken), formatCount(after.prefillFlopsPerToken), change(before.prefillFlopsPerToken, after.prefillFlopsPerToken)},
                {"FLOPs per token, decode", formatCount(before.decodeFlopsPerToken), formatCount(after.decodeFlopsPerToken), change(before.decodeFlopsPerToken, after.decodeFlopsPerToken)}});
    std::cout << "\nopens in (" << (check.uniform ? "uniform: a stock shape" : "blocks differ: padded or zeroed for stock runtimes") << "):\n";
    for (const auto& verdict : check.verdicts) {
        std::cout << "  " << verdict.runtime << ": " << verdict.verdict;
        for (const auto& reason : verdict.reasons) std::cout << "\n    " << reason;
        std::cout << "\n";
    }
}

void runVerdict(VerdictOptions& options) {
    const OpenedCheckpoint opened(options.checkpoint);
    const protocol::PlanCheckMessage check = describe(opened, readPlan(options.plan));
    if (options.json) {
        printJson(check);
    } else {
        printText(check);
    }
    if (!check.legal) setExitCode(exitCode(ErrorCode::BadInput));
}

}  // namespace

void addVerdict(CLI::App& app) {
    auto options = std::make_shared<VerdictOptions>();
    CLI::App* command = app.add_subcommand("verdict", "What a plan costs and saves, and which programs open the result; changes nothing");
    command->add_option("PLAN", options->plan, "plan.json")->required();
    command->add_option("CKPT", options->checkpoint, "The checkpoint that the plan was made for")->required();
    addCommon(*command, *options, Shared::OutputOnly);
    command->footer("Example:\n  resect-cli verdict plan.json MODEL\nA plan with errors exits with 3; each error names the nearest legal edits.");
    command->callback([options] { runVerdict(*options); });
}

}  // namespace resect::cli
