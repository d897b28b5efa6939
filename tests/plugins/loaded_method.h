#pragma once
#include "core/method/method.h"

#include <filesystem>
#include <string>

namespace resect::test {

/// A method of the built plugins, which are loaded once.
inline const Method& loadedMethod(const std::string& id) {
    static const MethodRegistry* const registry = [] {
        auto* loaded = new MethodRegistry;
        loadPlugins(*loaded, {std::filesystem::path(RESECT_BINARY_DIR) / "lib/resect/plugins"});
        return loaded;
    }();
    return registry->method(id);
}

}  // namespace resect::test
