#pragma once
#include "widgets/plots/theme.h"

#include <QList>
#include <QString>
#include <utility>

class QCPColorGradient;

namespace resect::ui {

enum class ColourMap { Viridis, Cividis, Grey, Diverging };

QString title(ColourMap map);
/// The sequential map of every picture, as the user chose it; one per process.
ColourMap sequentialMap() noexcept;
/// Everything that is drawn follows: announced as a change of theme. Diverging is taken for Viridis.
void setSequentialMap(ColourMap map);
/// Position 0..1 and colour. L* rises from stop to stop in the sequential maps; the diverging one is centred at 0.5.
QList<std::pair<double, QColor>> colourStops(ColourMap map, ThemeKind kind);
/// For QCPColorMap: cells without a value take the theme's `nan` colour.
QCPColorGradient gradientOf(ColourMap map, const Theme& theme);
/// The colour of a position 0..1, interpolated in RGB as QCPColorGradient does; `theme.nan` when the position is not finite.
QColor colourAt(ColourMap map, const Theme& theme, double position);

}  // namespace resect::ui
