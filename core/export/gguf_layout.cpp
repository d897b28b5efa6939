#include "core/export/gguf_layout.h"

#include "core/base/error.h"
#include "core/base/numbers.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <numeric>

namespace resect {

namespace {

constexpr std::int64_t kBlockRow = 32;  ///< of Q8_0 and Q4_0

/// Hugging Face keeps the two halves of each head together, llama.cpp's rotation of neighbours wants them alternating:
/// row 2j + p of a head is row p * d/2 + j of the source.
void interleaveHalves(SlicedTensor& tensor, int headDim) {
    std::vector<std::int64_t>& rows = tensor.indices.front();
    if (rows.empty()) {
        rows.resize(static_cast<std::size_t>(tensor.shape.front()));
        std::iota(rows.begin(), rows.end(), 0);
    }
    const auto d = static_cast<std::size_t>(headDim);
    std::vector<std::int64_t> head(d);
    for (std::size_t first = 0; first + d <= rows.size(); first += d) {
        for (std::size_t j = 0; j < d / 2; ++j)
            for (std::size_t p = 0; p < 2; ++p) head[2 * j + p] = rows[first + p * (d / 2) + j];
        std::copy(head.begin(), head.end(), rows.begin() + static_cast<std::ptrdiff_t>(first));
    }
}

class Layout {
public:
    Layout(const GgufArchitecture& architecture, const SlicePlan& plan, std::optional<GgufType> wanted, std::vector<Problem>& notes)
        : m_architecture(architecture), m_plan(plan), m_wanted(wanted), m_notes(notes) {}

    std::vector<GgufPlannedTensor> run() {
        const std::vector<ExpectedTensor> expected = expectedTensors(m_plan.shape);
        for (std::size_t i = 0; i < expected.size(); ++i) add(expected[i], m_plan.tensors.at(i));
        std::vector<float> factors = m_architecture.ropeFactors ? resect::ropeFactors(m_plan.shape) : std::vector<float>{};
        if (!factors.empty())
            m_tensors.push_back({"rope_freqs.weight", GgufType::F32, {static_cast<std::int64_t>(factors.size())}, {}, GgufStep::Plain, std::move(factors)});
        for (GgufPlannedTensor& tensor : m_tensors) tensor.type = typeOf(tensor);
        noteFallbacks();
        return std::move(m_tensors);
    }

private:
    void add(const ExpectedTensor& expected, SlicedTensor slice) {
        const GgufPlace place = ggufPlace(m_architecture, expected);
        if (place.step == GgufStep::RotaryRows && m_architecture.rotation == GgufArchitecture::Rotation::Neighbours)
            interleaveHalves(slice, m_plan.shape.blocks[static_cast<std::size_t>(expected.block)].headDim);
        const auto [known, fresh] = m_byName.try_emplace(place.name, m_tensors.size());
        if (fresh) {
            GgufPlannedTensor tensor{place.name, GgufType::F32, slice.shape, {}, place.step, {}};
            if (place.step == GgufStep::Expert) tensor.shape.insert(tensor.shape.begin(), 0);
            if (place.step == GgufStep::Transposed) std::reverse(tensor.shape.begin(), tensor.shape.end());
            if (place.step == GgufStep::Vector) tensor.shape = {slice.shape.back()};
            if (place.step == GgufStep::Fused) tensor.shape.front() = 0;
            m_tensors.push_back(std::move(tensor));
        } else if (place.step != GgufStep::Expert && place.step != GgufStep::Fused) {
            throw Error(ErrorCode::Internal, place.name, "two tensors would have this name");
        }
        GgufPlannedTensor& tensor = m_tensors[known->second];
        if (place.step == GgufStep::Expert) ++tensor.shape.front();
        if (place.step == GgufStep::Fused) tensor.shape.front() += slice.shape.front();
        tensor.parts.push_back(std::move(slice));
    }

    GgufType typeOf(const GgufPlannedTensor& tensor) {
        const bool small = tensor.shape.size() < 2 || tensor.step == GgufStep::KeepF32 || tensor.step == GgufStep::Vector || tensor.parts.empty();
        if (small) return GgufType::F32;
        if (!m_wanted) return ggufTypeOf(tensor.parts.front().dtype);
        if (plainType(*m_wanted)) return *m_wanted;
        if (tensor.shape.back() % kBlockRow != 0) {
            m_fallbacks.push_back(&tensor);
            return GgufType::F16;
        }
        const bool head = tensor.name == "output.weight" || (tensor.name == "token_embd.weight" && m_plan.shape.tiedEmbeddings);
        return head || smallAttention(tensor.name) ? GgufType::Q8_0 : *m_wanted;
    }

    /// Keys and values of a mixture of experts are a small part of it and feed all experts; llama.cpp's quantiser spares them too.
    bool smallAttention(const std::string& name) const {
        const bool mixture = std::any_of(m_plan.shape.blocks.begin(), m_plan.shape.blocks.end(), [](const BlockShape& block) { return block.numExperts > 0; });
        return mixture && (name.ends_with("attn_k.weight") || name.ends_with("attn_v.weight"));
    }

    void noteFallbacks() const {
        if (m_fallbacks.empty()) return;
        const GgufPlannedTensor& first = *m_fallbacks.front();
        m_notes.push_back({Severity::Note, toText(m_fallbacks.size()) + " tensors",
                           "stored as F16 instead of " + std::string(info(*m_wanted).name) + ": their rows are no multiple of 32 (" + first.name + " has " +
                               toText(first.shape.back()) + ")",
                           ""});
    }

    const GgufArchitecture& m_architecture;
    const SlicePlan& m_plan;
    std::optional<GgufType> m_wanted;
    std::vector<Problem>& m_notes;
    std::vector<GgufPlannedTensor> m_tensors;
    std::map<std::string, std::size_t> m_byName;
    std::vector<const GgufPlannedTensor*> m_fallbacks;
};

}  // namespace

std::vector<GgufPlannedTensor> ggufLayout(const GgufArchitecture& architecture, const SlicePlan& plan, std::optional<GgufType> wanted, std::vector<Problem>& notes) {
    return Layout(architecture, plan, wanted, notes).run();
}

std::vector<float> ropeFactors(const ModelShape& shape) {
    const RopeScaling& rope = shape.ropeScaling;
    if (rope.kind != RopeScaling::Kind::Llama3) return {};
    const int headDim = shape.blocks.front().headDim;
    const auto original = static_cast<double>(rope.originalMaxPositions > 0 ? rope.originalMaxPositions : shape.maxPositions);
    const double longest = original / rope.lowFreqFactor, shortest = original / rope.highFreqFactor;
    std::vector<float> factors;
    for (int pair = 0; pair < headDim / 2; ++pair) {
        const double wavelength = 2 * std::numbers::pi * std::pow(shape.ropeTheta, 2.0 * pair / headDim);
        const double smooth = (original / wavelength - rope.lowFreqFactor) / (rope.highFreqFactor - rope.lowFreqFactor);
        const double factor = wavelength < shortest ? 1 : wavelength > longest ? rope.factor : 1 / ((1 - smooth) / rope.factor + smooth);
        factors.push_back(static_cast<float>(factor));
    }
    return factors;
}

}  // namespace resect
