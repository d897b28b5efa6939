#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/surgery/convert.h"
#include "core/surgery/slice_plan.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

namespace resect {

namespace {

using Sink = std::function<void(std::span<const std::byte>)>;
constexpr std::size_t kPiece = std::size_t{8} << 20;  ///< bytes handed on at once

/// `count` consecutive source indices from `source`, or zeros when it is -1.
struct Run {
    std::int64_t source = 0, count = 0;
};

std::vector<Run> runsOf(const std::vector<std::int64_t>& indices, std::int64_t length) {
    if (indices.empty()) return {{0, length}};
    std::vector<Run> runs;
    for (std::int64_t index : indices) {
        const bool grows =
            !runs.empty() &&
            (index < 0 ? runs.back().source < 0 : runs.back().source >= 0 && runs.back().source + runs.back().count == index);
        if (grows)
            ++runs.back().count;
        else
            runs.push_back({index < 0 ? -1 : index, 1});
    }
    return runs;
}

void sinkZeros(std::uint64_t bytes, const Sink& sink) {
    static const std::vector<std::byte> zeros(kPiece);
    for (; bytes > 0; bytes -= std::min<std::uint64_t>(bytes, kPiece))
        sink(std::span(zeros).first(static_cast<std::size_t>(std::min<std::uint64_t>(bytes, kPiece))));
}

template <std::size_t size>
void gatherRow(const std::byte* row, const std::vector<Run>& columns, std::byte* out) {
    constexpr std::int64_t kShort = 8;  // below this a call of memcpy costs more than the copy
    for (const Run& run : columns) {
        const std::size_t bytes = static_cast<std::size_t>(run.count) * size;
        if (run.source < 0)
            std::memset(out, 0, bytes);
        else if (run.count > kShort)
            std::memcpy(out, row + static_cast<std::size_t>(run.source) * size, bytes);
        else
            for (std::size_t i = 0; i < bytes; i += size)
                std::memcpy(out + i, row + static_cast<std::size_t>(run.source) * size + i, size);
        out += bytes;
    }
}

void gatherRow(std::size_t elementSize, const std::byte* row, const std::vector<Run>& columns, std::byte* out) {
    switch (elementSize) {
    case 1:
        return gatherRow<1>(row, columns, out);
    case 2:
        return gatherRow<2>(row, columns, out);
    case 4:
        return gatherRow<4>(row, columns, out);
    default:
        return gatherRow<8>(row, columns, out);
    }
}

/// One tensor seen as rows x columns: the first axis, and all others together.
class SliceStream {
public:
    SliceStream(const Checkpoint& source, const TensorInfo& info, SlicedTensor tensor, DType dtype)
        : m_source(source), m_info(info), m_tensor(std::move(tensor)), m_dtype(dtype), m_elementSize(sizeOf(info.dtype)) {
        const bool scalar = m_tensor.sourceShape.empty();
        const std::int64_t rows = scalar ? 1 : m_tensor.sourceShape.front();
        m_sourceColumns = 1;
        for (std::size_t axis = 1; axis < m_tensor.sourceShape.size(); ++axis) m_sourceColumns *= m_tensor.sourceShape[axis];
        for (std::size_t axis = 2; axis < m_tensor.indices.size(); ++axis)
            if (!m_tensor.indices[axis].empty())
                throw Error(ErrorCode::Unsupported, m_tensor.name, "only the first two axes of a tensor can be cut");
        const bool cutsColumns = m_tensor.indices.size() > 1 && !m_tensor.indices[1].empty();
        if (cutsColumns && m_tensor.sourceShape.size() > 2)
            throw Error(ErrorCode::Unsupported, m_tensor.name, "columns can be cut of matrices only");
        m_rows = scalar ? std::vector<Run>{{0, rows}} : runsOf(m_tensor.indices.front(), rows);
        if (cutsColumns) m_columns = runsOf(m_tensor.indices[1], m_sourceColumns);
        m_resultColumns = cutsColumns ? static_cast<std::int64_t>(m_tensor.indices[1].size()) : m_sourceColumns;
    }

    void produce(const Sink& sink) {
        const std::byte* data = m_source.bytes(m_info).data();
        const std::size_t rowBytes = static_cast<std::size_t>(m_sourceColumns) * m_elementSize;
        for (const Run& run : m_rows) {
            if (run.source < 0)
                sinkZeros(static_cast<std::uint64_t>(run.count * m_resultColumns) * sizeOf(m_dtype), sink);
            else if (m_columns.empty())
                copyRows(data + static_cast<std::size_t>(run.source) * rowBytes, static_cast<std::size_t>(run.count) * rowBytes,
                         sink);
            else
                gatherRows(data + static_cast<std::size_t>(run.source) * rowBytes, run.count, rowBytes, sink);
        }
        m_source.release(m_info);
    }

private:
    void copyRows(const std::byte* bytes, std::size_t size, const Sink& sink) {
        for (std::size_t done = 0; done < size; done += kPiece) {
            const std::span piece(bytes + done, std::min(kPiece, size - done));
            sinkConverted(piece, sink);
            m_source.release(m_info, piece);
        }
    }

    void gatherRows(const std::byte* first, std::int64_t rows, std::size_t rowBytes, const Sink& sink) {
        const std::size_t outBytes = static_cast<std::size_t>(m_resultColumns) * m_elementSize;
        const std::int64_t atOnce =
            std::max<std::int64_t>(1, static_cast<std::int64_t>(kPiece / std::max<std::size_t>(1, outBytes)));
        m_gathered.resize(static_cast<std::size_t>(std::min(rows, atOnce)) * outBytes);
        for (std::int64_t row = 0; row < rows; row += atOnce) {
            const std::int64_t n = std::min(atOnce, rows - row);
            for (std::int64_t i = 0; i < n; ++i)
                gatherRow(m_elementSize, first + static_cast<std::size_t>(row + i) * rowBytes, m_columns,
                          m_gathered.data() + static_cast<std::size_t>(i) * outBytes);
            sinkConverted(std::span(m_gathered).first(static_cast<std::size_t>(n) * outBytes), sink);
        }
    }

    void sinkConverted(std::span<const std::byte> bytes, const Sink& sink) {
        if (m_dtype == m_info.dtype) return sink(bytes);
        const std::size_t count = bytes.size() / m_elementSize;
        m_converted.resize(count * sizeOf(m_dtype));
        const std::ptrdiff_t overflow = convertElements(m_info.dtype, bytes.data(), m_dtype, m_converted.data(), count);
        if (overflow >= 0) {
            float value = 0;
            convertElements(m_info.dtype, bytes.data() + static_cast<std::size_t>(overflow) * m_elementSize, DType::F32,
                            reinterpret_cast<std::byte*>(&value), 1);
            throw Error(ErrorCode::BadInput, m_tensor.source,
                        "the value " + toText(double{value}, 4) + " is too large for " + std::string(name(m_dtype)) +
                            "; export as " + (m_dtype == DType::F16 ? "BF16 or F32" : "F32"));
        }
        sink(m_converted);
    }

    const Checkpoint& m_source;
    const TensorInfo& m_info;
    SlicedTensor m_tensor;
    DType m_dtype;
    std::size_t m_elementSize;
    std::int64_t m_sourceColumns = 1, m_resultColumns = 1;
    std::vector<Run> m_rows, m_columns;  ///< no column runs = whole rows
    std::vector<std::byte> m_gathered, m_converted;
};

}  // namespace

namespace {

/// The same with its values scaled, piece by piece in F32.
TensorSource streamScaled(const Checkpoint& source, SlicedTensor tensor, DType dtype) {
    const double scale = std::exchange(tensor.scale, 1), offset = tensor.offset;
    if (!canConvert(DType::F32, dtype)) throw Error(ErrorCode::Unsupported, tensor.source, "cannot scale values of type " + std::string(name(dtype)));
    TensorSource plain = streamSlice(source, tensor, DType::F32);
    TensorSource result{tensor.name, dtype, tensor.shape, {}};
    result.produce = [plain, dtype, scale, offset, subject = tensor.source](const Sink& sink) {
        std::vector<float> values;
        std::vector<std::byte> converted;
        plain.produce([&](std::span<const std::byte> bytes) {
            values.resize(bytes.size() / sizeof(float));
            std::memcpy(values.data(), bytes.data(), bytes.size());
            for (float& value : values) value = static_cast<float>((value + offset) * scale - offset);
            converted.resize(values.size() * sizeOf(dtype));
            if (convertElements(DType::F32, reinterpret_cast<const std::byte*>(values.data()), dtype, converted.data(), values.size()) >= 0)
                throw Error(ErrorCode::BadInput, subject, "a value becomes too large for " + std::string(name(dtype)) + "; export as BF16 or F32");
            sink(converted);
        });
    };
    return result;
}

}  // namespace

TensorSource streamSlice(const Checkpoint& source, const SlicedTensor& tensor, DType dtype) {
    if (tensor.scale != 1 && !tensor.source.empty()) return streamScaled(source, tensor, dtype);
    TensorSource result{tensor.name, dtype, tensor.shape, {}};
    if (tensor.source.empty()) {
        result.produce = [bytes = result.bytes()](const Sink& sink) { sinkZeros(bytes, sink); };
        return result;
    }
    const TensorInfo* info = source.find(tensor.source);
    if (!info) throw Error(ErrorCode::NotFound, source.folder().string() + ": " + tensor.source, "the tensor is missing");
    if (!canConvert(info->dtype, dtype))
        throw Error(ErrorCode::Unsupported, tensor.source,
                    "cannot convert " + std::string(name(info->dtype)) + " to " + std::string(name(dtype)));
    result.produce = [&source, info, tensor, dtype](const Sink& sink) {
        SliceStream(source, *info, tensor, dtype).produce(sink);
    };
    return result;
}

}  // namespace resect
