#include "core/method/method.h"

#include "core/base/error.h"
#include "core/train/recipe.h"

#include <algorithm>

namespace resect {

namespace {
[[noreturn]] void throwTaken(const char* what, const std::string& id) {
    throw Error(ErrorCode::Internal, std::string(what) + " " + id, std::string("the ") + what + " id \"" + id + "\" is already registered");
}
}  // namespace

void MethodRegistry::add(std::unique_ptr<Method> method) {
    if (find(method->info().id)) throwTaken("method", method->info().id);
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

bool MethodRegistry::hasRecipe(std::string_view id) const noexcept {
    return std::any_of(m_recipes.begin(), m_recipes.end(), [&](const auto& recipe) { return recipe->info().id == id; });
}

void MethodRegistry::addRecipe(std::shared_ptr<const Recipe> recipe) {
    if (hasRecipe(recipe->info().id)) throwTaken("recipe", recipe->info().id);
    m_recipes.push_back(std::move(recipe));
}

void MethodRegistry::merge(MethodRegistry other) {
    for (const auto& method : other.m_methods)
        if (find(method->info().id)) throwTaken("method", method->info().id);
    for (const auto& recipe : other.m_recipes)
        if (hasRecipe(recipe->info().id)) throwTaken("recipe", recipe->info().id);
    for (auto& method : other.m_methods) add(std::move(method));
    for (auto& recipe : other.m_recipes) addRecipe(std::move(recipe));
}

}  // namespace resect
