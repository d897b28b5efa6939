#include "core/export/carried_files.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/protocol/json.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <string_view>

namespace resect {

namespace fs = std::filesystem;

namespace {

/// Beginnings and endings of names; case matters, as on the Hub.
constexpr std::array<std::string_view, 12> kBeginnings{
    "tokenizer", "vocab",  "merges",  "special_tokens_map", "added_tokens", "generation_config", "chat_template", "LICENSE",
    "LICENCE",   "NOTICE", "COPYING", "USE_POLICY"};
constexpr std::array<std::string_view, 5> kNames{"preprocessor_config.json", "processor_config.json", "README.md",
                                                 "spiece.model", "sentencepiece.bpe.model"};
constexpr std::string_view kTemplateFolder = "additional_chat_templates";

bool isCarried(const std::string& name) {
    if (name.ends_with(".safetensors") || name.ends_with(".bin") || name.ends_with(".index.json")) return false;
    return std::any_of(kBeginnings.begin(), kBeginnings.end(),
                       [&](std::string_view beginning) { return name.starts_with(beginning); }) ||
           std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

bool isFile(const fs::directory_entry& entry) {
    std::error_code error;
    return entry.is_regular_file(error) && !error;
}

void copyFile(const fs::path& from, const fs::path& to) {
    std::error_code error;
    fs::copy_file(from, to, error);
    if (error) throw systemError(error.value(), to, "cannot copy " + from.string());
    fs::permissions(to, fs::perms::owner_read | fs::perms::owner_write | fs::perms::group_read | fs::perms::others_read, error);
}

std::int64_t largestValue(const Json& vocabulary) {
    std::int64_t largest = -1;
    for (const Json& id : vocabulary)
        if (id.is_number_integer()) largest = std::max(largest, id.get<std::int64_t>());
    return largest;
}

std::int64_t largestInTokenizerJson(const Json& tokenizer) {
    std::int64_t largest = -1;
    if (const auto model = tokenizer.find("model"); model != tokenizer.end() && model->is_object())
        if (const auto vocab = model->find("vocab"); vocab != model->end()) {
            if (vocab->is_object())
                largest = largestValue(*vocab);
            else if (vocab->is_array())
                largest = static_cast<std::int64_t>(vocab->size()) - 1;  // Unigram: position = id
        }
    if (const auto added = tokenizer.find("added_tokens"); added != tokenizer.end() && added->is_array())
        for (const Json& token : *added)
            if (token.is_object() && token.contains("id") && token["id"].is_number_integer())
                largest = std::max(largest, token["id"].get<std::int64_t>());
    return largest;
}

/// A SentencePiece model is a protobuf message whose field 1 repeats, once for each piece.
std::int64_t piecesInSentencePiece(const std::string& bytes, const std::string& subject) {
    std::size_t at = 0;
    const auto bad = [&] {
        return Error(ErrorCode::BadInput, subject,
                     "expected a SentencePiece model, found bytes that are not a protobuf message");
    };
    const auto varint = [&] {
        std::uint64_t value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            if (at >= bytes.size()) throw bad();
            const auto byte = static_cast<unsigned char>(bytes[at++]);
            value |= std::uint64_t{byte & 0x7fu} << shift;
            if (byte < 0x80) return value;
        }
        throw bad();
    };
    std::int64_t pieces = 0;
    while (at < bytes.size()) {
        const std::uint64_t key = varint();
        std::uint64_t skip = 0;
        switch (key & 7) {
        case 0:
            varint();
            break;
        case 1:
            skip = 8;
            break;
        case 2:
            skip = varint();
            break;
        case 5:
            skip = 4;
            break;
        default:
            throw bad();
        }
        if (skip > bytes.size() - at) throw bad();
        at += static_cast<std::size_t>(skip);
        if (key >> 3 == 1 && (key & 7) == 2) ++pieces;
    }
    return pieces;
}

}  // namespace

std::vector<std::string> carriedFiles(const fs::path& folder) {
    std::vector<std::string> files;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
        const std::string name = entry.path().filename().string();
        if (isFile(entry) && isCarried(name)) files.push_back(name);
        if (name == kTemplateFolder && entry.is_directory())
            for (const fs::directory_entry& inner : fs::directory_iterator(entry.path()))
                if (isFile(inner)) files.push_back(name + "/" + inner.path().filename().string());
    }
    std::sort(files.begin(), files.end());
    return files;
}

std::uint64_t carriedBytes(const fs::path& folder) {
    std::uint64_t bytes = 0;
    for (const std::string& file : carriedFiles(folder)) bytes += fs::file_size(folder / file);
    return bytes;
}

void copyCarriedFiles(const fs::path& from, const fs::path& to) {
    for (const std::string& file : carriedFiles(from)) {
        const fs::path target = to / file;
        std::error_code error;
        fs::create_directories(target.parent_path(), error);
        if (error) throw systemError(error.value(), target.parent_path(), "cannot create");
        copyFile(from / file, target);
    }
}

VocabularyFacts largestTokenId(const fs::path& folder) {
    constexpr std::uint64_t kMostBytes = 1ull << 30;
    if (const fs::path path = folder / "tokenizer.json"; fs::exists(path))
        return {largestInTokenizerJson(parseJson(readFile(path, kMostBytes), path.string())), "tokenizer.json"};
    if (const fs::path path = folder / "tokenizer.model"; fs::exists(path))
        return {piecesInSentencePiece(readFile(path, kMostBytes), path.string()) - 1, "tokenizer.model"};
    if (const fs::path path = folder / "vocab.json"; fs::exists(path))
        return {largestValue(parseJson(readFile(path, kMostBytes), path.string())), "vocab.json"};
    return {};
}

}  // namespace resect
