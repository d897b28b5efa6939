#pragma once
#include "app/pages/page.h"
#include "app/pages/part_sentences.h"
#include "widgets/plots/token_strip.h"

class QComboBox;
class QLineEdit;
class QPushButton;
class QSpinBox;

namespace resect::ui {

class FlowLayout;

/// Which experts the tokens of a text were sent to, as the worker's router_tokens tells it.
struct TokenRouting {
    struct Block {
        int block = 0, numExperts = 0;
        std::vector<std::vector<int>> experts;      ///< [token][k], most weight first
        std::vector<std::vector<double>> gates;     ///< same order
    };
    QStringList tokens;
    std::vector<Block> blocks;
    bool shortened = false;
};
/// Throws resect::Error when the fields do not fit together.
TokenRouting tokenRoutingFrom(const Json& result);

/// A text as its tokens, each in the colour of the expert that the router of one block weighs most.
class RouterPage final : public Page {
    Q_OBJECT
public:
    RouterPage(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent = nullptr);
    QString title() const override { return tr("Router"); }
    QString id() const override { return QStringLiteral("router"); }
    void rerun() override;
    bool reveal(const ComponentRef& part) override;
    bool busy() const override { return m_job != 0; }
    TokenStrip& strip() const noexcept { return *m_strip; }
    int block() const;
    void setBlock(int block);
    /// What the card says about a token; "" for none.
    QString tokenSentence(int token) const;
    /// Captions of the legend, most chosen first.
    QStringList legend() const;
    bool eventFilter(QObject* watched, QEvent* event) override;

private:
    void build();
    void askOrStop();
    void show(const Json& result);
    void fail(const QString& why);
    void setNote(const QString& words, bool bad = false);
    void listBlocks();
    void showBlock();
    void showMarks();
    void updateState();
    void say(int token);
    bool modelHasExperts() const;
    const TokenRouting::Block* routed() const;
    /// Colour of an expert in the block in focus; the theme's no-value colour for those without one of their own.
    QColor colourOf(int expert) const;

    QComboBox *m_from = nullptr, *m_block = nullptr;
    QLineEdit* m_text = nullptr;
    QSpinBox* m_row = nullptr;
    QPushButton* m_show = nullptr;
    TokenStrip* m_strip = nullptr;
    QWidget* m_legendBox = nullptr;
    FlowLayout* m_legend = nullptr;
    QLabel* m_note = nullptr;
    HoverCard* m_card = nullptr;
    TokenRouting m_routing;
    std::vector<int> m_order;   ///< experts of the block in focus by how many tokens they get first, most first
    std::vector<int> m_counts;
    bool m_noteIsBad = false;
    qint64 m_job = 0;
};

}  // namespace resect::ui
