#pragma once
#include "core/data/jinja_value.h"

#include <ctime>

// What templates can call: attributes and methods, filters, tests and functions, as Jinja2 3.1 defines them.

namespace resect::jinja {

/// `value.name`: a method of the type, else the field; undefined when there is neither. Fails on an undefined value.
Value attributeOf(const Value& value, const std::string& name, Work& work);
/// `value[key]`: the item or field, else a method of that name; undefined when there is neither.
Value itemOf(const Value& value, const Value& key, Work& work);
/// `value[from:to:step]` with Python's meaning of absent and negative parts.
Value sliceOf(const Value& value, const Value& from, const Value& to, const Value& step, Work& work);
/// A method of a text, list or dict; undefined when the type has none of that name. Those that would change the value are
/// refused when they are called, as in transformers' sandbox.
Value methodOf(const Value& value, const std::string& name);

using TextMethod = Value (*)(const std::string& text, const Arguments&, Work&);
TextMethod findTextMethod(std::string_view name);  ///< null when texts have none of that name
using Filter = Value (*)(const Value&, const Arguments&, Work&);
Filter findListFilter(std::string_view name);  ///< those that go through the items of a value; null when there is none

Value applyFilter(const std::string& name, const Value& value, const Arguments& arguments, Work& work);
bool applyTest(const std::string& name, const Value& value, const Arguments& arguments, Work& work);

/// `op` is one of + - * / // % ** ~.
Value applyBinary(const std::string& op, const Value& a, const Value& b, Work& work);
/// `op` is one of == != < <= > >= in, not in.
bool compare(const std::string& op, const Value& a, const Value& b, Work& work);

/// range, dict, raise_exception, strftime_now; undefined for another name. `now` is what strftime_now() tells.
Value functionNamed(const std::string& name, std::time_t now);

/// Number of items, entries or characters; fails for other types.
std::int64_t lengthOf(const Value& value, Work& work);
/// A text made of `text`, charged to `work`.
Value madeText(std::string text, Work& work);
/// Fails when more or other arguments are given than these names.
void requireArguments(const std::string& what, const Arguments& arguments, std::initializer_list<std::string_view> names,
                      const Work& work);
std::string textArgument(const Arguments& arguments, std::size_t index, std::string_view name, std::string fallback,
                         Work& work);
std::int64_t wholeArgument(const Arguments& arguments, std::size_t index, std::string_view name, std::int64_t fallback,
                           Work& work);
bool flagArgument(const Arguments& arguments, std::size_t index, std::string_view name, bool fallback);

}  // namespace resect::jinja
