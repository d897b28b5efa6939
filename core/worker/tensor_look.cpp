#include "core/worker/tensor_look.h"

#include "core/base/error.h"
#include "core/surgery/convert.h"
#include "core/worker/opened.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

namespace resect {

namespace {

constexpr std::size_t kPiece = 1 << 16;   // elements read at a time: small enough for the second-level cache
constexpr int kBins = 60;
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

template <class T>
void widen(const std::byte* source, std::vector<double>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
        T value;
        std::memcpy(&value, source + i * sizeof(T), sizeof(T));
        values[i] = static_cast<double>(value);
    }
}

/// One number of 8 bits: sign, exponent, mantissa. E4M3 has no infinity and one NaN pattern, E5M2 has both.
double fromFloat8(std::uint8_t bits, int mantissaBits, int bias, bool hasInfinity) {
    const int exponent = (bits & 0x7f) >> mantissaBits, mantissa = bits & ((1 << mantissaBits) - 1), highest = 0x7f >> mantissaBits;
    const double sign = bits & 0x80 ? -1 : 1;
    if (hasInfinity && exponent == highest) return mantissa == 0 ? sign * std::numeric_limits<double>::infinity() : kNone;
    if (!hasInfinity && (bits & 0x7f) == 0x7f) return kNone;
    const double scaled = exponent == 0 ? mantissa : mantissa + (1 << mantissaBits);
    return sign * std::ldexp(scaled, std::max(exponent, 1) - bias - mantissaBits);
}

void decode(DType dtype, std::span<const std::byte> bytes, std::vector<double>& values, std::vector<float>& scratch) {
    values.resize(bytes.size() / sizeOf(dtype));
    switch (dtype) {
    case DType::F64: return widen<double>(bytes.data(), values);
    case DType::F32: return widen<float>(bytes.data(), values);
    case DType::I64: return widen<std::int64_t>(bytes.data(), values);
    case DType::I32: return widen<std::int32_t>(bytes.data(), values);
    case DType::I16: return widen<std::int16_t>(bytes.data(), values);
    case DType::I8: return widen<std::int8_t>(bytes.data(), values);
    case DType::U8:
    case DType::Bool: return widen<std::uint8_t>(bytes.data(), values);
    case DType::F8E4M3:
    case DType::F8E5M2:
        for (std::size_t i = 0; i < values.size(); ++i)
            values[i] = dtype == DType::F8E4M3 ? fromFloat8(std::to_integer<std::uint8_t>(bytes[i]), 3, 7, false) : fromFloat8(std::to_integer<std::uint8_t>(bytes[i]), 2, 15, true);
        return;
    case DType::F16:
    case DType::BF16:
        scratch.resize(values.size());
        convertElements(dtype, bytes.data(), DType::F32, reinterpret_cast<std::byte*>(scratch.data()), scratch.size());
        std::copy(scratch.begin(), scratch.end(), values.begin());
        return;
    }
}

/// Calls `take(first element, values)` for piece after piece.
template <class Take>
void readAll(const Checkpoint& checkpoint, const TensorInfo& tensor, double doneBefore, const JobContext& job, const Take& take) {
    const auto bytes = checkpoint.bytes(tensor);
    const std::size_t size = sizeOf(tensor.dtype), count = bytes.size() / size;
    std::vector<double> values;
    std::vector<float> scratch;
    for (std::size_t at = 0; at < count; at += kPiece) {
        if (job.stopped()) throw Error(ErrorCode::Stopped, tensor.name, "stopped before all of it was read");
        const auto piece = bytes.subspan(at * size, std::min(kPiece, count - at) * size);
        decode(tensor.dtype, piece, values, scratch);
        take(static_cast<std::int64_t>(at), values);
        checkpoint.release(tensor, piece);
        job.progress({doneBefore + static_cast<double>((at + values.size()) * size), 2.0 * static_cast<double>(bytes.size()), "bytes", "reading"});
    }
}

std::vector<std::int64_t> firstOfCells(std::int64_t size, int mostCells) {
    const std::int64_t cells = std::min<std::int64_t>(size, mostCells);
    std::vector<std::int64_t> first(static_cast<std::size_t>(cells));
    // The first position p with p * cells / size == cell.
    for (std::int64_t cell = 0; cell < cells; ++cell) first[static_cast<std::size_t>(cell)] = (cell * size + cells - 1) / cells;
    return first;
}

/// Sums |value| over the cells of the picture.
class Picture {
public:
    Picture(TensorLook& look, const std::vector<std::int64_t>& shape, int mostCells) : m_look(look) {
        look.columns = shape.empty() ? 1 : shape.back();
        look.rows = look.columns > 0 ? look.count / look.columns : 0;
        look.cellRows = firstOfCells(look.rows, mostCells);
        look.cellColumns = firstOfCells(look.columns, mostCells);
        m_cells = static_cast<std::int64_t>(look.cellColumns.size());
        m_sums.resize(look.cellRows.size() * look.cellColumns.size());
        m_counts.resize(m_sums.size());
        m_columnCell.resize(static_cast<std::size_t>(look.columns));
        for (std::int64_t column = 0; column < look.columns; ++column) m_columnCell[static_cast<std::size_t>(column)] = column * m_cells / look.columns;
    }
    void add(std::int64_t first, const std::vector<double>& values) {
        std::int64_t row = first / m_look.columns, column = first % m_look.columns;
        std::size_t base = cellRow(row);
        for (const double value : values) {
            const std::size_t cell = base + static_cast<std::size_t>(m_columnCell[static_cast<std::size_t>(column)]);
            if (std::isfinite(value)) m_sums[cell] += std::fabs(value), ++m_counts[cell];
            if (++column == m_look.columns) column = 0, base = cellRow(++row);
        }
    }
    void finish() {
        for (std::size_t i = 0; i < m_sums.size(); ++i) m_look.cells.push_back(m_counts[i] > 0 ? m_sums[i] / static_cast<double>(m_counts[i]) : kNone);
    }

private:
    std::size_t cellRow(std::int64_t row) const { return static_cast<std::size_t>(row * static_cast<std::int64_t>(m_look.cellRows.size()) / m_look.rows * m_cells); }

    TensorLook& m_look;
    std::int64_t m_cells = 0;
    std::vector<double> m_sums;
    std::vector<std::int64_t> m_counts, m_columnCell;
};

/// Mean and sum of squared distances from it, merged piece by piece (Chan et al. 1979): a plain sum of squares would lose a small spread around a
/// large mean.
struct Moments {
    double count = 0, mean = 0, squares = 0;
    void add(const std::vector<double>& values) {
        double n = 0, sum = 0;
        for (const double value : values)
            if (std::isfinite(value)) sum += value, ++n;
        if (n == 0) return;
        const double middle = sum / n;
        double around = 0;
        for (const double value : values)
            if (std::isfinite(value)) around += (value - middle) * (value - middle);
        const double step = middle - mean, total = count + n;
        squares += around + step * step * count * n / total;
        mean += step * n / total;
        count = total;
    }
};

std::string lower(std::string text) {
    for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return text;
}

}  // namespace

TensorLook lookAtTensor(const Checkpoint& checkpoint, const std::string& name, int mostCells, const JobContext& job) {
    const TensorInfo* tensor = checkpoint.find(name);
    if (!tensor) throw Error(ErrorCode::NotFound, name, "is not a tensor of this checkpoint");
    TensorLook look;
    look.count = tensor->numel();
    look.minimum = look.maximum = look.mean = look.deviation = kNone;
    if (look.count == 0) return look;
    Picture picture(look, tensor->shape, std::max(1, mostCells));
    Moments moments;
    double low = std::numeric_limits<double>::infinity(), high = -low;
    readAll(checkpoint, *tensor, 0, job, [&](std::int64_t first, const std::vector<double>& values) {
        for (const double value : values) {
            const bool finite = std::isfinite(value);
            look.nonFinite += !finite;
            look.zeros += value == 0;
            if (finite) low = std::min(low, value), high = std::max(high, value);
        }
        moments.add(values);
        picture.add(first, values);
    });
    picture.finish();
    if (moments.count == 0) return look;
    const double mean = moments.mean;
    look.minimum = low, look.maximum = high, look.mean = mean;
    look.deviation = std::sqrt(moments.squares / moments.count);
    look.low = std::max(low, mean - 5 * look.deviation), look.high = std::min(high, mean + 5 * look.deviation);
    if (!(look.high > look.low)) look.low = mean - 0.5, look.high = mean + 0.5;
    look.bins.assign(kBins, 0);
    readAll(checkpoint, *tensor, static_cast<double>(tensor->bytes()), job, [&](std::int64_t, const std::vector<double>& values) {
        const double scale = kBins / (look.high - look.low);
        for (const double value : values) {
            if (!std::isfinite(value)) continue;
            if (value < look.low) ++look.below;
            else if (value > look.high) ++look.above;
            else ++look.bins[std::min<std::size_t>(kBins - 1, static_cast<std::size_t>((value - look.low) * scale))];
        }
    });
    return look;
}

Json toJson(const TensorLook& look) {
    return {{"count", look.count}, {"zeros", look.zeros}, {"nonFinite", look.nonFinite}, {"minimum", look.minimum}, {"maximum", look.maximum},
            {"mean", look.mean}, {"deviation", look.deviation}, {"low", look.low}, {"high", look.high}, {"bins", look.bins}, {"below", look.below},
            {"above", look.above}, {"rows", look.rows}, {"columns", look.columns}, {"cellRows", look.cellRows}, {"cellColumns", look.cellColumns},
            {"cells", look.cells}};
}

Json TensorList::rows(const std::shared_ptr<OpenedCheckpoint>& opened, const Json& args) {
    const Checkpoint& checkpoint = opened->checkpoint();
    const auto& tensors = checkpoint.tensors();
    const auto fileOf = [&](const TensorInfo& tensor) { return checkpoint.shards()[static_cast<std::size_t>(tensor.shard)].path().filename().string(); };
    const std::string filter = lower(args.value("filter", "")), sort = args.value("sort", "name");
    const bool descending = args.value("descending", false);
    const std::string key = filter + '\n' + sort + (descending ? "\n-" : "\n+");
    if (key != m_key || m_of.lock() != opened) {
        m_order.clear();
        std::vector<std::string> words;
        for (std::size_t begin = 0; (begin = filter.find_first_not_of(' ', begin)) != std::string::npos;) {
            const std::size_t end = std::min(filter.find(' ', begin), filter.size());
            words.push_back(filter.substr(begin, end - begin));
            begin = end;
        }
        for (std::uint32_t i = 0; i < tensors.size(); ++i) {
            const std::string text = words.empty() ? std::string() : lower(tensors[i].name + ' ' + std::string(name(tensors[i].dtype)) + ' ' + fileOf(tensors[i]));
            if (std::all_of(words.begin(), words.end(), [&](const std::string& word) { return text.find(word) != std::string::npos; })) m_order.push_back(i);
        }
        const auto orderBy = [&](const auto& value) {
            std::stable_sort(m_order.begin(), m_order.end(), [&](std::uint32_t a, std::uint32_t b) { return descending ? value(tensors[b]) < value(tensors[a]) : value(tensors[a]) < value(tensors[b]); });
        };
        if (sort == "dtype") orderBy([](const TensorInfo& tensor) { return name(tensor.dtype); });
        else if (sort == "elements") orderBy([](const TensorInfo& tensor) { return tensor.numel(); });
        else if (sort == "bytes") orderBy([](const TensorInfo& tensor) { return tensor.bytes(); });
        else if (sort == "file") orderBy([](const TensorInfo& tensor) { return tensor.shard; });
        else if (sort != "name") throw Error(ErrorCode::Usage, "sort", "expected name, dtype, elements, bytes or file, found " + sort);
        else if (descending) std::reverse(m_order.begin(), m_order.end());   // they come by name
        m_of = opened;
        m_key = key;
    }
    const auto total = static_cast<std::int64_t>(m_order.size());
    const auto offset = std::clamp<std::int64_t>(args.value("offset", std::int64_t{0}), 0, total);
    const auto end = std::min(total, offset + std::max<std::int64_t>(0, args.value("count", std::int64_t{1000})));
    Json rows = Json::array();
    for (std::int64_t i = offset; i < end; ++i) {
        const TensorInfo& tensor = tensors[m_order[static_cast<std::size_t>(i)]];
        rows.push_back({{"name", tensor.name}, {"dtype", name(tensor.dtype)}, {"shape", tensor.shape}, {"bytes", tensor.bytes()}, {"file", fileOf(tensor)}});
    }
    return {{"total", total}, {"rows", std::move(rows)}};
}

}  // namespace resect
