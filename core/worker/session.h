#pragma once
#include "core/worker/catalogue.h"
#include "core/worker/opened.h"

#include <memory>
#include <mutex>

namespace resect {

/// What the server remembers between requests: the methods and the model that is open.
class Session {
public:
    Session() : m_catalogue(loadCatalogue()) {}
    const Catalogue& catalogue() const noexcept { return m_catalogue; }
    /// Throws NotFound when no model is open.
    std::shared_ptr<OpenedCheckpoint> opened() const;
    void replace(std::shared_ptr<OpenedCheckpoint> opened);

private:
    Catalogue m_catalogue;
    mutable std::mutex m_mutex;
    std::shared_ptr<OpenedCheckpoint> m_opened;
};

}  // namespace resect
