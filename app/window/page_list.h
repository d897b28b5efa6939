#pragma once
#include "app/pages/page.h"

#include <vector>

namespace resect::ui {

class BlockStripPanel;

/// The tabs of the main area, in their order.
std::vector<Page*> makePages(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent);
/// The strip of blocks above them.
BlockStripPanel* makeBlockStrip(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent);

}  // namespace resect::ui
