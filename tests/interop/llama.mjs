// llama.cpp through node-llama-cpp: one model file, token ids in, greedy ids and log-probabilities out.
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

let llama;

export async function openModel(path) {
    llama ??= await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 1});
    return await llama.loadModel({modelPath: path, gpuLayers: 0});
}

// One thread: waiting threads spin, which takes a busy machine ten times as long. Keys and values in 32 bits and plain attention, so that only the file decides.
async function withSequence(model, length, action) {
    const context = await model.createContext({contextSize: Math.max(length + 8, 64), batchSize: Math.max(length + 8, 64), threads: 1, flashAttention: false,
        experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32"});
    try {
        return await action(context.getSequence());
    } finally {
        await context.dispose();
    }
}

export async function greedyTokens(model, prompt, count) {
    return await withSequence(model, prompt.length + count, async (sequence) => {
        const tokens = [];
        for await (const token of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
            tokens.push(token);
            if (tokens.length === count) break;
        }
        return tokens;
    });
}

// For every position but the last: a map from token to the log-probability of coming next, given the tokens up to there.
export async function nextLogProbabilities(model, tokens) {
    return await withSequence(model, tokens.length, async (sequence) => {
        const options = {temperature: 1, topK: 0, topP: 1, minP: 0};
        const input = tokens.map((token) => [token, {generateNext: {probabilities: true, options}}]);
        const output = await sequence.controlledEvaluate(input);
        return output.slice(0, -1).map((entry) => new Map([...entry.next.probabilities].map(([token, p]) => [token, Math.log(p)])));
    });
}
