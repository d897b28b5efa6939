// Small checkpoints with random weights for what the test data lacks.
import {mkdirSync, writeFileSync} from "node:fs";
import {join} from "node:path";

// Numbers that are the same everywhere (mulberry32, Box and Muller).
function normals(seed) {
    const uniform = () => {
        seed = (seed + 0x6d2b79f5) | 0;
        let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
        t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
        return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

export function writeSafetensors(path, tensors) {
    const header = {};
    let at = 0;
    for (const {name, shape, values} of tensors) {
        header[name] = {dtype: "F32", shape, data_offsets: [at, at + 4 * values.length]};
        at += 4 * values.length;
    }
    let text = JSON.stringify(header);
    text += " ".repeat((8 - (text.length % 8)) % 8);
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    writeFileSync(path, Buffer.concat([length, Buffer.from(text), ...tensors.map(({values}) => Buffer.from(values.buffer))]));
}

// The least of a tokenizer: node-llama-cpp asks llama.cpp for the text of tokens, which aborts the process where there is none.
export function writeTokenizer(folder, vocabulary) {
    const names = ["<unk>", "<s>", "</s>"];
    const vocab = Object.fromEntries(Array.from({length: vocabulary}, (_, i) => [names[i] ?? `t${i}`, i]));
    const added_tokens = names.map((content, id) => ({id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true}));
    const bytes = {type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true};
    const json = {version: "1.0", added_tokens, normalizer: null, pre_tokenizer: bytes, post_processor: null, decoder: bytes, model: {type: "BPE", vocab, merges: []}};
    writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(json));
    writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify({bos_token: "<s>", eos_token: "</s>"}));
}

export function writeModel(folder, {qkNorm = false, biases = false, tied = false, ropeScaling = null, blocks = 4, hidden = 64, heads = 4, groups = 2, headDim = 16, width = 96, vocabulary = 64,
                                    positions = 128} = {}) {
    mkdirSync(folder, {recursive: true});
    const normal = normals(7);
    const tensors = [];
    const add = (name, shape, mean, deviation) => {
        const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
        for (let i = 0; i < values.length; ++i) values[i] = mean + deviation * normal();
        tensors.push({name, shape, values});
    };
    const linear = (name, out, inputs, bias) => {
        add(`${name}.weight`, [out, inputs], 0, 1 / Math.sqrt(inputs));
        if (bias) add(`${name}.bias`, [out], 0, 0.1);
    };
    add("model.embed_tokens.weight", [vocabulary, hidden], 0, 0.5);
    for (let b = 0; b < blocks; ++b) {
        const block = `model.layers.${b}`;
        add(`${block}.input_layernorm.weight`, [hidden], 1, 0.1);
        linear(`${block}.self_attn.q_proj`, heads * headDim, hidden, biases);
        linear(`${block}.self_attn.k_proj`, groups * headDim, hidden, biases);
        linear(`${block}.self_attn.v_proj`, groups * headDim, hidden, biases);
        linear(`${block}.self_attn.o_proj`, hidden, heads * headDim, biases);
        if (qkNorm) for (const norm of ["q_norm", "k_norm"]) add(`${block}.self_attn.${norm}.weight`, [headDim], 1, 0.1);
        add(`${block}.post_attention_layernorm.weight`, [hidden], 1, 0.1);
        linear(`${block}.mlp.gate_proj`, width, hidden, biases);
        linear(`${block}.mlp.up_proj`, width, hidden, biases);
        linear(`${block}.mlp.down_proj`, hidden, width, biases);
    }
    add("model.norm.weight", [hidden], 1, 0.1);
    if (!tied) linear("lm_head", vocabulary, hidden, false);
    writeSafetensors(join(folder, "model.safetensors"), tensors);
    const config = {architectures: [qkNorm ? "Qwen3ForCausalLM" : "LlamaForCausalLM"], model_type: qkNorm ? "qwen3" : "llama", attention_bias: biases, mlp_bias: biases, head_dim: headDim,
        hidden_act: "silu", hidden_size: hidden, intermediate_size: width, max_position_embeddings: positions, num_attention_heads: heads, num_hidden_layers: blocks,
        num_key_value_heads: groups, rms_norm_eps: 1e-5, rope_scaling: ropeScaling, rope_theta: 10000, tie_word_embeddings: tied, torch_dtype: "float32", vocab_size: vocabulary};
    if (qkNorm) delete config.mlp_bias;
    writeFileSync(join(folder, "config.json"), JSON.stringify(config, null, 2));
}
