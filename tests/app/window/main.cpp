#include "tests/app/window/fake_worker.h"

#include <QApplication>
#include <QLocale>
#include <QSettings>
#include <QStandardPaths>
#include <QStyleFactory>
#include <QTemporaryDir>

#include <gtest/gtest.h>

#include <cstring>

/// The tests and, started as a child process with "serve" or "run", the worker that they talk to.
int main(int argc, char** argv) {
    if (argc > 1 && std::strcmp(argv[1], "serve") == 0) return resect::test::runFakeWorker();
    if (argc > 2 && std::strcmp(argv[1], "run") == 0) return resect::test::runFakeRun(argv[2]);
    if (qEnvironmentVariableIsEmpty("QT_QPA_PLATFORM")) qputenv("QT_QPA_PLATFORM", "offscreen");
    QTemporaryDir settings;
    QSettings::setDefaultFormat(QSettings::IniFormat);
    QSettings::setPath(QSettings::IniFormat, QSettings::UserScope, settings.path());
    qputenv("RESECT_WORKSPACES", settings.filePath(QStringLiteral("workspaces")).toUtf8());
    QApplication::setApplicationName(QStringLiteral("resect-test"));
    QApplication::setOrganizationName(QStringLiteral("resect-test"));
    testing::InitGoogleTest(&argc, argv);
    QApplication application(argc, argv);
    QApplication::setStyle(QStyleFactory::create(QStringLiteral("Fusion")));
    QLocale::setDefault(QLocale(QLocale::English, QLocale::UnitedStates));
    return RUN_ALL_TESTS();
}
