#include "core/models/rope.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace resect {

namespace {

double magnitudeScale(double factor, double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

/// YaRN: dimensions that turn often keep their frequency, slow ones are interpolated, those between are mixed linearly.
void applyYarn(RopeFrequencies& rope, const ModelShape& shape, int headDim) {
    const RopeScaling& scaling = shape.ropeScaling;
    const double original = static_cast<double>(scaling.originalMaxPositions > 0 ? scaling.originalMaxPositions : shape.maxPositions);
    const auto dimensionOf = [&](double rotations) {
        return headDim * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(shape.ropeTheta));
    };
    const double low = std::max(std::floor(dimensionOf(scaling.betaFast)), 0.0);
    double high = std::min(std::ceil(dimensionOf(scaling.betaSlow)), static_cast<double>(headDim - 1));
    if (low == high) {
        high += 0.001;  // as the reference does, to keep the ramp finite
    }
    for (std::size_t i = 0; i < rope.inverse.size(); ++i) {
        const double keep = 1 - std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
        const double exact = rope.inverse[i];
        rope.inverse[i] = static_cast<float>(exact / scaling.factor * (1 - keep) + exact * keep);
    }
    if (scaling.attentionFactor) {
        rope.attentionFactor = *scaling.attentionFactor;
    } else if (scaling.mscale && scaling.mscaleAllDim && *scaling.mscale != 0 && *scaling.mscaleAllDim != 0) {
        rope.attentionFactor = magnitudeScale(scaling.factor, *scaling.mscale) / magnitudeScale(scaling.factor, *scaling.mscaleAllDim);
    } else {
        rope.attentionFactor = magnitudeScale(scaling.factor, 1.0);
    }
}

/// Llama 3.1: wavelengths beyond original / low are divided by the factor, below original / high kept, between mixed.
void applyLlama3(RopeFrequencies& rope, const ModelShape& shape) {
    const RopeScaling& scaling = shape.ropeScaling;
    const double original = static_cast<double>(scaling.originalMaxPositions > 0 ? scaling.originalMaxPositions : shape.maxPositions);
    for (float& inverse : rope.inverse) {
        const double wavelength = 2 * std::numbers::pi / inverse;
        if (wavelength > original / scaling.lowFreqFactor) {
            inverse = static_cast<float>(inverse / scaling.factor);
        } else if (wavelength >= original / scaling.highFreqFactor) {
            const double smooth = (original / wavelength - scaling.lowFreqFactor) / (scaling.highFreqFactor - scaling.lowFreqFactor);
            inverse = static_cast<float>((1 - smooth) * inverse / scaling.factor + smooth * inverse);
        }
    }
}

/// LongRoPE: one divisor for each frequency, another list once the sequence is longer than what the model was first trained on.
void applyLongRope(RopeFrequencies& rope, const ModelShape& shape, std::int64_t length) {
    const RopeScaling& scaling = shape.ropeScaling;
    const std::int64_t original = scaling.originalMaxPositions > 0 ? scaling.originalMaxPositions : shape.maxPositions;
    const std::vector<double>& factors = length > original ? scaling.longFactor : scaling.shortFactor;
    if (factors.size() != rope.inverse.size()) {
        throw Error(ErrorCode::BadInput, std::string("config.json: rope_scaling: ") + (length > original ? "long_factor" : "short_factor"),
                    "expected " + std::to_string(rope.inverse.size()) + " numbers, half of the rotating dimensions, found " + std::to_string(factors.size()));
    }
    for (std::size_t i = 0; i < factors.size(); ++i) {
        rope.inverse[i] = static_cast<float>(rope.inverse[i] / factors[i]);
    }
    rope.attentionFactor = scaling.attentionFactor.value_or(
        scaling.factor <= 1 ? 1.0 : std::sqrt(1 + std::log(scaling.factor) / std::log(static_cast<double>(original))));
}

}  // namespace

int rotaryDim(const ModelShape& shape, int headDim) {
    return familyOf(shape).learnedPositions ? 0 : static_cast<int>(headDim * shape.rotaryShare) / 2 * 2;
}

RopeFrequencies ropeFrequencies(const ModelShape& shape, int headDim, std::int64_t length) {
    const RopeScaling& scaling = shape.ropeScaling;
    double theta = shape.ropeTheta;
    if (scaling.kind == RopeScaling::Kind::Dynamic && length > shape.maxPositions) {
        const double growth = scaling.factor * static_cast<double>(length) / static_cast<double>(shape.maxPositions) - (scaling.factor - 1);
        theta *= std::pow(growth, static_cast<double>(headDim) / (headDim - 2));
    }
    RopeFrequencies rope;
    for (int i = 0; i < headDim / 2; ++i) {
        rope.inverse.push_back(static_cast<float>(1.0 / std::pow(theta, 2.0 * i / headDim)));
    }
    switch (scaling.kind) {
    case RopeScaling::Kind::None:
    case RopeScaling::Kind::Dynamic: break;
    case RopeScaling::Kind::Linear:
        for (float& inverse : rope.inverse) {
            inverse = static_cast<float>(inverse / scaling.factor);
        }
        break;
    case RopeScaling::Kind::Llama3: applyLlama3(rope, shape); break;
    case RopeScaling::Kind::Yarn: applyYarn(rope, shape, headDim); break;
    case RopeScaling::Kind::LongRope: applyLongRope(rope, shape, length); break;
    }
    return rope;
}

RotaryTable::RotaryTable(const ModelShape& shape, int headDim, torch::Device device)
    : m_shape(shape), m_headDim(headDim), m_device(device) {
    m_shape.blocks.clear();
}

void RotaryTable::ensure(std::int64_t length) {
    // The dynamic kind stretches with the sequence beyond the trained length, and goes back for shorter ones.
    const RopeScaling& scaling = m_shape.ropeScaling;
    const bool dynamic = scaling.kind == RopeScaling::Kind::Dynamic;
    const bool isLong = scaling.kind == RopeScaling::Kind::LongRope && scaling.originalMaxPositions > 0 && length > scaling.originalMaxPositions;
    const std::int64_t scaledFor = dynamic ? std::max(length, m_shape.maxPositions) : isLong ? 1 : 0;
    if (length <= m_length && scaledFor == m_scaledFor) {
        return;
    }
    const std::int64_t rows = std::max<std::int64_t>(length, 256);
    const RopeFrequencies rope = ropeFrequencies(m_shape, m_headDim, length);
    const torch::NoGradGuard noGrad;
    const auto inverse = torch::tensor(rope.inverse, torch::kFloat32);
    const auto angles = torch::arange(rows, torch::kFloat32).unsqueeze(1) * inverse.unsqueeze(0);
    m_cos = (angles.cos() * rope.attentionFactor).to(m_device);
    m_sin = (angles.sin() * rope.attentionFactor).to(m_device);
    m_length = rows;
    m_scaledFor = scaledFor;
}

RotaryTable::Rows RotaryTable::range(std::int64_t first, std::int64_t count) {
    ensure(first + count);
    return {m_cos.narrow(0, first, count).unsqueeze(0), m_sin.narrow(0, first, count).unsqueeze(0)};
}

RotaryTable::Rows RotaryTable::at(const torch::Tensor& positions_BT, std::int64_t length) {
    ensure(length);
    const auto flat = positions_BT.reshape({-1});
    const std::vector<std::int64_t> sizes{positions_BT.size(0), positions_BT.size(1), m_headDim / 2};
    return {m_cos.index_select(0, flat).view(sizes), m_sin.index_select(0, flat).view(sizes)};
}

}  // namespace resect
