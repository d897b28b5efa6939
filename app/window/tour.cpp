#include "app/window/tour.h"

#include "app/pages/compare_page.h"
#include "app/pages/experts_page.h"
#include "app/pages/export_dialog.h"
#include "app/pages/recover_dialog.h"
#include "app/pages/router_page.h"
#include "app/window/dialogs.h"
#include "app/window/main_window.h"
#include "app/window/runs_dock.h"
#include "core/base/numbers.h"
#include "widgets/forms/parameter_form.h"
#include "widgets/plots/theme.h"

#include <QApplication>
#include <QCheckBox>
#include <QComboBox>
#include <QDir>
#include <QElapsedTimer>
#include <QEventLoop>
#include <QFile>
#include <QFileInfo>
#include <QLineEdit>
#include <QPushButton>
#include <QSettings>
#include <QStandardPaths>
#include <QTemporaryDir>
#include <QTextStream>

#include <cmath>
#include <cstdio>
#include <functional>

namespace resect::ui {
namespace {

/// The tour as a list of checked steps; each waits for the event loop, never for the worker directly.
class Tour {
public:
    Tour(const QString& folder, const QString& checkpoint, const QString& data) : m_folder(folder), m_checkpoint(checkpoint), m_data(data) {}

    int run() {
        if (!QDir().mkpath(m_folder)) {
            std::fprintf(stderr, "resect: the folder %s could not be made\n", qPrintable(m_folder));
            return 1;
        }
        QElapsedTimer total;
        total.start();
        ThemeNotifier::instance().setMode(ThemeMode::Light);
        MainWindow window;
        m_window = &window;
        window.resize(1440, 900);
        window.setCloseAnswer(QStringLiteral("stop"));
        window.show();
        settle(100);
        note(QStringLiteral("window on screen after %1 ms").arg(total.elapsed()));
        picture(QStringLiteral("00-start"));
        open() && measure() && plan() && preview();
        if (window.document().model()) pages();
        if (window.document().model() && recover()) exportRecovered();
        if (window.document().model()) dialogs();
        if (m_checkpoint.isEmpty()) mixture();
        for (int i = window.messages().rowCount() - 1; i >= 0; --i) note(QStringLiteral("message: ") + window.messages().index(i, 0).data().toString());
        window.close();
        note(QStringLiteral("%1 pictures, %2 problems, %3").arg(m_pictures).arg(m_failures).arg(QString::fromStdString(formatDuration(static_cast<double>(total.elapsed()) / 1000))));
        return writeReport() && m_failures == 0 ? 0 : 1;
    }

private:
    void note(const QString& text) {
        m_lines << text;
        std::fprintf(stderr, "%s\n", qPrintable(text));
    }
    bool check(bool good, const QString& what) {
        note((good ? QStringLiteral("ok    ") : QStringLiteral("FAIL  ")) + what);
        if (!good) ++m_failures;
        return good;
    }
    void settle(int milliseconds) {
        QEventLoop loop;
        QTimer::singleShot(milliseconds, &loop, &QEventLoop::quit);
        loop.exec();
    }
    bool waitFor(const std::function<bool()>& condition, int seconds) {
        QElapsedTimer timer;
        timer.start();
        while (!condition() && timer.elapsed() < seconds * 1000) settle(50);
        return condition();
    }

    bool open() {
        m_window->client().start();
        waitFor([&] { return m_window->client().state() == WorkerClient::State::Ready || m_window->client().state() == WorkerClient::State::Failed; }, 60);
        if (!check(m_window->client().state() == WorkerClient::State::Ready, QStringLiteral("the worker answers"))) return false;
        QElapsedTimer timer;
        timer.start();
        if (m_checkpoint.isEmpty()) m_window->session().openDemo();
        else m_window->openPath(m_checkpoint);
        if (!check(waitFor([&] { return m_window->document().model() != nullptr; }, 60), QStringLiteral("the checkpoint opens"))) return false;
        note(QStringLiteral("opened %1 in %2 ms").arg(QString::fromStdString(m_window->document().model()->name)).arg(timer.elapsed()));
        check(waitFor([&] { return !m_window->document().methods().empty(); }, 30), QStringLiteral("the worker lists its methods"));
        check(waitFor([&] { return m_window->document().check() != nullptr; }, 30), QStringLiteral("the empty plan is checked"));
        auto data = m_window->document().data();
        if (!m_data.isEmpty()) data.file = QFileInfo(m_data).absoluteFilePath().toStdString();
        else if (data.file.empty() && !runsImages()) data.file = demoText().toStdString();
        data.maxRows = runsImages() ? 256 : 16;
        m_window->document().setData(data);
        return check(!data.file.empty(), runsImages() ? QStringLiteral("calibration images are chosen (--data)") : QStringLiteral("a calibration text is chosen"));
    }

    bool runsImages() const { return m_window->document().model()->input == "images"; }

    bool measure() {
        bool any = false;
        for (const auto& method : m_window->document().methods()) {
            if (!method.measures || !suits(method, *m_window->document().model())) continue;
            const size_t before = m_window->document().measures().size();
            QElapsedTimer timer;
            timer.start();
            m_window->session().measure(method, Json::object());
            waitFor([&] { return m_window->client().jobs().empty(); }, 300);
            any = check(m_window->document().measures().size() > before, QStringLiteral("measured %1 in %2 s").arg(QString::fromStdString(method.id)).arg(static_cast<double>(timer.elapsed()) / 1000, 0, 'f', 1)) || any;
        }
        waitFor([&] { return !m_window->session().scores().empty(); }, 20);
        return check(any, QStringLiteral("something was measured"));
    }

    bool plan() {
        Document& document = m_window->document();
        const auto& blocks = document.model()->blocks;
        const int middle = blocks[blocks.size() / 2].index;
        document.selection().select({blockRef(middle)});
        document.dropSelection();
        settle(30);
        const int other = blocks[blocks.size() / 3].index;
        document.selection().select(headsOf(blocks[blocks.size() / 3], 0).empty() ? RefSet{attentionRef(other)} : RefSet{headRef(other, 0)});
        if (blocks.size() > 2 && blocks[blocks.size() / 3].numHeads > 1) document.dropSelection();
        check(document.isDropped(blockRef(middle)), QStringLiteral("Delete drops the selection"));
        document.undoStack().undo();
        document.undoStack().undo();
        check(document.planIsEmpty(), QStringLiteral("undo empties the plan"));
        document.undoStack().redo();
        document.undoStack().redo();
        document.selection().select({blockRef(middle)});
        QElapsedTimer timer;
        timer.start();
        const bool checked = waitFor([&] { return document.check() && document.check()->after.parameters < document.check()->before.parameters; }, 20);
        return check(checked && document.check()->legal, QStringLiteral("the plan is checked (%1 ms) and legal").arg(timer.elapsed()));
    }

    bool preview() {
        Document& document = m_window->document();
        m_window->session().startPreview();
        const bool done = waitFor([&] { return document.preview() && document.preview()->final; }, 300);
        if (!check(done && std::isfinite(document.preview()->perplexity), QStringLiteral("the preview finishes"))) return false;
        if (runsImages()) note(QStringLiteral("accuracy %1 -> %2").arg(document.preview()->baselineAccuracy).arg(document.preview()->accuracy));
        note(QStringLiteral("perplexity %1 -> %2, KL %3").arg(document.preview()->baseline).arg(document.preview()->perplexity).arg(document.preview()->kl));
        return true;
    }

    void bothThemes(const std::function<void(const QString& suffix)>& draw) {
        for (const auto& [mode, suffix] : {std::pair{ThemeMode::Light, QStringLiteral("light")}, std::pair{ThemeMode::Dark, QStringLiteral("dark")}}) {
            ThemeNotifier::instance().setMode(mode);
            settle(150);
            draw(suffix);
        }
        ThemeNotifier::instance().setMode(ThemeMode::Light);
    }

    void picture(const QString& name, QWidget* widget = nullptr) {
        bothThemes([&](const QString& suffix) {
            const QString path = QStringLiteral("%1/%2-%3.png").arg(m_folder, name, suffix);
            if ((widget ? widget : m_window)->grab().save(path)) ++m_pictures;
            else check(false, QStringLiteral("writing ") + path);
        });
    }

    void pages() {
        m_window->applyLayout(QStringLiteral("cut"));
        int number = 1;
        for (Page* page : m_window->pages()) {
            m_window->showPage(page->id());
            if (page->id() == QLatin1String("text") || page->id() == QLatin1String("router")) page->rerun();
            settle(200);
            check(waitFor([&] { return !page->busy(); }, 60), QStringLiteral("page %1").arg(page->id()));
            picture(QStringLiteral("%1-%2").arg(number++, 2, 10, QLatin1Char('0')).arg(page->id()));
        }
    }

    /// A short recovery through its dialog, in processes of its own, paused and continued on the way, with the control behind it.
    bool recover() {
        RecoverDialog dialog(m_window->document(), m_window->client(), m_window->session(), m_window);
        dialog.form().setValues({{"steps", 60}, {"batch_rows", runsImages() ? 16 : 4}, {"row_length", runsImages() ? 0 : 64}, {"eval_every", 10}, {"eval_rows", runsImages() ? 200 : 16}, {"checkpoint_every", 30}, {"lr", 3e-4}});
        dialog.controlBox().setChecked(true);
        dialog.show();
        check(waitFor([&] { return dialog.isTimed(); }, 60), QStringLiteral("the dialog tells memory and time first"));
        picture(QStringLiteral("20-recover"), &dialog);
        QString folder;
        QObject::connect(&dialog, &RecoverDialog::runStarted, &dialog, [&](const QString& started) { folder = started; });
        dialog.startButton().click();
        if (!check(waitFor([&] { return !folder.isEmpty(); }, 30), QStringLiteral("the run folder is written"))) {
            note(dialog.problem());
            return false;
        }
        m_window->applyLayout(QStringLiteral("recover"));
        m_window->runsDock().showRun(folder);
        RunFollower* run = m_window->runs().findRun(folder);
        if (!check(run && waitFor([&] { return run->status().step > 3; }, 60), QStringLiteral("the run reports its steps"))) return false;
        m_window->runsDock().pauseOrResume();
        check(waitFor([&] { return run->status().state == "paused"; }, 30), QStringLiteral("the run pauses"));
        picture(QStringLiteral("30-run-paused"));
        m_window->runsDock().pauseOrResume();
        check(waitFor([&] { return run->status().state == "done"; }, 120), QStringLiteral("the run goes on and ends"));
        const auto control = [&] { return m_window->runs().findRun(run->controlFolder()); };
        check(waitFor([&] { return control() && control()->status().state == "done"; }, 120), QStringLiteral("the control ends"));
        settle(1200);
        const double share = m_window->runs().recovered(*run);
        note(QStringLiteral("perplexity uncut %1, cut %2, recovered %3; recovered like for like %4 %").arg(run->status().baselinePerplexity).arg(run->status().cutPerplexity).arg(run->status().bestPerplexity).arg(100 * share, 0, 'f', 0));
        if (runsImages()) note(QStringLiteral("accuracy uncut %1, cut %2, recovered %3").arg(run->status().baselineAccuracy).arg(run->status().cutAccuracy).arg(run->status().bestAccuracy));
        check(std::isfinite(share), QStringLiteral("run and control are compared"));
        m_window->runsDock().showRun(folder);
        settle(300);
        picture(QStringLiteral("31-runs"));
        m_window->applyLayout(QStringLiteral("cut"));
        return true;
    }

    /// Writes the recovered model through the dialog; it is opened again and compared there.
    void exportRecovered() {
        ExportDialog dialog(m_window->document(), m_window->client(), m_window->session(), m_window->runs(), m_window);
        dialog.show();
        if (!check(dialog.sourceBox().count() > 1, QStringLiteral("the export offers the recovered model"))) return;
        dialog.sourceBox().setCurrentIndex(1);
        dialog.goTo(ExportDialog::Write);
        dialog.folderLine().setText(m_window->document().workspace() + QStringLiteral("/exports/recovered"));
        dialog.startWriting();
        check(waitFor([&] { return dialog.step() != ExportDialog::Progress; }, 120) && dialog.step() == ExportDialog::Report, QStringLiteral("the export is written"));
        check(dialog.verified(), QStringLiteral("the export was opened again and compared"));
        picture(QStringLiteral("32-export-report"), &dialog);
        auto* compare = page<ComparePage>(QStringLiteral("compare"));
        compare->compareWith(m_window->document().workspace() + QStringLiteral("/exports/recovered"));
        check(waitFor([&] { return !compare->busy(); }, 60) && compare->tree().rowCount() > 0, QStringLiteral("the export is compared with the original"));
        bothSizes(QStringLiteral("33-compare"));
    }

    /// The demo's mixture of experts: what its routers do, and which experts can go.
    void mixture() {
        const QString path = QDir(demoCheckpoint()).absoluteFilePath(QStringLiteral("../mixtral"));
        if (!QDir(path).exists()) return note(QStringLiteral("there is no demo mixture beside the demo"));
        const std::string before = m_window->document().model() ? m_window->document().model()->fingerprint : std::string();
        m_window->openPath(path);
        Document& document = m_window->document();
        if (!check(waitFor([&] { return document.model() && document.model()->fingerprint != before; }, 60), QStringLiteral("the mixture opens"))) return;
        m_window->applyLayout(QStringLiteral("cut"));
        auto* experts = page<ExpertsPage>(QStringLiteral("experts"));
        settle(200);
        picture(QStringLiteral("40-experts-unmeasured"));
        auto data = document.data();
        data.file = demoText().toStdString();
        data.maxRows = 16;
        document.setData(data);
        experts->rerun();
        check(waitFor([&] { return !experts->map().empty() && !experts->busy(); }, 120), QStringLiteral("experts are measured"));
        document.selection().selectOne(expertRef(document.model()->blocks.front().index, 1));
        settle(300);
        check(document.selection().refs().size() == document.model()->blocks.size(), QStringLiteral("as many experts are proposed in every block"));
        bothSizes(QStringLiteral("41-experts"));
        document.dropSelection();
        settle(100);
        auto* router = page<RouterPage>(QStringLiteral("router"));
        router->rerun();
        check(waitFor([&] { return !router->busy(); }, 60) && !router->legend().isEmpty(), QStringLiteral("a text is routed"));
        bothSizes(QStringLiteral("42-router"));
    }

    template <class Kind> Kind* page(const QString& id) {
        m_window->showPage(id);
        return qobject_cast<Kind*>(m_window->currentPage());
    }

    /// The window as it is, and at the smallest size that is promised to show everything.
    void bothSizes(const QString& name) {
        picture(name);
        const QSize before = m_window->size();
        m_window->resize(1280, 800);
        settle(150);
        picture(name + QStringLiteral("-1280"));
        m_window->resize(before);
        settle(100);
    }

    void dialogs() {
        const auto show = [&](const QString& name, QDialog& dialog) {
            dialog.show();
            settle(1500);
            picture(name, &dialog);
            dialog.hide();
        };
        ExportDialog exports(m_window->document(), m_window->client(), m_window->session(), m_window->runs(), m_window);
        show(QStringLiteral("21-export-target"), exports);
        exports.goTo(ExportDialog::Shape);
        show(QStringLiteral("22-export-shape"), exports);
        exports.goTo(ExportDialog::Write);
        show(QStringLiteral("23-export-write"), exports);
        SettingsDialog settings(m_window->document(), m_window->client(), m_window->session(), {}, m_window);
        show(QStringLiteral("24-settings"), settings);
    }

    bool writeReport() {
        QFile file(m_folder + QStringLiteral("/report.txt"));
        return file.open(QIODevice::WriteOnly) && file.write(m_lines.join(QLatin1Char('\n')).toUtf8() + '\n') > 0;
    }

    QString m_folder, m_checkpoint, m_data;
    MainWindow* m_window = nullptr;
    QStringList m_lines;
    int m_failures = 0, m_pictures = 0;
};

}  // namespace

int runScreenshotTour(const QString& folder, const QString& checkpoint, const QString& data) {
    // Nothing of the tour may touch, or come from, the user's own workspaces and settings.
    QTemporaryDir place;
    qputenv("RESECT_WORKSPACES", place.path().toUtf8());
    QSettings::setDefaultFormat(QSettings::IniFormat);
    QSettings::setPath(QSettings::IniFormat, QSettings::UserScope, place.path());
    return Tour(QDir(folder).absolutePath(), checkpoint, data).run();
}

}  // namespace resect::ui
