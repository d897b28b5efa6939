#pragma once
#include <torch/types.h>

#include <cstdint>
#include <span>
#include <string>

namespace resect {

/// One trained tensor with its optimiser state. All tensors are contiguous, of one shape and on one device.
///
/// In f32 training `master` and `parameter` are the same tensor. In bf16 training the model computes with the bf16 `parameter`,
/// while updates are added to the f32 `master`, of which `parameter` is the rounded copy: updates smaller than a bf16 step are not lost.
struct AdamWSlot {
    std::string name;             ///< checkpoint name of the parameter
    torch::Tensor parameter;      ///< what the model reads; gradients arrive at parameter.grad()
    torch::Tensor master;         ///< f32
    torch::Tensor moment1, moment2; ///< f32: decaying means of the gradient and of its square
    torch::Tensor gradient;       ///< of the current step: parameter.grad(), or an f32 sum; undefined = not touched by this step
    double weightDecay = 0;       ///< 0 for norms and biases
};

struct AdamWStep {
    double learningRate = 0;
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
    std::int64_t step = 1;        ///< 1-based, for the bias correction
    double gradientScale = 1;     ///< gradients are multiplied by this first (clipping)
};

/// AdamW with decoupled decay (arXiv 1711.05101, algorithm 2): p <- p - lr (m' / (sqrt(v') + eps) + decay p). One pass over memory on the
/// CPU; independent of the number of threads. Slots without a gradient are left alone, decay included.
void adamwStep(std::span<AdamWSlot> slots, const AdamWStep& step);
/// The same written with tensor operations: for other devices, and what tests compare with.
void adamwStepPlain(std::span<AdamWSlot> slots, const AdamWStep& step);

/// Euclidean length of all gradients together, summed in f64; not finite when one entry is not. Independent of the number of threads.
double gradientNorm(std::span<const AdamWSlot> slots);

}  // namespace resect
