#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/export/gguf_export.h"
#include "core/export/gguf_import.h"
#include "core/export/hf_writer.h"
#include "core/export/verdict.h"
#include "core/models/model.h"
#include "tests/core/models/some_input.h"
#include "tests/support/random_plan.h"
#include "tests/support/tiny_checkpoint.h"

#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

namespace resect::test {
namespace {

namespace fs = std::filesystem;

/// GGUF files of families with a window hold as many tokens as it.
constexpr std::int64_t kTokens = 9, kFewTokens = 6;

torch::Tensor logitsOf(LanguageModel& model, std::int64_t tokens) {
    const torch::NoGradGuard noGradients;
    return model.logits(someInput(model.shape(), 1, tokens));
}

/// One tiny checkpoint of every family with its model, which masks instead of cutting.
struct Source {
    TinyCheckpoint tiny;
    Checkpoint checkpoint = tiny.open();
    Anatomy anatomy = Anatomy::of(checkpoint);
    std::unique_ptr<LanguageModel> model = LanguageModel::load(checkpoint, {});
    explicit Source(TinyCheckpoint made) : tiny(std::move(made)) {}
};

/// Every way of one plan against its verdict: what it allows is written and computes the same, what it forbids is refused.
class PlanTrial {
public:
    PlanTrial(Source& source, const Cut& cut) : m_source(source), m_cut(cut), m_rows(verdicts(source.anatomy.shape(), cut)) {
        source.model->setCut(cut);
        m_expected = logitsOf(*source.model, kTokens);
    }

    void run() {
        EXPECT_TRUE(m_expected.isfinite().all().item<bool>());
        const Verdict stock = of(Runtime::Transformers);
        const auto exact = write(SliceWay::Exact);
        ASSERT_TRUE(exact);
        EXPECT_EQ(fs::exists(m_out / "exact" / "resect.json"), !isUniform(exact->shape));
        EXPECT_TRUE(stock != Verdict::No || fs::exists(m_out / "exact" / "resect.json")) << "a stock file whose verdict is no";
        const auto padded = write(SliceWay::Padded);
        EXPECT_EQ(padded.has_value(), stock != Verdict::No);
        EXPECT_TRUE(!padded || isUniform(padded->shape));
        write(SliceWay::Zeroed);
        for (const GgufWay way : {GgufWay::Exact, GgufWay::Padded}) gguf(way);
    }
    int files() const { return m_files; }

private:
    Verdict of(Runtime runtime) const { return m_rows[static_cast<std::size_t>(runtime)].verdict; }

    void compare(const fs::path& folder, std::int64_t tokens) {
        const auto found = logitsOf(*LanguageModel::load(Checkpoint::open(folder), {}), tokens);
        const auto expected = tokens == kTokens ? m_expected : logitsOf(*m_source.model, tokens);
        const double scale = std::max(1.0, m_expected.abs().max().item<double>());
        EXPECT_LE((found - expected).abs().max().item<double>(), 1e-4 * scale) << folder;
        ++m_files;
    }
    std::optional<ExportResult> write(SliceWay way) {
        ExportOptions options;
        options.way = way;
        const fs::path to = m_out / std::string(name(way));
        try {
            ExportResult result = exportHuggingFace(m_source.checkpoint, m_source.anatomy, m_cut, to, options, {});
            compare(to, kTokens);
            return result;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::Unsupported) << error.what();
            EXPECT_FALSE(fs::exists(to));
            return std::nullopt;
        }
    }
    void gguf(GgufWay way) {
        const Verdict verdict = of(Runtime::LlamaCpp);
        const std::string stem = way == GgufWay::Exact ? "exact" : "padded";
        GgufOptions options;
        options.way = way;
        try {
            exportGguf(m_source.checkpoint, m_source.anatomy, m_cut, m_out / (stem + ".gguf"), options, {});
        } catch (const Error& error) {
            EXPECT_TRUE(error.code() == ErrorCode::Unsupported || error.code() == ErrorCode::BadInput) << error.what();
            const bool allowed = way == GgufWay::Exact ? verdict == Verdict::Opens : verdict == Verdict::AfterPadding;
            EXPECT_FALSE(allowed) << error.what();
            EXPECT_FALSE(fs::exists(m_out / (stem + ".gguf")));
            return;
        }
        EXPECT_NE(verdict, Verdict::No) << "a file whose verdict is no";
        const GgufFile file = GgufFile::open(m_out / (stem + ".gguf"));
        importGguf(file, m_out / (stem + "-read"), {}, {});
        compare(m_out / (stem + "-read"), kFewTokens);
    }

    Source& m_source;
    const Cut& m_cut;
    std::vector<RuntimeVerdict> m_rows;
    torch::Tensor m_expected;
    TempFolder m_out;
    int m_files = 0;
};

/// 2,000 plans in all; split by family so that a failure says where.
class RandomExports : public testing::TestWithParam<std::string_view> {};

TEST_P(RandomExports, AreWrittenAsTheirVerdictSaysAndComputeTheSame) {
    constexpr int kPlans = 2000;
    const int rounds = (kPlans + static_cast<int>(families().size()) - 1) / static_cast<int>(families().size());
    Source source(tinyFamily(std::string(GetParam())));
    std::mt19937 random(static_cast<unsigned>(std::hash<std::string_view>{}(GetParam()) % 1000));
    int files = 0;
    for (int round = 0; round < rounds && !HasFailure(); ++round) {
        const EditPlan plan = randomPlan(random, source.anatomy.shape());
        SCOPED_TRACE(std::string(GetParam()) + " " + plan.toJson().dump());
        const Cut cut = cutOf(EditPlan::fromJson(plan.toJson(), "plan"), source.anatomy.shape());
        PlanTrial trial(source, cut);
        trial.run();
        files += trial.files();
    }
    EXPECT_GE(files, rounds) << "at least the exact way of every plan";
    RecordProperty("files", files);
}

INSTANTIATE_TEST_SUITE_P(Families, RandomExports, testing::ValuesIn([] {
                             std::vector<std::string_view> types;
                             for (const Family& family : families()) types.push_back(family.modelType);
                             return types;
                         }()),
                         [](const testing::TestParamInfo<std::string_view>& info) { return std::string(info.param); });

}  // namespace
}  // namespace resect::test
