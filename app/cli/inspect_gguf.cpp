#include "app/cli/inspect_gguf.h"

#include "app/cli/common.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/export/gguf_import.h"

#include <iostream>
#include <map>

namespace resect::cli {

namespace {

struct Totals {
    std::int64_t tensors = 0, elements = 0;
    std::uint64_t bytes = 0;
};

std::map<std::string, Totals> totalsByType(const GgufFile& file) {
    std::map<std::string, Totals> totals;
    for (const GgufTensor& tensor : file.tensors()) {
        Totals& row = totals[std::string(info(tensor.type).name)];
        ++row.tensors;
        row.elements += tensor.numel();
        row.bytes += tensor.bytes;
    }
    return totals;
}

Totals sum(const std::map<std::string, Totals>& rows) {
    Totals all;
    for (const auto& [type, row] : rows) all = {all.tensors + row.tensors, all.elements + row.elements, all.bytes + row.bytes};
    return all;
}

std::string tokenizerKind(const GgufFile& file) {
    const std::string model = file.text("tokenizer.ggml.model", "none");
    if (model == "llama") return "SentencePiece";
    if (model == "gpt2") return "byte-level BPE (" + file.text("tokenizer.ggml.pre", "default") + ")";
    return model == "no_vocab" ? "none" : model;
}

std::size_t numTokens(const GgufFile& file) {
    const GgufValue* tokens = file.find("tokenizer.ggml.tokens");
    return tokens && tokens->type() == GgufValueType::Array ? tokens->array().size() : 0;
}

/// Empty when Resect can import it, else why not.
std::string obstacle(const GgufFile& file) {
    try {
        const GgufModel model = readGgufModel(file);
        huggingFaceTensors(file, model, std::nullopt);
        return {};
    } catch (const Error& error) {
        return error.what();
    }
}

Json valueJson(const GgufValue& value) {
    if (value.type() == GgufValueType::String) return value.text();
    if (value.type() == GgufValueType::Bool) return value.bits() != 0;
    if (value.type() == GgufValueType::U64) return value.bits();
    if (value.type() == GgufValueType::F32 || value.type() == GgufValueType::F64) return value.number();
    if (value.type() != GgufValueType::Array) return static_cast<std::int64_t>(value.number());
    constexpr std::size_t kMost = 1024;  // vocabularies are summed up
    const GgufArray& array = value.array();
    if (array.type == GgufValueType::Array || array.size() > kMost) return {{"type", name(array.type)}, {"length", array.size()}};
    Json list = Json::array();
    for (std::size_t i = 0; i < array.size(); ++i) {
        if (array.type == GgufValueType::String) list.push_back(array.strings[i]);
        else if (array.type == GgufValueType::F32 || array.type == GgufValueType::F64) list.push_back(array.number(i));
        else list.push_back(static_cast<std::int64_t>(array.number(i)));
    }
    return list;
}

void printTensors(const GgufFile& file) {
    std::vector<std::vector<std::string>> rows{{"tensor", "type", "shape", "bytes", "offset"}};
    for (const GgufTensor& tensor : file.tensors())
        rows.push_back({tensor.name, std::string(info(tensor.type).name), shapeText(tensor.shape), formatThousands(static_cast<std::int64_t>(tensor.bytes)),
                        formatThousands(static_cast<std::int64_t>(tensor.offset))});
    std::cout << "\n";
    printTable(rows);
}

void printText(const GgufFile& file, bool listTensors) {
    const auto totals = totalsByType(file);
    const Totals all = sum(totals);
    std::cout << file.path().filename().string() << ": GGUF version " << file.version() << ", architecture " << file.text("general.architecture", "not named") << ", "
              << formatCount(static_cast<double>(all.elements)) << " parameters in " << all.tensors << " tensors, " << formatBytes(file.fileSize()) << "\n";
    std::cout << "tokenizer: " << tokenizerKind(file) << ", " << formatThousands(static_cast<std::int64_t>(numTokens(file))) << " tokens\n\n";
    std::vector<std::vector<std::string>> rows{{"type", "tensors", "elements", "bytes"}};
    for (const auto& [type, row] : totals)
        rows.push_back({type, toText(row.tensors), formatThousands(row.elements), formatThousands(static_cast<std::int64_t>(row.bytes))});
    printTable(rows);
    rows = {{"key", "type", "value"}};
    for (const GgufEntry& entry : file.metadata()) rows.push_back({entry.key, std::string(name(entry.value.type())), entry.value.shown()});
    std::cout << "\n";
    printTable(rows);
    if (listTensors) printTensors(file);
    const std::string why = obstacle(file);
    std::cout << "\n" << (why.empty() ? "resect-cli import makes a Hugging Face checkpoint of it" : "cannot be imported: " + why) << "\n";
}

void printGgufJson(const GgufFile& file, bool listTensors) {
    const auto totals = totalsByType(file);
    const Totals all = sum(totals);
    Json json{{"file", file.path().string()}, {"format", "GGUF"}, {"version", file.version()}, {"bytes", file.fileSize()}, {"alignment", file.alignment()},
              {"architecture", file.text("general.architecture", "")}, {"parameters", all.elements}, {"numTensors", all.tensors}, {"tokenizer", tokenizerKind(file)},
              {"numTokens", numTokens(file)}, {"types", Json::object()}, {"metadata", Json::object()}};
    for (const auto& [type, row] : totals) json["types"][type] = {{"tensors", row.tensors}, {"elements", row.elements}, {"bytes", row.bytes}};
    for (const GgufEntry& entry : file.metadata()) json["metadata"][entry.key] = valueJson(entry.value);
    const std::string why = obstacle(file);
    json["importable"] = why.empty();
    if (!why.empty()) json["obstacle"] = why;
    if (listTensors) {
        json["tensors"] = Json::array();
        for (const GgufTensor& tensor : file.tensors())
            json["tensors"].push_back({{"name", tensor.name}, {"type", info(tensor.type).name}, {"shape", tensor.shape}, {"bytes", tensor.bytes}, {"offset", tensor.offset}});
    }
    printJson(json);
}

}  // namespace

void inspectGguf(const std::filesystem::path& path, GgufOutput output, bool listTensors) {
    const GgufFile file = GgufFile::open(path);
    output == GgufOutput::Json ? printGgufJson(file, listTensors) : printText(file, listTensors);
}

}  // namespace resect::cli
