#pragma once
#include "widgets/plots/part_canvas.h"

#include <array>

namespace resect::ui {

/// The block strip: one column per block; attention score, MLP score, width kept and redundancy to the next block, over one x axis.
/// Always in view: the minimap and navigator of all other views.
///
/// Each score row has a threshold handle: everything on its removable side is selected, live, as one history step.
class BlockStrip final : public PartCanvas {
    Q_OBJECT
public:
    enum Row { Attention, Mlp, Width, Redundancy, RowCount };

    explicit BlockStrip(Document& document, QWidget* parent = nullptr);

    /// One value per block of the model, NaN where none. `info.higher` says which side of the threshold is removable.
    void setScores(Row row, const protocol::DatasetMessage& info, std::vector<double> values, std::vector<double> errors = {});
    /// Without scores the attention and MLP rows show shares of parameters, the redundancy row nothing.
    void clearScores(Row row);
    bool hasScores(Row row) const { return m_tracks[std::size_t(row)].measured; }

    /// The handle of a score row. NaN = at rest (selects nothing).
    double threshold(Row row) const { return m_tracks[std::size_t(row)].threshold; }
    void setThreshold(Row row, double value);
    /// One step of the keyboard: a hundredth of the axis, with `factor` 10 a tenth.
    void stepThreshold(int direction, int factor = 1);
    /// Parts of the row on the removable side of a value.
    std::vector<ComponentRef> belowThreshold(Row row, double value) const;

    int blocks() const { return int(m_ids.size()); }
    std::optional<Row> rowAt(QPointF position) const;
    QRectF columnRect(Row row, int position) const;
    QPointF handlePosition(Row row) const;  ///< where to grab the handle of a row

    std::optional<ComponentRef> partAt(QPointF position) const override;
    std::vector<ComponentRef> partsIn(const QRectF& rectangle) const override;
    std::optional<ComponentRef> neighbour(const std::optional<ComponentRef>& from, int dx, int dy) const override;
    bool reveal(const ComponentRef& part) override;
    PlotTable table() const override;
    std::optional<ComponentRef> partOfTableCell(int row, int column) const override { return partOf(Row(column), row); }
    void resetZoom() override;
    QSize minimumSizeHint() const override;
    QSize sizeHint() const override;
    /// The sentence of the hover card.
    QString sentence(const ComponentRef& part) const;

Q_SIGNALS:
    void thresholdMoved(resect::ui::BlockStrip::Row row, double value);

protected:
    void drawSelection(QCPPainter& painter) const override;
    void drawHover(QCPPainter& painter) const override;
    void planChanged() override;
    void restyle(const Theme& theme) override;
    QList<QCPAxis*> navigableAxes(QPointF position) const override;
    bool pressHandle(QMouseEvent& event) override;
    void moveHandle(QMouseEvent& event) override;
    void releaseHandle(QMouseEvent& event) override;
    void mouseMoveEvent(QMouseEvent* event) override;
    void keyPressEvent(QKeyEvent* event) override;
    void resizeEvent(QResizeEvent* event) override;

private:
    struct Track {
        QCPAxisRect* rect = nullptr;
        QCPBars* bars = nullptr;
        QCPErrorBars* intervals = nullptr;
        QString label;
        protocol::DatasetMessage info;
        std::vector<double> values, errors;
        double threshold = std::numeric_limits<double>::quiet_NaN();
        bool measured = false;
        bool removableAbove = false, logarithmic = false;
    };
    Track& track(Row row) { return m_tracks[std::size_t(row)]; }
    const Track& track(Row row) const { return m_tracks[std::size_t(row)]; }
    void setModel();
    void showParameterShares(Row row);
    void fillBars(Track& track);
    void fillRedundancy();
    void layOut();
    int positionOf(int block) const;
    std::optional<int> positionAt(QPointF point) const;
    ComponentRef partOf(Row row, int position) const;
    void selectBelow(Row row);
    void drawThreshold(QCPPainter& painter, Row row) const;

    std::array<Track, RowCount> m_tracks;
    QCPColorMap* m_redundancy = nullptr;
    std::vector<int> m_ids;
    std::optional<Row> m_dragged;
    Row m_lastRow = Attention;
};

}  // namespace resect::ui
