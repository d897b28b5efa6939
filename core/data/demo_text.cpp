#include "core/data/demo_text.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/data/demo_story.h"
#include "core/protocol/json.h"

#include <algorithm>
#include <set>

namespace resect {
namespace {

constexpr int kLargestNumber = 20;
constexpr std::uint64_t kHeldOutShare = 8;  ///< one of so many

enum class Split { Train, HeldOut };

std::uint64_t mix(std::uint64_t value) { return DemoRandom(value).next(); }

struct Sum {
    int a = 0, b = 0;
    bool plus = true;
    std::string beginning() const { return std::to_string(a) + (plus ? " plus " : " minus ") + std::to_string(b) + " is"; }
    std::string value() const { return std::to_string(plus ? a + b : a - b); }
};

class Writer {
public:
    explicit Writer(const DemoTextOptions& options) : m_seed(options.seed), m_world(DemoWorld::make(options.seed)) {
        for (int a = 0; a <= kLargestNumber; ++a) {
            for (int b = 0; b <= kLargestNumber; ++b) {
                sort({a, b, true});
                if (b <= a) sort({a, b, false});
            }
        }
    }

    std::string text(std::uint64_t bytes, Split split) {
        DemoRandom random(mix(m_seed) + static_cast<std::uint64_t>(split));
        std::uint64_t stories = 0, facts = 0, sums = 0;
        std::string out;
        while (out.size() < bytes) {
            const std::size_t before = out.size();
            // The kind that is furthest behind its share comes next.
            std::uint64_t* kind = stories <= 2 * facts && stories <= 2 * sums ? &stories : facts <= sums ? &facts : &sums;
            if (kind == &stories)
                out += story(random, split).text;
            else if (kind == &facts)
                addFacts(random, split, out);
            else
                addSums(random, split, out);
            out += "\n\n";
            *kind += out.size() - before;
        }
        return out;
    }

    std::vector<ExactTask> questions(int count) {
        DemoRandom random(mix(m_seed) + 17);
        std::vector<ExactTask> tasks;
        const auto number = [](const char* kind, std::size_t i) { return std::string(kind) + "-" + std::to_string(i); };
        const std::size_t third = static_cast<std::size_t>(std::max(count, 0)) / 3;
        std::vector<DemoFact> facts = m_world.facts;
        random.shuffle(facts);
        for (std::size_t i = 0; i < std::min(third, facts.size()); ++i)
            tasks.push_back({number("fact", i), facts[i].beginnings[facts[i].heldOut], facts[i].value});
        std::vector<Sum> sums = m_heldOutSums;
        random.shuffle(sums);
        for (std::size_t i = 0; i < std::min(third, sums.size()); ++i)
            tasks.push_back({number("sum", i), sums[i].beginning(), sums[i].value()});
        std::set<std::string> seen;
        for (std::size_t i = 0; i < third;) {
            const DemoStory told = story(random, Split::HeldOut);
            const std::string prompt = told.text.substr(0, told.questionEnd);
            if (seen.insert(prompt).second) tasks.push_back({number("story", i++), prompt, told.answer});
        }
        return tasks;
    }

private:
    void sort(const Sum& sum) {
        const auto key = static_cast<std::uint64_t>((sum.a * 100 + sum.b) * 2 + sum.plus);
        (mix(mix(m_seed) ^ key) % kHeldOutShare == 0 ? m_heldOutSums : m_trainSums).push_back(sum);
    }

    DemoStory story(DemoRandom& random, Split split) const {
        for (;;) {
            DemoStory told = makeDemoStory(m_world, random);
            // A story that says a sum must not give a held-out one away, nor may its combination be known.
            const bool heldOut = mix(mix(m_seed) ^ told.combination) % kHeldOutShare == 0;
            if (heldOut != (split == Split::HeldOut)) continue;
            if (split == Split::Train && givesSumAway(told.text)) continue;
            return told;
        }
    }

    bool givesSumAway(const std::string& text) const {
        if (text.find(" minus ") == text.npos) return false;
        return std::any_of(m_heldOutSums.begin(), m_heldOutSums.end(),
                           [&](const Sum& sum) { return text.find(" " + sum.beginning()) != text.npos; });
    }

    void addFacts(DemoRandom& random, Split split, std::string& out) const {
        const int count = random.between(4, 8);
        for (int i = 0; i < count; ++i) {
            const DemoFact& fact = random.pick(m_world.facts);
            std::size_t way = fact.heldOut;
            while (split == Split::Train && way == fact.heldOut) way = random.below(fact.beginnings.size());
            ((((out += i ? " " : "") += fact.beginnings[way]) += ' ') += fact.value) += '.';
        }
    }

    void addSums(DemoRandom& random, Split split, std::string& out) const {
        const int count = random.between(6, 10);
        for (int i = 0; i < count; ++i) {
            const Sum& sum = random.pick(split == Split::Train ? m_trainSums : m_heldOutSums);
            ((((out += i ? " " : "") += sum.beginning()) += ' ') += sum.value()) += '.';
        }
    }

    std::uint64_t m_seed;
    DemoWorld m_world;
    std::vector<Sum> m_trainSums, m_heldOutSums;
};

}  // namespace

DemoText makeDemoText(const DemoTextOptions& options) {
    if (options.trainBytes == 0 || options.heldOutBytes == 0)
        throw Error(ErrorCode::Usage, "demo text", "needs at least one byte of training and of held-out text");
    if (options.questions < 0) throw Error(ErrorCode::Usage, "demo text", "the number of questions is negative");
    Writer writer(options);
    DemoText text;
    text.train = writer.text(options.trainBytes, Split::Train);
    text.heldOut = writer.text(options.heldOutBytes, Split::HeldOut);
    text.questions = writer.questions(options.questions);
    return text;
}

void writeDemoText(const std::filesystem::path& folder, const DemoTextOptions& options) {
    requireFreeSpace(folder, options.trainBytes + options.heldOutBytes + (1 << 20));
    const DemoText text = makeDemoText(options);
    std::string rows;
    for (const ExactTask& task : text.questions)
        rows += Json{{"id", task.id}, {"prompt", task.prompt}, {"answer", task.answer}}.dump() + "\n";
    StagedFolder staged(folder);
    writeFileAtomically(staged.path() / "train.txt", text.train);
    writeFileAtomically(staged.path() / "heldout.txt", text.heldOut);
    writeFileAtomically(staged.path() / "questions.jsonl", rows);
    staged.commit();
}

}  // namespace resect
