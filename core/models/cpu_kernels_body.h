// The body of one instruction set: included once by each cpu_kernels_*.cpp, which defines RESECT_LANES (f32 numbers per register) and
// RESECT_SET (the namespace). Only built-in vector types and our own static functions, so that nothing compiled here for a
// newer processor is shared with other object files.
#include "core/models/cpu_attention_body.h"
#include "core/models/cpu_lanes_body.h"

namespace resect::kernels::RESECT_SET {

namespace {

// ---- normalisation, rotation, activation -----------------------------------------------------------------------------------------

template <class T>
void rmsNorm(const T* x, const T* weight, T* y, float* inverseRms, std::int64_t rows, std::int64_t width, float eps) {
    for (std::int64_t row = 0; row < rows; ++row, x += width, y += width) {
        Vec squares{};
        eachLane(width, [&](std::int64_t i) { const Vec v = load(x + i); squares = fma(v, v, squares); },
                 [&](std::int64_t i, std::int64_t n) { const Vec v = loadSome(x + i, n); squares = fma(v, v, squares); });
        const float inverse = 1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(width) + eps);
        inverseRms[row] = inverse;
        const Vec factor = all(inverse);
        eachLane(width, [&](std::int64_t i) { store(y + i, load(x + i) * factor * load(weight + i)); },
                 [&](std::int64_t i, std::int64_t n) { storeSome(y + i, loadSome(x + i, n) * factor * loadSome(weight + i, n), n); });
    }
}

/// With u = x * r, r = inverse RMS: dx = r (w dy - u mean(w dy u)), dw = sum over rows of dy u.
template <class T>
void rmsNormBackward(const T* x, const T* weight, const T* dy, const float* inverseRms, T* dx, float* dWeight, std::int64_t rows, std::int64_t width) {
    for (std::int64_t row = 0; row < rows; ++row, x += width, dy += width, dx += width) {
        const Vec r = all(inverseRms[row]);
        Vec dot{};
        eachLane(width,
                 [&](std::int64_t i) {
                     const Vec u = load(x + i) * r, g = load(dy + i);
                     dot = fma(g * load(weight + i), u, dot);
                     store(dWeight + i, fma(g, u, load(dWeight + i)));
                 },
                 [&](std::int64_t i, std::int64_t n) {
                     const Vec u = loadSome(x + i, n) * r, g = loadSome(dy + i, n);
                     dot = fma(g * loadSome(weight + i, n), u, dot);
                     storeSome(dWeight + i, fma(g, u, loadSome(dWeight + i, n)), n);
                 });
        const Vec mean = all(sum(dot) / static_cast<float>(width));
        eachLane(width, [&](std::int64_t i) { store(dx + i, r * (load(weight + i) * load(dy + i) - load(x + i) * r * mean)); },
                 [&](std::int64_t i, std::int64_t n) {
                     storeSome(dx + i, r * (loadSome(weight + i, n) * loadSome(dy + i, n) - loadSome(x + i, n) * r * mean), n);
                 });
    }
}

template <class T>
void rotate(const T* __restrict x, std::int64_t headStride, T* __restrict y, const float* __restrict cos, const float* __restrict sin, std::int64_t heads, std::int64_t half, float sign) {
    if (half < kLanes) {  // one number at a time, for the compiler to vectorise as wide as the head allows
        for (std::int64_t head = 0; head < heads; ++head, x += headStride, y += 2 * half) {
            for (std::int64_t i = 0; i < half; ++i) {
                const float a = get(x + i), b = get(x + half + i), c = cos[i], s = sin[i] * sign;
                put(y + i, a * c - b * s);
                put(y + half + i, b * c + a * s);
            }
        }
        return;
    }
    const Vec direction = all(sign);
    for (std::int64_t head = 0; head < heads; ++head, x += headStride, y += 2 * half) {
        const auto turn = [&](Vec a, Vec b, Vec c, Vec s, auto&& put) { put(a * c - b * s, b * c + a * s); };
        eachLane(half,
                 [&](std::int64_t i) {
                     turn(load(x + i), load(x + half + i), load(cos + i), load(sin + i) * direction, [&](Vec a, Vec b) {
                         store(y + i, a);
                         store(y + half + i, b);
                     });
                 },
                 [&](std::int64_t i, std::int64_t n) {
                     turn(loadSome(x + i, n), loadSome(x + half + i, n), loadSome(cos + i, n), loadSome(sin + i, n) * direction, [&](Vec a, Vec b) {
                         storeSome(y + i, a, n);
                         storeSome(y + half + i, b, n);
                     });
                 });
    }
}

template <class T> void siluMul(const T* gate, const T* up, T* y, std::int64_t n) {
    const auto value = [](Vec g, Vec u) { return g * sigmoid(g) * u; };
    eachLane(n, [&](std::int64_t i) { store(y + i, value(load(gate + i), load(up + i))); },
             [&](std::int64_t i, std::int64_t m) { storeSome(y + i, value(loadSome(gate + i, m), loadSome(up + i, m)), m); });
}

template <class T> void siluMulBackward(const T* gate, const T* up, const T* dy, T* dGate, T* dUp, std::int64_t n) {
    const auto both = [](Vec g, Vec u, Vec d, auto&& put) {
        const Vec s = sigmoid(g);
        put(d * u * s * (all(1.0f) + g * (all(1.0f) - s)), d * g * s);
    };
    eachLane(n,
             [&](std::int64_t i) {
                 both(load(gate + i), load(up + i), load(dy + i), [&](Vec dg, Vec du) {
                     store(dGate + i, dg);
                     store(dUp + i, du);
                 });
             },
             [&](std::int64_t i, std::int64_t m) {
                 both(loadSome(gate + i, m), loadSome(up + i, m), loadSome(dy + i, m), [&](Vec dg, Vec du) {
                     storeSome(dGate + i, dg, m);
                     storeSome(dUp + i, du, m);
                 });
             });
}

template <class T> double crossEntropy(T* logits, const std::int64_t* targets, std::int64_t rows, std::int64_t classes, float inPlaceScale) {
    constexpr float kLowest = -__builtin_inff();
    double total = 0;
    for (std::int64_t row = 0; row < rows; ++row, logits += classes) {
        Vec top = all(kLowest);
        eachLane(classes, [&](std::int64_t i) { top = maximum(top, load(logits + i)); },
                 [&](std::int64_t i, std::int64_t n) { top = maximum(top, loadSome(logits + i, n, kLowest)); });
        const float peak = largest(top);
        Vec mass{};
        eachLane(classes, [&](std::int64_t i) { mass += exponential(load(logits + i) - all(peak)); },
                 [&](std::int64_t i, std::int64_t n) { mass += exponential(loadSome(logits + i, n, kLowest) - all(peak)); });
        const float logMass = __builtin_logf(sum(mass));
        total += static_cast<double>(logMass) + static_cast<double>(peak) - static_cast<double>(get(logits + targets[row]));
        if (inPlaceScale != 0) {
            const Vec shift = all(peak + logMass), scale = all(inPlaceScale);
            const float atTarget = get(logits + targets[row]);
            eachLane(classes, [&](std::int64_t i) { store(logits + i, exponential(load(logits + i) - shift) * scale); },
                     [&](std::int64_t i, std::int64_t n) { storeSome(logits + i, exponential(loadSome(logits + i, n) - shift) * scale, n); });
            const Vec exact = (exponential(all(atTarget) - shift) - all(1.0f)) * scale;
            storeSome(logits + targets[row], exact, 1);
        }
    }
    return total;
}

template <class From, class To> void convert(const From* x, To* y, std::int64_t n) {
    eachLane(n, [&](std::int64_t i) { store(y + i, load(x + i)); }, [&](std::int64_t i, std::int64_t m) { storeSome(y + i, loadSome(x + i, m), m); });
}

template <class T> constexpr Table<T> tableOf() {
    return {rmsNorm<T>, rmsNormBackward<T>, rotate<T>,          siluMul<T>,      siluMulBackward<T>,   crossEntropy<T>,
            packKeysValues<T>, attention<T>, attentionBackward<T>, attentionFew<T>, convert<T, float>, convert<float, T>};
}

}  // namespace

const Table<float>& tableF32() {
    static constexpr Table<float> table = tableOf<float>();
    return table;
}
const Table<Bf16>& tableBf16() {
    static constexpr Table<Bf16> table = tableOf<Bf16>();
    return table;
}

}  // namespace resect::kernels::RESECT_SET
