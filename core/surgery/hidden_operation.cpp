#include "core/surgery/hidden_operation.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/surgery/drop_operation.h"

#include <algorithm>

namespace resect {

std::string whyHiddenStays(const ModelShape& source) {
    const Family* family = findFamily(source.modelType);
    if (!family) return "the family is not known";
    if (!source.towers.empty()) return "several towers share the model, so that its hidden channels cannot be told apart";
    if (family->norm == Family::Norm::Layer) return "its layer norms mix all hidden channels through their mean, so that removing one would change the others";
    return {};
}

HiddenOperation::HiddenOperation(std::vector<int> channels) : m_channels(std::move(channels)), m_set(m_channels) {}

Json HiddenOperation::toJson() const { return {{"op", kDropHidden}, {"channels", m_channels}}; }

std::string HiddenOperation::title() const {
    constexpr std::size_t kListed = 8;
    const std::string word = m_set.size() == 1 ? "hidden channel " : "hidden channels ";
    return "Drop " + (m_set.size() > kListed ? toText(m_set.size()) + " " + word.substr(0, word.size() - 1) : word + indexText(m_set.values()));
}

std::vector<Problem> HiddenOperation::check(const ModelShape& source) const {
    std::vector<Problem> problems;
    const auto error = [&](std::string message, std::string advice = {}) { problems.push_back({Severity::Error, title(), std::move(message), std::move(advice)}); };
    if (const std::string why = whyHiddenStays(source); !why.empty()) {
        error("Hidden channels of this model stay: " + why + ".");
        return problems;
    }
    if (m_set.empty()) error("The list of channels is empty.", "Name at least one, or remove this entry.");
    std::vector<int> outside;
    std::copy_if(m_set.begin(), m_set.end(), std::back_inserter(outside), [&](int i) { return i < 0 || i >= source.hiddenSize; });
    if (!outside.empty())
        error("There is no hidden channel " + indexText(outside) + "; the model has 0-" + toText(source.hiddenSize - 1) + ".", "Indices count from 0.");
    else if (static_cast<std::int64_t>(m_set.size()) == source.hiddenSize)
        error("This would remove every hidden channel.", "Keep at least one.");
    if (const auto repeated = repeatedIn(m_channels); !repeated.empty()) error("Named more than once: channels " + indexText(repeated) + ".", "Name each index once.");
    return problems;
}

void HiddenOperation::addTo(Cut& cut, const ModelShape&) const { cut.hidden.insert(m_set); }

EditPointer HiddenOperation::nearestLegal(const ModelShape& source) const {
    std::vector<int> kept;
    std::copy_if(m_set.begin(), m_set.end(), std::back_inserter(kept), [&](int i) { return i >= 0 && i < source.hiddenSize; });
    if (static_cast<std::int64_t>(kept.size()) == source.hiddenSize) kept.erase(kept.begin());
    return kept.empty() || !whyHiddenStays(source).empty() ? nullptr : dropHidden(std::move(kept));
}

EditPointer HiddenOperation::read(const Json& entry, const std::string& subject) {
    for (const auto& [key, value] : entry.items())
        if (key != "op" && key != "channels") throw Error(ErrorCode::BadInput, subject + ": " + key, std::string(kDropHidden) + " has no such field; it takes \"channels\"");
    return dropHidden(readIndices(entry, "channels", subject));
}

EditPointer dropHidden(std::vector<int> channels) { return std::make_shared<HiddenOperation>(std::move(channels)); }

}  // namespace resect
