#include "core/protocol/workspace_file.h"

#include "core/base/error.h"

namespace resect::protocol {

namespace fs = std::filesystem;

namespace {
constexpr std::int64_t kVersion = 1;
}

WorkspaceFile WorkspaceFile::fromJson(const Json& json, const fs::path& folder, const std::string& subject) {
    if (!json.is_object() || !json.contains("resect_workspace")) throw Error(ErrorCode::BadInput, subject, "expected a workspace (the field resect_workspace)");
    if (const auto version = intField(json, "resect_workspace", subject); version != kVersion)
        throw Error(ErrorCode::Unsupported, subject + ": resect_workspace", "was written by a newer Resect (version " + std::to_string(version) + ", this one reads 1)");
    WorkspaceFile file;
    file.others = json;
    for (const char* field : {"resect_workspace", "checkpoint", "checkpoint_relative", "fingerprint", "selections", "layout"}) file.others.erase(field);
    file.checkpoint = stringField(json, "checkpoint", subject);
    const fs::path beside = stringField(json, "checkpoint_relative", subject, "");
    std::error_code ignored;
    if (!file.checkpoint.empty() && !fs::exists(file.checkpoint, ignored) && !beside.empty() && fs::exists(folder / beside, ignored))
        file.checkpoint = fs::weakly_canonical(folder / beside, ignored);
    file.fingerprint = stringField(json, "fingerprint", subject);
    readField(json, "selections", file.selections);
    readField(json, "layout", file.layout);
    for (const auto& [field, value] : {std::pair{"selections", &file.selections}, {"layout", &file.layout}}) {
        if (value->is_null()) *value = Json::object();
        if (!value->is_object()) throw Error(ErrorCode::BadInput, subject + ": " + field, "expected an object, found " + std::string(value->type_name()));
    }
    return file;
}

Json WorkspaceFile::toJson(const fs::path& folder) const {
    std::error_code failed;
    const fs::path beside = checkpoint.empty() ? fs::path() : fs::relative(checkpoint, folder, failed);
    Json json{{"resect_workspace", kVersion},
              {"checkpoint", checkpoint.empty() ? "" : fs::absolute(checkpoint).string()},
              {"checkpoint_relative", failed ? "" : beside.string()},
              {"fingerprint", fingerprint},
              {"selections", selections},
              {"layout", layout}};
    for (const auto& [field, value] : others.items()) json[field] = value;
    return json;
}

}  // namespace resect::protocol
