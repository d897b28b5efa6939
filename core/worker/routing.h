#pragma once
#include "core/worker/opened.h"

#include <cstdint>
#include <string>
#include <vector>

namespace resect {

/// Where the routers of a mixture send each token of a text.
struct RoutedText {
    struct Block {
        int block = 0, numExperts = 0;
        std::vector<std::vector<std::int64_t>> experts;  ///< [T][K], most weight first
        std::vector<std::vector<double>> gates;          ///< [T][K]: the weights of their outputs, same order
    };
    std::vector<std::string> tokens;
    std::vector<Block> blocks;                           ///< those with experts, ascending
    bool shortened = false;                              ///< the text had more than `maxTokens` tokens
};

/// Of a typed text. Throws Unsupported when no block has experts, Usage for an empty text, Stopped.
RoutedText routeText(OpenedCheckpoint& opened, const std::string& text, int maxTokens, const Compute& compute, const JobContext& job);
/// Of row `row` of a data file. Throws also what OpenedCheckpoint::data throws, and NotFound past its last row.
RoutedText routeRow(OpenedCheckpoint& opened, const protocol::DataMessage& data, std::int64_t row, int maxTokens, const Compute& compute, const JobContext& job);
Json toJson(const RoutedText& routed);

}  // namespace resect
