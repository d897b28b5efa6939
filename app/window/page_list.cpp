#include "app/window/page_list.h"

#if __has_include("app/pages/overview_page.h")
#include "app/pages/overview_page.h"
#define RESECT_HAS_OVERVIEW
#endif
#if __has_include("app/pages/similarity_page.h")
#include "app/pages/similarity_page.h"
#define RESECT_HAS_SIMILARITY
#endif
#if __has_include("app/pages/heads_page.h")
#include "app/pages/heads_page.h"
#define RESECT_HAS_HEADS
#endif
#if __has_include("app/pages/channels_page.h")
#include "app/pages/channels_page.h"
#define RESECT_HAS_CHANNELS
#endif
#if __has_include("app/pages/text_page.h")
#include "app/pages/text_page.h"
#define RESECT_HAS_TEXT
#endif
#if __has_include("app/pages/block_strip.h")
#include "app/pages/block_strip.h"
#define RESECT_HAS_STRIP
#endif

namespace resect::ui {

std::vector<Page*> makePages([[maybe_unused]] Document& document, [[maybe_unused]] SelectionModel& selection, [[maybe_unused]] WorkerClient& client, [[maybe_unused]] QWidget* parent) {
    std::vector<Page*> pages;
#ifdef RESECT_HAS_OVERVIEW
    pages.push_back(new OverviewPage(document, selection, client, parent));
#endif
#ifdef RESECT_HAS_SIMILARITY
    pages.push_back(new SimilarityPage(document, selection, client, parent));
#endif
#ifdef RESECT_HAS_HEADS
    pages.push_back(new HeadsPage(document, selection, client, parent));
#endif
#ifdef RESECT_HAS_CHANNELS
    pages.push_back(new ChannelsPage(document, selection, client, parent));
#endif
#ifdef RESECT_HAS_TEXT
    pages.push_back(new TextPage(document, selection, client, parent));
#endif
    return pages;
}

QWidget* makeBlockStrip([[maybe_unused]] Document& document, [[maybe_unused]] SelectionModel& selection, [[maybe_unused]] WorkerClient& client, QWidget* parent) {
#ifdef RESECT_HAS_STRIP
    return new BlockStrip(document, selection, client, parent);
#else
    return new QWidget(parent);
#endif
}

}  // namespace resect::ui
