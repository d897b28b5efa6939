#pragma once
#include "core/anatomy/model_shape.h"
#include "core/protocol/json.h"
#include "core/surgery/cut.h"

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace resect::s2 {

/// The four projections of which S2FT trains a part (arXiv 2412.06289).
enum class Part {
    Output,  ///< columns of o_proj, by query head
    Down,    ///< columns of down_proj, by channel
    Value,   ///< rows of v_proj, by kv group
    Up       ///< rows of up_proj, by channel
};
inline constexpr std::array kParts{Part::Output, Part::Down, Part::Value, Part::Up};
std::string_view name(Part part) noexcept;  ///< "output", "down", "value", "up"

/// Which side of a weight [out, in] is cut into units.
enum class Side { In, Out };
inline Side sideOf(Part part) noexcept { return part == Part::Output || part == Part::Down ? Side::In : Side::Out; }

/// One projection of one block (of one routed expert): where its units lie.
struct Pool {
    Part part{};
    int block = 0, expert = -1;
    int units = 0;             ///< heads, kv groups or channels
    int width = 1;             ///< places of one unit along side()
    std::int64_t offset = 0;   ///< of the first unit: a fused tensor holds others before
    std::int64_t other = 0;    ///< size of the other side
    std::string role{};        ///< within the block: "self_attn.o_proj"
    std::string tensor{};      ///< "model.layers.3.self_attn.o_proj.weight"
    Side side() const noexcept { return sideOf(part); }
    /// Places of the units along side(), ascending when the units are. `units` ascend.
    std::vector<std::int64_t> places(const std::vector<int>& units) const;
};
/// Every projection of the part that the model has, by block and expert. Shared experts are not among them.
std::vector<Pool> poolsOf(const ModelShape& shape, Part part);

/// The units of one projection that are trained.
struct Trained {
    Pool pool;
    std::vector<int> units;    ///< ascending, not empty
    std::int64_t parameters() const noexcept { return static_cast<std::int64_t>(units.size()) * pool.width * pool.other; }
};
using Selection = std::vector<Trained>;   ///< projections without a trained unit are not listed

enum class Scope { Global, PerBlock };
enum class End { Smallest, Largest };
/// How many units of one part: a share (floor(share x all units), 0..1), or a number of units when it is above 0. Global: of one pool over the
/// model, so that blocks hold different numbers of them; per block: of each projection.
struct Amount {
    double ratio = 0;
    std::int64_t count = 0;
    bool any() const noexcept { return ratio > 0 || count > 0; }
    std::int64_t of(std::int64_t units) const noexcept;
};

/// Scores of the units of some pools, [pool][unit]; NaN = must not be chosen (an expert that no token reached).
using Scores = std::vector<std::vector<double>>;
/// The lowest or highest scores. Ties go to the earlier unit. `taken[pool]` lists units that must not be chosen. Throws Usage when there are too few.
Selection choose(const std::vector<Pool>& pools, const Scores& scores, const Amount& amount, Scope scope, End end, const std::vector<std::vector<int>>& taken = {});
/// Random numbers in place of scores: a choice without replacement that depends on the seed alone.
Scores randomScores(const std::vector<Pool>& pools, std::uint64_t seed);

/// A user's own selection, as JSON: a list of
///   {"block": 3, "heads": [1, 5]}                  columns of o_proj
///   {"block": 3, "groups": [0]}                    rows of v_proj
///   {"block": 4, "channels": [7, 9]}               columns of down_proj; with "projection": "up" rows of up_proj
///   {"block": 4, "expert": 2, "channels": [1]}     of a routed expert
///   {"kind": "head", "block": 3, "index": 1}       one component (head, kv_group, channel), as workspace.json keeps named selections
/// `text` is that JSON, or the name of a file that holds it. Numbers are those of the source before the plan; `shape` is what the plan leaves.
/// Throws BadInput naming the entry: unknown fields, components that the model does not have or that the plan removes.
Selection readSelection(const std::string& text, const ModelShape& shape, const ModelShape* source, const Cut* cut);

/// What a run keeps of its selection, and back. Throws BadInput.
Json toJson(const Selection& selection);
Selection selectionFromJson(const Json& json, const ModelShape& shape, const std::string& subject);

}  // namespace resect::s2
