// The window with the real worker, on the demo checkpoint.
#include "app/pages/export_dialog.h"
#include "app/pages/recover_dialog.h"
#include "app/window/main_window.h"
#include "app/window/runs_dock.h"
#include "widgets/forms/parameter_form.h"

#include <QCheckBox>
#include <QComboBox>
#include <QFileInfo>
#include <QLineEdit>
#include <QPushButton>
#include <QSignalSpy>
#include <QTemporaryDir>
#include <QTest>

#include <gtest/gtest.h>

#include <csignal>

using namespace resect;
using namespace resect::ui;

namespace {

struct RealWorker : testing::Test {
    QTemporaryDir place;
    std::unique_ptr<MainWindow> window;
    void SetUp() override {
        qputenv("RESECT_WORKSPACES", (place.path() + "/workspaces").toUtf8());
        window = std::make_unique<MainWindow>();
        window->client().setProgram(QStringLiteral(RESECT_BINARY_DIR "/bin/resect-cli"), {"serve"});
        window->session().setAutoPreview(false);
        window->show();
        window->openPath(QStringLiteral(RESECT_SOURCE_DIR "/resources/demo/dense"));
        ASSERT_TRUE(QTest::qWaitFor([&] { return document().model() && document().check() && !document().methods().empty(); }, 60000));
        auto data = document().data();
        data.file = RESECT_SOURCE_DIR "/resources/demo/text/calibration.txt";
        data.maxRows = 0;
        document().setData(data);
    }
    Document& document() { return window->document(); }
    const protocol::MethodMessage& method(const std::string& id) {
        for (const auto& found : document().methods())
            if (found.id == id) return found;
        throw std::runtime_error("no method " + id);
    }
};

TEST_F(RealWorker, KilledWhileMeasuringIsSaidAndRestartedOnce) {
    document().drop({blockRef(1)});
    ASSERT_TRUE(QTest::qWaitFor([&] { return document().check() != nullptr; }, 10000));
    QSignalSpy died(&window->client(), &WorkerClient::died), reopened(&window->client(), &WorkerClient::reopened);
    window->session().measure(method("llm-drop"), Json::object());
    ASSERT_TRUE(QTest::qWaitFor([&] { return !window->client().jobs().empty() && window->client().jobs().front().progress.done > 0; }, 60000));
    ASSERT_EQ(kill(static_cast<pid_t>(window->client().processId()), SIGKILL), 0);
    ASSERT_TRUE(QTest::qWaitFor([&] { return reopened.count() == 1; }, 60000));
    ASSERT_EQ(died.count(), 1);
    EXPECT_TRUE(died[0][1].toBool());
    EXPECT_TRUE(document().isDropped(blockRef(1)));
    EXPECT_TRUE(window->client().jobs().empty());
    EXPECT_TRUE(document().measures().empty());
    QStringList said;
    for (int i = 0; i < window->messages().rowCount(); ++i) said << window->messages().index(i, 0).data().toString();
    EXPECT_TRUE(said.join('\n').contains("Your plan is safe")) << qPrintable(said.join('\n'));
    // What was lost can be measured again.
    auto data = document().data();
    data.maxRows = 4;
    document().setData(data);
    window->session().measure(method("llm-drop"), Json::object());
    ASSERT_TRUE(QTest::qWaitFor([&] { return document().measures().size() == 1 && !window->session().scores().empty(); }, 60000));
}

TEST_F(RealWorker, RecoversInAProcessOfItsOwnAndExportsTheResult) {
    document().drop({blockRef(1)});
    ASSERT_TRUE(QTest::qWaitFor([&] { return document().check() != nullptr; }, 10000));
    ASSERT_TRUE(window->session().save());  // the worker works in the folder that the window keeps
    RecoverDialog dialog(document(), window->client(), window->session());
    dialog.form().setValues({{"steps", 4}, {"batch_rows", 2}, {"row_length", 32}, {"eval_rows", 4}});
    dialog.controlBox().setChecked(true);
    dialog.show();
    ASSERT_TRUE(QTest::qWaitFor([&] { return dialog.isTimed(); }, 60000)) << qPrintable(dialog.problem());
    QSignalSpy started(&dialog, &RecoverDialog::runStarted);
    dialog.startButton().click();
    ASSERT_TRUE(QTest::qWaitFor([&] { return started.count() == 1; }, 30000)) << qPrintable(dialog.problem());
    window->runsDock().showRun(started[0][0].toString());
    RunFollower* run = window->runsDock().currentRun();
    ASSERT_NE(run, nullptr);
    const auto control = [&] { return window->runs().findRun(run->controlFolder()); };
    ASSERT_TRUE(QTest::qWaitFor([&] { return control() && control()->status().state == "done"; }, 60000));
    EXPECT_EQ(run->status().state, "done");
    EXPECT_EQ(control()->status().step, 4);
    ExportDialog exports(document(), window->client(), window->session(), window->runs());
    const int row = exports.sourceBox().findData(run->folder());
    ASSERT_GT(row, 0);
    exports.sourceBox().setCurrentIndex(row);
    exports.goTo(ExportDialog::Write);
    exports.folderLine().setText(place.path() + "/out");
    exports.startWriting();
    ASSERT_TRUE(QTest::qWaitFor([&] { return exports.step() == ExportDialog::Report; }, 60000));
    EXPECT_TRUE(exports.verified());
    EXPECT_TRUE(QFileInfo::exists(place.path() + "/out/config.json"));
    exports.ggufTarget().setChecked(true);
    exports.goTo(ExportDialog::Write);
    EXPECT_EQ(exports.folderLine().text(), place.path() + "/out.gguf");
    exports.startWriting();
    ASSERT_TRUE(QTest::qWaitFor([&] { return exports.step() == ExportDialog::Report; }, 60000));
    EXPECT_TRUE(exports.verified());
    EXPECT_TRUE(QFileInfo::exists(place.path() + "/out.gguf"));
}

/// What the pages ask for, over the real pipes.
TEST_F(RealWorker, AnswersWhatTheInspectingPagesAsk) {
    const auto ask = [&](const char* call, const Json& args) {
        std::optional<Json> answer;
        QString problem;
        WorkerCallbacks callbacks;
        callbacks.result = [&](const Json& result) { answer = result; };
        callbacks.error = [&](const WorkerError& error) { problem = error.text(); };
        window->client().startJob(QLatin1String(call), args, QLatin1String(call), window.get(), callbacks);
        EXPECT_TRUE(QTest::qWaitFor([&] { return answer || !problem.isEmpty(); }, 60000)) << call;
        return answer ? *answer : Json(problem.toStdString());
    };
    const std::string dense = RESECT_SOURCE_DIR "/resources/demo/dense", mixtral = RESECT_SOURCE_DIR "/resources/demo/mixtral";
    const Json tensors = ask("tensors", {{"sort", "bytes"}, {"descending", true}, {"count", 2}});
    ASSERT_EQ(tensors["rows"].size(), 2u) << tensors.dump();
    EXPECT_EQ(tensors["total"], document().model()->numTensors);
    const Json look = ask("tensor_look", {{"name", tensors["rows"][0]["name"]}, {"cells", 16}});
    ASSERT_TRUE(look.is_object()) << look.dump();
    EXPECT_EQ(look["cells"].size(), 256u);
    EXPECT_EQ(look["nonFinite"], 0);
    EXPECT_TRUE(ask("diff", {{"path", dense}})["same"].get<bool>());
    EXPECT_FALSE(ask("diff", {{"path", mixtral}})["same"].get<bool>());
    EXPECT_TRUE(ask("diff", {{"path", "/nowhere"}}).is_string());
    EXPECT_TRUE(ask("router_tokens", {{"text", "Once upon a time"}}).is_string()) << "a dense model has no routers";
    const Json health = ask("health", Json::object());
    EXPECT_EQ(health["badTensors"], 0);
    EXPECT_TRUE(health["complete"].get<bool>());

    window->openPath(QString::fromStdString(mixtral));
    ASSERT_TRUE(QTest::qWaitFor([&] { return document().model() && document().model()->family == "mixtral"; }, 60000));
    const Json routed = ask("router_tokens", {{"text", "Once upon a time"}});
    ASSERT_TRUE(routed.is_object()) << routed.dump();
    EXPECT_EQ(routed["blocks"].size(), document().model()->blocks.size());
    EXPECT_EQ(routed["blocks"][0]["experts"].size(), routed["tokens"].size());
    EXPECT_FALSE(method("expert-drop").families.empty());
    EXPECT_TRUE(suits(method("expert-drop"), *document().model()));
}

}  // namespace
