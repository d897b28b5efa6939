#pragma once
#include "widgets/plots/colour_maps.h"

#include <QAbstractScrollArea>
#include <QString>

#include <limits>
#include <vector>

namespace resect::ui {

struct StripToken {
    QString text;      ///< as decoded, with its blanks and line ends
    double value = std::numeric_limits<double>::quiet_NaN();  ///< colours the background when colouring is on
    bool marked = false;   ///< underlined: differs from the other text
    QString tip;
    QColor fill = {};      ///< background of its own, over any colouring by value; invalid = none
    QString note = {};     ///< small, under the token
};

/// Text as its tokens, wrapped; only visible lines are drawn. Ctrl+C copies the text.
class TokenStrip final : public QAbstractScrollArea {
    Q_OBJECT
public:
    explicit TokenStrip(QWidget* parent = nullptr);

    void setTokens(std::vector<StripToken> tokens);
    void appendToken(StripToken token);
    void clear() { setTokens({}); }
    const std::vector<StripToken>& tokens() const noexcept { return m_tokens; }
    void setMarked(std::vector<bool> marked);
    void setColoured(bool coloured, double low = 0, double high = 1);
    void setPlaceholder(const QString& text);
    QString plainText() const;

    int lineCount() const noexcept { return int(m_lines.size()); }
    /// -1 = none.
    int tokenAt(QPoint position) const;
    QRect tokenRect(int index) const;
    void setHovered(int index);

Q_SIGNALS:
    void tokenHovered(int index);

protected:
    void paintEvent(QPaintEvent* event) override;
    void resizeEvent(QResizeEvent* event) override;
    void mouseMoveEvent(QMouseEvent* event) override;
    void leaveEvent(QEvent* event) override;
    void keyPressEvent(QKeyEvent* event) override;
    void changeEvent(QEvent* event) override;

private:
    void layOutFrom(int token);
    void updateScrollBar();
    int lineHeight() const;
    QFont noteFont() const;
    void paintToken(QPainter& painter, int index) const;
    std::vector<StripToken> m_tokens;
    struct Place {
        int line = 0, x = 0, width = 0;
    };
    std::vector<Place> m_places;
    std::vector<int> m_lines;  ///< first token of each line
    QString m_placeholder;
    bool m_coloured = false, m_noted = false;  ///< noted: some token has a note, so that lines stand further apart
    double m_low = 0, m_high = 1;
    int m_hovered = -1;
};

/// Positions of `right` tokens that are not part of the longest common subsequence with `left`; and the other way round.
struct TokenDifference {
    std::vector<bool> left, right;
};
TokenDifference tokenDifference(const std::vector<QString>& left, const std::vector<QString>& right);

}  // namespace resect::ui
