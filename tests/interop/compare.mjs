// Exports checkpoints with resect-cli, opens the files in llama.cpp, and compares greedy tokens and log-probabilities with what Resect computes.
// node compare.mjs CLI SOURCE_TREE TEST_DATA SCRATCH [words of case names]
import {execFileSync} from "node:child_process";
import {copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync} from "node:fs";
import {join} from "node:path";
import {cases, tokenizers, tolerance} from "./cases.mjs";
import {writeFamily, writeModel, writeTokenizer} from "./generate.mjs";
import {greedyTokens, nextLogProbabilities, openModel} from "./llama.mjs";
import {logProbabilities} from "./safetensors.mjs";

const [cli, source, data, scratch, ...words] = process.argv.slice(2);
const newTokens = 64;
let failures = 0, passed = 0, skipped = 0;

const resect = (...parameters) => execFileSync(cli, parameters, {encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], timeout: 300_000});
const fresh = (name) => {
    const folder = join(scratch, name.replace(/[^a-z0-9]+/gi, "-"));
    rmSync(folder, {recursive: true, force: true});
    mkdirSync(folder, {recursive: true});
    return folder;
};
const wanted = (name) => words.every((word) => name.includes(word));

function report(name, good, text) {
    good ? ++passed : ++failures;
    console.log(`${good ? "ok  " : "FAIL"} ${name}: ${text}`);
}

// The checkpoint whose logits count: the cut one as Resect writes it; of block types, what the file holds.
function referenceOf(test, model, folder, plan, gguf) {
    if (["q8_0", "q4_0", "f16", "bf16"].includes(test.dtype)) {
        resect("import", gguf, "--to", join(folder, "reference"));
        return join(folder, "reference");
    }
    if (!test.edits) return model;
    resect("export", model, "--plan", plan, "--way", "exact", "--to", join(folder, "reference"));
    return join(folder, "reference");
}

function measure(rows, theirs, prompt, greedy) {
    let difference = 0, divergence = 0, agree = 0, margin = 0;
    rows.slice(0, theirs.length).forEach((row, position) => {
        for (const [token, p] of theirs[position]) {
            if (row[token] > -10) difference = Math.max(difference, Math.abs(row[token] - p));
            divergence += Math.exp(row[token]) * (row[token] - p);
        }
        if (position < prompt.length - 1) return;
        const token = greedy[position - prompt.length + 1];
        const best = row.reduce((a, b) => Math.max(a, b), -Infinity);
        if (row[token] === best) ++agree;
        margin = Math.max(margin, best - row[token]);  // 0 where both choose the same
    });
    return {difference, kl: divergence / theirs.length, agree, margin};
}

// The checkpoint itself, or a copy with a tokenizer.
function withTokenizer(model, folder) {
    if (existsSync(join(model, "tokenizer.json")) || existsSync(join(model, "tokenizer.model"))) return model;
    const copy = join(folder, "model");
    mkdirSync(copy, {recursive: true});
    if (copy !== model)
        for (const file of readdirSync(model).filter((file) => file === "config.json" || file.startsWith("model"))) copyFileSync(join(model, file), join(copy, file));
    writeTokenizer(copy, JSON.parse(readFileSync(join(model, "config.json"), "utf8")).vocab_size);
    return copy;
}

async function judge(test) {
    const folder = fresh(test.name);
    let model = test.generated || test.family ? join(folder, "model") : test.own ? join(source, test.own) : join(data, test.model);
    if (test.generated) writeModel(model, test.generated);
    if (test.family) writeFamily(model, test.family);
    if (!existsSync(model)) {
        ++skipped;
        return console.log(`skip ${test.name}: no ${model}`);
    }
    model = withTokenizer(model, folder);
    const gguf = join(folder, "model.gguf"), plan = join(folder, "plan.json");
    if (test.edits) writeFileSync(plan, JSON.stringify({resect_plan: 1, edits: test.edits}));
    const written = JSON.parse(resect("export", model, "--to", gguf, "--json", "--way", test.way ?? "exact", ...(test.edits ? ["--plan", plan] : []),
        ...(test.dtype ? ["--dtype", test.dtype] : [])));
    const facts = JSON.parse(resect("inspect", gguf, "--json"));
    const context = facts.metadata[`${facts.architecture}.context_length`];
    const loaded = await openModel(gguf);
    const prompt = test.prompt.slice(0, Math.floor(context / 2));  // a sliding window bounds the context
    const count = Math.min(newTokens, context - prompt.length);
    if (!(count > 0)) throw new Error(`no room for new tokens in a context of ${context}`);
    const greedy = await greedyTokens(loaded, prompt, count);
    const theirs = await nextLogProbabilities(loaded, [...prompt, ...greedy]);
    await loaded.dispose();
    const out = join(folder, "logits.safetensors");
    resect("logits", referenceOf(test, model, folder, plan, gguf), "--ids", [...prompt, ...greedy].join(","), "--out", out);
    const found = measure(logProbabilities(out), theirs, prompt, greedy);
    const type = Object.keys(facts.types).map((name) => name.toLowerCase()).sort((a, b) => tolerance[b].kl - tolerance[a].kl)[0];
    const bound = {...tolerance[type], ...test.tolerance};
    const good = Math.abs(found.kl) <= bound.kl && found.difference <= bound.difference && (found.agree === count || found.margin <= bound.difference) && written.verified;
    report(test.name, good, `${facts.architecture}, ${Object.keys(facts.types).join("+")}, ${found.agree} of ${count} greedy tokens equal` +
        `${found.margin > 0 ? ` (others within ${found.margin.toExponential(1)})` : ""}, KL ${found.kl.toExponential(1)}, ` +
        `largest difference of a log-probability ${found.difference.toExponential(1)}`);
}

const texts = ["Once upon a time, there was a little girl named Lily.", "  two  spaces\n\n\nand\ttabs \r\n", "Grüße, 世界! 😀 don't I'LL we've 12345 3.14", "x = foo(bar)[0] != 'y';  // ok",
    "<|im_start|>user", "ÀÉÎõü ß ﬁ Ωμέγα привет שלום नमस्ते"];

async function judgeTokenizer(test) {
    const name = `tokenizer ${test.name}`, from = join(data, "tokenizers", test.name);
    if (!wanted(name)) return;
    if (!existsSync(from)) return ++skipped;
    const folder = fresh(name), model = join(folder, "model");
    writeModel(model, {blocks: 1, hidden: 32, heads: 2, groups: 1, width: 32, vocabulary: test.vocabulary});
    for (const file of readdirSync(from).filter((file) => file.startsWith("tokenizer"))) copyFileSync(join(from, file), join(model, file));
    resect("export", model, "--to", join(folder, "model.gguf"), "--dtype", "f16");
    writeFileSync(join(folder, "rows.jsonl"), texts.map((text) => JSON.stringify({text})).join("\n") + "\n");
    const rows = resect("tokenize", model, "--input", join(folder, "rows.jsonl"), "--no-special").trim().split("\n").map((line) => JSON.parse(line).ids);
    const loaded = await openModel(join(folder, "model.gguf"));
    const different = texts.filter((text, i) => JSON.stringify([...loaded.tokenize(text, true)]) !== JSON.stringify(rows[i]));
    report(name, different.length === 0, `${texts.length - different.length} of ${texts.length} texts give the same ids${different.map((text) => `; not ${JSON.stringify(text)}`).join("")}`);
    await loaded.dispose();
    rmSync(folder, {recursive: true, force: true});
}

for (const [list, action] of [[cases, judge], [tokenizers, judgeTokenizer]])
    for (const test of list) {
        if (list === cases && !wanted(test.name)) continue;
        try {
            await action(test);
        } catch (error) {
            report(test.name, false, (error.stderr || error.message || String(error)).toString().trim());
        }
    }
console.log(`${passed} equal, ${failures} different, ${skipped} skipped for want of data`);
process.exit(failures > 0 || passed === 0 ? 1 : 0);
