#pragma once
#include "core/protocol/json.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

namespace resect {

/// Results of a long evaluation as JSON lines: a first row that says what they belong to, then one row for each finished task.
/// Rows are flushed one by one; a last row that was cut off by a crash is dropped when the file is opened again.
class TaskRecord {
public:
    /// Opens or creates the file. `header` is an object; every field of it must be equal in a file that exists. Throws Mismatch
    /// naming the field that differs, BadInput naming the line that is no row, NoPermission.
    TaskRecord(const std::filesystem::path& file, const Json& header);
    /// The row of the task at this place of its file (0-based) when it has this id, else null.
    const Json* find(std::int64_t index, const std::string& id) const;
    /// `row` has the fields `index` and `id`. Throws DiskFull.
    void add(const Json& row);

private:
    std::filesystem::path m_file;
    std::map<std::int64_t, Json> m_rows;
    std::ofstream m_out;
};

}  // namespace resect
