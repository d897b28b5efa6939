#include "tests/support/random_plan.h"

#include <algorithm>

namespace resect::test {

namespace {

std::vector<int> some(std::mt19937& random, int count) {
    std::vector<int> indices;
    const unsigned oneIn = 2 + random() % 4;
    for (int i = 0; i < count; ++i)
        if (random() % oneIn == 0) indices.push_back(i);
    if (indices.empty()) indices.push_back(static_cast<int>(random() % static_cast<unsigned>(count)));
    return indices;
}

EditPointer randomEdit(std::mt19937& random, const ModelShape& shape) {
    const int b = static_cast<int>(random() % shape.blocks.size());
    const BlockShape& block = shape.blocks[static_cast<std::size_t>(b)];
    switch (random() % 9) {
    case 0:
        return dropBlocks(some(random, shape.numBlocks()));
    case 1:
        return dropAttention(some(random, shape.numBlocks()));
    case 2:
        return dropMlp(some(random, shape.numBlocks()));
    case 3:
        return dropKvGroups(b, some(random, block.numKvHeads));
    case 4:
        return dropHeads(b, some(random, block.numHeads));
    case 5:
        if (block.sharedFfnSize > 0) return dropSharedChannels(b, some(random, block.sharedFfnSize));
        return dropHeads(b, some(random, block.numHeads));
    case 6: {
        const auto operations = supportedOperations(shape);
        if (std::find(operations.begin(), operations.end(), "drop_hidden") == operations.end()) return dropBlocks({b});
        return dropHidden(some(random, static_cast<int>(shape.hiddenSize)));
    }
    case 7:
        if (block.numExperts > 0) return dropExperts(b, some(random, block.numExperts));
        [[fallthrough]];
    default:
        return block.numExperts > 0 ? dropExpertChannels(b, static_cast<int>(random() % static_cast<unsigned>(block.numExperts)), some(random, block.ffnSize))
                                    : dropChannels(b, some(random, block.ffnSize));
    }
}

}  // namespace

EditPlan randomPlan(std::mt19937& random, const ModelShape& shape) {
    EditPlan plan;
    for (unsigned i = random() % 6 + 1; i > 0; --i) {
        plan.edits.push_back(randomEdit(random, shape));
        for (int attempt = 0; attempt < 4; ++attempt) {
            const auto problems = checkPlan(plan, shape, {});
            const auto found = std::find_if(problems.begin(), problems.end(),
                                            [](const PlanProblem& p) { return p.problem.severity == Severity::Error; });
            if (found == problems.end()) break;
            const auto at = plan.edits.begin() + (found->edit < 0 ? static_cast<int>(plan.edits.size()) - 1 : found->edit);
            if (!found->instead.empty() && attempt < 2)
                *at = found->instead[random() % found->instead.size()];
            else
                plan.edits.erase(at);
        }
    }
    return plan;
}

}  // namespace resect::test
