#pragma once
#include "core/anatomy/model_shape.h"
#include "core/data/image_resize.h"
#include "core/protocol/json.h"

#include <array>
#include <filesystem>
#include <string>
#include <vector>

namespace resect {

/// What is done to a picture before a model sees it: to the model's channels, padded to a square (if asked), resized, cropped, scaled, normalised.
struct ImagePreparation {
    enum class Size {
        Keep,      ///< do_resize is false
        Exact,     ///< {"height", "width"}: whatever the sides' ratio
        Shortest,  ///< {"shortest_edge"}: the longer side follows, cut down to an integer; {"longest_edge"} beside it caps that one
        Longest,   ///< {"longest_edge"}
        Within     ///< {"max_height", "max_width"}
    };
    int channels = 3, height = 0, width = 0;       ///< what the model runs
    bool padToSquare = false;                      ///< with the mean colour first (LLaVA's image_aspect_ratio "pad")
    Size size = Size::Exact;
    int sizeHeight = 0, sizeWidth = 0;             ///< Exact, Within
    int edge = 0, cap = 0;                         ///< Shortest, Longest; cap 0 = none
    Resample filter = Resample::Bilinear;
    bool crop = false;
    int cropHeight = 0, cropWidth = 0;
    CropRule cropRule = CropRule::HuggingFace;
    bool rescale = true;
    double factor = 1.0 / 255;
    bool normalise = true;
    std::vector<double> mean, std;                 ///< one per channel
    std::string source;                            ///< the file that says so, or what was assumed
    bool assumed = false;                          ///< no file says so

    /// The picture in 8 bits at the model's size. Throws BadInput with `subject` when its size is not what the model runs and nothing changes it.
    Image prepared(Image image, const std::string& subject) const;
    /// The value that a sample becomes, [channels][256], with the roundings of Hugging Face's NumPy code: v x factor in f64 to f32, then
    /// (x - mean) / std in f32.
    std::vector<std::array<float, 256>> table() const;
    /// "resized to 28 x 28 (bilinear), scaled by 1/255, mean 0.5, std 0.5"
    std::string words() const;
    Json key() const;   ///< everything that changes pixels
};

/// Reads how a checkpoint wants its pictures: preprocessor_config.json; else `image_processor` of processor_config.json; else timm's `pretrained_cfg`
/// (of any of these, or of config.json). Fields that a Hugging Face image processor leaves out have the defaults of its class (ViT, DeiT, CLIP,
/// ChineseCLIP, Beit, Siglip, Blip, Bit, ConvNext, Llava; an integer `size` is a square or a shortest edge as that class has it); of other classes they
/// must be there. Without any of the files: scaled to the model's size as the family's class does, with its mean and std; `assumed` is then true.
/// `image_aspect_ratio` "pad" in one of the files, or `padToSquare`, pads first.
/// Throws BadInput naming file and field: of the wrong type or length, or a result of another size than the model runs; Unsupported for a
/// crop_mode that is neither "center" nor "squash".
ImagePreparation readImagePreparation(const std::filesystem::path& folder, const ModelShape& shape, bool padToSquare = false);

}  // namespace resect
