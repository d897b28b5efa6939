#pragma once
#include <hdf5.h>

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Owning handles over the HDF5 C interface and the few element types that Resect's files use. Private to core/workspace.
namespace resect::hdf5 {

/// Debian's HDF5 is not thread-safe: whoever calls into it holds this.
std::mutex& mutex();

/// An HDF5 id, closed at the end of the scope.
class Handle {
public:
    using Close = herr_t (*)(hid_t);
    Handle() = default;
    Handle(hid_t id, Close close) noexcept : m_id(id), m_close(close) {}
    ~Handle() { reset(); }
    Handle(Handle&& other) noexcept : m_id(std::exchange(other.m_id, -1)), m_close(other.m_close) {}
    Handle& operator=(Handle&& other) noexcept {
        reset();
        m_id = std::exchange(other.m_id, -1);
        m_close = other.m_close;
        return *this;
    }
    explicit operator bool() const noexcept { return m_id >= 0; }
    hid_t id() const noexcept { return m_id; }
    /// Closes now; false when that failed (data could not be flushed).
    bool reset() noexcept {
        const hid_t id = std::exchange(m_id, -1);
        return id < 0 || m_close(id) >= 0;
    }

private:
    hid_t m_id = -1;
    Close m_close = nullptr;
};

/// Keeps HDF5 from printing its error stack to stderr within the scope.
class Quiet {
public:
    Quiet();
    ~Quiet();
    Quiet(const Quiet&) = delete;
    Quiet& operator=(const Quiet&) = delete;

private:
    H5E_auto2_t m_function = nullptr;
    void* m_data = nullptr;
};

/// An object (file root or dataset) with a name for error messages. All functions throw BadInput or DiskFull naming it.
struct Object {
    hid_t id;
    std::string subject;
};

void writeText(const Object& object, const char* attribute, std::string_view text);
void writeTexts(const Object& object, const char* attribute, const std::vector<std::string>& texts);
void writeInteger(const Object& object, const char* attribute, std::int64_t value);
void writeUnsigned(const Object& object, const char* attribute, std::uint64_t value);
void writeNumber(const Object& object, const char* attribute, double value);
void writeIntegers(const Object& object, const char* attribute, const std::vector<std::int64_t>& values);

bool has(const Object& object, const char* attribute);
/// The readers throw BadInput when the attribute is absent or has another type or rank.
std::string readText(const Object& object, const char* attribute);
std::vector<std::string> readTexts(const Object& object, const char* attribute);
std::int64_t readInteger(const Object& object, const char* attribute);
std::uint64_t readUnsigned(const Object& object, const char* attribute);
double readNumber(const Object& object, const char* attribute);
std::vector<std::int64_t> readIntegers(const Object& object, const char* attribute);

}  // namespace resect::hdf5
