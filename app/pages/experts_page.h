#pragma once
#include "app/pages/equal_experts.h"
#include "app/pages/measured_page.h"
#include "widgets/plots/cell_matrix.h"
#include "widgets/plots/dataset_plot.h"

class QCheckBox;
class QLabel;
class QPushButton;

namespace resect::ui {

/// Experts x experts of one block; pairs of which both are selected are framed.
class PairMatrix final : public CellMatrix {
    Q_OBJECT
public:
    explicit PairMatrix(Document& document, QWidget* parent = nullptr) : CellMatrix(document, parent) {}
    void setBlock(int block) { m_block = block; }

protected:
    CellMask selectedCells() const override;

private:
    int m_block = -1;
};

/// How the routers of a mixture use its experts: a map of blocks x experts, and for one block which of them go together.
class ExpertsPage final : public MeasuredPage {
    Q_OBJECT
public:
    ExpertsPage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent = nullptr);
    QString title() const override { return tr("Experts"); }
    QString id() const override { return QStringLiteral("experts"); }
    bool reveal(const ComponentRef& part) override;
    void zoom(double factor) override;
    void rerun() override;
    HeatmapView& map() const noexcept { return *m_map; }
    PairMatrix& pairs() const noexcept { return *m_pairs; }
    DatasetPlot& load() const noexcept { return *m_load; }
    QCheckBox& equalCounts() const noexcept { return *m_equal; }
    QPushButton& dropButton() const noexcept { return *m_drop; }
    int block() const;
    void setBlock(int block);

protected:
    bool shows(const protocol::DatasetMessage& info) const override;
    void showChosen(const MeasuredDataset& dataset) override;
    PlotCanvas& mainCanvas() const override { return *m_map; }
    void updateNotice() override;

private:
    void build();
    bool modelHasExperts() const;
    void listBlocks();
    void showBlock();
    void showPairs();
    void showLoad();
    void followSelection();
    void extendSelection();
    void refreshActions();
    void explain();
    void explainPair(int expert, int other);
    RefSet selectedExperts() const;
    const protocol::DatasetMessage* findDataset(const std::string& name, const protocol::MeasureMessage** measure) const;

    HeatmapView* m_map = nullptr;
    PairMatrix* m_pairs = nullptr;
    DatasetPlot* m_load = nullptr;
    QComboBox *m_block = nullptr, *m_pairChoice = nullptr;
    QCheckBox* m_equal = nullptr;
    QPushButton* m_drop = nullptr;
    QLabel *m_badge = nullptr, *m_choiceLabel = nullptr;
    QWidget* m_below = nullptr;
    EqualCountLock m_lock;
    int m_blockGeneration = 0;
};

}  // namespace resect::ui
