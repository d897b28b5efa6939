#include "widgets/forms/parameter_form.h"

#include "core/base/numbers.h"

#include <QCheckBox>
#include <QComboBox>
#include <QDoubleValidator>
#include <QFileDialog>
#include <QFileInfo>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QRegularExpression>
#include <QSpinBox>
#include <QToolButton>
#include <QVBoxLayout>

#include <algorithm>
#include <cmath>
#include <limits>

namespace resect::ui {
namespace {

constexpr double kLimit = std::numeric_limits<int>::max();

QString fromStd(const std::string& text) { return QString::fromStdString(text); }

std::optional<double> numberOf(const Json& json) {
    if (!json.is_number()) return std::nullopt;
    const double value = json.get<double>();
    return std::isfinite(value) && std::abs(value) < 1e300 ? std::optional(value) : std::nullopt;
}

QString rangeWords(const protocol::ParameterMessage& parameter) {
    const auto low = numberOf(parameter.minimum), high = numberOf(parameter.maximum);
    if (low && high) return QObject::tr("%1 to %2").arg(fromStd(toText(*low)), fromStd(toText(*high)));
    if (low) return QObject::tr("at least %1").arg(fromStd(toText(*low)));
    return high ? QObject::tr("at most %1").arg(fromStd(toText(*high))) : QString();
}

}  // namespace

ParameterForm::ParameterForm(QWidget* parent) : QWidget(parent) { setParameters({}); }

void ParameterForm::setParameters(const std::vector<protocol::ParameterMessage>& parameters) {
    m_fields.clear();
    delete layout();
    qDeleteAll(findChildren<QWidget*>(Qt::FindDirectChildrenOnly));
    auto* outer = new QVBoxLayout(this);
    outer->setContentsMargins(0, 0, 0, 0);
    const auto makeLayout = [] {
        auto* form = new QFormLayout;
        form->setLabelAlignment(Qt::AlignLeft);
        form->setFieldGrowthPolicy(QFormLayout::ExpandingFieldsGrow);
        return form;
    };
    QFormLayout* plain = makeLayout();
    outer->addLayout(plain);
    m_advancedButton = new QToolButton(this);
    m_advancedButton->setText(tr("Advanced"));
    m_advancedButton->setCheckable(true);
    m_advancedButton->setArrowType(Qt::RightArrow);
    m_advancedButton->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
    m_advancedButton->setAutoRaise(true);
    m_advanced = new QWidget(this);
    QFormLayout* folded = makeLayout();
    folded->setContentsMargins(0, 0, 0, 0);
    m_advanced->setLayout(folded);
    m_advanced->hide();
    outer->addWidget(m_advancedButton);
    outer->addWidget(m_advanced);
    outer->addStretch();
    bool anyAdvanced = false;
    for (const auto& parameter : parameters) {
        Field field = makeField(parameter);
        QStringList tip{fromStd(parameter.help)};
        if (const QString range = rangeWords(parameter); !range.isEmpty()) tip << range;
        tip << tr("Setting: %1").arg(fromStd(parameter.name));
        field.editor->setToolTip(tip.join(QLatin1Char('\n')));
        field.editor->setObjectName(fromStd(parameter.name));
        auto* label = new QLabel(fromStd(parameter.title.empty() ? parameter.name : parameter.title), this);
        label->setToolTip(field.editor->toolTip());
        label->setBuddy(field.editor);
        field.editor->setAccessibleName(label->text());
        field.editor->setAccessibleDescription(fromStd(parameter.help));
        (parameter.advanced ? folded : plain)->addRow(label, field.editor);
        if (!parameter.help.empty()) {
            auto* help = new QLabel(fromStd(parameter.help), this);
            help->setWordWrap(true);
            help->setProperty("role", "help");
            QFont font = help->font();
            font.setPointSizeF(font.pointSizeF() * 0.9);
            help->setFont(font);
            (parameter.advanced ? folded : plain)->addRow(QString(), help);
        }
        anyAdvanced = anyAdvanced || parameter.advanced;
        m_fields.push_back(std::move(field));
    }
    m_advancedButton->setVisible(anyAdvanced);
    connect(m_advancedButton, &QToolButton::toggled, this, [this](bool open) {
        m_advancedButton->setArrowType(open ? Qt::DownArrow : Qt::RightArrow);
        m_advanced->setVisible(open);
    });
    reset();
}

ParameterForm::Field ParameterForm::makeField(const protocol::ParameterMessage& parameter) {
    if (parameter.type == "integer") return makeInteger(parameter);
    if (parameter.type == "real") return makeReal(parameter);
    if (parameter.type == "file") return makeFile(parameter);
    if (parameter.type == "boolean") {
        auto* box = new QCheckBox(this);
        connect(box, &QCheckBox::toggled, this, &ParameterForm::changed);
        return {parameter, box, [box] { return Json(box->isChecked()); }, [box](const Json& value) { if (value.is_boolean()) box->setChecked(value.get<bool>()); },
                [] { return QString(); }};
    }
    if (parameter.type == "choice") {
        auto* box = new QComboBox(this);
        for (const auto& choice : parameter.choices) box->addItem(fromStd(choice));
        connect(box, &QComboBox::currentIndexChanged, this, &ParameterForm::changed);
        return {parameter, box, [box] { return Json(box->currentText().toStdString()); },
                [box](const Json& value) { if (value.is_string()) if (const int i = box->findText(fromStd(value.get<std::string>())); i >= 0) box->setCurrentIndex(i); },
                [] { return QString(); }};
    }
    if (parameter.type == "text" && parameter.unit == "components" && m_selection) return makeComponents(parameter);
    return makeText(parameter, parameter.type == "integer_list");
}

ParameterForm::Field ParameterForm::makeInteger(const protocol::ParameterMessage& parameter) {
    const auto low = numberOf(parameter.minimum), high = numberOf(parameter.maximum);
    auto* box = new QSpinBox(this);
    box->setRange(static_cast<int>(std::clamp(low.value_or(-kLimit), -kLimit, kLimit)), static_cast<int>(std::clamp(high.value_or(kLimit), -kLimit, kLimit)));
    box->setGroupSeparatorShown(true);
    box->setStepType(box->maximum() > 1000 ? QAbstractSpinBox::AdaptiveDecimalStepType : QAbstractSpinBox::DefaultStepType);
    if (!parameter.unit.empty()) box->setSuffix(QLatin1Char(' ') + fromStd(parameter.unit));
    connect(box, &QSpinBox::valueChanged, this, &ParameterForm::changed);
    return {parameter, box, [box] { return Json(box->value()); },
            [box](const Json& value) { if (value.is_number()) box->setValue(static_cast<int>(std::clamp(value.get<double>(), -kLimit, kLimit))); }, [] { return QString(); }};
}

ParameterForm::Field ParameterForm::makeReal(const protocol::ParameterMessage& parameter) {
    // A line, not a spin box: learning rates need 1e-5, and spin boxes round to fixed decimals.
    auto* line = new QLineEdit(this);
    line->setClearButtonEnabled(false);
    line->setPlaceholderText(rangeWords(parameter));
    auto* holder = new QWidget(this);
    auto* row = new QHBoxLayout(holder);
    row->setContentsMargins(0, 0, 0, 0);
    row->addWidget(line);
    if (!parameter.unit.empty()) row->addWidget(new QLabel(fromStd(parameter.unit), holder));
    holder->setFocusProxy(line);
    connect(line, &QLineEdit::textChanged, this, &ParameterForm::changed);
    const auto get = [line]() -> Json {
        const auto value = parseDouble(line->text().toStdString());
        return value ? Json(*value) : Json();
    };
    const auto problem = [line, parameter]() -> QString {
        const auto value = parseDouble(line->text().toStdString());
        if (!value || !std::isfinite(*value)) return tr("\"%1\" is not a number").arg(line->text());
        const auto low = numberOf(parameter.minimum), high = numberOf(parameter.maximum);
        if ((low && *value < *low) || (high && *value > *high)) return tr("%1 is out of range (%2)").arg(line->text(), rangeWords(parameter));
        return {};
    };
    return {parameter, holder, get, [line](const Json& value) { if (value.is_number()) line->setText(fromStd(toText(value.get<double>()))); }, problem};
}

ParameterForm::Field ParameterForm::makeText(const protocol::ParameterMessage& parameter, bool list) {
    auto* line = new QLineEdit(this);
    if (list) line->setPlaceholderText(tr("numbers and ranges: 0, 3-7"));
    connect(line, &QLineEdit::textChanged, this, &ParameterForm::changed);
    if (!list)
        return {parameter, line, [line] { return Json(line->text().toStdString()); },
                [line](const Json& value) { if (value.is_string()) line->setText(fromStd(value.get<std::string>())); }, [] { return QString(); }};
    const auto parse = [line](QString* problem) {
        Json numbers = Json::array();
        static const QRegularExpression range(QStringLiteral("^(-?\\d+)(?:\\s*-\\s*(\\d+))?$"));
        for (const QString& part : line->text().split(QLatin1Char(','), Qt::SkipEmptyParts)) {
            const auto match = range.match(part.trimmed());
            const int first = match.captured(1).toInt(), last = match.captured(2).isEmpty() ? first : match.captured(2).toInt();
            if (!match.hasMatch() || last < first || last - first > 100'000) {
                if (problem) *problem = tr("\"%1\" is neither a whole number nor a range like 3-7").arg(part.trimmed());
                return Json();
            }
            for (int number = first; number <= last; ++number) numbers.push_back(number);
        }
        return numbers;
    };
    const auto problem = [line, parse, parameter] {
        QString words;
        const Json numbers = parse(&words);
        const auto low = numberOf(parameter.minimum), high = numberOf(parameter.maximum);
        if (words.isEmpty())
            for (const auto& number : numbers)
                if ((low && number.get<double>() < *low) || (high && number.get<double>() > *high)) return tr("%1 is out of range (%2)").arg(number.get<int>()).arg(rangeWords(parameter));
        return words;
    };
    const auto set = [line](const Json& value) {
        if (!value.is_array()) return;
        QStringList parts;
        for (const auto& number : value)
            if (number.is_number_integer()) parts << QString::number(number.get<int>());
        line->setText(parts.join(QStringLiteral(", ")));
    };
    return {parameter, line, [parse] { return parse(nullptr); }, set, problem};
}

ParameterForm::Field ParameterForm::makeFile(const protocol::ParameterMessage& parameter) {
    auto* holder = new QWidget(this);
    auto* row = new QHBoxLayout(holder);
    row->setContentsMargins(0, 0, 0, 0);
    auto* line = new QLineEdit(holder);
    auto* choose = new QToolButton(holder);
    choose->setText(tr("Choose..."));
    row->addWidget(line);
    row->addWidget(choose);
    holder->setFocusProxy(line);
    connect(line, &QLineEdit::textChanged, this, &ParameterForm::changed);
    connect(choose, &QToolButton::clicked, this, [this, line] {
        const QString start = line->text().isEmpty() ? m_startFolder : QFileInfo(line->text()).path();
        const QString file = QFileDialog::getOpenFileName(this, tr("Choose a file"), start);
        if (!file.isEmpty()) line->setText(file);
    });
    const auto problem = [line] { return line->text().isEmpty() || QFileInfo::exists(line->text()) ? QString() : tr("there is no file %1").arg(line->text()); };
    return {parameter, holder, [line] { return Json(line->text().toStdString()); },
            [line](const Json& value) { if (value.is_string()) line->setText(fromStd(value.get<std::string>())); }, problem};
}

ParameterForm::Field ParameterForm::makeComponents(const protocol::ParameterMessage& parameter) {
    Field field = makeText(parameter, false);
    auto* line = static_cast<QLineEdit*>(field.editor);
    auto* holder = new QWidget(this);
    auto* row = new QHBoxLayout(holder);
    row->setContentsMargins(0, 0, 0, 0);
    auto* take = new QToolButton(holder);
    take->setText(tr("Take the selection"));
    take->setObjectName(QStringLiteral("takeSelection"));
    row->addWidget(line);
    row->addWidget(take);
    holder->setFocusProxy(line);
    connect(take, &QToolButton::clicked, this, [this, line] {
        const QString text = m_selection();
        line->setText(text);
        line->setPlaceholderText(text.isEmpty() ? tr("no heads, key groups or channels are selected") : QString());
    });
    field.editor = holder;
    return field;
}

Json ParameterForm::allValues() const {
    Json values = Json::object();
    for (const auto& field : m_fields) values[field.parameter.name] = field.get();
    return values;
}

Json ParameterForm::values() const {
    Json values = Json::object();
    for (const auto& field : m_fields) {
        Json value = field.get();
        if (value != field.parameter.defaultValue && !(value == "" && field.parameter.defaultValue.is_null())) values[field.parameter.name] = std::move(value);
    }
    return values;
}

void ParameterForm::setValues(const Json& values) {
    for (const auto& field : m_fields)
        if (const auto it = values.find(field.parameter.name); it != values.end()) field.set(*it);
}

void ParameterForm::reset() {
    for (const auto& field : m_fields) field.set(field.parameter.defaultValue);
}

QStringList ParameterForm::problems() const {
    QStringList lines;
    for (const auto& field : m_fields)
        if (const QString problem = field.problem(); !problem.isEmpty())
            lines << QStringLiteral("%1: %2").arg(fromStd(field.parameter.title.empty() ? field.parameter.name : field.parameter.title), problem);
    return lines;
}

QWidget* ParameterForm::field(const std::string& name) const {
    for (const auto& field : m_fields)
        if (field.parameter.name == name) return field.editor;
    return nullptr;
}

}  // namespace resect::ui
