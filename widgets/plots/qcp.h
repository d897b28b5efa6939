#pragma once
// QCustomPlot's header needs Qt's keywords, which this project's own code does without (QT_NO_KEYWORDS): include it only from here.
#include <QtGlobal>
#include <QObject>

#ifdef QT_NO_KEYWORDS
#define signals Q_SIGNALS
#define slots Q_SLOTS
#define emit Q_EMIT
#define foreach Q_FOREACH
#endif
#include <qcustomplot.h>
#ifdef QT_NO_KEYWORDS
#undef signals
#undef slots
#undef emit
#undef foreach
#endif
