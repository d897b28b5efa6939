#include "app/pages/data_chooser.h"

#include <QFileDialog>
#include <QFileInfo>
#include <QHBoxLayout>
#include <QLineEdit>
#include <QToolButton>

namespace resect::ui {

DataKind dataKind(const std::string& input) { return input == "images" ? DataKind::Images : DataKind::Text; }

bool dataExists(const QString& path, DataKind kind) {
    const QFileInfo info(path);
    return info.isFile() || (kind == DataKind::Images && info.isDir());
}

QWidget* dataChooser(QLineEdit* line, const QString& title, DataKind kind, QWidget* parent) {
    auto* holder = new QWidget(parent);
    auto* row = new QHBoxLayout(holder);
    row->setContentsMargins(0, 0, 0, 0);
    row->addWidget(line);
    holder->setFocusProxy(line);
    const auto add = [&](const QString& text, auto ask) {
        auto* choose = new QToolButton(holder);
        choose->setText(text);
        row->addWidget(choose);
        QObject::connect(choose, &QToolButton::clicked, holder, [line, ask] {
            if (const QString found = ask(); !found.isEmpty()) line->setText(found);
        });
    };
    const auto near = [line] { return QFileInfo(line->text()).path(); };
    if (kind == DataKind::Images) {
        line->setPlaceholderText(QObject::tr("a folder with one folder per class, or an IDX file"));
        add(QObject::tr("Folder..."), [=] { return QFileDialog::getExistingDirectory(holder, title, near()); });
        add(QObject::tr("File..."), [=] { return QFileDialog::getOpenFileName(holder, title, near(), QObject::tr("Images (*.gz *ubyte *.png *.jpg *.jpeg);;All files (*)")); });
    } else {
        add(QObject::tr("Choose..."), [=] { return QFileDialog::getOpenFileName(holder, title, near(), QObject::tr("Text and data (*.txt *.jsonl *.json);;All files (*)")); });
    }
    return holder;
}

}  // namespace resect::ui
