#include "core/export/gguf_check.h"

#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/surgery/block_quant.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace resect {

namespace {

[[noreturn]] void differs(const GgufFile& file, const std::string& name, const std::string& message) {
    throw Error(ErrorCode::Internal, file.subject(name), message + "; nothing was kept");
}

class TensorCheck {
public:
    TensorCheck(const GgufFile& file, const GgufPlannedTensor& meant, const GgufTensor& found) : m_file(file), m_meant(meant), m_bytes(file.bytes(found)) {}

    void sameBytes(std::span<const std::byte> piece) {
        if (piece.size() > m_bytes.size() - m_at || std::memcmp(piece.data(), m_bytes.data() + m_at, piece.size()) != 0)
            differs(m_file, m_meant.name, "what was written is not what was meant, after byte " + toText(m_at));
        advance(piece.size());
    }

    /// Floats come in any pieces; blocks are decoded as they are reached.
    void within(std::span<const std::byte> piece) {
        const GgufTypeInfo& type = info(m_meant.type);
        const std::byte* values = piece.data();
        for (std::size_t left = piece.size() / sizeof(float); left > 0;) {
            if (m_inBlock == m_block.size()) nextBlock(type);
            const std::size_t count = std::min(left, m_block.size() - m_inBlock);
            compare(values, count);
            m_inBlock += count;
            values += count * sizeof(float);
            left -= count;
        }
    }
    double largest() const noexcept { return m_largest; }
    void finish() const { m_file.release(m_bytes); }

private:
    void compare(const std::byte* meant, std::size_t count) {
        std::array<float, kMaxBlock> values;
        std::memcpy(values.data(), meant, count * sizeof(float));
        for (std::size_t i = 0; i < count; ++i) {
            const float found = m_block[m_inBlock + i], error = std::fabs(values[i] - found);
            if (!(error <= m_allowed))
                differs(m_file, m_meant.name, "a value of " + toText(double{values[i]}, 6) + " came back as " + toText(double{found}, 6) + ", further off than " +
                                                  std::string(info(m_meant.type).name) + " allows");
            m_largest = std::max(m_largest, double{error});
        }
    }

    void nextBlock(const GgufTypeInfo& type) {
        if (m_at + type.blockBytes > m_bytes.size()) differs(m_file, m_meant.name, "it is shorter than what was meant");
        m_block.resize(type.blockElements);
        decodeBlocks(type.type, m_bytes.data() + m_at, m_block.size(), m_block.data());
        m_allowed = encodingError(type.type, m_bytes.data() + m_at);
        advance(type.blockBytes);
        m_inBlock = 0;
    }

    /// Pages are let go in large parts: the kernel maps neighbours of a page that is touched.
    void advance(std::size_t bytes) {
        constexpr std::size_t kAtOnce = 8 << 20;
        m_at += bytes;
        if (m_at - m_released < kAtOnce) return;
        m_file.release(m_bytes.subspan(m_released, m_at - m_released));
        m_released = m_at;
    }

    static constexpr std::size_t kMaxBlock = 256;
    const GgufFile& m_file;
    const GgufPlannedTensor& m_meant;
    std::span<const std::byte> m_bytes;
    std::size_t m_at = 0, m_released = 0, m_inBlock = 0;
    std::vector<float> m_block;
    float m_allowed = 0;
    double m_largest = 0;
};

}  // namespace

double compareGguf(const GgufFile& written, const Checkpoint& source, const std::vector<GgufPlannedTensor>& tensors, const GgufMetadata& metadata, const JobContext& job) {
    if (written.metadata() != metadata) differs(written, "metadata", "it reads back differently");
    if (written.tensors().size() != tensors.size()) differs(written, "tensors", toText(tensors.size()) + " were meant, " + toText(written.tensors().size()) + " are there");
    double largest = 0, done = 0;
    for (const GgufPlannedTensor& meant : tensors) {
        if (job.stopped()) throw Error(ErrorCode::Stopped, written.path().string(), "stopped while comparing; nothing was kept");
        job.progress({done++, static_cast<double>(tensors.size()), "tensors", "reading back"});
        const GgufTensor* found = written.findTensor(meant.name);
        if (!found || found->shape != meant.shape || found->type != meant.type) differs(written, meant.name, "its shape or type reads back differently");
        TensorCheck check(written, meant, *found);
        if (plainType(meant.type)) streamTensor(source, meant).produce([&](std::span<const std::byte> piece) { check.sameBytes(piece); });
        else streamFloats(source, meant).produce([&](std::span<const std::byte> piece) { check.within(piece); });
        check.finish();
        largest = std::max(largest, check.largest());
    }
    return largest;
}

}  // namespace resect
