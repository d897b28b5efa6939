#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/export/gguf_layout.h"
#include "core/surgery/block_quant.h"

#include <algorithm>
#include <cstring>

namespace resect {

namespace {

using Sink = std::function<void(std::span<const std::byte>)>;

std::span<const std::byte> asBytes(const std::vector<float>& values) { return std::as_bytes(std::span(values)); }

void addOne(std::span<const std::byte> piece, const Sink& sink) {
    std::vector<float> values(piece.size() / sizeof(float));
    std::memcpy(values.data(), piece.data(), piece.size());
    for (float& value : values) value += 1;
    sink(asBytes(values));
}

/// [in, out] as stored to [out, in]. Holds one whole tensor.
void transpose(const TensorSource& part, const Sink& sink) {
    const auto rows = static_cast<std::size_t>(part.shape.at(0)), columns = static_cast<std::size_t>(part.shape.at(1));
    std::vector<float> values;
    values.reserve(rows * columns);
    part.produce([&](std::span<const std::byte> piece) {
        const std::size_t before = values.size();
        values.resize(before + piece.size() / sizeof(float));
        std::memcpy(values.data() + before, piece.data(), piece.size());
    });
    std::vector<float> column(rows);
    for (std::size_t c = 0; c < columns; ++c) {
        for (std::size_t r = 0; r < rows; ++r) column[r] = values[r * columns + c];
        sink(asBytes(column));
    }
}

void produceFloats(const Checkpoint& source, const GgufPlannedTensor& tensor, const Sink& sink) {
    if (tensor.parts.empty()) return sink(asBytes(tensor.values));
    for (const SlicedTensor& part : tensor.parts) {
        const TensorSource stream = streamSlice(source, part, DType::F32);
        if (tensor.step == GgufStep::Transposed) transpose(stream, sink);
        else if (tensor.step == GgufStep::PlusOne) stream.produce([&](std::span<const std::byte> piece) { addOne(piece, sink); });
        else stream.produce(sink);
    }
}

/// Collects floats to whole blocks and encodes them, a bounded number at a time.
class Encoder {
public:
    Encoder(const GgufPlannedTensor& tensor, const Sink& sink) : m_tensor(tensor), m_sink(sink) {}

    void take(std::span<const std::byte> piece) {
        while (!piece.empty()) {
            const std::size_t count = std::min(piece.size() / sizeof(float), kMost - m_values.size());
            const std::size_t before = m_values.size();
            m_values.resize(before + count);
            std::memcpy(m_values.data() + before, piece.data(), count * sizeof(float));
            piece = piece.subspan(count * sizeof(float));
            if (m_values.size() == kMost) flush();
        }
    }
    void flush() {
        const GgufTypeInfo& type = info(m_tensor.type);
        m_bytes.resize(m_values.size() / type.blockElements * type.blockBytes);
        const std::ptrdiff_t bad = encodeBlocks(m_tensor.type, m_values.data(), m_values.size(), m_bytes.data());
        if (bad >= 0)
            throw Error(ErrorCode::BadInput, m_tensor.name, "the value " + toText(double{m_values[static_cast<std::size_t>(bad)]}, 4) + " cannot be stored as " +
                                                                std::string(type.name) + "; export as bf16 or f32");
        m_sink(m_bytes);
        m_values.clear();
    }

private:
    static constexpr std::size_t kMost = 1 << 20;  // whole blocks of every type
    const GgufPlannedTensor& m_tensor;
    const Sink& m_sink;
    std::vector<float> m_values;
    std::vector<std::byte> m_bytes;
};

}  // namespace

GgufTensorSource streamFloats(const Checkpoint& source, const GgufPlannedTensor& tensor) {
    return {tensor.name, GgufType::F32, tensor.shape, [&source, tensor](const Sink& sink) { produceFloats(source, tensor, sink); }};
}

GgufTensorSource streamTensor(const Checkpoint& source, const GgufPlannedTensor& tensor) {
    GgufTensorSource result{tensor.name, tensor.type, tensor.shape, {}};
    const auto plain = plainType(tensor.type);
    const bool asStored = plain && !tensor.parts.empty() && tensor.step != GgufStep::Transposed && tensor.step != GgufStep::PlusOne;
    if (asStored) {
        result.produce = [&source, tensor, dtype = *plain](const Sink& sink) {
            for (const SlicedTensor& part : tensor.parts) streamSlice(source, part, dtype).produce(sink);
        };
    } else {
        result.produce = [&source, tensor](const Sink& sink) {
            Encoder encoder(tensor, sink);
            produceFloats(source, tensor, [&](std::span<const std::byte> piece) { encoder.take(piece); });
            encoder.flush();
        };
    }
    return result;
}

}  // namespace resect
