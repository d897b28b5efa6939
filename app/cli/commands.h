#pragma once

namespace CLI {
class App;
}

// One file per command; each adds its subcommand.

namespace resect::cli {

void addInspect(CLI::App& app);
void addMethods(CLI::App& app);
void addMeasure(CLI::App& app);
void addPlan(CLI::App& app);
void addVerdict(CLI::App& app);
void addPreview(CLI::App& app);
void addRecover(CLI::App& app);
void addRunCommands(CLI::App& app);   ///< run, status, stop, resume
void addEval(CLI::App& app);
void addExport(CLI::App& app);
void addAdapter(CLI::App& app);       ///< merge, fuse, peft
void addImport(CLI::App& app);
void addDropLists(CLI::App& app);
void addVerify(CLI::App& app);
void addLogits(CLI::App& app);
void addTokenize(CLI::App& app);
void addChat(CLI::App& app);
void addGenerate(CLI::App& app);
void addDiff(CLI::App& app);
void addDemoText(CLI::App& app);
void addServe(CLI::App& app);

}  // namespace resect::cli
