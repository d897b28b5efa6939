#pragma once
#include "core/protocol/messages.h"

namespace resect::test {

/// 5 blocks, hidden 24, 6 query heads in 3 key groups of 7, 20 channels; block 3 has no MLP, block 4 has one key group less.
inline protocol::ModelMessage tinyMessage() {
    protocol::ModelMessage model;
    model.name = "tiny", model.fingerprint = "sha256:abc", model.family = "llama", model.familyTitle = "Llama";
    model.hiddenSize = 24;
    model.embeddingParameters = model.headParameters = 24 * 31;
    model.finalNormParameters = 24;
    model.parameters = 2 * 24 * 31 + 24;
    for (int i = 0; i < 5; ++i) {
        protocol::BlockMessage block;
        block.index = i, block.numHeads = i == 4 ? 4 : 6, block.numKvHeads = i == 4 ? 2 : 3, block.headDim = 7, block.ffnSize = i == 3 ? 0 : 20, block.hasFfn = i != 3;
        block.headsPerKv.assign(static_cast<std::size_t>(block.numKvHeads), 2);
        block.attentionParameters = 24 * 7 * 2 * (block.numHeads + block.numKvHeads);
        block.ffnParameters = 3 * 24 * block.ffnSize;
        block.parameters = block.attentionParameters + block.ffnParameters;
        model.parameters += block.parameters;
        model.blocks.push_back(block);
    }
    model.bytes = model.parameters * 4;
    return model;
}

}  // namespace resect::test
