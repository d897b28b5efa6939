#include "widgets/plots/plot_canvas.h"

#include <QApplication>
#include <QClipboard>
#include <QContextMenuEvent>
#include <QFileDialog>
#include <QLabel>
#include <QMenu>
#include <QMessageBox>
#include <QPushButton>
#include <QSaveFile>
#include <QSvgGenerator>
#include <QVBoxLayout>
#include <QWindow>

#include <cmath>

namespace resect::ui {

PlotCanvas::PlotCanvas(QWidget* parent) : QCustomPlot(parent) {
    setAutoAddPlottableToLegend(false);
    setPlottingHint(QCP::phFastPolylines, true);
    setPlottingHint(QCP::phImmediateRefresh, false);
    setNoAntialiasingOnDrag(true);
    setFocusPolicy(Qt::StrongFocus);
    setMouseTracking(true);
    for (const char* name : {"selection", "hover"}) {
        addLayer(QLatin1String(name), layer(layerCount() - 1), limAbove);
        layer(QLatin1String(name))->setMode(QCPLayer::lmBuffered);
    }
    m_noticeBox = new QWidget(this);
    m_noticeBox->setObjectName(QStringLiteral("notice"));
    auto* layout = new QVBoxLayout(m_noticeBox);
    m_noticeText = new QLabel(m_noticeBox);
    m_noticeText->setWordWrap(true);
    m_noticeText->setAlignment(Qt::AlignCenter);
    m_noticeAction = new QPushButton(m_noticeBox);
    m_noticeAction->setAutoDefault(true);
    layout->addWidget(m_noticeText);
    layout->addWidget(m_noticeAction, 0, Qt::AlignHCenter);
    m_noticeBox->hide();
    connect(m_noticeAction, &QPushButton::clicked, this, &PlotCanvas::noticeActionTriggered);
    connect(&ThemeNotifier::instance(), &ThemeNotifier::changed, this, [this] {
        restyle(currentTheme());
        redraw();
    });
    applyTheme(*this, currentTheme());
    styleNotice(currentTheme());
}

void PlotCanvas::restyle(const Theme& theme) {
    applyTheme(*this, theme);
    styleNotice(theme);
}

void PlotCanvas::styleNotice(const Theme& theme) {
    const QColor text = m_notice.kind == CanvasNotice::Error ? theme.error : m_notice.kind == CanvasNotice::Partial ? theme.warning : theme.mutedText;
    m_noticeBox->setStyleSheet(QStringLiteral("QWidget#notice { background: %1; border: 1px solid %2; border-radius: 4px; } QLabel { color: %3; }")
                                   .arg(theme.surface.name(), theme.grid.name(), text.name()));
}

void PlotCanvas::setNotice(const CanvasNotice& notice) {
    m_notice = notice;
    m_noticeText->setText(notice.text);
    m_noticeAction->setText(notice.action);
    m_noticeAction->setVisible(!notice.action.isEmpty());
    m_noticeBox->setVisible(notice.kind != CanvasNotice::None);
    styleNotice(currentTheme());
    placeNotice();
}

void PlotCanvas::placeNotice() {
    if (m_notice.kind == CanvasNotice::None) return;
    const int margin = fontMetrics().height();
    const int widest = std::max(120, width() - 2 * margin);
    // A partial result stays readable: its notice sits in the corner instead of over the data.
    const int wanted = std::min(widest, fontMetrics().averageCharWidth() * 56);
    m_noticeText->setFixedWidth(std::min(wanted, fontMetrics().horizontalAdvance(m_notice.text) + 4 * margin));
    m_noticeBox->adjustSize();
    const QSize size = m_noticeBox->sizeHint();
    const QPoint centre((width() - size.width()) / 2, (height() - size.height()) / 2);
    const QPoint corner(width() - size.width() - margin / 2, margin / 4);
    m_noticeBox->setGeometry(QRect(m_notice.kind == CanvasNotice::Partial ? corner : centre, size));
    m_noticeBox->raise();
}

void PlotCanvas::resizeEvent(QResizeEvent* event) {
    QCustomPlot::resizeEvent(event);
    placeNotice();
}

void PlotCanvas::changeEvent(QEvent* event) {
    QCustomPlot::changeEvent(event);
    if (event->type() == QEvent::FontChange) {
        restyle(currentTheme());
        redraw();
    }
}

void PlotCanvas::showEvent(QShowEvent* event) {
    QCustomPlot::showEvent(event);
    const auto follow = [this] {
        if (qFuzzyCompare(bufferDevicePixelRatio(), devicePixelRatioF())) return;
        setBufferDevicePixelRatio(devicePixelRatioF());
        redraw();
    };
    follow();
    if (m_followsScreen || !window()->windowHandle()) return;
    m_followsScreen = true;
    connect(window()->windowHandle(), &QWindow::screenChanged, this, follow);
}

QList<QCPAxis*> PlotCanvas::navigableAxes(QPointF position) const {
    QList<QCPAxis*> axes;
    if (QCPAxisRect* rect = axisRectAt(position)) axes = {rect->axis(QCPAxis::atBottom), rect->axis(QCPAxis::atLeft)};
    axes.removeAll(nullptr);
    return axes;
}

void PlotCanvas::wheelEvent(QWheelEvent* event) {
    const auto axes = navigableAxes(event->position());
    const QPoint delta = event->angleDelta();
    const double steps = (delta.y() != 0 ? delta.y() : delta.x()) / 120.0;
    if (axes.isEmpty() || steps == 0) return QCustomPlot::wheelEvent(event);
    for (QCPAxis* axis : axes) {
        const bool horizontal = axis->orientation() == Qt::Horizontal;
        if (event->modifiers().testFlag(Qt::ShiftModifier) || delta.y() == 0) {
            if (horizontal) axis->moveRange(-steps * 0.1 * axis->range().size());
        } else {
            axis->scaleRange(std::pow(0.85, steps), axis->pixelToCoord(horizontal ? event->position().x() : event->position().y()));
        }
    }
    redraw();
    event->accept();
}

void PlotCanvas::mousePressEvent(QMouseEvent* event) {
    if (event->button() == Qt::MiddleButton) {
        m_panning = true;
        m_panFrom = event->position();
        setCursor(Qt::ClosedHandCursor);
        event->accept();
        return;
    }
    QCustomPlot::mousePressEvent(event);
}

void PlotCanvas::mouseMoveEvent(QMouseEvent* event) {
    if (!m_panning) return QCustomPlot::mouseMoveEvent(event);
    for (QCPAxis* axis : navigableAxes(m_panFrom)) {
        const bool horizontal = axis->orientation() == Qt::Horizontal;
        const double from = axis->pixelToCoord(horizontal ? m_panFrom.x() : m_panFrom.y());
        const double to = axis->pixelToCoord(horizontal ? event->position().x() : event->position().y());
        if (axis->scaleType() == QCPAxis::stLinear) axis->moveRange(from - to);
        else axis->moveRange(from / to);
    }
    m_panFrom = event->position();
    redraw();
    event->accept();
}

void PlotCanvas::mouseReleaseEvent(QMouseEvent* event) {
    if (m_panning && event->button() == Qt::MiddleButton) {
        m_panning = false;
        unsetCursor();
        event->accept();
        return;
    }
    QCustomPlot::mouseReleaseEvent(event);
}

void PlotCanvas::resetZoom() {
    rescaleAxes();
    redraw();
}

void PlotCanvas::contextMenuEvent(QContextMenuEvent* event) {
    QMenu menu(this);
    Q_EMIT contextMenuRequested(&menu, event->pos());
    if (!menu.isEmpty()) menu.addSeparator();
    menu.addAction(tr("Reset zoom"), this, &PlotCanvas::resetZoom);
    menu.addSeparator();
    if (!table().empty()) {
        if (receivers(SIGNAL(tableRequested())) > 0) menu.addAction(tr("Show as table"), this, &PlotCanvas::tableRequested);
        menu.addAction(tr("Copy values"), this, &PlotCanvas::copyValues);
    }
    menu.addAction(tr("Copy picture"), this, &PlotCanvas::copyPicture);
    menu.addAction(tr("Save picture or values..."), this, &PlotCanvas::askAndSave);
    menu.exec(event->globalPos());
}

QImage PlotCanvas::picture(double scale) {
    QImage image;
    {
        const ThemeOverride light(lightTheme());
        restyle(lightTheme());
        image = toPixmap(width(), height(), scale).toImage();
    }
    restyle(currentTheme());
    redraw();
    return image;
}

void PlotCanvas::copyPicture() { QApplication::clipboard()->setImage(picture()); }

void PlotCanvas::copyValues() const { QApplication::clipboard()->setText(toCsv(table(), QLatin1Char('\t'))); }

bool PlotCanvas::savePicture(const QString& path, QString* error) {
    const QString suffix = QFileInfo(path).suffix().toLower();
    QSaveFile file(path);
    const auto failed = [&](const QString& why) {
        if (error) *error = why;
        return false;
    };
    if (!file.open(QIODevice::WriteOnly)) return failed(file.errorString());
    auto light = std::make_unique<ThemeOverride>(lightTheme());
    restyle(lightTheme());
    bool known = true;
    if (suffix == QLatin1String("png")) {
        toPixmap(width(), height(), 2.0).save(&file, "PNG");
    } else if (suffix == QLatin1String("svg")) {
        QSvgGenerator generator;
        generator.setOutputDevice(&file);
        generator.setSize(size());
        generator.setViewBox(rect());
        generator.setTitle(accessibleName());
        QCPPainter painter;
        painter.begin(&generator);
        painter.setMode(QCPPainter::pmVectorized);
        toPainter(&painter, width(), height());
        painter.end();
    } else if (suffix == QLatin1String("pdf")) {
        QPdfWriter writer(&file);
        writer.setPageSize(QPageSize(QSizeF(width(), height()) * 72.0 / logicalDpiX(), QPageSize::Point, QString(), QPageSize::ExactMatch));
        writer.setPageMargins(QMarginsF());
        writer.setResolution(logicalDpiX());
        QCPPainter painter;
        painter.begin(&writer);
        painter.setMode(QCPPainter::pmVectorized);
        toPainter(&painter, width(), height());
        painter.end();
    } else if (suffix == QLatin1String("csv")) {
        file.write(toCsv(table()).toUtf8());
    } else {
        known = false;
    }
    light.reset();
    restyle(currentTheme());
    redraw();
    if (!known) return failed(tr("\"%1\" is not a kind of file that can be written here: use .png, .svg, .pdf or .csv.").arg(suffix));
    return file.commit() || failed(file.errorString());
}

void PlotCanvas::askAndSave() {
    QString filters = tr("Picture (*.png);;Vector picture (*.svg);;PDF (*.pdf)");
    if (!table().empty()) filters += tr(";;Values (*.csv)");
    QString chosen;
    QString path = QFileDialog::getSaveFileName(this, tr("Save picture or values"), QString(), filters, &chosen);
    if (path.isEmpty()) return;
    if (QFileInfo(path).suffix().isEmpty()) path += chosen.mid(chosen.indexOf(QLatin1String("*.")) + 1).chopped(1);
    QString error;
    if (!savePicture(path, &error)) QMessageBox::warning(this, tr("Nothing was saved"), tr("%1 could not be written: %2").arg(path, error));
}

}  // namespace resect::ui
