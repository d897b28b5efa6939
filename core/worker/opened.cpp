#include "core/worker/opened.h"

#include "core/base/error.h"
#include "core/data/image_set.h"

namespace resect {

namespace fs = std::filesystem;

OpenedCheckpoint::OpenedCheckpoint(const fs::path& path) : m_checkpoint(Checkpoint::open(path)), m_anatomy(Anatomy::of(m_checkpoint)) {}

std::string OpenedCheckpoint::name() const {
    const fs::path folder = fs::weakly_canonical(path());
    return folder.filename().empty() ? folder.string() : folder.filename().string();
}

bool OpenedCheckpoint::hasTokenizer() const {
    return fs::exists(path() / "tokenizer.json") || fs::exists(path() / "tokenizer.model");
}

const Tokenizer& OpenedCheckpoint::tokenizer() const {
    const std::lock_guard lock(m_mutex);
    if (!m_tokenizer) m_tokenizer = Tokenizer::load(path());
    return *m_tokenizer;
}

const Tokenizer* OpenedCheckpoint::findTokenizer() const { return hasTokenizer() ? &tokenizer() : nullptr; }

LoadOptions OpenedCheckpoint::loadOptions(const Compute& compute) const {
    LoadOptions options;
    options.device = parseDevice(compute.device);
    if (!compute.dtype.empty()) {
        options.dtype = parseDtype(compute.dtype);
    } else if (options.device.is_cuda() && !m_checkpoint.tensors().empty()) {
        const DType stored = m_checkpoint.tensors().front().dtype;
        options.dtype = stored == DType::BF16 ? torch::kBFloat16 : stored == DType::F16 ? torch::kFloat16 : torch::kFloat32;
    }
    return options;
}

std::shared_ptr<LanguageModel> OpenedCheckpoint::model(const Compute& compute, const JobContext& job) {
    const LoadOptions options = loadOptions(compute);
    const bool same = m_model && options.device == m_modelOptions.device && options.dtype == m_modelOptions.dtype;
    if (!same) {
        m_model.reset();  // two at a time would need twice the memory
        m_model = LanguageModel::load(m_checkpoint, options, job);
        m_modelOptions = options;
    }
    m_model->setCut({});
    return m_model;
}

Dataset OpenedCheckpoint::data(const protocol::DataMessage& data, const JobContext& job) const {
    constexpr std::int64_t kRows = 64, kImages = 1024;
    DataOptions options;
    if (data.layout == "packed") {
        options.layout = RowLayout::Packed;
    } else if (data.layout == "padded") {
        options.layout = RowLayout::Padded;
    } else if (data.layout == "auto") {
        options.layout = RowLayout::Auto;
    } else if (data.layout != "chunks") {
        throw Error(ErrorCode::Usage, "layout " + data.layout, "expected auto, chunks, packed or padded");
    }
    const ModelShape& shape = this->shape();
    if (!data.imageAspect.empty() && data.imageAspect != "pad") throw Error(ErrorCode::Usage, "image aspect " + data.imageAspect, "expected pad");
    options.padToSquare = data.imageAspect == "pad";
    options.maxRows = data.maxRows >= 0 ? data.maxRows : shape.image ? kImages : kRows;
    options.chatTemplateFolder = path();
    if (shape.image) return loadModelData(data.file, path(), shape, nullptr, options, job);
    constexpr std::int64_t kRowLength = 256;
    const std::int64_t rowLength = data.rowLength != 0 ? data.rowLength : shape.maxPositions > 0 ? std::min(kRowLength, shape.maxPositions) : kRowLength;
    if (rowLength < 2) throw Error(ErrorCode::Usage, "row length", "expected at least 2 tokens, found " + std::to_string(rowLength));
    if (shape.maxPositions > 0 && rowLength > shape.maxPositions)
        throw Error(ErrorCode::Usage, "row length", "the model's context is " + std::to_string(shape.maxPositions) + " tokens, asked for " + std::to_string(rowLength));
    options.rowLength = static_cast<int>(rowLength);
    return loadModelData(data.file, path(), shape, findTokenizer(), options, job);
}

EditPlan readPlan(const fs::path& file) { return EditPlan::fromJson(readJsonFile(file), file.string()); }

void requireLegal(const EditPlan& plan, const OpenedCheckpoint& opened) {
    const std::string_view fingerprint = plan.fingerprint.empty() ? std::string_view{} : std::string_view(opened.checkpoint().fingerprint());
    for (const PlanProblem& problem : checkPlan(plan, opened.shape(), fingerprint))
        if (problem.problem.severity == Severity::Error)
            throw Error(ErrorCode::BadInput, problem.problem.subject, problem.problem.message + (problem.problem.advice.empty() ? "" : " " + problem.problem.advice));
}

}  // namespace resect
