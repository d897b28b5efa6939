#pragma once
#include <cstddef>
#include <cstdint>

namespace resect::kernel {

struct AdamWConstants {
    float beta1, beta2;
    float rate;           ///< learning rate / (1 - beta1^t)
    float rootScale;      ///< 1 / sqrt(1 - beta2^t)
    float epsilon;
    float keep;           ///< 1 - learning rate x decay
    float gradientScale;
};

/// Updates n entries; `rounded`, when not null, gets the new values as bf16 bit patterns.
void adamw(std::size_t n, float* parameter, const float* gradient, float* moment1, float* moment2, std::uint16_t* rounded, const AdamWConstants& constants);
/// The same with bf16 gradients.
void adamwBf16(std::size_t n, float* parameter, const std::uint16_t* gradient, float* moment1, float* moment2, std::uint16_t* rounded,
               const AdamWConstants& constants);
double sumOfSquares(std::size_t n, const float* values);
double sumOfSquaresBf16(std::size_t n, const std::uint16_t* values);

}  // namespace resect::kernel
