#pragma once
#include "core/anatomy/anatomy.h"
#include "core/base/job.h"
#include "core/checkpoint/checkpoint.h"
#include "core/export/peft_adapter.h"
#include "core/models/model.h"
#include "plugins/s2ft/s2_selection.h"

#include <torch/types.h>

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace resect::s2 {

/// What was added to some columns or rows of one weight. Orientation [out, in] whatever the family stores.
struct Delta {
    Side side = Side::In;
    std::int64_t out = 0, in = 0;       ///< of the whole weight
    std::vector<std::int32_t> index;    ///< ascending: columns (In) or rows (Out)
    torch::Tensor value;                ///< f32 on the CPU, [out, k] or [k, in]
};

/// An S2FT adapter: adapter.safetensors with `<tensor>.s2.index` (int32 [k]) and `<tensor>.s2.delta` (f32 [out, k] or [k, in]), and s2_config.json:
/// {"resect_s2ft": 1, "base": path, "fingerprint": "sha256:...", "transposed": false, "blocks": 12, "selection": [...],
///  "tensors": {name: {"side": "in"|"out", "out": n, "in": n}}, "training": {...}}.
struct Adapter {
    std::string base;           ///< folder of the checkpoint it was trained on
    std::string fingerprint;    ///< of that checkpoint; "" = not known (fused of several)
    bool transposed = false;    ///< the base stores its matrices [in, out]
    int numBlocks = 0;
    Json training;              ///< ranking, amounts, seed: for people; may be null
    std::map<std::string, Delta> deltas;   ///< by tensor name; tensors without a trained unit are not listed
};

/// Is it the folder of an S2FT adapter?
bool isAdapter(const std::filesystem::path& folder);
/// Writes the two files into the existing folder. Throws DiskFull, NoPermission.
void writeAdapter(const std::filesystem::path& folder, const Adapter& adapter);
/// Throws NotFound, Corrupt; BadInput naming the tensor: sizes that contradict each other, an index that does not ascend or leaves the weight.
Adapter readAdapter(const std::filesystem::path& folder);
/// Every tensor that the base lacks or has in another shape, and another fingerprint (a warning); empty = it fits.
std::vector<Problem> checkAdapter(const Adapter& adapter, const Checkpoint& base);

/// Sum of factor x delta over the union of the indices. Adapters of different columns of one weight do not disturb each other, and their order
/// does not matter, bit for bit. Throws Mismatch naming the tensor whose sizes or sides differ.
struct Share {
    const Adapter* adapter = nullptr;
    double factor = 1;
};
Adapter fused(std::span<const Share> shares);

/// The same change as PEFT stores it, exactly: In: B = delta [out, k], A one-hot rows [k, in]; Out: A = delta, B one-hot columns;
/// rank = alpha = k, so that the scale is 1.
LoraAdapter asPeft(const Adapter& adapter);

/// The adapter put onto its base: the new checkpoint `to`. Inside the trained columns or rows base + factor x delta, in f32, rounded once to the
/// stored dtype; every other byte is the base's. Throws Mismatch naming the tensor that does not fit.
void mergeOnto(const Checkpoint& base, const Adapter& adapter, const std::filesystem::path& to, const JobContext& job);

/// Exchanges adapters in the weights of a resident model. A switch touches the trained columns and rows alone, so that its time does not depend on
/// the size of the model; what the base held there is kept and put back, so that no adapter leaves a trace, bit for bit.
class Switcher {
public:
    explicit Switcher(LanguageModel& model);   ///< must outlive it
    ~Switcher();                               ///< puts the base back
    Switcher(const Switcher&) = delete;
    Switcher& operator=(const Switcher&) = delete;
    /// Null = the base. Throws Mismatch naming the tensor that the model lacks or has in another shape; the base stands then.
    void apply(const Adapter* adapter, double factor = 1);

private:
    struct Kept;
    LanguageModel& m_model;
    std::vector<Kept> m_kept;
};

/// Several adapters over one base in one batch: every row of a batch runs with the adapter that is assigned to it, the product with the base is
/// shared: y[n] = W x[n] + U_a(n) x[n, index_a(n)]. Without gradients.
class Server {
public:
    /// `model` must outlive it; the adapters are copied to its device. Throws Mismatch as Switcher, Unsupported for experts of a mixture (their tokens
    /// are not in rows).
    Server(LanguageModel& model, std::span<const Adapter* const> adapters);
    ~Server();   ///< takes the adapters out again
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;
    /// The adapter of each row of the next batches, -1 = the base alone. Throws Usage when one does not exist.
    void assign(std::vector<int> adapterOfRow);

private:
    struct Shared;
    LanguageModel& m_model;
    std::shared_ptr<Shared> m_shared;
    std::vector<std::pair<int, std::string>> m_places;
};

}  // namespace resect::s2
