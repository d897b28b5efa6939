#include "core/data/demo_story.h"

#include <initializer_list>

namespace resect {
namespace {

constexpr std::string_view kTimes[] = {"One morning", "One evening",      "On a cold day",     "In the spring",
                                       "After lunch", "Early in the day", "Late in the summer"};
constexpr std::string_view kPlaces[] = {"barn", "cellar", "kitchen", "garden", "attic", "stable", "shed", "yard"};
constexpr std::string_view kGlad[] = {"was glad", "smiled", "laughed", "was very happy"};

struct Cause {
    std::string_view event, effect;
};
constexpr Cause kMoves[] = {
    {"It began to rain", "dry"}, {"A goat came near", "safe"}, {"The sun grew hot", "cool"}, {"A strong wind blew", "safe"}};
constexpr Cause kNoises[] = {{"a loud bang", "was afraid"},
                             {"thunder", "was afraid"},
                             {"an open gate", "was free"},
                             {"the smell of food", "was hungry"}};
struct Weather {
    std::string_view signs, missing, effect, cure;
};
constexpr Weather kWeather[] = {
    {"Dark clouds came over", "coat", "got wet in the rain", "sat by the fire until everything was dry"},
    {"Snow fell on", "gloves", "had cold hands", "drank hot soup until the hands were warm"},
    {"The sun burned over", "hat", "became tired and thirsty", "rested in the shade and drank cold water"},
    {"Fog lay over", "lamp", "lost the way", "waited there until the fog was gone"}};

struct Teller {
    const DemoWorld& world;
    DemoRandom& random;
    DemoStory story;

    template <class... Parts>
    void say(const Parts&... parts) {
        (story.text.append(parts), ...);
    }
    /// Marks everything so far as a prompt; `answer` comes next.
    void ask(std::string_view answer) {
        story.questionEnd = story.text.size();
        story.answer = answer;
    }
    void combine(std::initializer_list<std::string_view> parts) {
        std::uint64_t hash = 1469598103934665603ull;  // FNV-1a
        for (const std::string_view part : parts) {
            for (const char c : part) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
            hash = (hash ^ 0xFF) * 1099511628211ull;
        }
        story.combination = hash;
    }
    const DemoPerson& anyone() { return random.pick(world.people); }
    const DemoPerson& anyoneBut(const DemoPerson& person) {
        const DemoPerson* other = &anyone();
        while (other->name == person.name) other = &anyone();
        return *other;
    }
    std::string_view placeBut(std::string_view place) {
        std::string_view other = random.pick(kPlaces);
        while (other == place) other = random.pick(kPlaces);
        return other;
    }
    const DemoTown& townOf(const DemoPerson& person) const { return world.towns[person.town]; }
};

std::string capital(std::string text) {
    if (!text.empty() && text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 'a' + 'A');
    return text;
}

void tellMove(Teller& t) {
    const DemoPerson& a = t.anyone();
    const DemoPerson& b = t.anyoneBut(a);
    const std::string_view thing = t.random.pick(DemoWorld::things()).name, from = t.random.pick(kPlaces),
                           to = t.placeBut(from);
    const Cause& cause = t.random.pick(kMoves);
    t.combine({"move", a.name, thing, to});
    t.say(t.random.pick(kTimes), " ", a.name, " put the ", thing, " in the ", from, " and went to the market of ",
          t.townOf(a).name, ". ", cause.event, ", so ", b.name, " moved the ", thing, " to the ", to, ", where it was ",
          cause.effect, ". When ", a.name, " came back, ", a.he(), " looked in the ", from, ", but the ", thing,
          " was not there. ", b.name, " told ", a.him(), " why. So ", a.name, " found the ", thing, " in the");
    t.ask(to);
    t.say(" ", to, " and ", t.random.pick(kGlad), ".");
}

void tellShare(Teller& t) {
    const DemoPerson& a = t.anyone();
    const DemoPerson& b = t.anyoneBut(a);
    const int all = t.random.between(3, 12), given = t.random.between(1, all - 2);
    const std::string n = std::to_string(all), m = std::to_string(given), left = std::to_string(all - given);
    const std::string_view food = t.random.pick(DemoWorld::foods());
    t.combine({"share", a.name, food, n, m});
    t.say(t.random.pick(kTimes), " ", a.name, " bought ", n, " ", food, ". On the way home ", a.he(), " met ", b.name,
          ", who was hungry. ", a.name, " gave ", b.name, " ", m, " of the ", food, ". ", n, " minus ", m, " is ", left,
          ", so ", a.name, " now had");
    t.ask(left);
    t.say(" ", left, ". ", b.name, " ate the ", food, ", was not hungry any more and said thank you.");
}

void tellMend(Teller& t) {
    const DemoPerson& a = t.anyone();
    const DemoThing& thing = t.random.pick(DemoWorld::things());
    const DemoPerson* mender = &t.world.tradesman(thing.trade, t.random);
    t.combine({"mend", a.name, thing.name});
    if (mender->name == a.name) {
        t.say("The ", thing.name, " of ", a.name, " was broken. ", capital(a.he()), " mended it alone, because ", a.name,
              " is a");
        t.ask(a.trade);
        t.say(" ", a.trade, ".");
        return;
    }
    t.say("The ", thing.name, " of ", a.name, " was broken. ", a.name, " knew that somebody in ", t.townOf(*mender).name,
          " could mend a ", thing.name, ". So ", a.he(), " took it to a");
    t.ask(thing.trade);
    t.say(" ", thing.trade, ". It was ", mender->name, ", who mended the ", thing.name, ". ", a.name, " paid with ",
          mender->food, ", because ", mender->name, " likes ", mender->food, ".");
}

void tellJourney(Teller& t) {
    const DemoPerson& a = t.anyone();
    const DemoTown* to = &t.random.pick(t.world.towns);
    while (to->name == t.townOf(a).name) to = &t.random.pick(t.world.towns);
    t.combine({"journey", a.name, to->name});
    t.say(t.random.pick(kTimes), " ", a.name, " left home in ", t.townOf(a).name, " and travelled to ", to->name, " in the ",
          to->region, ". There ", a.he(), " crossed the bridge over the");
    t.ask(to->river);
    t.say(" ", to->river, " and bought ", to->product, " at the market, for ", to->name, " is known for it. Back in ",
          t.townOf(a).name, ", ", a.name, " showed the ", to->product, " to a friend and ", t.random.pick(kGlad), ".");
}

void tellAnimal(Teller& t) {
    const DemoPerson& a = t.anyone();
    const Cause& cause = t.random.pick(kNoises);
    const std::string_view first = t.random.pick(kPlaces), last = t.placeBut(first);
    t.combine({"animal", a.name, first, last});
    t.say(t.random.pick(kTimes), " there was ", cause.event, ", and the ", a.pet, " of ", a.name, " ran away, because it ",
          cause.effect, ". ", a.name, " looked in the ", first, ", but saw nothing. Then ", a.he(), " heard a sound from the ",
          last, ". The ", a.pet, " was in the");
    t.ask(last);
    t.say(" ", last, ". ", a.name, " carried it back to the ", a.houseColour, " house and ", t.random.pick(kGlad), ".");
}

void tellWeather(Teller& t) {
    const DemoPerson& a = t.anyone();
    const DemoPerson& b = t.anyoneBut(a);
    const Weather& weather = t.random.pick(kWeather);
    t.combine({"weather", a.name, b.name, weather.missing});
    t.say(weather.signs, " ", t.townOf(b).name, ". ", a.name, ", who was visiting, had no ", weather.missing, " and ",
          weather.effect, ". ", b.name, " saw it and called ", a.him(), " into the house, which is");
    t.ask(b.houseColour);
    t.say(" ", b.houseColour, ". There ", a.he(), " ", weather.cure, ". Next time ", a.name, " took a ",
          weather.missing == "gloves" ? "pair of gloves" : weather.missing, " along.");
}

}  // namespace

DemoStory makeDemoStory(const DemoWorld& world, DemoRandom& random) {
    using Plot = void (*)(Teller&);
    static constexpr Plot kPlots[] = {tellMove, tellShare, tellMend, tellJourney, tellAnimal, tellWeather};
    Teller teller{world, random, {}};
    random.pick(kPlots)(teller);
    return std::move(teller.story);
}

}  // namespace resect
