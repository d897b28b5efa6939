#pragma once
#include "core/anatomy/model_shape.h"
#include "core/data/row_report.h"

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace resect {

/// The labels of a classifier and their names (`id2label` of config.json), for matching those of a data set.
class ClassLabels {
public:
    /// Throws BadInput for an id2label that is no object of names by number.
    ClassLabels(const std::filesystem::path& folder, const ModelShape& shape);
    int count() const noexcept { return m_count; }          ///< 0 = the model has no classifier
    std::string name(std::int64_t label) const;             ///< "label 3" where config.json names none
    /// The label itself. Throws BadInput with `subject` outside [0, count).
    std::int64_t checked(std::int64_t label, const std::string& subject) const;
    /// Labels of class folders; `how` says in words what was done. Throws BadInput naming the folder that fits nothing, or two that fit one label.
    std::vector<std::int64_t> ofFolders(const std::vector<std::string>& folders, const std::string& subject, std::string& how);
    bool guessed() const noexcept { return m_guessed; }     ///< ofFolders() went by the order of the folders
    /// File names (relative, as they stand there) with labels. Rows that cannot be used are rejected by number. Throws BadInput for a label out of range.
    std::map<std::string, std::int64_t> readCsv(const std::filesystem::path& file, RowReport& report) const;

private:
    std::int64_t find(const std::string& name) const;       ///< -1 = none
    int m_count = 0;
    std::map<std::string, std::int64_t> m_byName;           ///< in the spelling of plain()
    std::map<std::int64_t, std::string> m_names;
    bool m_guessed = false;
};

}  // namespace resect
