#pragma once
#include "core/protocol/messages.h"

#include <QWidget>

#include <functional>
#include <vector>

class QToolButton;

namespace resect::ui {

/// A form built from declared parameters: title, field with unit and range, help as tool tip and below the field; advanced ones folded away.
/// Fields that hold their default are left out of values(), so that a later default reaches old settings.
class ParameterForm final : public QWidget {
    Q_OBJECT
public:
    explicit ParameterForm(QWidget* parent = nullptr);

    void setParameters(const std::vector<protocol::ParameterMessage>& parameters);
    /// {name: value} of the fields that differ from their default.
    Json values() const;
    Json allValues() const;
    /// Unknown names and values of another type are ignored; ranges clamp.
    void setValues(const Json& values);
    void reset();
    /// What the user must correct, one line each ("Targets: entry 2 is not a whole number"); empty when the form can be sent.
    QStringList problems() const;
    /// The field of a parameter, for tests and for linking fields; null when there is none.
    QWidget* field(const std::string& name) const;
    /// Tells text-like fields where a File parameter starts looking.
    void setStartFolder(const QString& folder) { m_startFolder = folder; }
    /// A text whose unit is "components" names parts of the model and gets a button that writes what is selected there: the answer of `text`
    /// (empty = nothing that can be named), asked when it is pressed. To be set before setParameters.
    void setSelectionSource(std::function<QString()> text) { m_selection = std::move(text); }

Q_SIGNALS:
    void changed();

private:
    struct Field {
        protocol::ParameterMessage parameter;
        QWidget* editor = nullptr;
        std::function<Json()> get;
        std::function<void(const Json&)> set;
        std::function<QString()> problem;
    };
    Field makeField(const protocol::ParameterMessage& parameter);
    Field makeInteger(const protocol::ParameterMessage& parameter);
    Field makeReal(const protocol::ParameterMessage& parameter);
    Field makeText(const protocol::ParameterMessage& parameter, bool list);
    Field makeFile(const protocol::ParameterMessage& parameter);
    Field makeComponents(const protocol::ParameterMessage& parameter);

    std::vector<Field> m_fields;
    QString m_startFolder;
    std::function<QString()> m_selection;
    QToolButton* m_advancedButton = nullptr;
    QWidget* m_advanced = nullptr;
};

}  // namespace resect::ui
