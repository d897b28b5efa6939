#pragma once
#include "widgets/plots/dataset_plot.h"
#include "widgets/plots/heatmap_view.h"

#include <QWidget>

class QLabel;
class QStackedWidget;

namespace resect::ui {

/// Draws any self-describing dataset: its title and help, and the view that its kind asks for. No method needs a view of its own.
class DatasetView final : public QWidget {
    Q_OBJECT
public:
    explicit DatasetView(Document& document, QWidget* parent = nullptr);
    void show(const protocol::DatasetMessage& info, const std::vector<double>& values, const std::vector<double>& errors);
    void clear(const QString& why);
    PlotCanvas& canvas() const;

private:
    QLabel *m_title, *m_help;
    QStackedWidget* m_stack;
    HeatmapView* m_heatmap;
    DatasetPlot* m_plot;
};

/// A dataset can be drawn when it has one or two dimensions; bigger ones need their own view.
bool drawable(const protocol::DatasetMessage& info);

}  // namespace resect::ui
