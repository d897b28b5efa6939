#pragma once
#include <QString>

namespace resect::ui {

/// Opens a checkpoint (empty: the demo) in a window, measures, selects, plans, previews, recovers, exports, and writes a picture of every page and dialog in
/// both themes and report.txt into `folder`. `data`: what to measure and train on; empty = the demo's text, which image models cannot run. Returns 0 when every step worked, 1 otherwise; the report says which did not. Uses a workspace of its own.
int runScreenshotTour(const QString& folder, const QString& checkpoint, const QString& data);

}  // namespace resect::ui
