#include "core/anatomy/anatomy.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "tests/support/tiny_checkpoint.h"

#include <gtest/gtest.h>
#include <random>

// Damaged files are opened or refused with an Error; nothing else may come out, and what opens must be readable to its last byte.

namespace resect {
namespace {

using namespace test;

std::byte touchAll(const Checkpoint& checkpoint) {
    std::byte sum{};
    for (const TensorInfo& tensor : checkpoint.tensors())
        for (const std::byte byte : checkpoint.bytes(tensor)) sum ^= byte;
    return sum;
}

TEST(Fuzz, DamagedShardHeadersAreReadOrRefused) {
    const auto tiny = tinyLlama({.numBlocks = 1, .ffnSize = 5});
    const std::filesystem::path file = tiny.path() / "model.safetensors";
    const std::string original = readFile(file);
    const std::size_t headerEnd = 8 + static_cast<unsigned char>(original[0]) + 256u * static_cast<unsigned char>(original[1]);
    std::mt19937 random(7);
    int opened = 0, refused = 0;
    constexpr std::string_view kLikely = "0123456789-.,:[]{}\"e \0\xff";
    for (int round = 0; round < 1500; ++round) {
        std::string damaged = original;
        for (unsigned change = 0; change <= random() % 3; ++change) {
            const std::size_t at = random() % headerEnd;
            damaged[at] = random() % 4 == 0 ? static_cast<char>(random()) : kLikely[random() % kLikely.size()];
        }
        if (round % 5 == 0) damaged.resize(random() % damaged.size());
        writeText(file, damaged);
        try {
            const auto checkpoint = tiny.open();
            touchAll(checkpoint);
            Anatomy::of(checkpoint);
            ++opened;
        } catch (const Error& error) {
            EXPECT_FALSE(error.message().empty());
            ++refused;
        }
    }
    EXPECT_GT(refused, 500);
    EXPECT_GT(opened, 10) << "names may change without breaking the file";
}

TEST(Fuzz, StrangeConfigsAreProblemsNotCrashes) {
    auto tiny = tinyMixtral({.numBlocks = 2});
    std::mt19937 random(11);
    const std::vector<Json> values = {nullptr, true, 0, -1, 1, 2, 3, 7.5, 1e300, std::int64_t{1} << 62, 18446744073709551615u, "", "llama", "resect",
                                      Json::array(), Json::array({1, "x"}), Json::object(), Json{{"type", "linear"}, {"factor", -1}}};
    const std::vector<const char*> more = {"rope_scaling", "rope_parameters", "layer_types", "quantization_config", "attention_bias"};
    int understood = 0;
    for (int round = 0; round < 1500; ++round) {
        Json config = tiny.config;
        for (unsigned change = 0; change <= random() % 2; ++change) {
            if (random() % 4 == 0) {
                config[more[random() % more.size()]] = values[random() % values.size()];
                continue;
            }
            auto field = config.begin();
            std::advance(field, random() % config.size());
            if (random() % 5 == 0)
                config.erase(field.key());
            else
                *field = values[random() % values.size()];
        }
        writeText(tiny.path() / "config.json", config.dump());
        const auto checkpoint = tiny.open();
        const auto anatomy = Anatomy::of(checkpoint);
        EXPECT_EQ(anatomy.understood(), !hasErrors(anatomy.problems())) << config.dump();
        understood += anatomy.understood();
    }
    EXPECT_GT(understood, 50);
    EXPECT_LT(understood, 1400);
}

}  // namespace
}  // namespace resect
