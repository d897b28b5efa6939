#include "core/base/error.h"
#include "core/base/files.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/models/tensor_file.h"
#include "core/train/lora.h"
#include "core/train/trained_parts.h"
#include "tests/core/train/train_support.h"

#include <gmock/gmock.h>
#include <torch/types.h>

namespace resect::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const char* const kNorm = "model.layers.1.input_layernorm.weight";

/// A recipe as a plugin would bring it: trains one norm, pulls its mean towards 3 by an extra loss, keeps the norm as its adapter.
class NormParts final : public TrainedParts {
public:
    NormParts(LanguageModel& model, const TrainingStart& start) : m_weight(start.options.parameters.at("pull").get<double>()) {
        model.visitParameters([&](const std::string& name, torch::Tensor& parameter) {
            if (name == kNorm) m_norm = parameter.set_requires_grad(true);
        });
        if (start.base) m_start = storedTensor(*start.base, *start.base->find(kNorm));
        if (!start.keep.empty()) {
            fs::create_directories(start.keep);
            writeFileAtomically(start.keep / "note", "rows " + std::to_string(start.rows.size()));
        }
    }
    std::vector<TrainedTensor> tensors() override { return {{kNorm, m_norm, false}}; }
    torch::Tensor extraLoss() override { return m_weight > 0 ? (m_norm.mean() - 3).square() * m_weight : torch::Tensor(); }
    void beginStep(std::int64_t step, std::int64_t total) override { EXPECT_LE(step, total); }
    void parametersChanged() override { ++changes; }
    torch::Tensor startValue(const std::string&) const override { return m_start; }
    std::vector<WrittenShard> save(const fs::path& folder, const Value& master) const override {
        writeTensors(folder / "norm.safetensors", {{kNorm, master(kNorm)}});
        return {};
    }
    std::uint64_t savedBytes() const noexcept override { return m_norm.nbytes(); }
    bool savesExactly(const std::string&) const override { return true; }
    std::map<std::string, torch::Tensor> load(const fs::path& folder) const override { return readTensors(folder / "norm.safetensors"); }
    static inline int changes = 0;

private:
    double m_weight;
    torch::Tensor m_norm, m_start;
};

class NormRecipe final : public Recipe {
public:
    explicit NormRecipe(std::string id) {
        m_info = {std::move(id), "One norm", "For tests.", "", commonParameters({})};
        m_info.parameters.push_back({"pull", "Pull", "Factor of the extra loss.", ParameterType::Real, "", 0.0, 0, 1e6, {}, false});
        m_info.parameters.push_back(mergeParameter());
    }
    const RecipeInfo& info() const noexcept override { return m_info; }
    Kind kind() const noexcept override { return Kind::Adapter; }
    RecipeSize size(const PlannedShape& model, const TrainOptions&) const override { return {model.shape.hiddenSize, 0, false, activationElementsPerToken(model.shape)}; }
    std::unique_ptr<TrainedParts> prepare(LanguageModel& model, const TrainingStart& start) const override { return std::make_unique<NormParts>(model, start); }
    void writeCheckpoint(const Checkpoint& base, const fs::path& result, const fs::path& to, const JobContext& job) const override {
        const auto norm = readTensors(result / "norm.safetensors").at(kNorm);
        writeChanged(base, {{kNorm, [&](const torch::Tensor&) { return norm; }}}, to, job);
    }
    bool recognises(const fs::path& folder) const override { return fs::exists(folder / "norm.safetensors"); }

private:
    RecipeInfo m_info;
};

double normMean(const fs::path& checkpoint) {
    const auto values = valuesOf(Checkpoint::open(checkpoint), kNorm);
    double sum = 0;
    for (const double value : values) sum += value / double(values.size());
    return sum;
}

TEST(Recipe, OfAPluginTrainsKeepsAndBecomesACheckpoint) {
    addRecipe(std::make_shared<NormRecipe>("test-norm"));
    auto run = tinyRun("test-norm", {{"pull", 50}, {"lr", 0.05}, {"steps", 80}, {"schedule", "constant"}, {"eval_fraction", 0}, {"merge", true}});
    NormParts::changes = 0;
    EXPECT_EQ(run.run().state, "done");
    EXPECT_GE(NormParts::changes, 80);
    EXPECT_NEAR(normMean(run.path() / "merged"), 3, 0.2) << "the extra loss pulls the norm to 3";
    EXPECT_EQ(readFile(run.path() / "recipe/note").substr(0, 4), "rows");
    EXPECT_EQ(recipeOfAdapter(runResult(run.path()))->info().id, "test-norm");
    const TempFolder scratch;
    EXPECT_EQ(runCheckpoint(run.path(), scratch / "whole", {}), scratch / "whole");
    EXPECT_EQ(sha256File(scratch / "whole/model.safetensors"), sha256File(run.path() / "merged/model.safetensors"));
    // Everything else kept its bytes.
    const auto base = run.source.open(), merged = Checkpoint::open(run.path() / "merged");
    for (const auto& info : base.tensors())
        EXPECT_EQ(info.name != kNorm, std::ranges::equal(base.bytes(info), merged.bytes(*merged.find(info.name)))) << info.name;
}

TEST(Recipe, OfAPluginGoesOnWhereItStopped) {
    addRecipe(std::make_shared<NormRecipe>("test-norm"));
    for (const char* dtype : {"f32", "bf16"}) {
        auto whole = tinyRun("test-norm", {{"pull", 1}, {"steps", 6}, {"schedule", "constant"}}), split = tinyRun("test-norm", {{"pull", 1}, {"steps", 4}, {"schedule", "constant"}});
        for (auto* run : {&whole, &split}) run->job.dtype = dtype;
        split.job.source = whole.job.source;
        whole.run();
        split.run();
        auto job = readRunJob(split.path());
        job.parameters["steps"] = 6;
        writeJsonFile(split.path() / "job.json", job.toJson());
        EXPECT_EQ(resumeRun(split.path(), {}).step, 6);
        for (const char* file : {"norm.safetensors", "state/optimizer.safetensors"})
            EXPECT_EQ(sha256File(whole.path() / "checkpoints/step-6" / file), sha256File(split.path() / "checkpoints/step-6" / file)) << file << " in " << dtype;
    }
}

TEST(Recipe, RefusesTheIdOfABuiltInOne) {
    try {
        addRecipe(std::make_shared<NormRecipe>("lora"));
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Internal);
        EXPECT_THAT(error.what(), HasSubstr("lora"));
    }
    const TempFolder empty;
    EXPECT_THROW(recipeOfAdapter(empty.path()), Error);
}

TEST(Recipe, FusesLoraAdaptersExactly) {
    auto first = tinyRun("lora", {{"steps", 4}, {"lr", 0.02}, {"lora_rank", 3}}), second = tinyRun("lora", {{"steps", 4}, {"lr", 0.03}, {"lora_targets", "attention"}});
    second.job.source = first.job.source;
    first.run();
    second.run();
    const TempFolder out;
    fs::create_directories(out / "fused");
    const std::vector<AdapterShare> shares{{runResult(first.path()), 0.5}, {runResult(second.path()), -2}};
    recipe("lora")->fuse(shares, out / "fused");
    const auto base = first.source.open();
    mergeAdapter(base, out / "fused", out / "sum");
    mergeAdapter(base, shares[0].folder, out / "one");
    mergeAdapter(base, shares[1].folder, out / "two");
    const auto sum = Checkpoint::open(out / "sum"), one = Checkpoint::open(out / "one"), two = Checkpoint::open(out / "two");
    for (const auto& info : base.tensors()) {
        const auto b = valuesOf(base, info.name), s = valuesOf(sum, info.name), a = valuesOf(one, info.name), c = valuesOf(two, info.name);
        for (std::size_t i = 0; i < b.size(); ++i) ASSERT_NEAR(s[i] - b[i], 0.5 * (a[i] - b[i]) - 2 * (c[i] - b[i]), 1e-5) << info.name;
    }
}

}  // namespace
}  // namespace resect::test
