#pragma once
#include "app/client/worker_client.h"
#include "widgets/models/document.h"
#include "widgets/models/selection_model.h"

#include <QWidget>

namespace resect::ui {

/// One tab of the main area. Constructed as `XPage(Document&, SelectionModel&, WorkerClient&, QWidget* parent = nullptr)`; the three outlive it.
///
/// Pages read the document, listen to its signals, and put what they measured into it (Document::addMeasure). They exist with and
/// without an open model and show an empty state of their own (ui.md D12). Errors are shown in the page, then given to message().
class Page : public QWidget {
    Q_OBJECT
public:
    Page(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent = nullptr)
        : QWidget(parent), m_document(document), m_selection(selection), m_client(client) {}

    virtual QString title() const = 0;   ///< of the tab
    virtual QString id() const = 0;      ///< "overview": for layouts, the palette and file names of pictures
    /// F5: run the page's analysis again (or for the first time). Nothing when it has none.
    virtual void rerun() {}
    /// Double click elsewhere: bring this part into view. False when the page does not show such parts.
    virtual bool reveal(const ComponentRef&) { return false; }
    /// Ctrl+0, Ctrl++, Ctrl+-: factor 0 resets.
    virtual void zoom(double factor) { Q_UNUSED(factor) }
    /// True while something that a picture should show is still being asked for (used by the screenshot tour).
    virtual bool busy() const { return false; }

Q_SIGNALS:
    void message(const resect::protocol::ProblemMessage& problem);
    /// Show another page and this part in it; page id "" = whichever shows such parts best.
    void openRequested(const QString& pageId, const resect::ui::ComponentRef& ref);

protected:
    Document& m_document;
    SelectionModel& m_selection;
    WorkerClient& m_client;
};

}  // namespace resect::ui
