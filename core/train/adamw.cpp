#include "core/train/adamw.h"

#include "core/train/adamw_kernel.h"

#include <ATen/Parallel.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <vector>

namespace resect {

namespace {

/// Entries per unit of parallel work; fixed, so that sums do not depend on the number of threads.
constexpr std::int64_t kGrain = 1 << 15;

bool isFastCase(const AdamWSlot& slot) {
    const auto simple = [](const torch::Tensor& tensor) { return tensor.is_cpu() && tensor.is_contiguous(); };
    const auto type = slot.gradient.scalar_type();
    const bool sameTensor = slot.parameter.is_same(slot.master);
    return simple(slot.master) && simple(slot.gradient) && simple(slot.parameter) && simple(slot.moment1) && simple(slot.moment2) &&
           (type == torch::kFloat32 || type == torch::kBFloat16) && slot.master.scalar_type() == torch::kFloat32 &&
           (sameTensor || slot.parameter.scalar_type() == torch::kBFloat16);
}

/// A piece of one slot, so that many small tensors and few large ones spread over the threads alike.
struct Piece {
    const AdamWSlot* slot;
    std::int64_t begin, count;
};

std::vector<Piece> piecesOf(const std::vector<const AdamWSlot*>& slots) {
    std::vector<Piece> pieces;
    for (const auto* slot : slots) {
        const auto numel = slot->gradient.numel();
        for (std::int64_t begin = 0; begin < numel; begin += kGrain) pieces.push_back({slot, begin, std::min(kGrain, numel - begin)});
    }
    return pieces;
}

std::uint16_t* bits(const torch::Tensor& tensor) { return static_cast<std::uint16_t*>(tensor.data_ptr()); }

void updatePiece(const Piece& piece, kernel::AdamWConstants constants, const AdamWStep& step) {
    const auto& slot = *piece.slot;
    constants.keep = static_cast<float>(1 - step.learningRate * slot.weightDecay);
    const auto count = static_cast<std::size_t>(piece.count);
    float* parameter = slot.master.data_ptr<float>() + piece.begin;
    float* moment1 = slot.moment1.data_ptr<float>() + piece.begin;
    float* moment2 = slot.moment2.data_ptr<float>() + piece.begin;
    std::uint16_t* rounded = slot.parameter.is_same(slot.master) ? nullptr : bits(slot.parameter) + piece.begin;
    if (slot.gradient.scalar_type() == torch::kFloat32)
        kernel::adamw(count, parameter, slot.gradient.data_ptr<float>() + piece.begin, moment1, moment2, rounded, constants);
    else
        kernel::adamwBf16(count, parameter, bits(slot.gradient) + piece.begin, moment1, moment2, rounded, constants);
}

void updatePlain(AdamWSlot& slot, const AdamWStep& step) {
    const auto g = slot.gradient.to(torch::kFloat32) * step.gradientScale;
    slot.moment1.mul_(step.beta1).add_(g, 1 - step.beta1);
    slot.moment2.mul_(step.beta2).addcmul_(g, g, 1 - step.beta2);
    const double correction1 = 1 - std::pow(step.beta1, double(step.step)), correction2 = 1 - std::pow(step.beta2, double(step.step));
    const auto denominator = slot.moment2.sqrt().div_(std::sqrt(correction2)).add_(step.epsilon);
    slot.master.mul_(1 - step.learningRate * slot.weightDecay);
    slot.master.addcdiv_(slot.moment1, denominator, -step.learningRate / correction1);
    if (!slot.parameter.is_same(slot.master)) slot.parameter.copy_(slot.master);
}

}  // namespace

void adamwStep(std::span<AdamWSlot> slots, const AdamWStep& step) {
    torch::NoGradGuard noGrad;
    std::vector<const AdamWSlot*> fast;
    for (auto& slot : slots) {
        if (!slot.gradient.defined()) continue;
        if (isFastCase(slot)) fast.push_back(&slot);
        else updatePlain(slot, step);
    }
    const kernel::AdamWConstants constants{
        .beta1 = static_cast<float>(step.beta1),
        .beta2 = static_cast<float>(step.beta2),
        .rate = static_cast<float>(step.learningRate / (1 - std::pow(step.beta1, double(step.step)))),
        .rootScale = static_cast<float>(1 / std::sqrt(1 - std::pow(step.beta2, double(step.step)))),
        .epsilon = static_cast<float>(step.epsilon),
        .keep = 1,
        .gradientScale = static_cast<float>(step.gradientScale),
    };
    const auto pieces = piecesOf(fast);
    at::parallel_for(0, static_cast<std::int64_t>(pieces.size()), 1, [&](std::int64_t begin, std::int64_t end) {
        for (auto i = begin; i < end; ++i) updatePiece(pieces[static_cast<std::size_t>(i)], constants, step);
    });
}

void adamwStepPlain(std::span<AdamWSlot> slots, const AdamWStep& step) {
    torch::NoGradGuard noGrad;
    for (auto& slot : slots) {
        if (slot.gradient.defined()) updatePlain(slot, step);
    }
}

double gradientNorm(std::span<const AdamWSlot> slots) {
    torch::NoGradGuard noGrad;
    std::vector<const AdamWSlot*> fast;
    double total = 0;
    for (const auto& slot : slots) {
        if (!slot.gradient.defined()) continue;
        if (isFastCase(slot)) fast.push_back(&slot);
        else total += slot.gradient.to(torch::kFloat64).square().sum().item<double>();
    }
    const auto pieces = piecesOf(fast);
    std::vector<double> sums(pieces.size());
    at::parallel_for(0, static_cast<std::int64_t>(pieces.size()), 1, [&](std::int64_t begin, std::int64_t end) {
        for (auto i = begin; i < end; ++i) {
            const auto& piece = pieces[static_cast<std::size_t>(i)];
            const auto& gradient = piece.slot->gradient;
            const auto count = static_cast<std::size_t>(piece.count);
            sums[static_cast<std::size_t>(i)] = gradient.scalar_type() == torch::kFloat32
                                                    ? kernel::sumOfSquares(count, gradient.data_ptr<float>() + piece.begin)
                                                    : kernel::sumOfSquaresBf16(count, bits(gradient) + piece.begin);
        }
    });
    for (const double sum : sums) total += sum;
    return std::sqrt(total);
}

}  // namespace resect
