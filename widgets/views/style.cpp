#include "widgets/views/style.h"

#include <QFile>
#include <QHash>
#include <QPainter>
#include <QRegularExpression>
#include <QStyle>
#include <QSvgRenderer>

static void initialiseResources() { Q_INIT_RESOURCE(resources); }  // a static library's resources are not found by themselves

namespace resect::ui {
namespace {

QByteArray resource(const QString& path) {
    static const bool ready = (initialiseResources(), true);
    Q_UNUSED(ready)
    QFile file(path);
    return file.open(QIODevice::ReadOnly) ? file.readAll() : QByteArray();
}

QPixmap drawn(const QByteArray& svg, const QColor& colour, int size) {
    QByteArray coloured = svg;
    coloured.replace("currentColor", colour.name().toLatin1());
    QSvgRenderer renderer(coloured);
    QPixmap pixmap(size, size);
    pixmap.fill(Qt::transparent);
    QPainter painter(&pixmap);
    renderer.render(&painter);
    return pixmap;
}

QIcon build(const QString& name, const QColor& colour, const QColor& disabled) {
    const QByteArray svg = resource(QStringLiteral(":/icons/%1.svg").arg(name));
    QIcon icon;
    if (svg.isEmpty()) return icon;
    for (const int size : {16, 20, 24, 32, 48, 64}) {
        icon.addPixmap(drawn(svg, colour, size), QIcon::Normal);
        icon.addPixmap(drawn(svg, disabled, size), QIcon::Disabled);
    }
    return icon;
}

QColor mixed(const QColor& a, const QColor& b) { return QColor((a.red() + b.red()) / 2, (a.green() + b.green()) / 2, (a.blue() + b.blue()) / 2); }

}  // namespace

QIcon icon(const QString& name) { return icon(name, currentTheme().text); }

QIcon icon(const QString& name, const QColor& colour) {
    static QHash<QString, QIcon> cache;
    const QColor surface = currentTheme().surface;
    QIcon& entry = cache[name + colour.name() + surface.name()];
    if (entry.isNull()) entry = build(name, colour, mixed(colour, surface));
    return entry;
}

QIcon severityIcon(const QString& severity) {
    const Theme& theme = currentTheme();
    if (severity == QLatin1String("error")) return icon(QStringLiteral("error"), theme.error);
    if (severity == QLatin1String("warning")) return icon(QStringLiteral("warning"), theme.warning);
    if (severity == QLatin1String("good")) return icon(QStringLiteral("ok"), theme.good);
    return icon(QStringLiteral("note"), theme.accent);
}

QIcon programIcon() {
    QIcon icon;
    const QByteArray svg = resource(QStringLiteral(":/icons/resect.svg"));
    for (const int size : {16, 32, 48, 64, 128, 256}) icon.addPixmap(drawn(svg, Qt::black, size));
    return icon;
}

QString windowStyleSheet(const Theme& theme) {
    QString sheet = QString::fromUtf8(resource(QStringLiteral(":/styles/window.qss")));
    const std::pair<const char*, QColor> colours[] = {
        {"background", theme.background}, {"surface", theme.surface}, {"axis", theme.axis},       {"grid", theme.grid},   {"text", theme.text},
        {"mutedText", theme.mutedText},   {"accent", theme.accent},   {"warning", theme.warning}, {"error", theme.error}, {"good", theme.good}};
    for (const auto& [name, colour] : colours) sheet.replace(QStringLiteral("@%1@").arg(QLatin1String(name)), colour.name());
    return sheet;
}

QLabel* makeLabel(const QString& text, const char* role, QWidget* parent) {
    auto* label = new QLabel(text, parent);
    if (role) label->setProperty("role", role);
    const bool chip = role && qstrcmp(role, "chip") == 0;
    label->setWordWrap(!chip);
    if (!chip) label->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::LinksAccessibleByMouse);
    label->setFocusPolicy(Qt::NoFocus);
    return label;
}

void setStyleProperty(QWidget* widget, const char* name, const QVariant& value) {
    if (widget->property(name) == value) return;
    widget->setProperty(name, value);
    widget->style()->unpolish(widget);
    widget->style()->polish(widget);
}

void drawCheckBox(QPainter& painter, const QRect& rect, Qt::CheckState state) {
    const Theme& theme = currentTheme();
    painter.save();
    painter.setRenderHint(QPainter::Antialiasing);
    const QRectF box = QRectF(rect).adjusted(0.5, 0.5, -0.5, -0.5);
    painter.setPen(QPen(theme.mutedText, 1));
    painter.setBrush(theme.background);
    painter.drawRoundedRect(box, 2, 2);
    if (state == Qt::PartiallyChecked) painter.fillRect(box.adjusted(box.width() / 4, box.height() / 4, -box.width() / 4, -box.height() / 4), theme.text);
    if (state == Qt::Checked) {
        painter.setPen(QPen(theme.text, 1.8, Qt::SolidLine, Qt::RoundCap, Qt::RoundJoin));
        const auto at = [&](double x, double y) { return box.topLeft() + QPointF(x * box.width(), y * box.height()); };
        painter.drawPolyline(QPolygonF({at(0.22, 0.52), at(0.43, 0.74), at(0.80, 0.26)}));
    }
    painter.restore();
}

QString verdictWords(const std::string& verdict) {
    if (verdict == "opens") return QObject::tr("opens");
    if (verdict == "padded") return QObject::tr("opens after padding");
    if (verdict == "code") return QObject::tr("needs code beside it");
    return verdict == "no" ? QObject::tr("does not open") : QString::fromStdString(verdict);
}

}  // namespace resect::ui
