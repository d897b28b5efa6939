#include "core/export/gguf_import.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "core/export/manifest.h"
#include "core/export/verdict.h"
#include "core/surgery/block_quant.h"
#include "core/surgery/convert.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

namespace resect {

namespace {

using Sink = std::function<void(std::span<const std::byte>)>;

/// Rows of a GGUF tensor that make one Hugging Face tensor.
struct Rows {
    const GgufTensor* tensor = nullptr;
    std::int64_t first = 0, count = 0, width = 0;
    int headDim = 0;  ///< rows of each head alternate between its halves; 0 = rows in order
    GgufStep step = GgufStep::Plain;

    /// Of row `i` of the result: the inverse of what the writer does.
    std::int64_t source(std::int64_t i) const {
        if (headDim == 0) return first + i;
        const std::int64_t head = i / headDim, within = i % headDim, half = headDim / 2;
        return first + head * headDim + 2 * (within % half) + within / half;
    }
};

class RowStream {
public:
    RowStream(const GgufFile& file, const Rows& rows, DType dtype, std::string name) : m_file(file), m_rows(rows), m_dtype(dtype), m_name(std::move(name)) {}

    void produce(const Sink& sink) const {
        m_rows.step == GgufStep::Transposed ? produceColumns(sink) : produceRows(sink);
        m_file.release(m_file.bytes(*m_rows.tensor));
    }

private:
    /// [out, in] of the file as [in, out]. Holds one whole tensor.
    void produceColumns(const Sink& sink) const {
        const auto rows = static_cast<std::size_t>(m_rows.count), columns = static_cast<std::size_t>(m_rows.width);
        std::vector<float> values(rows * columns), column(rows);
        decodeBlocks(m_rows.tensor->type, m_file.bytes(*m_rows.tensor).data(), values.size(), values.data());
        for (std::size_t c = 0; c < columns; ++c) {
            for (std::size_t r = 0; r < rows; ++r) column[r] = values[r * columns + c];
            sinkConverted(column, sink);
        }
    }
    void produceRows(const Sink& sink) const {
        const GgufTypeInfo& type = info(m_rows.tensor->type);
        const auto width = static_cast<std::size_t>(m_rows.width);
        const std::size_t rowBytes = width / type.blockElements * type.blockBytes;
        const auto all = m_file.bytes(*m_rows.tensor);
        const std::int64_t atOnce = std::max<std::int64_t>(1, kPiece / std::max<std::int64_t>(1, m_rows.width));
        std::vector<float> values;
        for (std::int64_t row = 0; row < m_rows.count; row += atOnce) {
            const std::int64_t n = std::min(atOnce, m_rows.count - row);
            values.resize(static_cast<std::size_t>(n) * width);
            for (std::int64_t i = 0; i < n; ++i)
                decodeBlocks(type.type, all.data() + static_cast<std::size_t>(m_rows.source(row + i)) * rowBytes, width, values.data() + static_cast<std::size_t>(i) * width);
            if (m_rows.step == GgufStep::PlusOne)
                for (float& value : values) value -= 1;
            sinkConverted(values, sink);
        }
    }
    void sinkConverted(const std::vector<float>& values, const Sink& sink) const {
        std::vector<std::byte> out(values.size() * sizeOf(m_dtype));
        const auto bad = convertElements(DType::F32, reinterpret_cast<const std::byte*>(values.data()), m_dtype, out.data(), values.size());
        if (bad >= 0) throw Error(ErrorCode::BadInput, m_name, "the value " + toText(double{values[static_cast<std::size_t>(bad)]}, 4) + " is too large for " + std::string(resect::name(m_dtype)));
        sink(out);
    }

    static constexpr std::int64_t kPiece = 1 << 20;  ///< elements
    const GgufFile& m_file;
    Rows m_rows;
    DType m_dtype;
    std::string m_name;
};

/// Finds the rows of every tensor and sees to it that all rows of the file are used.
class Finder {
public:
    Finder(const GgufFile& file, const GgufModel& model) : m_file(file), m_model(model) {}

    Rows find(const ExpectedTensor& wanted) {
        const GgufPlace place = ggufPlace(*m_model.architecture, wanted);
        const GgufTensor* tensor = m_file.findTensor(place.name);
        if (!tensor) throw Error(ErrorCode::NotFound, m_file.subject(place.name), "the tensor is missing; it holds " + wanted.name);
        if (!canEncode(tensor->type))
            throw Error(ErrorCode::Unsupported, m_file.subject(place.name), "its type " + std::string(info(tensor->type).name) + " cannot be decoded here: F32, F16, BF16, Q8_0 and Q4_0 can");
        Rows rows{tensor, 0, wanted.shape.size() == 1 ? 1 : wanted.shape.front(), wanted.shape.back(), 0, place.step};
        std::vector<std::int64_t> fits = place.step == GgufStep::Vector ? std::vector{wanted.shape.back()} : wanted.shape;
        if (place.step == GgufStep::Transposed) {
            std::reverse(fits.begin(), fits.end());
            std::swap(rows.count, rows.width);
        } else if (place.step == GgufStep::Expert) {
            const int experts = m_model.shape.blocks[static_cast<std::size_t>(wanted.block)].numExperts;
            fits.insert(fits.begin(), experts);
            rows.first = wanted.expert * rows.count;
        } else if (place.step == GgufStep::Fused) {
            rows.first = m_fused[place.name];
            m_fused[place.name] += rows.count;
            fits.front() = tensor->shape.empty() ? 0 : tensor->shape.front();
            if (rows.first + rows.count > fits.front()) fits.front() = -1;
        }
        if (tensor->shape != fits)
            throw Error(ErrorCode::BadInput, m_file.subject(place.name), "expected the shape " + shapeText(fits) + ", found " + shapeText(tensor->shape));
        if (place.step == GgufStep::RotaryRows && m_model.architecture->rotation == GgufArchitecture::Rotation::Neighbours) {
            rows.headDim = m_model.shape.blocks[static_cast<std::size_t>(wanted.block)].headDim;
            if (wanted.shape.size() == 1) std::swap(rows.count, rows.width);  // a bias: every number is a row
        }
        m_elements[place.name] += rows.count * rows.width;
        return rows;
    }

    void requireAllUsed() const {
        for (const GgufTensor& tensor : m_file.tensors()) {
            const auto used = m_elements.find(tensor.name);
            if (tensor.name == "rope_freqs.weight" || (used != m_elements.end() && used->second == tensor.numel())) continue;
            throw Error(ErrorCode::BadInput, m_file.subject(tensor.name), "the model that the metadata describes has no use for this tensor (or for all of it)");
        }
    }

private:
    const GgufFile& m_file;
    const GgufModel& m_model;
    std::map<std::string, std::int64_t> m_fused;     ///< rows of a fused tensor that are given away
    std::map<std::string, std::int64_t> m_elements;  ///< that are used
};

std::string_view torchName(DType dtype) { return dtype == DType::F16 ? "float16" : dtype == DType::BF16 ? "bfloat16" : "float32"; }

}  // namespace

std::vector<TensorSource> huggingFaceTensors(const GgufFile& file, const GgufModel& model, std::optional<DType> dtype) {
    Finder finder(file, model);
    std::vector<TensorSource> sources;
    for (const ExpectedTensor& wanted : expectedTensors(model.shape)) {
        const Rows rows = finder.find(wanted);
        const DType stored = dtype.value_or(plainType(rows.tensor->type).value_or(DType::F32));
        sources.push_back({wanted.name, stored, wanted.shape, [stream = RowStream(file, rows, stored, wanted.name)](const Sink& sink) { stream.produce(sink); }});
    }
    finder.requireAllUsed();
    return sources;
}

GgufImport importGguf(const GgufFile& file, const std::filesystem::path& to, std::optional<DType> dtype, const JobContext& job,
                      const std::function<std::vector<Problem>(const std::filesystem::path& staged)>& finish) {
    GgufModel model = readGgufModel(file);
    const std::vector<TensorSource> tensors = huggingFaceTensors(file, model, dtype);
    Json config = model.config;
    const Json& resect = model.resectConfig;
    if (dtype) config["torch_dtype"] = torchName(*dtype);

    GgufImport result;
    StagedFolder staged(to);
    const std::vector<WrittenShard> shards = writeShards(staged.path(), tensors, {}, job);
    for (const WrittenShard& shard : shards) result.bytes += shard.bytes;
    writeJsonFile(staged.path() / "config.json", config);
    if (!resect.is_null()) writeJsonFile(staged.path() / "resect.json", resect);
    if (finish) result.notes = finish(staged.path());
    writeManifest(staged.path(), shards, job);
    staged.commit();
    result.folder = to;
    result.shape = std::move(model.shape);
    return result;
}

}  // namespace resect
