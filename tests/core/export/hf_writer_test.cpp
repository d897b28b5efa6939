#include "core/base/files.h"
#include "core/export/manifest.h"
#include "tests/core/export/exported.h"

#include <csignal>
#include <fstream>
#include <sys/resource.h>
#include <unistd.h>

namespace resect::test {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

void addSideFiles(const TinyCheckpoint& tiny) {
    writeText(tiny.path() / "tokenizer.json",
              R"({"model": {"vocab": {"a": 0, "b": 60}}, "added_tokens": [{"id": 59, "content": "x"}]})");
    writeText(tiny.path() / "tokenizer_config.json", "{}");
    writeText(tiny.path() / "generation_config.json", "{\"eos_token_id\": 2}");
    writeText(tiny.path() / "chat_template.jinja", "{{ messages }}");
    writeText(tiny.path() / "LICENSE", "Apache");
    writeText(tiny.path() / "README.md", "A card");
    writeText(tiny.path() / "optimizer.pt", "no");
    fs::create_directory(tiny.path() / "additional_chat_templates");
    writeText(tiny.path() / "additional_chat_templates/tool.jinja", "{{ tools }}");
}

TEST(ExportHuggingFace, WritesACompleteFolderThatOpensCleanly) {
    const ExportCase c(tinyLlama({.numBlocks = 4}));
    addSideFiles(c.tiny);
    ExportOptions options;
    options.provenance = Json{{"plan", Json{{"resect_plan", 1}}}, {"metrics", Json{{"perplexity", 5.5}}}};
    const ExportResult result = c.run({dropBlocks({2}), dropHeads(1, {5})}, options);
    EXPECT_EQ(c.left(), std::vector<std::string>{"exported"});
    EXPECT_THAT(result.files,
                testing::IsSupersetOf({"config.json", "resect.json", "resect-plan.json", "manifest.json", "model.safetensors",
                                       "tokenizer.json", "tokenizer_config.json", "generation_config.json",
                                       "chat_template.jinja", "LICENSE", "README.md", "additional_chat_templates/tool.jinja"}));
    EXPECT_THAT(result.files, Not(Contains("optimizer.pt")));
    EXPECT_EQ(readFile(c.target() / "LICENSE"), "Apache");
    const Json plan = readJsonFile(c.target() / "resect-plan.json");
    EXPECT_EQ(plan["metrics"]["perplexity"], 5.5);
    EXPECT_EQ(plan["export"]["source_fingerprint"], c.checkpoint.fingerprint());
    EXPECT_EQ(plan["export"]["source_blocks"], (Json{0, 1, 3}));

    const Checkpoint reopened = Checkpoint::open(c.target());
    const Anatomy anatomy = Anatomy::of(reopened);
    EXPECT_TRUE(anatomy.understood()) << listed(anatomy.problems());
    EXPECT_EQ(anatomy.shape(), result.shape);
    EXPECT_THAT(verifyFolder(c.target(), {}), IsEmpty()) << listed(verifyFolder(c.target(), {}));
    std::uint64_t bytes = 0;
    for (const std::string& file : result.files) bytes += fs::file_size(c.target() / file);
    EXPECT_EQ(result.bytes, bytes);
    EXPECT_LE(bytes,
              exportBytes(c.checkpoint, slicePlan(c.checkpoint, c.anatomy, c.cut({dropBlocks({2})}), SliceWay::Exact), {}));
}

TEST(ExportHuggingFace, StockShapesCarryNoFileOfOurFormat) {
    const ExportCase c(tinyQwen2());
    const ExportResult result = c.run({dropBlocks({1})});
    EXPECT_THAT(result.files, Not(Contains("resect.json")));
    EXPECT_EQ(readJsonFile(c.target() / "config.json")["num_hidden_layers"], 2);
}

TEST(ExportHuggingFace, TheSameInputsGiveTheSameBytes) {
    const ExportCase c(tinyLlama());
    c.run({dropHeads(0, {1, 4})});
    fs::rename(c.target(), c.target("first"));
    c.run({dropHeads(0, {1, 4})});
    for (const std::string& file : filesBelow(c.target()))
        EXPECT_EQ(readFile(c.target() / file), readFile(c.target("first") / file)) << file;
}

TEST(ExportHuggingFace, SplitsIntoShardsAndConverts) {
    const ExportCase c(tinyLlama({.numBlocks = 4, .shardBytes = 30000}));
    ExportOptions options;
    options.shardBytes = 20000;
    options.dtype = DType::BF16;
    const ExportResult result = c.run({dropBlocks({0})}, options);
    EXPECT_GT(result.shards.size(), 2u);
    EXPECT_THAT(result.files, Contains("model.safetensors.index.json"));
    const Checkpoint reopened = Checkpoint::open(c.target());
    for (const TensorInfo& tensor : reopened.tensors()) EXPECT_EQ(tensor.dtype, DType::BF16);
    EXPECT_EQ(readJsonFile(c.target() / "config.json")["torch_dtype"], "bfloat16");
    EXPECT_THAT(verifyFolder(c.target(), {}), IsEmpty()) << listed(verifyFolder(c.target(), {}));
}

TEST(ExportHuggingFace, AnExportCanBeCutAndExportedAgain) {
    const ExportCase first(tinyQwen3({.numBlocks = 4}));
    first.run({dropHeads(1, {0}), dropAttention({2})});
    TinyCheckpoint none;
    const Checkpoint middle = Checkpoint::open(first.target());
    const Anatomy anatomy = Anatomy::of(middle);
    const Cut cut = cutOf({"", {dropBlocks({0}), dropChannels(3, {1})}, nullptr}, anatomy.shape());
    for (SliceWay way : {SliceWay::Exact, SliceWay::Padded, SliceWay::Zeroed}) {
        ExportOptions options;
        options.way = way;
        const fs::path to = first.target(std::string(name(way)));
        exportHuggingFace(middle, anatomy, cut, to, options, {});
        EXPECT_THAT(verifyFolder(to, {}), IsEmpty()) << listed(verifyFolder(to, {}));
        EXPECT_EQ(readJsonFile(to / "config.json")["model_type"], way == SliceWay::Padded ? "qwen3" : "resect");
    }
}

TEST(ExportHuggingFace, NeverTouchesTheSourceAndRefusesTargetsInOrAroundIt) {
    const ExportCase c(tinyLlama());
    const Cut cut = c.cut({dropBlocks({1})});
    const auto refusal = [&](const fs::path& to) {
        return errorOf([&] { exportHuggingFace(c.checkpoint, c.anatomy, cut, to, {}, {}); });
    };
    EXPECT_THAT(refusal(c.tiny.path()).what(), HasSubstr("never written to"));
    EXPECT_THAT(refusal(c.tiny.path() / "sub" / "out").what(), HasSubstr("never written to"));
    EXPECT_THAT(refusal(c.tiny.path() / "sub" / ".." / ".").what(), HasSubstr("never written to"));
    EXPECT_THAT(refusal(c.tiny.path().parent_path()).what(), HasSubstr("holds the source"));
    fs::create_directory_symlink(c.tiny.path(), c.out / "link");
    EXPECT_THAT(refusal(c.out / "link" / "out").what(), HasSubstr("never written to"));
    EXPECT_THAT(refusal("").what(), HasSubstr("expected a folder"));
    EXPECT_FALSE(fs::exists(c.tiny.path() / "sub"));
}

TEST(ExportHuggingFace, RefusesATargetThatExists) {
    const ExportCase c(tinyLlama());
    fs::create_directory(c.target());
    writeText(c.target() / "mine.txt", "keep");
    EXPECT_THAT(errorOf([&] { c.run({}); }).what(), HasSubstr("exists already"));
    EXPECT_EQ(readFile(c.target() / "mine.txt"), "keep");
    EXPECT_EQ(c.left(), std::vector<std::string>{"exported"});
}

TEST(ExportHuggingFace, AStopLeavesNothing) {
    const ExportCase c(tinyLlama({.numBlocks = 6}));
    for (int after : {0, 1, 5, 20}) {
        std::stop_source stop;
        int reports = 0;
        const JobContext job(stop.get_token(), [&](const Progress&) {
            if (++reports > after) stop.request_stop();
        });
        if (after == 0) stop.request_stop();
        EXPECT_EQ(errorOf([&] { c.run({dropBlocks({1})}, {}, job); }).code(), ErrorCode::Stopped);
        EXPECT_THAT(c.left(), IsEmpty()) << "stopped after " << after;
    }
}

TEST(ExportHuggingFace, AFailingComparisonLeavesNothing) {
    const ExportCase c(tinyLlama());
    fs::path seen;
    const auto finish = [&](const fs::path& staged) {
        seen = staged;
        EXPECT_THAT(verifyFolder(staged, {}), IsEmpty()) << "the staged folder is complete";
        throw Error(ErrorCode::Internal, "logits", "they differ");
    };
    EXPECT_THAT(errorOf([&] {
                    exportHuggingFace(c.checkpoint, c.anatomy, c.cut({dropBlocks({1})}), c.target(), {}, {}, finish);
                }).what(),
                HasSubstr("they differ"));
    EXPECT_FALSE(fs::exists(seen));
    EXPECT_THAT(c.left(), IsEmpty());
}

TEST(ExportHuggingFace, FilesThatTheComparisonAddsAreInTheManifest) {
    const ExportCase c(tinyLlama());
    const ExportResult result =
        exportHuggingFace(c.checkpoint, c.anatomy, c.cut({dropBlocks({1})}), c.target(), {}, {},
                          [](const fs::path& staged) { writeText(staged / "resect-report.json", "{}"); });
    EXPECT_THAT(result.files, Contains("resect-report.json"));
    EXPECT_THAT(verifyFolder(c.target(), {}), IsEmpty());
}

/// Files may not grow past a limit for the length of a scope: what a full disk looks like to a writer.
class SmallFiles {
public:
    explicit SmallFiles(rlim_t bytes) {
        getrlimit(RLIMIT_FSIZE, &m_before);
        m_handler = std::signal(SIGXFSZ, SIG_IGN);
        const rlimit small{bytes, m_before.rlim_max};
        setrlimit(RLIMIT_FSIZE, &small);
    }
    ~SmallFiles() {
        setrlimit(RLIMIT_FSIZE, &m_before);
        std::signal(SIGXFSZ, m_handler);
    }

private:
    rlimit m_before{};
    void (*m_handler)(int) = nullptr;
};

TEST(ExportHuggingFace, AFullDiskLeavesNothing) {
    const ExportCase c(tinyLlama({.numBlocks = 6}));
    addSideFiles(c.tiny);
    std::ofstream(c.tiny.path() / "tokenizer.model")
        << std::string(300000, 'x');  // larger than the weights: fails while being carried over
    for (rlim_t bytes : {0, 100, 5000, 60000, 200000}) {
        const Error error = [&] {
            const SmallFiles limit(bytes);
            return errorOf([&] { c.run({dropBlocks({1})}); });
        }();
        EXPECT_EQ(error.code(), ErrorCode::DiskFull) << error.what();
        EXPECT_THAT(c.left(), IsEmpty()) << bytes;
    }
}

TEST(ExportHuggingFace, AReadOnlyFolderIsRefusedAndNothingIsLeft) {
    const ExportCase c(tinyLlama());
    if (::geteuid() == 0) {  // permissions do not bind root, but a file system that refuses new folders does
        EXPECT_THAT(
            errorOf([&] { exportHuggingFace(c.checkpoint, c.anatomy, c.cut({}), "/proc/resect-export", {}, {}); }).code(),
            testing::AnyOf(ErrorCode::NoPermission, ErrorCode::NotFound, ErrorCode::DiskFull, ErrorCode::BadInput));
        return;
    }
    fs::permissions(c.out.path(), fs::perms::owner_read | fs::perms::owner_exec);
    EXPECT_EQ(errorOf([&] { c.run({}); }).code(), ErrorCode::NoPermission);
    fs::permissions(c.out.path(), fs::perms::owner_all);
    EXPECT_THAT(c.left(), IsEmpty());
}

TEST(ExportHuggingFace, RefusesACheckpointThatIsNotUnderstood) {
    TinyCheckpoint tiny = tinyLlama();
    tiny.config["model_type"] = "foo_lm";
    tiny.save();
    const Checkpoint checkpoint = tiny.open();
    const Anatomy anatomy = Anatomy::of(checkpoint);
    const TempFolder out;
    EXPECT_THAT(errorOf([&] { exportHuggingFace(checkpoint, anatomy, {}, out / "x", {}, {}); }).what(), HasSubstr("foo_lm"));
}

TEST(ExportHuggingFace, RefusesQuantisedWeightsAndNamesTheField) {
    TinyCheckpoint tiny = tinyLlama();
    tiny.config["quantization_config"] = Json{{"quant_method", "gptq"}};
    tiny.save();
    const Checkpoint checkpoint = tiny.open();
    const Anatomy anatomy = Anatomy::of(checkpoint);
    const TempFolder out;
    EXPECT_THAT(errorOf([&] { exportHuggingFace(checkpoint, anatomy, {}, out / "x", {}, {}); }).what(),
                HasSubstr("quantization_config"));
}

TEST(ExportHuggingFace, CutsRealCheckpointsEachWay) {
    RESECT_NEED_SHARED_DATA("golden/llama-gqa");
    for (const char* name : {"llama-gqa", "llama-mha-tied", "llama-bf16-sharded", "llama-f16", "llama-rope-llama3",
                             "mistral-sliding", "qwen2", "mixtral"})
        for (SliceWay way : {SliceWay::Exact, SliceWay::Padded, SliceWay::Zeroed}) {
            const Checkpoint checkpoint = Checkpoint::open(sharedData(std::string("golden/") + name));
            const Anatomy anatomy = Anatomy::of(checkpoint);
            ASSERT_TRUE(anatomy.understood()) << name << "\n" << listed(anatomy.problems());
            const TempFolder out;
            ExportOptions options;
            options.way = way;
            const Cut cut = cutOf({"", {dropBlocks({1}), dropHeads(2, {0}), dropMlp({0})}, nullptr}, anatomy.shape());
            exportHuggingFace(checkpoint, anatomy, cut, out / "x", options, {});
            EXPECT_THAT(verifyFolder(out / "x", {}), IsEmpty()) << name << "\n" << listed(verifyFolder(out / "x", {}));
        }
}

}  // namespace
}  // namespace resect::test
