#include "core/measure/gradients.h"
#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/measure/ablation.h"
#include "core/measure/importance.h"
#include "core/measure/latency.h"
#include "core/measure/perplexity.h"
#include "core/models/decoder.h"
#include "tests/core/measure/rows.h"
#include "tests/support/tiny_checkpoint.h"

#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <numeric>

namespace resect {
namespace {

using test::randomRows;
using test::TinyCheckpoint;

RunOptions doubles(int batchRows = 2) {
    RunOptions options;
    options.load.dtype = torch::kFloat64;
    options.batchRows = batchRows;
    return options;
}

/// dL/dw of every tensor by plain backward passes, L the mean over rows of the rows' mean losses; and the same of each row.
struct PlainGradients {
    std::vector<std::map<std::string, torch::Tensor>> rows;
    std::map<std::string, torch::Tensor> weights;

    PlainGradients(const Checkpoint& checkpoint, const Dataset& data) {
        LoadOptions options;
        options.dtype = torch::kFloat64;
        options.trainable = true;
        for (const TokenRow& row : data.rows) {
            const auto model = LanguageModel::load(checkpoint, options);
            model->loss({torch::tensor(row.ids, torch::kInt64).unsqueeze(0), {}, {}}, torch::tensor(row.targets, torch::kInt64).unsqueeze(0)).backward();
            rows.emplace_back();
            model->visitParameters([&](const std::string& name, torch::Tensor& parameter) {
                weights[name] = parameter.detach();
                rows.back()[name] = parameter.grad().defined() ? parameter.grad() : torch::zeros_like(parameter);
            });
        }
    }
    torch::Tensor gradient(const std::string& name) const {
        auto sum = torch::zeros_like(weights.at(name));
        for (const auto& row : rows) sum += row.at(name);
        return sum / static_cast<double>(rows.size());
    }
    torch::Tensor product(const std::string& name) const { return weights.at(name) * gradient(name); }
};

class Gradients : public testing::Test {
protected:
    Dataset m_data = randomRows({11, 7, 13}, 61);
    GradientScores measure(const Checkpoint& checkpoint, const GradientOptions& options, int batchRows = 2) {
        ModelRun run(checkpoint, m_data, doubles(batchRows));
        return measureGradients(run, options, {});
    }
};

/// The exact identities of gates and weights: what an output projection's weight times its gradient sums up to is the gate's gradient.
TEST_F(Gradients, OfGatesEqualWeightTimesGradientOfWhatReadsAndWrites) {
    for (const bool biased : {false, true}) {
        const TinyCheckpoint tiny = biased ? test::tinyQwen2({.dtype = DType::F64}) : test::tinyLlama({.dtype = DType::F64});
        const Checkpoint checkpoint = tiny.open();
        const GradientScores scores = measure(checkpoint, {});
        const PlainGradients plain(checkpoint, m_data);
        for (int block = 0; block < 3; ++block) {
            const std::string prefix = "model.layers." + std::to_string(block) + ".";
            const auto o = plain.product(prefix + "self_attn.o_proj.weight"), v = plain.product(prefix + "self_attn.v_proj.weight"),
                       down = plain.product(prefix + "mlp.down_proj.weight"), up = plain.product(prefix + "mlp.up_proj.weight");
            const auto b = static_cast<std::size_t>(block);
            for (int head = 0; head < 6; ++head)
                EXPECT_NEAR(scores.head.signedMean[b][static_cast<std::size_t>(head)], o.narrow(1, head * 10, 10).sum().item<double>(), 1e-10);
            for (int group = 0; group < 2; ++group) {
                double expected = v.narrow(0, group * 10, 10).sum().item<double>();
                if (biased) expected += plain.product(prefix + "self_attn.v_proj.bias").narrow(0, group * 10, 10).sum().item<double>();
                EXPECT_NEAR(scores.group.signedMean[b][static_cast<std::size_t>(group)], expected, 1e-10);
            }
            for (int channel : {0, 17, 42}) {
                const double gate = scores.channel.signedMean[b][static_cast<std::size_t>(channel)];
                EXPECT_NEAR(gate, down.select(1, channel).sum().item<double>(), 1e-10);
                EXPECT_NEAR(gate, up.select(0, channel).sum().item<double>(), 1e-10);
            }
        }
    }
}

TEST_F(Gradients, OfGatesFollowTheirDefinitionsRowByRow) {
    const TinyCheckpoint tiny = test::tinyLlama({.dtype = DType::F64});
    const Checkpoint checkpoint = tiny.open();
    const GradientScores scores = measure(checkpoint, {});
    const PlainGradients plain(checkpoint, m_data);
    const std::string name = "model.layers.1.self_attn.o_proj.weight";
    for (int head : {0, 4}) {
        double absolute = 0, squares = 0, sum = 0;
        for (const auto& row : plain.rows) {
            const double gate = (plain.weights.at(name) * row.at(name)).narrow(1, head * 10, 10).sum().item<double>();
            absolute += std::abs(gate) / 3, squares += gate * gate / 3, sum += gate / 3;
        }
        const auto h = static_cast<std::size_t>(head);
        EXPECT_NEAR(scores.head.row[1][h], absolute, 1e-10);
        EXPECT_NEAR(scores.head.batch[1][h], std::abs(sum), 1e-10);
        EXPECT_NEAR(scores.head.rowError[1][h], std::sqrt((squares - absolute * absolute) / 2), 1e-10);
        EXPECT_GE(scores.head.token[1][h] * 31 + 1e-12, std::abs(sum) * 3) << "tokens cannot cancel";
    }
    EXPECT_NEAR(scores.group.row[1][1], scores.head.row[1][3] + scores.head.row[1][4] + scores.head.row[1][5], 1e-12);
}

TEST_F(Gradients, OfWeightsGiveTheTaylorScores) {
    const TinyCheckpoint tiny = test::tinyLlama({.dtype = DType::F64});
    const Checkpoint checkpoint = tiny.open();
    const GradientScores scores = measure(checkpoint, {.elements = true, .perRow = true});
    const PlainGradients plain(checkpoint, m_data);
    const auto squared = [&](const std::string& name) {
        auto sum = torch::zeros_like(plain.weights.at(name));
        for (const auto& row : plain.rows) sum += row.at(name).square() / 3;
        return plain.weights.at(name).square() * sum;
    };
    const std::string mlp = "model.layers.2.mlp.";
    const auto &channels = scores.taylor.at(ComponentKind::Channel), &groups = scores.taylor.at(ComponentKind::KvGroup);
    for (int c : {0, 30}) {
        double first = 0, vectorised = 0, second = 0, mixed = 0;
        for (const auto& [name, axis] : {std::pair(mlp + "gate_proj.weight", 0), std::pair(mlp + "up_proj.weight", 0), std::pair(mlp + "down_proj.weight", 1)}) {
            const auto product = plain.product(name).select(axis, c), square = squared(name).select(axis, c);
            first += product.abs().sum().item<double>();
            vectorised += std::abs(product.sum().item<double>());
            second += square.sum().item<double>();
            mixed += (product - square / 2).abs().sum().item<double>();
        }
        const auto at = static_cast<std::size_t>(c);
        EXPECT_NEAR(channels.first[2][at], first, 1e-10);
        EXPECT_NEAR(channels.vectorised[2][at], vectorised, 1e-10);
        EXPECT_NEAR(channels.second[2][at], second, 1e-10);
        EXPECT_NEAR(channels.mixed[2][at], mixed, 1e-10);
    }
    double group = 0;
    const std::string attention = "model.layers.2.self_attn.";
    group += plain.product(attention + "q_proj.weight").narrow(0, 30, 30).abs().sum().item<double>();
    group += plain.product(attention + "o_proj.weight").narrow(1, 30, 30).abs().sum().item<double>();
    for (const char* name : {"k_proj.weight", "v_proj.weight"}) group += plain.product(attention + name).narrow(0, 10, 10).abs().sum().item<double>();
    EXPECT_NEAR(groups.first[2][1], group, 1e-10);
    const GradientScores batched = measure(checkpoint, {.elements = true}, 3);
    EXPECT_NEAR(batched.taylor.at(ComponentKind::Channel).first[2][0], channels.first[2][0], 1e-10);
    EXPECT_TRUE(batched.taylor.at(ComponentKind::Channel).second.empty());
}

TEST_F(Gradients, OfExpertsAndTheirChannelsEqualThoseOfTheirDownProjection) {
    const TinyCheckpoint tiny = test::tinyMixtral({.dtype = DType::F64});
    const Checkpoint checkpoint = tiny.open();
    const GradientScores scores = measure(checkpoint, {.elements = true});
    const PlainGradients plain(checkpoint, m_data);
    for (int expert = 0; expert < 4; ++expert) {
        const auto down = plain.product("model.layers.1.block_sparse_moe.experts." + std::to_string(expert) + ".w2.weight");
        EXPECT_NEAR(scores.expert.signedMean[1][static_cast<std::size_t>(expert)], down.sum().item<double>(), 1e-10);
        for (int channel : {0, 42}) EXPECT_NEAR(scores.channel.signedMean[1][static_cast<std::size_t>(expert * 43 + channel)], down.select(1, channel).sum().item<double>(), 1e-10);
    }
    EXPECT_EQ(scores.taylor.at(ComponentKind::Expert).first[1].size(), 4u);
    EXPECT_EQ(scores.taylor.at(ComponentKind::Channel).first[1].size(), 4u * 43);
    // The model that was measured computes as before, and its weights ask for no gradients.
    ModelRun run(checkpoint, m_data, doubles());
    const double before = measurePerplexity(run, Positions::All, {}).loss;
    measureGradients(run, {.elements = true}, {});
    EXPECT_EQ(measurePerplexity(run, Positions::All, {}).loss, before);
    run.model().visitParameters([](const std::string& name, torch::Tensor& parameter) { EXPECT_FALSE(parameter.requires_grad()) << name; });
}

/// Fused and turned matrices, biases, sandwich norms, soft caps, shared experts: the identities hold wherever a unit is multiplied by one matrix only.
TEST_F(Gradients, HoldTheIdentitiesInEveryFamily) {
    for (const Family& family : families()) {
        if (family.image || family.headless || !family.towers.empty()) continue;  // no next token
        SCOPED_TRACE(std::string(family.modelType));
        const TinyCheckpoint tiny = test::tinyFamily(std::string(family.modelType));
        const Checkpoint checkpoint = tiny.open();
        const ModelShape shape = Anatomy::of(checkpoint).shape();
        const GradientScores scores = measure(checkpoint, {.elements = true});
        const PlainGradients plain(checkpoint, m_data);
        const BlockMatrices products(shape, [&](const ExpectedTensor& tensor) { return plain.product(tensor.name); });
        for (int block = 0; block < shape.numBlocks(); ++block) {
            const auto b = static_cast<std::size_t>(block);
            const BlockShape& own = shape.blocks[b];
            const auto heads = products.read(block, TensorRole::OutputWeight).sum(0).view({own.numHeads, own.headDim}).sum(1);
            ASSERT_EQ(scores.head.signedMean[b].size(), static_cast<std::size_t>(own.numHeads));
            for (int head = 0; head < own.numHeads; ++head) EXPECT_NEAR(scores.head.signedMean[b][static_cast<std::size_t>(head)], heads[head].item<double>(), 1e-10);
            for (int expert = 0; expert < std::max(1, own.numExperts); ++expert) {
                const auto channels = (own.numExperts > 0 ? products.read(block, TensorRole::ExpertDownWeight, expert) : products.read(block, TensorRole::DownWeight)).sum(0);
                ASSERT_EQ(channels.numel(), own.ffnSize);
                for (int channel = 0; channel < own.ffnSize; ++channel)
                    EXPECT_NEAR(scores.channel.signedMean[b][static_cast<std::size_t>(expert * own.ffnSize + channel)], channels[channel].item<double>(), 1e-10);
            }
            EXPECT_EQ(scores.taylor.at(ComponentKind::KvGroup).first[b].size(), static_cast<std::size_t>(own.numKvHeads));
            EXPECT_EQ(scores.taylor.at(ComponentKind::Channel).first[b].size(), static_cast<std::size_t>(own.ffnSize * std::max(1, own.numExperts)));
        }
        ModelRun run(checkpoint, m_data, doubles());
        EXPECT_EQ(measureHidden(run, {}, {}).magnitude.size(), static_cast<std::size_t>(shape.hiddenSize));
        EXPECT_EQ(measureActivations(run, {}).channel.wanda.score.size(), shape.blocks.size());
    }
}

TEST_F(Gradients, DoNotDependOnBatchesOrOrder) {
    const TinyCheckpoint tiny = test::tinyLlama({.dtype = DType::F64});
    const Checkpoint checkpoint = tiny.open();
    const GradientScores one = measure(checkpoint, {.elements = true}, 1), all = measure(checkpoint, {.elements = true}, 3);
    std::reverse(m_data.rows.begin(), m_data.rows.end());
    const GradientScores reversed = measure(checkpoint, {.elements = true}, 2);
    for (const auto* other : {&all, &reversed}) {
        for (std::size_t i = 0; i < 43; ++i) {
            EXPECT_NEAR(one.channel.row[2][i], other->channel.row[2][i], 1e-12);
            EXPECT_NEAR(one.taylor.at(ComponentKind::Channel).first[0][i], other->taylor.at(ComponentKind::Channel).first[0][i], 1e-12);
        }
    }
}

TEST_F(Gradients, AreRefusedWhereTheyCannotBeTaken) {
    const TinyCheckpoint tiny = test::tinyLlama();
    const Checkpoint checkpoint = tiny.open();
    RunOptions streamed;
    streamed.streamBlocks = true;
    ModelRun run(checkpoint, m_data, streamed);
    EXPECT_THROW(measureGradients(run, {}, {}), Error);
}

TEST_F(Gradients, KeepTheFinishedBatchesWhenStopped) {
    const TinyCheckpoint tiny = test::tinyLlama();
    const Checkpoint checkpoint = tiny.open();
    RunOptions options;
    options.batchRows = 1;
    ModelRun run(checkpoint, m_data, options);
    test::StopAfter stop(2);
    const GradientScores part = measureGradients(run, {}, stop.job());
    EXPECT_EQ(part.rowsDone, 2);
    m_data.rows.pop_back();
    ModelRun two(checkpoint, m_data, options);
    EXPECT_EQ(measureGradients(two, {}, {}).channel.row, part.channel.row);
}

// ---- units that do nothing, units that change places

TEST(Criteria, SayNothingOfUnitsThatDoNothing) {
    TinyCheckpoint tiny = test::tinyLlama({.dtype = DType::F64});
    test::zeroHeads(tiny, 1, {4});
    test::zeroChannels(tiny, 2, {17});
    tiny.save();
    const Checkpoint checkpoint = tiny.open();
    const Dataset data = randomRows({11, 7}, 61);
    ModelRun run(checkpoint, data, doubles());
    std::vector<Ablation> ablations(2);
    ablations[0].block = 2, ablations[0].cut.channels = {17};
    ablations[1].block = 1, ablations[1].cut.heads = {4};
    const AblationScores rises = measureAblations(run, {}, ablations, {});
    EXPECT_EQ(rises.rise[0].mean, 0);
    EXPECT_EQ(rises.rise[1].mean, 0);
    const GradientScores scores = measureGradients(run, {.elements = true}, {});
    EXPECT_EQ(scores.head.row[1][4], 0);
    EXPECT_EQ(scores.channel.row[2][17], 0);
    EXPECT_EQ(scores.taylor.at(ComponentKind::Channel).first[2][17], 0) << "no weight of it moves the loss while its column is zero";
}

TEST(Criteria, ChangePlacesWithTheUnits) {
    const TinyCheckpoint tiny = test::tinyLlama({.dtype = DType::F64});
    TinyCheckpoint turned = test::tinyLlama({.dtype = DType::F64});
    const auto place = [](std::int64_t c) { return (c + 5) % 43; };   // where channel c goes
    const std::string prefix = "model.layers.1.mlp.";
    for (std::int64_t c = 0; c < 43; ++c)
        for (std::int64_t d = 0; d < 48; ++d) {
            for (const char* name : {"gate_proj.weight", "up_proj.weight"}) turned.tensor(prefix + name).at(place(c), d) = tiny.tensors.at(prefix + name).values[static_cast<std::size_t>(c * 48 + d)];
            turned.tensor(prefix + "down_proj.weight").at(d, place(c)) = tiny.tensors.at(prefix + "down_proj.weight").values[static_cast<std::size_t>(d * 43 + c)];
        }
    turned.save();
    const Dataset data = randomRows({11, 7}, 61);
    const auto measure = [&](const TinyCheckpoint& which) {
        const Checkpoint checkpoint = which.open();
        ModelRun run(checkpoint, data, doubles());
        const auto activations = measureActivations(run, {});
        const auto gradients = measureGradients(run, {.elements = true}, {});
        const auto& channel = activations.channel;
        return UnitTable{magnitude(checkpoint, run.shape(), ComponentKind::Channel, {}, {}, torch::kFloat64)[1], channel.mean.score[1], channel.rms.score[1], channel.wanda.score[1],
                         channel.variance.score[1], channel.weightedVariance.score[1], channel.standardised.score[1], gradients.channel.row[1],
                         gradients.taylor.at(ComponentKind::Channel).first[1]};
    };
    const auto before = measure(tiny), after = measure(turned);
    for (std::size_t metric = 0; metric < before.size(); ++metric)
        for (std::int64_t c = 0; c < 43; ++c) EXPECT_NEAR(after[metric][static_cast<std::size_t>(place(c))], before[metric][static_cast<std::size_t>(c)], 1e-10) << metric;
}

TEST(Criteria, OfExpertsChannelsSeeOnlyTheTokensOfTheirExpert) {
    const TinyCheckpoint tiny = test::tinyMixtral();
    const Checkpoint checkpoint = tiny.open();
    const Dataset data = randomRows({11, 7, 9}, 61);
    const auto measure = [&](int batchRows, PaddingSide padding) {
        RunOptions options;
        options.batchRows = batchRows;
        options.padding = padding;
        ModelRun run(checkpoint, data, options);
        return measureActivations(run, {});
    };
    const auto one = measure(1, PaddingSide::Right), other = measure(3, PaddingSide::Left);
    ASSERT_EQ(one.channel.wanda.score[1].size(), 4u * 43);
    for (std::size_t i = 0; i < 4 * 43; ++i) {
        EXPECT_NEAR(one.channel.wanda.score[1][i], other.channel.wanda.score[1][i], 1e-5);
        EXPECT_NEAR(one.channel.mean.score[1][i], other.channel.mean.score[1][i], 1e-6);
    }
    RunOptions streamed;
    streamed.streamBlocks = true;
    ModelRun run(checkpoint, data, streamed);
    const auto skipped = measureActivations(run, {});
    EXPECT_TRUE(skipped.expertsSkipped);
    EXPECT_TRUE(skipped.channel.wanda.score[1].empty());
    EXPECT_EQ(skipped.head.wanda.score[1].size(), one.head.wanda.score[1].size());
}

TEST(Criteria, OfHiddenChannelsCountAllThatReadsAndWritesThem) {
    for (const bool tied : {false, true}) {
        const TinyCheckpoint tiny = test::tinyLlama({.tied = tied, .dtype = DType::F64});
        const Checkpoint checkpoint = tiny.open();
        const Dataset data = randomRows({11, 7}, 61);
        ModelRun run(checkpoint, data, doubles(1));
        const HiddenScores scores = measureHidden(run, {2, Reduction::Sum, Normalisation::None}, {});
        ASSERT_EQ(scores.magnitude.size(), 48u);
        for (const std::int64_t c : {0, 31}) {
            double expected = 0;
            for (const auto& [name, tensor] : tiny.tensors) {
                const bool vector = tensor.shape.size() == 1, writes = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
                const std::int64_t columns = vector ? 1 : tensor.shape[1];
                for (std::size_t i = 0; i < tensor.values.size(); ++i) {
                    const auto at = static_cast<std::int64_t>(i);
                    if ((vector || writes ? at / columns : at % columns) == c) expected += tensor.values[i] * tensor.values[i];
                }
            }
            EXPECT_NEAR(scores.magnitude[static_cast<std::size_t>(c)], expected, 1e-10);
        }
        struct Keep : Observer {
            torch::Tensor last;
            bool wants(TapPoint p, int block) const override { return p == TapPoint::BlockOutput && block == 2; }
            void observe(TapPoint, int, const torch::Tensor& x) override { last = x[0]; }
        };
        std::vector<torch::Tensor> states;
        const torch::NoGradGuard noGrad;
        for (const auto& row : data.rows) {
            Keep keep;
            run.model().logits({torch::tensor(row.ids, torch::kInt64).unsqueeze(0), {}, {}}, &keep);
            states.push_back(keep.last);
        }
        ASSERT_EQ(scores.activation.size(), 4u);
        EXPECT_NEAR(scores.activation[3][31], torch::cat(states).select(1, 31).abs().mean().item<double>(), 1e-10);
    }
}

// ---- ablation

TEST(Ablation, IsTheRiseOfTheLossUnderTheCut) {
    const TinyCheckpoint tiny = test::tinyLlama();
    const Checkpoint checkpoint = tiny.open();
    const Dataset data = randomRows({11, 7, 9, 12}, 61);
    RunOptions options, streaming;
    options.batchRows = 2;
    streaming.streamBlocks = true;
    ModelRun run(checkpoint, data, options), streamed(checkpoint, data, streaming);
    Cut base = emptyCut(run.shape());
    base.blocks[2].channels = {1, 2};
    std::vector<Ablation> ablations(3);
    ablations[0].block = 2, ablations[0].cut.ffn = true;
    ablations[1].block = 0, ablations[1].cut.heads = {3};
    ablations[2].block = 1, ablations[2].cut.block = true;
    const AblationScores scores = measureAblations(run, base, ablations, {}), same = measureAblations(streamed, base, ablations, {});
    EXPECT_EQ(scores.rowsDone, 4);
    const auto lossUnder = [&](const Cut& cut) {
        run.setCut(cut);
        return measurePerplexity(run, Positions::All, {}).loss;
    };
    EXPECT_NEAR(scores.loss, lossUnder(base), 1e-6);
    for (std::size_t i = 0; i < 3; ++i) {
        Cut cut = base;
        cut.blocks[static_cast<std::size_t>(ablations[i].block)] = ablations[i].cut;
        EXPECT_NEAR(scores.rise[i].mean, lossUnder(cut) - lossUnder(base), 1e-6);
        EXPECT_NEAR(scores.rise[i].mean, same.rise[i].mean, 1e-6);
        EXPECT_NEAR(scores.rise[i].error, same.rise[i].error, 1e-6);
    }
    test::StopAfter stop(4);
    EXPECT_EQ(measureAblations(run, base, ablations, stop.job()).rowsDone, 2) << "the second batch was not seen by all";
}

// ---- latency

TEST(Latency, IsMeasuredForLayersThatExist) {
    TinyCheckpoint tiny = test::tinyLlama({.numBlocks = 3});
    const Checkpoint checkpoint = tiny.open();
    const Dataset data = randomRows({11}, 61);
    ModelRun run(checkpoint, data, {});
    const Latencies latencies = measureLatencies(run, 32, {});
    for (const LatencyTable* table : {&latencies.decode, &latencies.prefill}) {
        EXPECT_GT(table->fixed, 0);
        ASSERT_EQ(table->attention.size(), 3u);
        EXPECT_EQ(table->attention[0].points.size(), 2u) << "one and two kv groups";
        EXPECT_EQ(table->attention[0].points.back().first, 6);
        EXPECT_EQ(table->ffn[2].points.size(), 4u);
        EXPECT_EQ(table->ffn[2].points.back().first, 43);
        EXPECT_EQ(table->ffn[0], table->ffn[2]) << "equal layers are timed once";
    }
    EXPECT_GT(latencies.prefill.ffn[0].points.back().second, 0);
    EXPECT_THROW(measureLatencies(run, 1000000, {}), Error);
}

// ---- ranks

TEST(RankCorrelation, FollowsItsClosedForms) {
    const std::vector<double> up{1, 2, 3, 4, 5}, down{5, 4, 3, 2, 1}, swapped{1, 3, 2, 4, 5}, tied{1, 1, 2, 2, 3}, constant{7, 7, 7, 7, 7};
    for (auto* correlation : {spearman, kendall}) {
        EXPECT_NEAR(correlation(up, up), 1, 1e-12);
        EXPECT_NEAR(correlation(up, down), -1, 1e-12);
        EXPECT_NEAR(correlation(up, tied), correlation(tied, up), 1e-12);
        EXPECT_TRUE(std::isnan(correlation(up, constant)));
    }
    EXPECT_NEAR(spearman(up, swapped), 1 - 6.0 * 2 / (5 * 24), 1e-12);
    EXPECT_NEAR(kendall(up, swapped), 1 - 2.0 / 10, 1e-12);
    EXPECT_NEAR(kendall(up, tied), 8 / std::sqrt(10.0 * 8), 1e-12) << "8 concordant pairs, two ties";
    EXPECT_NEAR(spearman(up, tied), 0.9486832980505138, 1e-12) << "9 / sqrt(10 x 9)";
    const std::vector<double> holes{1, std::nan(""), 2, 4, 5}, other{10, 0, 20, 40, 50};
    EXPECT_NEAR(kendall(holes, other), 1, 1e-12);
}

TEST(RankCorrelation, OfManyAgreesWithCountingPairs) {
    std::mt19937 random(3);
    std::vector<double> a, b;
    for (int i = 0; i < 200; ++i) a.push_back(random() % 40), b.push_back(random() % 30 + a.back());
    double concordant = 0, tiedA = 0, tiedB = 0, pairs = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        for (std::size_t j = 0; j < i; ++j) {
            const double x = a[i] - a[j], y = b[i] - b[j];
            pairs += 1, tiedA += x == 0, tiedB += y == 0, concordant += x * y > 0 ? 1 : x * y < 0 ? -1 : 0;
        }
    EXPECT_NEAR(kendall(a, b), concordant / std::sqrt((pairs - tiedA) * (pairs - tiedB)), 1e-12);
}

}  // namespace
}  // namespace resect
