#include "core/anatomy/health.h"

#include "core/anatomy/anatomy.h"
#include "core/base/numbers.h"

#include <algorithm>
#include <cstring>
#include <set>

namespace resect {

namespace {

constexpr std::size_t kListed = 100;                 // problems of one kind that are listed one by one
constexpr std::uint64_t kTiedSampleBytes = 16 << 20;

/// Tables that old checkpoints store and that follow from config.json: rotary frequencies, GPT-2's causal masks, position numbers. A mask token
/// is used in pre-training only.
bool isTable(const TensorInfo& tensor) {
    const std::string_view name = tensor.name;
    return name.ends_with("rotary_emb.inv_freq") || name.ends_with("rotary_emb.cos_cached") || name.ends_with("rotary_emb.sin_cached") ||
           name.ends_with(".attn.masked_bias") || name.ends_with(".position_ids") || name.ends_with("embeddings.mask_token") || (name.ends_with(".attn.bias") && tensor.shape.size() == 4);
}

class Comparison {
public:
    Comparison(const Checkpoint& checkpoint, const ModelShape& shape, const std::map<std::string, ExpectedTensor>& expected)
        : m_checkpoint(checkpoint), m_shape(shape), m_expected(expected) {}

    std::vector<Problem> run() {
        for (const auto& [name, tensor] : m_expected) {
            const TensorInfo* found = m_checkpoint.find(name);
            if (!found)
                missing(tensor);
            else
                compare(*found, tensor);
        }
        for (const TensorInfo& tensor : m_checkpoint.tensors())
            if (!m_expected.contains(tensor.name)) unexpected(tensor);
        summarise(m_missing, "tensors that config.json calls for are missing");
        summarise(m_misshapen, "tensors do not have the shape that config.json gives them");
        summarise(m_unexpected, "tensors are there that config.json does not call for");
        if (m_tables > 0)
            m_problems.push_back({Severity::Note, m_table, toText(m_tables) + " stored rotary or mask tables are ignored: they follow from config.json", ""});
        return std::move(m_problems);
    }

private:
    void missing(const ExpectedTensor& tensor) {
        std::string advice;
        if (tensor.role == TensorRole::LmHead) advice = "If the model shares the embedding with its head, set tie_word_embeddings to true in config.json.";
        m_missing.push_back({Severity::Error, tensor.name, "expected " + shapeText(tensor.shape) + ", but the tensor is missing", std::move(advice)});
    }

    void compare(const TensorInfo& found, const ExpectedTensor& tensor) {
        if (found.shape != tensor.shape)
            m_misshapen.push_back({Severity::Error, found.name, "expected " + shapeText(tensor.shape) + ", found " + shapeText(found.shape), ""});
        else if (!isFloat(found.dtype))
            m_misshapen.push_back({Severity::Error, found.name, "expected floating-point numbers, found " + std::string(name(found.dtype)),
                                   "Quantised weights cannot be cut; open the original checkpoint."});
    }

    void unexpected(const TensorInfo& tensor) {
        if (isTable(tensor)) {
            m_table = tensor.name;
            ++m_tables;
        } else if (m_shape.tiedEmbeddings && tensor.name == tensorName(m_shape, TensorRole::LmHead)) {
            tiedHead(tensor);
        } else {
            m_unexpected.push_back({Severity::Error, tensor.name, "config.json does not call for this tensor " + shapeText(tensor.shape),
                                    "A cut would lose it. Remove it, or correct config.json."});
        }
    }

    void tiedHead(const TensorInfo& head) {
        const TensorInfo* embedding = m_checkpoint.find(tensorName(m_shape, TensorRole::TokenEmbedding));
        if (!embedding) return;
        const bool comparable = embedding->dtype == head.dtype && embedding->shape == head.shape;
        if (comparable && sampleIsEqual(m_checkpoint.bytes(*embedding), m_checkpoint.bytes(head)))
            m_problems.push_back({Severity::Note, head.name, "is stored although it is tied to the embedding; exports leave it out", ""});
        else
            m_problems.push_back({Severity::Error, head.name, "config.json says that it is tied to " + embedding->name + ", but their values differ",
                                  "Set tie_word_embeddings to false in config.json to keep the stored head, or remove the tensor."});
        m_checkpoint.release(*embedding);
        m_checkpoint.release(head);
    }

    /// All bytes of small tensors, evenly spread pieces of large ones.
    static bool sampleIsEqual(std::span<const std::byte> a, std::span<const std::byte> b) {
        const std::uint64_t pieces = a.size() <= kTiedSampleBytes ? 1 : 1024;
        const std::uint64_t length = pieces == 1 ? a.size() : kTiedSampleBytes / pieces;
        for (std::uint64_t i = 0; i < pieces; ++i) {
            const std::uint64_t at = pieces == 1 ? 0 : (a.size() - length) / (pieces - 1) * i;
            if (std::memcmp(a.data() + at, b.data() + at, length) != 0) return false;
        }
        return true;
    }

    void summarise(std::vector<Problem>& list, const std::string& what) {
        std::sort(list.begin(), list.end(), [](const Problem& a, const Problem& b) { return naturalLess(a.subject, b.subject); });
        const std::size_t listed = std::min(list.size(), kListed);
        m_problems.insert(m_problems.end(), list.begin(), list.begin() + static_cast<std::ptrdiff_t>(listed));
        if (list.size() > listed) m_problems.push_back({Severity::Error, "tensors", toText(list.size() - listed) + " more " + what, ""});
    }

    const Checkpoint& m_checkpoint;
    const ModelShape& m_shape;
    const std::map<std::string, ExpectedTensor>& m_expected;
    std::vector<Problem> m_problems, m_missing, m_misshapen, m_unexpected;
    int m_tables = 0;
    std::string m_table;  // one of them
};

/// Non-finite elements of a run of bytes.
struct NonFinite {
    std::uint64_t count = 0;
    std::int64_t first = -1;
};

/// Elements whose bits under `mask` are all set: the exponent of NaN and infinity.
template <class Word>
void scan(std::span<const std::byte> bytes, Word mask, std::int64_t firstElement, NonFinite& found) {
    constexpr std::size_t kBatch = 4096;
    Word batch[kBatch];
    const std::size_t total = bytes.size() / sizeof(Word);
    for (std::size_t at = 0; at < total; at += kBatch) {
        const std::size_t n = std::min(kBatch, total - at);
        std::memcpy(batch, bytes.data() + at * sizeof(Word), n * sizeof(Word));  // tensors need not be aligned
        std::uint32_t hits = 0;
        for (std::size_t i = 0; i < n; ++i) hits += (batch[i] & mask) == mask;
        if (hits == 0) continue;
        if (found.first < 0) {
            const auto* hit = std::find_if(batch, batch + n, [mask](Word word) { return (word & mask) == mask; });
            found.first = firstElement + static_cast<std::int64_t>(at) + (hit - batch);
        }
        found.count += hits;
    }
}

void scan(std::span<const std::byte> bytes, DType dtype, std::int64_t firstElement, NonFinite& found) {
    switch (dtype) {
    case DType::F64: return scan<std::uint64_t>(bytes, 0x7ff0000000000000, firstElement, found);
    case DType::F32: return scan<std::uint32_t>(bytes, 0x7f800000, firstElement, found);
    case DType::BF16: return scan<std::uint16_t>(bytes, 0x7f80, firstElement, found);
    case DType::F16: return scan<std::uint16_t>(bytes, 0x7c00, firstElement, found);
    case DType::F8E5M2: return scan<std::uint8_t>(bytes, 0x7c, firstElement, found);
    case DType::F8E4M3: return scan<std::uint8_t>(bytes, 0x7f, firstElement, found);  // has no infinity; one NaN pattern
    default: return;
    }
}

std::string position(std::int64_t element, const std::vector<std::int64_t>& shape) {
    std::string text;
    for (auto size = shape.rbegin(); size != shape.rend(); ++size) {
        text = toText(element % *size) + (text.empty() ? "" : ", ") + text;
        element /= *size;
    }
    return "[" + text + "]";
}

}  // namespace

std::vector<Problem> compareTensors(const Checkpoint& checkpoint, const ModelShape& shape, const std::map<std::string, ExpectedTensor>& expected) {
    return Comparison(checkpoint, shape, expected).run();
}

std::vector<Problem> findNonFinite(const Checkpoint& checkpoint, const JobContext& job) {
    constexpr std::size_t kPiece = 8 << 20;
    std::vector<Problem> problems;
    double done = 0;
    const auto total = static_cast<double>(checkpoint.totalBytes());
    for (const TensorInfo& tensor : checkpoint.tensors()) {
        NonFinite found;
        const auto bytes = checkpoint.bytes(tensor);
        for (std::size_t at = 0; at < bytes.size(); at += kPiece) {
            if (job.stopped()) {
                problems.push_back({Severity::Note, tensor.name, "stopped here: this and the following tensors were not read", ""});
                return problems;
            }
            const auto piece = bytes.subspan(at, std::min(kPiece, bytes.size() - at));
            if (isFloat(tensor.dtype)) scan(piece, tensor.dtype, static_cast<std::int64_t>(at / sizeOf(tensor.dtype)), found);
            checkpoint.release(tensor, piece);
            done += static_cast<double>(piece.size());
            job.progress({done, total, "bytes", "reading all weights"});
        }
        if (found.count > 0)
            problems.push_back({Severity::Error, tensor.name,
                                toText(found.count) + " of " + toText(tensor.numel()) + " values are NaN or infinite, the first at " + position(found.first, tensor.shape),
                                "The file was damaged or training diverged: use an earlier checkpoint."});
    }
    return problems;
}

}  // namespace resect
