#pragma once
#include <QString>

#include <string>

class QLineEdit;
class QWidget;

namespace resect::ui {

/// What a model runs: text files, or images (a folder of them, an IDX file or one picture).
enum class DataKind { Text, Images };
/// Of the open model's `input`.
DataKind dataKind(const std::string& input);
/// `line` with what opens a file dialog beside it; for images one for folders and one for files.
QWidget* dataChooser(QLineEdit* line, const QString& title, DataKind kind, QWidget* parent);
/// Is there something of this kind at the path? Folders only for images.
bool dataExists(const QString& path, DataKind kind);

}  // namespace resect::ui
