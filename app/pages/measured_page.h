#pragma once
#include "app/pages/dataset_source.h"
#include "app/pages/measure_starter.h"
#include "app/pages/page.h"
#include "app/pages/part_sentences.h"

class QComboBox;
class QPushButton;

namespace resect::ui {

/// A dataset of a measurement.
struct MeasuredDataset {
    const protocol::MeasureMessage* measure = nullptr;
    const protocol::DatasetMessage* info = nullptr;
};

/// A page that shows datasets of one method: a choice of datasets, a Measure button, the hover card.
///
/// Derived pages say which datasets they can show, and draw the chosen one.
class MeasuredPage : public Page {
    Q_OBJECT
public:
    MeasuredPage(Document& document, SelectionModel& selection, WorkerClient& client, std::string method, QString wanted, QWidget* parent);
    void rerun() override { m_starter.start(); }
    bool busy() const override { return m_pending > 0; }
    MeasureStarter& starter() noexcept { return m_starter; }
    /// Newest measurement first; of datasets with the same name the newest only.
    std::vector<MeasuredDataset> datasets() const;
    /// The one chosen in the combo box; null members when there is none.
    MeasuredDataset chosen() const;

protected:
    virtual bool shows(const protocol::DatasetMessage& info) const = 0;
    /// Called with each new choice (and with none): fetch and draw.
    virtual void showChosen(const MeasuredDataset& dataset) = 0;
    virtual PlotCanvas& mainCanvas() const = 0;
    /// To be called at the end of the derived constructor.
    void begin();
    void fetchAll(const MeasuredDataset& dataset, std::function<void(const DatasetValues&)> done);
    virtual void updateNotice();

    DatasetSource m_source;
    MeasureStarter m_starter;
    QComboBox* m_choice = nullptr;
    QPushButton* m_state = nullptr;  ///< for the page's bar: partial results, so that nothing covers the data
    HoverCard* m_card = nullptr;
    int m_pending = 0;
    int m_generation = 0;  ///< of the choice; replies for an older one are dropped

private:
    void refill();
};

}  // namespace resect::ui
