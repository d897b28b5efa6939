#include "core/data/image_preparation.h"

#include "core/base/error.h"
#include "core/base/numbers.h"

#include <algorithm>
#include <cmath>
#include <string_view>

namespace resect {
namespace {

namespace fs = std::filesystem;

constexpr std::array kHalf{0.5, 0.5, 0.5}, kImageNetMean{0.485, 0.456, 0.406}, kImageNetStd{0.229, 0.224, 0.225},
    kClipMean{0.48145466, 0.4578275, 0.40821073}, kClipStd{0.26862954, 0.26130258, 0.27577711};

/// What a class of image processors does when its file is silent.
struct Processor {
    std::string_view name;
    bool integerIsSquare, crops;
    Resample filter;
    std::array<double, 3> mean, std;
};
constexpr std::array kProcessors{
    Processor{"ViT", true, false, Resample::Bilinear, kHalf, kHalf},          Processor{"DeiT", true, true, Resample::Bicubic, kHalf, kHalf},
    Processor{"CLIP", false, true, Resample::Bicubic, kClipMean, kClipStd},   Processor{"ChineseCLIP", false, true, Resample::Bicubic, kClipMean, kClipStd},
    Processor{"Llava", false, true, Resample::Bicubic, kClipMean, kClipStd},  Processor{"Bit", false, true, Resample::Bicubic, kClipMean, kClipStd},
    Processor{"Beit", true, true, Resample::Bicubic, kHalf, kHalf},           Processor{"Siglip", true, false, Resample::Bicubic, kHalf, kHalf},
    Processor{"Blip", true, false, Resample::Bicubic, kClipMean, kClipStd},   Processor{"ConvNext", false, false, Resample::Bilinear, kHalf, kHalf},
};

const Processor* findProcessor(std::string_view name) {
    for (const std::string_view ending : {"Fast", "ImageProcessor", "FeatureExtractor"})
        if (name.ends_with(ending)) name.remove_suffix(ending.size());
    const auto found = std::ranges::find(kProcessors, name, &Processor::name);
    return found == kProcessors.end() ? nullptr : &*found;
}

const Processor* processorOfFamily(const std::string& modelType) {
    if (modelType == "vit") return findProcessor("ViT");
    if (modelType == "deit") return findProcessor("DeiT");
    return modelType.starts_with("clip") ? findProcessor("CLIP") : modelType == "llava" ? findProcessor("Llava") : nullptr;
}

/// The fields of one object, with errors that name them.
class Reader {
public:
    Reader(const Json& json, std::string subject, const ModelShape& shape) : m_json(json), m_subject(std::move(subject)), m_image(*shape.image) {
        m_result.channels = m_image.channels;
        m_result.height = m_image.height;
        m_result.width = m_image.width;
        m_result.source = m_subject;
    }

    ImagePreparation huggingFace(const ModelShape& shape) {
        m_type = stringField(m_json, "image_processor_type", m_subject, stringField(m_json, "feature_extractor_type", m_subject, ""));
        m_processor = m_type.empty() ? processorOfFamily(shape.modelType) : findProcessor(m_type);
        readFilter("resample");
        readSize();
        readCrop();
        m_result.rescale = boolField(m_json, "do_rescale", m_subject, true);
        m_result.factor = numberField(m_json, "rescale_factor", m_subject, 1.0 / 255);
        m_result.normalise = boolField(m_json, "do_normalize", m_subject, true);
        if (m_result.normalise) {
            m_result.mean = perChannel("image_mean", m_processor ? &m_processor->mean : nullptr);
            m_result.std = perChannel("image_std", m_processor ? &m_processor->std : nullptr);
        }
        return finished();
    }

    /// timm's pretrained_cfg: its evaluation transform, through torchvision.
    ImagePreparation timm() {
        if (const Json* size = find("input_size")) {
            const bool good = size->is_array() && size->size() == 3 && std::ranges::all_of(*size, [](const Json& n) { return n.is_number_integer(); });
            if (!good) bad("input_size", "expected [channels, height, width], found " + size->dump());
            if ((*size)[0] != m_image.channels || (*size)[1] != m_image.height || (*size)[2] != m_image.width)
                bad("input_size", "expected [" + toText(m_image.channels) + ", " + toText(m_image.height) + ", " + toText(m_image.width) + "] as the model runs, found " + size->dump());
        }
        readFilter("interpolation");
        const double share = numberField(m_json, "crop_pct", m_subject, 0.875);
        if (!(share > 0 && share <= 1)) bad("crop_pct", "expected a share above 0 and at most 1, found " + toText(share));
        const int height = int(std::floor(m_image.height / share)), width = int(std::floor(m_image.width / share));
        const std::string mode = stringField(m_json, "crop_mode", m_subject, "center");
        if (mode != "center" && mode != "squash") throw Error(ErrorCode::Unsupported, m_subject + ": crop_mode", "expected center or squash, found " + mode);
        const bool exact = mode == "squash" || height != width;
        m_result.size = exact ? ImagePreparation::Size::Exact : ImagePreparation::Size::Shortest;
        if (exact) m_result.sizeHeight = height, m_result.sizeWidth = width;
        else m_result.edge = height;
        m_result.crop = true;
        m_result.cropRule = CropRule::Torchvision;
        m_result.cropHeight = m_image.height;
        m_result.cropWidth = m_image.width;
        m_result.mean = perChannel("mean", &kImageNetMean);
        m_result.std = perChannel("std", &kImageNetStd);
        return finished();
    }

    [[noreturn]] void bad(std::string_view field, const std::string& why) const { throw Error(ErrorCode::BadInput, m_subject + ": " + std::string(field), why); }

private:
    const Json* find(const char* field) const {
        const auto at = m_json.find(field);
        return at == m_json.end() || at->is_null() ? nullptr : &*at;
    }

    void readFilter(const char* field) {
        const Json* value = find(field);
        if (!value) {
            m_result.filter = m_processor ? m_processor->filter : Resample::Bicubic;
            if (!m_processor && !m_type.empty() && boolField(m_json, "do_resize", m_subject, true)) missing(field);
            return;
        }
        for (int i = 0; i <= int(Resample::Hamming); ++i)
            if ((value->is_number_integer() && *value == i) || (value->is_string() && *value == name(Resample(i)))) {
                m_result.filter = Resample(i);
                return;
            }
        bad(field, "expected 0 to 5 (nearest, lanczos, bilinear, bicubic, box, hamming), found " + value->dump());
    }

    [[noreturn]] void missing(const char* field) const {
        bad(field, "is not there, and " + (m_type.empty() ? std::string("the file names no image processor whose default could be taken") : m_type + " is not known, so its default is not either"));
    }

    int pixels(const Json& value, const std::string& field) const {
        if (!value.is_number_integer() || value < 1 || value > 65'536) bad(field, "expected 1 to 65,536 pixels, found " + value.dump());
        return value.get<int>();
    }

    void readSize() {
        using enum ImagePreparation::Size;
        if (!boolField(m_json, "do_resize", m_subject, true)) {
            m_result.size = Keep;
            return;
        }
        const Json* size = find("size");
        if (!size) {
            if (!m_processor) missing("size");
            return setModelSize();
        }
        if (size->is_number_integer()) {
            if (!m_processor || m_processor->integerIsSquare) return setExact(pixels(*size, "size"), pixels(*size, "size"));
            return setShortest(pixels(*size, "size"));
        }
        if (size->is_array() && size->size() == 2) return setExact(pixels((*size)[0], "size"), pixels((*size)[1], "size"));
        const auto has = [&](const char* key) { return size->is_object() && size->contains(key); };
        const auto side = [&](const char* key) { return pixels((*size)[key], "size." + std::string(key)); };
        if (has("height") && has("width")) return setExact(side("height"), side("width"));
        if (has("shortest_edge")) {
            setShortest(side("shortest_edge"));
            if (has("longest_edge")) m_result.cap = side("longest_edge");
        } else if (has("longest_edge")) {
            m_result.size = Longest;
            m_result.edge = side("longest_edge");
        } else if (has("max_height") && has("max_width")) {
            m_result.size = Within;
            m_result.sizeHeight = side("max_height");
            m_result.sizeWidth = side("max_width");
        } else {
            bad("size", "expected pixels, or an object with height and width, shortest_edge, longest_edge, or max_height and max_width; found " + size->dump());
        }
    }

    void setExact(int height, int width) {
        m_result.size = ImagePreparation::Size::Exact;
        m_result.sizeHeight = height;
        m_result.sizeWidth = width;
    }

    void setShortest(int edge) {
        m_result.size = ImagePreparation::Size::Shortest;
        m_result.edge = edge;
        if (!m_processor || m_processor->name != "ConvNext") return;
        // ConvNext: below 384 a larger edge and a crop of the edge itself, from there on a square without a crop.
        if (edge >= 384) return setExact(edge, edge);
        m_result.edge = int(edge / numberField(m_json, "crop_pct", m_subject, 224.0 / 256));
        m_result.crop = true;
        m_result.cropHeight = m_result.cropWidth = edge;
    }

    void setModelSize() {
        if (m_processor->integerIsSquare || m_image.height != m_image.width) setExact(m_image.height, m_image.width);
        else setShortest(m_image.height);
    }

    void readCrop() {
        const Json* size = find("crop_size");
        const bool fallback = m_processor ? m_processor->crops : size != nullptr;
        if (m_result.crop || !boolField(m_json, "do_center_crop", m_subject, fallback)) return;
        m_result.crop = true;
        m_result.cropHeight = m_image.height;
        m_result.cropWidth = m_image.width;
        if (!size) return;
        if (size->is_number_integer()) {
            m_result.cropHeight = m_result.cropWidth = pixels(*size, "crop_size");
        } else if (size->is_array() && size->size() == 2) {
            m_result.cropHeight = pixels((*size)[0], "crop_size");
            m_result.cropWidth = pixels((*size)[1], "crop_size");
        } else if (size->is_object() && size->contains("height") && size->contains("width")) {
            m_result.cropHeight = pixels((*size)["height"], "crop_size.height");
            m_result.cropWidth = pixels((*size)["width"], "crop_size.width");
        } else if (size->is_object() && size->contains("shortest_edge")) {
            m_result.cropHeight = m_result.cropWidth = pixels((*size)["shortest_edge"], "crop_size.shortest_edge");
        } else {
            bad("crop_size", "expected pixels, or an object with height and width; found " + size->dump());
        }
    }

    std::vector<double> perChannel(const char* field, const std::array<double, 3>* fallback) const {
        const auto channels = std::size_t(m_image.channels);
        const bool isStd = std::string_view(field).ends_with("std");
        const Json* value = find(field);
        if (!value) {
            if (!fallback) missing(field);
            if (channels == 3) return {fallback->begin(), fallback->end()};
            // Of a colour model's statistics only equal ones say something of grey.
            if (std::ranges::count(*fallback, fallback->front()) != 3) bad(field, "is not there, and the default is for 3 channels; the model runs " + toText(m_image.channels));
            return std::vector<double>(channels, fallback->front());
        }
        std::vector<double> values;
        if (value->is_number()) values.assign(channels, value->get<double>());
        else if (value->is_array() && std::ranges::all_of(*value, [](const Json& n) { return n.is_number(); })) values = value->get<std::vector<double>>();
        const bool good = values.size() == channels && std::ranges::all_of(values, [&](double v) { return std::isfinite(v) && (!isStd || v != 0); });
        if (!good) bad(field, "expected " + toText(m_image.channels) + (isStd ? " numbers other than 0" : " numbers") + ", one per channel of the model; found " + value->dump());
        return values;
    }

    ImagePreparation finished() {
        if (!std::isfinite(m_result.factor)) bad("rescale_factor", "expected a number, found " + toText(m_result.factor));
        const int height = m_result.crop ? m_result.cropHeight : m_result.sizeHeight, width = m_result.crop ? m_result.cropWidth : m_result.sizeWidth;
        const bool known = m_result.crop || m_result.size == ImagePreparation::Size::Exact;
        if (known && (height != m_image.height || width != m_image.width))
            bad(m_result.crop ? "crop_size" : "size", "makes pictures of " + toText(height) + " x " + toText(width) + " pixels; the model runs " + toText(m_image.height) + " x " + toText(m_image.width));
        return m_result;
    }

    const Json& m_json;
    std::string m_subject, m_type;
    const ImageShape& m_image;
    const Processor* m_processor = nullptr;
    ImagePreparation m_result;
};

const Json* member(const Json& json, const char* field) {
    if (!json.is_object()) return nullptr;
    const auto at = json.find(field);
    return at == json.end() || !at->is_object() ? nullptr : &*at;
}

bool asksForPadding(const Json& json) { return json.is_object() && json.contains("image_aspect_ratio") && json["image_aspect_ratio"] == "pad"; }

ImagePreparation assumed(const ModelShape& shape) {
    Json json = Json::object();
    const Processor* processor = processorOfFamily(shape.modelType);
    const bool grey = shape.image->channels != 3;
    if (!processor || grey || processor->name == "DeiT") {  // DeiT's class crops a larger picture, by how much only its file knows
        json = {{"image_processor_type", "ViTImageProcessor"}, {"size", {{"height", shape.image->height}, {"width", shape.image->width}}}};
        if (processor) json["resample"] = int(processor->filter);
        if (processor && processor->name == "DeiT" && !grey) json["image_mean"] = kImageNetMean, json["image_std"] = kImageNetStd;
    }
    ImagePreparation result = Reader(json, "assumed", shape).huggingFace(shape);
    result.assumed = true;
    result.source = "assumed, because the checkpoint has no preprocessor_config.json";
    return result;
}

}  // namespace

ImagePreparation readImagePreparation(const fs::path& folder, const ModelShape& shape, bool padToSquare) {
    if (!shape.image) throw Error(ErrorCode::Internal, "images", "the model runs text");
    const auto readIf = [&](const char* file) { return fs::exists(folder / file) ? readJsonFile(folder / file) : Json(); };
    const Json config = readIf("config.json"), preprocessor = readIf("preprocessor_config.json"), processor = readIf("processor_config.json");
    const auto subject = [&](const char* file, const char* inside = "") { return (folder / file).string() + inside; };
    ImagePreparation result;
    const Json* own = preprocessor.is_object() ? &preprocessor : member(processor, "image_processor");
    const std::string where = preprocessor.is_object() ? subject("preprocessor_config.json") : subject("processor_config.json", ": image_processor");
    if (!preprocessor.is_null() && !preprocessor.is_object()) throw Error(ErrorCode::BadInput, where, "expected an object");
    if (own && member(*own, "pretrained_cfg")) result = Reader(*member(*own, "pretrained_cfg"), where + ": pretrained_cfg", shape).timm();
    else if (own) result = Reader(*own, where, shape).huggingFace(shape);
    else if (member(config, "pretrained_cfg")) result = Reader(*member(config, "pretrained_cfg"), subject("config.json", ": pretrained_cfg"), shape).timm();
    else if (config.is_object() && config.contains("input_size") && config.contains("mean")) result = Reader(config, subject("config.json"), shape).timm();
    else result = assumed(shape);
    result.padToSquare = padToSquare || asksForPadding(config) || (own && asksForPadding(*own));
    return result;
}

Image ImagePreparation::prepared(Image image, const std::string& subject) const {
    image = withChannels(std::move(image), channels);
    if (padToSquare) {
        std::array<std::uint8_t, 3> colour{};
        for (std::size_t c = 0; c < mean.size() && c < 3; ++c) colour[c] = std::uint8_t(std::clamp(mean[c] * 255, 0.0, 255.0));
        image = paddedToSquare(image, colour);
    }
    const std::int64_t h = image.height, w = image.width, shorter = std::min(h, w), longer = std::max(h, w);
    const auto toSides = [&](std::int64_t shortSide, std::int64_t longSide) {
        const auto legal = [&](std::int64_t side) { return side >= 1 && side <= kMaxPixels; };
        if (!legal(shortSide) || !legal(longSide) || shortSide * longSide > kMaxPixels)
            throw Error(ErrorCode::BadInput, subject, "is " + toText(h) + " x " + toText(w) + " pixels, which resizing would make " + toText(shortSide) + " x " + toText(longSide));
        image = resized(image, int(h <= w ? shortSide : longSide), int(h <= w ? longSide : shortSide), filter);
    };
    if (size == Size::Exact) image = resized(image, sizeHeight, sizeWidth, filter);
    if (size == Size::Shortest) {
        std::int64_t shortSide = edge, longSide = edge * longer / shorter;
        if (cap > 0 && longSide > cap) shortSide = cap * shortSide / longSide, longSide = cap;
        toSides(shortSide, longSide);
    }
    if (size == Size::Longest) toSides(edge * shorter / longer, edge);
    if (size == Size::Within) {
        const double scale = std::min(double(sizeHeight) / double(h), double(sizeWidth) / double(w));
        toSides(std::int64_t(double(shorter) * scale), std::int64_t(double(longer) * scale));
    }
    if (crop) image = centreCropped(image, cropHeight, cropWidth, cropRule);
    if (image.height != height || image.width != width)
        throw Error(ErrorCode::BadInput, subject, "is " + toText(image.height) + " x " + toText(image.width) + " pixels" + (size == Size::Keep ? "" : " after resizing") +
                                                      "; the model runs " + toText(height) + " x " + toText(width) + (size == Size::Keep ? " and do_resize is false" : ""));
    return image;
}

std::vector<std::array<float, 256>> ImagePreparation::table() const {
    std::vector<std::array<float, 256>> tables(static_cast<std::size_t>(channels));
    for (std::size_t c = 0; c < tables.size(); ++c)
        for (int v = 0; v < 256; ++v) {
            const auto scaled = static_cast<float>(rescale ? v * factor : double(v));
            tables[c][std::size_t(v)] = normalise ? (scaled - static_cast<float>(mean[c])) / static_cast<float>(std[c]) : scaled;
        }
    return tables;
}

std::string ImagePreparation::words() const {
    std::string text = padToSquare ? "padded to squares, " : "";
    const std::string how = std::string(" (") + name(filter) + ")";
    if (size == Size::Keep) text += "not resized";
    if (size == Size::Exact) text += "resized to " + toText(sizeHeight) + " x " + toText(sizeWidth) + how;
    if (size == Size::Shortest) text += "shorter side resized to " + toText(edge) + how;
    if (size == Size::Longest) text += "longer side resized to " + toText(edge) + how;
    if (size == Size::Within) text += "resized into " + toText(sizeHeight) + " x " + toText(sizeWidth) + how;
    if (crop && (size != Size::Exact || cropHeight != sizeHeight || cropWidth != sizeWidth)) text += ", centre " + toText(cropHeight) + " x " + toText(cropWidth);
    if (rescale) text += std::abs(factor * 255 - 1) < 1e-6 ? ", scaled by 1/255" : ", times " + toText(factor, 4);
    const auto list = [](const std::vector<double>& values) {
        std::string all;
        const bool same = std::ranges::count(values, values.front()) == std::ssize(values);
        for (std::size_t i = 0; i < (same ? 1 : values.size()); ++i) all += (i ? ", " : "") + toText(values[i], 4);
        return all;
    };
    if (normalise) text += ", mean " + list(mean) + ", std " + list(std);
    return text;
}

Json ImagePreparation::key() const {
    return {{"model", {channels, height, width}}, {"pad", padToSquare}, {"size", {int(size), sizeHeight, sizeWidth, edge, cap}}, {"filter", int(filter)},
            {"crop", {crop, cropHeight, cropWidth, int(cropRule)}}, {"factor", rescale ? factor : 1.0}, {"normalise", normalise}, {"mean", mean}, {"std", std}};
}

}  // namespace resect
