#include "core/data/bpe_trainer.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/data/byte_level.h"
#include "core/data/text_steps.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

namespace resect {
namespace {

constexpr const char* kSpecialTokens[] = {"<s>", "</s>", "<pad>"};
constexpr int kSmallest = 260, kLargest = 65536;

Json preTokenizerJson() {
    return {{"type", "Sequence"},
            {"pretokenizers",
             Json::array({{{"type", "Digits"}, {"individual_digits", true}},
                          {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}})}};
}

using Pair = std::pair<int, int>;

struct Word {
    std::vector<int> tokens;
    std::int64_t count = 0;
};

class Trainer {
public:
    explicit Trainer(std::string_view text) {
        for (const char* token : kSpecialTokens) m_tokens.emplace_back(token);
        for (int byte = 0; byte < 256; ++byte) {
            std::string character;
            appendAsByteCharacters(character, std::string(1, static_cast<char>(byte)));
            m_tokens.push_back(std::move(character));
        }
        countWords(text);
        for (std::size_t word = 0; word < m_words.size(); ++word) addPairs(word, 1);
        for (const auto& [pair, count] : m_counts) m_queue.insert(entry(pair, count));
    }

    void train(std::size_t vocabSize) {
        while (m_tokens.size() < vocabSize && !m_queue.empty() && -m_queue.begin()->negativeCount >= 2) mergeBest();
    }

    const std::vector<std::string>& tokens() const { return m_tokens; }
    const std::vector<Pair>& merges() const { return m_merges; }

private:
    struct Entry {
        std::int64_t negativeCount;
        std::string left, right;  // the texts decide between pairs that are equally frequent
        Pair pair;
        auto operator<=>(const Entry&) const = default;
    };

    Entry entry(const Pair& pair, std::int64_t count) const {
        return {-count, m_tokens[static_cast<std::size_t>(pair.first)], m_tokens[static_cast<std::size_t>(pair.second)], pair};
    }

    void countWords(std::string_view text) {
        const auto preTokenizer = readPreTokenizer(preTokenizerJson(), "pre_tokenizer");
        std::map<std::string, std::int64_t, std::less<>> counts;  // ordered, so that nothing depends on a hash
        for (std::size_t from = 0;
             from < text.size();) {  // in pieces, because the pre-tokenizer copies; no word crosses the start of a line
            std::size_t end = std::min(text.size(), from + (1 << 20));
            while (end < text.size() && !(text[end - 1] == '\n' && std::isalnum(static_cast<unsigned char>(text[end])))) ++end;
            Words words{std::string(text.substr(from, end - from)), {}, from == 0};
            words.ranges.push_back({0, words.text.size()});
            preTokenizer->apply(words);
            for (const ByteRange& range : words.ranges) {
                const std::string_view word = std::string_view(words.text).substr(range.begin, range.end - range.begin);
                if (const auto known = counts.find(word); known != counts.end())
                    ++known->second;
                else
                    counts.emplace(word, 1);
            }
            from = end;
        }
        for (const auto& [word, count] : counts) {
            Word symbols;
            symbols.count = count;
            const std::string bytes = fromByteCharacters(word).value_or("");
            for (const char byte : bytes) symbols.tokens.push_back(3 + static_cast<unsigned char>(byte));
            m_words.push_back(std::move(symbols));
        }
    }

    /// Adds (sign 1) or takes away (sign -1) the pairs of a word.
    void addPairs(std::size_t index, int sign, std::set<Pair>* touched = nullptr) {
        const Word& word = m_words[index];
        for (std::size_t i = 0; i + 1 < word.tokens.size(); ++i) {
            const Pair pair{word.tokens[i], word.tokens[i + 1]};
            m_counts[pair] += sign * word.count;
            if (sign > 0) m_where[pair].insert(index);
            if (touched) touched->insert(pair);
        }
    }

    void mergeBest() {
        const Pair best = m_queue.begin()->pair;
        const int merged = static_cast<int>(m_tokens.size());
        m_tokens.push_back(m_tokens[static_cast<std::size_t>(best.first)] + m_tokens[static_cast<std::size_t>(best.second)]);
        m_merges.push_back(best);
        const std::set<std::size_t> words = std::move(m_where[best]);
        std::map<Pair, std::int64_t> before;
        std::set<Pair> touched;
        for (const std::size_t index : words) {  // all pairs whose count may change, with the count they are queued under
            const auto& tokens = m_words[index].tokens;
            for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
                const Pair pair{tokens[i], tokens[i + 1]};
                before.try_emplace(pair, m_counts[pair]);
            }
        }
        for (const std::size_t index : words) {
            addPairs(index, -1, &touched);
            auto& tokens = m_words[index].tokens;
            std::vector<int> shorter;
            for (std::size_t i = 0; i < tokens.size(); ++i) {
                const bool found = i + 1 < tokens.size() && tokens[i] == best.first && tokens[i + 1] == best.second;
                shorter.push_back(found ? merged : tokens[i]);
                if (found) ++i;
            }
            tokens = std::move(shorter);
            addPairs(index, 1, &touched);
        }
        for (const Pair& pair : touched) {
            if (const auto old = before.find(pair); old != before.end()) m_queue.erase(entry(pair, old->second));
            if (const std::int64_t count = m_counts[pair]; count > 0) m_queue.insert(entry(pair, count));
        }
    }

    std::vector<std::string> m_tokens;
    std::vector<Pair> m_merges;
    std::vector<Word> m_words;
    std::map<Pair, std::int64_t> m_counts;
    std::map<Pair, std::set<std::size_t>> m_where;  ///< words that hold, or once held, a pair
    std::set<Entry> m_queue;
};

Json addedTokenJson(int id, const char* content) {
    return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
            {"rstrip", false}, {"normalized", false}, {"special", true}};
}

Json templateJson() {
    const Json bos = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}, first = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
    const Json again = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 1}}}},
               second = {{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
    return {{"type", "TemplateProcessing"},
            {"single", Json::array({bos, first})},
            {"pair", Json::array({bos, first, again, second})},
            {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {0}}, {"tokens", {"<s>"}}}}}}};
}

}  // namespace

std::string trainBpe(std::string_view text, int vocabSize) {
    if (vocabSize < kSmallest || vocabSize > kLargest) {
        throw Error(ErrorCode::Usage, "vocabulary",
                    "expected a size between " + std::to_string(kSmallest) + " and " + std::to_string(kLargest) + ", found " +
                        std::to_string(vocabSize));
    }
    if (text.empty()) throw Error(ErrorCode::BadInput, "text", "is empty");
    if (const auto bad = findInvalidUtf8(text))
        throw Error(ErrorCode::BadInput, "text", "is not UTF-8 at byte " + std::to_string(*bad));
    Trainer trainer(text);
    trainer.train(static_cast<std::size_t>(vocabSize));

    Json added = Json::array(), vocabulary = Json::object(), merges = Json::array();
    for (int id = 0; id < 3; ++id) added.push_back(addedTokenJson(id, kSpecialTokens[id]));
    auto& entries = vocabulary.get_ref<Json::object_t&>();
    for (std::size_t id = 0; id < trainer.tokens().size(); ++id)
        entries.Json::object_t::Container::emplace_back(trainer.tokens()[id], id);
    for (const auto& [left, right] : trainer.merges()) {
        merges.push_back(trainer.tokens()[static_cast<std::size_t>(left)] + " " +
                         trainer.tokens()[static_cast<std::size_t>(right)]);
    }
    const Json byteLevel = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
    const Json json = {{"version", "1.0"},
                       {"truncation", nullptr},
                       {"padding", nullptr},
                       {"added_tokens", added},
                       {"normalizer", nullptr},
                       {"pre_tokenizer", preTokenizerJson()},
                       {"post_processor", templateJson()},
                       {"decoder", byteLevel},
                       {"model",
                        {{"type", "BPE"},
                         {"dropout", nullptr},
                         {"unk_token", nullptr},
                         {"continuing_subword_prefix", nullptr},
                         {"end_of_word_suffix", nullptr},
                         {"fuse_unk", false},
                         {"byte_fallback", false},
                         {"vocab", vocabulary},
                         {"merges", merges}}}};
    return json.dump(1) + "\n";
}

void writeTokenizer(const std::filesystem::path& folder, const std::string& tokenizerJson, int maxTokens) {
    writeFileAtomically(folder / "tokenizer.json", tokenizerJson);
    const Json names = {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"pad_token", "<pad>"}};
    Json config = {{"add_bos_token", true},
                   {"add_eos_token", false},
                   {"clean_up_tokenization_spaces", false},
                   {"model_max_length", maxTokens}};
    config.update(names);
    config["tokenizer_class"] = "PreTrainedTokenizerFast";
    writeJsonFile(folder / "tokenizer_config.json", config);
    writeJsonFile(folder / "special_tokens_map.json", names);
}

}  // namespace resect
