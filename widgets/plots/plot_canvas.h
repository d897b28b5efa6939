#pragma once
#include "widgets/plots/plot_table.h"
#include "widgets/plots/theme.h"

#include "widgets/plots/qcp.h"

class QLabel;
class QPushButton;

namespace resect::ui {

/// What a canvas says over (or instead of) its data.
struct CanvasNotice {
    enum Kind { None, Empty, Loading, Partial, Error };
    Kind kind = None;
    QString text;
    QString action;  ///< caption of the button, "" = none
};

/// The base of all plots: theme, device pixel ratio, overlay layers, wheel and middle-button navigation, notices, copying
/// and saving the picture and the values behind it.
///
/// Two own buffered layers lie above the data, "selection" and "hover", so that neither repaints data.
class PlotCanvas : public QCustomPlot {
    Q_OBJECT
public:
    explicit PlotCanvas(QWidget* parent = nullptr);

    void setNotice(const CanvasNotice& notice);
    const CanvasNotice& notice() const noexcept { return m_notice; }

    /// The values on show, for the table twin, the clipboard and CSV.
    virtual PlotTable table() const { return {}; }

    /// The whole plot as it is now, but in the light theme; `scale` device pixels per pixel.
    QImage picture(double scale = 2.0);
    void copyPicture();
    void copyValues() const;
    /// By suffix: .png (twice the size), .svg, .pdf (vectors), .csv (values). False with `error` set when it cannot be written.
    bool savePicture(const QString& path, QString* error);
    /// Asks for a name, then savePicture.
    void askAndSave();

    QCPLayer* selectionLayer() const { return layer(QStringLiteral("selection")); }
    QCPLayer* hoverLayer() const { return layer(QStringLiteral("hover")); }
    /// Queued, so that several changes in one turn of the event loop are drawn once.
    void redraw() { replot(rpQueuedReplot); }

public Q_SLOTS:
    /// Shows everything. The base rescales all axes to their plottables.
    virtual void resetZoom();

Q_SIGNALS:
    void noticeActionTriggered();
    /// Sent before the context menu opens: add what applies to the place.
    void contextMenuRequested(QMenu* menu, QPoint position);
    void tableRequested();

protected:
    /// Colours of everything that applyTheme does not know. Called on construction of the derived class by itself and on each change.
    virtual void restyle(const Theme& theme);
    void contextMenuEvent(QContextMenuEvent* event) override;
    void resizeEvent(QResizeEvent* event) override;
    void changeEvent(QEvent* event) override;
    void showEvent(QShowEvent* event) override;
    void wheelEvent(QWheelEvent* event) override;
    void mousePressEvent(QMouseEvent* event) override;
    void mouseMoveEvent(QMouseEvent* event) override;
    void mouseReleaseEvent(QMouseEvent* event) override;
    /// Axes that wheel and middle drag move; by default those of the axis rect under the mouse.
    virtual QList<QCPAxis*> navigableAxes(QPointF position) const;

private:
    void placeNotice();
    void styleNotice(const Theme& theme);
    CanvasNotice m_notice;
    QWidget* m_noticeBox = nullptr;
    QLabel* m_noticeText = nullptr;
    QPushButton* m_noticeAction = nullptr;
    QPointF m_panFrom;
    bool m_panning = false;
    bool m_followsScreen = false;
};

}  // namespace resect::ui
