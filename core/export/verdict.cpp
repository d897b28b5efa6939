#include "core/export/verdict.h"

#include "core/anatomy/family.h"
#include "core/base/error.h"
#include "core/base/numbers.h"
#include "core/export/decilm.h"
#include "core/export/gguf_choice.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <map>

namespace resect {

namespace {

/// What about an edited shape decides who opens it. Numbers in comments: rows of the matrix that the table below is taken from.
enum Feature : std::size_t {
    UnknownFamily,
    BlocksDropped,         // S1
    MlpOddWidth,           // S3: not a multiple of 32, what block quantisers want
    HiddenOddWidth,        // S11: not a multiple of 32
    MlpVaries,             // S4
    HeadsExplicit,         // S5, S6: heads x headDim is not hidden_size, so that `head_dim` must be read from the configuration
    HeadsNotDividing,      // S5: hidden_size is not a multiple of the head count
    GroupsUnequal,         // query heads per kv group differ within a block
    KvVaries,              // S7
    HeadsVary,             // S8
    AttentionAbsent,       // S9
    FirstAttentionAbsent,  // S9
    MlpAbsent,             // S10
    ExpertsVary,           // S13; equally many fewer (S12) opens everywhere
    WindowsShifted,        // S1c: sliding blocks no longer stand where their index says
    DenseAmongMixtures,    // some blocks have a dense MLP, the others experts
    Pictures,              // a vision transformer
    Headless,              // a text tower alone
    Towers,                // several transformers in one checkpoint
    NumFeatures,
};
using Features = std::bitset<NumFeatures>;

struct Rule {
    Feature feature;
    std::string_view families;  ///< space-separated model types; "*" = all
    Runtime runtime;
    Verdict verdict;
    std::string_view reason;  ///< {heads}, {hidden}, {width}: numbers of the shape
};

constexpr auto T = Runtime::Transformers;
constexpr auto V = Runtime::Vllm;
constexpr auto L = Runtime::LlamaCpp;
constexpr auto P = Runtime::Peft;
constexpr auto kOpens = Verdict::Opens;
constexpr auto kPad = Verdict::AfterPadding;
constexpr auto kNo = Verdict::No;

/// From the sources of transformers 4.44-5.15, vLLM 2025-26, llama.cpp 2025-26 and PEFT 0.20 as read, not run: see
/// LoadAdvice::Evidence. The first rule that matches family and runtime counts for a feature; no rule = opens.
constexpr std::array kRules{
    Rule{UnknownFamily, "*", T, kNo, "Resect does not know this family, so it cannot say."},
    Rule{UnknownFamily, "*", V, kNo, "Resect does not know this family, so it cannot say."},
    Rule{UnknownFamily, "*", L, kNo, "Resect does not know this family, so it cannot say."},
    Rule{UnknownFamily, "*", P, kNo, "Resect does not know this family, so it cannot say."},

    Rule{BlocksDropped, "*", P, kOpens, "Adapters made before the cut number other blocks and do not fit any more."},

    Rule{MlpOddWidth, "*", L, kOpens,
         "MLP width {width} is not a multiple of 32: opens, but block quantisation falls back to F16 for these tensors."},

    Rule{HiddenOddWidth, "*", L, kOpens, "Hidden size {hidden} is not a multiple of 32: opens, but block quantisation falls back to F16 for nearly all tensors."},

    Rule{MlpVaries, "*", T, kPad, "It reads one intermediate_size for all blocks; here MLP widths differ."},
    Rule{MlpVaries, "*", V, kPad, "It reads one intermediate_size for all blocks; here MLP widths differ."},
    Rule{MlpVaries, "*", L, kPad, "Its converter writes one feed_forward_length for this family; here MLP widths differ."},
    Rule{MlpVaries, "*", P, kPad, "Opens on the padded copy, as the base model must open in transformers."},

    Rule{HeadsExplicit, "llama mistral", T, kOpens, "Needs transformers 4.45 or newer, which reads head_dim."},
    Rule{HeadsExplicit, "gpt2 vit deit timm_vit timm_deit timm_wrapper clip_vision_model clip_text_model", T, kPad, "Its class derives the head size from {hidden} / {heads}, which is not the real one."},
    Rule{HeadsExplicit, "gpt2", V, kPad, "It derives the head size from {hidden} / {heads}, which is not the real one."},
    Rule{HeadsExplicit, "gpt2 vit deit timm_vit timm_deit timm_wrapper clip_vision_model clip_text_model", P, kPad, "The base model opens in transformers only after padding."},
    Rule{HeadsExplicit, "deepseek", T, kPad, "Its class derives the head size from {hidden} / {heads}, which is not the real one."},
    Rule{HeadsExplicit, "deepseek", V, kPad, "It derives the head size from {hidden} / {heads}, which is not the real one."},
    Rule{HeadsExplicit, "deepseek", P, kPad, "The base model opens in transformers only after padding."},
    Rule{HeadsExplicit, "qwen2 mixtral qwen2_moe phi3", T, kOpens,
         "Needs transformers 4.48 or newer; older ones derive the head size from {hidden} / {heads}."},
    Rule{HeadsExplicit, "qwen2 qwen2_moe phi3", V, kPad,
         "It derives the head size from hidden_size / heads for this family: {hidden} / {heads} is not the real one."},
    Rule{HeadsExplicit, "qwen2 qwen2_moe phi3 gpt2", L, kPad,
         "Releases of 2025 expect query and output matrices of {hidden} x {hidden} for this family."},

    Rule{HeadsNotDividing, "llama", T, kPad, "LlamaConfig refuses {heads} heads: hidden_size {hidden} is not a multiple."},
    Rule{HeadsNotDividing, "llama", V, kPad,
         "It reads transformers' LlamaConfig, which refuses {heads} heads at hidden_size {hidden}."},
    Rule{HeadsNotDividing, "llama", P, kPad, "The base model opens in transformers only after padding."},

    Rule{GroupsUnequal, "*", T, kPad,
         "It finds the key head of a query head by position, so every kv group needs as many query heads."},
    Rule{GroupsUnequal, "*", V, kPad,
         "It finds the key head of a query head by position, so every kv group needs as many query heads."},
    Rule{GroupsUnequal, "*", L, kPad,
         "It finds the key head of a query head by position, so every kv group needs as many query heads."},
    Rule{GroupsUnequal, "*", P, kPad, "Opens on the padded copy, as the base model must open in transformers."},

    Rule{KvVaries, "*", T, kPad, "It reads one num_key_value_heads for all blocks; here they differ."},
    Rule{KvVaries, "*", V, kPad, "It reads one num_key_value_heads for all blocks; here they differ."},
    Rule{KvVaries, "*", L, kPad,
         "Its loader takes the kv head count of block 0 for all blocks of this family; here they differ."},
    Rule{KvVaries, "*", P, kPad, "Opens on the padded copy, as the base model must open in transformers."},

    Rule{HeadsVary, "*", T, kPad, "It reads one num_attention_heads for all blocks; here they differ."},
    Rule{HeadsVary, "*", V, kPad, "It reads one num_attention_heads for all blocks; here they differ."},
    Rule{HeadsVary, "*", L, kPad,
         "Its loader takes the head count of block 0 for all blocks of this family; here they differ."},
    Rule{HeadsVary, "*", P, kPad, "Opens on the padded copy, as the base model must open in transformers."},

    Rule{AttentionAbsent, "*", T, kPad, "Its class has attention in every block; the padded copy holds a zero attention."},
    Rule{AttentionAbsent, "*", V, kPad, "It expects attention in every block; the padded copy holds a zero attention."},
    Rule{AttentionAbsent, "*", L, kPad,
         "It expects attention in every block of this family; the padded copy holds a zero attention."},
    Rule{AttentionAbsent, "*", P, kPad, "Opens on the padded copy; adapter weights of removed modules must go."},
    Rule{FirstAttentionAbsent, "*", V, kPad, "It takes the head layout from block 0, whose attention is dropped."},
    Rule{FirstAttentionAbsent, "*", L, kPad, "It takes the head layout from block 0, whose attention is dropped."},

    Rule{MlpAbsent, "*", T, kPad, "Its class has an MLP in every block; the padded copy holds a zero MLP."},
    Rule{MlpAbsent, "*", V, kPad, "It expects an MLP in every block; the padded copy holds a zero MLP."},
    Rule{MlpAbsent, "*", L, kPad, "It expects an MLP in every block of this family; the padded copy holds a zero MLP."},
    Rule{MlpAbsent, "*", P, kPad, "Opens on the padded copy; adapter weights of removed modules must go."},

    Rule{ExpertsVary, "*", T, kNo,
         "It reads one expert count for all blocks, and a padded expert could be chosen by the router: keep as many in every "
         "block."},
    Rule{ExpertsVary, "*", V, kNo,
         "It reads one expert count for all blocks, and a padded expert could be chosen by the router: keep as many in every "
         "block."},
    Rule{ExpertsVary, "*", L, kNo,
         "It reads one expert count for all blocks, and a padded expert could be chosen by the router: keep as many in every "
         "block."},
    Rule{ExpertsVary, "*", P, kNo, "The base model does not open in transformers."},

    Rule{WindowsShifted, "*", T, kOpens, "Needs transformers 4.53 or newer, which reads layer_types; older ones take every second block as sliding."},
    Rule{WindowsShifted, "*", V, kOpens, "Needs a release that reads layer_types; older ones take every second block as sliding."},
    Rule{WindowsShifted, "*", L, kNo, "It takes every second block as sliding, whatever the file says: drop pairs of blocks."},
    Rule{WindowsShifted, "*", P, kOpens, "Needs transformers 4.53 or newer, which reads layer_types."},

    Rule{Pictures, "*", V, kNo, "It serves language models; this is a vision transformer."},
    Rule{Pictures, "*", L, kNo, "It runs language models; this is a vision transformer."},

    Rule{Pictures, "timm_vit timm_deit timm_wrapper", T, kOpens, "Through timm, or as timm_wrapper where the timm package is installed."},
    Rule{Headless, "*", V, kNo, "It serves language models; this is a text tower without a head."},
    Rule{Headless, "*", L, kNo, "It runs language models; this is a text tower without a head."},
    Rule{HeadsExplicit, "clip_vision_model clip_text_model", V, kPad, "It derives the head size from {hidden} / {heads}, which is not the real one."},
    Rule{Towers, "clip", V, kNo, "It serves language models; this compares pictures and texts."},
    Rule{Towers, "*", L, kNo, "It wants language model and picture projector as two .gguf files, which Resect does not write."},

    Rule{DenseAmongMixtures, "qwen2_moe qwen3_moe", L, kNo, "It expects a mixture of experts in every block of this family."},
};

bool listed(std::string_view list, std::string_view modelType) {
    if (list == "*") return true;
    while (!list.empty()) {
        const std::size_t end = std::min(list.find(' '), list.size());
        if (list.substr(0, end) == modelType) return true;
        list.remove_prefix(std::min(end + 1, list.size()));
    }
    return false;
}

const BlockShape* firstWith(const ModelShape& shape, bool BlockShape::*layer) {
    const auto found =
        std::find_if(shape.blocks.begin(), shape.blocks.end(), [&](const BlockShape& block) { return block.*layer; });
    return found == shape.blocks.end() ? nullptr : &*found;
}

Features featuresOf(const ModelShape& shape) {
    Features features;
    const Family* family = findFamily(shape.modelType);
    if (!family) return features.set(UnknownFamily);
    const BlockShape* attention = firstWith(shape, &BlockShape::hasAttention);
    const BlockShape *dense = nullptr, *mixture = nullptr;  // the first of each kind
    features[FirstAttentionAbsent] = !shape.blocks.empty() && !shape.blocks.front().hasAttention;
    constexpr int kQuantBlock = 32;
    features[HiddenOddWidth] = shape.hiddenSize % kQuantBlock != 0;
    for (std::size_t i = 0; i < shape.blocks.size() && family->window == Family::Window::Alternating; ++i)
        if ((shape.blocks[i].slidingWindow > 0) != (i % 2 == 0)) features.set(WindowsShifted);
    for (const BlockShape& block : shape.blocks) {
        if (!block.hasAttention) features.set(AttentionAbsent);
        if (!block.hasFfn) features.set(MlpAbsent);
        if (block.hasAttention) {
            if (!block.groupsAreEqual()) features.set(GroupsUnequal);
            if (block.numHeads != attention->numHeads) features.set(HeadsVary);
            if (block.numKvHeads != attention->numKvHeads) features.set(KvVaries);
            if (std::int64_t{block.numHeads} * block.headDim != shape.hiddenSize) features.set(HeadsExplicit);
            if (family->needsHiddenDivisibleByHeads && shape.hiddenSize % block.numHeads != 0) features.set(HeadsNotDividing);
        }
        if (block.hasFfn) {
            const BlockShape*& kind = block.numExperts > 0 ? mixture : dense;
            if (!kind) kind = &block;
            if (block.ffnSize != kind->ffnSize) features.set(MlpVaries);
            if (block.ffnSize % kQuantBlock != 0) features.set(MlpOddWidth);
            if (block.numExperts != kind->numExperts) features.set(ExpertsVary);
        }
    }
    features[DenseAmongMixtures] = dense && mixture;
    features[Pictures] = family->image != nullptr;
    features[Headless] = family->headless;
    return features;
}

std::string filledIn(std::string_view reason, const ModelShape& shape) {
    const BlockShape* attention = firstWith(shape, &BlockShape::hasAttention);
    const BlockShape* ffn = firstWith(shape, &BlockShape::hasFfn);
    int heads = attention ? attention->numHeads : 0, width = ffn ? ffn->ffnSize : 0;
    for (const BlockShape& block : shape.blocks) {  // the number that the sentence is about
        if (block.hasAttention && shape.hiddenSize % block.numHeads != 0) heads = block.numHeads;
        if (block.hasFfn && block.ffnSize % 32 != 0) width = block.ffnSize;
    }
    const std::map<std::string_view, std::int64_t> numbers{
        {"{heads}", heads}, {"{hidden}", shape.hiddenSize}, {"{width}", width}};
    std::string text(reason);
    for (const auto& [key, number] : numbers)
        for (std::size_t at = text.find(key); at != std::string::npos; at = text.find(key))
            text.replace(at, key.size(), toText(number));
    return text;
}

std::vector<RuntimeVerdict> judge(const ModelShape& shape, const Features& features) {
    std::vector<RuntimeVerdict> result;
    for (Runtime runtime : {T, V, L, P}) {
        RuntimeVerdict row{runtime, Verdict::Opens, {}};
        for (std::size_t feature = 0; feature < NumFeatures; ++feature) {
            if (!features[feature]) continue;
            const auto rule = std::find_if(kRules.begin(), kRules.end(), [&](const Rule& candidate) {
                return candidate.feature == feature && candidate.runtime == runtime &&
                       listed(candidate.families, shape.modelType);
            });
            if (rule == kRules.end()) continue;
            row.verdict = std::max(row.verdict, rule->verdict);
            std::string reason = filledIn(rule->reason, shape);
            if (std::find(row.reasons.begin(), row.reasons.end(), reason) == row.reasons.end())
                row.reasons.push_back(std::move(reason));
        }
        result.push_back(std::move(row));
    }
    return result;
}

/// Features of the whole, or of its towers together: the worst verdict counts, and every reason says of which tower it is.
std::vector<RuntimeVerdict> judge(const ModelShape& shape, bool blocksDropped) {
    if (shape.towers.empty()) {
        Features features = featuresOf(shape);
        features[BlocksDropped] = blocksDropped;
        return judge(shape, features);
    }
    Features own;
    own[Towers] = true;
    own[BlocksDropped] = blocksDropped;
    std::vector<RuntimeVerdict> rows = judge(shape, own);
    for (int tower = 0; tower < static_cast<int>(shape.towers.size()); ++tower) {
        const ModelShape part = towerShape(shape, tower);
        Features features = featuresOf(part);
        features[Pictures] = features[Headless] = false;
        const std::vector<RuntimeVerdict> found = judge(part, features);
        for (std::size_t row = 0; row < rows.size(); ++row) {
            rows[row].verdict = std::max(rows[row].verdict, found[row].verdict);
            for (const std::string& reason : found[row].reasons) rows[row].reasons.push_back(shape.towers[static_cast<std::size_t>(tower)].title + ": " + reason);
        }
    }
    return rows;
}

bool fitsDeciLm(const ModelShape& source, const Cut& cut) {
    try {
        return source.towers.empty() && !deciShape(source, cut).blocks.empty();
    } catch (const Error&) {
        return false;
    }
}

/// llama.cpp reads our own GGUF files, which know more than its converter of Hugging Face folders.
void judgeGguf(RuntimeVerdict& row, const GgufChoice& choice) {
    using Kind = GgufChoice::Kind;
    switch (choice.kind) {
    case Kind::Own:
        if (row.verdict != Verdict::Opens) row.reasons.clear();
        row.verdict = Verdict::Opens;
        break;
    case Kind::PerBlock:
        row.reasons = {"As a .gguf whose architecture \"" + std::string(choice.architecture->name) + "\" carries sizes per block (way heterogeneous)."};
        row.verdict = Verdict::Opens;
        break;
    case Kind::Padded:
        row.verdict = Verdict::AfterPadding;
        break;
    case Kind::None:
        row.verdict = Verdict::No;
        row.reasons = choice.reasons;
        break;
    }
}

std::string shellQuoted(const std::string& text) {
    const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               std::string_view("/._-+=@%:,").find(static_cast<char>(c)) != std::string_view::npos;
    });
    if (plain) return text;
    std::string quoted = "'";
    for (char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return quoted + "'";
}

std::string pythonQuoted(const std::string& text) {
    std::string quoted = "\"";
    for (char c : text) {
        if (c == '"' || c == '\\') quoted += '\\';
        quoted += c;
    }
    return quoted + "\"";
}

std::string loadCommand(Runtime runtime, const ModelShape& shape, const std::string& folder) {
    const std::string loader = transformersClass(shape);
    if (loader.empty()) return runtime == T ? "timm.create_model(" + pythonQuoted("local-dir:" + folder) + ", pretrained=True)" : std::string();
    const std::string load = loader + ".from_pretrained(" + pythonQuoted(folder) + ")";
    switch (runtime) {
    case T:
        return load;
    case V:
        return "vllm serve " + shellQuoted(folder);
    case L:
        return "python convert_hf_to_gguf.py " + shellQuoted(folder) + " --outfile model.gguf && llama-cli -m model.gguf";
    case P:
        return "PeftModel.from_pretrained(" + load + ", \"ADAPTER\")";
    }
    return {};
}

}  // namespace

std::string transformersClass(const ModelShape& shape) {
    if (shape.modelType == "timm_vit" || shape.modelType == "timm_deit") return {};
    if (!shape.towers.empty()) return shape.architecture;
    if (!shape.image) return familyOf(shape).headless ? "AutoModel" : "AutoModelForCausalLM";
    return shape.image->labels > 0 ? "AutoModelForImageClassification" : "AutoModel";
}

std::string_view name(Verdict verdict) noexcept {
    constexpr std::array<std::string_view, 4> kNames{"opens", "padded", "code", "no"};
    return kNames[static_cast<std::size_t>(verdict)];
}

std::string_view name(Runtime runtime) noexcept {
    constexpr std::array<std::string_view, 4> kNames{"transformers", "vLLM", "llama.cpp", "PEFT"};
    return kNames[static_cast<std::size_t>(runtime)];
}

std::string_view name(LoadAdvice::Evidence evidence) noexcept {
    return evidence == LoadAdvice::Evidence::Checked ? "checked" : "expected";
}

std::vector<RuntimeVerdict> verdicts(const ModelShape& source, const Cut& cut) {
    const ModelShape after = shapeAfter(source, cut);
    std::vector<RuntimeVerdict> rows = judge(after, after.numBlocks() < source.numBlocks());
    RuntimeVerdict& vllm = rows[static_cast<std::size_t>(V)];
    if (vllm.verdict == Verdict::AfterPadding && fitsDeciLm(source, cut))
        vllm.reasons.emplace_back("Or as it is, in the form of DeciLM (way heterogeneous; needs --trust-remote-code).");
    if (findFamily(source.modelType) && !source.image && source.towers.empty() && !familyOf(source).headless) judgeGguf(rows[static_cast<std::size_t>(L)], ggufChoice(source, cut));
    return rows;
}

std::vector<RuntimeVerdict> verdicts(const ModelShape& written) { return judge(written, false); }

bool isUniform(const ModelShape& shape) noexcept {
    if (shape.blocks.empty()) return false;
    if (!shape.towers.empty()) {
        bool all = true;
        forEachTower(shape, [&](const ModelShape& tower) { all = all && isUniform(tower); });
        return all;
    }
    const BlockShape& first = shape.blocks.front();
    const Family* family = findFamily(shape.modelType);
    // Some classes know no head size of their own.
    if (family && !family->fields.headDim && std::int64_t{first.numHeads} * first.headDim != shape.hiddenSize) return false;
    const BlockShape *dense = nullptr, *mixture = nullptr;  // the first of each kind
    return first.hasAttention && first.groupsAreEqual() && std::all_of(shape.blocks.begin(), shape.blocks.end(), [&](const BlockShape& block) {
        if (!block.hasAttention || !block.hasFfn || block.headDim != first.headDim || block.headsPerKv != first.headsPerKv) return false;
        // Where the shared expert is counted in routed widths, it must be a multiple of them.
        if (block.sharedFfnSize > 0 && family && family->moe->sharedCount && block.sharedFfnSize % block.ffnSize != 0) return false;
        const BlockShape*& kind = block.numExperts > 0 ? mixture : dense;
        if (!kind) kind = &block;
        return block.ffnSize == kind->ffnSize && block.numExperts == kind->numExperts && block.sharedFfnSize == kind->sharedFfnSize;
    });
}

std::vector<LoadAdvice> loadAdvice(const ModelShape& written, const std::filesystem::path& folder,
                                   LoadAdvice::Evidence reopened) {
    const std::string path = folder.string();
    std::vector<LoadAdvice> rows{
        {"Resect", Verdict::Opens, {}, "resect-cli " + std::string(written.image && written.image->labels == 0 ? "inspect " : "eval ") + shellQuoted(path) +
                                           (!written.image ? " --data FILE" : written.image->labels > 0 ? " --data IMAGES" : ""), reopened}};
    const bool stock = isUniform(written);
    for (RuntimeVerdict& row : verdicts(written)) {
        if (!stock && row.verdict == Verdict::Opens) row.verdict = Verdict::AfterPadding;
        rows.push_back({std::string(name(row.runtime)), row.verdict, std::move(row.reasons),
                        row.verdict == Verdict::Opens ? loadCommand(row.runtime, written, path) : std::string(),
                        LoadAdvice::Evidence::Expected});
    }
    return rows;
}

std::vector<LoadAdvice> deciAdvice(const ModelShape& written, const std::filesystem::path& folder, LoadAdvice::Evidence reopened) {
    const std::string path = folder.string();
    std::vector<LoadAdvice> rows = loadAdvice(written, folder, reopened);
    rows.resize(1);
    using Evidence = LoadAdvice::Evidence;
    rows.push_back({"transformers", Verdict::AfterPadding, {"It has no class of its own for DeciLM, and Resect ships no modelling code: write a padded copy too."}, {}, Evidence::Expected});
    rows.push_back({"vLLM", Verdict::NeedsCode, {"Its own DeciLM class; the configuration is the Python file in the folder."}, "vllm serve " + shellQuoted(path) + " --trust-remote-code", Evidence::Expected});
    rows.push_back({"llama.cpp", Verdict::Opens, {"Better as a .gguf from Resect: its converter takes byte-level tokenizers of 128,256 tokens only."},
                    "python convert_hf_to_gguf.py " + shellQuoted(path) + " --outfile model.gguf && llama-cli -m model.gguf", Evidence::Expected});
    rows.push_back({"PEFT", Verdict::AfterPadding, {"Opens on the padded copy, as the base model must open in transformers."}, {}, Evidence::Expected});
    return rows;
}

}  // namespace resect
