#pragma once
#include "core/surgery/edit_plan.h"

namespace resect {

/// What the built-in operations remove, coarse to fine.
enum class DropTarget { Blocks, Attention, Mlp, KvGroups, Heads, Channels, Experts };

/// The spelling and words of one built-in operation.
struct DropWords {
    DropTarget target;
    std::string_view op, field;  ///< "drop_heads", "heads"
    std::string_view one, many;  ///< "head", "heads": what an index counts
    std::string_view title;      ///< "Drop heads", "Drop attention of blocks"
    bool insideBlock;            ///< has a `block` field, indices count parts of it
};
std::span<const DropWords> dropWords() noexcept;

/// All built-in operations: a list of indices, of blocks or inside one block. Internal to core/surgery; made by dropBlocks()
/// and so on.
class DropOperation final : public EditOperation {
public:
    static constexpr int kSharedExpert = -2;  ///< the channels of a mixture's shared expert; `"expert": "shared"` in a plan
    /// `expert`: whose channels, in a mixture of experts; -1 elsewhere.
    DropOperation(DropTarget target, int block, std::vector<int> indices, int expert = -1);
    DropTarget target() const noexcept { return m_words->target; }
    const DropWords& words() const noexcept { return *m_words; }
    int block() const noexcept { return m_block; }                          ///< -1 when the indices are blocks
    int expert() const noexcept { return m_expert; }
    const std::vector<int>& indices() const noexcept { return m_indices; }  ///< as given
    const IndexSet& set() const noexcept { return m_set; }                  ///< ascending, without repeats

    std::string_view op() const noexcept override { return m_words->op; }
    Json toJson() const override;
    std::string title() const override;
    std::vector<Problem> check(const ModelShape& source) const override;
    void addTo(Cut& cut, const ModelShape& source) const override;
    EditPointer nearestLegal(const ModelShape& source) const override;

    static EditPointer read(DropTarget target, const Json& entry, const std::string& subject);

private:
    const DropWords* m_words;
    int m_block, m_expert;
    std::vector<int> m_indices;
    IndexSet m_set;
};

/// The list of indices `field` of a plan's entry. Throws BadInput naming `subject` and the field.
std::vector<int> readIndices(const Json& entry, std::string_view field, const std::string& subject);
/// Each index that stands there more than once, ascending.
std::vector<int> repeatedIn(std::vector<int> indices);

/// "3", "1, 5", "18-20, 22"; more than `most` ranges end in ", ...".
std::string indexText(std::span<const int> indices, std::size_t most = 8);

}  // namespace resect
