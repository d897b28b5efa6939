#pragma once
#include <QColor>
#include <QObject>
#include <QPalette>

#include <array>

class QCustomPlot;

namespace resect::ui {

enum class ThemeKind { Light, Dark };
enum class ThemeMode { System, Light, Dark };

/// Every colour that the window and its plots use. Text has a contrast of at least 4.5:1 and marks of at least 3:1 against
/// both `background` and `surface` (WCAG 2.1, 1.4.3 and 1.4.11); the series are the Okabe-Ito colours, darkened or lightened
/// as little as that needs.
struct Theme {
    ThemeKind kind = ThemeKind::Light;
    QColor background;     ///< behind data
    QColor surface;        ///< cards, tool bars, window
    QColor axis, grid, text, mutedText;
    QColor selection;      ///< frame of what is selected: 2 px, with a 1 px halo in `halo`
    QColor halo;
    QColor hover;          ///< 1 px outline of what the mouse is over, in all views
    QColor nan;            ///< no value
    QColor droppedHatch;   ///< lines of the hatch over what the plan drops
    QColor accent, accentText;
    QColor warning, error, good;
    std::array<QColor, 8> series;  ///< orange, sky blue, green, yellow, blue, vermillion, purple, black or white

    const QColor& seriesColour(int index) const { return series[static_cast<std::size_t>(index) % series.size()]; }
};

const Theme& lightTheme();
const Theme& darkTheme();
const Theme& themeOf(ThemeKind kind);

/// A palette for the Fusion style that agrees with the theme.
QPalette paletteOf(const Theme& theme);

/// Background, axes, ticks, grids and legends of the plot; plottables, items and overlays are styled by whoever made them.
/// Takes the fonts from the plot's widget font. Does not replot.
void applyTheme(QCustomPlot& plot, const Theme& theme);

/// WCAG contrast ratio of two opaque colours, 1..21.
double contrastRatio(const QColor& a, const QColor& b);
/// CIE L*, 0..100.
double lightness(const QColor& colour);

/// The theme in force. One per process, used on the GUI thread only.
class ThemeNotifier final : public QObject {
    Q_OBJECT
public:
    static ThemeNotifier& instance();
    const Theme& theme() const noexcept { return *m_theme; }
    ThemeMode mode() const noexcept { return m_mode; }
    /// Sets the application's palette and announces the change. System follows the desktop, also when it changes later.
    void setMode(ThemeMode mode);

Q_SIGNALS:
    void changed();

protected:
    bool eventFilter(QObject* watched, QEvent* event) override;

private:
    friend class ThemeOverride;
    ThemeNotifier();
    void apply();
    const Theme* m_theme;
    ThemeMode m_mode = ThemeMode::Light;
    bool m_applying = false;
};

/// Makes another theme the current one for as long as it lives, without telling anybody: for pictures that are written to files.
class ThemeOverride {
public:
    explicit ThemeOverride(const Theme& theme) : m_before(ThemeNotifier::instance().m_theme) { ThemeNotifier::instance().m_theme = &theme; }
    ~ThemeOverride() { ThemeNotifier::instance().m_theme = m_before; }
    ThemeOverride(const ThemeOverride&) = delete;
    ThemeOverride& operator=(const ThemeOverride&) = delete;

private:
    const Theme* m_before;
};

/// The theme in force.
inline const Theme& currentTheme() { return ThemeNotifier::instance().theme(); }

}  // namespace resect::ui
