#pragma once
#include "core/base/job.h"
#include "core/checkpoint/checkpoint.h"
#include "core/models/extension.h"
#include "plugins/router_tuning/routing.h"

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace resect::router {

/// Trained routers on the disk: `routers.safetensors` with `model.layers.N.router.weight` [1, D] (the authors' names) and `router_config.json` with
/// their keys (is_mod, granularity, threshold, mod_capacity, gradient_scale) and ours.
struct RouterAdapter {
    GateOptions gate;
    std::string base, fingerprint;   ///< folder and fingerprint of the checkpoint they were trained on
    std::string prefix;              ///< of a block's tensors: "model.layers."
    int numBlocks = 0;
    std::map<int, torch::Tensor> weights;  ///< by block, on the CPU
    Json training;                   ///< parameters, and where the training stands
    Json capacity;                   ///< what was asked for and what was reached: {"target", "overall", "blocks": {"3": 0.5}}; null = not known
};

bool isRouterAdapter(const std::filesystem::path& folder);
/// Into an existing folder.
void writeRouterAdapter(const std::filesystem::path& folder, const RouterAdapter& adapter);
/// Throws NotFound, Corrupt, BadInput naming file and field or tensor.
RouterAdapter readRouterAdapter(const std::filesystem::path& folder);
/// Throws Mismatch naming the tensor when the routers are not made for a model of this shape.
void checkFits(const RouterAdapter& adapter, const ModelShape& shape, const std::string& subject);

/// The base with the routers beside it, as a checkpoint in the new folder `to` that Resect runs: all of the base's tensors as they are,
/// routers.safetensors, and resect.json that names them. config.json says "resect", so that no other program takes it for the dense model.
void writeRoutedCheckpoint(const Checkpoint& base, const RouterAdapter& adapter, const std::filesystem::path& to, const JobContext& job);

/// Runs such a checkpoint.
std::shared_ptr<const ModelExtension> routerExtension();
inline constexpr const char* kExtensionId = "router-tuning";

}  // namespace resect::router
