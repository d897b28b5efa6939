#include "core/worker/handlers_inspect.h"

#include "core/base/error.h"
#include "core/worker/comparing.h"
#include "core/worker/describe.h"
#include "core/worker/routing.h"
#include "core/worker/run_source.h"
#include "core/worker/server.h"
#include "core/worker/session.h"
#include "core/worker/tensor_look.h"

#include <algorithm>

namespace resect {

namespace {

constexpr int kMostRoutedTokens = 512, kMostCells = 256;

Json health(const OpenedCheckpoint& opened, const JobContext& job) {
    std::vector<Problem> problems = opened.checkpoint().problems();
    const auto values = findNonFinite(opened.checkpoint(), job);
    for (const auto& part : {opened.anatomy().problems(), values}) problems.insert(problems.end(), part.begin(), part.end());
    // A stopped scan ends with a note about where; what it found until then counts.
    const auto bad = std::count_if(values.begin(), values.end(), [](const Problem& problem) { return problem.severity == Severity::Error; });
    return {{"problems", describe(problems)}, {"badTensors", bad}, {"complete", !job.stopped()}};
}

Json routerTokens(OpenedCheckpoint& opened, const Json& args, const JobContext& job) {
    const Compute compute{args.value("device", "auto"), args.value("dtype", "")};
    const int most = std::clamp<int>(static_cast<int>(intField(args, "maxTokens", "router_tokens", 256)), 1, kMostRoutedTokens);
    if (args.contains("data") && args["data"].is_object())
        return toJson(routeRow(opened, args["data"].get<protocol::DataMessage>(), intField(args, "row", "router_tokens", 0), most, compute, job));
    return toJson(routeText(opened, stringField(args, "text", "router_tokens"), most, compute, job));
}

}  // namespace

void addInspectCalls(Server& server, const std::shared_ptr<Session>& session) {
    server.addQuestion("tensors", [session, list = std::make_shared<TensorList>()](const Json& args) { return list->rows(session->opened(), args); });
    server.addJob("tensor_look", [session](const Json& args, const JobContext& job, const Server::Partial&) {
        const auto cells = std::clamp<std::int64_t>(intField(args, "cells", "tensor_look", kMostCells), 1, kMostCells);
        return toJson(lookAtTensor(session->opened()->checkpoint(), stringField(args, "name", "tensor_look"), static_cast<int>(cells), job));
    });
    server.addJob("router_tokens", [session](const Json& args, const JobContext& job, const Server::Partial&) { return routerTokens(*session->opened(), args, job); });
    server.addJob("diff", [session](const Json& args, const JobContext& job, const Server::Partial&) {
        const auto opened = session->opened();
        const ExportSource source = resolveExportSource(stringField(args, "path", "diff"), job);
        const auto other = Checkpoint::open(source.checkpoint);
        return compareCheckpoints(opened->checkpoint(), other, args.value("shapesOnly", false), job);
    });
    server.addJob("health", [session](const Json&, const JobContext& job, const Server::Partial&) { return health(*session->opened(), job); });
}

}  // namespace resect
