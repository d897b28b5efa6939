#include "core/checkpoint/safetensors_file.h"

#include "core/base/error.h"
#include "core/base/mapped_file.h"
#include "core/base/numbers.h"
#include "core/protocol/json.h"

#include <algorithm>
#include <cstring>
#include <tuple>
#include <unordered_map>

namespace resect {

namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

std::string inQuotes(std::string_view name) { return "\"" + std::string(name) + "\""; }

[[noreturn]] void corrupt(const std::string& subject, const std::string& message) {
    throw Error(ErrorCode::Corrupt, subject, message);
}

/// A JSON number that counts bytes or elements.
std::uint64_t countOf(const Json& value, const std::string& subject, const char* what) {
    if (!value.is_number_integer() || (!value.is_number_unsigned() && value.get<std::int64_t>() < 0))
        corrupt(subject, std::string("expected a whole number >= 0 in ") + what + ", found " + value.dump());
    const auto count = value.get<std::uint64_t>();
    if (count > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        corrupt(subject, std::string("a number in ") + what + " is out of range: " + value.dump());
    return count;
}

const Json& member(const Json& entry, const char* key, const std::string& subject) {
    const auto it = entry.find(key);
    if (it == entry.end()) corrupt(subject, std::string("the header entry has no ") + key);
    return *it;
}

TensorInfo parseTensor(const std::string& name, const Json& entry, const std::string& file) {
    const std::string subject = file + ": " + name;
    if (!entry.is_object()) corrupt(subject, "expected an object with dtype, shape and data_offsets");
    TensorInfo tensor;
    tensor.name = name;

    const Json& dtype = member(entry, "dtype", subject);
    if (!dtype.is_string()) corrupt(subject, "expected a text as dtype, found " + dtype.dump());
    const auto known = dtypeFromName(dtype.get_ref<const std::string&>());
    if (!known) throw Error(ErrorCode::Unsupported, subject, "unknown dtype " + dtype.dump());
    tensor.dtype = *known;

    const Json& shape = member(entry, "shape", subject);
    if (!shape.is_array()) corrupt(subject, "expected a list as shape, found " + shape.dump());
    std::int64_t bytes = static_cast<std::int64_t>(sizeOf(tensor.dtype));
    bool overflow = false;
    for (const Json& size : shape) {
        tensor.shape.push_back(static_cast<std::int64_t>(countOf(size, subject, "shape")));
        overflow |= __builtin_mul_overflow(bytes, tensor.shape.back(), &bytes);
    }
    if (overflow) corrupt(subject, "shape " + shapeText(tensor.shape) + " of " + std::string(resect::name(tensor.dtype)) + " overflows 64 bits");

    const Json& offsets = member(entry, "data_offsets", subject);
    if (!offsets.is_array() || offsets.size() != 2) corrupt(subject, "expected two numbers as data_offsets, found " + offsets.dump());
    tensor.begin = countOf(offsets[0], subject, "data_offsets");
    tensor.end = countOf(offsets[1], subject, "data_offsets");
    if (tensor.end < tensor.begin) corrupt(subject, "data_offsets " + offsets.dump() + " end before they begin");
    if (tensor.bytes() != static_cast<std::uint64_t>(bytes))
        corrupt(subject, "shape " + shapeText(tensor.shape) + " of " + std::string(resect::name(tensor.dtype)) + " takes " +
                             toText(bytes) + " bytes, but data_offsets hold " + toText(tensor.bytes()));
    return tensor;
}

std::map<std::string, std::string> parseMetadata(const Json& entry, const std::string& file) {
    const std::string subject = file + ": __metadata__";
    if (!entry.is_object()) corrupt(subject, "expected an object of texts, found " + entry.dump());
    std::map<std::string, std::string> metadata;
    for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) corrupt(subject, "expected a text for " + inQuotes(key) + ", found " + value.dump());
        metadata.emplace(key, value.get<std::string>());
    }
    return metadata;
}

/// Tensors, ascending, must fill the data part without holes.
void checkRanges(const std::vector<TensorInfo>& tensors, const std::string& file) {
    std::uint64_t filled = 0;
    const TensorInfo* before = nullptr;
    for (const TensorInfo& tensor : tensors) {
        const std::string subject = file + ": " + tensor.name;
        const std::string range = "bytes " + toText(tensor.begin) + " to " + toText(tensor.end);
        if (tensor.begin < filled)
            corrupt(subject, range + " overlap those of " + inQuotes(before->name) + ", which end at " + toText(filled));
        if (tensor.begin > filled)
            corrupt(subject, range + " leave a hole of " + toText(tensor.begin - filled) + " bytes after " +
                                 (before ? inQuotes(before->name) : std::string("the header")));
        filled = tensor.end;
        before = &tensor;
    }
}

/// The data must end where the file ends.
void checkLength(const std::vector<TensorInfo>& tensors, std::uint64_t available, const std::string& file) {
    const std::uint64_t needed = tensors.empty() ? 0 : tensors.back().end;
    if (needed < available)
        corrupt(file, toText(available - needed) + " bytes after the last tensor belong to none");
    if (needed == available) return;
    std::vector<const TensorInfo*> lost;
    for (const TensorInfo& tensor : tensors)
        if (tensor.end > available) lost.push_back(&tensor);
    constexpr std::size_t kNamed = 5;
    std::string names;
    for (std::size_t i = 0; i < std::min(lost.size(), kNamed); ++i) names += (i ? ", " : "") + lost[i]->name;
    if (lost.size() > kNamed) names += " and " + toText(lost.size() - kNamed) + " more";
    corrupt(file, "truncated: " + toText(needed - available) + " of " + toText(needed) + " data bytes are missing; unreadable: " + names);
}

}  // namespace

std::int64_t TensorInfo::numel() const noexcept {
    std::int64_t n = 1;
    for (const std::int64_t size : shape) n *= size;
    return n;
}

struct SafetensorsFile::Data {
    std::filesystem::path path;
    MappedFile file;
    std::uint64_t headerBytes = 0;
    std::map<std::string, std::string> metadata;
    std::vector<TensorInfo> tensors;
    std::unordered_map<std::string_view, std::size_t> byName;

    const std::byte* begin() const noexcept { return file.bytes().data(); }
    const std::byte* data() const noexcept { return begin() + 8 + headerBytes; }
    std::string_view header() const noexcept { return {reinterpret_cast<const char*>(begin()) + 8, headerBytes}; }

    void map() {
        file = MappedFile(path);
        if (file.size() < 8) corrupt(path.string(), "expected a safetensors file, found only " + toText(file.size()) + " bytes");
    }

    void readHeaderLength() {
        const std::uint64_t size = file.size();
        for (int i = 7; i >= 0; --i) headerBytes = headerBytes << 8 | std::to_integer<std::uint64_t>(begin()[i]);
        constexpr std::string_view kPointer = "version https://git-lfs";
        if (size > kPointer.size() && std::memcmp(begin(), kPointer.data(), kPointer.size()) == 0)
            corrupt(path.string(), "this is a Git LFS pointer, not the file itself: fetch it with \"git lfs pull\"");
        if (headerBytes > size - 8)
            corrupt(path.string(), "the header is said to be " + toText(static_cast<double>(headerBytes), 15) + " bytes long, but the file has only " +
                                       toText(size - 8) + " after that number");
        if (headerBytes > kMaxHeaderBytes)
            corrupt(path.string(), "the header is " + toText(headerBytes) + " bytes long; the format allows " + toText(kMaxHeaderBytes));
        if (headerBytes < 2 || header()[0] != '{') corrupt(path.string(), "expected a safetensors header that begins with {");
    }

    void parseHeader() {
        MappedFile::prefetch(file.bytes().subspan(8, headerBytes));
        const std::string file = path.string();
        Json json;
        try {
            json = parseJson(header(), file + ": header");
        } catch (const Error& error) {
            throw Error(ErrorCode::Corrupt, error.subject(), error.message());
        }
        for (const auto& [name, entry] : json.items()) {
            if (name == "__metadata__")
                metadata = parseMetadata(entry, file);
            else
                tensors.push_back(parseTensor(name, entry, file));
        }
        std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
            return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
        });
        checkRanges(tensors, file);
        checkLength(tensors, this->file.size() - 8 - headerBytes, file);
        for (std::size_t i = 0; i < tensors.size(); ++i) byName.emplace(tensors[i].name, i);
    }
};

SafetensorsFile::SafetensorsFile(std::unique_ptr<Data> data) : m_data(std::move(data)) {}
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;
SafetensorsFile::~SafetensorsFile() = default;

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
    auto data = std::make_unique<Data>();
    data->path = path;
    data->map();
    data->file.setRandomAccess(true);
    data->readHeaderLength();
    data->parseHeader();
    data->file.setRandomAccess(false);
    return SafetensorsFile(std::move(data));
}

const std::filesystem::path& SafetensorsFile::path() const noexcept { return m_data->path; }
std::uint64_t SafetensorsFile::fileSize() const noexcept { return m_data->file.size(); }
const MappedFile& SafetensorsFile::mapping() const noexcept { return m_data->file; }
std::string_view SafetensorsFile::headerText() const noexcept { return m_data->header(); }
const std::map<std::string, std::string>& SafetensorsFile::metadata() const noexcept { return m_data->metadata; }
const std::vector<TensorInfo>& SafetensorsFile::tensors() const noexcept { return m_data->tensors; }

const TensorInfo* SafetensorsFile::find(std::string_view name) const noexcept {
    const auto it = m_data->byName.find(name);
    return it == m_data->byName.end() ? nullptr : &m_data->tensors[it->second];
}

std::span<const std::byte> SafetensorsFile::bytes(std::string_view name) const {
    const TensorInfo* tensor = find(name);
    if (!tensor) throw Error(ErrorCode::NotFound, m_data->path.string(), "holds no tensor " + inQuotes(name));
    return bytes(*tensor);
}

std::span<const std::byte> SafetensorsFile::bytes(const TensorInfo& tensor) const noexcept {
    return {m_data->data() + tensor.begin, tensor.bytes()};
}

void SafetensorsFile::release(const TensorInfo& tensor) const noexcept { release(bytes(tensor)); }

void SafetensorsFile::release(std::span<const std::byte> part) const noexcept { MappedFile::release(part); }

std::string shapeText(const std::vector<std::int64_t>& shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + toText(shape[i]);
    return text + "]";
}

}  // namespace resect
