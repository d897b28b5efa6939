#include "tests/support/generated_checkpoint.h"

#include "core/anatomy/family.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "tests/support/tiny_checkpoint.h"

#include <cstring>

namespace resect::test {

namespace fs = std::filesystem;

namespace {

Json configOf(const GeneratedOptions& o) {
    return {{"architectures", Json::array({"LlamaForCausalLM"})}, {"model_type", "llama"}, {"vocab_size", o.vocabSize}, {"hidden_size", o.hiddenSize},
            {"intermediate_size", o.ffnSize}, {"num_hidden_layers", o.numBlocks}, {"num_attention_heads", o.numHeads},
            {"num_key_value_heads", o.numKvHeads}, {"max_position_embeddings", 8192}, {"rms_norm_eps", 1e-5}, {"rope_theta", 500000.0},
            {"tie_word_embeddings", false}, {"torch_dtype", "bfloat16"}};
}

/// Numbers that are bf16 values between -2 and 2, different everywhere and impossible to compress.
void produceRandom(std::uint64_t seed, std::uint64_t bytes, const std::function<void(std::span<const std::byte>)>& sink) {
    std::vector<std::uint16_t> buffer(1 << 20);
    for (std::uint64_t done = 0; done < bytes;) {
        for (auto& value : buffer) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            value = static_cast<std::uint16_t>(seed >> 48) & 0xbfff;
        }
        const auto n = std::min<std::uint64_t>(bytes - done, buffer.size() * 2);
        sink(std::as_bytes(std::span(buffer)).first(n));
        done += n;
    }
}

std::string headerOf(const std::vector<ExpectedTensor>& tensors, std::uint64_t& dataBytes) {
    std::string header = R"({"__metadata__":{"format":"pt"})";
    dataBytes = 0;
    for (const ExpectedTensor& tensor : tensors) {
        Json entry = {{"dtype", "BF16"}, {"shape", tensor.shape}};
        std::uint64_t bytes = 2;
        for (const std::int64_t size : tensor.shape) bytes *= static_cast<std::uint64_t>(size);
        entry["data_offsets"] = {dataBytes, dataBytes + bytes};
        dataBytes += bytes;
        header += ",\"" + tensor.name + "\":" + entry.dump();
    }
    return header + "}";
}

}  // namespace

std::uint64_t generateCheckpoint(const fs::path& folder, const GeneratedOptions& options) {
    fs::create_directories(folder);
    const Json config = configOf(options);
    writeJsonFile(folder / "config.json", config);
    const auto tensors = expectedTensors(readModelShape(config, nullptr, "config.json"));
    std::uint64_t total = 0;
    for (const ExpectedTensor& tensor : tensors) total += 2 * static_cast<std::uint64_t>(tensor.shape[0]) * static_cast<std::uint64_t>(tensor.shape.size() > 1 ? tensor.shape[1] : 1);
    Json index;
    index["metadata"]["total_size"] = total;
    std::uint64_t written = 0, seed = 1;
    std::size_t next = 0;
    for (int shard = 1; shard <= options.numShards; ++shard) {
        const auto five = [](int value) { return std::string(5 - std::to_string(value).size(), '0') + std::to_string(value); };
        const std::string name = "model-" + five(shard) + "-of-" + five(options.numShards) + ".safetensors";
        std::vector<ExpectedTensor> own;
        std::vector<TensorSource> sources;
        const std::uint64_t goal = total / static_cast<std::uint64_t>(options.numShards) * static_cast<std::uint64_t>(shard);
        while (next < tensors.size() && (written < goal || shard == options.numShards || own.empty())) {
            sources.push_back({tensors[next].name, DType::BF16, tensors[next].shape, {}});
            const std::uint64_t bytes = sources.back().bytes();
            sources.back().produce = [bytes, start = ++seed](const auto& sink) { produceRandom(start, bytes, sink); };
            index["weight_map"][tensors[next].name] = name;
            written += bytes;
            own.push_back(tensors[next++]);
        }
        if (options.fill) {
            writeSafetensors(folder / name, sources, {{"format", "pt"}});
            continue;
        }
        std::uint64_t dataBytes = 0;
        const std::string header = headerOf(own, dataBytes);
        writeRawSafetensors(folder / name, header, "");
        fs::resize_file(folder / name, 8 + header.size() + dataBytes);
    }
    writeJsonFile(folder / "model.safetensors.index.json", index);
    return total;
}

}  // namespace resect::test
