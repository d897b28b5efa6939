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

// Families whose layers are not Llama's, each by the names that its public checkpoints have: name -> shape, for one block.
const attention = (o, {bias = false, norms = []} = {}) => [
    ["input_layernorm.weight", [o.hidden]], ...["q", "k", "v"].flatMap((p) => {
        const rows = (p === "q" ? o.heads : o.groups) * o.headDim;
        return [[`self_attn.${p}_proj.weight`, [rows, o.hidden]], ...(bias ? [[`self_attn.${p}_proj.bias`, [rows]]] : [])];
    }), ["self_attn.o_proj.weight", [o.hidden, o.heads * o.headDim]], ...norms, ["post_attention_layernorm.weight", [o.hidden]]];
const mlp = (stem, hidden, width) => [[`${stem}.gate_proj.weight`, [width, hidden]], [`${stem}.up_proj.weight`, [width, hidden]], [`${stem}.down_proj.weight`, [hidden, width]]];
const mixture = (o) => [["mlp.gate.weight", [o.experts, o.hidden]], ...Array.from({length: o.experts}, (_, e) => mlp(`mlp.experts.${e}`, o.hidden, o.expertWidth)).flat()];

const sizes = {blocks: 4, hidden: 64, heads: 4, groups: 2, headDim: 16, width: 96, vocabulary: 64, positions: 128, experts: 6, expertWidth: 32};
const families = {
    gemma: {o: {...sizes, headDim: 32}, norm: 0, tied: true, config: {model_type: "gemma", head_dim: 32, hidden_act: "gelu_pytorch_tanh", hidden_activation: "gelu_pytorch_tanh"},
        block: (o) => [...attention(o), ...mlp("mlp", o.hidden, o.width)]},
    gemma2: {o: {...sizes, headDim: 32}, norm: 0, tied: true,
        config: {model_type: "gemma2", head_dim: 32, hidden_activation: "gelu_pytorch_tanh", query_pre_attn_scalar: 32, attn_logit_softcapping: 5, final_logit_softcapping: 7, sliding_window: 24},
        block: (o) => [...attention(o), ["pre_feedforward_layernorm.weight", [o.hidden]], ...mlp("mlp", o.hidden, o.width), ["post_feedforward_layernorm.weight", [o.hidden]]]},
    phi3: {o: sizes, norm: 1, config: {model_type: "phi3", sliding_window: null},
        block: (o) => [["input_layernorm.weight", [o.hidden]], ["self_attn.qkv_proj.weight", [(o.heads + 2 * o.groups) * o.headDim, o.hidden]],
            ["self_attn.o_proj.weight", [o.hidden, o.heads * o.headDim]], ["post_attention_layernorm.weight", [o.hidden]],
            ["mlp.gate_up_proj.weight", [2 * o.width, o.hidden]], ["mlp.down_proj.weight", [o.hidden, o.width]]]},
    qwen2_moe: {o: sizes, norm: 1, config: {model_type: "qwen2_moe", num_experts: 6, num_experts_per_tok: 2, moe_intermediate_size: 32, shared_expert_intermediate_size: 48, norm_topk_prob: false,
        decoder_sparse_step: 1, mlp_only_layers: []},
        block: (o) => [...attention(o, {bias: true}), ...mixture(o), ...mlp("mlp.shared_expert", o.hidden, 48), ["mlp.shared_expert_gate.weight", [1, o.hidden]]]},
    qwen3_moe: {o: sizes, norm: 1, config: {model_type: "qwen3_moe", head_dim: 16, num_experts: 6, num_experts_per_tok: 2, moe_intermediate_size: 32, norm_topk_prob: true, decoder_sparse_step: 1,
        mlp_only_layers: []},
        block: (o) => [...attention(o, {norms: [["self_attn.q_norm.weight", [o.headDim]], ["self_attn.k_norm.weight", [o.headDim]]]}), ...mixture(o)]},
    olmoe: {o: {...sizes, groups: 4}, norm: 1, config: {model_type: "olmoe", num_experts: 6, num_experts_per_tok: 2, intermediate_size: 32, norm_topk_prob: false},
        block: (o) => [...attention(o, {norms: [["self_attn.q_norm.weight", [o.heads * o.headDim]], ["self_attn.k_norm.weight", [o.groups * o.headDim]]]}), ...mixture(o)]},
    deepseek: {o: {...sizes, groups: 4}, norm: 1, config: {model_type: "deepseek", n_routed_experts: 6, num_experts_per_tok: 2, moe_intermediate_size: 32, n_shared_experts: 2, first_k_dense_replace: 1,
        moe_layer_freq: 1, norm_topk_prob: false, scoring_func: "softmax"},
        block: (o, b) => [...attention(o), ...(b === 0 ? mlp("mlp", o.hidden, o.width) : [...mixture(o), ...mlp("mlp.shared_experts", o.hidden, 64)])]},
};

// `norm`: what the weights of norms lie around.
export function writeFamily(folder, type) {
    const {o, norm, tied = false, config, block} = families[type];
    mkdirSync(folder, {recursive: true});
    const normal = normals(11);
    const tensors = [];
    const add = (name, shape) => {
        const isNorm = name.includes("norm"), around = isNorm ? norm : 0;
        const deviation = isNorm || shape.length === 1 ? 0.1 : name.includes("embed") ? 0.5 : 1 / Math.sqrt(shape[1]);
        tensors.push({name, shape, values: Float32Array.from({length: shape.reduce((a, b) => a * b, 1)}, () => around + deviation * normal())});
    };
    add("model.embed_tokens.weight", [o.vocabulary, o.hidden]);
    for (let b = 0; b < o.blocks; ++b) for (const [name, shape] of block(o, b)) add(`model.layers.${b}.${name}`, shape);
    add("model.norm.weight", [o.hidden]);
    if (!tied) add("lm_head.weight", [o.vocabulary, o.hidden]);
    writeSafetensors(join(folder, "model.safetensors"), tensors);
    const common = {hidden_act: "silu", hidden_size: o.hidden, intermediate_size: o.width, max_position_embeddings: o.positions, num_attention_heads: o.heads, num_hidden_layers: o.blocks,
        num_key_value_heads: o.groups, rms_norm_eps: 1e-5, rope_theta: 10000, tie_word_embeddings: tied, torch_dtype: "float32", vocab_size: o.vocabulary};
    writeFileSync(join(folder, "config.json"), JSON.stringify({...common, ...config}, null, 2));
}
