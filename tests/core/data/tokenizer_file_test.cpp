// Small handcrafted tokenizer.json files: what each part does, and what is refused.
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/data/tokenizer.h"
#include "core/protocol/json.h"
#include "tests/support/test_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

namespace resect {
namespace {

using test::TempFolder;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Ids = std::vector<std::int64_t>;

/// Characters a-d, "ab", "abc", "cd" and a space marker: a 0, b 1, c 2, d 3, ▁ 4, ab 5, abc 6, cd 7, <unk> 8.
Json smallTokenizer() {
    return Json::parse(R"({
      "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
      "post_processor": null, "decoder": null,
      "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                "byte_fallback": false, "vocab": {"a": 0, "b": 1, "c": 2, "d": 3, "▁": 4, "ab": 5, "abc": 6, "cd": 7, "<unk>": 8},
                "merges": ["a b", "ab c", "c d"]}})");
}

Json addedToken(int id, const std::string& content) {
    return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
            {"rstrip", false}, {"normalized", false}, {"special", true}};
}

class TokenizerJson : public testing::Test {
protected:
    std::unique_ptr<Tokenizer> load(const Json& json) { return loadText(json.dump()); }
    std::unique_ptr<Tokenizer> loadText(const std::string& text) {
        writeFileAtomically(m_folder / "tokenizer.json", text);
        return Tokenizer::load(m_folder.path());
    }
    Ids ids(const Json& json, const std::string& text) { return load(json)->encode(text); }
    Error errorOf(const Json& json) { return errorOfText(json.dump()); }
    Error errorOfText(const std::string& text) {
        try {
            loadText(text);
        } catch (const Error& error) {
            return error;
        }
        return Error(ErrorCode::Internal, "", "nothing was thrown");
    }
    TempFolder m_folder;
    Json m_json = smallTokenizer();
};

TEST_F(TokenizerJson, MergesTheLowestRankFirstAndTheLeftmostOfEquals) {
    EXPECT_THAT(ids(m_json, "abcd"), ElementsAre(6, 3));
    EXPECT_THAT(ids(m_json, "bcd"), ElementsAre(1, 7));
    EXPECT_THAT(ids(m_json, "ababcab"), ElementsAre(5, 6, 5));
    m_json["model"]["merges"] = Json::parse(R"([["c", "d"], ["a", "b"], ["ab", "c"]])");
    EXPECT_THAT(ids(m_json, "abcd"), ElementsAre(5, 7));
}

TEST_F(TokenizerJson, EqualsMergingByHandOnRandomWords) {
    const auto tokenizer = load(m_json);
    std::uint64_t state = 7;
    for (int round = 0; round < 200; ++round) {
        std::string word;
        std::vector<std::string> parts;
        for (std::uint64_t i = 0; i < 1 + state % 13; ++i) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            word += static_cast<char>('a' + (state >> 33) % 4);
            parts.emplace_back(1, word.back());
        }
        for (bool merged = true; merged;) {
            merged = false;
            for (const auto& [left, right] : {std::pair{"a", "b"}, std::pair{"ab", "c"}, std::pair{"c", "d"}}) {
                for (std::size_t i = 0; i + 1 < parts.size() && !merged; ++i) {
                    if (parts[i] != left || parts[i + 1] != right) continue;
                    parts[i] += parts[i + 1];
                    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(i) + 1);
                    merged = true;
                }
                if (merged) break;
            }
        }
        Ids expected;
        for (const std::string& part : parts) expected.push_back(*tokenizer->idOf(part));
        EXPECT_EQ(tokenizer->encode(word), expected) << word;
    }
}

TEST_F(TokenizerJson, UnknownCharactersFuseFallBackToBytesOrVanish) {
    EXPECT_THAT(ids(m_json, "axyb"), ElementsAre(0, 8, 8, 1));
    m_json["model"]["fuse_unk"] = true;
    EXPECT_THAT(ids(m_json, "axyb"), ElementsAre(0, 8, 1));
    m_json["model"]["byte_fallback"] = true;
    m_json["model"]["vocab"]["<0xC3>"] = 9;
    m_json["model"]["vocab"]["<0xA9>"] = 10;
    EXPECT_THAT(ids(m_json, "a\u00e9b\u00e8"), ElementsAre(0, 9, 10, 1, 8));  // è needs a byte that has no token
    m_json = smallTokenizer();
    m_json["model"]["unk_token"] = nullptr;
    EXPECT_THAT(ids(m_json, "axyb"), ElementsAre(5));
}

TEST_F(TokenizerJson, IgnoreMergesTakesWholeWords) {
    m_json["model"]["vocab"]["bcd"] = 9;
    EXPECT_THAT(ids(m_json, "bcd"), ElementsAre(1, 7));
    m_json["model"]["ignore_merges"] = true;
    EXPECT_THAT(ids(m_json, "bcd"), ElementsAre(9));
}

TEST_F(TokenizerJson, PrefixAndSuffixMarkThePlaceInTheWord) {
    m_json["model"]["vocab"] = Json::parse(R"({"a": 0, "b": 1, "b</w>": 2, "ab</w>": 3, "a</w>": 4})");
    m_json["model"]["merges"] = {"a b</w>"};
    m_json["model"]["unk_token"] = nullptr;
    m_json["model"]["end_of_word_suffix"] = "</w>";
    m_json["pre_tokenizer"] = {{"type", "WhitespaceSplit"}};
    m_json["decoder"] = {{"type", "BPEDecoder"}, {"suffix", "</w>"}};
    const auto clip = load(m_json);
    EXPECT_THAT(clip->encode("ab ba"), ElementsAre(3, 1, 4));
    EXPECT_EQ(clip->decode(Ids{3, 1, 4}), "ab ba");
    m_json["model"]["end_of_word_suffix"] = nullptr;
    m_json["model"]["continuing_subword_prefix"] = "##";
    m_json["model"]["vocab"] = Json::parse(R"({"a": 0, "##b": 1, "ab": 2, "##a": 3})");
    m_json["model"]["merges"] = {"a ##b"};
    EXPECT_THAT(ids(m_json, "aba"), ElementsAre(2, 3));
}

TEST_F(TokenizerJson, AddedTokensAreFoundFirstAndTakeSpaceAlong) {
    m_json["added_tokens"] = {addedToken(9, "<x>"), addedToken(10, "<x><x>"), addedToken(11, "bc")};
    EXPECT_THAT(ids(m_json, "a<x>b<x><x>abc"), ElementsAre(0, 9, 1, 10, 0, 11));
    m_json["added_tokens"][0]["lstrip"] = true;
    m_json["added_tokens"][0]["rstrip"] = true;
    m_json["model"]["vocab"][" "] = 12;
    EXPECT_THAT(ids(m_json, "a  <x> \u00a0b <x>"), ElementsAre(0, 9, 1, 9));
    m_json["added_tokens"][2]["single_word"] = true;
    EXPECT_THAT(ids(m_json, "abc bc"), ElementsAre(6, 12, 11));
    EXPECT_EQ(load(m_json)->vocabSize(), 13);
}

TEST_F(TokenizerJson, NormalizedAddedTokensAreSearchedAfterNormalising) {
    m_json["normalizer"] = {{"type", "Lowercase"}};
    m_json["added_tokens"] = {addedToken(9, "BD")};
    EXPECT_THAT(ids(m_json, "ABDbd"), ElementsAre(0, 9, 1, 3));
    m_json["added_tokens"][0]["normalized"] = true;
    EXPECT_THAT(ids(m_json, "ABDbd"), ElementsAre(0, 9, 9));
}

TEST_F(TokenizerJson, MetaspacePutsMarkersByItsScheme) {
    m_json["added_tokens"] = {addedToken(9, "<x>")};
    m_json["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "always"}, {"split", true}};
    m_json["decoder"] = m_json["pre_tokenizer"];
    const auto always = load(m_json);
    EXPECT_THAT(always->encode("a b<x>c"), ElementsAre(4, 0, 4, 1, 9, 4, 2));
    EXPECT_EQ(always->decode(Ids{4, 0, 4, 1}), "a b");
    m_json["pre_tokenizer"]["prepend_scheme"] = "first";
    EXPECT_THAT(ids(m_json, "a b<x>c"), ElementsAre(4, 0, 4, 1, 9, 2));
    EXPECT_THAT(ids(m_json, "<x>c"), ElementsAre(9, 2));
    EXPECT_THAT(ids(m_json, " a"), ElementsAre(4, 0));
    m_json["pre_tokenizer"]["prepend_scheme"] = "never";
    EXPECT_THAT(ids(m_json, "a b"), ElementsAre(0, 4, 1));
}

TEST_F(TokenizerJson, SplitBehaviorsKeepMergeOrRemoveMatches) {
    // A merge across a cut is impossible, so that the tokens show where the cuts are; the added vocabulary makes every cut
    // visible.
    m_json["model"]["vocab"] = Json::parse(R"({"a": 0, "-": 1, "a-": 2, "-a": 3, "--": 4, "<unk>": 5})");
    m_json["model"]["merges"] = {"a -", "- a", "- -"};
    const auto with = [&](const char* behavior) {
        m_json["pre_tokenizer"] = {
            {"type", "Split"}, {"pattern", {{"String", "-"}}}, {"behavior", behavior}, {"invert", false}};
        return ids(m_json, "a--a");
    };
    EXPECT_THAT(with("Removed"), ElementsAre(0, 0));
    EXPECT_THAT(with("Isolated"), ElementsAre(0, 1, 1, 0));
    EXPECT_THAT(with("MergedWithPrevious"), ElementsAre(2, 1, 0));
    EXPECT_THAT(with("MergedWithNext"), ElementsAre(0, 1, 3));
    EXPECT_THAT(with("Contiguous"), ElementsAre(0, 4, 0));
    m_json["pre_tokenizer"]["invert"] = true;
    m_json["pre_tokenizer"]["behavior"] = "Removed";
    EXPECT_THAT(ids(m_json, "a--a"), ElementsAre(1, 1));
}

TEST_F(TokenizerJson, WhiteSpaceInExpressionsIsUnicode) {
    m_json["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "\\s+"}}}, {"behavior", "Removed"}, {"invert", false}};
    EXPECT_THAT(ids(m_json, "a\x0B"
                            "b\u0085c\u3000d"),
                ElementsAre(0, 1, 2, 3));
    m_json["pre_tokenizer"]["pattern"]["Regex"] = "[^\\S]";
    EXPECT_THAT(ids(m_json, "a\u0085"
                            "b"),
                ElementsAre(0, 1));
}

TEST_F(TokenizerJson, ExpressionsOfOtherFamiliesAreUnderstood) {
    const char* expressions[] = {
        // DeepSeek, BLOOM, o200k
        R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
        R"( ?[^(\s|[.,!?…。，、।۔،])]+)",
        R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3})"};
    for (const char* expression : expressions) {
        m_json["pre_tokenizer"] = {
            {"type", "Split"}, {"pattern", {{"Regex", expression}}}, {"behavior", "Isolated"}, {"invert", false}};
        m_json["model"]["vocab"]["{"] = 9;
        EXPECT_THAT(ids(m_json, "{ab"), ElementsAre(9, 5)) << expression;
        EXPECT_THAT(ids(m_json, "abcd"), ElementsAre(6, 3)) << expression;
    }
}

TEST_F(TokenizerJson, NormalizersChangeTheText) {
    m_json["normalizer"] = Json::parse(
        R"({"type": "Sequence", "normalizers": [{"type": "Strip", "strip_left": true, "strip_right": true}, {"type": "NFD"},
        {"type": "Replace", "pattern": {"Regex": "\\p{M}"}, "content": ""}, {"type": "Prepend", "prepend": "▁"}, {"type": "Lowercase"}]})");
    EXPECT_THAT(ids(m_json, "  \u00c4b "), ElementsAre(4, 5));
    EXPECT_THAT(ids(m_json, ""), IsEmpty());
}

TEST_F(TokenizerJson, TemplatesPutTokensAround) {
    m_json["added_tokens"] = {addedToken(9, "<s>"), addedToken(10, "</s>")};
    m_json["post_processor"] = Json::parse(
        R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "</s>", "type_id": 0}}], "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [9], "tokens": ["<s>"]}, "</s>": {"id": "</s>", "ids": [10], "tokens": ["</s>"]}}})");
    const auto tokenizer = load(m_json);
    EXPECT_THAT(tokenizer->encode("a"), ElementsAre(9, 0, 10));
    EXPECT_THAT(tokenizer->encode("a", SpecialTokens::Omit), ElementsAre(0));
    EXPECT_THAT(tokenizer->encode(""), ElementsAre(9, 10));
    EXPECT_EQ(tokenizer->bosId(), 9);
    EXPECT_EQ(tokenizer->eosId(), 10);
    writeFileAtomically(m_folder / "tokenizer_config.json", R"({"bos_token": null, "eos_token": {"content": "<s>"}})");
    EXPECT_EQ(load(m_json)->bosId(), std::nullopt);
    EXPECT_EQ(load(m_json)->eosId(), 9);
}

TEST_F(TokenizerJson, InvalidUtf8IsEncodedAsReplacementCharacters) {
    m_json["model"]["vocab"]["\uFFFD"] = 9;
    EXPECT_THAT(ids(m_json, "a\xFF\xE4\xB8"
                            "b\xED\xA0\x80"),
                ElementsAre(0, 9, 9, 1, 9, 9, 9));
}

TEST_F(TokenizerJson, DecodingRefusesIdsPastTheVocabularyAndSkipsHoles) {
    m_json["added_tokens"] = {addedToken(12, "<x>")};
    const auto tokenizer = load(m_json);
    EXPECT_EQ(tokenizer->vocabSize(), 13);
    EXPECT_EQ(tokenizer->decode(Ids{0, 10, 12}), "a <x>");  // without a decoder tokens are joined by spaces
    EXPECT_EQ(tokenizer->piece(10), "");
    EXPECT_THROW(tokenizer->decode(Ids{13}), Error);
    EXPECT_THROW(tokenizer->decode(Ids{-1}), Error);
    EXPECT_THROW(tokenizer->piece(13), Error);
}

TEST_F(TokenizerJson, BrokenByteRunsDecodeToReplacementCharacters) {
    m_json["model"]["vocab"]["<0xC3>"] = 9;
    m_json["model"]["vocab"]["<0xA9>"] = 10;
    m_json["decoder"] = Json::parse(R"({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]})");
    const auto tokenizer = load(m_json);
    EXPECT_EQ(tokenizer->decode(Ids{0, 9, 10, 1}), "a\u00e9b");
    EXPECT_EQ(tokenizer->decode(Ids{0, 9, 1}), "a\uFFFDb");
    EXPECT_EQ(tokenizer->decode(Ids{9, 9, 10}), "\uFFFD\uFFFD\uFFFD");
}

TEST_F(TokenizerJson, AMillionCharactersWithoutSpaceTakeSeconds) {
    const auto tokenizer = load(m_json);
    std::string word;
    for (std::uint64_t i = 0; i < 1000000; ++i) word += "abcd"[i * i / 7 % 4];
    EXPECT_GT(tokenizer->encode(word).size(), 300000u);
}

TEST_F(TokenizerJson, EncodesFromSeveralThreads) {
    m_json["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "always"}, {"split", true}};
    const auto tokenizer = load(m_json);
    std::string text;
    for (int i = 0; i < 2000; ++i) text += std::string("abcdabdc").substr(static_cast<std::size_t>(i % 5), 3) + " ";
    const Ids expected = tokenizer->encode(text);
    std::vector<std::thread> threads;
    std::vector<Ids> results(4);
    for (Ids& result : results) threads.emplace_back([&] { result = tokenizer->encode(text); });
    for (std::thread& thread : threads) thread.join();
    for (const Ids& result : results) EXPECT_EQ(result, expected);
}

struct BadFile {
    const char* name;
    const char* pointer;  ///< what is replaced
    const char* value;    ///< by what, null = removed
    ErrorCode code;
    const char* says;  ///< in subject or message
};
void PrintTo(const BadFile& value, std::ostream* out) { *out << value.name; }

class BadTokenizerJson : public TokenizerJson, public testing::WithParamInterface<BadFile> {};

TEST_P(BadTokenizerJson, IsRefusedNamingThePart) {
    const BadFile& bad = GetParam();
    const Json::json_pointer pointer(bad.pointer);
    if (bad.value)
        m_json[pointer] = Json::parse(bad.value);
    else
        m_json[pointer.parent_pointer()].erase(pointer.back());
    const Error error = errorOf(m_json);
    EXPECT_EQ(error.code(), bad.code) << error.what();
    EXPECT_THAT(std::string(error.what()), HasSubstr(bad.says));
    EXPECT_THAT(error.subject(), HasSubstr("tokenizer.json"));
}

constexpr ErrorCode kBad = ErrorCode::BadInput, kUnsupported = ErrorCode::Unsupported;
INSTANTIATE_TEST_SUITE_P(
    Each, BadTokenizerJson,
    testing::Values(
        BadFile{"ModelMissing", "/model", nullptr, kBad, "model"}, BadFile{"ModelIsNoObject", "/model", "[]", kBad, "model"},
        BadFile{"ModelTypeUnknown", "/model/type", "\"Unigram\"", kUnsupported, "'Unigram'"},
        BadFile{"VocabMissing", "/model/vocab", nullptr, kBad, "model.vocab"},
        BadFile{"VocabIsAnArray", "/model/vocab", "[[\"a\", 0.5]]", kUnsupported, "vocab"},
        BadFile{"IdIsAText", "/model/vocab/a", "\"0\"", kBad, "'a'"},
        BadFile{"IdIsNegative", "/model/vocab/a", "-1", kBad, "'a'"},
        BadFile{"IdIsHuge", "/model/vocab/a", "99999999999", kBad, "'a'"},
        BadFile{"IdIsGivenTwice", "/model/vocab/a", "1", kBad, "both"},
        BadFile{"MergeOfUnknownTokens", "/model/merges/1", "\"ab x\"", kBad, "merges[1]"},
        BadFile{"MergeIntoUnknownToken", "/model/merges/2", "\"d a\"", kBad, "'da'"},
        BadFile{"MergeOfThree", "/model/merges/1", "\"a b c\"", kBad, "merges[1]"},
        BadFile{"MergeArrayOfThree", "/model/merges/0", "[\"a\", \"b\", \"c\"]", kBad, "merges[0]"},
        BadFile{"MergeIsANumber", "/model/merges/2", "5", kBad, "merges[2]"},
        BadFile{"UnknownTokenMissing", "/model/unk_token", "\"<nix>\"", kBad, "<nix>"},
        BadFile{"Dropout", "/model/dropout", "0.1", kUnsupported, "model.dropout"},
        BadFile{"FieldOfTheFuture", "/model/magic", "true", kUnsupported, "model.magic"},
        BadFile{"TopFieldOfTheFuture", "/magic", "{\"a\": 1}", kUnsupported, "magic"},
        BadFile{"WrongFlagType", "/model/fuse_unk", "\"yes\"", kBad, "fuse_unk"},
        BadFile{"NormalizerUnknown", "/normalizer", "{\"type\": \"Precompiled\"}", kUnsupported, "'Precompiled'"},
        BadFile{"NormalizerInSequenceUnknown", "/normalizer",
                "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, {\"type\": \"Foo\"}]}", kUnsupported,
                "normalizers[1]"},
        BadFile{"NormalizerWithoutType", "/normalizer", "{}", kBad, "normalizer"},
        BadFile{"PreTokenizerUnknown", "/pre_tokenizer", "{\"type\": \"BertPreTokenizer\"}", kUnsupported, "pre_tokenizer"},
        BadFile{"ExpressionBroken", "/pre_tokenizer",
                "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(a\"}, \"behavior\": \"Isolated\"}", kUnsupported,
                "pre_tokenizer.pattern"},
        BadFile{"BehaviorUnknown", "/pre_tokenizer",
                "{\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": \"Odd\"}", kUnsupported, "behavior"},
        BadFile{"PatternMissing", "/pre_tokenizer", "{\"type\": \"Split\", \"behavior\": \"Isolated\"}", kBad, "pattern"},
        BadFile{"PrependSchemeUnknown", "/pre_tokenizer", "{\"type\": \"Metaspace\", \"prepend_scheme\": \"odd\"}",
                kUnsupported, "prepend_scheme"},
        BadFile{"DecoderUnknown", "/decoder", "{\"type\": \"WordPiece\"}", kUnsupported, "decoder"},
        BadFile{"PostProcessorUnknown", "/post_processor", "{\"type\": \"Foo\"}", kUnsupported, "post_processor"},
        BadFile{"TemplateNamesUnknownToken", "/post_processor",
                "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\"}}, {\"Sequence\": {}}], "
                "\"special_tokens\": {}}",
                kBad, "<s>"},
        BadFile{"TemplateWithIdPastTheVocabulary", "/post_processor",
                "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"s\"}}, {\"Sequence\": {}}], "
                "\"special_tokens\": {\"s\": {\"ids\": [99]}}}",
                kBad, "99"},
        BadFile{"AddedTokensAreNoArray", "/added_tokens", "{\"a\": 1}", kBad, "added_tokens"},
        BadFile{"AddedTokenWithoutContent", "/added_tokens", "[{\"id\": 9}]", kBad, "content"},
        BadFile{"AddedTokenWithBadId", "/added_tokens", "[{\"id\": -4, \"content\": \"x\"}]", kBad, "added_tokens[0]"}),
    [](const auto& info) { return info.param.name; });

TEST_F(TokenizerJson, BrokenFilesAreRefusedWithThePlace) {
    const std::string good = m_json.dump();
    for (const std::size_t cut : {std::size_t{1}, good.size() / 3, good.size() / 2, good.size() - 1}) {
        const Error error = errorOfText(good.substr(0, cut));
        EXPECT_EQ(error.code(), ErrorCode::BadInput);
        EXPECT_THAT(error.message(), HasSubstr("not JSON"));
    }
    EXPECT_EQ(errorOfText("").code(), ErrorCode::BadInput);
    EXPECT_EQ(errorOfText("[]").code(), ErrorCode::BadInput);
    EXPECT_EQ(errorOfText("null").code(), ErrorCode::BadInput);
    EXPECT_THAT(errorOfText("{\"version\": \"1\", \"version\": \"1\"}").message(), HasSubstr("twice"));
    EXPECT_THAT(errorOfText("{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"a\": 1}, \"merges\": []}}").message(),
                HasSubstr("twice"));
    EXPECT_EQ(errorOfText("{\"version\": \"\xFF\"}").code(), ErrorCode::BadInput);
    EXPECT_THAT(errorOfText(std::string(300, '[')).message(), HasSubstr("nested"));
    EXPECT_THAT(errorOfText("{\"model\": {\"vocab\": {\"a\": {}}}}").message(), HasSubstr("'a'"));
}

TEST(TokenizerFolder, WithoutTokenizerIsNotFound) {
    const TempFolder folder;
    try {
        Tokenizer::load(folder.path());
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::NotFound);
    }
    writeFileAtomically(folder / "tokenizer.model", "no protobuf at all");
    EXPECT_THROW(Tokenizer::load(folder.path()), Error);
}

TEST(SentencePieceFolder, FollowsTokenizerConfig) {
    RESECT_NEED_SHARED_DATA("models/stories260K-hf/tokenizer.model");
    const TempFolder folder;
    std::filesystem::copy_file(test::sharedData("models/stories260K-hf/tokenizer.model"), folder / "tokenizer.model");
    EXPECT_THAT(Tokenizer::load(folder.path())->encode(""), ElementsAre(1));
    writeFileAtomically(folder / "tokenizer_config.json",
                        R"({"add_bos_token": false, "add_eos_token": true, "bos_token": "<s>", "eos_token": "</s>",
        "added_tokens_decoder": {"512": {"content": "<pad>", "special": true}}})");
    const auto tokenizer = Tokenizer::load(folder.path());
    EXPECT_THAT(tokenizer->encode("<pad>"), ElementsAre(512, 2));
    EXPECT_EQ(tokenizer->vocabSize(), 513);
    EXPECT_EQ(tokenizer->idOf("<pad>"), 512);
    EXPECT_EQ(tokenizer->decode(Ids{512}), "<pad>");
}

}  // namespace
}  // namespace resect
