#include "tests/core/train/train_support.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/export/manifest.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace resect::test {

namespace fs = std::filesystem;

fs::path writeCounting(const fs::path& file, int rows, int length, int vocabulary) {
    std::string text;
    for (int r = 0; r < rows; ++r) {
        Json ids = Json::array();
        for (int t = 0; t < length; ++t) ids.push_back(3 + (7 * r + t) % (vocabulary - 3));
        text += Json{{"input_ids", ids}}.dump() + "\n";
    }
    writeText(file, text);
    return file;
}

protocol::RunStatus TinyRun::run() const {
    create();
    return runJob(path(), {});
}

TinyRun tinyRun(const std::string& recipe, const Json& parameters, const TinyOptions& options) {
    TinyRun run;
    run.source = tinyLlama(options);
    run.job.recipe = recipe;
    run.job.parameters = {{"steps", 6},      {"batch_rows", 3},  {"row_length", 17}, {"layout", "padded"},      {"lr", 3e-3},
                          {"warmup_steps", 2}, {"eval_every", 2}, {"eval_rows", 5},   {"checkpoint_every", 2}};
    for (const auto& [key, value] : parameters.items()) run.job.parameters[key] = value;
    run.job.source = run.source.path();
    run.job.data.file = writeCounting(*run.folder / "data.jsonl", 29, 17, options.vocabSize);
    run.job.device = "cpu";
    run.job.seed = 5;
    run.job.threads = 1;
    return run;
}

std::vector<std::string> comparableRows(const fs::path& run) {
    std::vector<std::string> rows;
    for (auto row : readMetrics(run)) {
        if (row.event == "resume" || row.event == "stop" || row.event == "pause") continue;
        row.seconds = 0;
        row.tokensPerSecond = nullptr;
        rows.push_back(Json(row).dump());
    }
    return rows;
}

std::map<std::string, std::string> hashesBelow(const fs::path& folder) {
    std::map<std::string, std::string> hashes;
    for (const auto& name : filesBelow(folder)) hashes[name] = sha256File(folder / name);
    return hashes;
}

pid_t startChild(const fs::path& run, const std::string& how) {
    const auto program = fs::read_symlink("/proc/self/exe").string();
    const pid_t child = fork();
    if (child != 0) return child;
    setenv("RESECT_TRAIN_CHILD", run.c_str(), 1);
    setenv("RESECT_TRAIN_HOW", how.c_str(), 1);
    execl(program.c_str(), program.c_str(), "--gtest_filter=TrainChild.*", "--gtest_brief=1", nullptr);
    _exit(127);
}

int waitForExit(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

void waitUntil(const std::function<bool()>& done) {
    for (int i = 0; i < 6000; ++i) {
        if (done()) return;
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    FAIL() << "nothing happened for 60 s";
}

bool reachedStep(const fs::path& run, std::int64_t step) {
    if (!fs::exists(run / "metrics.jsonl")) return false;
    const auto rows = readMetrics(run);
    return std::ranges::any_of(rows, [&](const auto& row) { return row.step >= step; });
}

}  // namespace resect::test
