#include "app/client/worker_client.h"

#include <QCoreApplication>
#include <QSignalSpy>
#include <QTest>

#include <gtest/gtest.h>

using namespace resect;
using namespace resect::ui;

namespace {

struct Client : testing::Test {
    WorkerClient client;
    QObject context;
    std::vector<QString> events;
    void SetUp() override { client.setProgram(QCoreApplication::applicationFilePath(), {QStringLiteral("serve")}); }
    void TearDown() override { qunsetenv("RESECT_FAKE"); }
    WorkerCallbacks record(const QString& name) {
        return {[this, name](const Json& result) { events.push_back(name + QStringLiteral("=") + QString::fromStdString(result.value("x", "ok"))); },
                [this, name](const WorkerError& error) { events.push_back(name + QStringLiteral("!") + error.code); },
                [this, name](const WorkerProgress& progress, const Json&) { events.push_back(name + QStringLiteral("~%1").arg(progress.done)); }};
    }
    bool waitForEvents(size_t count) { return QTest::qWaitFor([&] { return events.size() >= count; }, 10000); }
};

}  // namespace

TEST_F(Client, StartsByItselfAndAnswersInOrder) {
    EXPECT_EQ(client.state(), WorkerClient::State::Off);
    client.request("echo", {{"x", "one"}}, &context, record("a"));
    client.request("echo", {{"x", "two"}}, &context, record("b"));
    ASSERT_TRUE(waitForEvents(2));
    EXPECT_EQ(events, (std::vector<QString>{"a=one", "b=two"}));
    EXPECT_EQ(client.state(), WorkerClient::State::Ready);
    EXPECT_EQ(client.hello().version, "0.1.0");
    EXPECT_GT(client.residentBytes(), 0);
    ASSERT_TRUE(QTest::qWaitFor([&] { return !client.logLines().isEmpty(); }, 5000));
    EXPECT_EQ(client.logLines().front(), "fake worker up");
}

TEST_F(Client, ErrorsCarryCodeSubjectAndMessage) {
    WorkerError seen;
    client.request("fail", Json::object(), &context, {[](const Json&) { FAIL(); }, [&](const WorkerError& error) { seen = error; }, {}});
    ASSERT_TRUE(QTest::qWaitFor([&] { return !seen.code.isEmpty(); }, 10000));
    EXPECT_EQ(seen.code, "BadInput");
    EXPECT_EQ(seen.text(), "model.safetensors: too short");
}

TEST_F(Client, AResultOfAnotherFormBecomesAnError) {
    client.request("echo", {{"x", 1}}, &context, {[](const Json& result) { result.at("missing").get<std::string>(); }, record("a").error, {}});
    ASSERT_TRUE(waitForEvents(1));
    EXPECT_EQ(events.front(), "a!Internal");
}

TEST_F(Client, RubbishLinesAndUnknownIdsAreSurvived) {
    qputenv("RESECT_FAKE", "garbage");
    client.request("echo", {{"x", "through"}}, &context, record("a"));
    ASSERT_TRUE(waitForEvents(1));
    EXPECT_EQ(events.front(), "a=through");
}

TEST_F(Client, ANewerViewQueryReplacesTheWaitingOne) {
    client.requestView("plot", "hold", Json::object(), &context, record("first"));
    client.requestView("plot", "echo", {{"x", "2"}}, &context, record("second"));
    client.requestView("plot", "echo", {{"x", "3"}}, &context, record("third"));
    client.request("late", Json::object(), &context, record("late"));
    ASSERT_TRUE(waitForEvents(3));
    QTest::qWait(50);
    EXPECT_EQ(std::count(events.begin(), events.end(), QStringLiteral("second=2")), 0);
    EXPECT_EQ(events.back(), "third=3");
}

TEST_F(Client, JobsReportProgressAndLeaveTheListWhenDone) {
    QSignalSpy jobs(&client, &WorkerClient::jobsChanged);
    client.startJob("preview", Json::object(), "Preview", &context, record("p"));
    ASSERT_EQ(client.jobs().size(), 1u);
    EXPECT_EQ(client.jobs().front().title, "Preview");
    ASSERT_TRUE(waitForEvents(6));
    EXPECT_EQ(events.front(), "p~1");
    EXPECT_EQ(events.back(), "p=ok");
    EXPECT_TRUE(client.jobs().empty());
    EXPECT_GE(jobs.count(), 2);
}

TEST_F(Client, CancelledRequestsEndAsStopped) {
    const qint64 id = client.request("hold", Json::object(), &context, record("a"));
    client.request("echo", {{"x", "up"}}, &context, record("b"));
    ASSERT_TRUE(waitForEvents(1));
    client.cancel(id);
    ASSERT_TRUE(waitForEvents(2));
    EXPECT_EQ(events.back(), "a!Stopped");
}

TEST_F(Client, CallbacksOfADestroyedContextAreDropped) {
    auto owner = std::make_unique<QObject>();
    client.request("echo", {{"x", "gone"}}, owner.get(), record("gone"));
    client.request("echo", {{"x", "stays"}}, &context, record("stays"));
    owner.reset();
    ASSERT_TRUE(waitForEvents(1));
    QTest::qWait(30);
    EXPECT_EQ(events, (std::vector<QString>{"stays=stays"}));
}

TEST_F(Client, AKilledWorkerIsStartedOnceAgainAndItsJobFails) {
    QSignalSpy died(&client, &WorkerClient::died), reopened(&client, &WorkerClient::reopened);
    client.setReopen("/models/fake");
    client.request("echo", {{"x", "up"}}, &context, record("up"));
    ASSERT_TRUE(waitForEvents(1));
    const qint64 first = client.processId();
    client.startJob("hold", Json::object(), "Measuring", &context, record("job"));
    client.request("die", Json::object(), &context, record("die"));
    ASSERT_TRUE(waitForEvents(3));
    EXPECT_EQ(events[1], "job!WorkerDied");
    EXPECT_TRUE(client.jobs().empty());
    ASSERT_TRUE(QTest::qWaitFor([&] { return client.state() == WorkerClient::State::Ready; }, 10000));
    EXPECT_NE(client.processId(), first);
    ASSERT_EQ(died.count(), 1);
    EXPECT_TRUE(died[0][1].toBool());
    EXPECT_TRUE(died[0][0].toString().contains("killed")) << qPrintable(died[0][0].toString());
    ASSERT_TRUE(QTest::qWaitFor([&] { return reopened.count() == 1; }, 5000));
    // The second quick death is final until somebody asks.
    client.request("die", Json::object(), &context, record("die"));
    ASSERT_TRUE(QTest::qWaitFor([&] { return died.count() == 2; }, 10000));
    EXPECT_FALSE(died[1][1].toBool());
    EXPECT_EQ(client.state(), WorkerClient::State::Failed);
    EXPECT_FALSE(died[1][2].toStringList().isEmpty());
    events.clear();
    client.request("echo", Json::object(), &context, record("after"));
    ASSERT_TRUE(waitForEvents(1));
    EXPECT_EQ(events.front(), "after!WorkerDied");
    client.restart();
    client.request("echo", {{"x", "again"}}, &context, record("again"));
    ASSERT_TRUE(waitForEvents(2));
    EXPECT_EQ(events.back(), "again=again");
}

TEST_F(Client, AWorkerThatDiesAtOnceIsGivenUpWithItsLastWords) {
    qputenv("RESECT_FAKE", "die");
    QSignalSpy died(&client, &WorkerClient::died);
    client.request("echo", Json::object(), &context, record("a"));
    ASSERT_TRUE(QTest::qWaitFor([&] { return died.count() == 2; }, 10000));
    EXPECT_EQ(client.state(), WorkerClient::State::Failed);
    EXPECT_EQ(died[1][2].toStringList().last(), "cannot allocate the moon");
    EXPECT_EQ(events.front(), "a!WorkerDied");
}

TEST_F(Client, AnotherProtocolVersionIsRefused) {
    qputenv("RESECT_FAKE", "old");
    QSignalSpy died(&client, &WorkerClient::died);
    client.start();
    ASSERT_TRUE(QTest::qWaitFor([&] { return died.count() == 1; }, 10000));
    EXPECT_EQ(client.state(), WorkerClient::State::Failed);
    EXPECT_TRUE(died[0][0].toString().contains("protocol 0"));
}

TEST_F(Client, AMissingProgramIsSaidNotRetried) {
    client.setProgram("/nowhere/resect-cli", {"serve"});
    QSignalSpy died(&client, &WorkerClient::died);
    client.request("echo", Json::object(), &context, record("a"));
    ASSERT_TRUE(QTest::qWaitFor([&] { return died.count() == 1 && events.size() == 1; }, 10000));
    EXPECT_EQ(client.state(), WorkerClient::State::Failed);
    QTest::qWait(50);
    EXPECT_EQ(died.count(), 1);
}
