// Writes a Llama-shaped checkpoint for measuring: by default 70B parameters in 30 sparse shards, which take next to no disk space.
//   make_sparse_checkpoint FOLDER [--blocks N] [--hidden N] [--heads N] [--kv-heads N] [--ffn N] [--vocab N] [--shards N] [--fill]
//   make_sparse_checkpoint FOLDER --blocks 8 --hidden 4096 --heads 32 --kv-heads 8 --ffn 14336 --vocab 32000 --shards 4 --fill    # 4 GB of real bytes
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "tests/support/generated_checkpoint.h"

#include <cstdio>
#include <map>
#include <string>

int main(int argc, char** argv) try {
    using namespace resect;
    test::GeneratedOptions options;
    const std::map<std::string, int*> sizes = {{"--blocks", &options.numBlocks}, {"--hidden", &options.hiddenSize}, {"--heads", &options.numHeads},
                                               {"--kv-heads", &options.numKvHeads}, {"--ffn", &options.ffnSize}, {"--vocab", &options.vocabSize},
                                               {"--shards", &options.numShards}};
    std::string folder;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        const auto size = sizes.find(word);
        if (word == "--fill") {
            options.fill = true;
        } else if (size != sizes.end() && i + 1 < argc && parseInt(argv[i + 1])) {
            *size->second = static_cast<int>(*parseInt(argv[++i]));
        } else if (folder.empty() && !word.starts_with("-")) {
            folder = word;
        } else {
            throw Error(ErrorCode::Usage, word, "not understood; the source file's head shows the options");
        }
    }
    if (folder.empty()) throw Error(ErrorCode::Usage, "", "expected the folder to write");
    std::printf("%s of tensors in %s\n", formatBytes(test::generateCheckpoint(folder, options)).c_str(), folder.c_str());
    return 0;
} catch (const resect::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return exitCode(error.code());
}
