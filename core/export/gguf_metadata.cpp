#include "core/export/gguf_metadata.h"

#include "core/base/numbers.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>

namespace resect {

namespace {

class Writer {
public:
    Writer(const GgufArchitecture& architecture, const ModelShape& shape, const Json& config, std::vector<Problem>& notes)
        : m_architecture(architecture), m_shape(shape), m_config(config), m_notes(notes), m_prefix(std::string(architecture.name) + ".") {}

    GgufMetadata run(const GgufGeneral& general) {
        m_metadata.push_back({"general.architecture", GgufValue::of(std::string(m_architecture.name))});
        m_metadata.push_back({"general.type", GgufValue::of(std::string("model"))});
        if (!general.title.empty()) m_metadata.push_back({"general.name", GgufValue::of(general.title)});
        m_metadata.push_back({"general.size_label", GgufValue::of(ggufSizeLabel(general.parameters, general.expertParameters, experts()))});
        sizes();
        rope();
        add(m_architecture.normEps, GgufValue::of(static_cast<float>(m_shape.normEps)));
        if (experts() > 0) {
            add("expert_count", number(experts()));
            add("expert_used_count", number(m_shape.numExpertsPerToken));
        }
        fields();
        m_metadata.push_back({"general.file_type", GgufValue::of(general.fileType)});
        return std::move(m_metadata);
    }

private:
    void add(std::string_view key, GgufValue value) { m_metadata.push_back({m_prefix + std::string(key), std::move(value)}); }
    static GgufValue number(std::int64_t value) { return GgufValue::of(static_cast<std::uint32_t>(value)); }
    void note(std::string subject, std::string message) { m_notes.push_back({Severity::Note, std::move(subject), std::move(message), ""}); }

    int experts() const {
        int most = 0;
        for (const BlockShape& block : m_shape.blocks) most = std::max(most, block.numExperts);
        return most;
    }
    int headDim() const { return m_shape.blocks.front().headDim; }

    /// A list with one entry per block where the architecture reads one, else the largest: blocks are alike then.
    template <class Size>
    void perBlock(std::string_view key, Size size) {
        std::vector<std::uint32_t> values;
        for (const BlockShape& block : m_shape.blocks) values.push_back(static_cast<std::uint32_t>(size(block)));
        add(key, m_architecture.perBlock ? GgufValue::ofU32(values) : GgufValue::of(*std::max_element(values.begin(), values.end())));
    }

    /// llama.cpp attends to everything before a token: the same as a sliding window while the text is no longer than that.
    std::int64_t contextLength() {
        std::int64_t length = m_shape.maxPositions;
        const bool hasWindow = std::any_of(m_architecture.fields.begin(), m_architecture.fields.end(), [](const GgufField& field) { return field.key == "attention.sliding_window"; });
        for (const BlockShape& block : m_shape.blocks)
            if (!hasWindow && block.slidingWindow > 0) length = std::min<std::int64_t>(length, block.slidingWindow);
        if (length < m_shape.maxPositions)
            note("context", "llama.cpp has no sliding window for this family: " + m_prefix + "context_length is the window, " + toText(length) + " of " +
                                toText(m_shape.maxPositions) + " tokens, up to which it computes the same");
        return length;
    }

    /// Where routed experts have a width of their own, the common one is that of dense blocks, whether there are any or not.
    bool hasExpertWidth() const {
        return std::any_of(m_architecture.fields.begin(), m_architecture.fields.end(), [](const GgufField& field) { return field.key == "expert_feed_forward_length"; });
    }
    int denseWidth() const { return static_cast<int>(m_config.value("intermediate_size", std::int64_t{0})); }

    void sizes() {
        add("block_count", number(m_shape.numBlocks()));
        add("context_length", number(contextLength()));
        add("embedding_length", number(m_shape.hiddenSize));
        perBlock("feed_forward_length", [this](const BlockShape& block) { return block.numExperts > 0 && hasExpertWidth() ? denseWidth() : block.ffnSize; });
        perBlock("attention.head_count", [](const BlockShape& block) { return block.numHeads; });
        perBlock("attention.head_count_kv", [](const BlockShape& block) { return block.numKvHeads; });
        const bool saysHeadDim = m_config.contains("head_dim") && !m_config.at("head_dim").is_null();
        const auto heads = std::max_element(m_shape.blocks.begin(), m_shape.blocks.end(), [](const auto& a, const auto& b) { return a.numHeads < b.numHeads; })->numHeads;
        if (saysHeadDim || m_architecture.perBlock || std::int64_t{heads} * headDim() != m_shape.hiddenSize) {
            add("attention.key_length", number(headDim()));
            add("attention.value_length", number(headDim()));
        }
        add("vocab_size", number(m_shape.vocabSize));
    }

    void rope() {
        if (m_architecture.rotation == GgufArchitecture::Rotation::None) return;
        using Kind = RopeScaling::Kind;
        const RopeScaling& scaling = m_shape.ropeScaling;
        add("rope.dimension_count", number(static_cast<int>(headDim() * m_shape.rotaryShare) / 2 * 2));
        add("rope.freq_base", GgufValue::of(static_cast<float>(m_shape.ropeTheta)));
        if (scaling.kind == Kind::Dynamic)
            note("rope_scaling dynamic", "it begins past " + toText(m_shape.maxPositions) + " tokens, llama.cpp has none: within that length both compute the same");
        if (scaling.kind != Kind::Linear && scaling.kind != Kind::Yarn) return;
        add("rope.scaling.type", GgufValue::of(std::string(scaling.kind == Kind::Linear ? "linear" : "yarn")));
        add("rope.scaling.factor", GgufValue::of(static_cast<float>(scaling.factor)));
        if (scaling.kind == Kind::Yarn) yarn(scaling);
    }

    void yarn(const RopeScaling& scaling) {
        const auto magnitude = [&](double scale) { return scaling.factor <= 1 ? 1.0 : 0.1 * scale * std::log(scaling.factor) + 1; };
        double attention = magnitude(1);
        if (scaling.attentionFactor) attention = *scaling.attentionFactor;
        else if (scaling.mscale && scaling.mscaleAllDim) attention = magnitude(*scaling.mscale) / magnitude(*scaling.mscaleAllDim);
        add("rope.scaling.original_context_length", number(scaling.originalMaxPositions > 0 ? scaling.originalMaxPositions : m_shape.maxPositions));
        // llama.cpp multiplies by magnitude(1) itself.
        if (const double factor = attention / magnitude(1); std::fabs(factor - 1) > 1e-9) add("rope.scaling.attn_factor", GgufValue::of(static_cast<float>(factor)));
    }

    void fields() {
        for (const GgufField& field : m_architecture.fields) {
            const auto value = m_config.find(field.field);
            const bool absent = value == m_config.end() || value->is_null();
            if (absent && field.fallback < 0) continue;
            const std::string name(field.field);
            if (field.type == GgufValueType::F32) add(field.key, GgufValue::of(static_cast<float>(numberField(m_config, name, "config.json", field.fallback))));
            else if (field.type == GgufValueType::Bool) add(field.key, GgufValue::of(boolField(m_config, name, "config.json", false)));
            else add(field.key, number(intField(m_config, name, "config.json", static_cast<std::int64_t>(field.fallback))));
        }
    }

    const GgufArchitecture& m_architecture;
    const ModelShape& m_shape;
    const Json& m_config;
    std::vector<Problem>& m_notes;
    const std::string m_prefix;
    GgufMetadata m_metadata;
};

/// At least two digits: 260K, 1.2M.
std::string rounded(double count) {
    constexpr std::array<std::pair<double, char>, 4> kUnits{{{1e12, 'T'}, {1e9, 'B'}, {1e6, 'M'}, {1e3, 'K'}}};
    auto unit = kUnits.begin();
    while (unit + 1 != kUnits.end() && count <= unit->first) ++unit;
    const double scaled = count / unit->first;
    const bool twoDigits = std::nearbyint(scaled) >= 10;
    const double shown = twoDigits ? std::nearbyint(scaled) : std::nearbyint(scaled * 10) / 10;
    std::string text = toText(shown);
    if (!twoDigits && text.find('.') == std::string::npos) text += ".0";
    return text + unit->second;
}

}  // namespace

GgufMetadata ggufMetadata(const GgufArchitecture& architecture, const ModelShape& shape, const Json& config, const GgufGeneral& general, std::vector<Problem>& notes) {
    return Writer(architecture, shape, config, notes).run(general);
}

std::string ggufTitle(std::string name) {
    std::replace(name.begin(), name.end(), '-', ' ');
    bool startsWord = true;
    for (std::size_t i = 0; i < name.size(); ++i) {
        const std::string word = name.substr(i, name.find(' ', i) - i);
        const bool lower = std::none_of(word.begin(), word.end(), [](unsigned char c) { return std::isupper(c); });
        if (startsWord && lower) name[i] = static_cast<char>(std::toupper(static_cast<unsigned char>(name[i])));
        startsWord = name[i] == ' ';
    }
    return name;
}

std::string ggufSizeLabel(std::int64_t parameters, std::int64_t expertParameters, int numExperts) {
    if (numExperts == 0) return rounded(static_cast<double>(parameters));
    const double each = static_cast<double>(parameters - expertParameters) + static_cast<double>(expertParameters) / numExperts;
    return toText(numExperts) + "x" + rounded(each);
}

std::uint32_t ggufFileType(GgufType type) noexcept {
    switch (type) {
    case GgufType::F16: return 1;
    case GgufType::Q4_0: return 2;
    case GgufType::Q8_0: return 7;
    case GgufType::BF16: return 32;
    default: return 0;
    }
}

}  // namespace resect
