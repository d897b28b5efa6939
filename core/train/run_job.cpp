#include "core/train/run_job.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/surgery/edit_plan.h"
#include "core/train/recipe.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace resect {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kJobVersion = 1;

void refuseUnknown(const Json& object, std::initializer_list<std::string_view> known, const std::string& subject) {
    for (const auto& [key, unused] : object.items()) {
        if (std::ranges::find(known, key) == known.end()) throw Error(ErrorCode::BadInput, subject, key + ": is no field of a run job");
    }
}

const Json& objectField(const Json& object, const char* field, const std::string& subject) {
    const auto found = object.find(field);
    if (found == object.end()) throw Error(ErrorCode::BadInput, subject, std::string(field) + ": expected an object, found nothing");
    if (!found->is_object()) throw Error(ErrorCode::BadInput, subject, std::string(field) + ": expected an object, found " + found->dump());
    return *found;
}

std::int64_t countField(const Json& object, const char* field, const std::string& subject) {
    const auto value = intField(object, field, subject, 0);
    if (value < 0) throw Error(ErrorCode::BadInput, subject, std::string(field) + ": expected at least 0, found " + std::to_string(value));
    return value;
}

RunData readData(const Json& json, const std::string& subject) {
    refuseUnknown(json, {"file", "maxRows", "maxBytes", "imageAspect"}, subject);
    RunData data{stringField(json, "file", subject), countField(json, "maxRows", subject), 0};
    data.imageAspect = stringField(json, "imageAspect", subject, "");
    if (!data.imageAspect.empty() && data.imageAspect != "pad") throw Error(ErrorCode::BadInput, subject, "imageAspect: expected pad, found " + data.imageAspect);
    data.maxBytes = static_cast<std::uint64_t>(countField(json, "maxBytes", subject));
    if (data.file.empty()) throw Error(ErrorCode::BadInput, subject, "file: expected a path, found an empty text");
    return data;
}

Json dataJson(const RunData& data) {
    Json json{{"file", data.file.string()}, {"maxRows", data.maxRows}, {"maxBytes", data.maxBytes}};
    if (!data.imageAspect.empty()) json["imageAspect"] = data.imageAspect;
    return json;
}

}  // namespace

RunJob RunJob::fromJson(const Json& json, const std::string& subject) {
    if (!json.is_object()) throw Error(ErrorCode::BadInput, subject, "expected an object, found " + std::string(json.type_name()));
    refuseUnknown(json, {"resect_run", "recipe", "set", "source", "plan", "reference", "control", "data", "evalData", "device", "dtype", "seed", "threads"}, subject);
    if (const auto version = intField(json, "resect_run", subject); version != kJobVersion)
        throw Error(ErrorCode::BadInput, subject, "resect_run: expected version 1, found " + std::to_string(version));
    RunJob job;
    job.recipe = stringField(json, "recipe", subject);
    if (json.contains("set") && !json["set"].is_null()) job.parameters = objectField(json, "set", subject);
    const auto& source = objectField(json, "source", subject);
    refuseUnknown(source, {"path", "fingerprint"}, subject + ": source");
    job.source = stringField(source, "path", subject + ": source");
    job.sourceFingerprint = stringField(source, "fingerprint", subject + ": source", "");
    if (json.contains("plan") && !json["plan"].is_null()) job.plan = objectField(json, "plan", subject);
    job.reference = stringField(json, "reference", subject, "");
    job.control = stringField(json, "control", subject, "");
    job.data = readData(objectField(json, "data", subject), subject + ": data");
    if (json.contains("evalData") && !json["evalData"].is_null()) job.evalData = readData(objectField(json, "evalData", subject), subject + ": evalData");
    job.device = stringField(json, "device", subject, job.device);
    job.dtype = stringField(json, "dtype", subject, job.dtype);
    job.seed = static_cast<std::uint64_t>(countField(json, "seed", subject));
    job.threads = static_cast<int>(countField(json, "threads", subject));
    if (job.source.empty()) throw Error(ErrorCode::BadInput, subject, "source.path: expected a path, found an empty text");
    constexpr std::array kDtypes{"f32", "bf16", "float32", "bfloat16"};
    if (std::ranges::find(kDtypes, job.dtype) == kDtypes.end())
        throw Error(ErrorCode::BadInput, subject, "dtype: training runs in f32 or bf16, found " + job.dtype);
    const auto options = trainOptions(resect::recipe(job.recipe), job.parameters);
    if (options.recipe->origin() == Recipe::Origin::RandomWeights && !job.plan.is_null()) throw Error(ErrorCode::BadInput, subject, "plan: nothing can be cut from a model that is trained from nothing");
    if (!job.plan.is_null()) EditPlan::fromJson(job.plan, subject + ": plan");
    return job;
}

Json RunJob::toJson() const {
    Json json{{"resect_run", kJobVersion}, {"recipe", recipe}, {"set", parameters}};
    json["source"] = {{"path", source.string()}, {"fingerprint", sourceFingerprint}};
    json["plan"] = plan;
    if (!reference.empty()) json["reference"] = reference.string();
    if (!control.empty()) json["control"] = control.string();
    json["data"] = dataJson(data);
    json["evalData"] = evalData.file.empty() ? Json() : dataJson(evalData);
    json["device"] = device;
    json["dtype"] = dtype;
    json["seed"] = seed;
    json["threads"] = threads;
    return json;
}

RunJob controlOf(const RunJob& job) {
    if (job.plan.is_null()) throw Error(ErrorCode::Usage, "control", "nothing is cut, so the run would be its own control; give a plan, or leave the control out");
    auto control = job;
    control.plan = Json();
    control.control.clear();
    return control;
}

void createRun(const fs::path& folder, const RunJob& job) {
    if (fs::exists(folder / "job.json")) throw Error(ErrorCode::BadInput, folder.string(), "already holds a run; choose another folder, or resume that run");
    if (!job.control.empty()) createRun(job.control, controlOf(job));
    std::error_code failure;
    fs::create_directories(folder, failure);
    if (failure) throw Error(ErrorCode::NoPermission, folder.string(), "cannot be created: " + failure.message());
    // The run may be resumed from elsewhere.
    auto lasting = job;
    for (auto* path : {&lasting.source, &lasting.reference, &lasting.control, &lasting.data.file, &lasting.evalData.file}) {
        if (!path->empty()) *path = fs::absolute(*path).lexically_normal();
    }
    writeJsonFile(folder / "job.json", lasting.toJson());
}

RunJob readRunJob(const fs::path& folder) {
    const auto file = folder / "job.json";
    return RunJob::fromJson(readJsonFile(file), file.string());
}

}  // namespace resect
