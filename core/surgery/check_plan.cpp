#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/surgery/drop_operation.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

namespace resect {

namespace {

std::string text(std::int64_t number) { return toText(number); }
std::string counted(std::int64_t count, std::string_view one, std::string_view many) {
    return text(count) + " " + std::string(count == 1 ? one : many);
}

/// One pass over a plan: entries that stand for themselves, then their union.
class PlanCheck {
public:
    PlanCheck(const EditPlan& plan, const ModelShape& source)
        : m_plan(plan), m_source(source), m_cut(emptyCut(source)), m_legal(plan.edits.size()) {}

    std::vector<PlanProblem> run(std::string_view fingerprint) {
        checkSource(fingerprint);
        if (!findFamily(m_source.modelType) || m_source.blocks.empty()) return std::move(m_problems);
        checkEntries();
        checkOverlaps();
        for (std::size_t b = 0; b < m_source.blocks.size(); ++b) {
            if (m_cut.blocks[b].empty() || m_cut.blocks[b].block) continue;
            checkSharedChannels(static_cast<int>(b));
            checkAttention(static_cast<int>(b));
            checkChannels(static_cast<int>(b));
            checkExperts(static_cast<int>(b));
        }
        checkWhole();
        return std::move(m_problems);
    }

private:
    const BlockShape& source(int b) const { return m_source.blocks[static_cast<std::size_t>(b)]; }
    const BlockCut& cut(int b) const { return m_cut.blocks[static_cast<std::size_t>(b)]; }
    const DropOperation* drop(int edit) const {
        return dynamic_cast<const DropOperation*>(m_plan.edits[static_cast<std::size_t>(edit)].get());
    }
    int numEdits() const { return static_cast<int>(m_plan.edits.size()); }

    void add(Severity severity, std::string subject, std::string message, std::string advice, int edit = -1,
             std::vector<EditPointer> instead = {}) {
        m_problems.push_back({{severity, std::move(subject), std::move(message), std::move(advice)}, edit, std::move(instead)});
    }

    /// The last legal entry with one of these targets that touches `block` (for whole-block targets: that lists it); -1 when
    /// there is none.
    int lastEdit(std::initializer_list<DropTarget> targets, int block) const {
        for (int i = numEdits() - 1; i >= 0; --i) {
            const DropOperation* edit = m_legal[static_cast<std::size_t>(i)] ? drop(i) : nullptr;
            if (!edit || std::find(targets.begin(), targets.end(), edit->target()) == targets.end()) continue;
            if (edit->block() == block) return i;
            if (edit->block() < 0 && edit->set().contains(block)) return i;
        }
        return -1;
    }

    /// `edit` without some of its indices; null when nothing is left.
    static EditPointer without(const DropOperation& edit, const IndexSet& spared) {
        std::vector<int> indices;
        for (int i : edit.set())
            if (!spared.contains(i)) indices.push_back(i);
        if (indices.empty()) return nullptr;
        return std::make_shared<DropOperation>(edit.target(), edit.block(), std::move(indices), edit.expert());
    }

    void checkSource(std::string_view fingerprint) {
        if (!fingerprint.empty() && !m_plan.fingerprint.empty() && fingerprint != m_plan.fingerprint)
            add(Severity::Error, "source",
                "The plan was made for another checkpoint: expected " + m_plan.fingerprint.substr(0, 23) + ", found " +
                    std::string(fingerprint.substr(0, 23)) + ".",
                "Open the checkpoint that the plan names, or take the fingerprint out of the plan to apply it here.");
        if (!findFamily(m_source.modelType))
            add(Severity::Error, "source",
                "Unknown family '" + m_source.modelType +
                    "': Resect does not know which of its tensors belong together, so cutting is disabled.",
                "The tensors can still be inspected.");
        else if (m_source.blocks.empty())
            add(Severity::Error, "source", "The model has no blocks, so there is nothing to cut.", "");
    }

    void checkEntries() {
        for (int i = 0; i < numEdits(); ++i) {
            const EditOperation& edit = *m_plan.edits[static_cast<std::size_t>(i)];
            const std::vector<Problem> found = edit.check(m_source);
            const bool bad = hasErrors(found);
            const EditPointer nearest = bad ? edit.nearestLegal(m_source) : nullptr;
            for (const Problem& problem : found) {
                m_problems.push_back({problem, i, {}});
                if (nearest && problem.severity == Severity::Error) m_problems.back().instead.push_back(nearest);
            }
            if (bad) continue;
            m_legal[static_cast<std::size_t>(i)] = true;
            edit.addTo(m_cut, m_source);
        }
    }

    /// Entries, or parts of them, that other entries remove already: harmless, but the user should know.
    void checkOverlaps() {
        std::map<std::tuple<std::string_view, int, int>, std::vector<const IndexSet*>> seen;
        for (int i = 0; i < numEdits(); ++i) {
            const DropOperation* edit = m_legal[static_cast<std::size_t>(i)] ? drop(i) : nullptr;
            if (!edit) continue;
            std::vector<const IndexSet*>& before = seen[{edit->op(), edit->block(), edit->expert()}];
            std::vector<int> repeated, inside;
            const bool whole = edit->block() >= 0 && isInside(*edit, -1);  // the layer that it works in
            const bool partly =
                edit->block() < 0 || (edit->target() == DropTarget::Heads && !cut(edit->block()).kvGroups.empty());
            if (whole || partly || !before.empty()) {
                for (int index : edit->set()) {
                    const bool again = std::any_of(before.begin(), before.end(),
                                                   [&](const IndexSet* earlier) { return earlier->contains(index); });
                    if (again)
                        repeated.push_back(index);
                    else if (whole || (partly && isInside(*edit, index)))
                        inside.push_back(index);
                }
            }
            before.push_back(&edit->set());
            const auto note = [&](const std::vector<int>& indices, const std::string& why) {
                if (indices.empty()) return;
                const bool all = indices.size() == edit->set().size();
                add(Severity::Note, edit->title(),
                    all ? "Changes nothing: " + why + "."
                        : std::string(edit->words().many) + " " + indexText(indices) + ": " + why + ".",
                    all ? "The entry can be removed from the plan." : "", i);
            };
            note(repeated, "an earlier entry removes the same");
            note(inside, "a larger part that holds it is removed anyway");
        }
    }

    /// Does a larger part of the cut hold this index of the edit? With -1: the whole layer that the edit works in?
    bool isInside(const DropOperation& edit, int index) const {
        const int b = edit.block() < 0 ? index : edit.block();
        switch (edit.target()) {
        case DropTarget::Blocks:
            return false;
        case DropTarget::Attention:
        case DropTarget::Mlp:
            return cut(b).block;
        case DropTarget::Channels:
            return cut(b).block || cut(b).ffn || (edit.expert() >= 0 && cut(b).experts.contains(edit.expert()));
        case DropTarget::Experts:
            return cut(b).block || cut(b).ffn;
        case DropTarget::KvGroups:
            return cut(b).block || cut(b).attention;
        case DropTarget::Heads:
            return cut(b).block || cut(b).attention || (index >= 0 && cut(b).kvGroups.contains(groupOfHead(source(b), index)));
        }
        return false;
    }

    void checkAttention(int b) {
        if (!source(b).hasAttention || cut(b).attention || (cut(b).heads.empty() && cut(b).kvGroups.empty())) return;
        const std::string subject = "block " + text(b) + " attention";
        const int edit = lastEdit({DropTarget::Heads, DropTarget::KvGroups}, b);
        const std::vector<int> kept = keptHeads(source(b), cut(b));
        if (kept.empty()) {
            std::vector<EditPointer> instead;
            instead.push_back(dropAttention({b}));
            if (edit >= 0) {
                const DropOperation& last = *drop(edit);
                if (const EditPointer smaller = without(last, {*last.set().begin()})) instead.push_back(smaller);
            }
            add(Severity::Error, subject, "This would remove every head of block " + text(b) + ".",
                "Drop its attention as a whole, or keep at least one head.", edit, std::move(instead));
            return;
        }
        checkGroups(b, subject, kept, edit);
    }

    /// Query heads find their kv group by position, so groups of unequal size need padding before stock runtimes open them.
    void checkGroups(int b, const std::string& subject, const std::vector<int>& kept, int edit) {
        std::map<int, int> left;
        for (int head : kept) ++left[groupOfHead(source(b), head)];
        const auto [fewest, most] =
            std::minmax_element(left.begin(), left.end(), [](const auto& x, const auto& y) { return x.second < y.second; });
        if (fewest->second == most->second) return;
        IndexSet touched;
        std::string counts;
        int missing = 0;
        for (const auto& [group, heads] : left) {
            counts += (counts.empty() ? "" : ", ") + text(heads);
            missing += most->second - heads;
            if (heads < source(b).headsPerKv[static_cast<std::size_t>(group)]) touched.insert(group);
        }
        std::vector<EditPointer> instead;
        if (touched.size() < left.size() && !touched.empty()) instead.push_back(dropKvGroups(b, touched.values()));
        const std::string groupHeads =
            touched.size() == 1
                ? " (" + counted(source(b).headsPerKv[static_cast<std::size_t>(*touched.begin())], "head", "heads") + ")"
                : std::string();
        const std::string whole = instead.empty()
                                      ? "Remove as many heads in every kv group"
                                      : "Remove the whole kv " + std::string(touched.size() == 1 ? "group " : "groups ") +
                                            indexText(touched.values()) + groupHeads;
        add(Severity::Warning, subject,
            "This would leave unequal groups of query heads per key head in block " + text(b) + ": " + counts + ".",
            whole + ", or export padded: " + counted(missing, "zero head is", "zero heads are") + " added.", edit,
            std::move(instead));
    }

    void checkChannels(int b) {
        if (!source(b).hasFfn || cut(b).ffn || (cut(b).channels.empty() && cut(b).expertChannels.empty())) return;
        for (const auto& [expert, removed] : cut(b).expertChannels)
            if (!cut(b).experts.contains(expert) && keptChannels(source(b), cut(b), expert).empty())
                add(Severity::Error, "block " + text(b) + " expert " + text(expert), "This would remove every channel of expert " + text(expert) + ".",
                    "Drop the expert as a whole, or keep at least one channel.", lastEdit({DropTarget::Channels}, b), {dropExperts(b, {expert})});
        if (numKeptChannels(source(b), cut(b)) > 0 || source(b).numExperts > 0) return;
        const int edit = lastEdit({DropTarget::Channels}, b);
        std::vector<EditPointer> instead;
        instead.push_back(dropMlp({b}));
        if (edit >= 0)
            if (const EditPointer smaller = without(*drop(edit), {*drop(edit)->set().begin()})) instead.push_back(smaller);
        add(Severity::Error, "block " + text(b) + " MLP", "This would remove every channel of block " + text(b) + ".",
            "Drop its MLP as a whole, or keep at least one channel.", edit, std::move(instead));
    }

    void checkSharedChannels(int b) {
        if (source(b).sharedFfnSize == 0 || cut(b).ffn || cut(b).sharedChannels.empty() || !keptSharedChannels(source(b), cut(b)).empty()) return;
        const int edit = lastEdit({DropTarget::Channels}, b);
        std::vector<EditPointer> instead;
        if (const EditPointer smaller = edit < 0 ? nullptr : without(*drop(edit), {*drop(edit)->set().begin()})) instead.push_back(smaller);
        add(Severity::Error, "block " + text(b) + " shared expert", "This would remove every channel of the shared expert of block " + text(b) + ".", "Keep at least one channel.",
            edit, std::move(instead));
    }

    /// Every token is sent to a fixed number of experts, and each group of experts must stay as large as the others.
    void checkExperts(int b) {
        if (!source(b).hasFfn || cut(b).ffn || cut(b).experts.empty()) return;
        const std::string subject = "block " + text(b) + " experts";
        const std::vector<int> kept = keptExperts(source(b), cut(b));
        const int edit = lastEdit({DropTarget::Experts}, b), least = m_source.of(b).numExpertsPerToken;
        if (static_cast<int>(kept.size()) < least) {
            std::vector<EditPointer> instead;
            if (edit >= 0) {
                IndexSet spared;  // the first of the removed ones stay
                for (int e : drop(edit)->set())
                    if (static_cast<int>(kept.size() + spared.size()) < least) spared.insert(e);
                if (const EditPointer smaller = without(*drop(edit), spared)) instead.push_back(smaller);
            }
            add(Severity::Error, subject, "This would leave " + counted(static_cast<std::int64_t>(kept.size()), "expert", "experts") + " in block " + text(b) +
                                              ", but each token is sent to " + text(least) + ".",
                "Keep at least " + text(least) + ", or drop the whole MoE layer.", edit, std::move(instead));
            return;
        }
        if (m_source.expertGroups <= 1) return;
        std::vector<int> perGroup(static_cast<std::size_t>(m_source.expertGroups));
        for (int e : kept) ++perGroup[static_cast<std::size_t>(e / (source(b).numExperts / m_source.expertGroups))];
        if (std::all_of(perGroup.begin(), perGroup.end(), [&](int count) { return count == perGroup.front(); })) return;
        add(Severity::Error, subject, "Experts are chosen within " + text(m_source.expertGroups) + " groups of equal size; this would make them unequal.",
            "Drop as many experts of every group.", edit);
    }

    void checkWhole() {
        const std::vector<int> kept = keptBlocks(m_cut);
        if (!m_cut.hidden.empty() && keptHidden(m_source, m_cut).empty()) {
            add(Severity::Error, "plan", "This would remove every hidden channel.", "Keep at least one.", numEdits() - 1);
            return;
        }
        if (kept.empty()) {
            const int edit = lastEdit({DropTarget::Blocks}, m_source.numBlocks() - 1);
            std::vector<EditPointer> instead;
            if (edit >= 0)
                if (const EditPointer smaller = without(*drop(edit), {*drop(edit)->set().begin()})) instead.push_back(smaller);
            add(Severity::Error, "plan", "This would remove all " + counted(m_source.numBlocks(), "block", "blocks") + ".",
                "Keep at least one block.", edit, std::move(instead));
            return;
        }
        const ModelShape after = shapeAfter(m_source, m_cut);
        for (int tower = 0; tower < static_cast<int>(m_source.towers.size()); ++tower) {
            if (const BlockSpan left = blocksOf(after, tower); left.first < left.last) continue;
            add(Severity::Error, "plan", "This would remove every block of the " + m_source.towers[static_cast<std::size_t>(tower)].name + " tower.", "Keep at least one.",
                lastEdit({DropTarget::Blocks}, blocksOf(m_source, tower).first));
            return;
        }
        const auto hasLayer = [](const BlockShape& block) { return block.hasAttention || block.hasFfn; };
        if (std::none_of(after.blocks.begin(), after.blocks.end(), hasLayer)) {
            add(Severity::Error, "plan", "This would remove every attention and every MLP of the model.",
                "Keep at least one layer.");
            return;
        }
        for (std::size_t i = 0; i < kept.size(); ++i)
            if (!hasLayer(after.blocks[i]) && hasLayer(source(kept[i])))
                add(Severity::Note, "block " + text(kept[i]),
                    "Both layers of block " + text(kept[i]) + " are dropped, so an empty block stays.",
                    "Drop the whole block instead: the result computes the same and is smaller.",
                    lastEdit({DropTarget::Attention, DropTarget::Mlp}, kept[i]));
        const auto language = m_source.towers.empty() ? kept.begin() : std::lower_bound(kept.begin(), kept.end(), blocksOf(m_source, static_cast<int>(m_source.towers.size()) - 1).first);
        checkFirstBlock(*language, after.blocks[static_cast<std::size_t>(language - kept.begin())]);
        for (std::size_t i = 0; i < kept.size(); ++i)
            if (checkHeadCount(kept[i], after.blocks[i], m_source.towers.empty() ? after.hiddenSize : m_source.of(kept[i]).hiddenSize)) break;
        checkExpertCounts(kept, after);
    }

    /// Stock runtimes read one expert count, and padded experts could be chosen by the router.
    void checkExpertCounts(const std::vector<int>& kept, const ModelShape& after) {
        int fewest = 0;
        for (const BlockShape& block : after.blocks)
            if (block.numExperts > 0) fewest = fewest == 0 ? block.numExperts : std::min(fewest, block.numExperts);
        for (std::size_t i = 0; i < kept.size(); ++i) {
            if (after.blocks[i].numExperts <= fewest || source(kept[i]).numExperts == fewest) continue;
            add(Severity::Warning, "block " + text(kept[i]) + " experts",
                "It keeps " + text(after.blocks[i].numExperts) + " experts, another block " + text(fewest) +
                    ": no stock runtime reads expert counts that differ, and experts cannot be padded.",
                "Drop as many experts in every block.", lastEdit({DropTarget::Experts}, kept[i]));
            return;
        }
    }

    void checkFirstBlock(int first, const BlockShape& block) {
        if (block.hasAttention || !source(first).hasAttention || !cut(first).attention) return;
        const int edit = lastEdit({DropTarget::Attention}, first);
        std::vector<EditPointer> instead;
        std::string advice = "Keep it, or export padded: a zero attention takes its place.";
        if (edit >= 0) {
            int other = first + 1;
            while (other < m_source.numBlocks() && (cut(other).block || cut(other).attention || !source(other).hasAttention))
                ++other;
            std::vector<int> moved;
            for (int b : drop(edit)->set())
                if (b != first) moved.push_back(b);
            const EditPointer rest = moved.empty() ? nullptr : dropAttention(moved);
            if (other < m_source.numBlocks()) {
                moved.push_back(other);
                instead.push_back(dropAttention(IndexSet(moved).values()));
                advice = "Drop that of block " + text(other) + " instead, or export padded: a zero attention takes its place.";
            }
            if (rest) instead.push_back(rest);
        }
        add(Severity::Warning, "block " + text(first) + " attention",
            "Block " + text(first) + " must keep its attention: llama.cpp and vLLM take the head layout from the first block.",
            std::move(advice), edit, std::move(instead));
    }

    /// Says so of the first block for which it holds.
    bool checkHeadCount(int b, const BlockShape& after, std::int64_t hidden) {
        const ModelShape& own = m_source.of(b);
        const Family& family = familyOf(own);
        const auto uneven = [&](const BlockShape& block) { return block.hasAttention && block.groupsAreEqual() && own.hiddenSize % block.numHeads != 0; };
        if (!family.needsHiddenDivisibleByHeads || !after.hasAttention || !after.groupsAreEqual() || hidden % after.numHeads == 0) return false;
        if (hidden == own.hiddenSize && std::all_of(m_source.blocks.begin(), m_source.blocks.end(), [&](const BlockShape& block) { return block.tower != after.tower || uneven(block); }))
            return false;  // not of this plan's making
        int fewer = after.numHeads, more = after.numHeads;
        while (hidden % fewer != 0) --fewer;
        while (hidden % more != 0) ++more;
        add(Severity::Note, "heads",
            "The stock " + std::string(family.title) + " class of transformers refuses " + text(after.numHeads) +
                " heads at hidden size " + text(hidden) + " (not a multiple).",
            "Keep " + text(fewer) + " or " + text(more) + " heads, or export padded: zero heads are added.");
        return true;
    }

    const EditPlan& m_plan;
    const ModelShape& m_source;
    Cut m_cut;
    std::vector<bool> m_legal;
    std::vector<PlanProblem> m_problems;
};

}  // namespace

std::vector<PlanProblem> checkPlan(const EditPlan& plan, const ModelShape& source, std::string_view fingerprint) {
    return PlanCheck(plan, source).run(fingerprint);
}

Cut cutOf(const EditPlan& plan, const ModelShape& source) {
    for (const PlanProblem& found : checkPlan(plan, source, {}))
        if (found.problem.severity == Severity::Error)
            throw Error(ErrorCode::BadInput, "plan: " + found.problem.subject, found.problem.message);
    Cut cut = emptyCut(source);
    for (const EditPointer& edit : plan.edits) edit->addTo(cut, source);
    return cut;
}

}  // namespace resect
