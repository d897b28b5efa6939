#pragma once
#include "app/pages/page.h"
#include "tests/widgets/plots/pictures.h"

#include <QApplication>
#include <QTest>
#include <gtest/gtest.h>

namespace resect::ui::test {

/// A document and a worker that answers from the sample models; the worker is this test program itself.
class PageTest : public testing::Test {
protected:
    void SetUp() override {
        client.setProgram(QCoreApplication::applicationFilePath(), {QStringLiteral("serve")});
        client.start();
        document.setWorkspace(QStringLiteral("/data/sample.resect"));
    }
    void prepare(Page& page, QSize size = {1000, 640}) {
        page.resize(size);
        page.show();
        ASSERT_TRUE(QTest::qWaitFor([&] { return !page.busy(); }, 10000));
        settle();
    }
    static void settle() {
        for (int i = 0; i < 4; ++i) QApplication::processEvents();
    }
    static void savePage(QWidget& page, const std::string& name) {
        savePictures(page, name, {1024, 520});
        savePictures(page, name, {1600, 800});
    }
    SelectionModel& selection() { return document.selection(); }
    Document document;
    WorkerClient client;
};

}  // namespace resect::ui::test
