#pragma once
#include "core/anatomy/model_shape.h"

#include <torch/types.h>

#include <cstdint>
#include <vector>

namespace resect {

/// Inverse frequencies of a rotary embedding and the factor on cos and sin.
struct RopeFrequencies {
    std::vector<float> inverse;  ///< H/2
    double attentionFactor = 1;
};

/// Dimensions of a head that rotate, from the first: 0 for a family with learned positions.
int rotaryDim(const ModelShape& shape, int headDim);

/// `headDim`: the rotating dimensions. `length`: tokens of the longest sequence, which only the dynamic and longrope kinds ask for. Sources: RoFormer (arXiv 2104.09864), linear and
/// NTK-aware scaling as in Hugging Face's configuration, YaRN (arXiv 2309.00071), Llama 3.1's piecewise scaling,
/// LongRoPE (arXiv 2402.13753). Throws BadInput when longrope's lists are not headDim / 2 long.
RopeFrequencies ropeFrequencies(const ModelShape& shape, int headDim, std::int64_t length);

/// cos and sin for positions 0, 1, ...; grows as longer sequences come.
class RotaryTable {
public:
    RotaryTable(const ModelShape& shape, int headDim, torch::Device device);
    struct Rows {
        torch::Tensor cos, sin;  ///< f32 [B or 1, T, H/2]
    };
    /// For positions first .. first + count - 1, the same in every row.
    Rows range(std::int64_t first, std::int64_t count);
    /// positions_BT int64 on the table's device, all below `length`.
    Rows at(const torch::Tensor& positions_BT, std::int64_t length);

private:
    void ensure(std::int64_t length);
    ModelShape m_shape;  // without blocks
    int m_headDim;
    torch::Device m_device;
    std::int64_t m_length = 0;   ///< rows in the tables
    std::int64_t m_scaledFor = 0;///< length the frequencies were computed for (dynamic)
    torch::Tensor m_cos, m_sin;
};

}  // namespace resect
