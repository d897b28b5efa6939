// Tokenizers: resect-cli tokenize against the npm package @huggingface/transformers.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { cli, differ, finish, load, options, random, randomText, skip } from './huggingface.mjs';

const roots = ['tokenizers', 'models'].map(one => join(options.data, one)).filter(existsSync);
const folders = roots.flatMap(root => readdirSync(root).map(name => join(root, name))).filter(path => existsSync(join(path, 'tokenizer.json')) && existsSync(join(path, 'tokenizer_config.json')));
if (folders.length === 0) skip(`needs test data: ${join(options.data, 'tokenizers')}`);

const { AutoTokenizer, env } = await load('@huggingface/transformers');
env.allowRemoteModels = false;
env.localModelPath = '/';

const dice = random(Number(process.env.RESECT_INTEROP_SEED ?? 1));
const texts = [];
for (let i = 0; i < 1500; ++i) texts.push(randomText(dice, 20));
for (const name of ['tinyshakespeare.txt', 'wikitext2-test.txt']) {
  const path = join(options.data, 'text', name);
  if (!existsSync(path)) continue;
  const text = readFileSync(path, 'utf8');
  for (let i = 0; i < 50; ++i) texts.push(text.substr(dice.below(text.length - 3000), 50 + dice.below(2000)));
}

const seen = new Set();
let used = 0;
for (const folder of folders) {
  const json = readFileSync(join(folder, 'tokenizer.json'), 'utf8');
  if (seen.has(json)) continue;  // the models share one
  seen.add(json);
  ++used;
  const tokenizer = await AutoTokenizer.from_pretrained(folder);
  for (const special of [true, false]) {
    const ours = cli(['tokenize', folder, ...(special ? [] : ['--no-special'])], texts.map(text => ({ text })));
    if (ours.status !== 0) differ(`${folder}: exit code (${ours.error})`, 0, ours.status);
    texts.forEach((text, i) => {
      const ids = tokenizer.encode(text, { add_special_tokens: special });
      const found = ours.rows[i];
      if (JSON.stringify(found?.ids) !== JSON.stringify(ids)) return differ(`${folder}: ids of ${JSON.stringify(text)}`, ids, found?.ids);
      const decoded = ids.length ? tokenizer.decode(ids, { skip_special_tokens: false, clean_up_tokenization_spaces: false }) : '';
      if (found.decoded !== decoded) differ(`${folder}: decoded text of ${JSON.stringify(text)}`, decoded, found.decoded);
    });
  }
}
finish(`${used} tokenizers, ${2 * used * texts.length} texts compared`);
