#include "tests/widgets/plots/pictures.h"
#include "widgets/plots/curve_canvas.h"
#include "widgets/plots/curve_view.h"
#include "widgets/plots/decimate.h"

#include <QSignalSpy>
#include <QTemporaryDir>
#include <QTest>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace resect::ui {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

TEST(Smoothing, HalvesAStepAfterOneHalfLife) {
    std::vector<double> xs, values;
    for (int i = 0; i <= 400; ++i) {
        xs.push_back(i);
        values.push_back(i < 200 ? 0.0 : 1.0);
    }
    const auto smoothed = smoothByHalfLife(xs, values, 10);
    EXPECT_NEAR(smoothed[199], 0.0, 1e-12);
    EXPECT_NEAR(smoothed[209], 0.5, 1e-6);
    EXPECT_NEAR(smoothed[400], 1.0, 1e-5);
}

TEST(Smoothing, DoesNotDependOnHowDenselyACurveIsSampled) {
    std::vector<double> xs, values, thinXs, thinValues;
    for (int i = 0; i <= 1000; ++i) {
        xs.push_back(i);
        values.push_back(std::sin(i / 150.0));
        if (i % 5 == 0) {
            thinXs.push_back(i);
            thinValues.push_back(std::sin(i / 150.0));
        }
    }
    const auto dense = smoothByHalfLife(xs, values, 40), thin = smoothByHalfLife(thinXs, thinValues, 40);
    for (std::size_t i = 20; i < thin.size(); ++i) EXPECT_NEAR(thin[i], dense[i * 5], 0.02);
}

TEST(Smoothing, KeepsNaNInItsPlaceAndOutOfItsNeighbours) {
    const std::vector<double> xs = {0, 1, 2, 3}, values = {5, 5, kNaN, 5};
    const auto smoothed = smoothByHalfLife(xs, values, 3);
    EXPECT_TRUE(std::isnan(smoothed[2]));
    EXPECT_DOUBLE_EQ(smoothed[3], 5);
}

TEST(Envelope, HoldsTheExtremesOfEveryColumn) {
    std::vector<double> xs, values;
    for (int i = 0; i < 1000; ++i) {
        xs.push_back(i);
        values.push_back(i == 503 ? 99.0 : i == 507 ? -99.0 : std::cos(i * 0.7));
    }
    const Envelope envelope = minMaxPerColumn(xs, values, 0, 1000, 100);
    ASSERT_EQ(envelope.x.size(), 100u);
    EXPECT_EQ(*std::max_element(envelope.high.begin(), envelope.high.end()), 99.0);
    EXPECT_EQ(*std::min_element(envelope.low.begin(), envelope.low.end()), -99.0);
    for (std::size_t i = 1; i < envelope.x.size(); ++i) EXPECT_GT(envelope.x[i], envelope.x[i - 1]);
}

TEST(Envelope, LeavesOneGapWhereValuesAreMissing) {
    std::vector<double> xs, values;
    for (int i = 0; i < 90; ++i) {
        xs.push_back(i);
        values.push_back(i >= 30 && i < 60 ? kNaN : 1.0);
    }
    const Envelope envelope = minMaxPerColumn(xs, values, 0, 90, 9);
    EXPECT_EQ(std::count_if(envelope.low.begin(), envelope.low.end(), [](double v) { return std::isnan(v); }), 1);
    EXPECT_EQ(envelope.x.size(), 7u);
}

TEST(Envelope, OfNothingIsNothing) {
    EXPECT_TRUE(minMaxPerColumn({}, {}, 0, 1, 10).x.empty());
    const std::vector<double> one = {1};
    EXPECT_TRUE(minMaxPerColumn(one, one, 1, 1, 10).x.empty());
}

/// A run of `steps` rows as a trainer writes it: falling loss, evaluation every 50 steps, one lost step, a checkpoint, a pause.
std::vector<protocol::MetricsRow> run(int steps, double offset = 0) {
    std::vector<protocol::MetricsRow> rows;
    std::uint32_t state = 7;
    for (int step = 1; step <= steps; ++step) {
        state = state * 1664525u + 1013904223u;
        const double noise = double(state >> 8) / double(1u << 24) - 0.5;
        protocol::MetricsRow row;
        row.step = step;
        row.tokens = step * 2048;
        row.seconds = step * 0.7;
        const double loss = 1.9 + offset + 1.4 * std::exp(-step / 180.0) + 0.25 * noise;
        row.loss = step == 412 ? Json(nullptr) : Json(loss);
        row.learningRate = 1e-4 * std::min(1.0, step / 60.0);
        row.gradientNorm = 0.8 + 0.4 * noise;
        row.tokensPerSecond = 2900 + 100 * noise;
        rows.push_back(row);
        if (step % 50 == 0 || step == 412) {
            protocol::MetricsRow extra;
            extra.step = step;
            extra.tokens = row.tokens;
            extra.seconds = row.seconds;
            extra.event = step == 412 ? "nonfinite" : "eval";
            if (step != 412) {
                extra.evalLoss = loss - 0.25 * noise;
                extra.evalPerplexity = std::exp(loss - 0.25 * noise);
                extra.recovery = (3.3 - (loss - 0.25 * noise)) / 1.5;
                extra.kl = 0.05 + 0.5 * std::exp(-step / 150.0);
            }
            rows.push_back(extra);
        }
        if (step % 200 == 0) {
            protocol::MetricsRow saved;
            saved.step = step;
            saved.tokens = row.tokens;
            saved.seconds = row.seconds;
            saved.event = "checkpoint";
            rows.push_back(saved);
        }
    }
    return rows;
}

protocol::RunStatus perplexities(double baseline, double cut) {
    protocol::RunStatus status;
    status.baselinePerplexity = baseline;
    status.cutPerplexity = cut;
    return status;
}

class RunCurves : public testing::Test {
protected:
    void SetUp() override {
        view.resize(900, 520);
        view.show();
        view.addRun(QStringLiteral("a"), QStringLiteral("LoRA, rank 8"));
    }
    CurveCanvas& canvas() { return static_cast<CurveCanvas&>(view.canvas()); }
    RunCurveView view;
};

TEST_F(RunCurves, SplitRowsIntoTheirPanels) {
    view.appendRun(QStringLiteral("a"), run(500));
    view.flush();
    EXPECT_EQ(view.pointCount(QStringLiteral("a/train")), 500u);
    EXPECT_EQ(view.pointCount(QStringLiteral("a/eval")), 10u);
    EXPECT_EQ(view.pointCount(QStringLiteral("a/recovery")), 10u);
    EXPECT_TRUE(canvas().findPanel(QStringLiteral("perplexity"))->shown);
    EXPECT_TRUE(canvas().findPanel(QStringLiteral("recovery"))->shown);
    EXPECT_FALSE(canvas().findPanel(QStringLiteral("rate"))->shown);
    view.setPanelCollapsed(QStringLiteral("rate"), false);
    view.flush();
    EXPECT_TRUE(canvas().findPanel(QStringLiteral("rate"))->shown);
}

TEST_F(RunCurves, LeaveAGapAndAMarkWhereTheLossWasNotANumber) {
    view.appendRun(QStringLiteral("a"), run(500));
    view.setRawShown(true);
    view.flush();
    const auto& train = *canvas().findSeries(QStringLiteral("a/train"));
    EXPECT_TRUE(std::isnan(train.values[411]));
    EXPECT_TRUE(std::isnan(train.low->data()->at(411)->value));
    EXPECT_TRUE(std::isnan(train.main->data()->at(411)->value));
    ASSERT_EQ(canvas().events.size(), 3u);
    EXPECT_EQ(canvas().events[2].kind, QStringLiteral("nonfinite"));
}

TEST_F(RunCurves, PanelsShareTheirXAxis) {
    view.appendRun(QStringLiteral("a"), run(500));
    view.flush();
    auto* first = canvas().findPanel(QStringLiteral("perplexity"));
    auto* second = canvas().findPanel(QStringLiteral("recovery"));
    canvas().xAxisOf(*first)->setRange(100, 200);
    EXPECT_EQ(canvas().xAxisOf(*second)->range().lower, 100);
    EXPECT_EQ(canvas().xAxisOf(*second)->range().upper, 200);
}

TEST_F(RunCurves, FollowShowsTheLastTenth) {
    view.appendRun(QStringLiteral("a"), run(500));
    view.setFollow(CurveFollow::Latest);
    view.flush();
    const QCPRange range = canvas().xAxisOf(*canvas().findPanel(QStringLiteral("perplexity")))->range();
    EXPECT_NEAR(range.lower, 500 - 49.9, 0.2);
    EXPECT_GT(range.upper, 500);
    view.setFollow(CurveFollow::All);
    view.setXAxis(CurveX::Tokens);
    view.flush();
    EXPECT_NEAR(canvas().xAxisOf(*canvas().findPanel(QStringLiteral("perplexity")))->range().lower, 2048, 1);
}

TEST_F(RunCurves, ReferencesAppearMoveAndGo) {
    view.appendRun(QStringLiteral("a"), run(100));
    view.setRunStatus(QStringLiteral("a"), perplexities(6.1, 41.0));
    view.flush();
    EXPECT_EQ(canvas().references.size(), 4u);
    const QCPRange range = canvas().findPanel(QStringLiteral("perplexity"))->rect->axis(QCPAxis::atLeft)->range();
    EXPECT_LT(range.lower, 6.1);
    EXPECT_GT(range.upper, 41.0);
    view.setRunStatus(QStringLiteral("a"), perplexities(6.2, kNaN));
    EXPECT_EQ(canvas().references.size(), 2u);
    EXPECT_EQ(canvas().references.begin()->second.label.contains(QStringLiteral("uncut")), true);
}

TEST_F(RunCurves, ShowTheAccuracyOfImages) {
    std::vector<protocol::MetricsRow> rows(3);
    rows[0].event = "eval", rows[0].evalLoss = 0.4, rows[0].evalPerplexity = 1.49, rows[0].evalAccuracy = 0.85;
    rows[1].step = 1, rows[1].tokens = 64, rows[1].loss = 0.3, rows[1].tokensPerSecond = 500;
    rows[2] = rows[0], rows[2].step = 1, rows[2].evalAccuracy = 0.96;
    protocol::RunStatus status = perplexities(1.1, 1.5);
    status.unit = "images", status.baselineAccuracy = 0.97, status.cutAccuracy = 0.85;
    view.setRunStatus(QStringLiteral("a"), status);
    view.appendRun(QStringLiteral("a"), rows);
    view.setXAxis(CurveX::Tokens);
    view.flush();
    EXPECT_TRUE(canvas().findPanel(QStringLiteral("accuracy"))->shown);
    EXPECT_TRUE(canvas().findPanel(QStringLiteral("loss"))->shown);
    EXPECT_FALSE(canvas().findPanel(QStringLiteral("perplexity"))->shown);
    EXPECT_EQ(canvas().findSeries(QStringLiteral("a/accuracy"))->values, (std::vector<double>{85, 96}));
    EXPECT_EQ(view.pointCount(QStringLiteral("a/train")), 0u);
    EXPECT_EQ(view.pointCount(QStringLiteral("a/imageSpeed")), 1u);
    EXPECT_EQ(canvas().references.size(), 4u);
    EXPECT_NEAR(canvas().references.begin()->second.value, 97, 1e-9);
    EXPECT_EQ(canvas().xText(64), QStringLiteral("64 images"));
}

TEST_F(RunCurves, KeysToggleWhileThePlotHasTheFocus) {
    view.show();
    canvas().setFocus();
    QApplication::setActiveWindow(&view);
    QTest::keyClick(&canvas(), Qt::Key_R);
    EXPECT_TRUE(view.rawShown());
    QTest::keyClick(&canvas(), Qt::Key_L);
    EXPECT_TRUE(view.logarithmic());
    QTest::keyClick(&canvas(), Qt::Key_F);
    EXPECT_EQ(view.follow(), CurveFollow::Latest);
}

TEST_F(RunCurves, RemovingARunRemovesEverythingOfIt) {
    view.appendRun(QStringLiteral("a"), run(300));
    view.setRunStatus(QStringLiteral("a"), perplexities(6.1, 41.0));
    view.flush();
    view.removeRun(QStringLiteral("a"));
    view.flush();
    EXPECT_EQ(canvas().graphCount(), 0);
    EXPECT_EQ(canvas().itemCount(), 0);
    EXPECT_TRUE(canvas().events.empty());
}

TEST_F(RunCurves, SavePicturesAndValues) {
    view.appendRun(QStringLiteral("a"), run(120));
    view.flush();
    QTemporaryDir folder;
    QString error;
    for (const char* name : {"curve.png", "curve.svg", "curve.pdf", "curve.csv"}) {
        const QString path = folder.filePath(QLatin1String(name));
        EXPECT_TRUE(canvas().savePicture(path, &error)) << error.toStdString();
        EXPECT_GT(QFileInfo(path).size(), 500) << name;
    }
    EXPECT_FALSE(canvas().savePicture(folder.filePath(QStringLiteral("curve.bmpx")), &error));
    EXPECT_FALSE(QFileInfo::exists(folder.filePath(QStringLiteral("curve.bmpx"))));
    QFile csv(folder.filePath(QStringLiteral("curve.csv")));
    ASSERT_TRUE(csv.open(QIODevice::ReadOnly));
    EXPECT_EQ(csv.readAll().count('\n'), 121);
}

TEST_F(RunCurves, StayWithinTheBudgetWithEightLongRuns) {
    for (int i = 0; i < 8; ++i) {
        const QString id = QString::number(i);
        view.addRun(id, QStringLiteral("run %1").arg(i));
        view.appendRun(id, run(10000, i * 0.05));
    }
    view.flush();
    canvas().replot(QCustomPlot::rpImmediateRefresh);
    EXPECT_LT(canvas().replotTime(), 200) << "wide lines must be drawn as fast polylines";
}

TEST(RunCurvePictures, AreSavedOnRequest) {
    RunCurveView view;
    view.addRun(QStringLiteral("a"), QStringLiteral("LoRA, rank 8"));
    view.appendRun(QStringLiteral("a"), run(900));
    view.setRunStatus(QStringLiteral("a"), perplexities(6.1, 26.0));
    view.flush();
    test::savePictures(view, "curves-one", {1024, 300});
    view.addRun(QStringLiteral("b"), QStringLiteral("full, 1e-5"));
    view.appendRun(QStringLiteral("b"), run(600, 0.1));
    view.setLogarithmic(true);
    view.setPanelCollapsed(QStringLiteral("rate"), false);
    view.flush();
    test::savePictures(view, "curves-two", {1600, 700});
}

}  // namespace
}  // namespace resect::ui
