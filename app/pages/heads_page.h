#pragma once
#include "app/pages/measured_page.h"
#include "widgets/plots/heatmap_view.h"

#include <QTimer>

class QLabel;
class QLineEdit;

namespace resect::ui {

/// Layers x heads with key/value groups: Shift+click takes the whole group.
class HeadsMap final : public HeatmapView {
    Q_OBJECT
public:
    explicit HeadsMap(Document& document, QWidget* parent = nullptr);
    /// Group borders and warnings from the model, the selection and the plan.
    void updateGroups();
    /// What the cut of the selection (on top of the plan) would leave unequal in a block; "" when it is legal.
    QString unequalGroups(const protocol::BlockMessage& block) const;

protected:
    void clickPart(const ComponentRef& part, Qt::KeyboardModifiers modifiers) override;
};

/// A small picture of one head's attention weights: row = the token that attends, column = what it attends to.
class AttentionTile final : public QWidget {
    Q_OBJECT
public:
    explicit AttentionTile(QWidget* parent = nullptr);
    void setWeights(QStringList tokens, std::vector<double> weights);   ///< tokens x tokens, row-major
    void setMessage(const QString& text);
    bool hasHeightForWidth() const override { return true; }
    int heightForWidth(int width) const override { return width; }
    QSize sizeHint() const override;

protected:
    void paintEvent(QPaintEvent* event) override;
    void mouseMoveEvent(QMouseEvent* event) override;

private:
    QRect square() const;
    QStringList m_tokens;
    std::vector<double> m_weights;
    QImage m_image;
    QString m_message;
};

class HeadsPage final : public MeasuredPage {
    Q_OBJECT
public:
    HeadsPage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent = nullptr);
    QString title() const override { return tr("Heads"); }
    QString id() const override { return QStringLiteral("heads"); }
    bool reveal(const ComponentRef& part) override { return m_map->reveal(part); }
    void zoom(double factor) override;
    bool busy() const override { return MeasuredPage::busy() || m_asking; }
    HeadsMap& map() const noexcept { return *m_map; }

protected:
    bool shows(const protocol::DatasetMessage& info) const override;
    void showChosen(const MeasuredDataset& dataset) override;
    PlotCanvas& mainCanvas() const override { return *m_map; }

private:
    void explain();
    void showProblems();
    void askForAttention();
    HeadsMap* m_map = nullptr;
    AttentionTile* m_tile = nullptr;
    QLabel *m_badge = nullptr, *m_tileTitle = nullptr;
    QLineEdit* m_text = nullptr;
    QTimer m_delay;
    struct Tile {
        QStringList tokens;
        std::vector<double> weights;
    };
    QHash<QString, std::shared_ptr<const Tile>> m_tiles;
    bool m_asking = false;
};

}  // namespace resect::ui
