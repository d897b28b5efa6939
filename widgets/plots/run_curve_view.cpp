#include "widgets/plots/curve_view.h"

#include <algorithm>
#include <cmath>

namespace resect::ui {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr std::array kLineStyles = {Qt::SolidLine, Qt::DashLine, Qt::DotLine, Qt::DashDotLine};
/// Blue first: it stands out best from the grey of axes and from the red of problems.
constexpr std::array kColourOrder = {4, 5, 2, 6, 1, 0, 3, 7};

double number(const Json& value) { return value.is_number() ? value.get<double>() : kNone; }

}  // namespace

RunCurveView::RunCurveView(QWidget* parent) : CurveView(parent) {
    addPanel({.id = QStringLiteral("perplexity"), .title = tr("perplexity"), .logarithmic = true, .height = 2});
    addPanel({.id = QStringLiteral("accuracy"), .title = tr("accuracy, %"), .height = 2});
    addPanel({.id = QStringLiteral("recovery"), .title = tr("recovered, %"), .clipLow = -20, .clipHigh = 120});
    addPanel({.id = QStringLiteral("kl"), .title = tr("KL, nats"), .logarithmic = true});
    addPanel({.id = QStringLiteral("loss"), .title = tr("loss, nats"), .collapsed = true});
    addPanel({.id = QStringLiteral("rate"), .title = tr("learning rate"), .logarithmic = true, .collapsed = true});
    addPanel({.id = QStringLiteral("gradient"), .title = tr("gradient norm"), .logarithmic = true, .collapsed = true});
    addPanel({.id = QStringLiteral("speed"), .title = tr("tokens/s"), .collapsed = true});
    addPanel({.id = QStringLiteral("imageSpeed"), .title = tr("images/s"), .collapsed = true});
}

void RunCurveView::addRun(const QString& id, const QString& title, int colour) {
    if (m_runs.contains(id)) return;
    const auto taken = m_runs.values();
    const auto unused = std::ranges::find_if(kColourOrder, [&](int other) { return !taken.contains(other); });
    const int position = unused != kColourOrder.end() ? int(unused - kColourOrder.begin()) : int(m_runs.size());
    const int chosen = colour >= 0 ? colour : kColourOrder[std::size_t(position) % kColourOrder.size()];
    const Qt::PenStyle pen = kLineStyles[std::size_t(position) / kColourOrder.size() % kLineStyles.size()];
    m_runs.insert(id, chosen);
    const auto add = [&](const char* name, const QString& text, const char* panel, bool smoothed) {
        addSeries({.id = id + QLatin1Char('/') + QLatin1String(name), .title = text, .panel = QLatin1String(panel), .colour = chosen,
                   .pen = pen, .smoothed = smoothed, .group = title});
    };
    add("train", tr("training (smoothed)"), "perplexity", true);
    add("eval", tr("evaluation"), "perplexity", false);
    add("recovery", tr("recovered share of the loss, %"), "recovery", false);
    add("kl", tr("KL to the uncut model"), "kl", false);
    add("loss", tr("training loss"), "loss", true);
    add("evalLoss", tr("evaluation loss"), "loss", false);
    add("rate", tr("learning rate"), "rate", false);
    add("gradient", tr("gradient norm"), "gradient", true);
    add("speed", tr("tokens per second"), "speed", true);
    add("accuracy", tr("evaluation accuracy, %"), "accuracy", false);
    add("imageSpeed", tr("images per second"), "imageSpeed", true);
    setProperty(("title/" + id).toUtf8().constData(), title);
}

void RunCurveView::removeRun(const QString& id) {
    if (!m_runs.remove(id)) return;
    m_images.remove(id);
    removeGroup(property(("title/" + id).toUtf8().constData()).toString());
    drawReferences();
}

void RunCurveView::appendRun(const QString& id, std::span<const protocol::MetricsRow> rows) {
    QHash<QString, std::vector<CurvePoint>> points;
    const QString group = property(("title/" + id).toUtf8().constData()).toString();
    for (const protocol::MetricsRow& row : rows) {
        const auto add = [&](const char* name, double value) {
            points[id + QLatin1Char('/') + QLatin1String(name)].push_back({double(row.step), double(row.tokens), row.seconds, value});
        };
        const bool trained = row.event.empty();
        if (row.evalAccuracy.is_number()) noteImages(id);
        const bool images = m_images.contains(id);
        if (trained) {  // a training step without a loss lost it: that is a gap worth seeing
            if (!images) add("train", std::exp(number(row.loss)));
            add("loss", number(row.loss));
        }
        if (row.learningRate.is_number()) add("rate", number(row.learningRate));
        if (trained && !row.gradientNorm.is_null()) add("gradient", number(row.gradientNorm));
        if (row.tokensPerSecond.is_number()) add(images ? "imageSpeed" : "speed", number(row.tokensPerSecond));
        if (row.kl.is_number()) add("kl", number(row.kl));
        if (row.event == "eval") {
            if (!images) add("eval", number(row.evalPerplexity));
            if (row.evalAccuracy.is_number()) add("accuracy", 100.0 * number(row.evalAccuracy));
            add("evalLoss", number(row.evalLoss));
            if (row.recovery.is_number()) add("recovery", 100.0 * number(row.recovery));
        } else if (!trained) {
            static const QHash<QString, QString> kTexts = {
                {QStringLiteral("checkpoint"), tr("checkpoint written")}, {QStringLiteral("pause"), tr("paused")},
                {QStringLiteral("resume"), tr("resumed")},                {QStringLiteral("stop"), tr("stopped")},
                {QStringLiteral("restart"), tr("went back to the last good checkpoint")},
                {QStringLiteral("nonfinite"), tr("the loss was not a number")}};
            const QString kind = QString::fromStdString(row.event);
            addEvent({group, double(row.step), double(row.tokens), row.seconds, kind,
                      tr("step %1: %2").arg(row.step).arg(kTexts.value(kind, kind))});
        }
    }
    for (auto it = points.cbegin(); it != points.cend(); ++it) appendRows(it.key(), it.value());
}

/// Images have an accuracy, and their loss is shown where text shows its perplexity.
void RunCurveView::noteImages(const QString& id) {
    if (!m_runs.contains(id) || m_images.contains(id)) return;
    m_images.insert(id);
    setPanelCollapsed(QStringLiteral("loss"), false);
    if (m_images.size() == m_runs.size()) setTokenWord(tr("images"));
}

void RunCurveView::setRunStatus(const QString& id, const protocol::RunStatus& status) {
    if (status.unit == "images") noteImages(id);
    if (m_focus.isEmpty()) m_focus = id;
    if (m_focus != id) return;
    m_focusStatus = status;
    drawReferences();
}

void RunCurveView::setFocusRun(const QString& id) {
    if (id == m_focus) return;
    m_focus = id;
    m_focusStatus = {};
    drawReferences();
}

void RunCurveView::drawReferences() {
    const auto line = [&](const char* name, double perplexity, const QString& text, Qt::PenStyle pen) {
        const bool known = m_runs.contains(m_focus) && std::isfinite(perplexity) && perplexity > 0;
        setReference(QStringLiteral("perplexity"), QLatin1String(name), known && !m_images.contains(m_focus) ? perplexity : kNone, text.arg(shortNumber(perplexity, 4)), pen);
        setReference(QStringLiteral("loss"), QLatin1String(name), known ? std::log(perplexity) : kNone, text.arg(shortNumber(std::log(perplexity), 4)), pen);
    };
    const auto accuracyLine = [&](const char* name, double accuracy, const QString& text, Qt::PenStyle pen) {
        const bool known = m_images.contains(m_focus) && std::isfinite(accuracy);
        setReference(QStringLiteral("accuracy"), QLatin1String(name), known ? 100 * accuracy : kNone, text.arg(shortNumber(100 * accuracy, 4)), pen);
    };
    accuracyLine("baseline", m_focusStatus.baselineAccuracy, tr("uncut %1"), Qt::SolidLine);
    accuracyLine("cut", m_focusStatus.cutAccuracy, tr("after the cut %1"), Qt::DashLine);
    line("baseline", m_focusStatus.baselinePerplexity, tr("uncut %1"), Qt::SolidLine);
    line("cut", m_focusStatus.cutPerplexity, tr("after the cut %1"), Qt::DashLine);
}

}  // namespace resect::ui
