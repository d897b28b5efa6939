// What the tests against Hugging Face's npm packages share: the packages, resect-cli, random texts, skipping.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const versions = { '@huggingface/jinja': '0.5.11', '@huggingface/transformers': '4.3.1' };

/** Exit code 77 is what CTest counts as skipped. */
export function skip(why) {
  console.log(`SKIPPED: ${why}`);
  process.exit(77);
}

/** --cli PROGRAM --install FOLDER --data FOLDER --own FOLDER */
export const options = Object.fromEntries(
  process.argv.slice(2).flatMap((word, i, all) => (word.startsWith('--') ? [[word.slice(2), all[i + 1]]] : [])));

/** Installs the pinned packages into the build folder once, and loads one of them. */
export async function load(name) {
  const folder = options.install;
  mkdirSync(folder, { recursive: true });
  const manifest = JSON.stringify({ private: true, dependencies: versions }, null, 1);
  const file = join(folder, 'package.json');
  const installed = existsSync(file) && readFileSync(file, 'utf8') === manifest &&
    Object.keys(versions).every(one => existsSync(join(folder, 'node_modules', one, 'package.json')));
  if (!installed) {
    writeFileSync(file, manifest);
    const npm = spawnSync('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: folder, encoding: 'utf8', timeout: 400000 });
    if (npm.status !== 0) {
      writeFileSync(file, '{}');
      skip(`npm install failed, perhaps without network: ${(npm.stderr || String(npm.error)).trim().split('\n').pop()}`);
    }
  }
  const require = createRequire(join(folder, 'package.json'));
  return import(pathToFileURL(require.resolve(name)));
}

/** Runs resect-cli over JSON lines; `rows` holds what it wrote. */
export function cli(words, input) {
  const run = spawnSync(options.cli, words, { input: input.map(row => JSON.stringify(row)).join('\n') + '\n', encoding: 'utf8', maxBuffer: 1 << 28 });
  if (run.error) throw run.error;
  return { status: run.status, error: run.stderr.trim(), rows: run.stdout.split('\n').filter(Boolean).map(line => JSON.parse(line)) };
}

/** Random numbers that are the same everywhere (mulberry32). */
export function random(seed) {
  const next = () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const below = count => Math.floor(next() * count);
  return { below, pick: list => list[below(list.length)] };
}

const words = ['the', 'The', 'water', "don't", "I'LL", 'naïve', 'straße', 'İstanbul', 'Привет', '你好，世界', 'こんにちは', 'مرحبا', 'नमस्ते', 'é', 'é', 'ﬁne', '½', '3.14', '1234567', '00', '١٢٣',
  '😀', '👩‍👩‍👧', '🏳️‍🌈', '👍🏽', 'for (int i = 0; i < n; ++i) {', 'def f(x):\n    return x', 'a_b-c', 'https://x.org/?q=1&r=2', '<|x|>', '</s', '[INST]', '{"a": [1, 2]}', '$x^2$', '\\n', '"', "'", '...', '!!!', '—', '​', '\u{10FFFF}', '�'];
const spaces = [' ', '  ', '   ', '\n', '\n\n', '\t', ' \n ', '\r\n', ' ', '　', ''];

/** White space in Python and Rust, whose behaviour counts, but not in JavaScript, or the other way round. */
const notTheSameSpace = code => (code >= 0x1c && code <= 0x1f) || code === 0x85 || code === 0xfeff || code === 0x180e;

/** A text of words, code, emoji, odd white space and random characters. */
export function randomText(dice, most = 12) {
  let text = '';
  for (let count = dice.below(most + 1); count > 0; --count) {
    if (dice.below(8) === 0) {
      let code = dice.below(dice.pick([0x80, 0x250, 0x3000, 0x20000]));
      if (code === 0 || (code >= 0xd800 && code <= 0xdfff) || notTheSameSpace(code)) code = 0x41;
      text += String.fromCodePoint(code);
    } else {
      text += dice.pick(words);
    }
    text += dice.pick(spaces);
  }
  return text;
}

let failures = 0;
/** Reports a difference; the first twenty in full. */
export function differ(what, expected, found) {
  if (++failures <= 20) console.log(`DIFFERS ${what}\n  expected ${JSON.stringify(expected)}\n  found    ${JSON.stringify(found)}`);
}
export function finish(summary) {
  console.log(`${summary}; ${failures} differ`);
  process.exit(failures ? 1 : 0);
}
