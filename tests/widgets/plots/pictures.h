#pragma once
#include "widgets/plots/theme.h"

#include <QApplication>
#include <QDir>
#include <QPixmap>
#include <QWidget>

#include <string>

namespace resect::ui::test {

/// Saves the widget at a size in both themes to RESECT_TEST_PICTURES/NAME-WIDTH-theme.png, for eyes to look at. Does nothing
/// when the variable is not set.
inline void savePictures(QWidget& widget, const std::string& name, QSize size) {
    const QString folder = qEnvironmentVariable("RESECT_TEST_PICTURES");
    if (folder.isEmpty()) return;
    QDir().mkpath(folder);
    widget.resize(size);
    for (const ThemeMode mode : {ThemeMode::Light, ThemeMode::Dark}) {
        ThemeNotifier::instance().setMode(mode);
        widget.show();
        for (int i = 0; i < 4; ++i) QApplication::processEvents();
        const QString theme = QLatin1String(mode == ThemeMode::Light ? "light" : "dark");
        widget.grab().save(QStringLiteral("%1/%2-%3-%4.png").arg(folder, QString::fromStdString(name)).arg(size.width()).arg(theme));
    }
    ThemeNotifier::instance().setMode(ThemeMode::Light);
}

}  // namespace resect::ui::test
