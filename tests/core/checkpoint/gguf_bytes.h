#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace resect::test {

/// Builds the bytes of a GGUF file, right or wrong.
class GgufBytes {
public:
    explicit GgufBytes(std::uint64_t tensors, std::uint64_t entries, std::uint32_t version = 3, std::string_view magic = "GGUF") {
        m_bytes = magic;
        u32(version).u64(tensors).u64(entries);
    }
    template <class T>
    GgufBytes& raw(T value) {
        char bytes[sizeof(T)];
        std::memcpy(bytes, &value, sizeof(T));
        m_bytes.append(bytes, sizeof(T));
        return *this;
    }
    GgufBytes& u32(std::uint32_t value) { return raw(value); }
    GgufBytes& u64(std::uint64_t value) { return raw(value); }
    GgufBytes& text(std::string_view value) {
        u64(value.size());
        m_bytes.append(value);
        return *this;
    }
    /// An entry of type u32.
    GgufBytes& entry(std::string_view key, std::uint32_t value) { return text(key).u32(4).u32(value); }
    GgufBytes& tensor(std::string_view name, const std::vector<std::uint64_t>& dimensions, std::uint32_t type, std::uint64_t offset) {
        text(name).u32(static_cast<std::uint32_t>(dimensions.size()));
        for (const auto size : dimensions) u64(size);
        return u32(type).u64(offset);
    }
    /// Zeros up to the alignment, then `bytes` of data.
    std::string data(std::size_t bytes, std::size_t alignment = 32) const {
        std::string result = m_bytes;
        result.append((alignment - result.size() % alignment) % alignment, '\0');
        for (std::size_t i = 0; i < bytes; ++i) result += static_cast<char>(i * 7);
        return result;
    }
    const std::string& bytes() const { return m_bytes; }

private:
    std::string m_bytes;
};

}  // namespace resect::test
