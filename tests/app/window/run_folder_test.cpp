#include "app/client/run_folder.h"

#include <QAbstractItemModelTester>
#include <QCoreApplication>
#include <QDateTime>
#include <QDir>
#include <QFile>
#include <QSignalSpy>
#include <QSysInfo>
#include <QTemporaryDir>
#include <QTest>

#include <gtest/gtest.h>

using namespace resect;
using namespace resect::ui;

namespace {

struct Run : testing::Test {
    QTemporaryDir place;
    QString folder = place.path() + "/runs/2026-01-02-a";
    void SetUp() override {
        QDir().mkpath(folder);
        write("job.json", R"({"recipe": "lora"})");
    }
    void write(const QString& name, const QByteArray& text) {
        QFile file(folder + "/" + name);
        ASSERT_TRUE(file.open(QIODevice::WriteOnly));
        file.write(text);
    }
    void append(const QByteArray& text) {
        QFile file(folder + "/metrics.jsonl");
        ASSERT_TRUE(file.open(QIODevice::Append));
        file.write(text);
    }
    void status(const std::string& state, int secondsAgo = 0, std::int64_t pid = 0, const std::string& host = "elsewhere") {
        protocol::RunStatus status;
        status.state = state;
        status.pid = pid;
        status.host = host;
        status.step = 40, status.totalSteps = 100;
        status.heartbeat = QDateTime::currentDateTimeUtc().addSecs(-secondsAgo).toString(Qt::ISODateWithMs).toStdString();
        write("status.json", QByteArray::fromStdString(Json(status).dump()));
    }
};

}  // namespace

TEST_F(Run, RowsComeOnceAndATornLastLineWaits) {
    RunFollower run(folder);
    QSignalSpy rows(&run, &RunFollower::rowsAppended);
    append("{\"step\": 1, \"loss\": 2.5}\n{\"step\": 2, \"lo");
    run.wantRows();
    ASSERT_EQ(run.rows().size(), 1u);
    run.poll();
    EXPECT_EQ(run.rows().size(), 1u);
    append("ss\": 2.25}\n{\"step\": 3, \"loss\": null}\n");
    run.poll();
    ASSERT_EQ(run.rows().size(), 3u);
    EXPECT_EQ(run.rows()[1].loss.get<double>(), 2.25);
    EXPECT_TRUE(run.rows()[2].loss.is_null());
    EXPECT_EQ(rows.count(), 2);
    EXPECT_EQ(rows[1][0].toInt(), 1);
    EXPECT_EQ(run.unreadableLines(), 0);
}

TEST_F(Run, UnreadableLinesAreCountedAndSkipped) {
    append("{\"step\": 1}\nrubbish\n[]\n{\"step\": \"two\"}\n{\"step\": 5}\n");
    RunFollower run(folder);
    run.wantRows();
    ASSERT_EQ(run.rows().size(), 2u);
    EXPECT_EQ(run.rows()[1].step, 5);
    EXPECT_EQ(run.unreadableLines(), 3);
}

TEST_F(Run, ARewrittenFileIsReadAnew) {
    append("{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}\n");
    RunFollower run(folder);
    run.wantRows();
    QSignalSpy rows(&run, &RunFollower::rowsAppended);
    // A resumed run cuts off what came after its checkpoint and goes on: shorter first, then as long with other content.
    write("metrics.jsonl", "{\"step\": 1}\n{\"step\": 7}\n{\"step\": 8}\n{\"step\": 9}\n");
    run.poll();
    ASSERT_EQ(run.rows().size(), 4u);
    EXPECT_EQ(run.rows()[1].step, 7);
    ASSERT_EQ(rows.count(), 1);
    EXPECT_EQ(rows[0][0].toInt(), 0);
}

TEST_F(Run, ManyRowsAreReadInPieces) {
    QByteArray text;
    for (int step = 1; step <= 20000; ++step) text += "{\"step\": " + QByteArray::number(step) + ", \"loss\": 1.25, \"learningRate\": 0.0001}\n";
    append(text);
    RunFollower run(folder);
    QElapsedTimer timer;
    timer.start();
    run.wantRows();
    EXPECT_LT(run.rows().size(), 20000u);
    EXPECT_LT(timer.elapsed(), 100);
    ASSERT_TRUE(QTest::qWaitFor([&] { return run.rows().size() == 20000; }, 10000));
    EXPECT_EQ(run.rows().back().step, 20000);
}

TEST_F(Run, LifeFollowsHeartbeatHostAndProcess) {
    EXPECT_EQ(RunFollower(folder).life(), RunFollower::Life::Waiting);
    EXPECT_EQ(RunFollower(folder).stateWords(), "not started");
    EXPECT_FALSE(RunFollower(folder).isActive());  // a control behind its run, or a job that was only prepared
    status("running");
    EXPECT_EQ(RunFollower(folder).life(), RunFollower::Life::Live);
    status("running", 60);
    RunFollower silent(folder);
    EXPECT_EQ(silent.life(), RunFollower::Life::Silent);
    EXPECT_TRUE(silent.stateWords().startsWith("not answering for"));
    EXPECT_TRUE(silent.isActive());
    status("running", 60, 0x3ffffff, QSysInfo::machineHostName().toStdString());
    EXPECT_EQ(RunFollower(folder).life(), RunFollower::Life::Lost);
    status("done", 600);
    RunFollower done(folder);
    EXPECT_EQ(done.life(), RunFollower::Life::Ended);
    EXPECT_FALSE(done.canResume());
    status("stopped", 600);
    QDir().mkpath(folder + "/checkpoints");
    write("checkpoints/last", "step-40");
    EXPECT_TRUE(RunFollower(folder).canResume());
    EXPECT_DOUBLE_EQ(RunFollower(folder).fraction(), 0.4);
}

TEST_F(Run, ControlIsWrittenAndShownUntilTheRunFollows) {
    status("running");
    RunFollower run(folder);
    ASSERT_TRUE(run.control("pause"));
    QFile control(folder + "/control");
    ASSERT_TRUE(control.open(QIODevice::ReadOnly));
    EXPECT_EQ(control.readAll().trimmed(), "pause");
    EXPECT_EQ(run.stateWords(), "pausing after this step");
    status("paused");
    run.poll();
    EXPECT_EQ(run.stateWords(), "paused");
}

TEST_F(Run, AHalfWrittenStatusIsIgnored) {
    status("running");
    RunFollower run(folder);
    write("status.json", "{\"state\": \"do");
    run.poll();
    EXPECT_EQ(run.status().state, "running");
    write("status.json", "{\"state\": 7}");
    run.poll();
    EXPECT_EQ(run.status().state, "running");
}

TEST_F(Run, TheListFindsRunsNewestFirstAndKeepsTheModelRules) {
    RunList list;
    QAbstractItemModelTester tester(&list, QAbstractItemModelTester::FailureReportingMode::Fatal);
    list.setFolder(place.path() + "/runs");
    ASSERT_EQ(list.size(), 1);
    EXPECT_EQ(list.index(0, RunList::Name).data().toString(), "2026-01-02-a (lora)");
    QDir().mkpath(place.path() + "/runs/2026-03-04-b");
    QFile job(place.path() + "/runs/2026-03-04-b/job.json");
    ASSERT_TRUE(job.open(QIODevice::WriteOnly));
    job.write("{\"recipe\": \"full\"}");
    job.close();
    list.refresh();
    ASSERT_EQ(list.size(), 2);
    EXPECT_EQ(list.run(0)->id(), "2026-03-04-b");
    status("running");
    QSignalSpy changed(&list, &QAbstractItemModel::dataChanged);
    list.refresh();
    EXPECT_GE(changed.count(), 1);
    EXPECT_EQ(list.index(1, RunList::Progress).data().toString(), "step 40 of 100");
    list.setShown(folder, true);
    EXPECT_EQ(list.index(1, RunList::Name).data(Qt::CheckStateRole).toInt(), Qt::Checked);
}

TEST_F(Run, OfImagesShowsItsAccuracy) {
    status("done");
    RunList list;
    list.setFolder(place.path() + "/runs");
    EXPECT_EQ(list.headerData(RunList::Perplexity, Qt::Horizontal, Qt::DisplayRole).toString(), "Perplexity");
    protocol::RunStatus images;
    images.state = "done", images.unit = "images", images.evalAccuracy = 0.9734, images.evalPerplexity = 1.1;
    write("status.json", QByteArray::fromStdString(Json(images).dump()));
    list.run(0)->poll();
    EXPECT_EQ(list.index(0, RunList::Perplexity).data().toString(), "97.3 %");
    EXPECT_EQ(list.headerData(RunList::Perplexity, Qt::Horizontal, Qt::DisplayRole).toString(), "Accuracy");
    EXPECT_EQ(list.headerData(RunList::Speed, Qt::Horizontal, Qt::DisplayRole).toString(), "Images");
}

TEST_F(Run, FiveHundredRunsAreListedWithinASecond) {
    for (int i = 0; i < 500; ++i) {
        const QString other = place.path() + QStringLiteral("/runs/r%1").arg(i, 4, 10, QLatin1Char('0'));
        QDir().mkpath(other);
        for (const char* name : {"job.json", "status.json"}) {
            QFile file(other + "/" + name);
            ASSERT_TRUE(file.open(QIODevice::WriteOnly));
            file.write("{\"state\": \"done\", \"recipe\": \"lora\"}");
        }
    }
    QElapsedTimer timer;
    timer.start();
    RunList list;
    list.setFolder(place.path() + "/runs");
    EXPECT_EQ(list.size(), 501);
    EXPECT_LT(timer.elapsed(), 1000);
}

TEST_F(Run, ADetachedRunIsFollowedAndStopped) {
    QString problem;
    ASSERT_TRUE(startDetachedRun(QCoreApplication::applicationFilePath(), {"run", folder + "/job.json"}, folder, &problem)) << qPrintable(problem);
    RunFollower run(folder);
    run.wantRows();
    ASSERT_TRUE(QTest::qWaitFor([&] { run.poll(); return run.rows().size() > 5; }, 10000));
    EXPECT_EQ(run.life(), RunFollower::Life::Live);
    ASSERT_TRUE(run.control("stop"));
    ASSERT_TRUE(QTest::qWaitFor([&] { run.poll(); return run.life() == RunFollower::Life::Ended; }, 10000));
    EXPECT_EQ(run.stateWords(), "stopped and kept");
}

TEST_F(Run, AProgramThatIsNotThereIsSaid) {
    QString problem;
    EXPECT_FALSE(startDetachedRun("/nowhere/resect-cli", {"run"}, folder, &problem));
    EXPECT_TRUE(problem.contains("/nowhere/resect-cli"));
}
