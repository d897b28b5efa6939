#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/export/carried_files.h"
#include "core/export/hf_writer.h"
#include "core/export/manifest.h"

namespace resect {

namespace fs = std::filesystem;

namespace {

void checkTokenizer(const fs::path& folder, const ModelShape& shape, std::vector<Problem>& problems) {
    const auto error = [&](const std::string& subject, std::string message) {
        problems.push_back({Severity::Error, subject, std::move(message),
                            "The tokenizer belongs to another checkpoint, or the vocabulary was trimmed without it."});
    };
    try {
        const VocabularyFacts facts = largestTokenId(folder);
        if (facts.largestId >= shape.vocabSize)
            error(facts.file,
                  "It holds token id " + toText(facts.largestId) + ", but vocab_size is " + toText(shape.vocabSize) + ".");
    } catch (const Error& failure) {
        error(failure.subject(), failure.message());
    }
    const auto checkId = [&](const char* what, std::int64_t id) {
        if (id >= shape.vocabSize)
            error("config.json",
                  std::string(what) + " " + toText(id) + " is not below vocab_size " + toText(shape.vocabSize) + ".");
    };
    if (shape.bosId) checkId("bos_token_id", *shape.bosId);
    if (shape.padId) checkId("pad_token_id", *shape.padId);
    for (int id : shape.eosIds) checkId("eos_token_id", id);
}

}  // namespace

std::vector<Problem> verifyFolder(const fs::path& folder, const JobContext& job) {
    if (!fs::is_directory(folder)) throw Error(ErrorCode::NotFound, folder.string(), "there is no such folder");
    std::vector<Problem> problems;
    const auto append = [&](const std::vector<Problem>& more) { problems.insert(problems.end(), more.begin(), more.end()); };
    try {
        append(checkManifest(folder, job));
        if (!job.stopped()) {
            const Checkpoint checkpoint = Checkpoint::open(folder);
            append(checkpoint.problems());
            if (checkpoint.config().is_null())
                problems.push_back({Severity::Error, "config.json",
                                    "There is no config.json, so the tensors cannot be checked against it.", "Export again."});
            const Anatomy anatomy = Anatomy::of(checkpoint);
            append(anatomy.problems());
            append(findNonFinite(checkpoint, job));
            if (anatomy.understood()) checkTokenizer(folder, anatomy.shape(), problems);
        }
    } catch (const Error& failure) {
        if (failure.code() != ErrorCode::Stopped)
            problems.push_back({Severity::Error, failure.subject(), failure.message(), {}});
    }
    if (job.stopped()) problems.push_back({Severity::Note, folder.string(), "Stopped: not everything was checked.", {}});
    return problems;
}

}  // namespace resect
