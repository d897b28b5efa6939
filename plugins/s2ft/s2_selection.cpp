#include "plugins/s2ft/s2_selection.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/train/batches.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace resect::s2 {

namespace {

[[noreturn]] void refuse(const std::string& subject, const std::string& message) { throw Error(ErrorCode::BadInput, subject, message); }

/// The weight that holds the part: its own, a stacked one, or an expert's.
TensorRole roleOf(Part part, const Family& family, bool expert) {
    using enum TensorRole;
    switch (part) {
    case Part::Output: return OutputWeight;
    case Part::Down: return expert ? ExpertDownWeight : DownWeight;
    case Part::Value: return family.fusedQkv ? QkvWeight : ValueWeight;
    case Part::Up: return expert ? ExpertUpWeight : family.fusedGateUp ? GateUpWeight : UpWeight;
    }
    return OutputWeight;
}

bool isAttentionPart(Part part) { return part == Part::Output || part == Part::Value; }

Pool makePool(const ModelShape& shape, Part part, int block, int expert) {
    const Family& family = familyOf(shape);
    const BlockShape& own = shape.blocks[static_cast<std::size_t>(block)];
    Pool pool{part, block, expert};
    pool.units = part == Part::Output ? own.numHeads : part == Part::Value ? own.numKvHeads : own.ffnSize;
    pool.width = isAttentionPart(part) ? own.headDim : 1;
    pool.other = shape.hiddenSize;
    if (part == Part::Value && family.fusedQkv) pool.offset = std::int64_t{own.numHeads + own.numKvHeads} * own.headDim;
    if (part == Part::Up && family.fusedGateUp && expert < 0) pool.offset = own.ffnSize;
    pool.tensor = tensorName(family, roleOf(part, family, expert >= 0), block, expert);
    const auto prefix = std::string(family.blockPrefix) + std::to_string(block) + ".";
    pool.role = pool.tensor.substr(prefix.size(), pool.tensor.rfind('.') - prefix.size());
    return pool;
}

Selection collect(const std::vector<Pool>& pools, std::vector<std::vector<int>> units) {
    Selection selection;
    for (std::size_t i = 0; i < pools.size(); ++i) {
        std::ranges::sort(units[i]);
        if (!units[i].empty()) selection.push_back({pools[i], std::move(units[i])});
    }
    return selection;
}

struct Candidate {
    double score;
    std::size_t pool;
    int unit;
};

/// Finds the entry of a user's list in the cut model.
class Renumbering {
public:
    Renumbering(const ModelShape& shape, const ModelShape* source, const Cut* cut) : m_shape(shape), m_source(source && cut ? *source : shape), m_cut(source && cut ? cut : nullptr) {}

    Pool pool(Part part, int block, int expert, const std::string& subject) const {
        const BlockShape& own = sourceBlock(block, subject);
        if (isAttentionPart(part) ? !own.hasAttention : !own.hasFfn) refuse(subject, "block " + std::to_string(block) + " has no such layer");
        if (!isAttentionPart(part) && own.numExperts > 0 && (expert < 0 || expert >= own.numExperts))
            refuse(subject, "block " + std::to_string(block) + " has " + std::to_string(own.numExperts) + " experts; expected \"expert\" to name one");
        if (expert >= 0 && own.numExperts == 0) refuse(subject, "block " + std::to_string(block) + " has no experts");
        return makePool(m_shape, part, newBlock(block, part, subject), expert < 0 ? -1 : place(kept(block, expert, ComponentKind::Expert), expert, subject));
    }
    int unit(Part part, int block, int expert, int index, const std::string& subject) const {
        const auto kind = part == Part::Output ? ComponentKind::Head : part == Part::Value ? ComponentKind::KvGroup : ComponentKind::Channel;
        const BlockShape& own = sourceBlock(block, subject);
        const int units = kind == ComponentKind::Head ? own.numHeads : kind == ComponentKind::KvGroup ? own.numKvHeads : own.ffnSize;
        if (index < 0 || index >= units)
            refuse(subject, "expected " + std::string(resect::name(kind)) + " 0 to " + std::to_string(units - 1) + " of block " + std::to_string(block) + ", found " + std::to_string(index));
        return place(kept(block, expert, kind), index, subject);
    }

private:
    const BlockShape& sourceBlock(int block, const std::string& subject) const {
        if (block < 0 || block >= m_source.numBlocks())
            refuse(subject, "expected block 0 to " + std::to_string(m_source.numBlocks() - 1) + ", found " + std::to_string(block));
        return m_source.blocks[static_cast<std::size_t>(block)];
    }
    int newBlock(int block, Part part, const std::string& subject) const {
        if (!m_cut) return block;
        const int now = place(keptBlocks(*m_cut), block, subject);
        const BlockShape& left = m_shape.blocks[static_cast<std::size_t>(now)];
        if (isAttentionPart(part) ? !left.hasAttention : !left.hasFfn) refuse(subject, "the plan removes that layer of block " + std::to_string(block));
        return now;
    }
    /// Source indices that stay, ascending; empty = all.
    std::vector<int> kept(int block, int expert, ComponentKind kind) const {
        if (!m_cut) return {};
        const BlockShape& own = m_source.blocks[static_cast<std::size_t>(block)];
        const BlockCut& cut = m_cut->blocks[static_cast<std::size_t>(block)];
        if (kind == ComponentKind::Expert) return keptExperts(own, cut);
        if (kind == ComponentKind::Head) return keptHeads(own, cut);
        return kind == ComponentKind::KvGroup ? keptKvGroups(own, cut) : keptChannels(own, cut, expert);
    }
    int place(const std::vector<int>& kept, int index, const std::string& subject) const {
        if (!m_cut) return index;
        const auto found = std::ranges::lower_bound(kept, index);
        if (found == kept.end() || *found != index) refuse(subject, "the plan removes it, so it cannot be trained");
        return static_cast<int>(found - kept.begin());
    }
    const ModelShape& m_shape;
    const ModelShape& m_source;
    const Cut* m_cut;
};

std::vector<int> indexList(const Json& entry, const char* field, const std::string& subject) {
    const Json& list = entry.at(field);
    if (!list.is_array() || !std::ranges::all_of(list, [](const Json& number) { return number.is_number_integer(); }))
        refuse(subject, std::string(field) + ": expected a list of whole numbers, found " + list.dump());
    return list.get<std::vector<int>>();
}

void refuseUnknown(const Json& entry, const std::string& subject) {
    static const std::set<std::string, std::less<>> known{"kind", "index", "block", "expert", "heads", "groups", "channels", "projection"};
    for (const auto& [field, unused] : entry.items())
        if (!known.contains(field)) refuse(subject, field + ": is no field of a selection");
}

struct Wish {
    Part part{};
    std::vector<int> units;
};

std::vector<Wish> wishesOf(const Json& entry, const std::string& subject) {
    const auto projection = stringField(entry, "projection", subject, "down");
    if (projection != "down" && projection != "up") refuse(subject, "projection: expected down or up, found " + projection);
    const Part channels = projection == "up" ? Part::Up : Part::Down;
    std::vector<Wish> wishes;
    if (entry.contains("kind")) {
        const auto kind = stringField(entry, "kind", subject);
        const int index = static_cast<int>(intField(entry, "index", subject));
        if (kind == "head") wishes.push_back({Part::Output, {index}});
        else if (kind == "kv_group") wishes.push_back({Part::Value, {index}});
        else if (kind == "channel") wishes.push_back({channels, {index}});
        else refuse(subject, "kind: S2FT trains heads, kv groups and channels, found " + kind);
        return wishes;
    }
    if (entry.contains("heads")) wishes.push_back({Part::Output, indexList(entry, "heads", subject)});
    if (entry.contains("groups")) wishes.push_back({Part::Value, indexList(entry, "groups", subject)});
    if (entry.contains("channels")) wishes.push_back({channels, indexList(entry, "channels", subject)});
    if (wishes.empty()) refuse(subject, "expected heads, groups or channels, found " + entry.dump());
    return wishes;
}

bool before(const Pool& a, const Pool& b) { return std::tie(a.part, a.block, a.expert) < std::tie(b.part, b.block, b.expert); }

}  // namespace

std::string_view name(Part part) noexcept {
    constexpr std::array<std::string_view, 4> kNames{"output", "down", "value", "up"};
    return kNames[static_cast<std::size_t>(part)];
}

std::vector<std::int64_t> Pool::places(const std::vector<int>& wanted) const {
    std::vector<std::int64_t> list;
    for (const int unit : wanted)
        for (int i = 0; i < width; ++i) list.push_back(offset + std::int64_t{unit} * width + i);
    return list;
}

std::vector<Pool> poolsOf(const ModelShape& shape, Part part) {
    std::vector<Pool> pools;
    for (int block = 0; block < shape.numBlocks(); ++block) {
        const BlockShape& own = shape.blocks[static_cast<std::size_t>(block)];
        if (isAttentionPart(part) ? !own.hasAttention : !own.hasFfn) continue;
        if (isAttentionPart(part) || own.numExperts == 0) pools.push_back(makePool(shape, part, block, -1));
        else for (int expert = 0; expert < own.numExperts; ++expert) pools.push_back(makePool(shape, part, block, expert));
    }
    return pools;
}

std::int64_t Amount::of(std::int64_t units) const noexcept {
    constexpr double kRounding = 1e-9;  // 0.29 x 100 is 28.999999999999996 in binary
    return count > 0 ? count : static_cast<std::int64_t>(std::floor(ratio * double(units) + kRounding));
}

Selection choose(const std::vector<Pool>& pools, const Scores& scores, const Amount& amount, Scope scope, End end, const std::vector<std::vector<int>>& taken) {
    std::vector<std::vector<int>> units(pools.size());
    const auto pick = [&](std::size_t first, std::size_t last) {
        std::vector<Candidate> candidates;
        std::int64_t all = 0;
        for (std::size_t p = first; p < last; ++p) {
            all += pools[p].units;
            for (int unit = 0; unit < pools[p].units; ++unit) {
                const double score = scores[p][static_cast<std::size_t>(unit)];
                const bool isTaken = p < taken.size() && std::ranges::find(taken[p], unit) != taken[p].end();
                if (!isTaken && !std::isnan(score)) candidates.push_back({score, p, unit});
            }
        }
        const auto wanted = amount.of(all);
        if (wanted > static_cast<std::int64_t>(candidates.size()))
            throw Error(ErrorCode::Usage, std::string(name(pools[first].part)) + " projections",
                        "asked for " + std::to_string(wanted) + " units, but " + std::to_string(candidates.size()) + " of " + std::to_string(all) + " can be chosen");
        std::ranges::stable_sort(candidates, [end](const Candidate& a, const Candidate& b) { return end == End::Smallest ? a.score < b.score : a.score > b.score; });
        for (std::int64_t i = 0; i < wanted; ++i) units[candidates[static_cast<std::size_t>(i)].pool].push_back(candidates[static_cast<std::size_t>(i)].unit);
    };
    if (scope == Scope::Global && !pools.empty()) pick(0, pools.size());
    if (scope == Scope::PerBlock) for (std::size_t p = 0; p < pools.size(); ++p) pick(p, p + 1);
    return collect(pools, std::move(units));
}

Scores randomScores(const std::vector<Pool>& pools, std::uint64_t seed) {
    Scores scores;
    std::uint64_t position = 0;
    for (const Pool& pool : pools) {
        const auto stream = mixSeed(seed, static_cast<std::uint64_t>(pool.part) + 1);
        std::vector<double>& own = scores.emplace_back();
        for (int unit = 0; unit < pool.units; ++unit) own.push_back(double(mixSeed(stream, position++) >> 11));
    }
    return scores;
}

Selection readSelection(const std::string& text, const ModelShape& shape, const ModelShape* source, const Cut* cut) {
    const auto first = text.find_first_not_of(" \t\n");
    const bool isInline = first != std::string::npos && (text[first] == '[' || text[first] == '{');
    const std::string subject = isInline ? std::string("components") : text;
    Json list = isInline ? parseJson(text, subject) : readJsonFile(text);
    if (list.is_object() && list.contains("components")) list = Json(list.at("components"));
    if (!list.is_array()) refuse(subject, "expected a list of components, found " + std::string(list.type_name()));
    const Renumbering numbers(shape, source, cut);
    std::map<Pool, std::set<int>, decltype(&before)> chosen(&before);
    for (std::size_t i = 0; i < list.size(); ++i) {
        const auto where = subject + ": entry " + std::to_string(i);
        const Json& entry = list[i];
        if (!entry.is_object()) refuse(where, "expected an object, found " + entry.dump());
        refuseUnknown(entry, where);
        const int block = static_cast<int>(intField(entry, "block", where)), expert = static_cast<int>(intField(entry, "expert", where, -1));
        for (const Wish& wish : wishesOf(entry, where)) {
            const int own = isAttentionPart(wish.part) ? -1 : expert;
            auto& units = chosen[numbers.pool(wish.part, block, own, where)];
            for (const int index : wish.units) units.insert(numbers.unit(wish.part, block, own, index, where));
        }
    }
    Selection selection;
    for (const auto& [pool, units] : chosen)
        if (!units.empty()) selection.push_back({pool, {units.begin(), units.end()}});
    if (selection.empty()) refuse(subject, "names no component");
    return selection;
}

Json toJson(const Selection& selection) {
    Json list = Json::array();
    for (const Trained& trained : selection) {
        Json entry{{"part", name(trained.pool.part)}, {"block", trained.pool.block}};
        if (trained.pool.expert >= 0) entry["expert"] = trained.pool.expert;
        entry["units"] = trained.units;
        list.push_back(std::move(entry));
    }
    return list;
}

Selection selectionFromJson(const Json& json, const ModelShape& shape, const std::string& subject) {
    if (!json.is_array()) refuse(subject, "expected a list, found " + std::string(json.type_name()));
    Selection selection;
    for (const Json& entry : json) {
        const auto word = stringField(entry, "part", subject);
        const auto part = std::ranges::find_if(kParts, [&](Part known) { return name(known) == word; });
        if (part == kParts.end()) refuse(subject, "part: expected output, down, value or up, found " + word);
        const int block = static_cast<int>(intField(entry, "block", subject)), expert = static_cast<int>(intField(entry, "expert", subject, -1));
        const auto pools = poolsOf(shape, *part);
        const auto pool = std::ranges::find_if(pools, [&](const Pool& known) { return known.block == block && known.expert == expert; });
        if (pool == pools.end()) refuse(subject, "block " + std::to_string(block) + " of the model has no such projection: " + entry.dump());
        auto units = indexList(entry, "units", subject);
        if (units.empty() || !std::ranges::is_sorted(units, std::less_equal<>()) || units.front() < 0 || units.back() >= pool->units)
            refuse(subject, "units: expected ascending numbers below " + std::to_string(pool->units) + ", found " + entry.at("units").dump());
        selection.push_back({*pool, std::move(units)});
    }
    return selection;
}

}  // namespace resect::s2
