#include "widgets/plots/colour_maps.h"
#include "widgets/plots/theme.h"

#include "widgets/plots/qcp.h"

#include <gtest/gtest.h>

#include <cmath>

namespace resect::ui {
namespace {

class EachTheme : public testing::TestWithParam<ThemeKind> {
protected:
    const Theme& theme() const { return themeOf(GetParam()); }
    double worst(const QColor& colour) const {
        return std::min(contrastRatio(colour, theme().background), contrastRatio(colour, theme().surface));
    }
};

TEST(Contrast, EqualsTheDefinitionAtTheEndsOfTheScale) {
    EXPECT_NEAR(contrastRatio(Qt::black, Qt::white), 21.0, 1e-9);
    EXPECT_NEAR(contrastRatio(Qt::white, Qt::white), 1.0, 1e-9);
    EXPECT_NEAR(contrastRatio(QColor("#777777"), Qt::white), 4.48, 0.01);  // the well-known grey that just misses 4.5
    EXPECT_NEAR(lightness(Qt::white), 100.0, 1e-6);
    EXPECT_NEAR(lightness(QColor("#777777")), 50.0, 0.2);
}

TEST_P(EachTheme, TextIsReadable) {
    for (const QColor& colour : {theme().text, theme().mutedText, theme().warning, theme().error, theme().good, theme().accent})
        EXPECT_GE(worst(colour), 4.5) << colour.name().toStdString();
    EXPECT_GE(contrastRatio(theme().accentText, theme().accent), 4.5);
}

TEST_P(EachTheme, MarksStandOut) {
    for (const QColor& colour : theme().series) EXPECT_GE(worst(colour), 3.0) << colour.name().toStdString();
    for (const QColor& colour : {theme().axis, theme().selection, theme().hover}) EXPECT_GE(worst(colour), 3.0) << colour.name().toStdString();
    EXPECT_GE(contrastRatio(theme().droppedHatch, theme().nan), 2.0);
}

TEST_P(EachTheme, SeriesColoursDiffer) {
    for (std::size_t i = 0; i < theme().series.size(); ++i)
        for (std::size_t j = i + 1; j < theme().series.size(); ++j) EXPECT_NE(theme().series[i], theme().series[j]);
}

TEST_P(EachTheme, PaletteTextIsReadable) {
    const QPalette palette = paletteOf(theme());
    EXPECT_GE(contrastRatio(palette.color(QPalette::WindowText), palette.color(QPalette::Window)), 4.5);
    EXPECT_GE(contrastRatio(palette.color(QPalette::Text), palette.color(QPalette::AlternateBase)), 4.5);
    EXPECT_GE(contrastRatio(palette.color(QPalette::ButtonText), palette.color(QPalette::Button)), 4.5);
    EXPECT_GE(contrastRatio(palette.color(QPalette::HighlightedText), palette.color(QPalette::Highlight)), 4.5);
    EXPECT_GE(contrastRatio(palette.color(QPalette::PlaceholderText), palette.color(QPalette::Base)), 4.5);
}

TEST_P(EachTheme, SequentialMapsRiseInLightnessAtEveryStep) {
    for (const ColourMap map : {ColourMap::Viridis, ColourMap::Cividis, ColourMap::Grey}) {
        double last = -1;
        for (int i = 0; i <= 64; ++i) {
            const double now = lightness(colourAt(map, theme(), i / 64.0));
            EXPECT_GT(now, last) << title(map).toStdString() << " at " << i << "/64";
            last = now;
        }
    }
}

TEST_P(EachTheme, DivergingMapIsCentred) {
    const auto stops = colourStops(ColourMap::Diverging, GetParam());
    ASSERT_EQ(stops.size(), 3);
    EXPECT_EQ(stops[1].first, 0.5);
    EXPECT_LT(contrastRatio(stops[1].second, theme().background), 1.5);
}

TEST_P(EachTheme, MapsGiveTheNanColourWithoutAValue) {
    EXPECT_EQ(colourAt(ColourMap::Viridis, theme(), std::nan("")), theme().nan);
    EXPECT_EQ(gradientOf(ColourMap::Viridis, theme()).nanColor(), theme().nan);
    EXPECT_EQ(gradientOf(ColourMap::Viridis, theme()).color(std::nan(""), QCPRange(0, 1)), theme().nan.rgba());
}

TEST_P(EachTheme, OwnInterpolationAgreesWithThePlotLibrary) {
    auto gradient = gradientOf(ColourMap::Cividis, theme());
    for (int i = 0; i <= 10; ++i) {
        const QColor theirs(gradient.color(i / 10.0, QCPRange(0, 1)));
        const QColor ours = colourAt(ColourMap::Cividis, theme(), i / 10.0);
        EXPECT_NEAR(theirs.red(), ours.red(), 3);
        EXPECT_NEAR(theirs.green(), ours.green(), 3);
        EXPECT_NEAR(theirs.blue(), ours.blue(), 3);
    }
}

INSTANTIATE_TEST_SUITE_P(Themes, EachTheme, testing::Values(ThemeKind::Light, ThemeKind::Dark),
                         [](const auto& info) { return info.param == ThemeKind::Light ? "Light" : "Dark"; });

TEST(ThemeNotifier, AnnouncesAndAppliesThePalette) {
    auto& notifier = ThemeNotifier::instance();
    int changes = 0;
    const auto connection = QObject::connect(&notifier, &ThemeNotifier::changed, [&] { ++changes; });
    notifier.setMode(ThemeMode::Dark);
    EXPECT_EQ(changes, 1);
    EXPECT_EQ(currentTheme().kind, ThemeKind::Dark);
    EXPECT_EQ(QGuiApplication::palette().color(QPalette::Window), darkTheme().surface);
    notifier.setMode(ThemeMode::System);
    EXPECT_NE(QGuiApplication::palette().color(QPalette::Window), QColor());
    notifier.setMode(ThemeMode::Light);
    EXPECT_EQ(QGuiApplication::palette().color(QPalette::Window), lightTheme().surface);
    QObject::disconnect(connection);
}

}  // namespace
}  // namespace resect::ui
