#include "core/checkpoint/gguf_file.h"

#include "core/base/error.h"
#include "core/base/mapped_file.h"
#include "core/base/numbers.h"
#include "core/checkpoint/gguf_parse.h"

#include <cmath>
#include <fstream>
#include <unordered_map>

namespace resect {

std::int64_t GgufTensor::numel() const noexcept {
    std::int64_t n = 1;
    for (const std::int64_t size : shape) n *= size;
    return n;
}

struct GgufFile::Data {
    std::filesystem::path path;
    MappedFile file;
    GgufHeader header;
    std::unordered_map<std::string_view, std::size_t> keys, names;
};

GgufFile::GgufFile(std::unique_ptr<Data> data) : m_data(std::move(data)) {}
GgufFile::GgufFile(GgufFile&&) noexcept = default;
GgufFile& GgufFile::operator=(GgufFile&&) noexcept = default;
GgufFile::~GgufFile() = default;

GgufFile GgufFile::open(const std::filesystem::path& path) {
    auto data = std::make_unique<Data>();
    data->path = path;
    data->file = MappedFile(path);
    if (data->file.size() == 0) throw Error(ErrorCode::Corrupt, path.string(), "expected a GGUF file, found an empty one");
    data->header = parseGgufHeader(data->file.bytes(), path.string());
    for (std::size_t i = 0; i < data->header.metadata.size(); ++i) data->keys.emplace(data->header.metadata[i].key, i);
    for (std::size_t i = 0; i < data->header.tensors.size(); ++i) data->names.emplace(data->header.tensors[i].name, i);
    return GgufFile(std::move(data));
}

const std::filesystem::path& GgufFile::path() const noexcept { return m_data->path; }
std::uint64_t GgufFile::fileSize() const noexcept { return m_data->file.size(); }
int GgufFile::version() const noexcept { return m_data->header.version; }
std::uint64_t GgufFile::alignment() const noexcept { return m_data->header.alignment; }
const GgufMetadata& GgufFile::metadata() const noexcept { return m_data->header.metadata; }
const std::vector<GgufTensor>& GgufFile::tensors() const noexcept { return m_data->header.tensors; }

const GgufValue* GgufFile::find(std::string_view key) const noexcept {
    const auto it = m_data->keys.find(key);
    return it == m_data->keys.end() ? nullptr : &m_data->header.metadata[it->second].value;
}

const GgufTensor* GgufFile::findTensor(std::string_view name) const noexcept {
    const auto it = m_data->names.find(name);
    return it == m_data->names.end() ? nullptr : &m_data->header.tensors[it->second];
}

std::span<const std::byte> GgufFile::bytes(const GgufTensor& tensor) const noexcept {
    return m_data->file.bytes().subspan(m_data->header.dataBegin + tensor.offset, tensor.bytes);
}

void GgufFile::release(std::span<const std::byte> part) const noexcept { MappedFile::release(part); }

std::string GgufFile::subject(std::string_view key) const { return m_data->path.string() + ": " + std::string(key); }

namespace {

[[noreturn]] void wrongKind(const GgufFile& file, std::string_view key, const char* expected, const GgufValue* found) {
    throw Error(ErrorCode::BadInput, file.subject(key), std::string("expected ") + expected + ", found " + (found ? found->shown() : "no such key"));
}

std::int64_t wholeNumber(const GgufFile& file, std::string_view key, double value) {
    constexpr double kMost = 9e15;  // exact in a double
    if (value != std::floor(value) || std::fabs(value) > kMost)
        throw Error(ErrorCode::BadInput, file.subject(key), "expected a whole number, found " + toText(value));
    return static_cast<std::int64_t>(value);
}

}  // namespace

std::string GgufFile::text(std::string_view key) const {
    const GgufValue* value = find(key);
    if (!value || value->type() != GgufValueType::String) wrongKind(*this, key, "a text", value);
    return value->text();
}

std::string GgufFile::text(std::string_view key, std::string fallback) const { return find(key) ? text(key) : std::move(fallback); }

double GgufFile::number(std::string_view key) const {
    const GgufValue* value = find(key);
    if (!value || !value->isNumber()) wrongKind(*this, key, "a number", value);
    return value->number();
}

double GgufFile::number(std::string_view key, double fallback) const { return find(key) ? number(key) : fallback; }
std::int64_t GgufFile::integer(std::string_view key) const { return wholeNumber(*this, key, number(key)); }
std::int64_t GgufFile::integer(std::string_view key, std::int64_t fallback) const { return find(key) ? integer(key) : fallback; }

bool GgufFile::flag(std::string_view key, bool fallback) const {
    const GgufValue* value = find(key);
    if (!value) return fallback;
    if (value->type() != GgufValueType::Bool) wrongKind(*this, key, "true or false", value);
    return value->bits() != 0;
}

std::vector<std::int64_t> GgufFile::integers(std::string_view key, std::size_t count) const {
    const GgufValue* value = find(key);
    if (!value || value->type() != GgufValueType::Array) return std::vector<std::int64_t>(count, integer(key));
    const GgufArray& array = value->array();
    if (array.type == GgufValueType::String || array.type == GgufValueType::Array || array.size() != count)
        throw Error(ErrorCode::BadInput, subject(key), "expected one number or " + toText(count) + " numbers, found " + value->shown());
    std::vector<std::int64_t> result;
    for (std::size_t i = 0; i < count; ++i) result.push_back(wholeNumber(*this, key, array.number(i)));
    return result;
}

bool looksLikeGguf(const std::filesystem::path& path) noexcept {
    try {
        std::ifstream file(path, std::ios::binary);
        char magic[4]{};
        return file.read(magic, sizeof magic) && std::string_view(magic, sizeof magic) == "GGUF";
    } catch (...) {
        return false;
    }
}

}  // namespace resect
