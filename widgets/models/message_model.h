#pragma once
#include "core/protocol/messages.h"

#include <QAbstractListModel>
#include <QDateTime>

#include <vector>

namespace resect::ui {

/// Messages in plain words, newest first, the last 500. A repeat of the newest one counts up instead of filling the list.
class MessageModel final : public QAbstractListModel {
    Q_OBJECT
public:
    enum Role { SeverityRole = Qt::UserRole, SubjectRole, AdviceRole, TimeRole };
    using QAbstractListModel::QAbstractListModel;

    void add(const protocol::ProblemMessage& message);
    void clear();
    int unread() const noexcept { return m_unread; }
    void markRead();

    int rowCount(const QModelIndex& parent = {}) const override;
    QVariant data(const QModelIndex& index, int role) const override;

Q_SIGNALS:
    void unreadChanged();

private:
    struct Row {
        protocol::ProblemMessage message;
        QDateTime time;
        int count = 1;
    };
    static constexpr int kLongest = 500;
    std::vector<Row> m_rows;
    int m_unread = 0;
};

}  // namespace resect::ui
