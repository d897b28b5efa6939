// Chat templates: resect-cli chat against the npm package @huggingface/jinja.
import { existsSync, readFileSync, writeFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { cli, differ, finish, load, options, random, randomText as randomWords } from './huggingface.mjs';

const { Template } = await load('@huggingface/jinja');
const work = join(options.install, 'templates');
mkdirSync(work, { recursive: true });

/** The shared cases have more templates. */
const folder = existsSync(join(options.data, 'chat/chat_template_cases.json')) ? join(options.data, 'chat') : join(options.own, 'chat');
const file = JSON.parse(readFileSync(join(folder, 'chat_template_cases.json'), 'utf8'));
const sourceOf = name => (name.startsWith('inline:') ? file.inline_templates[name.slice(7)] : readFileSync(join(folder, name), 'utf8'));
const names = [...new Set(file.cases.map(one => one.template))];

function theirs(template, context) {
  try {
    return { text: template.render({ tools: null, documents: null, add_generation_prompt: false, ...context }) };
  } catch (error) {
    return { error: String(error.message) };
  }
}

const dice = random(Number(process.env.RESECT_INTEROP_SEED ?? 1));
const tool = { type: 'function', function: { name: 'get_weather', description: 'Says "hello" <b>', parameters: { type: 'object', properties: { city: { type: 'string' }, days: { type: 'number', default: 1.5 } }, required: ['city'] } } };
/**
 * A conversation; some have broken roles, which templates refuse. No two messages are equal, and no system message is empty:
 * unlike Python, JavaScript compares messages by identity and takes '' for false.
 */
function randomContext(template) {
  const messages = [];
  let number = 0;
  const randomText = (dice, most) => `${++number}${randomWords(dice, most)}`;
  if (dice.below(3) === 0) messages.push({ role: 'system', content: randomText(dice) });
  const toolsFit = /tool_calls/.test(template) && dice.below(2) === 0;
  for (let turn = dice.below(4); turn >= 0; --turn) {
    messages.push({ role: dice.below(12) === 0 ? 'assistant' : 'user', content: randomText(dice) });
    if (toolsFit && dice.below(3) === 0) {
      messages.push({ role: 'assistant', content: '', tool_calls: [{ id: 'abcdefgh1', type: 'function', function: { name: 'get_weather', arguments: { city: randomText(dice, 3), days: dice.below(9), deep: [null, true, { 'ü"': [] }] } } }] });
      messages.push({ role: 'tool', tool_call_id: 'abcdefgh1', name: 'get_weather', content: randomText(dice, 4) });
    }
    if (turn > 0 || dice.below(2)) messages.push({ role: 'assistant', content: (dice.below(4) ? '' : '<think>so</think>') + randomText(dice) });
  }
  const context = { messages, add_generation_prompt: dice.below(2) === 1, bos_token: '<s>', eos_token: '</s>', date_string: '26 Jul 2024' };
  if (toolsFit) context.tools = [tool];
  return context;
}

let compared = 0, refused = 0;
for (const name of names) {
  const source = sourceOf(name);
  const template = new Template(source);
  const path = join(work, name.replace(/[:/]/g, '-') + '.jinja');
  writeFileSync(path, source);
  const contexts = file.cases.filter(one => one.template === name).map(one => one.context);
  for (let i = 0; i < 300; ++i) contexts.push(randomContext(source));
  const good = [];
  for (const context of contexts) {
    const expected = theirs(template, context);
    if (/content \| length/.test(source) && /[\u{10000}-\u{10ffff}]/u.test(JSON.stringify(context))) continue;  // JavaScript counts halves
    if ('text' in expected) good.push([context, expected.text]);
    else if (refused++ < 80) {  // one process each
      const ours = cli(['chat', work, '--template-file', path], [context]);
      if (ours.status !== 3) differ(`${name}: refused by @huggingface/jinja (${expected.error}): ${JSON.stringify(context)}`, 3, ours.status);
    }
  }
  const ours = cli(['chat', work, '--template-file', path], good.map(([context]) => context));
  if (ours.status !== 0) differ(`${name}: exit code (${ours.error})`, 0, ours.status);
  good.forEach(([context, expected], i) => {
    ++compared;
    if (ours.rows[i]?.text !== expected) differ(`${name}: ${JSON.stringify(context)}`, expected, ours.rows[i]?.text);
  });
}
finish(`${names.length} templates, ${compared} conversations compared, ${refused} refused by both`);
