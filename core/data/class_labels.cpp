#include "core/data/class_labels.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/numbers.h"
#include "core/data/dataset.h"
#include "core/protocol/json.h"

#include <algorithm>
#include <cctype>
#include <set>

namespace resect {
namespace {

namespace fs = std::filesystem;

/// For comparing: lower case, blanks for underscores, nothing around it.
std::string plain(std::string_view name) {
    std::string text;
    for (const char c : name) text += c == '_' ? ' ' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    const auto first = text.find_first_not_of(" \t\r\n\"");
    return first == text.npos ? "" : text.substr(first, text.find_last_not_of(" \t\r\n\"") - first + 1);
}

/// A file's first field and the rest of the line; either may stand between quotes.
std::pair<std::string, std::string> fields(const std::string& line) {
    const bool quoted = line.starts_with("\"");
    const auto end = quoted ? line.find("\",", 1) : line.find(',');
    if (end == line.npos) return {line, ""};
    const auto trimmed = [](std::string text) {
        const auto first = text.find_first_not_of(" \t\r\"");
        return first == text.npos ? std::string() : text.substr(first, text.find_last_not_of(" \t\r\"") - first + 1);
    };
    return {trimmed(line.substr(0, end)), trimmed(line.substr(end + (quoted ? 2 : 1)))};
}

}  // namespace

ClassLabels::ClassLabels(const fs::path& folder, const ModelShape& shape) : m_count(shape.image ? shape.image->labels : 0) {
    if (!fs::exists(folder / "config.json")) return;
    const Json config = readJsonFile(folder / "config.json");
    const auto found = config.find("id2label");
    if (found == config.end() || found->is_null()) return;
    const std::string subject = (folder / "config.json").string() + ": id2label";
    if (!found->is_object()) throw Error(ErrorCode::BadInput, subject, "expected an object of names by number, found " + std::string(found->type_name()));
    for (const auto& [key, value] : found->items()) {
        const auto label = parseInt(key);
        if (!label || !value.is_string()) throw Error(ErrorCode::BadInput, subject, "expected names by number, found \"" + key + "\": " + value.dump());
        m_names[*label] = value.get<std::string>();
    }
    // Whole names first: a part between commas must not hide another label's name.
    for (const auto& [label, text] : m_names) m_byName.try_emplace(plain(text), label);
    std::map<std::string, std::set<std::int64_t>> parts;
    for (const auto& [label, text] : m_names) {
        std::size_t from = 0;
        while (from <= text.size()) {
            const std::size_t end = std::min(text.find(',', from), text.size());
            parts[plain(text.substr(from, end - from))].insert(label);
            from = end + 1;
        }
    }
    for (const auto& [text, labels] : parts)
        if (labels.size() == 1) m_byName.try_emplace(text, *labels.begin());
}

std::string ClassLabels::name(std::int64_t label) const {
    const auto found = m_names.find(label);
    return found != m_names.end() ? found->second : "label " + toText(label);
}

std::int64_t ClassLabels::checked(std::int64_t label, const std::string& subject) const {
    if (label < 0 || label >= m_count) throw Error(ErrorCode::BadInput, subject, "label " + toText(label) + " is out of range; the model has labels 0 to " + toText(m_count - 1));
    return label;
}

std::int64_t ClassLabels::find(const std::string& name) const {
    const auto found = m_byName.find(plain(name));
    return found == m_byName.end() || found->second >= m_count ? -1 : found->second;
}

std::vector<std::int64_t> ClassLabels::ofFolders(const std::vector<std::string>& folders, const std::string& subject, std::string& how) {
    const auto each = [&](const auto& labelOf) {
        std::vector<std::int64_t> labels;
        for (const std::string& folder : folders) labels.push_back(labelOf(folder));
        return labels;
    };
    const auto fit = [](const std::vector<std::int64_t>& labels) { return std::ranges::count(labels, -1) == 0; };
    const auto requireDistinct = [&](const std::vector<std::int64_t>& labels) {
        std::map<std::int64_t, std::string> seen;
        for (std::size_t i = 0; i < labels.size(); ++i)
            if (const auto [other, isNew] = seen.try_emplace(labels[i], folders[i]); !isNew)
                throw Error(ErrorCode::BadInput, subject, "folders " + other->second + " and " + folders[i] + " are both label " + toText(labels[i]));
    };
    m_guessed = false;
    const auto byName = each([&](const std::string& folder) { return find(folder); });
    const auto byNumber = each([&](const std::string& folder) {
        const auto number = parseInt(folder);
        return number && *number >= 0 && *number < m_count ? *number : -1;
    });
    const std::string classes = formatThousands(static_cast<std::int64_t>(folders.size())) + (folders.size() == 1 ? " class" : " classes");
    if (fit(byName) || fit(byNumber)) {
        const auto& labels = fit(byName) ? byName : byNumber;
        requireDistinct(labels);
        how = classes + " by the " + (fit(byName) ? "names" : "numbers") + " of their folders";
        return labels;
    }
    if (static_cast<int>(folders.size()) == m_count) {
        m_guessed = true;
        how = "the folders' names are no labels of the model; they are taken in their order as labels 0 to " + toText(m_count - 1);
        std::vector<std::int64_t> labels(folders.size());
        for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::int64_t>(i);
        return labels;
    }
    const auto stray = static_cast<std::size_t>(std::ranges::find(byName, -1) - byName.begin());
    throw Error(ErrorCode::BadInput, subject, "folder " + folders[stray] + " is no label of the model's " + formatThousands(m_count) + " (such as " + name(0) + "), and there are " + classes +
                                                  "; name the folders as id2label of config.json does, number them, or give a labels.csv");
}

std::map<std::string, std::int64_t> ClassLabels::readCsv(const fs::path& file, RowReport& report) const {
    std::map<std::string, std::int64_t> labels;
    const std::string text = readFile(file, 1ull << 30);
    std::int64_t number = 0;
    for (std::size_t from = 0; from < text.size();) {
        const std::size_t end = std::min(text.find('\n', from), text.size());
        std::string line = text.substr(from, end - from);
        from = end + 1;
        if (++number == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
        if (line.find_first_not_of(" \t\r") == line.npos) continue;
        const auto [name, label] = fields(line);
        const std::string where = "labels.csv, line " + toText(number);
        const std::int64_t known = m_count > 0 ? find(label) : -1;
        const auto value = known >= 0 ? std::optional(known) : parseInt(label);
        if (name.empty() || (label.empty() && m_count > 0)) {
            report.rejected(where, "expected a file and a label with a comma between");
        } else if (m_count == 0) {
            labels[name] = kIgnoredTarget;
        } else if (value) {
            labels[name] = checked(*value, file.string() + ": line " + toText(number));
        } else if (number > 1) {  // the first line may be a head
            report.rejected(where, "\"" + label + "\" is no label of the model");
        }
    }
    return labels;
}

}  // namespace resect
