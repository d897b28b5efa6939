#pragma once
#include "app/pages/channel_plots.h"
#include "app/pages/measured_page.h"
#include "widgets/plots/dataset_plot.h"

#include <map>

class QSpinBox;
class QTableWidget;

namespace resect::ui {

/// Channels of the MLPs: the importance curve of a block with its width handle, all kept widths, histogram and outliers.
class ChannelsPage final : public MeasuredPage {
    Q_OBJECT
public:
    ChannelsPage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent = nullptr);
    QString title() const override { return tr("Channels"); }
    QString id() const override { return QStringLiteral("channels"); }
    bool reveal(const ComponentRef& part) override;
    ImportanceCurve& curve() const noexcept { return *m_curve; }
    WidthBars& widths() const noexcept { return *m_widths; }
    int block() const;
    void setBlock(int block);
    void setGrid(int grid);

protected:
    bool shows(const protocol::DatasetMessage& info) const override;
    void showChosen(const MeasuredDataset& dataset) override;
    PlotCanvas& mainCanvas() const override { return *m_curve; }

private:
    void listBlocks();
    void showBlock();
    void showRow(const std::vector<double>& importance);
    void showOutliers(const std::vector<double>& importance);
    void updateKept();
    void followSelection();
    /// Plans these widths once the importances of all the blocks are here.
    void setWidths(const std::vector<int>& blocks, int width);
    void planWidths(const std::vector<int>& blocks, int width);
    void withRow(int block, std::function<void()> then);
    int rowOfBlock(int block) const;

    ImportanceCurve* m_curve = nullptr;
    WidthBars* m_widths = nullptr;
    DatasetPlot* m_histogram = nullptr;
    QTableWidget* m_outliers = nullptr;
    QComboBox *m_block = nullptr, *m_grid = nullptr;
    std::map<int, std::vector<double>> m_rows;   ///< block -> importance of its channels, higher = keep
    protocol::DatasetMessage m_info;
    std::string m_file;
    int m_gesture = 0;
    int m_wanted = 0;  ///< the latest drag; late rows of an older one plan nothing
};

/// Indices from most to least important; values that are not finite come first, so that nothing unmeasured is dropped; ties keep their order.
std::vector<int> descendingOrder(const std::vector<double>& importance);

}  // namespace resect::ui
