#include "core/worker/gguf_job.h"

#include "core/base/error.h"
#include "core/data/gguf_vocabulary.h"
#include "core/export/gguf_import.h"
#include "core/worker/describe.h"

#include <algorithm>

namespace resect {

namespace fs = std::filesystem;

namespace {

GgufWay ggufWayOf(const std::string& way) {
    if (way == "uniform") return GgufWay::Uniform;
    if (way == "padded") return GgufWay::Padded;
    if (way == "zeroed") return GgufWay::Zeroed;
    if (way == "exact") return GgufWay::Exact;
    if (way == "heterogeneous") return GgufWay::Heterogeneous;
    throw Error(ErrorCode::Usage, "way " + way, "expected uniform, padded, zeroed, exact or heterogeneous");
}

std::optional<GgufType> ggufTypeOfText(const std::string& text) {
    if (text.empty()) return std::nullopt;
    const auto type = text == "float32" ? GgufType::F32 : text == "float16" ? GgufType::F16 : text == "bfloat16" ? std::optional(GgufType::BF16) : ggufTypeFromName(text);
    const bool writable = type && (plainType(*type) || *type == GgufType::Q8_0 || *type == GgufType::Q4_0);
    if (!writable) throw Error(ErrorCode::Usage, "dtype " + text, "expected f32, f16, bf16, q8_0 or q4_0");
    return type;
}

void addAdvice(protocol::ExportMessage& message, const std::vector<LoadAdvice>& rows) {
    for (const LoadAdvice& advice : rows) {
        message.opensIn.push_back({advice.program, std::string(name(advice.verdict)), advice.reasons, std::string(name(advice.evidence))});
        message.loadCommands.push_back(advice.command);
    }
}

}  // namespace

bool wantsGguf(const ExportRequest& request) {
    std::string ending = request.to.extension().string();
    std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return ending == ".gguf";
}

protocol::ExportMessage exportGgufChecked(const OpenedCheckpoint& source, const ExportRequest& request, const JobContext& job) {
    Cut cut;
    if (request.plan) {
        requireLegal(*request.plan, source);
        cut = cutOf(*request.plan, source.shape());
    }
    cut.blocks.resize(source.shape().blocks.size());
    GgufOptions options;
    options.way = ggufWayOf(request.way);
    options.type = ggufTypeOfText(request.dtype);
    options.vocabulary = readGgufVocabulary(source.checkpoint().folder(), source.shape().vocabSize, source.checkpoint().config());
    const GgufResult result = exportGguf(source.checkpoint(), source.anatomy(), cut, request.to, options, job);

    protocol::ExportMessage message;
    message.folder = fs::absolute(result.file).string();
    message.way = request.way;
    message.bytes = static_cast<std::int64_t>(result.bytes);
    message.files = {result.file.filename().string()};
    message.verified = true;
    message.tensorsCompared = result.tensors;
    message.maxTensorError = result.maxError;
    message.tokenizer = options.vocabulary.kind;
    for (const Problem& note : result.notes) message.problems.push_back(describe(note));
    addAdvice(message, ggufAdvice(result));
    return message;
}

protocol::ExportMessage importGgufFile(const fs::path& path, const fs::path& to, const std::string& dtype, const JobContext& job) {
    const GgufFile file = GgufFile::open(path);
    std::optional<DType> wanted;
    if (const auto type = ggufTypeOfText(dtype)) {
        wanted = plainType(*type);
        if (!wanted) throw Error(ErrorCode::Usage, "dtype " + dtype, "expected f32, f16 or bf16");
    }
    const GgufImport result = importGguf(file, to, wanted, job, [&](const fs::path& staged) { return writeTokenizerFiles(file, staged); });
    protocol::ExportMessage message;
    message.folder = fs::absolute(result.folder).string();
    message.way = "import";
    message.bytes = static_cast<std::int64_t>(result.bytes);
    for (const Problem& note : result.notes) message.problems.push_back(describe(note));
    addAdvice(message, loadAdvice(result.shape, fs::absolute(result.folder), LoadAdvice::Evidence::Expected));
    return message;
}

}  // namespace resect
