#pragma once
#include "widgets/plots/curve_view.h"

#include <map>

namespace resect::ui {

class CurveMarks;

class CurveCanvas final : public PlotCanvas {
    Q_OBJECT
public:
    struct Panel {
        CurvePanelInfo info;
        QCPAxisRect* rect = nullptr;
        bool shown = false;  ///< in the layout now
    };
    struct Series {
        CurveSeriesInfo info;
        std::vector<double> steps, tokens, seconds, values;
        QCPGraph *main = nullptr, *low = nullptr, *high = nullptr;  ///< low also carries the raw values when those are shown
        bool visible = true;
        bool dirty = true;
    };
    struct Reference {
        QString panel;
        double value = 0;
        QCPItemStraightLine* line = nullptr;
        QString label;
    };

    explicit CurveCanvas(QWidget* parent = nullptr);
    ~CurveCanvas() override;

    void addPanel(const CurvePanelInfo& info);
    void addSeries(const CurveSeriesInfo& info);
    void removeGroup(const QString& group);
    void setReference(const QString& panel, const QString& id, double value, const QString& label, Qt::PenStyle pen);
    /// Brings graphs, ranges and layout up to date with the data and asks for a queued replot.
    void update();

    PlotTable table() const override;
    void resetZoom() override;
    void markAllDirty();
    QCPAxis* xAxisOf(const Panel& panel) const { return panel.rect->axis(QCPAxis::atBottom); }
    Panel* findPanel(const QString& id);
    Series* findSeries(const QString& id);
    const std::vector<double>& xOf(const Series& series) const;
    double xOf(const CurveEvent& event) const;
    QString xText(double x) const;

    std::vector<std::unique_ptr<Panel>> panels;
    std::vector<std::unique_ptr<Series>> series;
    std::map<QString, Reference> references;
    std::vector<CurveEvent> events;
    CurveX x = CurveX::Steps;
    QString tokenWord = tr("tokens");   ///< what is counted beside steps
    CurveFollow follow = CurveFollow::All;
    bool raw = false;
    bool logarithmic = false;
    int halfLife = 20;
    double hoverX = std::numeric_limits<double>::quiet_NaN();

Q_SIGNALS:
    void zoomed();
    void groupHovered(const QString& group);

protected:
    void restyle(const Theme& theme) override;
    QList<QCPAxis*> navigableAxes(QPointF position) const override;
    void wheelEvent(QWheelEvent* event) override;
    void mouseMoveEvent(QMouseEvent* event) override;
    void leaveEvent(QEvent* event) override;
    void resizeEvent(QResizeEvent* event) override;

private:
    void styleSeries(Series& series, const Theme& theme);
    void layOut();
    void fill(Series& series);
    void updateXRange();
    void updateYRange(Panel& panel);
    QString hoverText(double x) const;

    QCPMarginGroup* m_margins = nullptr;
    CurveMarks *m_marks = nullptr, *m_crosshair = nullptr;
    bool m_syncing = false;
};

/// Headings, legend, reference labels, event and NaN marks of the panels; or the crosshair through all of them.
class CurveMarks final : public QCPLayerable {
public:
    enum Kind { Events, Crosshair };
    CurveMarks(CurveCanvas* canvas, Kind kind, const QString& layer) : QCPLayerable(canvas, layer), m_canvas(canvas), m_kind(kind) {}

protected:
    void applyDefaultAntialiasingHint(QCPPainter* painter) const override { painter->setAntialiasing(m_kind == Events); }
    void draw(QCPPainter* painter) override;

private:
    void drawCrosshair(QCPPainter* painter) const;
    void drawNaNTicks(QCPPainter* painter, const CurveCanvas::Panel& panel) const;
    void drawEvents(QCPPainter* painter, const CurveCanvas::Panel& panel) const;
    void drawHeading(QCPPainter* painter, const CurveCanvas::Panel& panel, bool first) const;
    void drawReferenceLabels(QCPPainter* painter, const CurveCanvas::Panel& panel) const;
    CurveCanvas* m_canvas;
    Kind m_kind;
};

}  // namespace resect::ui
