#pragma once
#include "widgets/plots/theme.h"

#include <QFrame>
#include <QIcon>
#include <QLabel>
#include <QString>

namespace resect::ui {

/// An icon of resources/icons, drawn in the text colour of the theme in force (muted when disabled). Ask again after ThemeNotifier::changed.
QIcon icon(const QString& name);
/// The same in a colour of its own, for severities.
QIcon icon(const QString& name, const QColor& colour);
/// "error", "warning", "note", "good" with its colour.
QIcon severityIcon(const QString& severity);
/// The program's own icon, in colour.
QIcon programIcon();

/// resources/styles/window.qss with the theme's colours.
QString windowStyleSheet(const Theme& theme);

/// A label with a role of the style sheet: heading, title, help, muted, error, good, chip. Words wrap, text can be selected.
QLabel* makeLabel(const QString& text, const char* role = nullptr, QWidget* parent = nullptr);
/// Sets a property that the style sheet asks for, and styles the widget anew.
void setStyleProperty(QWidget* widget, const char* name, const QVariant& value);

/// A check box that can be seen in both themes (Fusion's outline all but vanishes on dark backgrounds).
void drawCheckBox(QPainter& painter, const QRect& rect, Qt::CheckState state);

/// Words of a runtime's verdict: "opens", "opens after padding", "needs code beside it", "does not open".
QString verdictWords(const std::string& verdict);

}  // namespace resect::ui
