#include "core/checkpoint/gguf_writer.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "core/checkpoint/shard_stream.h"

#include <algorithm>
#include <cstring>
#include <set>

namespace resect {

namespace {

/// Little-endian values one after the other.
class Packer {
public:
    template <class T>
    void number(T value) {
        char raw[sizeof(T)];
        std::memcpy(raw, &value, sizeof(T));
        m_bytes.append(raw, sizeof(T));
    }
    void text(std::string_view value) {
        number(static_cast<std::uint64_t>(value.size()));
        m_bytes.append(value);
    }
    void type(GgufValueType value) { number(static_cast<std::uint32_t>(value)); }

    void array(const GgufArray& value) {
        type(value.type);
        number(static_cast<std::uint64_t>(value.size()));
        m_bytes.append(reinterpret_cast<const char*>(value.numbers.data()), value.numbers.size());
        for (const std::string& element : value.strings) text(element);
        for (const GgufArray& element : value.arrays) array(element);
    }

    void value(const GgufValue& value) {
        switch (value.type()) {
        case GgufValueType::String: return text(value.text());
        case GgufValueType::Array: return array(value.array());
        case GgufValueType::F32: return number(static_cast<float>(value.number()));
        case GgufValueType::F64: return number(value.number());
        default:
            for (std::size_t byte = 0; byte < sizeOf(value.type()); ++byte) m_bytes += static_cast<char>(value.bits() >> (8 * byte) & 0xff);
        }
    }

    std::string take() && { return std::move(m_bytes); }
    std::size_t size() const noexcept { return m_bytes.size(); }
    void pad(std::uint64_t alignment) { m_bytes.append((alignment - m_bytes.size() % alignment) % alignment, '\0'); }

private:
    std::string m_bytes;
};

std::uint64_t padded(std::uint64_t bytes) { return (bytes + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment; }

void check(const GgufMetadata& metadata, const std::vector<GgufTensorSource>& tensors) {
    std::set<std::string_view> keys, names;
    for (const GgufEntry& entry : metadata)
        if (!keys.insert(entry.key).second) throw Error(ErrorCode::Internal, entry.key, "would be written twice");
    for (const GgufTensorSource& tensor : tensors) {
        if (!names.insert(tensor.name).second) throw Error(ErrorCode::Internal, tensor.name, "would be written twice");
        if (tensor.shape.empty() || tensor.shape.back() % info(tensor.type).blockElements != 0)
            throw Error(ErrorCode::Internal, tensor.name, "a shape of " + shapeText(tensor.shape) + " cannot be " + std::string(info(tensor.type).name));
    }
}

std::string headerOf(const GgufMetadata& metadata, const std::vector<GgufTensorSource>& tensors) {
    constexpr std::uint32_t kVersion = 3;
    Packer out;
    for (const char c : std::string_view("GGUF")) out.number(c);
    out.number(kVersion);
    out.number(static_cast<std::uint64_t>(tensors.size()));
    out.number(static_cast<std::uint64_t>(metadata.size()));
    for (const GgufEntry& entry : metadata) {
        out.text(entry.key);
        out.type(entry.value.type());
        out.value(entry.value);
    }
    std::uint64_t offset = 0;
    for (const GgufTensorSource& tensor : tensors) {
        out.text(tensor.name);
        out.number(static_cast<std::uint32_t>(tensor.shape.size()));
        for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) out.number(static_cast<std::uint64_t>(*size));
        out.number(static_cast<std::uint32_t>(tensor.type));
        out.number(offset);
        offset += padded(tensor.bytes());
    }
    out.pad(kGgufAlignment);
    return std::move(out).take();
}

std::uint64_t dataBytes(const std::vector<GgufTensorSource>& tensors) {
    std::uint64_t total = 0;
    for (const GgufTensorSource& tensor : tensors) total += padded(tensor.bytes());
    return total;
}

}  // namespace

std::uint64_t GgufTensorSource::bytes() const noexcept {
    std::uint64_t elements = 1;
    for (const std::int64_t size : shape) elements *= static_cast<std::uint64_t>(size);
    return elements / info(type).blockElements * info(type).blockBytes;
}

std::uint64_t ggufFileBytes(const GgufMetadata& metadata, const std::vector<GgufTensorSource>& tensors) {
    return headerOf(metadata, tensors).size() + dataBytes(tensors);
}

WrittenShard writeGguf(const std::filesystem::path& path, const GgufMetadata& metadata, const std::vector<GgufTensorSource>& tensors, const JobContext& job) {
    check(metadata, tensors);
    const std::string header = headerOf(metadata, tensors);
    const std::uint64_t total = header.size() + dataBytes(tensors);
    requireFreeSpace(path, total);
    const std::string stage = "writing " + path.filename().string();
    std::uint64_t done = 0;
    const auto advance = [&](std::uint64_t bytes) {
        if (job.stopped()) throw Error(ErrorCode::Stopped, path.string(), "stopped while writing; nothing was kept");
        done += bytes;
        job.progress({static_cast<double>(done), static_cast<double>(total), "bytes", stage});
    };
    ShardStream stream(path);
    const auto append = [&](std::span<const std::byte> piece) {
        while (!piece.empty()) {
            const auto part = piece.first(std::min<std::size_t>(piece.size(), ShardStream::kPieceBytes));
            stream.append(part);
            advance(part.size());
            piece = piece.subspan(part.size());
        }
    };
    append(std::as_bytes(std::span(header)));
    constexpr std::byte kZeros[kGgufAlignment]{};
    for (const GgufTensorSource& tensor : tensors) {
        const std::uint64_t bytes = tensor.bytes();
        std::uint64_t left = bytes;
        advance(0);
        tensor.produce([&](std::span<const std::byte> piece) {
            if (piece.size() > left) throw Error(ErrorCode::Internal, tensor.name, "more bytes were produced than its shape holds");
            left -= piece.size();
            append(piece);
        });
        if (left) throw Error(ErrorCode::Internal, tensor.name, toText(left) + " bytes fewer were produced than its shape holds");
        append(std::span(kZeros).first(padded(bytes) - bytes));
    }
    WrittenShard written{path.filename().string(), 0, stream.finish()};
    written.bytes = stream.bytes();
    syncToDisk(path.has_parent_path() ? path.parent_path() : std::filesystem::path("."));
    return written;
}

}  // namespace resect
