// What is exported and judged. `model` is relative to the test data (or, with `own`, to this source tree); `edits` is the plan. Types: see tolerance below.
const story = [1, 403, 407, 261, 378];
const some = [1, 5, 9, 33, 17, 60, 2, 44];

const dropSome = [{op: "drop_blocks", blocks: [2, 5]}];
const channels = (block, first, count) => ({op: "drop_channels", block, channels: Array.from({length: count}, (_, i) => first + i)});

// llama.cpp looks GELU up in a table of half-precision numbers, which shows in improbable tokens; the divergence stays near 1e-6.
const rough = {gemma2: {tolerance: {difference: 5e-3}}, gpt2: {tolerance: {difference: 1e-2}}};

export const cases = [
    {name: "stories260K f32", model: "models/stories260K-hf", prompt: story},
    {name: "stories260K f16", model: "models/stories260K-hf", prompt: story, dtype: "f16"},
    {name: "stories260K bf16", model: "models/stories260K-hf", prompt: story, dtype: "bf16"},
    {name: "stories260K q8_0 (rows of 172 fall back to F16)", model: "models/stories260K-hf", prompt: story, dtype: "q8_0"},
    {name: "llama 12 blocks", model: "models/llama-stories-12l", prompt: story},
    {name: "llama 12 blocks q8_0", model: "models/llama-stories-12l", prompt: story, dtype: "q8_0"},
    {name: "llama 12 blocks q4_0", model: "models/llama-stories-12l", prompt: story, dtype: "q4_0"},
    {name: "llama without blocks 2 and 5", model: "models/llama-stories-12l", prompt: story, edits: dropSome, way: "uniform"},
    {name: "llama, padded", model: "models/llama-stories-12l", prompt: story, edits: [{op: "drop_kv_groups", block: 3, groups: [1]}, {op: "drop_mlp", blocks: [4]}], way: "padded"},
    {name: "deci: widths of their own", model: "models/llama-stories-12l", prompt: story, edits: [channels(1, 0, 64), channels(7, 100, 96)], way: "heterogeneous"},
    {name: "deci: a block without attention", model: "models/llama-stories-12l", prompt: story, edits: [{op: "drop_attention", blocks: [8]}, channels(1, 0, 64)], way: "heterogeneous"},
    {name: "deci: block 0 without attention", model: "models/llama-stories-12l", prompt: story, edits: [{op: "drop_attention", blocks: [0]}], way: "heterogeneous"},
    {name: "deci: attention without an MLP, also in the last block", model: "models/llama-stories-12l", prompt: story, edits: [{op: "drop_mlp", blocks: [6, 11]}], way: "heterogeneous"},
    {name: "deci: heads, groups, everything at once", model: "models/llama-stories-12l", prompt: story, way: "heterogeneous",
     edits: [{op: "drop_heads", block: 2, heads: [1]}, {op: "drop_kv_groups", block: 3, groups: [0]}, {op: "drop_attention", blocks: [5, 6]}, {op: "drop_mlp", blocks: [6, 7]},
             {op: "drop_blocks", blocks: [9]}, channels(10, 3, 50)]},
    {name: "deci q8_0", model: "models/llama-stories-12l", prompt: story, dtype: "q8_0", edits: [{op: "drop_attention", blocks: [8]}, channels(1, 0, 64)], way: "heterogeneous"},
    {name: "qwen2 8 blocks", model: "models/qwen2-stories-8l", prompt: story},
    {name: "qwen2 8 blocks q8_0", model: "models/qwen2-stories-8l", prompt: story, dtype: "q8_0"},
    {name: "qwen2 without blocks 2 and 5", model: "models/qwen2-stories-8l", prompt: story, edits: dropSome, way: "uniform"},
    {name: "qwen2 as deci: widths and a block without attention", model: "models/qwen2-stories-8l", prompt: story, edits: [channels(1, 0, 64), {op: "drop_attention", blocks: [3]}], way: "heterogeneous"},
    {name: "qwen2 with one kv group", model: "models/qwen2-stories-8l", prompt: story, way: "uniform",
     edits: Array.from({length: 8}, (_, block) => ({op: "drop_kv_groups", block, groups: [0]}))},
    {name: "qwen2 as deci: heads", model: "models/qwen2-stories-8l", prompt: story, way: "heterogeneous",
     edits: [{op: "drop_kv_groups", block: 2, groups: [0]}, {op: "drop_heads", block: 4, heads: [3]}, {op: "drop_attention", blocks: [5]}]},
    {name: "mixtral 6 blocks", model: "models/mixtral-stories-6l", prompt: story},
    {name: "mixtral 6 blocks q8_0", model: "models/mixtral-stories-6l", prompt: story, dtype: "q8_0"},
    {name: "mixtral without block 2", model: "models/mixtral-stories-6l", prompt: story, edits: [{op: "drop_blocks", blocks: [2]}], way: "uniform"},
    {name: "mixtral, padded", model: "models/mixtral-stories-6l", prompt: story, edits: [{op: "drop_attention", blocks: [1]}], way: "padded"},
    {name: "mixtral with 6 of 8 experts", model: "models/mixtral-stories-6l", prompt: story, way: "uniform",
     edits: Array.from({length: 6}, (_, block) => ({op: "drop_experts", block, experts: [block, 7 - (block % 2)]}))},
    {name: "gpt2 8 blocks", model: "models/gpt2-stories-8l", prompt: story, ...rough.gpt2},
    {name: "gpt2 without blocks 2 and 5, padded", model: "models/gpt2-stories-8l", prompt: story, way: "padded", ...rough.gpt2,
     edits: [...dropSome, {op: "drop_heads", block: 1, heads: [0]}, {op: "drop_channels", block: 3, channels: [1, 2, 40]}]},
    {name: "golden gpt2", own: "tests/data/golden/gpt2", prompt: some, ...rough.gpt2},
    ...["gemma", "gemma2", "phi3", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek"].map((family) => ({name: `family ${family}`, family, prompt: some, ...rough[family]})),
    ...["phi3", "qwen3_moe", "gemma"].map((family) => ({name: `family ${family} with one kv group`, family, prompt: some, way: "padded",
        edits: Array.from({length: 4}, (_, block) => ({op: "drop_kv_groups", block, groups: [block % 2]}))})),
    ...["qwen2_moe", "qwen3_moe", "olmoe"].map((family) => ({name: `family ${family} with 4 of 6 experts, without block 1`, family, prompt: some, way: "uniform",
        edits: [{op: "drop_blocks", blocks: [1]}, ...[0, 2, 3].map((block) => ({op: "drop_experts", block, experts: [block, 5 - (block % 2)]}))]})),
    {name: "family deepseek without blocks 0 and 2", family: "deepseek", prompt: some, way: "uniform", edits: [{op: "drop_blocks", blocks: [0, 2]}]},
    {name: "family gemma2 without blocks 0 and 1, narrower", family: "gemma2", prompt: some, way: "uniform", ...rough.gemma2,
     edits: [{op: "drop_blocks", blocks: [0, 1]}, channels(2, 0, 32), channels(3, 30, 32)]},
    {name: "demo dense", own: "resources/demo/dense", prompt: some},
    {name: "demo mixtral", own: "resources/demo/mixtral", prompt: some},
    ...["llama-gqa", "llama-mha-tied", "llama-bf16-sharded", "llama-f16", "llama-rope-linear", "llama-rope-llama3", "mistral-sliding", "qwen2", "mixtral"].map(
        (golden) => ({name: `golden ${golden}`, own: `tests/data/golden/${golden}`, prompt: some})),
    {name: "golden llama-rope-llama3 as deci", own: "tests/data/golden/llama-rope-llama3", prompt: some, edits: [{op: "drop_attention", blocks: [2]}], way: "heterogeneous"},
    {name: "qwen3, made here", generated: {qkNorm: true, tied: false}, prompt: some},
    {name: "qwen3 as openelm", generated: {qkNorm: true, tied: true}, prompt: some, way: "heterogeneous",
     edits: [{op: "drop_kv_groups", block: 1, groups: [0]}, {op: "drop_attention", blocks: [2]}, {op: "drop_mlp", blocks: [3]}, channels(0, 5, 32)]},
    {name: "qwen3 padded", generated: {qkNorm: true, tied: false}, prompt: some, way: "padded", edits: [{op: "drop_kv_groups", block: 1, groups: [0]}]},
    {name: "llama, qwen3-like head sizes", generated: {heads: 6}, prompt: some},
    {name: "qwen3, heads wider than the hidden size", generated: {qkNorm: true, heads: 6}, prompt: some},
    {name: "llama with biases everywhere, heads wider than the hidden size", generated: {biases: true, heads: 6}, prompt: some},
    {name: "llama with biases everywhere", generated: {biases: true}, prompt: some},
    {name: "llama with yarn", generated: {ropeScaling: {rope_type: "yarn", factor: 4, original_max_position_embeddings: 32}}, prompt: some},
    {name: "llama with yarn, its own attention factor", prompt: some,
     generated: {ropeScaling: {rope_type: "yarn", factor: 4, original_max_position_embeddings: 32, attention_factor: 1.7}}},
];

// Real tokenizers in a model of one small block: only token ids are compared.
export const tokenizers = [
    {name: "gpt2", vocabulary: 50257}, {name: "llama2", vocabulary: 32000}, {name: "llama3", vocabulary: 128256}, {name: "qwen2", vocabulary: 151936},
];

// Bounds on the mean KL divergence (nats) and on the largest difference of a log-probability above -10. llama.cpp rounds activations too: to the type
// of the weights for F16 and BF16, to 8 bits for Q8_0 and Q4_0.
export const tolerance = {
    f32: {kl: 1e-5, difference: 1e-3}, f16: {kl: 1e-4, difference: 5e-2}, bf16: {kl: 1e-3, difference: 0.5}, q8_0: {kl: 1e-3, difference: 0.5}, q4_0: {kl: 5e-3, difference: 1},
};
