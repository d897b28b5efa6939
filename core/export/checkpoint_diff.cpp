#include "core/export/checkpoint_diff.h"

#include "core/surgery/convert.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>

namespace resect {

namespace {

constexpr std::size_t kChunk = 1 << 18;       // elements compared at a time
constexpr std::int64_t kSampled = 64;         // elements of a tensor that matching of blocks looks at

/// "model.layers.3.mlp.up_proj.weight" -> "model.layers", 3, "mlp.up_proj.weight".
struct BlockName {
    std::string stack;
    int block = -1;
    std::string role;
};

std::optional<BlockName> blockName(const std::string& name) {
    for (std::size_t begin = 0, end; begin < name.size(); begin = end + 1) {
        end = std::min(name.find('.', begin), name.size());
        int block = 0;
        const auto [stop, failed] = std::from_chars(name.data() + begin, name.data() + end, block);
        if (failed == std::errc() && stop == name.data() + end && begin > 0 && end < name.size())
            return BlockName{name.substr(0, begin - 1), block, name.substr(end + 1)};
    }
    return std::nullopt;
}

using Blocks = std::map<int, std::map<std::string, const TensorInfo*>>;   // block -> role -> tensor

std::map<std::string, Blocks> stacksOf(const Checkpoint& checkpoint) {
    std::map<std::string, Blocks> stacks;
    for (const TensorInfo& tensor : checkpoint.tensors()) {
        if (const auto place = blockName(tensor.name)) stacks[place->stack][place->block][place->role] = &tensor;
    }
    return stacks;
}

bool isComparable(DType dtype) { return canConvert(dtype, DType::F32); }

/// Elements `first`..`first + count` as f32.
void readElements(const Checkpoint& checkpoint, const TensorInfo& tensor, std::int64_t first, std::int64_t count, float* out) {
    const auto bytes = checkpoint.bytes(tensor).subspan(static_cast<std::size_t>(first) * sizeOf(tensor.dtype));
    convertElements(tensor.dtype, bytes.data(), DType::F32, reinterpret_cast<std::byte*>(out), static_cast<std::size_t>(count));
}

class Diff {
public:
    Diff(const Checkpoint& a, const Checkpoint& b, DiffContent content, const JobContext& job) : m_a(a), m_b(b), m_content(content), m_job(job) {}

    CheckpointDiff run() {
        compareConfigs();
        matchBlocks();
        for (const TensorInfo& tensor : m_a.tensors()) m_total += double(tensor.bytes());
        std::map<std::string, bool> met;
        for (const TensorInfo& tensor : m_a.tensors()) {
            const TensorInfo* other = m_b.find(nameInB(tensor.name));
            if (other) met[other->name] = true;
            compareTensors(tensor, other);
            m_done += double(tensor.bytes());
        }
        for (const TensorInfo& tensor : m_b.tensors()) {
            if (!met.contains(tensor.name)) m_diff.tensors.push_back({TensorDifference::Kind::Added, "", tensor.name, {}, tensor.shape, tensor.dtype, tensor.dtype});
        }
        return std::move(m_diff);
    }

private:
    void compareConfigs() {
        std::map<std::string, ConfigDifference> fields;
        const auto add = [&](const Json& config, Json ConfigDifference::*side) {
            if (!config.is_object()) return;
            for (const auto& [field, value] : config.items()) fields[field].*side = value;
        };
        add(m_a.config(), &ConfigDifference::a);
        add(m_b.config(), &ConfigDifference::b);
        for (auto& [field, difference] : fields) {
            if (difference.a == difference.b) continue;
            difference.field = field;
            m_diff.config.push_back(std::move(difference));
        }
    }

    void matchBlocks() {
        const auto stacksA = stacksOf(m_a), stacksB = stacksOf(m_b);
        for (const auto& [stack, blocksA] : stacksA) {
            const auto found = stacksB.find(stack);
            matchStack(stack, blocksA, found == stacksB.end() ? Blocks() : found->second);
        }
        for (const auto& [stack, blocksB] : stacksB) {
            if (!stacksA.contains(stack)) matchStack(stack, {}, blocksB);
        }
    }

    void matchStack(const std::string& stack, const Blocks& blocksA, const Blocks& blocksB) {
        std::vector<int> numbersA, numbersB;
        for (const auto& [number, unused] : blocksA) numbersA.push_back(number);
        for (const auto& [number, unused] : blocksB) numbersB.push_back(number);
        const bool aIsLarger = numbersA.size() >= numbersB.size();
        const auto& larger = aIsLarger ? numbersA : numbersB;
        const auto& smaller = aIsLarger ? numbersB : numbersA;
        const auto cost = [&](std::size_t large, std::size_t small) {
            const int a = aIsLarger ? larger[large] : smaller[small], b = aIsLarger ? smaller[small] : larger[large];
            return distance(blocksA.at(a), blocksB.at(b));
        };
        const auto partner = matchInOrder(larger.size(), smaller.size(), cost);
        std::map<int, int> ofA, ofB;
        for (std::size_t i = 0; i < smaller.size(); ++i) {
            const int a = aIsLarger ? larger[partner[i]] : smaller[i], b = aIsLarger ? smaller[i] : larger[partner[i]];
            ofA[a] = b, ofB[b] = a;
        }
        for (const int a : numbersA) m_diff.blocks.push_back({stack, a, ofA.contains(a) ? ofA[a] : -1});
        for (const int b : numbersB)
            if (!ofB.contains(b)) m_diff.blocks.push_back({stack, -1, b});
        m_blocks[stack] = std::move(ofA);
    }

    /// For each of `small` items its partner among `large` ones, ascending, with the least sum of costs.
    template <class Cost> static std::vector<std::size_t> matchInOrder(std::size_t large, std::size_t small, const Cost& cost) {
        std::vector<std::size_t> partner(small);
        for (std::size_t i = 0; i < small; ++i) partner[i] = i;
        if (large == small) return partner;
        constexpr double kFar = std::numeric_limits<double>::infinity();
        std::vector<std::vector<double>> best(small + 1, std::vector<double>(large + 1, kFar));
        std::fill(best[0].begin(), best[0].end(), 0.0);
        for (std::size_t s = 1; s <= small; ++s)
            for (std::size_t l = s; l + small <= large + s; ++l) best[s][l] = std::min(best[s][l - 1], best[s - 1][l - 1] + cost(l - 1, s - 1));
        for (std::size_t s = small, l = large; s > 0; --s) {
            while (l > s && best[s][l - 1] <= best[s][l]) --l;
            partner[s - 1] = --l;
        }
        return partner;
    }

    /// Mean relative distance of the sampled elements of tensors that both blocks have in the same shape; 1 when there are none.
    double distance(const std::map<std::string, const TensorInfo*>& a, const std::map<std::string, const TensorInfo*>& b) {
        double sum = 0;
        int compared = 0;
        for (const auto& [role, tensor] : a) {
            const auto other = b.find(role);
            if (other == b.end() || other->second->shape != tensor->shape || !isComparable(tensor->dtype) || !isComparable(other->second->dtype)) continue;
            const auto &left = sampleOf(m_a, *tensor), &right = sampleOf(m_b, *other->second);
            double difference = 0, size = 0;
            for (std::size_t i = 0; i < left.size(); ++i) difference += std::pow(double(left[i]) - right[i], 2), size += double(left[i]) * left[i];
            sum += size > 0 ? std::min(1.0, std::sqrt(difference / size)) : difference > 0 ? 1 : 0;
            ++compared;
        }
        return compared > 0 ? sum / compared : 1;
    }

    const std::vector<float>& sampleOf(const Checkpoint& checkpoint, const TensorInfo& tensor) {
        auto& sample = m_samples[&tensor];
        if (sample.empty()) {
            const std::int64_t count = std::min(kSampled, tensor.numel());
            sample.resize(static_cast<std::size_t>(count));
            for (std::int64_t i = 0; i < count; ++i) readElements(checkpoint, tensor, i * tensor.numel() / count, 1, &sample[static_cast<std::size_t>(i)]);
        }
        return sample;
    }

    std::string nameInB(const std::string& name) const {
        const auto place = blockName(name);
        if (!place) return name;
        const auto& blocks = m_blocks.at(place->stack);
        const auto found = blocks.find(place->block);
        return found == blocks.end() ? std::string() : place->stack + "." + std::to_string(found->second) + "." + place->role;
    }

    void compareTensors(const TensorInfo& a, const TensorInfo* b) {
        using Kind = TensorDifference::Kind;
        if (!b) return m_diff.tensors.push_back({Kind::Removed, a.name, "", a.shape, {}, a.dtype, a.dtype});
        TensorDifference difference{Kind::Reshaped, a.name, b->name, a.shape, b->shape, a.dtype, b->dtype};
        if (a.shape != b->shape) return m_diff.tensors.push_back(std::move(difference));
        difference.kind = Kind::Changed;
        if (m_content == DiffContent::Skip || m_job.stopped()) {
            m_diff.complete = m_diff.complete && m_content == DiffContent::Skip;
            if (a.dtype != b->dtype) m_diff.tensors.push_back(std::move(difference));
            return;
        }
        if (!compareContent(a, *b, difference)) {
            m_diff.complete = false;
            return;
        }
        ++m_diff.comparedTensors;
        if (difference.changedElements == 0 && a.dtype == b->dtype) ++m_diff.equalTensors;
        else m_diff.tensors.push_back(std::move(difference));
    }

    /// False when it was stopped.
    bool compareContent(const TensorInfo& a, const TensorInfo& b, TensorDifference& difference) {
        const bool numbers = isComparable(a.dtype) && isComparable(b.dtype);
        const std::size_t count = static_cast<std::size_t>(a.numel()), sizeA = sizeOf(a.dtype), sizeB = sizeOf(b.dtype);
        const auto bytesA = m_a.bytes(a), bytesB = m_b.bytes(b);
        double squares = 0, base = 0, largest = 0;
        for (std::size_t first = 0; first < count; first += kChunk) {
            if (m_job.stopped()) return false;
            const std::size_t n = std::min(kChunk, count - first);
            const auto partA = bytesA.subspan(first * sizeA, n * sizeA), partB = bytesB.subspan(first * sizeB, n * sizeB);
            const bool equal = a.dtype == b.dtype && std::memcmp(partA.data(), partB.data(), partA.size()) == 0;
            if (numbers) {
                m_left.resize(n), m_right.resize(n);
                readElements(m_a, a, static_cast<std::int64_t>(first), static_cast<std::int64_t>(n), m_left.data());
                if (!equal) readElements(m_b, b, static_cast<std::int64_t>(first), static_cast<std::int64_t>(n), m_right.data());
                for (std::size_t i = 0; i < n; ++i) {
                    base += double(m_left[i]) * m_left[i];
                    if (equal) continue;
                    const double step = double(m_right[i]) - m_left[i];
                    squares += step * step;
                    largest = std::max(largest, std::fabs(step));
                }
            }
            if (!equal) difference.changedElements += a.dtype == b.dtype ? countChanged(partA, partB, sizeA) : countChanged(numbers, n);
            m_a.release(a, partA);
            m_b.release(b, partB);
            m_job.progress({m_done + double((first + n) * sizeA), m_total, "bytes", "comparing"});
        }
        if (numbers) {
            difference.relative = base > 0 ? std::sqrt(squares / base) : squares > 0 ? std::numeric_limits<double>::infinity() : 0;
            difference.largest = largest;
        }
        return true;
    }

    static std::int64_t countChanged(std::span<const std::byte> a, std::span<const std::byte> b, std::size_t size) {
        std::int64_t changed = 0;
        for (std::size_t at = 0; at < a.size(); at += size) changed += std::memcmp(a.data() + at, b.data() + at, size) != 0;
        return changed;
    }
    /// Of the chunk that was read last, by value; all of it when the types cannot be compared by value.
    std::int64_t countChanged(bool numbers, std::size_t count) const {
        if (!numbers) return static_cast<std::int64_t>(count);
        std::int64_t changed = 0;
        for (std::size_t i = 0; i < count; ++i) changed += m_left[i] != m_right[i];
        return changed;
    }

    const Checkpoint &m_a, &m_b;
    DiffContent m_content;
    const JobContext& m_job;
    CheckpointDiff m_diff;
    std::map<std::string, std::map<int, int>> m_blocks;          // stack -> block of A -> block of B
    std::map<const TensorInfo*, std::vector<float>> m_samples;
    std::vector<float> m_left, m_right;
    double m_done = 0, m_total = 0;
};

Json numberOrNull(double value) { return std::isfinite(value) ? Json(value) : Json(); }

}  // namespace

CheckpointDiff diffCheckpoints(const Checkpoint& a, const Checkpoint& b, DiffContent content, const JobContext& job) { return Diff(a, b, content, job).run(); }

std::string_view name(TensorDifference::Kind kind) noexcept {
    constexpr std::string_view kNames[] = {"added", "removed", "reshaped", "changed"};
    return kNames[static_cast<int>(kind)];
}

Json toJson(const CheckpointDiff& diff) {
    Json json{{"same", diff.same()}, {"complete", diff.complete}, {"equalTensors", diff.equalTensors}, {"comparedTensors", diff.comparedTensors},
              {"config", Json::array()}, {"blocks", Json::array()}, {"tensors", Json::array()}};
    for (const auto& entry : diff.config) json["config"].push_back({{"field", entry.field}, {"a", entry.a}, {"b", entry.b}});
    for (const auto& pair : diff.blocks)
        json["blocks"].push_back({{"stack", pair.stack}, {"a", pair.a >= 0 ? Json(pair.a) : Json()}, {"b", pair.b >= 0 ? Json(pair.b) : Json()}});
    for (const auto& entry : diff.tensors) {
        Json row{{"kind", name(entry.kind)}};
        if (!entry.a.empty()) row.update({{"a", entry.a}, {"shapeA", entry.shapeA}, {"dtypeA", name(entry.dtypeA)}});
        if (!entry.b.empty()) row.update({{"b", entry.b}, {"shapeB", entry.shapeB}, {"dtypeB", name(entry.dtypeB)}});
        if (entry.kind == TensorDifference::Kind::Changed)
            row.update({{"relative", numberOrNull(entry.relative)}, {"largest", numberOrNull(entry.largest)}, {"changedElements", entry.changedElements}});
        json["tensors"].push_back(std::move(row));
    }
    return json;
}

}  // namespace resect
