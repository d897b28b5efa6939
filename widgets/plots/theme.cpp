#include "widgets/plots/theme.h"

#include <QApplication>
#include <QEvent>
#include "widgets/plots/qcp.h"

#include <algorithm>
#include <cmath>

namespace resect::ui {
namespace {

double linear(double channel) { return channel <= 0.04045 ? channel / 12.92 : std::pow((channel + 0.055) / 1.055, 2.4); }

double luminance(const QColor& colour) {
    return 0.2126 * linear(colour.redF()) + 0.7152 * linear(colour.greenF()) + 0.0722 * linear(colour.blueF());
}

/// The nearest colour of the same hue that reaches the contrast on both backgrounds.
QColor withContrast(const QColor& colour, const Theme& theme, double ratio) {
    const double towards = theme.kind == ThemeKind::Light ? 0.0 : 1.0;
    for (int step = 0; step <= 100; ++step) {
        const double t = step / 100.0;
        const QColor mixed = QColor::fromRgbF(float(colour.redF() * (1 - t) + towards * t), float(colour.greenF() * (1 - t) + towards * t),
                                              float(colour.blueF() * (1 - t) + towards * t));
        const QColor rounded(mixed.rgb());
        if (std::min(contrastRatio(rounded, theme.background), contrastRatio(rounded, theme.surface)) >= ratio) return rounded;
    }
    return theme.text;
}

Theme makeTheme(ThemeKind kind) {
    const bool light = kind == ThemeKind::Light;
    const auto pick = [light](const char* onLight, const char* onDark) { return QColor(QLatin1String(light ? onLight : onDark)); };
    Theme theme;
    theme.kind = kind;
    theme.background = pick("#ffffff", "#1b1e23");
    theme.surface = pick("#f4f5f7", "#25292f");
    theme.axis = pick("#6b7480", "#8b95a1");
    theme.grid = pick("#e4e7eb", "#31363d");
    theme.text = pick("#1a1d21", "#e8eaed");
    theme.mutedText = pick("#545c66", "#a9b1bb");
    theme.selection = theme.text;
    theme.halo = theme.background;
    theme.hover = pick("#b3147a", "#ff8ad1");
    theme.nan = pick("#dde0e4", "#3a4048");
    theme.droppedHatch = pick("#7a828c", "#8d96a1");
    theme.accent = pick("#1f5fbf", "#6ea8ff");
    theme.accentText = pick("#ffffff", "#10131a");
    theme.warning = pick("#8a5a00", "#f0b44c");
    theme.error = pick("#b3261e", "#ff8a80");
    theme.good = pick("#1b6e3c", "#6fd197");
    const std::array<const char*, 8> okabeIto = {"#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7",
                                                 light ? "#000000" : "#ffffff"};
    for (std::size_t i = 0; i < okabeIto.size(); ++i)
        theme.series[i] = withContrast(QColor(QLatin1String(okabeIto[i])), theme, 3.0);
    return theme;
}

void styleAxis(QCPAxis& axis, const Theme& theme, const QFont& font) {
    axis.setBasePen(QPen(theme.axis, 0));
    axis.setTickPen(QPen(theme.axis, 0));
    axis.setSubTickPen(QPen(theme.axis, 0));
    axis.setSelectedBasePen(QPen(theme.axis, 0));
    axis.setSelectedTickPen(QPen(theme.axis, 0));
    axis.setSelectedSubTickPen(QPen(theme.axis, 0));
    axis.setTickLabelColor(theme.mutedText);
    axis.setLabelColor(theme.text);
    axis.setTickLabelFont(font);
    axis.setLabelFont(font);
    axis.grid()->setPen(QPen(theme.grid, 0));
    axis.grid()->setSubGridPen(QPen(theme.grid, 0, Qt::DotLine));
    axis.grid()->setZeroLinePen(QPen(theme.grid, 0));
}

}  // namespace

double contrastRatio(const QColor& a, const QColor& b) {
    const double first = luminance(a) + 0.05, second = luminance(b) + 0.05;
    return std::max(first, second) / std::min(first, second);
}

double lightness(const QColor& colour) {
    const double y = luminance(colour);
    return y > 216.0 / 24389.0 ? 116.0 * std::cbrt(y) - 16.0 : y * 24389.0 / 27.0;
}

const Theme& lightTheme() {
    static const Theme theme = makeTheme(ThemeKind::Light);
    return theme;
}

const Theme& darkTheme() {
    static const Theme theme = makeTheme(ThemeKind::Dark);
    return theme;
}

const Theme& themeOf(ThemeKind kind) { return kind == ThemeKind::Light ? lightTheme() : darkTheme(); }

QPalette paletteOf(const Theme& theme) {
    const bool light = theme.kind == ThemeKind::Light;
    QPalette palette;
    palette.setColor(QPalette::Window, theme.surface);
    palette.setColor(QPalette::WindowText, theme.text);
    palette.setColor(QPalette::Base, theme.background);
    palette.setColor(QPalette::AlternateBase, theme.surface);
    palette.setColor(QPalette::ToolTipBase, theme.surface);
    palette.setColor(QPalette::ToolTipText, theme.text);
    palette.setColor(QPalette::PlaceholderText, theme.mutedText);
    palette.setColor(QPalette::Text, theme.text);
    palette.setColor(QPalette::Button, light ? QColor("#eceef1") : QColor("#2f343b"));
    palette.setColor(QPalette::ButtonText, theme.text);
    palette.setColor(QPalette::BrightText, theme.error);
    palette.setColor(QPalette::Link, theme.accent);
    palette.setColor(QPalette::LinkVisited, theme.accent);
    palette.setColor(QPalette::Highlight, theme.accent);
    palette.setColor(QPalette::HighlightedText, theme.accentText);
    palette.setColor(QPalette::Light, light ? QColor("#ffffff") : QColor("#434a53"));
    palette.setColor(QPalette::Midlight, light ? QColor("#f8f9fa") : QColor("#3a4048"));
    palette.setColor(QPalette::Mid, light ? QColor("#c3c8ce") : QColor("#191c20"));
    palette.setColor(QPalette::Dark, light ? QColor("#a4abb3") : QColor("#14161a"));
    palette.setColor(QPalette::Shadow, light ? QColor("#767d85") : QColor("#000000"));
    const QColor disabled = light ? QColor("#8b929a") : QColor("#767e88");
    for (const auto role : {QPalette::WindowText, QPalette::Text, QPalette::ButtonText, QPalette::HighlightedText})
        palette.setColor(QPalette::Disabled, role, disabled);
    palette.setColor(QPalette::Disabled, QPalette::Highlight, theme.nan);
    return palette;
}

void applyTheme(QCustomPlot& plot, const Theme& theme) {
    plot.setBackground(QBrush(theme.background));
    const QFont font = plot.font();
    const auto rects = plot.axisRects();
    for (QCPAxisRect* rect : rects) {
        const auto axes = rect->axes();
        for (QCPAxis* axis : axes) styleAxis(*axis, theme, font);
    }
    for (int i = 0; i < plot.plotLayout()->elementCount(); ++i)
        if (auto* scale = qobject_cast<QCPColorScale*>(plot.plotLayout()->elementAt(i))) {
            styleAxis(*scale->axis(), theme, font);
            const auto axes = scale->findChildren<QCPAxis*>();
            for (QCPAxis* axis : axes) styleAxis(*axis, theme, font);
        }
    const auto legends = plot.findChildren<QCPLegend*>();
    for (QCPLegend* legend : legends) {
        legend->setBrush(theme.background);
        legend->setBorderPen(Qt::NoPen);
        legend->setTextColor(theme.text);
        legend->setFont(font);
    }
    if (plot.selectionRect()) {
        plot.selectionRect()->setPen(QPen(theme.selection, 0, Qt::DashLine));
        plot.selectionRect()->setBrush(Qt::NoBrush);
    }
}

ThemeNotifier::ThemeNotifier() : m_theme(&lightTheme()) {}

ThemeNotifier& ThemeNotifier::instance() {
    static ThemeNotifier notifier;
    return notifier;
}

void ThemeNotifier::setMode(ThemeMode mode) {
    m_mode = mode;
    if (qApp) qApp->installEventFilter(this);  // a repeated installation only moves it to the front
    apply();
}

bool ThemeNotifier::eventFilter(QObject* watched, QEvent* event) {
    const bool paletteChanged = event->type() == QEvent::ApplicationPaletteChange && watched == qApp;
    if (paletteChanged && m_mode == ThemeMode::System && !m_applying) QMetaObject::invokeMethod(this, [this] { apply(); }, Qt::QueuedConnection);
    return false;
}

void ThemeNotifier::apply() {
    if (!qApp) return;
    m_applying = true;
    ThemeKind kind = m_mode == ThemeMode::Dark ? ThemeKind::Dark : ThemeKind::Light;
    if (m_mode == ThemeMode::System) {
        QApplication::setPalette(QPalette());  // back to the desktop's own, to see how light it is
        kind = lightness(QGuiApplication::palette().color(QPalette::Window)) < 50 ? ThemeKind::Dark : ThemeKind::Light;
    }
    m_theme = &themeOf(kind);
    QApplication::setPalette(paletteOf(*m_theme));
    m_applying = false;
    Q_EMIT changed();
}

}  // namespace resect::ui
