#include "app/window/main_window.h"
#include "app/window/tour.h"
#include "widgets/plots/colour_maps.h"
#include "widgets/plots/theme.h"

#include <QApplication>
#include <QCommandLineParser>
#include <QFileInfo>
#include <QLocale>
#include <QSettings>
#include <QStyleFactory>
#include <QTimer>

#include <cstdio>

int main(int argc, char** argv) {
    using namespace resect::ui;
    // These need no display: without one the tour draws into memory.
    const bool display = !qEnvironmentVariableIsEmpty("DISPLAY") || !qEnvironmentVariableIsEmpty("WAYLAND_DISPLAY") || !qEnvironmentVariableIsEmpty("QT_QPA_PLATFORM");
    for (int i = 1; i < argc && !display; ++i)
        for (const char* option : {"--screenshot-tour", "--version", "-v", "--help", "-h"})
            if (QByteArray(argv[i]).startsWith(option)) qputenv("QT_QPA_PLATFORM", "offscreen");
    if (!display && qEnvironmentVariableIsEmpty("QT_QPA_PLATFORM")) {
        std::fprintf(stderr, "resect: there is no display. For pictures without one: resect --screenshot-tour DIR\n");
        return 2;
    }
    QApplication::setApplicationName(QStringLiteral("resect"));
    QApplication::setOrganizationName(QStringLiteral("resect"));
    QApplication::setApplicationDisplayName(QStringLiteral("Resect"));
    QApplication::setApplicationVersion(QStringLiteral(RESECT_VERSION));
    QApplication application(argc, argv);
    QApplication::setStyle(QStyleFactory::create(QStringLiteral("Fusion")));
    QLocale::setDefault(QLocale(QLocale::English, QLocale::UnitedStates));

    QCommandLineParser parser;
    parser.setApplicationDescription(QStringLiteral("Workbench for surgery on transformer checkpoints.\n\nExamples:\n  resect ~/models/llama\n  resect work.resect\n  resect --demo\n  resect --screenshot-tour pictures"));
    parser.addPositionalArgument(QStringLiteral("path"), QStringLiteral("A checkpoint folder, or a workspace NAME.resect."), QStringLiteral("[path]"));
    const QCommandLineOption demo(QStringLiteral("demo"), QStringLiteral("Open the demo model."));
    const QCommandLineOption theme(QStringLiteral("theme"), QStringLiteral("light, dark or system, for this start."), QStringLiteral("name"));
    const QCommandLineOption tour(QStringLiteral("screenshot-tour"), QStringLiteral("Open the path or the demo, go through every page in both themes, write pictures and report.txt into DIR, exit."), QStringLiteral("DIR"));
    const QCommandLineOption data(QStringLiteral("data"), QStringLiteral("What the tour measures and trains on: text, or images for an image model (default: the demo's text)."), QStringLiteral("PATH"));
    parser.addOptions({demo, theme, tour, data});
    parser.addHelpOption();
    parser.addVersionOption();
    parser.process(application);

    auto mode = static_cast<ThemeMode>(QSettings().value("theme", static_cast<int>(ThemeMode::System)).toInt());
    if (parser.isSet(theme)) {
        const QString name = parser.value(theme);
        if (name != QLatin1String("light") && name != QLatin1String("dark") && name != QLatin1String("system")) {
            std::fprintf(stderr, "resect: --theme takes light, dark or system, not \"%s\"\n", qPrintable(name));
            return 2;
        }
        mode = name == QLatin1String("light") ? ThemeMode::Light : name == QLatin1String("dark") ? ThemeMode::Dark : ThemeMode::System;
    }
    const QStringList paths = parser.positionalArguments();
    if (paths.size() > 1) {
        std::fprintf(stderr, "resect: one path at most\n");
        return 2;
    }
    if (parser.isSet(tour)) return runScreenshotTour(parser.value(tour), paths.value(0), parser.value(data));

    ThemeNotifier::instance().setMode(mode);
    setSequentialMap(static_cast<ColourMap>(QSettings().value("colourMap", 0).toInt()));
    MainWindow window;
    window.show();
    // The window is on screen before anything is started.
    QTimer::singleShot(0, &window, [&] {
        window.client().start();
        if (!paths.isEmpty()) window.openPath(paths.front());
        else if (parser.isSet(demo)) window.session().openDemo();
    });
    return QApplication::exec();
}
