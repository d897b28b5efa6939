#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/export/hf_writer.h"
#include "core/measure/importance.h"
#include "core/measure/perplexity.h"
#include "core/measure/preview.h"
#include "core/measure/task_eval.h"
#include "core/surgery/edit_plan.h"
#include "tests/core/measure/rows.h"
#include "tests/support/tiny_checkpoint.h"

#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>

namespace resect {
namespace {

using test::randomRows;

// ---- perplexity

TEST(Perplexity, OfTextMatchesTheReference) {
    const struct Case {
        const char *model, *golden;
    } cases[] = {{"stories260K-hf", "stories260K"}, {"llama-stories-12l", "trained/llama-stories-12l"}, {"qwen2-stories-8l", "trained/qwen2-stories-8l"},
                 {"mixtral-stories-6l", "trained/mixtral-stories-6l"}};
    for (const Case& each : cases) {
        RESECT_NEED_SHARED_DATA(std::string("models/") + each.model);
        const Json golden = readJsonFile(test::sharedData(std::string("golden/") + each.golden + "/numbers.json"))["perplexity"];
        const Checkpoint checkpoint = Checkpoint::open(test::sharedData(std::string("models/") + each.model));
        const auto tokenizer = Tokenizer::load(checkpoint.folder());
        const ModelShape shape = Anatomy::of(checkpoint).shape();
        for (const Json& numbers : golden) {
            if (numbers["byte_offset"] != 0 && std::string(each.model) == "stories260K-hf") continue;
            const auto offset = numbers["byte_offset"].get<std::size_t>(), bytes = numbers["bytes"].get<std::size_t>();
            const bool quick = numbers["file"] == "tinystories-sample.txt" && numbers["context"] == 256;
            if (!quick) continue;
            // The slice as a file of its own, broken characters at its edges dropped as the reference does.
            std::string text = readFile(test::sharedData("text/" + numbers["file"].get<std::string>())).substr(offset, bytes);
            std::size_t first = 0;
            while (first < text.size() && (static_cast<unsigned char>(text[first]) & 0xC0) == 0x80) ++first;
            const test::TempFolder folder;
            test::writeText(folder / "slice.txt", text.substr(first));
            DataOptions options;
            options.rowLength = numbers["context"].get<int>();
            options.maxBytes = text.size() - first;
            const Dataset data = loadDataset(folder / "slice.txt", tokenizer.get(), shape.vocabSize, options);
            ModelRun run(checkpoint, data, {});
            const Perplexity all = measurePerplexity(run, Positions::All, {}), half = measurePerplexity(run, Positions::SecondHalf, {});
            EXPECT_NEAR(all.perplexity, numbers["ppl_all_positions"].get<double>(), 1e-4 * all.perplexity) << each.model;
            EXPECT_NEAR(half.perplexity, numbers["ppl_second_half"].get<double>(), 1e-4 * half.perplexity) << each.model;
            EXPECT_EQ(all.positions, numbers["scored_all"].get<std::int64_t>());
            EXPECT_EQ(half.positions, numbers["scored_second_half"].get<std::int64_t>());
            EXPECT_LT(all.low, all.perplexity);
            EXPECT_GT(all.high, all.perplexity);
        }
    }
}

TEST(Perplexity, OfUniformLogitsIsTheVocabulary) {
    const auto losses = tokenLosses(torch::zeros({2, 3, 7}), torch::tensor({{0, 1, -100}, {6, -100, 2}}, torch::kInt64));
    EXPECT_NEAR(losses[0][0].item<double>(), std::log(7.0), 1e-6);
    EXPECT_EQ(losses[0][2].item<double>(), 0);
    EXPECT_NEAR(losses.sum().item<double>(), 4 * std::log(7.0), 1e-5);
}

TEST(Perplexity, DivergenceFollowsItsDefinition) {
    torch::manual_seed(1);
    const auto p = torch::randn({2, 5, 11}), q = torch::randn({2, 5, 11});
    const auto expected = (p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum(-1);
    EXPECT_LT((tokenDivergences(p, q) - expected).abs().max().item<double>(), 1e-6);
    EXPECT_EQ(tokenDivergences(p, p).abs().max().item<double>(), 0);
}

TEST(Perplexity, IsTheSameStreamedAndWithPadding) {
    const auto tiny = test::tinyLlama();
    const Checkpoint checkpoint = tiny.open();
    const Dataset data = randomRows({9, 4, 12}, 61);
    RunOptions one, streamed;
    one.batchRows = 1;
    streamed.streamBlocks = true;
    streamed.padding = PaddingSide::Left;
    ModelRun a(checkpoint, data, one), b(checkpoint, data, streamed);
    EXPECT_NEAR(measurePerplexity(a, Positions::All, {}).loss, measurePerplexity(b, Positions::All, {}).loss, 1e-6);
}

TEST(Perplexity, NamesTheTokenWhoseLossIsNotFinite) {
    auto tiny = test::tinyLlama();
    tiny.tensor("model.layers.0.mlp.down_proj.weight").at(1, 1) = std::nan("");
    tiny.save();
    const Checkpoint checkpoint = tiny.open();
    const Dataset data = randomRows({5, 6}, 61);
    ModelRun run(checkpoint, data, {});
    try {
        measurePerplexity(run, Positions::All, {});
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::BadInput);
        EXPECT_EQ(error.subject(), "row 0, token 0");
    }
}

TEST(ModelRun, RefusesDataWithoutRows) {
    const auto tiny = test::tinyLlama();
    const Checkpoint checkpoint = tiny.open();
    const Dataset nothing;
    EXPECT_THROW(ModelRun(checkpoint, nothing, {}), Error);
}

// ---- importance

TEST(Importance, FoldsHeadsOntoTheirOwnGroups) {
    EXPECT_EQ(foldHeads({1, 2, 3, 4}, {2, 2}), (std::vector<double>{3, 7}));
    EXPECT_EQ(foldHeads({1, 2, 3, 4}, {1, 3}), (std::vector<double>{1, 9}));
}

double squareSum(const test::TinyTensor& tensor, int axis, int first, int count) {
    double sum = 0;
    for (std::int64_t row = 0; row < tensor.shape[0]; ++row)
        for (std::int64_t column = 0; column < tensor.shape[1]; ++column) {
            const std::int64_t at = axis == 0 ? row : column;
            const double value = tensor.values[static_cast<std::size_t>(row * tensor.shape[1] + column)];
            if (at >= first && at < first + count) sum += value * value;
        }
    return sum;
}

TEST(Importance, MagnitudeIsTheSumOfSquaresOfWhatIsCutTogether) {
    const auto tiny = test::tinyLlama();
    const Checkpoint checkpoint = tiny.open();
    const ModelShape shape = Anatomy::of(checkpoint).shape();
    const MagnitudeOptions sum{2, Reduction::Sum, Normalisation::None};
    const auto weight = [&](const std::string& name) -> const test::TinyTensor& { return tiny.tensors.at("model.layers.1." + name + ".weight"); };
    const auto heads = magnitude(checkpoint, shape, ComponentKind::Head, sum, {}), groups = magnitude(checkpoint, shape, ComponentKind::KvGroup, sum, {}),
               channels = magnitude(checkpoint, shape, ComponentKind::Channel, sum, {});
    EXPECT_NEAR(heads[1][4], squareSum(weight("self_attn.q_proj"), 0, 40, 10) + squareSum(weight("self_attn.o_proj"), 1, 40, 10), 1e-4);
    EXPECT_NEAR(groups[1][1], heads[1][3] + heads[1][4] + heads[1][5] + squareSum(weight("self_attn.k_proj"), 0, 10, 10) + squareSum(weight("self_attn.v_proj"), 0, 10, 10), 1e-4);
    EXPECT_NEAR(channels[1][7], squareSum(weight("mlp.gate_proj"), 0, 7, 1) + squareSum(weight("mlp.up_proj"), 0, 7, 1) + squareSum(weight("mlp.down_proj"), 1, 7, 1), 1e-5);
    const auto relative = magnitude(checkpoint, shape, ComponentKind::Channel, {}, {});
    double mean = 0;
    for (const double score : relative[1]) mean += score / 43;
    EXPECT_NEAR(mean, 1, 1e-9);
}

TEST(Importance, ActivationsFollowTheirDefinitionAndNotTheBatches) {
    const auto tiny = test::tinyLlama();
    const Checkpoint checkpoint = tiny.open();
    const Dataset data = randomRows({11, 7, 13, 5}, 61);
    const auto measure = [&](int batchRows, bool stream, PaddingSide padding) {
        RunOptions options;
        options.batchRows = batchRows;
        options.streamBlocks = stream;
        options.padding = padding;
        ModelRun run(checkpoint, data, options);
        return measureActivations(run, {});
    };
    const ActivationScores one = measure(1, false, PaddingSide::Right);
    for (const ActivationScores& other : {measure(4, false, PaddingSide::Left), measure(3, true, PaddingSide::Right)}) {
        for (std::size_t block = 0; block < 3; ++block) {
            for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(one.head.wanda.score[block][i], other.head.wanda.score[block][i], 1e-5);
            for (std::size_t i = 0; i < 43; ++i) {
                EXPECT_NEAR(one.channel.mean.score[block][i], other.channel.mean.score[block][i], 1e-6);
                EXPECT_NEAR(one.channel.mean.error[block][i], other.channel.mean.error[block][i], 1e-6);
                EXPECT_NEAR(one.channel.variance.score[block][i], other.channel.variance.score[block][i], 1e-6);
                EXPECT_NEAR(one.channel.weightedVariance.score[block][i], other.channel.weightedVariance.score[block][i], 1e-6);
            }
        }
    }
    struct Keep : Observer {
        torch::Tensor channels, heads;
        bool wants(TapPoint p, int block) const override { return block == 2 && (p == TapPoint::Channels || p == TapPoint::HeadOutputs); }
        void observe(TapPoint p, int, const torch::Tensor& x) override { (p == TapPoint::Channels ? channels : heads) = x[0].to(torch::kFloat64); }
    };
    const torch::NoGradGuard noGrad;
    const auto model = LanguageModel::load(checkpoint, {});
    std::vector<torch::Tensor> channels, heads;
    for (const auto& row : data.rows) {
        Keep keep;
        model->logits({torch::tensor(row.ids, torch::kInt64).unsqueeze(0), {}, {}}, &keep);
        channels.push_back(keep.channels);
        heads.push_back(keep.heads);
    }
    const auto allChannels = torch::cat(channels), allHeads = torch::cat(heads);
    const auto& down = tiny.tensors.at("model.layers.2.mlp.down_proj.weight");
    for (int c : {0, 17, 42}) {
        const auto x = allChannels.select(1, c);
        double columnMean = 0;
        for (std::int64_t row = 0; row < 48; ++row) columnMean += std::abs(down.values[static_cast<std::size_t>(row * 43 + c)]) / 48;
        EXPECT_NEAR(one.channel.mean.score[2][static_cast<std::size_t>(c)], x.abs().mean().item<double>(), 1e-6);
        EXPECT_NEAR(one.channel.rms.score[2][static_cast<std::size_t>(c)], x.square().mean().sqrt().item<double>(), 1e-6);
        EXPECT_NEAR(one.channel.variance.score[2][static_cast<std::size_t>(c)], x.var(0, /*unbiased=*/false, /*keepdim=*/false).item<double>(), 1e-6);
        EXPECT_NEAR(one.channel.wanda.score[2][static_cast<std::size_t>(c)], columnMean * std::sqrt(x.square().sum().item<double>() / 4), 1e-5);
    }
    EXPECT_NEAR(one.head.mean.score[2][5], allHeads.narrow(1, 50, 10).abs().mean().item<double>(), 1e-6);
    EXPECT_NEAR(one.group.mean.score[2][1], one.head.mean.score[2][3] + one.head.mean.score[2][4] + one.head.mean.score[2][5], 1e-12);
}

// ---- preview

class Preview : public testing::Test {
protected:
    test::TinyCheckpoint m_tiny = test::tinyLlama({.numBlocks = 4});
    Checkpoint m_checkpoint = m_tiny.open();
    Dataset m_data = randomRows({12, 9, 12, 6, 11, 12}, 61);
    ModelShape m_shape = Anatomy::of(m_checkpoint).shape();
    Cut cutOf(std::vector<std::shared_ptr<const EditOperation>> edits) const {
        EditPlan plan;
        plan.edits = std::move(edits);
        return resect::cutOf(plan, m_shape);
    }
    static PreviewOptions allRows() { return {.relativeInterval = 0, .minimumRows = 2}; }
};

TEST_F(Preview, EqualsTheAppliedCheckpoint) {
    RunOptions options;
    options.batchRows = 2;
    ModelRun run(m_checkpoint, m_data, options);
    PreviewCache cache;
    const Cut cut = cutOf({dropBlocks({2}), dropAttention({1}), dropHeads(0, {1, 4}), dropChannels(3, {3, 4, 40})});
    int updates = 0;
    const auto seen = preview(run, cut, cache, allRows(), [&](const auto&) { ++updates; }, {});
    EXPECT_EQ(updates, 4);
    EXPECT_TRUE(seen.final);
    const test::TempFolder folder;
    exportHuggingFace(m_checkpoint, Anatomy::of(m_checkpoint), cut, folder / "cut", {}, {});
    const Checkpoint applied = Checkpoint::open(folder / "cut");
    ModelRun appliedRun(applied, m_data, options);
    const Perplexity expected = measurePerplexity(appliedRun, Positions::All, {});
    EXPECT_NEAR(seen.perplexity, expected.perplexity, 1e-4 * expected.perplexity);
    EXPECT_NEAR(seen.perplexityHigh, expected.high, 1e-4 * expected.high);
    EXPECT_NEAR(seen.baseline, measurePerplexity(run, Positions::All, {}).perplexity, 1e-5 * seen.baseline);
    EXPECT_GT(seen.kl, 0);
    EXPECT_LE(seen.klLow, seen.kl);
    EXPECT_GT(seen.tokensPerSecond, 0);
}

TEST_F(Preview, RunsOnlyFromTheFirstCutBlockAgain) {
    RunOptions options;
    options.batchRows = 2;
    ModelRun run(m_checkpoint, m_data, options);
    PreviewCache cache, fresh;
    preview(run, cutOf({dropMlp({3})}), cache, allRows(), {}, {});
    EXPECT_EQ(cache.blocksRun(), 4 + 1 + 1) << "the first batch whole, the others from block 3";
    const auto before = cache.blocksRun();
    const auto again = preview(run, cutOf({dropMlp({2, 3})}), cache, allRows(), {}, {});
    EXPECT_EQ(cache.blocksRun() - before, 4 + 2 + 2);
    const auto expected = preview(run, cutOf({dropMlp({2, 3})}), fresh, allRows(), {}, {});
    EXPECT_EQ(again.perplexity, expected.perplexity);
    EXPECT_EQ(again.kl, expected.kl);
    Dataset other = randomRows({8, 8}, 61, 5);
    ModelRun otherRun(m_checkpoint, other, options);
    EXPECT_EQ(preview(otherRun, {}, cache, allRows(), {}, {}).rowsTotal, 2) << "other data empties the cache";
}

TEST_F(Preview, OfNoCutChangesNothing) {
    ModelRun run(m_checkpoint, m_data, {});
    PreviewCache cache;
    const auto same = preview(run, {}, cache, allRows(), {}, {});
    EXPECT_EQ(same.perplexity, same.baseline);
    EXPECT_EQ(same.kl, 0);
}

TEST_F(Preview, IsTheSameWithLittleMemoryAndStreamed) {
    RunOptions resident, streamed;
    resident.batchRows = streamed.batchRows = 2;
    streamed.streamBlocks = true;
    ModelRun a(m_checkpoint, m_data, resident), b(m_checkpoint, m_data, streamed);
    PreviewCache cache, none(1), streamCache;
    const Cut cut = cutOf({dropBlocks({1})});
    const auto expected = preview(a, cut, cache, allRows(), {}, {});
    EXPECT_EQ(preview(a, cut, none, allRows(), {}, {}).perplexity, expected.perplexity);
    EXPECT_EQ(none.bytes(), 0u);
    const auto stream = preview(b, cut, streamCache, allRows(), {}, {});
    EXPECT_NEAR(stream.perplexity, expected.perplexity, 1e-6);
    EXPECT_NEAR(stream.kl, expected.kl, 1e-7);
}

TEST_F(Preview, EndsWhenTheIntervalIsNarrowAndWhenStopped) {
    RunOptions options;
    options.batchRows = 2;
    ModelRun run(m_checkpoint, m_data, options);
    PreviewCache cache;
    EXPECT_EQ(preview(run, cutOf({dropMlp({3})}), cache, {.relativeInterval = 100, .minimumRows = 4}, {}, {}).rowsDone, 4);
    test::StopAfter stop(1);
    EXPECT_EQ(preview(run, cutOf({dropMlp({3})}), cache, allRows(), {}, stop.job()).rowsDone, 2);
    Cut other = emptyCut(m_shape);
    other.blocks.pop_back();
    EXPECT_THROW(preview(run, other, cache, allRows(), {}, {}), Error);
}

// ---- tasks

TEST(TaskEvaluation, OfMultipleChoiceMatchesTheReference) {
    RESECT_NEED_SHARED_DATA("tasks/arc-easy-test.jsonl");
    const Json golden = readJsonFile(test::sharedData("golden/stories260K/numbers.json"))["multiple_choice"];
    const Checkpoint checkpoint = Checkpoint::open(test::sharedData("models/stories260K-hf"));
    const auto tokenizer = Tokenizer::load(checkpoint.folder());
    const auto model = LanguageModel::load(checkpoint, {});
    for (const std::string name : {"arc-easy-test", "piqa-valid", "hellaswag-val-2000"}) {
        const TaskFile tasks = loadTasks(test::sharedData("tasks/" + name + ".jsonl"), 40);
        const TaskScores scores = evaluateTasks(*model, *tokenizer, tasks, TaskEvalOptions{}, {});
        EXPECT_NEAR(scores.accuracy.share, golden[name]["acc"].get<double>(), 1e-9);
        EXPECT_NEAR(scores.normalised.share, golden[name]["acc_norm"].get<double>(), 1e-9);
        for (std::size_t i = 0; i < scores.choices.size(); ++i)
            for (std::size_t k = 0; k < scores.choices[i].logProbability.size(); ++k) {
                const double expected = golden[name]["items"][i]["ll"][k].get<double>();
                EXPECT_NEAR(scores.choices[i].logProbability[k], expected, 1e-3 + 1e-5 * std::abs(expected)) << name << " " << i;
            }
    }
}

TEST(TaskEvaluation, KeepsWhatIsFinishedWhenStopped) {
    RESECT_NEED_SHARED_DATA("models/stories260K-hf");
    const Checkpoint checkpoint = Checkpoint::open(test::sharedData("models/stories260K-hf"));
    const auto tokenizer = Tokenizer::load(checkpoint.folder());
    const auto model = LanguageModel::load(checkpoint, {});
    TaskFile tasks;
    for (int i = 0; i < 3; ++i) tasks.exact.push_back({"e" + std::to_string(i), "Once upon a", "time"});
    tasks.exact[2].answer = "tim";
    EXPECT_EQ(evaluateTasks(*model, *tokenizer, tasks, TaskEvalOptions{}, {}).exact.right, 2);
    test::StopAfter stop(2);
    const TaskScores part = evaluateTasks(*model, *tokenizer, tasks, TaskEvalOptions{}, stop.job());
    EXPECT_EQ(part.tasksDone, 2);
    EXPECT_EQ(part.exactAnswers.size(), 2u);
}

TEST(TaskEvaluation, GoesOnWhereAnEarlierRunStopped) {
    RESECT_NEED_SHARED_DATA("models/stories260K-hf");
    const Checkpoint checkpoint = Checkpoint::open(test::sharedData("models/stories260K-hf"));
    const auto tokenizer = Tokenizer::load(checkpoint.folder());
    const auto model = LanguageModel::load(checkpoint, {});
    const TaskFile tasks = [] {
        TaskFile file = loadTasks(test::sharedData("tasks/piqa-valid.jsonl"), 5);
        file.exact = {{"e0", "Once upon a", "time"}, {"e1", "Once upon a", "tim"}};
        return file;
    }();
    const TaskScores whole = evaluateTasks(*model, *tokenizer, tasks, TaskEvalOptions{}, {});
    const test::TempFolder folder;
    TaskEvalOptions options;
    options.results = folder / "results.jsonl";
    options.model = "sha256:a f32";
    test::StopAfter stop(3);
    EXPECT_EQ(evaluateTasks(*model, *tokenizer, tasks, options, stop.job()).tasksDone, 3);
    const std::string rows = readFile(options.results);
    EXPECT_EQ(std::count(rows.begin(), rows.end(), '\n'), 4);
    writeFileAtomically(options.results, rows.substr(0, rows.size() - 9));  // a crash in the middle of a row
    const TaskScores resumed = evaluateTasks(*model, *tokenizer, tasks, options, {});
    EXPECT_EQ(resumed.tasksResumed, 2);
    EXPECT_EQ(resumed.tasksDone, 7);
    for (std::size_t i = 0; i < whole.choices.size(); ++i) EXPECT_EQ(resumed.choices[i].logProbability, whole.choices[i].logProbability);
    EXPECT_EQ(resumed.accuracy.right, whole.accuracy.right);
    EXPECT_EQ(resumed.normalised.right, whole.normalised.right);
    EXPECT_EQ(resumed.byBytes.right, whole.byBytes.right);
    EXPECT_EQ(resumed.exact.right, 1);
    EXPECT_EQ(evaluateTasks(*model, *tokenizer, tasks, options, {}).tasksResumed, 7);
    options.model = "sha256:b f32";
    try {
        evaluateTasks(*model, *tokenizer, tasks, options, {});
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Mismatch);
        EXPECT_NE(std::string(error.what()).find("model"), std::string::npos);
    }
    options.model = "sha256:a f32";
    options.start = ContextStart::Bos;
    EXPECT_THROW(evaluateTasks(*model, *tokenizer, tasks, options, {}), Error);
}

TEST(TaskEvaluation, OfProblemsStopsAtTheNextQuestion) {
    RESECT_NEED_SHARED_DATA("models/stories260K-hf");
    const Checkpoint checkpoint = Checkpoint::open(test::sharedData("models/stories260K-hf"));
    const auto tokenizer = Tokenizer::load(checkpoint.folder());
    const auto model = LanguageModel::load(checkpoint, {});
    TaskFile tasks;
    ExactTask task{"e", "Once upon a time, there was a", "5", AnswerForm::Gsm8k};
    task.stops = {"girl", "boy"};
    task.maxNewTokens = 40;
    tasks.exact = {task};
    const TaskScores scores = evaluateTasks(*model, *tokenizer, tasks, TaskEvalOptions{}, {});
    EXPECT_EQ(scores.exactAnswers[0].generated, " little ");
    EXPECT_FALSE(scores.exactAnswers[0].right || scores.exactAnswers[0].flexible);
}

}  // namespace
}  // namespace resect
