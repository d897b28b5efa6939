#pragma once
#include "core/anatomy/model_shape.h"
#include "core/protocol/json.h"

#include <string>

namespace resect {

/// Is this the config.json of a timm vision transformer: `architecture` says the sizes, `model_args` what differs from it? Alone as timm writes it to
/// the hub, or inside transformers' `timm_wrapper`. Of one whose shapes stand in resect.json `model_type` is "resect".
bool isTimmConfig(const Json& config);
/// The same as a ViT's configuration, `model_type` "timm_vit", "timm_deit" (with a distillation token) or "timm_wrapper".
/// Throws Unsupported for an architecture or an argument that is not implemented, naming it; BadInput for wrong fields.
Json vitConfigOfTimm(const Json& config, const std::string& subject);
/// `config` for the shape that a cut leaves: `depth` and `mlp_ratio` among its `model_args`. The head size follows from the number of heads in timm, so that
/// heads cannot be said.
Json timmConfigAfter(Json config, const ModelShape& before, const ModelShape& after);

}  // namespace resect
