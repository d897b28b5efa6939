#pragma once
#include "app/pages/dataset_source.h"
#include "app/pages/measure_starter.h"
#include "widgets/plots/block_strip.h"

#include <QWidget>

class QPushButton;
class QLabel;

namespace resect::ui {

/// The block strip with its data: shows the newest block, attention and MLP scores of the open model, and offers to measure them.
class BlockStripPanel final : public QWidget {
    Q_OBJECT
public:
    BlockStripPanel(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent = nullptr);
    BlockStrip& strip() const noexcept { return *m_strip; }
    MeasureStarter& starter() noexcept { return m_starter; }
    bool busy() const noexcept { return m_pending > 0; }
    /// Scrolls to the part.
    bool reveal(const ComponentRef& part) { return m_strip->reveal(part); }

Q_SIGNALS:
    void message(const resect::protocol::ProblemMessage& problem);
    void openRequested(const QString& pageId, const resect::ui::ComponentRef& ref);

protected:
    void resizeEvent(QResizeEvent* event) override;

private:
    void refresh();
    void updateButton();
    Document& m_document;
    DatasetSource m_source;
    MeasureStarter m_starter;
    BlockStrip* m_strip = nullptr;
    QPushButton* m_measure = nullptr;
    QHash<int, QString> m_shown;  ///< row -> file of the scores on show
    int m_pending = 0;
};

}  // namespace resect::ui
