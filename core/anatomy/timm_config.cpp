#include "core/anatomy/timm_config.h"

#include "core/base/error.h"
#include "core/base/numbers.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string_view>
#include <vector>

namespace resect {

namespace {

struct Size {
    std::string_view word;
    int width, blocks, heads;
};
constexpr std::array kSizes{Size{"tiny", 192, 12, 3}, Size{"small", 384, 12, 6}, Size{"base", 768, 12, 12}, Size{"large", 1024, 24, 16}};

std::vector<std::string> wordsOf(std::string_view name) {
    std::vector<std::string> words;
    name = name.substr(0, name.find('.'));  // what follows the dot says how it was trained
    while (!name.empty()) {
        const std::size_t end = std::min(name.find('_'), name.size());
        words.emplace_back(name.substr(0, end));
        name.remove_prefix(std::min(end + 1, name.size()));
    }
    return words;
}

std::optional<int> number(std::string_view text) {
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc{} && end == text.data() + text.size() && value > 0 ? std::optional(value) : std::nullopt;
}

[[noreturn]] void unsupported(const std::string& subject, const std::string& message) {
    throw Error(ErrorCode::Unsupported, subject, message + "; of timm's models the plain vision transformers are known: vit and deit, tiny to large");
}

/// "vit_base_patch16_224", "deit_small_distilled_patch16_224".
Json sizesOf(const std::string& architecture, const std::string& subject) {
    const std::vector<std::string> words = wordsOf(architecture);
    if (words.size() < 3 || (words[0] != "vit" && words[0] != "deit")) unsupported(subject, "\"" + architecture + "\" is not implemented");
    Json vit{{"model_type", "timm_vit"}};
    bool sized = false;
    for (std::size_t i = 1; i < words.size(); ++i) {
        const auto size = std::find_if(kSizes.begin(), kSizes.end(), [&](const Size& row) { return row.word == words[i]; });
        if (size != kSizes.end() && !sized) {
            vit.update(Json{{"hidden_size", size->width}, {"num_hidden_layers", size->blocks}, {"num_attention_heads", size->heads}, {"intermediate_size", 4 * size->width}});
            sized = true;
        } else if (words[i] == "distilled") {
            vit["model_type"] = "timm_deit";
        } else if (const auto patch = words[i].starts_with("patch") ? number(std::string_view(words[i]).substr(5)) : std::nullopt) {
            vit["patch_size"] = *patch;
        } else if (const auto pixels = number(words[i])) {
            vit["image_size"] = *pixels;
        } else {
            unsupported(subject, "\"" + words[i] + "\" of \"" + architecture + "\" is not implemented");
        }
    }
    if (!sized || !vit.contains("patch_size")) unsupported(subject, "\"" + architecture + "\" names no size");
    return vit;
}

void takeArguments(Json& vit, const Json& arguments, const std::string& subject) {
    double mlpRatio = 4;
    for (const auto& [key, value] : arguments.items()) {
        const std::string where = subject + ": " + key;
        if (key == "embed_dim") vit["hidden_size"] = value;
        else if (key == "depth") vit["num_hidden_layers"] = value;
        else if (key == "num_heads") vit["num_attention_heads"] = value;
        else if (key == "patch_size") vit["patch_size"] = value;
        else if (key == "img_size") vit["image_size"] = value;
        else if (key == "in_chans") vit["num_channels"] = value;
        else if (key == "num_classes") vit["num_classes"] = value;
        else if (key == "qkv_bias") vit["qkv_bias"] = value;
        else if (key == "mlp_ratio") mlpRatio = numberField(arguments, "mlp_ratio", subject);
        else if (key == "global_pool" && value == "token") continue;
        else if (!key.ends_with("drop_rate") && key != "pretrained_strict") unsupported(where, "is not implemented");
    }
    if (!(mlpRatio > 0) || mlpRatio > 1e4) throw Error(ErrorCode::BadInput, subject + ": mlp_ratio", "expected a number above 0, found " + toText(mlpRatio));
    vit["intermediate_size"] = static_cast<std::int64_t>(static_cast<double>(intField(vit, "hidden_size", subject)) * mlpRatio);
}

}  // namespace

bool isTimmConfig(const Json& config) {
    if (!config.is_object() || !config.contains("architecture") || !config.at("architecture").is_string()) return false;
    const Json type = config.value("model_type", Json());
    return type.is_null() || type == "timm_wrapper" || type == "resect";
}

Json vitConfigOfTimm(const Json& config, const std::string& subject) {
    const std::string architecture = stringField(config, "architecture", subject);
    Json vit = sizesOf(architecture, subject + ": architecture");
    if (config.value("model_type", Json()) == "timm_wrapper") {
        if (vit["model_type"] == "timm_deit") unsupported(subject + ": architecture", "a distilled one inside timm_wrapper is not implemented");
        vit["model_type"] = "timm_wrapper";
    }
    vit["architectures"] = Json::array({architecture});
    vit["num_classes"] = intField(config, "num_classes", subject, 1000);
    if (const auto pool = config.find("global_pool"); pool != config.end() && *pool != "token") unsupported(subject + ": global_pool", "\"" + pool->dump() + "\" is not implemented");
    if (const auto pretrained = config.find("pretrained_cfg"); pretrained != config.end() && pretrained->is_object())
        if (const auto input = pretrained->find("input_size"); input != pretrained->end() && input->is_array() && input->size() == 3) {
            vit["num_channels"] = (*input)[0];
            vit["image_size"] = Json::array({(*input)[1], (*input)[2]});
        }
    const auto arguments = config.find("model_args");
    if (arguments != config.end() && !arguments->is_null()) {
        if (!arguments->is_object()) throw Error(ErrorCode::BadInput, subject + ": model_args", "expected an object, found " + arguments->dump());
        takeArguments(vit, *arguments, subject + ": model_args");
    }
    return vit;
}

Json timmConfigAfter(Json config, const ModelShape& before, const ModelShape& after) {
    Json& arguments = config["model_args"];
    if (arguments.is_null()) arguments = Json::object();
    if (after.numBlocks() != before.numBlocks()) arguments["depth"] = after.numBlocks();
    const int width = after.blocks.front().ffnSize;
    // timm rounds hidden size x ratio down.
    if (width != before.blocks.front().ffnSize) arguments["mlp_ratio"] = (width + 0.25) / static_cast<double>(after.hiddenSize);
    if (arguments.empty()) config.erase("model_args");
    return config;
}

}  // namespace resect
