#include "core/method/method.h"

#include "core/base/error.h"

#include <algorithm>

namespace resect {

namespace {
[[noreturn]] void throwTaken(const std::string& id) {
    throw Error(ErrorCode::Internal, "method " + id, "the method id \"" + id + "\" is already registered");
}
}  // namespace

void MethodRegistry::add(std::unique_ptr<Method> method) {
    if (find(method->info().id)) throwTaken(method->info().id);
    m_methods.push_back(std::move(method));
}

const Method* MethodRegistry::find(std::string_view id) const noexcept {
    const auto it = std::find_if(m_methods.begin(), m_methods.end(), [&](const auto& method) { return method->info().id == id; });
    return it == m_methods.end() ? nullptr : it->get();
}

const Method& MethodRegistry::method(std::string_view id) const {
    if (const Method* found = find(id)) return *found;
    std::string all;
    for (const auto& method : m_methods) all += (all.empty() ? "" : ", ") + method->info().id;
    throw Error(ErrorCode::Usage, "method " + std::string(id), "there is no such method; " + (all.empty() ? "none is registered" : "there are " + all));
}

void MethodRegistry::merge(MethodRegistry other) {
    for (const auto& method : other.m_methods)
        if (find(method->info().id)) throwTaken(method->info().id);
    for (auto& method : other.m_methods) add(std::move(method));
}

}  // namespace resect
