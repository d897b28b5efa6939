#pragma once
#include "core/data/demo_world.h"

#include <string>

namespace resect {

/// A story of a few sentences, and where in it a question can be asked.
struct DemoStory {
    std::string text;
    /// Equal for stories about the same plot, people and things; decides between training and held out.
    std::uint64_t combination = 0;
    std::size_t questionEnd = 0;  ///< text up to here is a prompt that `answer` continues; 0 = no question
    std::string answer;
};

/// A random story of `world`: something moved, shared, mended, a journey, a lost animal, or bad weather.
DemoStory makeDemoStory(const DemoWorld& world, DemoRandom& random);

}  // namespace resect
