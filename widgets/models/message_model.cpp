#include "widgets/models/message_model.h"

namespace resect::ui {

void MessageModel::add(const protocol::ProblemMessage& message) {
    if (!m_rows.empty() && m_rows.front().message.message == message.message && m_rows.front().message.subject == message.subject) {
        ++m_rows.front().count;
        m_rows.front().time = QDateTime::currentDateTime();
        Q_EMIT dataChanged(index(0), index(0));
    } else {
        beginInsertRows({}, 0, 0);
        m_rows.insert(m_rows.begin(), {message, QDateTime::currentDateTime()});
        endInsertRows();
    }
    if (static_cast<int>(m_rows.size()) > kLongest) {
        beginRemoveRows({}, kLongest, static_cast<int>(m_rows.size()) - 1);
        m_rows.resize(kLongest);
        endRemoveRows();
    }
    ++m_unread;
    Q_EMIT unreadChanged();
}

void MessageModel::clear() {
    beginResetModel();
    m_rows.clear();
    m_unread = 0;
    endResetModel();
    Q_EMIT unreadChanged();
}

void MessageModel::markRead() {
    if (m_unread == 0) return;
    m_unread = 0;
    Q_EMIT unreadChanged();
}

int MessageModel::rowCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : static_cast<int>(m_rows.size()); }

QVariant MessageModel::data(const QModelIndex& index, int role) const {
    if (!index.isValid() || index.row() >= rowCount()) return {};
    const Row& row = m_rows[static_cast<size_t>(index.row())];
    const auto fromStd = [](const std::string& text) { return QString::fromStdString(text); };
    switch (role) {
    case Qt::DisplayRole: case Qt::ToolTipRole: {
        QString text = fromStd(row.message.message);
        if (!row.message.subject.empty()) text = fromStd(row.message.subject) + QStringLiteral(": ") + text;
        if (!row.message.advice.empty()) text += QLatin1Char(' ') + fromStd(row.message.advice);
        return row.count > 1 ? QStringLiteral("%1 (%2 times)").arg(text).arg(row.count) : text;
    }
    case SeverityRole: return fromStd(row.message.severity);
    case SubjectRole: return fromStd(row.message.subject);
    case AdviceRole: return fromStd(row.message.advice);
    case TimeRole: return row.time;
    default: return {};
    }
}

}  // namespace resect::ui
