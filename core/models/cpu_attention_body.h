// Part of cpu_kernels_body.h: products of small matrices in registers, and attention in tiles on top of them.
#pragma once
#include "core/models/cpu_lanes_body.h"

namespace resect::kernels::RESECT_SET {

namespace {

// ---- small matrix products in registers ------------------------------------------------------------------------------------------

/// C [MR, NV registers] (+)= A [MR, depth] B [depth, NV registers]; A is read number by number through its two strides.
template <int MR, int NV>
RESECT_INLINE void productTile(const float* a, std::int64_t aRow, std::int64_t aStep, const float* b, std::int64_t bRow, float* c, std::int64_t cRow,
                               std::int64_t depth, bool add) {
    Vec sums[MR][NV];
    for (int m = 0; m < MR; ++m) {
        for (int n = 0; n < NV; ++n) {
            sums[m][n] = add ? load(c + m * cRow + n * kLanes) : Vec{};
        }
    }
    for (std::int64_t k = 0; k < depth; ++k, b += bRow, a += aStep) {
        Vec right[NV];
        for (int n = 0; n < NV; ++n) {
            right[n] = load(b + n * kLanes);
        }
        for (int m = 0; m < MR; ++m) {
            const Vec left = all(a[m * aRow]);
            for (int n = 0; n < NV; ++n) {
                sums[m][n] = fma(left, right[n], sums[m][n]);
            }
        }
    }
    for (int m = 0; m < MR; ++m) {
        for (int n = 0; n < NV; ++n) {
            store(c + m * cRow + n * kLanes, sums[m][n]);
        }
    }
}

template <int MR, int NV>
void productRows(const float* a, std::int64_t aRow, std::int64_t aStep, const float* b, std::int64_t bRow, float* c, std::int64_t cRow, std::int64_t rows,
                 std::int64_t depth, bool add) {
    std::int64_t m = 0;
    for (; m + MR <= rows; m += MR) {
        productTile<MR, NV>(a + m * aRow, aRow, aStep, b, bRow, c + m * cRow, cRow, depth, add);
    }
    for (; m + 4 <= rows; m += 4) {
        productTile<4, NV>(a + m * aRow, aRow, aStep, b, bRow, c + m * cRow, cRow, depth, add);
    }
    a += m * aRow;
    c += m * cRow;
    switch (rows - m) {
    case 3: productTile<3, NV>(a, aRow, aStep, b, bRow, c, cRow, depth, add); break;
    case 2: productTile<2, NV>(a, aRow, aStep, b, bRow, c, cRow, depth, add); break;
    case 1: productTile<1, NV>(a, aRow, aStep, b, bRow, c, cRow, depth, add); break;
    default: break;
    }
}

/// C [rows, columns] (+)= A B, columns a multiple of kLanes. Register blocks are sized to the register file: 32 of 16 lanes, else 16.
void product(const float* a, std::int64_t aRow, std::int64_t aStep, const float* b, std::int64_t bRow, float* c, std::int64_t cRow, std::int64_t rows,
             std::int64_t columns, std::int64_t depth, bool add) {
    std::int64_t n = 0;
#if RESECT_LANES == 16
    for (; n + 4 * kLanes <= columns; n += 4 * kLanes) {
        productRows<6, 4>(a, aRow, aStep, b + n, bRow, c + n, cRow, rows, depth, add);
    }
#endif
    constexpr int kTwo = RESECT_LANES == 16 ? 12 : 6, kOne = RESECT_LANES == 16 ? 16 : 8;
    for (; n + 2 * kLanes <= columns; n += 2 * kLanes) {
        productRows<kTwo, 2>(a, aRow, aStep, b + n, bRow, c + n, cRow, rows, depth, add);
    }
    for (; n < columns; n += kLanes) {
        productRows<kOne, 1>(a, aRow, aStep, b + n, bRow, c + n, cRow, rows, depth, add);
    }
}

// ---- attention in tiles (FlashAttention-2, arXiv 2307.08691) ---------------------------------------------------------------------

constexpr std::int64_t kPad = 16;  // packed rows are padded to the widest register
constexpr float kUnseen = -1e30f;  // running maximum before any visible key

/// Copies a dense row into f32, times `factor`, zeros up to `padded`.
template <class T> RESECT_INLINE void packRow(const T* from, float* to, std::int64_t n, std::int64_t padded, float factor) {
    std::int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        store(to + i, load(from + i) * all(factor));
    }
    for (; i < n; ++i) {
        to[i] = get(from + i) * factor;
    }
    for (; i < padded; ++i) {
        to[i] = 0;
    }
}
template <class T> RESECT_INLINE void unpackRow(const float* from, T* to, std::int64_t n, float factor) {
    std::int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        store(to + i, load(from + i) * all(factor));
    }
    if (i < n) {
        storeSome(to + i, loadSome(from + i, n - i) * all(factor), n - i);
    }
}

template <class T> const T* rowOf(const T* base, const HeadStrides& strides, std::int64_t batch, std::int64_t token, std::int64_t head) {
    return base + batch * strides.batch + token * strides.token + head * strides.head;
}

/// [keys, headDim] rows to columns, in blocks that stay in the cache.
void transposeRows(const float* rows, std::int64_t rowStride, float* columns, std::int64_t columnStride, std::int64_t count, std::int64_t width) {
    constexpr std::int64_t kBlock = 16;
    for (std::int64_t s = 0; s < count; s += kBlock) {
        const std::int64_t end = s + kBlock < count ? s + kBlock : count;
        for (std::int64_t i = 0; i < width; ++i) {
            for (std::int64_t j = s; j < end; ++j) {
                columns[i * columnStride + j] = rows[j * rowStride + i];
            }
        }
    }
}

/// Rows of one kv group as dense padded f32 rows.
template <class T>
void packRows(const T* base, const HeadStrides& strides, std::int64_t batch, std::int64_t head, std::int64_t tokens, std::int64_t padded,
              std::int64_t headDim, float* to, float factor) {
    const std::int64_t width = roundUp(headDim, kPad);
    for (std::int64_t t = 0; t < tokens; ++t) {
        packRow(rowOf(base, strides, batch, t, head), to + t * width, headDim, width, factor);
    }
    for (std::int64_t i = tokens * width; i < padded * width; ++i) {
        to[i] = 0;
    }
}

template <class T> void packColumns(const T* base, const HeadStrides& strides, std::int64_t batch, std::int64_t head, std::int64_t tokens, std::int64_t padded,
                                    std::int64_t headDim, float* to) {
    constexpr std::int64_t kBlock = 16;
    float rows[kBlock * 512];
    for (std::int64_t s = 0; s < padded; s += kBlock) {
        for (std::int64_t part = 0; part < headDim; part += 512) {
            const std::int64_t width = headDim - part < 512 ? headDim - part : 512;
            for (std::int64_t j = 0; j < kBlock; ++j) {
                if (s + j < tokens) {
                    packRow(rowOf(base, strides, batch, s + j, head) + part, rows + j * width, width, width, 1.0f);
                } else {
                    for (std::int64_t i = 0; i < width; ++i) {
                        rows[j * width + i] = 0;
                    }
                }
            }
            transposeRows(rows, width, to + part * padded + s, padded, kBlock, width);
        }
    }
}

template <class T> void packKeysValues(const AttentionTask<T>& task, std::int64_t batch, std::int64_t group, float* keysT, float* values) {
    const std::int64_t padded = roundUp(task.keys, kKeyTile);
    packColumns(task.k, task.kStrides, batch, group, task.keys, padded, task.headDim, keysT);
    packRows(task.v, task.vStrides, batch, group, task.keys, padded, task.headDim, values, 1.0f);
}

/// Visible keys [from, to) of query `token`.
struct KeyRange {
    std::int64_t from, to;
};
template <class T> RESECT_INLINE KeyRange visible(const AttentionTask<T>& task, std::int64_t batch, std::int64_t token) {
    const std::int64_t to = task.offset + token + 1;
    std::int64_t from = task.window > 0 && to - task.window > 0 ? to - task.window : 0;
    if (task.first && task.first[batch * task.tokens + token] > from) {
        from = task.first[batch * task.tokens + token];
    }
    return {from, to};
}
/// The keys that any of the queries sees.
template <class T> RESECT_INLINE KeyRange visibleToAny(const AttentionTask<T>& task, std::int64_t batch, std::int64_t begin, std::int64_t end) {
    KeyRange range{task.keys, task.offset + end};
    for (std::int64_t t = begin; t < end; ++t) {
        const std::int64_t from = visible(task, batch, t).from;
        range.from = from < range.from ? from : range.from;
    }
    return range;
}
/// Overwrites the scores of a tile row outside the visible keys.
RESECT_INLINE void hide(float* row, KeyRange range, std::int64_t tileBegin, float value) {
    const std::int64_t from = range.from - tileBegin, to = range.to - tileBegin;
    for (std::int64_t j = 0; j < from && j < kKeyTile; ++j) {
        row[j] = value;
    }
    for (std::int64_t j = to > 0 ? to : 0; j < kKeyTile; ++j) {
        row[j] = value;
    }
}

/// One online-softmax step on a row of scores: they become weights relative to the new maximum; the old sums are rescaled by the result.
RESECT_INLINE float softmaxStep(float* scores, float& peak, float& mass) {
    Vec top = load(scores);
    for (std::int64_t j = kLanes; j < kKeyTile; j += kLanes) {
        top = maximum(top, load(scores + j));
    }
    const float tilePeak = largest(top);
    const float newPeak = tilePeak > peak ? tilePeak : peak;
    Vec total{};
    for (std::int64_t j = 0; j < kKeyTile; j += kLanes) {
        const Vec p = exponential(load(scores + j) - all(newPeak));
        store(scores + j, p);
        total += p;
    }
    const float shrink = newPeak == peak ? 1.0f : __builtin_expf(peak - newPeak);
    mass = mass * shrink + sum(total);
    peak = newPeak;
    return shrink;
}

template <class T>
void attention(const AttentionTask<T>& task, std::int64_t batch, std::int64_t head, std::int64_t begin, const float* keysT, const float* values,
               float* scratch) {
    const std::int64_t width = roundUp(task.headDim, kPad), padded = roundUp(task.keys, kKeyTile);
    const std::int64_t end = begin + kQueryTile < task.tokens ? begin + kQueryTile : task.tokens, rows = end - begin;
    float* q = scratch;                          // [rows, width], scaled
    float* sums = q + kQueryTile * width;        // [rows, width]
    float* scores = sums + kQueryTile * width;   // [rows, kKeyTile]
    float* peak = scores + kQueryTile * kKeyTile;
    float* mass = peak + kQueryTile;
    for (std::int64_t i = 0; i < rows; ++i) {
        packRow(rowOf(task.q, task.qStrides, batch, begin + i, head), q + i * width, task.headDim, width, task.scale);
        peak[i] = kUnseen;
        mass[i] = 0;
    }
    for (std::int64_t i = 0; i < rows * width; ++i) {
        sums[i] = 0;
    }
    const KeyRange range = visibleToAny(task, batch, begin, end);
    for (std::int64_t s = range.from / kKeyTile * kKeyTile; s < range.to; s += kKeyTile) {
        product(q, width, 1, keysT + s, padded, scores, kKeyTile, rows, kKeyTile, task.headDim, false);
        for (std::int64_t i = 0; i < rows; ++i) {
            float* row = scores + i * kKeyTile;
            const KeyRange own = visible(task, batch, begin + i);
            if (own.from > s || own.to < s + kKeyTile) {
                hide(row, own, s, -__builtin_inff());
            }
            const float shrink = softmaxStep(row, peak[i], mass[i]);
            if (shrink != 1.0f) {
                for (std::int64_t j = 0; j < width; j += kLanes) {
                    store(sums + i * width + j, load(sums + i * width + j) * all(shrink));
                }
            }
        }
        product(scores, kKeyTile, 1, values + s * width, width, sums, width, rows, width, kKeyTile, true);
    }
    for (std::int64_t i = 0; i < rows; ++i) {
        unpackRow(sums + i * width, task.out + ((batch * task.tokens + begin + i) * task.numHeads + head) * task.headDim, task.headDim, 1.0f / mass[i]);
        if (task.logSum) {
            task.logSum[(batch * task.numHeads + head) * task.tokens + begin + i] = peak[i] + __builtin_logf(mass[i]);
        }
    }
}

/// Packed matrices of one kv group and the running head during the backward pass.
struct BackwardBuffers {
    float *keysT, *valuesT, *keys, *dKeys, *dValues;  // [headDim, padded keys] twice, [padded keys, width] three times
    float *q, *dOut, *dQ, *delta;                     // [tokens, width] three times, [tokens]
    float *weights, *dScores;                         // [kQueryTile, kKeyTile]
    BackwardBuffers(float* scratch, std::int64_t tokens, std::int64_t keysPadded, std::int64_t width) {
        const auto take = [&](std::int64_t n) {
            float* p = scratch;
            scratch += n;
            return p;
        };
        keysT = take(keysPadded * width);
        valuesT = take(keysPadded * width);
        keys = take(keysPadded * width);
        dKeys = take(keysPadded * width);
        dValues = take(keysPadded * width);
        q = take(tokens * width);
        dOut = take(tokens * width);
        dQ = take(tokens * width);
        delta = take(roundUp(tokens, kPad));
        weights = take(kQueryTile * kKeyTile);
        dScores = take(kQueryTile * kKeyTile);
    }
};

/// P = exp(S - logSum) and dS = P (dP - delta) of one tile, in place of S and dP.
template <class T>
void backwardTile(const AttentionTask<T>& task, const BackwardBuffers& buffers, const float* logSum, std::int64_t batch, std::int64_t begin, std::int64_t rows,
                  std::int64_t s) {
    for (std::int64_t i = 0; i < rows; ++i) {
        float* p = buffers.weights + i * kKeyTile;
        float* d = buffers.dScores + i * kKeyTile;
        const KeyRange own = visible(task, batch, begin + i);
        if (own.from > s || own.to < s + kKeyTile) {
            hide(p, own, s, -__builtin_inff());
        }
        const Vec shift = all(logSum[begin + i]), delta = all(buffers.delta[begin + i]);
        for (std::int64_t j = 0; j < kKeyTile; j += kLanes) {
            const Vec weight = exponential(load(p + j) - shift);
            store(p + j, weight);
            store(d + j, weight * (load(d + j) - delta));
        }
    }
}

template <class T>
void backwardHead(const AttentionTask<T>& task, const AttentionGradients<T>& gradients, const BackwardBuffers& buffers, std::int64_t batch, std::int64_t head) {
    const std::int64_t width = roundUp(task.headDim, kPad), padded = roundUp(task.keys, kKeyTile);
    const HeadStrides dense{task.tokens * task.numHeads * task.headDim, task.numHeads * task.headDim, task.headDim};
    packRows(task.q, task.qStrides, batch, head, task.tokens, task.tokens, task.headDim, buffers.q, task.scale);
    packRows(gradients.dOut, dense, batch, head, task.tokens, task.tokens, task.headDim, buffers.dOut, 1.0f);
    for (std::int64_t t = 0; t < task.tokens; ++t) {
        const T* out = rowOf(gradients.out, dense, batch, t, head);
        float total = 0;
        for (std::int64_t i = 0; i < task.headDim; ++i) {
            total += get(out + i) * buffers.dOut[t * width + i];
        }
        buffers.delta[t] = total;
    }
    for (std::int64_t i = 0; i < task.tokens * width; ++i) {
        buffers.dQ[i] = 0;
    }
    const float* logSum = task.logSum + (batch * task.numHeads + head) * task.tokens;
    for (std::int64_t begin = 0; begin < task.tokens; begin += kQueryTile) {
        const std::int64_t end = begin + kQueryTile < task.tokens ? begin + kQueryTile : task.tokens, rows = end - begin;
        const KeyRange range = visibleToAny(task, batch, begin, end);
        const float* q = buffers.q + begin * width;
        const float* dOut = buffers.dOut + begin * width;
        for (std::int64_t s = range.from / kKeyTile * kKeyTile; s < range.to; s += kKeyTile) {
            product(q, width, 1, buffers.keysT + s, padded, buffers.weights, kKeyTile, rows, kKeyTile, task.headDim, false);
            product(dOut, width, 1, buffers.valuesT + s, padded, buffers.dScores, kKeyTile, rows, kKeyTile, task.headDim, false);
            backwardTile(task, buffers, logSum, batch, begin, rows, s);
            product(buffers.weights, 1, kKeyTile, dOut, width, buffers.dValues + s * width, width, kKeyTile, width, rows, true);
            product(buffers.dScores, 1, kKeyTile, q, width, buffers.dKeys + s * width, width, kKeyTile, width, rows, true);
            product(buffers.dScores, kKeyTile, 1, buffers.keys + s * width, width, buffers.dQ + begin * width, width, rows, width, kKeyTile, true);
        }
    }
    for (std::int64_t t = 0; t < task.tokens; ++t) {
        unpackRow(buffers.dQ + t * width, gradients.dq + ((batch * task.tokens + t) * task.numHeads + head) * task.headDim, task.headDim, task.scale);
    }
}

template <class T>
void attentionBackward(const AttentionTask<T>& task, const AttentionGradients<T>& gradients, std::int64_t batch, std::int64_t group, std::int64_t head,
                       std::int64_t heads, float* scratch) {
    const std::int64_t width = roundUp(task.headDim, kPad), padded = roundUp(task.keys, kKeyTile);
    const BackwardBuffers buffers(scratch, task.tokens, padded, width);
    packColumns(task.k, task.kStrides, batch, group, task.keys, padded, task.headDim, buffers.keysT);
    packColumns(task.v, task.vStrides, batch, group, task.keys, padded, task.headDim, buffers.valuesT);
    packRows(task.k, task.kStrides, batch, group, task.keys, padded, task.headDim, buffers.keys, 1.0f);
    for (std::int64_t i = 0; i < padded * width; ++i) {
        buffers.dKeys[i] = buffers.dValues[i] = 0;
    }
    for (std::int64_t h = head; h < head + heads; ++h) {
        backwardHead(task, gradients, buffers, batch, h);
    }
    for (std::int64_t s = 0; s < task.keys; ++s) {
        const std::int64_t at = ((batch * task.keys + s) * task.numKvHeads + group) * task.headDim;
        unpackRow(buffers.dKeys + s * width, gradients.dk + at, task.headDim, 1.0f);
        unpackRow(buffers.dValues + s * width, gradients.dv + at, task.headDim, 1.0f);
    }
}

template <class T> RESECT_INLINE float dotRow(const float* a, const T* b, std::int64_t n) {
    Vec total{};
    eachLane(n, [&](std::int64_t i) { total = fma(load(a + i), load(b + i), total); },
             [&](std::int64_t i, std::int64_t m) { total = fma(loadSome(a + i, m), loadSome(b + i, m), total); });
    return sum(total);
}

template <class T>
void attentionFew(const AttentionTask<T>& task, std::int64_t batch, std::int64_t group, std::int64_t head, std::int64_t heads, float* scratch) {
    float q[1024], sums[1024];  // head dimensions beyond are left to the tiles
    for (std::int64_t t = 0; t < task.tokens; ++t) {
        const KeyRange range = visible(task, batch, t);
        for (std::int64_t h = 0; h < heads; ++h) {
            float* scores = scratch + h * task.keys;
            packRow(rowOf(task.q, task.qStrides, batch, t, head + h), q, task.headDim, task.headDim, task.scale);
            float peak = kUnseen;
            for (std::int64_t s = range.from; s < range.to; ++s) {
                scores[s] = dotRow(q, rowOf(task.k, task.kStrides, batch, s, group), task.headDim);
                peak = scores[s] > peak ? scores[s] : peak;
            }
            for (std::int64_t i = 0; i < task.headDim; ++i) {
                sums[i] = 0;
            }
            float mass = 0;
            for (std::int64_t s = range.from; s < range.to; ++s) {
                const float weight = __builtin_expf(scores[s] - peak);
                const T* v = rowOf(task.v, task.vStrides, batch, s, group);
                mass += weight;
                eachLane(task.headDim, [&](std::int64_t i) { store(sums + i, fma(all(weight), load(v + i), load(sums + i))); },
                         [&](std::int64_t i, std::int64_t n) { storeSome(sums + i, fma(all(weight), loadSome(v + i, n), loadSome(sums + i, n)), n); });
            }
            unpackRow(sums, task.out + ((batch * task.tokens + t) * task.numHeads + head + h) * task.headDim, task.headDim, 1.0f / mass);
        }
    }
}

}  // namespace

}  // namespace resect::kernels::RESECT_SET
