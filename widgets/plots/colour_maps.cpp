#include "widgets/plots/colour_maps.h"

#include <QCoreApplication>
#include "widgets/plots/qcp.h"

#include <cmath>

namespace resect::ui {
namespace {
ColourMap s_sequential = ColourMap::Viridis;
}

ColourMap sequentialMap() noexcept { return s_sequential; }

void setSequentialMap(ColourMap map) {
    if (map == ColourMap::Diverging) map = ColourMap::Viridis;
    if (map == s_sequential) return;
    s_sequential = map;
    Q_EMIT ThemeNotifier::instance().changed();
}

QString title(ColourMap map) {
    switch (map) {
    case ColourMap::Viridis: return QCoreApplication::translate("ColourMap", "Viridis");
    case ColourMap::Cividis: return QCoreApplication::translate("ColourMap", "Cividis");
    case ColourMap::Grey: return QCoreApplication::translate("ColourMap", "Grey");
    case ColourMap::Diverging: break;
    }
    return QCoreApplication::translate("ColourMap", "Blue to orange");
}

QList<std::pair<double, QColor>> colourStops(ColourMap map, ThemeKind kind) {
    switch (map) {
    case ColourMap::Viridis:
        return {{0, "#440154"},    {0.125, "#472d7b"}, {0.25, "#3b528b"},  {0.375, "#2c728e"}, {0.5, "#21918c"},
                {0.625, "#28ae80"}, {0.75, "#5ec962"},  {0.875, "#addc30"}, {1, "#fde725"}};
    case ColourMap::Cividis: return {{0, "#00224e"}, {0.25, "#434e6c"}, {0.5, "#7d7c78"}, {0.75, "#bcaf6f"}, {1, "#fee838"}};
    case ColourMap::Grey: return {{0, "#1a1a1a"}, {0.5, "#808080"}, {1, "#f2f2f2"}};
    case ColourMap::Diverging: break;
    }
    return {{0, "#2166ac"}, {0.5, QLatin1String(kind == ThemeKind::Light ? "#f7f7f7" : "#303030")}, {1, "#b35806"}};
}

QCPColorGradient gradientOf(ColourMap map, const Theme& theme) {
    QCPColorGradient gradient;
    gradient.clearColorStops();
    for (const auto& [position, colour] : colourStops(map, theme.kind)) gradient.setColorStopAt(position, colour);
    gradient.setLevelCount(256);
    gradient.setColorInterpolation(QCPColorGradient::ciRGB);
    gradient.setNanHandling(QCPColorGradient::nhNanColor);
    gradient.setNanColor(theme.nan);
    return gradient;
}

QColor colourAt(ColourMap map, const Theme& theme, double position) {
    if (!std::isfinite(position)) return theme.nan;
    const auto stops = colourStops(map, theme.kind);
    position = std::clamp(position, 0.0, 1.0);
    for (qsizetype i = 1; i < stops.size(); ++i) {
        if (position > stops[i].first) continue;
        const auto& [low, first] = stops[i - 1];
        const auto& [high, second] = stops[i];
        const double t = (position - low) / (high - low);
        const auto mix = [t](int a, int b) { return int(std::lround(a + (b - a) * t)); };
        return QColor(mix(first.red(), second.red()), mix(first.green(), second.green()), mix(first.blue(), second.blue()));
    }
    return stops.back().second;
}

}  // namespace resect::ui
