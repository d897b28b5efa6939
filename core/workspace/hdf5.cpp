#include "core/workspace/hdf5.h"

#include "core/base/error.h"

#include <memory>

namespace resect::hdf5 {

namespace {

constexpr hsize_t kMostEntries = 1u << 26;
constexpr char kNothing = 0;  // HDF5 refuses a null buffer even where it has no element to read

[[noreturn]] void failWrite(const Object& object, const char* attribute) {
    throw Error(ErrorCode::DiskFull, object.subject, std::string("attribute ") + attribute + " could not be written");
}

[[noreturn]] void failRead(const Object& object, const char* attribute, const char* expected) {
    throw Error(ErrorCode::BadInput, object.subject, std::string("attribute ") + attribute + ": expected " + expected);
}

Handle scalarSpace() { return {H5Screate(H5S_SCALAR), H5Sclose}; }

Handle listSpace(std::size_t count) {
    const hsize_t extent = count;
    return {H5Screate_simple(1, &extent, nullptr), H5Sclose};
}

Handle textType() {
    Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(type.id(), H5T_VARIABLE);
    H5Tset_cset(type.id(), H5T_CSET_UTF8);
    return type;
}

void write(const Object& object, const char* attribute, const Handle& space, hid_t fileType, hid_t memoryType, const void* data) {
    const Handle handle(H5Acreate2(object.id, attribute, fileType, space.id(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
    if (!handle || H5Awrite(handle.id(), memoryType, data ? data : &kNothing) < 0) failWrite(object, attribute);
}

struct OpenAttribute {
    Handle handle, type, space;
    hsize_t count = 0;
};

OpenAttribute open(const Object& object, const char* attribute, H5T_class_t wanted, const char* expected) {
    OpenAttribute open;
    open.handle = Handle(H5Aopen(object.id, attribute, H5P_DEFAULT), H5Aclose);
    if (!open.handle) failRead(object, attribute, expected);
    open.type = Handle(H5Aget_type(open.handle.id()), H5Tclose);
    open.space = Handle(H5Aget_space(open.handle.id()), H5Sclose);
    if (!open.type || !open.space || H5Tget_class(open.type.id()) != wanted) failRead(object, attribute, expected);
    const hssize_t count = H5Sget_simple_extent_npoints(open.space.id());
    if (count < 0 || static_cast<hsize_t>(count) > kMostEntries) failRead(object, attribute, expected);
    open.count = static_cast<hsize_t>(count);
    return open;
}

std::vector<std::string> readFixedTexts(const OpenAttribute& attribute, const Object& object, const char* name) {
    const std::size_t size = H5Tget_size(attribute.type.id());
    if (size == 0 || size > kMostEntries || attribute.count > kMostEntries / size) failRead(object, name, "text");
    std::vector<char> buffer(size * attribute.count);
    if (H5Aread(attribute.handle.id(), attribute.type.id(), buffer.data()) < 0) failRead(object, name, "text");
    std::vector<std::string> texts;
    for (hsize_t i = 0; i < attribute.count; ++i) {
        std::string text(buffer.data() + i * size, size);
        texts.push_back(text.substr(0, text.find('\0')));
    }
    return texts;
}

std::vector<std::string> readAllTexts(const Object& object, const char* name) {
    const OpenAttribute attribute = open(object, name, H5T_STRING, "text");
    if (attribute.count == 0) return {};
    if (H5Tis_variable_str(attribute.type.id()) <= 0) return readFixedTexts(attribute, object, name);
    std::vector<char*> raw(attribute.count, nullptr);
    const Handle memory(H5Tcopy(attribute.type.id()), H5Tclose);
    if (H5Aread(attribute.handle.id(), memory.id(), raw.data()) < 0) failRead(object, name, "text");
    std::vector<std::string> texts;
    for (char* text : raw) texts.emplace_back(text ? text : "");
    H5Dvlen_reclaim(memory.id(), attribute.space.id(), H5P_DEFAULT, raw.data());
    return texts;
}

}  // namespace

std::mutex& mutex() {
    static std::mutex instance;
    return instance;
}

Quiet::Quiet() {
    H5Eget_auto2(H5E_DEFAULT, &m_function, &m_data);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}
Quiet::~Quiet() { H5Eset_auto2(H5E_DEFAULT, m_function, m_data); }

void writeText(const Object& object, const char* attribute, std::string_view text) {
    const std::string owned(text);
    const char* pointer = owned.c_str();
    const Handle type = textType();
    write(object, attribute, scalarSpace(), type.id(), type.id(), &pointer);
}

void writeTexts(const Object& object, const char* attribute, const std::vector<std::string>& texts) {
    std::vector<const char*> pointers;
    for (const auto& text : texts) pointers.push_back(text.c_str());
    const Handle type = textType();
    write(object, attribute, listSpace(texts.size()), type.id(), type.id(), pointers.data());
}

void writeInteger(const Object& object, const char* attribute, std::int64_t value) {
    write(object, attribute, scalarSpace(), H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

void writeUnsigned(const Object& object, const char* attribute, std::uint64_t value) {
    write(object, attribute, scalarSpace(), H5T_STD_U64LE, H5T_NATIVE_UINT64, &value);
}

void writeNumber(const Object& object, const char* attribute, double value) {
    write(object, attribute, scalarSpace(), H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
}

void writeIntegers(const Object& object, const char* attribute, const std::vector<std::int64_t>& values) {
    write(object, attribute, listSpace(values.size()), H5T_STD_I64LE, H5T_NATIVE_INT64, values.data());
}

bool has(const Object& object, const char* attribute) { return H5Aexists(object.id, attribute) > 0; }

std::string readText(const Object& object, const char* attribute) {
    auto texts = readAllTexts(object, attribute);
    if (texts.size() != 1) failRead(object, attribute, "one text");
    return std::move(texts.front());
}

std::vector<std::string> readTexts(const Object& object, const char* attribute) { return readAllTexts(object, attribute); }

std::int64_t readInteger(const Object& object, const char* attribute) {
    const auto values = readIntegers(object, attribute);
    if (values.size() != 1) failRead(object, attribute, "one whole number");
    return values.front();
}

std::uint64_t readUnsigned(const Object& object, const char* attribute) {
    const OpenAttribute handle = open(object, attribute, H5T_INTEGER, "one whole number");
    std::uint64_t value = 0;
    if (handle.count != 1 || H5Aread(handle.handle.id(), H5T_NATIVE_UINT64, &value) < 0) failRead(object, attribute, "one whole number");
    return value;
}

double readNumber(const Object& object, const char* attribute) {
    const OpenAttribute handle = open(object, attribute, H5T_FLOAT, "one number");
    double value = 0;
    if (handle.count != 1 || H5Aread(handle.handle.id(), H5T_NATIVE_DOUBLE, &value) < 0) failRead(object, attribute, "one number");
    return value;
}

std::vector<std::int64_t> readIntegers(const Object& object, const char* attribute) {
    const OpenAttribute handle = open(object, attribute, H5T_INTEGER, "whole numbers");
    std::vector<std::int64_t> values(handle.count);
    if (handle.count > 0 && H5Aread(handle.handle.id(), H5T_NATIVE_INT64, values.data()) < 0) failRead(object, attribute, "whole numbers");
    return values;
}

}  // namespace resect::hdf5
