#include "core/measure/task_record.h"

#include "core/base/error.h"
#include "core/base/files.h"

namespace resect {

namespace fs = std::filesystem;

TaskRecord::TaskRecord(const fs::path& file, const Json& header) : m_file(file) {
    std::uint64_t whole = 0;  // bytes up to the last finished row
    if (fs::exists(file)) {
        const std::string text = readFile(file);
        std::int64_t number = 0;
        for (std::size_t end = text.find('\n'); end != text.npos; end = text.find('\n', whole)) {
            const std::string where = file.string() + ": line " + std::to_string(++number);
            const Json row = parseJson(std::string_view(text).substr(whole, end - whole), where);
            if (!row.is_object()) throw Error(ErrorCode::BadInput, where, "expected a JSON object");
            if (number > 1) {
                stringField(row, "id", where);
                m_rows[intField(row, "index", where)] = row;
            } else {
                for (const auto& [field, value] : header.items()) {
                    const Json found = row.value(field, Json());
                    if (found != value)
                        throw Error(ErrorCode::Mismatch, file.string() + ": " + field,
                                    "the results there belong to " + found.dump() + ", this evaluation is of " + value.dump() + "; choose another file or remove it");
                }
            }
            whole = end + 1;
        }
        if (whole < text.size()) fs::resize_file(file, whole);
    }
    m_out.open(file, std::ios::binary | std::ios::app);
    if (!m_out) throw systemError(errno, file, "cannot write");
    if (whole == 0) {
        m_out << header.dump() << "\n" << std::flush;
        if (!m_out) throw systemError(errno, file, "cannot write");
    }
}

const Json* TaskRecord::find(std::int64_t index, const std::string& id) const {
    const auto found = m_rows.find(index);
    return found == m_rows.end() || found->second.at("id") != id ? nullptr : &found->second;
}

void TaskRecord::add(const Json& row) {
    m_out << row.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n" << std::flush;
    if (!m_out) throw systemError(errno, m_file, "cannot write");
    m_rows[row.at("index").get<std::int64_t>()] = row;
}

}  // namespace resect
