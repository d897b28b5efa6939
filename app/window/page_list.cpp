#include "app/window/page_list.h"

#include "app/pages/block_strip_panel.h"
#include "app/pages/channels_page.h"
#include "app/pages/compare_page.h"
#include "app/pages/experts_page.h"
#include "app/pages/heads_page.h"
#include "app/pages/overview_page.h"
#include "app/pages/router_page.h"
#include "app/pages/similarity_page.h"
#include "app/pages/tensors_page.h"
#include "app/pages/text_page.h"

namespace resect::ui {

std::vector<Page*> makePages(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent) {
    return {new OverviewPage(document, selection, client, parent), new SimilarityPage(document, selection, client, parent),
            new HeadsPage(document, selection, client, parent), new ChannelsPage(document, selection, client, parent),
            new ExpertsPage(document, selection, client, parent), new RouterPage(document, selection, client, parent),
            new TensorsPage(document, selection, client, parent), new TextPage(document, selection, client, parent),
            new ComparePage(document, selection, client, parent)};
}

BlockStripPanel* makeBlockStrip(Document& document, SelectionModel& selection, WorkerClient& client, QWidget* parent) {
    return new BlockStripPanel(document, selection, client, parent);
}

}  // namespace resect::ui
