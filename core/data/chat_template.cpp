#include "core/data/chat_template.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/data/jinja_eval.h"

#include <algorithm>
#include <map>

namespace resect {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxTemplate = 4 << 20;

struct Source {
    std::string text, subject;
};

/// A field that is a template or a list of named ones.
void addTemplates(const Json& field, const std::string& subject, std::map<std::string, Source>& found) {
    if (field.is_null()) return;
    if (field.is_string()) {
        found.emplace("default", Source{field.get<std::string>(), subject});
        return;
    }
    if (field.is_object()) {  // some files write the list as {"name": "template"}
        for (const auto& [name, text] : field.items()) {
            if (!text.is_string()) throw Error(ErrorCode::BadInput, subject + "." + name, "expected a text");
            found.emplace(name, Source{text.get<std::string>(), subject + "." + name});
        }
        return;
    }
    if (!field.is_array()) throw Error(ErrorCode::BadInput, subject, "expected a text or a list of {\"name\", \"template\"}");
    std::size_t index = 0;
    for (const Json& entry : field) {
        const std::string where = subject + "[" + std::to_string(index++) + "]";
        if (!entry.is_object()) throw Error(ErrorCode::BadInput, where, "expected an object with 'name' and 'template'");
        const std::string name = stringField(entry, "name", where);
        found.emplace(name, Source{stringField(entry, "template", where), where + " ('" + name + "')"});
    }
}

void addFrom(const fs::path& file, std::map<std::string, Source>& found) {
    if (!fs::exists(file)) return;
    const Json json = readJsonFile(file);
    if (json.is_object() && json.contains("chat_template"))
        addTemplates(json["chat_template"], file.string() + ": chat_template", found);
}

std::map<std::string, Source> templatesOf(const fs::path& folder) {
    std::map<std::string, Source> found;
    if (const auto file = folder / "chat_template.jinja"; fs::exists(file)) {
        found.emplace("default", Source{readFile(file, kMaxTemplate), file.string()});
        if (const auto more = folder / "additional_chat_templates"; fs::is_directory(more))
            for (const auto& entry : fs::directory_iterator(more))
                if (entry.path().extension() == ".jinja")
                    found.emplace(entry.path().stem().string(),
                                  Source{readFile(entry.path(), kMaxTemplate), entry.path().string()});
        return found;
    }
    addFrom(folder / "chat_template.json", found);
    if (found.empty()) addFrom(folder / "tokenizer_config.json", found);
    return found;
}

}  // namespace

struct ChatTemplate::Parsed {
    jinja::Body body;
    bool marksGeneration = false;
};

namespace {

bool hasGeneration(const jinja::Body& body) {
    return std::any_of(body.begin(), body.end(), [](const jinja::Statement& statement) {
        return statement.kind == jinja::StatementKind::Generation || hasGeneration(statement.body) ||
               hasGeneration(statement.otherwise) ||
               std::any_of(statement.branches.begin(), statement.branches.end(),
                           [](const jinja::Branch& branch) { return hasGeneration(branch.body); });
    });
}

/// Adds the template's name to an error that names the line.
template <class Action>
auto named(const std::string& subject, Action action) {
    try {
        return action();
    } catch (const Error& error) {
        throw Error(error.code(), subject + ": " + error.subject(), error.message());
    }
}

}  // namespace

ChatTemplate::ChatTemplate(std::string source, std::string subject, Json tokens)
    : m_source(std::move(source)), m_subject(std::move(subject)), m_tokens(std::move(tokens)) {
    auto parsed = std::make_shared<Parsed>();
    parsed->body = named(m_subject, [&] { return jinja::parse(m_source); });
    parsed->marksGeneration = hasGeneration(parsed->body);
    m_parsed = std::move(parsed);
}

std::unique_ptr<ChatTemplate> ChatTemplate::find(const fs::path& folder, const std::string& name) {
    const auto found = templatesOf(folder);
    if (found.empty()) return nullptr;
    auto chosen = found.find(name);
    if (chosen == found.end() && name == "default" && found.size() == 1) chosen = found.begin();
    if (chosen == found.end()) {
        std::string names;
        for (const auto& entry : found) names += (names.empty() ? "'" : ", '") + entry.first + "'";
        throw Error(ErrorCode::NotFound, folder.string(), "has no chat template '" + name + "', but " + names);
    }
    return std::make_unique<ChatTemplate>(chosen->second.text, chosen->second.subject, specialTokenTexts(folder));
}

RenderedChat ChatTemplate::render(const Json& fields) const {
    Json context = m_tokens;
    context["tools"] = nullptr;
    context["documents"] = nullptr;
    context["add_generation_prompt"] = false;
    for (const auto& [name, value] : fields.items()) context[name] = value;
    return named(m_subject, [&] {
        jinja::Rendered rendered = jinja::render(m_parsed->body, context, m_now.value_or(std::time(nullptr)));
        return RenderedChat{std::move(rendered.text), std::move(rendered.generated)};
    });
}

RenderedChat ChatTemplate::renderMessages(const Json& messages, bool addGenerationPrompt) const {
    return render(Json{{"messages", messages}, {"add_generation_prompt", addGenerationPrompt}});
}

bool ChatTemplate::marksGeneration() const noexcept { return m_parsed->marksGeneration; }

Json specialTokenTexts(const fs::path& folder) {
    Json tokens = Json::object();
    for (const char* name : {"special_tokens_map.json", "tokenizer_config.json"}) {
        const fs::path file = folder / name;
        if (!fs::exists(file)) continue;
        const Json json = readJsonFile(file);
        if (!json.is_object()) throw Error(ErrorCode::BadInput, file.string(), "expected an object");
        for (const auto& [field, value] : json.items()) {
            if (!field.ends_with("_token")) continue;
            if (value.is_string())
                tokens[field] = value;
            else if (value.is_object() && value.contains("content") && value["content"].is_string())
                tokens[field] = value["content"];
            else if (value.is_null())
                tokens.erase(field);
        }
    }
    return tokens;
}

}  // namespace resect
