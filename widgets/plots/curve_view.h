#pragma once
#include "core/protocol/run_files.h"
#include "widgets/plots/plot_canvas.h"

#include <QHash>
#include <QSet>
#include <QWidget>

#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <vector>

class QComboBox;
class QSpinBox;
class QToolButton;

namespace resect::ui {

enum class CurveX { Steps, Tokens, Time };
enum class CurveFollow { All, Latest, Free };  ///< Free: the user has zoomed or panned

struct CurvePoint {
    double step = 0, tokens = 0, seconds = 0;
    double value = std::numeric_limits<double>::quiet_NaN();  ///< NaN = a gap with a tick on the axis, never interpolated
};

struct CurvePanelInfo {
    QString id, title;
    double clipLow = -std::numeric_limits<double>::infinity(), clipHigh = std::numeric_limits<double>::infinity();  ///< of the view only
    bool logarithmic = false;
    bool collapsed = false;
    double height = 1;  ///< relative to the other panels
};

struct CurveSeriesInfo {
    QString id, title, panel;
    int colour = 0;                        ///< index into Theme::series
    Qt::PenStyle pen = Qt::SolidLine;
    bool smoothed = true;                  ///< false: drawn as it is, with a mark at each point (evaluations)
    QString group;                         ///< series of one run are shown, hidden and listed together; "" = the title
};

struct CurveEvent {
    QString group;
    double step = 0, tokens = 0, seconds = 0;
    QString kind, text;                    ///< kind as in MetricsRow::event: checkpoint, pause, resume, nonfinite, restart, stop
};

/// The plot of a CurveView: stacked panels that share one x axis.
class CurveCanvas;

/// Curves over training steps, tokens or time in stacked panels that share the x axis, for series that still grow.
///
/// Each smoothed series is drawn over the thin minimum-maximum envelope of its raw values (or over the raw values themselves).
/// Points of a series must come in ascending step order. Keys while the plot has the focus: R raw, L logarithmic, F follow.
class CurveView : public QWidget {
    Q_OBJECT
public:
    explicit CurveView(QWidget* parent = nullptr);
    ~CurveView() override;

    void addPanel(const CurvePanelInfo& panel);
    void addSeries(const CurveSeriesInfo& series);
    void removeGroup(const QString& group);
    void setGroupVisible(const QString& group, bool visible);
    void clear();  ///< series, references and events; the panels stay

    /// Appends and asks for a redraw at most ten times a second.
    void appendRows(const QString& series, std::span<const CurvePoint> points);
    void addEvent(const CurveEvent& event);
    /// A horizontal line with its label at the right edge. Setting the same id again moves it; NaN removes it.
    void setReference(const QString& panel, const QString& id, double value, const QString& label, Qt::PenStyle pen = Qt::SolidLine);

    void setXAxis(CurveX x);
    void setRawShown(bool shown);
    void setLogarithmic(bool logarithmic);  ///< panels whose `logarithmic` is set follow it
    void setHalfLife(int steps);            ///< 0 = no smoothing
    void setFollow(CurveFollow follow);
    void setTokenWord(const QString& plural);   ///< what is counted beside steps: "tokens", "images"
    void setPanelCollapsed(const QString& panel, bool collapsed);
    CurveX xAxis() const;
    CurveFollow follow() const;
    bool rawShown() const;
    bool logarithmic() const;

    /// Fills the plot at once instead of waiting for the timer.
    void flush();
    PlotCanvas& canvas() const;
    /// Of one panel, for tests and read-outs: x, value pairs as drawn for a series (raw).
    std::size_t pointCount(const QString& series) const;

Q_SIGNALS:
    void groupHovered(const QString& group);

private:
    friend class CurveCanvas;
    void buildToolBar();
    void scheduleUpdate();
    std::unique_ptr<QTimer> m_timer;
    CurveCanvas* m_canvas = nullptr;
    QComboBox* m_xAxis = nullptr;
    QSpinBox* m_halfLife = nullptr;
    QToolButton *m_raw = nullptr, *m_log = nullptr, *m_follow = nullptr, *m_panels = nullptr;
};

/// A CurveView of recovery runs: panels for loss and perplexity (of images accuracy), recovered share, KL divergence, and the rates.
class RunCurveView final : public CurveView {
    Q_OBJECT
public:
    explicit RunCurveView(QWidget* parent = nullptr);
    /// `colour` -1 takes the next one; the line style differs too. A known id is kept.
    void addRun(const QString& id, const QString& title, int colour = -1);
    void removeRun(const QString& id);
    int colourOf(const QString& id) const { return m_runs.value(id, -1); }   ///< Theme::seriesColour of its curves, -1 = unknown run
    void appendRun(const QString& id, std::span<const protocol::MetricsRow> rows);
    /// Reference lines at the perplexity (accuracy) of the uncut model and right after the cut; 0 or NaN = not known yet.
    /// They are drawn for one run at a time, the one in focus.
    void setRunStatus(const QString& id, const protocol::RunStatus& status);
    void setFocusRun(const QString& id);

private:
    void drawReferences();

    void noteImages(const QString& id);

    QHash<QString, int> m_runs;
    QSet<QString> m_images;   ///< of these, those that train on images
    QString m_focus;
    protocol::RunStatus m_focusStatus;
};

}  // namespace resect::ui
