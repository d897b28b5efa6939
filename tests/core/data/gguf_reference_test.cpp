#include "core/checkpoint/gguf_file.h"
#include "core/data/gguf_vocabulary.h"
#include "core/export/gguf_export.h"
#include "core/export/gguf_import.h"
#include "tests/support/tiny_checkpoint.h"

#include <gmock/gmock.h>

#include <cstring>
#include <set>

namespace resect::test {
namespace {

namespace fs = std::filesystem;

/// stories260K against the file that llama.cpp's own converter (and, for F16, its quantiser) made of it.
class GgufReference : public testing::TestWithParam<const char*> {
protected:
    GgufFile ours(GgufType type) const {
        const fs::path folder = sharedData("models/stories260K-hf");
        const Checkpoint source = Checkpoint::open(folder);
        const Anatomy anatomy = Anatomy::of(source);
        GgufOptions options;
        options.type = type;
        options.vocabulary = readGgufVocabulary(folder, anatomy.shape().vocabSize, source.config());
        exportGguf(source, anatomy, emptyCut(anatomy.shape()), m_folder / "ours.gguf", options, {});
        return GgufFile::open(m_folder / "ours.gguf");
    }
    TempFolder m_folder;
};

TEST_P(GgufReference, EqualsFieldByField) {
    RESECT_NEED_SHARED_DATA("gguf");
    RESECT_NEED_SHARED_DATA("models/stories260K-hf");
    const std::string type = GetParam();
    const GgufFile reference = GgufFile::open(sharedData("gguf/stories260K-" + type + ".gguf")), found = ours(*ggufTypeFromName(type));
    // No deliberate differences: every key is there with the same type and value, and no other.
    for (const GgufEntry& entry : reference.metadata()) {
        const GgufValue* value = found.find(entry.key);
        ASSERT_NE(value, nullptr) << entry.key;
        EXPECT_EQ(*value, entry.value) << entry.key << ": expected " << entry.value.shown() << ", found " << value->shown();
    }
    EXPECT_EQ(found.metadata().size(), reference.metadata().size());
    // The order of tensors is the only thing that may differ: the reference's is that of its tools.
    ASSERT_EQ(found.tensors().size(), reference.tensors().size());
    for (const GgufTensor& tensor : reference.tensors()) {
        const GgufTensor* other = found.findTensor(tensor.name);
        ASSERT_NE(other, nullptr) << tensor.name;
        EXPECT_EQ(other->shape, tensor.shape) << tensor.name;
        EXPECT_EQ(other->type, tensor.type) << tensor.name;
        const auto a = reference.bytes(tensor), b = found.bytes(*other);
        EXPECT_TRUE(a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0) << tensor.name;
    }
    EXPECT_EQ(fs::file_size(found.path()), fs::file_size(reference.path()));
}

TEST_P(GgufReference, ImportsAsTheCheckpointItWasMadeOf) {
    RESECT_NEED_SHARED_DATA("gguf");
    RESECT_NEED_SHARED_DATA("models/stories260K-hf");
    const std::string type = GetParam();
    const GgufFile reference = GgufFile::open(sharedData("gguf/stories260K-" + type + ".gguf"));
    importGguf(reference, m_folder / "imported", {}, {}, [&](const fs::path& staged) { return writeTokenizerFiles(reference, staged); });
    const Checkpoint imported = Checkpoint::open(m_folder / "imported"), source = Checkpoint::open(sharedData("models/stories260K-hf"));
    ModelShape shape = Anatomy::of(imported).shape();
    shape.torchDtype = "float32";
    EXPECT_EQ(shape, Anatomy::of(source).shape());
    for (const TensorInfo& tensor : source.tensors()) {
        const auto expected = valuesOf(source, tensor.name), values = valuesOf(imported, tensor.name);
        ASSERT_EQ(values.size(), expected.size());
        for (std::size_t i = 0; i < values.size(); ++i)
            ASSERT_EQ(values[i], type == "f32" ? expected[i] : decode(encode({expected[i]}, imported.find(tensor.name)->dtype), imported.find(tensor.name)->dtype)[0]) << tensor.name;
    }
}

INSTANTIATE_TEST_SUITE_P(Types, GgufReference, testing::Values("f32", "f16"));

TEST(GgufReferenceFiles, AnOldModelImports) {
    RESECT_NEED_SHARED_DATA("gguf");
    const TempFolder folder;
    const GgufFile file = GgufFile::open(sharedData("gguf/llama-2-tiny-random.gguf"));
    importGguf(file, folder / "imported", {}, {}, [&](const fs::path& staged) { return writeTokenizerFiles(file, staged); });
    const Checkpoint imported = Checkpoint::open(folder / "imported");
    EXPECT_TRUE(Anatomy::of(imported).understood());
    EXPECT_EQ(imported.find("model.layers.0.mlp.down_proj.weight")->dtype, DType::F16);
}

}  // namespace
}  // namespace resect::test
