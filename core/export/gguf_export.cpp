#include "core/export/gguf_export.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "core/checkpoint/gguf_file.h"
#include "core/checkpoint/gguf_writer.h"
#include "core/export/config_rewrite.h"
#include "core/export/gguf_check.h"
#include "core/export/gguf_choice.h"
#include "core/export/gguf_layout.h"
#include "core/export/gguf_metadata.h"

#include <algorithm>
#include <utility>

namespace resect {

namespace fs = std::filesystem;

namespace {

/// Everything that is decided before the first byte is written.
struct Planned {
    const GgufArchitecture* architecture = nullptr;
    ModelShape shape;
    std::vector<GgufPlannedTensor> tensors;
    GgufMetadata metadata;
    std::vector<Problem> notes;
};

class Planner {
public:
    Planner(const Checkpoint& source, const Anatomy& anatomy, const Cut& cut, const GgufOptions& options)
        : m_source(source), m_anatomy(anatomy), m_options(options), m_cut(withoutEmptyBlocks(anatomy.shape(), cut)) {
        if (options.way == GgufWay::Zeroed) m_cut = cut;
    }

    Planned run() {
        const SlicePlan plan = choose();
        checkObstacles();
        noteBiases();
        const SliceWay way = m_options.way == GgufWay::Zeroed ? SliceWay::Zeroed : SliceWay::Padded;
        const ConfigRewrite rewrite = rewriteConfig(m_source.config(), m_anatomy.shape(), m_cut, m_planned.shape, way, {});
        m_planned.notes.insert(m_planned.notes.end(), rewrite.notes.begin(), rewrite.notes.end());
        m_planned.tensors = ggufLayout(*m_planned.architecture, plan, m_options.type, m_planned.notes);
        m_planned.metadata = ggufMetadata(*m_planned.architecture, m_planned.shape, rewrite.config, general(), m_planned.notes);
        const auto& vocabulary = m_options.vocabulary;
        m_planned.metadata.insert(m_planned.metadata.end(), vocabulary.entries.begin(), vocabulary.entries.end());
        constexpr std::uint32_t kQuantisation = 2;  // of the block formats; unchanged since 2023
        m_planned.metadata.push_back({"general.quantization_version", GgufValue::of(kQuantisation)});
        m_planned.notes.insert(m_planned.notes.end(), vocabulary.notes.begin(), vocabulary.notes.end());
        return std::move(m_planned);
    }

private:
    SlicePlan choose() {
        const ModelShape& source = m_anatomy.shape();
        const ModelShape after = shapeAfter(source, m_cut);
        GgufWay way = m_options.way;
        if (way == GgufWay::Exact || way == GgufWay::Heterogeneous) way = isUniform(after) ? GgufWay::Uniform : GgufWay::Heterogeneous;
        m_planned.architecture = findGgufArchitecture(source.modelType);
        if (!m_planned.architecture)
            throw Error(ErrorCode::Unsupported, "model_type \"" + source.modelType + "\"", "llama.cpp's architecture for it is not known here. Export a Hugging Face folder (--to without .gguf)");
        if (!m_planned.architecture->checked)
            throw Error(ErrorCode::Unsupported, "model_type \"" + source.modelType + "\"", "its GGUF has not been compared with llama.cpp yet. Export a Hugging Face folder (--to without .gguf)");
        if (way == GgufWay::Heterogeneous) {
            m_planned.architecture = findPerBlockArchitecture(source);
            if (!m_planned.architecture)
                throw Error(ErrorCode::Unsupported, "way heterogeneous", "llama.cpp has no architecture that carries sizes per block for the family \"" + source.modelType +
                                                                             "\". Use --way padded, or keep the blocks alike");
            m_planned.shape = perBlockShape(*m_planned.architecture, after);
            return slicePlan(m_source, m_anatomy, m_cut, m_planned.shape);
        }
        if (way == GgufWay::Uniform && !isUniform(after))
            throw Error(ErrorCode::BadInput, "way uniform", "the plan leaves blocks of different sizes, which llama.cpp's architecture \"" +
                                                                std::string(m_planned.architecture->name) + "\" cannot hold. Choose heterogeneous or padded");
        SlicePlan plan = slicePlan(m_source, m_anatomy, m_cut, way == GgufWay::Padded ? SliceWay::Padded : way == GgufWay::Zeroed ? SliceWay::Zeroed : SliceWay::Exact);
        m_planned.shape = plan.shape;
        const GgufArchitecture* own = std::exchange(m_planned.architecture, findUniformArchitecture(plan.shape));
        if (own != m_planned.architecture)
            m_planned.notes.push_back({Severity::Note, "architecture \"" + std::string(m_planned.architecture->name) + "\"",
                                       "written instead of \"" + std::string(own->name) + "\", which expects as many heads as fill hidden_size; it computes the same", ""});
        return plan;
    }

    void checkObstacles() const {
        for (const Problem& problem : ggufObstacles(*m_planned.architecture, m_planned.shape))
            throw Error(ErrorCode::Unsupported, problem.subject, problem.message + ". " + problem.advice);
        if (m_options.type && plainType(*m_options.type).has_value() == false && *m_options.type != GgufType::Q8_0 && *m_options.type != GgufType::Q4_0)
            throw Error(ErrorCode::Usage, "dtype " + std::string(info(*m_options.type).name), "expected f32, f16, bf16, q8_0 or q4_0");
    }

    void noteBiases() {
        const ModelShape& shape = m_planned.shape;
        const bool other = std::any_of(shape.blocks.begin(), shape.blocks.end(), [&](const BlockShape& block) {
            return block.hasAttention && std::int64_t{block.numHeads} * block.headDim != shape.hiddenSize;
        });
        if (shape.qkvBias && other)
            m_planned.notes.push_back({Severity::Note, "query biases", "they are not hidden_size long: releases of llama.cpp of 2026 open the file, those of 2025 refuse it", ""});
    }

    GgufGeneral general() const {
        GgufGeneral result;
        const fs::path folder = fs::weakly_canonical(m_source.folder());
        result.title = m_options.title.empty() ? ggufTitle(folder.filename().string()) : m_options.title;
        std::map<GgufType, std::int64_t> types;
        for (const GgufPlannedTensor& tensor : m_planned.tensors) {
            std::int64_t count = 1;
            for (const std::int64_t size : tensor.shape) count *= size;
            if (tensor.parts.empty()) continue;
            result.parameters += count;
            if (tensor.step == GgufStep::Expert) result.expertParameters += count;
            if (tensor.shape.size() > 1) types[tensor.type] += count;
        }
        const auto most = std::max_element(types.begin(), types.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
        result.fileType = ggufFileType(m_options.type ? *m_options.type : most == types.end() ? GgufType::F32 : most->first);
        return result;
    }

    const Checkpoint& m_source;
    const Anatomy& m_anatomy;
    const GgufOptions& m_options;
    Cut m_cut;
    Planned m_planned;
};

std::vector<GgufTensorSource> streams(const Checkpoint& source, const Planned& planned) {
    std::vector<GgufTensorSource> result;
    for (const GgufPlannedTensor& tensor : planned.tensors) result.push_back(streamTensor(source, tensor));
    return result;
}

void checkTarget(const Checkpoint& source, const fs::path& to) {
    if (fs::exists(to)) throw Error(ErrorCode::BadInput, to.string(), "expected a new name, but it exists");
    const fs::path parent = fs::weakly_canonical(fs::absolute(to)).parent_path(), folder = fs::weakly_canonical(fs::absolute(source.folder()));
    if (!fs::is_directory(parent)) throw Error(ErrorCode::NotFound, parent.string(), "expected a folder to write the file into");
    if (std::mismatch(folder.begin(), folder.end(), parent.begin(), parent.end()).first == folder.end())
        throw Error(ErrorCode::BadInput, to.string(), "lies in the source checkpoint, which is never written to");
}

/// The written file until it is compared; removed unless it gets its name.
class Draft {
public:
    explicit Draft(const fs::path& to) : m_path(to.string() + ".partial") {}
    ~Draft() {
        std::error_code ignored;
        fs::remove(m_path, ignored);
    }
    const fs::path& path() const noexcept { return m_path; }
    void rename(const fs::path& to) const {
        std::error_code error;
        fs::rename(m_path, to, error);
        if (error) throw systemError(error.value(), to, "cannot give the finished file its name");
    }

private:
    fs::path m_path;
};

}  // namespace

GgufResult exportGguf(const Checkpoint& source, const Anatomy& anatomy, const Cut& cut, const fs::path& to, const GgufOptions& options, const JobContext& job) {
    checkTarget(source, to);
    Planned planned = Planner(source, anatomy, cut, options).run();
    const Draft draft(to);
    const WrittenShard written = writeGguf(draft.path(), planned.metadata, streams(source, planned), job);
    GgufResult result;
    result.maxError = compareGguf(GgufFile::open(draft.path()), source, planned.tensors, planned.metadata, job);
    draft.rename(to);
    result.file = to;
    result.architecture = planned.architecture->name;
    result.shape = std::move(planned.shape);
    result.bytes = written.bytes;
    result.sha256 = written.sha256;
    result.tensors = static_cast<std::int64_t>(planned.tensors.size());
    result.notes = std::move(planned.notes);
    return result;
}

std::uint64_t ggufExportBytes(const Checkpoint& source, const Anatomy& anatomy, const Cut& cut, const GgufOptions& options) {
    const Planned planned = Planner(source, anatomy, cut, options).run();
    return ggufFileBytes(planned.metadata, streams(source, planned));
}

std::vector<LoadAdvice> ggufAdvice(const GgufResult& result) {
    const std::string file = result.file.string();
    const std::string quoted = "'" + file + "'";
    using Evidence = LoadAdvice::Evidence;
    std::vector<std::string> reasons;
    if (result.architecture == "deci" || result.architecture == "openelm")
        reasons.push_back("Architecture \"" + result.architecture + "\", which carries sizes per block.");
    return {{"Resect", Verdict::Opens, {}, "resect-cli inspect " + quoted, Evidence::Checked},
            {"llama.cpp", Verdict::Opens, reasons, "llama-cli -m " + quoted, Evidence::Expected},
            {"Ollama", Verdict::Opens, {}, "echo \"FROM " + file + "\" > Modelfile && ollama create NAME -f Modelfile", Evidence::Expected}};
}

}  // namespace resect
