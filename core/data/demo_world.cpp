#include "core/data/demo_world.h"

#include <utility>

namespace resect {
namespace {

constexpr std::string_view kTowns[] = {"Tarn", "Oslen",  "Brill", "Kesh", "Dunmere", "Falk",
                                       "Ilva", "Perrin", "Quill", "Rusk", "Selby",   "Wend"};
constexpr std::string_view kRivers[] = {"Lune", "Varra", "Teel", "Moss"};
constexpr std::string_view kRegions[] = {"north", "south", "east", "west"};
constexpr std::string_view kProducts[] = {"salt", "wool",   "honey", "glass", "paper", "tea",
                                          "silk", "cheese", "iron",  "cider", "soap",  "butter"};
constexpr std::string_view kWomen[] = {"Mara",  "Lena", "Tilda", "Nora",  "Runa",  "Dora",  "Petra", "Vera",
                                       "Hilda", "Rosa", "Carla", "Bella", "Greta", "Wanda", "Sonja", "Judith"};
constexpr std::string_view kMen[] = {"Odo",   "Bruno", "Felix", "Jasper", "Karl", "Leo", "Milo",   "Nils",
                                     "Oscar", "Paul",  "Ralf",  "Simon",  "Theo", "Ulf", "Viktor", "Hugo"};
constexpr std::string_view kTrades[] = {"smith", "weaver", "potter", "carpenter", "tailor", "fisher", "cobbler", "baker"};
constexpr std::string_view kPets[] = {"cat", "dog", "goat", "hen", "horse", "rabbit", "duck", "pig"};
constexpr std::string_view kColours[] = {"red", "blue", "green", "yellow", "white", "black", "grey", "brown"};

struct Form {
    std::vector<std::string_view> beginnings;  ///< # stands for the name
};

const Form kHome{{"# lives in", "The home of # is in", "# has a house in", "Where does # live? In"}};
const Form kTrade{{"# works as a", "By trade # is a", "People know # as a", "What does # do? # is a"}};
const Form kPet{{"# keeps a", "The animal of # is a", "At home # feeds a", "Which animal does # keep? A"}};
const Form kHouse{
    {"The house of # is", "# painted the house", "The door and the walls of # are", "What colour is the house of #? It is"}};
const Form kFood{{"# likes to eat", "The favourite food of # is", "Most of all # enjoys", "What does # like to eat? Mostly"}};
const Form kRiver{
    {"# lies on the river", "The river of # is the", "The bridge in # crosses the", "On which river does # lie? On the"}};
const Form kRegion{{"# lies in the", "To reach #, travel", "The road to # leads", "Where in the land is #? In the"}};
const Form kProduct{{"# is known for its", "People go to # to buy", "The market of # sells", "What does # make? It makes"}};

DemoFact fact(const Form& form, std::string_view name, std::string_view value, DemoRandom& random) {
    DemoFact fact;
    for (const std::string_view beginning : form.beginnings) {
        std::string text;
        for (const char c : beginning) {
            if (c == '#')
                text += name;
            else
                text += c;
        }
        fact.beginnings.push_back(std::move(text));
    }
    fact.value = value;
    fact.heldOut = random.below(fact.beginnings.size());
    return fact;
}

/// A list in which every value occurs about equally often, in random order.
template <class List>
std::vector<std::string> dealt(const List& values, std::size_t count, DemoRandom& random) {
    std::vector<std::string> list;
    for (std::size_t i = 0; i < count; ++i) list.emplace_back(values[i % std::size(values)]);
    random.shuffle(list);
    return list;
}

}  // namespace

std::uint64_t DemoRandom::next() noexcept {
    m_state += 0x9E3779B97F4A7C15ull;
    std::uint64_t z = m_state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

std::size_t DemoRandom::below(std::size_t count) noexcept {
    return static_cast<std::size_t>((next() >> 32) * static_cast<std::uint64_t>(count) >> 32);
}

const std::vector<DemoThing>& DemoWorld::things() {
    static const std::vector<DemoThing> list = {
        {"kettle", "smith"}, {"knife", "smith"},     {"basket", "weaver"},  {"blanket", "weaver"}, {"jug", "potter"},
        {"bowl", "potter"},  {"chair", "carpenter"}, {"cart", "carpenter"}, {"coat", "tailor"},    {"shirt", "tailor"},
        {"net", "fisher"},   {"boat", "fisher"},     {"boot", "cobbler"},   {"belt", "cobbler"}};
    return list;
}

const std::vector<std::string_view>& DemoWorld::foods() {
    static const std::vector<std::string_view> list = {"apples", "pears", "plums",   "nuts",
                                                       "cakes",  "eggs",  "carrots", "cherries"};
    return list;
}

DemoWorld DemoWorld::make(std::uint64_t seed) {
    DemoRandom random(seed ^ 0x776F726C64ull);
    DemoWorld world;
    const std::size_t numTowns = std::size(kTowns);
    const auto rivers = dealt(kRivers, numTowns, random), regions = dealt(kRegions, numTowns, random),
               products = dealt(kProducts, numTowns, random);
    for (std::size_t i = 0; i < numTowns; ++i)
        world.towns.push_back({std::string(kTowns[i]), rivers[i], regions[i], products[i]});
    const std::size_t numPeople = std::size(kWomen) + std::size(kMen);
    const auto homes = dealt(kTowns, numPeople, random), trades = dealt(kTrades, numPeople, random),
               pets = dealt(kPets, numPeople, random), colours = dealt(kColours, numPeople, random),
               foods = dealt(DemoWorld::foods(), numPeople, random);
    for (std::size_t i = 0; i < numPeople; ++i) {
        const bool female = i % 2 == 0;
        std::size_t town = 0;
        while (world.towns[town].name != homes[i]) ++town;
        world.people.push_back(
            {std::string(female ? kWomen[i / 2] : kMen[i / 2]), female, town, trades[i], pets[i], colours[i], foods[i]});
    }
    for (const DemoPerson& person : world.people) {
        world.facts.push_back(fact(kHome, person.name, world.towns[person.town].name, random));
        world.facts.push_back(fact(kTrade, person.name, person.trade, random));
        world.facts.push_back(fact(kPet, person.name, person.pet, random));
        world.facts.push_back(fact(kHouse, person.name, person.houseColour, random));
        world.facts.push_back(fact(kFood, person.name, person.food, random));
    }
    for (const DemoTown& town : world.towns) {
        world.facts.push_back(fact(kRiver, town.name, town.river, random));
        world.facts.push_back(fact(kRegion, town.name, town.region, random));
        world.facts.push_back(fact(kProduct, town.name, town.product, random));
    }
    return world;
}

const DemoPerson& DemoWorld::tradesman(std::string_view trade, DemoRandom& random) const {
    std::vector<const DemoPerson*> found;
    for (const DemoPerson& person : people) {
        if (person.trade == trade) found.push_back(&person);
    }
    return *random.pick(found);  // trades are dealt evenly, so that there always is one
}

}  // namespace resect
