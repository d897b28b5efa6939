#pragma once
#include "core/data/task.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace resect {

struct DemoTextOptions {
    std::uint64_t seed = 1;
    std::uint64_t trainBytes = 4'000'000;  ///< at least this much, ending with a whole paragraph
    std::uint64_t heldOutBytes = 200'000;
    int questions = 600;  ///< at most; a third each about facts, sums and stories
};

/// Text with known answers for the demo checkpoints: half stories, a quarter each facts and sums, about one invented world.
///
/// The same options give the same bytes on every platform. Paragraphs are separated by an empty line. What is held out: one of
/// eight sums "a plus b is c" and "a minus b is c" (as ordered pairs, so that 7 plus 12 may be known when 12 plus 7 is asked),
/// of every fact one of its four ways of saying it (so that the fact is known, but not in this form), and one of eight
/// combinations of plot, people and things of the stories. Nothing that is held out occurs in the training text; questions ask
/// only for held-out things.
struct DemoText {
    std::string train, heldOut;
    std::vector<ExactTask> questions;  ///< ids "fact-N", "sum-N", "story-N"
};
DemoText makeDemoText(const DemoTextOptions& options);

/// Writes train.txt, heldout.txt and questions.jsonl (rows {"id", "prompt", "answer"}, as loadTasks() reads them) into a new
/// folder. Throws Usage for sizes that make no text, BadInput when the folder exists and is not empty, DiskFull, NoPermission.
void writeDemoText(const std::filesystem::path& folder, const DemoTextOptions& options);

}  // namespace resect
