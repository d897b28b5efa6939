#include "widgets/plots/curve_view.h"

#include "widgets/plots/curve_canvas.h"

#include <QComboBox>
#include <QHBoxLayout>
#include <QLabel>
#include <QMenu>
#include <QShortcut>
#include <QSpinBox>
#include <QTimer>
#include <QToolButton>
#include <QVBoxLayout>

namespace resect::ui {

CurveView::CurveView(QWidget* parent) : QWidget(parent), m_timer(std::make_unique<QTimer>()), m_canvas(new CurveCanvas(this)) {
    m_timer->setSingleShot(true);
    m_timer->setInterval(100);  // at most ten redraws a second, however fast rows come
    connect(m_timer.get(), &QTimer::timeout, this, &CurveView::flush);
    auto* layout = new QVBoxLayout(this);
    layout->setContentsMargins(0, 0, 0, 0);
    layout->setSpacing(0);
    buildToolBar();
    layout->addWidget(m_canvas, 1);
    connect(m_canvas, &CurveCanvas::zoomed, this, [this] { m_follow->setChecked(m_canvas->follow == CurveFollow::Latest); });
    m_canvas->setAccessibleName(tr("Training curves"));
    m_canvas->setMinimumHeight(fontMetrics().height() * 6);
}

CurveView::~CurveView() = default;

void CurveView::buildToolBar() {
    auto* bar = new QHBoxLayout;
    bar->setContentsMargins(6, 2, 6, 2);
    m_xAxis = new QComboBox(this);
    m_xAxis->addItems({tr("Steps"), tr("Tokens"), tr("Time")});
    m_xAxis->setAccessibleName(tr("Horizontal axis"));
    m_xAxis->setToolTip(tr("What the curves are drawn over"));
    connect(m_xAxis, &QComboBox::currentIndexChanged, this, [this](int index) { setXAxis(CurveX(index)); });
    m_halfLife = new QSpinBox(this);
    m_halfLife->setRange(0, 10000);
    m_halfLife->setValue(m_canvas->halfLife);
    m_halfLife->setSuffix(tr(" steps"));
    m_halfLife->setSpecialValueText(tr("off"));
    m_halfLife->setToolTip(tr("Half-life of the smoothing: after this many steps an old value weighs half"));
    connect(m_halfLife, &QSpinBox::valueChanged, this, &CurveView::setHalfLife);
    const auto button = [&](const QString& text, const QString& tip, Qt::Key key) {
        auto* made = new QToolButton(this);
        made->setText(text);
        made->setToolTip(QStringLiteral("%1 (%2)").arg(tip, QKeySequence(key).toString()));
        made->setCheckable(true);
        made->setAutoRaise(true);
        auto* shortcut = new QShortcut(QKeySequence(key), m_canvas, nullptr, nullptr, Qt::WidgetShortcut);
        connect(shortcut, &QShortcut::activated, made, &QToolButton::toggle);
        return made;
    };
    m_raw = button(tr("Raw"), tr("Raw values instead of their envelope"), Qt::Key_R);
    m_log = button(tr("Log"), tr("Logarithmic scale"), Qt::Key_L);
    m_follow = button(tr("Follow"), tr("Follow the last tenth of the run"), Qt::Key_F);
    connect(m_raw, &QToolButton::toggled, this, &CurveView::setRawShown);
    connect(m_log, &QToolButton::toggled, this, &CurveView::setLogarithmic);
    connect(m_follow, &QToolButton::clicked, this, [this](bool on) { setFollow(on ? CurveFollow::Latest : CurveFollow::All); });
    connect(m_follow, &QToolButton::toggled, this, [this](bool on) {
        if (on != (m_canvas->follow == CurveFollow::Latest)) setFollow(on ? CurveFollow::Latest : CurveFollow::All);
    });
    auto* all = new QToolButton(this);
    all->setText(tr("All"));
    all->setToolTip(tr("Show the whole run"));
    all->setAutoRaise(true);
    connect(all, &QToolButton::clicked, m_canvas, &CurveCanvas::resetZoom);
    m_panels = new QToolButton(this);
    m_panels->setText(tr("Panels"));
    m_panels->setAutoRaise(true);
    m_panels->setPopupMode(QToolButton::InstantPopup);
    m_panels->setMenu(new QMenu(m_panels));
    auto* save = new QToolButton(this);
    save->setText(tr("Save..."));
    save->setAutoRaise(true);
    save->setToolTip(tr("Save as PNG, SVG, PDF or CSV"));
    connect(save, &QToolButton::clicked, m_canvas, &PlotCanvas::askAndSave);
    // Every word here adds to what the window needs at least: with this bar below it, it has to fit beside the plan on 1280 pixels.
    bar->addWidget(m_xAxis);
    bar->addSpacing(4);
    bar->addWidget(new QLabel(tr("Smoothing"), this));
    bar->addWidget(m_halfLife);
    for (QToolButton* one : {m_raw, m_log, m_follow, all, m_panels}) bar->addWidget(one);
    bar->addStretch(1);
    bar->addWidget(save);
    static_cast<QVBoxLayout*>(layout())->addLayout(bar);
}

PlotCanvas& CurveView::canvas() const { return *m_canvas; }

void CurveView::addPanel(const CurvePanelInfo& panel) {
    m_canvas->addPanel(panel);
    auto* action = m_panels->menu()->addAction(panel.title);
    action->setCheckable(true);
    action->setChecked(!panel.collapsed);
    action->setData(panel.id);
    connect(action, &QAction::toggled, this, [this, id = panel.id](bool on) { setPanelCollapsed(id, !on); });
    m_canvas->update();
}

void CurveView::addSeries(const CurveSeriesInfo& series) { m_canvas->addSeries(series); }

void CurveView::removeGroup(const QString& group) {
    m_canvas->removeGroup(group);
    scheduleUpdate();
}

void CurveView::setGroupVisible(const QString& group, bool visible) {
    for (const auto& one : m_canvas->series)
        if (one->info.group == group && one->visible != visible) {
            one->visible = visible;
            one->dirty = true;
        }
    scheduleUpdate();
}

void CurveView::clear() {
    while (!m_canvas->series.empty()) {
        const QString group = m_canvas->series.front()->info.group;
        m_canvas->removeGroup(group);
    }
    while (!m_canvas->references.empty()) {
        const QString panel = m_canvas->references.begin()->second.panel;
        const QString id = m_canvas->references.begin()->first.mid(panel.size() + 1);
        m_canvas->setReference(panel, id, std::numeric_limits<double>::quiet_NaN(), {}, Qt::SolidLine);
    }
    m_canvas->events.clear();
    scheduleUpdate();
}

void CurveView::appendRows(const QString& series, std::span<const CurvePoint> points) {
    CurveCanvas::Series* target = m_canvas->findSeries(series);
    if (!target || points.empty()) return;
    for (const CurvePoint& point : points) {
        target->steps.push_back(point.step);
        target->tokens.push_back(point.tokens);
        target->seconds.push_back(point.seconds);
        target->values.push_back(point.value);
    }
    target->dirty = true;
    scheduleUpdate();
}

void CurveView::addEvent(const CurveEvent& event) {
    m_canvas->events.push_back(event);
    scheduleUpdate();
}

void CurveView::setReference(const QString& panel, const QString& id, double value, const QString& label, Qt::PenStyle pen) {
    m_canvas->setReference(panel, id, value, label, pen);
    scheduleUpdate();
}

void CurveView::setXAxis(CurveX x) {
    if (m_canvas->x != x && m_canvas->follow == CurveFollow::Free) m_canvas->follow = CurveFollow::All;
    m_canvas->x = x;
    m_xAxis->setCurrentIndex(int(x));
    m_canvas->markAllDirty();
    scheduleUpdate();
}

void CurveView::setRawShown(bool shown) {
    m_canvas->raw = shown;
    m_raw->setChecked(shown);
    m_canvas->markAllDirty();
    scheduleUpdate();
}

void CurveView::setLogarithmic(bool logarithmic) {
    m_canvas->logarithmic = logarithmic;
    m_log->setChecked(logarithmic);
    scheduleUpdate();
}

void CurveView::setHalfLife(int steps) {
    m_canvas->halfLife = steps;
    m_halfLife->setValue(steps);
    m_canvas->markAllDirty();
    scheduleUpdate();
}

void CurveView::setFollow(CurveFollow follow) {
    m_canvas->follow = follow;
    m_follow->setChecked(follow == CurveFollow::Latest);
    scheduleUpdate();
}

void CurveView::setTokenWord(const QString& plural) {
    if (m_canvas->tokenWord == plural) return;
    m_canvas->tokenWord = plural;
    m_xAxis->setItemText(int(CurveX::Tokens), plural.left(1).toUpper() + plural.mid(1));
    m_canvas->markAllDirty();
    scheduleUpdate();
}

void CurveView::setPanelCollapsed(const QString& panel, bool collapsed) {
    if (CurveCanvas::Panel* found = m_canvas->findPanel(panel)) found->info.collapsed = collapsed;
    for (QAction* action : m_panels->menu()->actions())
        if (action->data() == panel) action->setChecked(!collapsed);
    m_canvas->markAllDirty();
    scheduleUpdate();
}

CurveX CurveView::xAxis() const { return m_canvas->x; }
CurveFollow CurveView::follow() const { return m_canvas->follow; }
bool CurveView::rawShown() const { return m_canvas->raw; }
bool CurveView::logarithmic() const { return m_canvas->logarithmic; }

void CurveView::flush() {
    m_timer->stop();
    m_canvas->update();
}

void CurveView::scheduleUpdate() {
    if (!m_timer->isActive()) m_timer->start();
}

std::size_t CurveView::pointCount(const QString& series) const {
    const CurveCanvas::Series* found = m_canvas->findSeries(series);
    return found ? found->values.size() : 0;
}

}  // namespace resect::ui
