// Runs Artillery scripts both with the real Artillery and with `nines load run`, each against the recorder, and compares
// what went over the wire, every counter and the exit code. Must not know what a script does.
//
//   node compare.mjs --nines BINARY --artillery BINARY [--flags FILE] [--cache FOLDER] [--jobs 2] [--only TEXT] FILE|FOLDER...
//   node compare.mjs --nines BINARY --artillery BINARY --cost SCRIPT [--rounds 3]
//
// The first form prints a line a script, then how many came out how:
//   same       requests, their order within a user, counters and exit code are equal
//   drawn      the script draws at random: 200 users (`many` in FILE) on each side are equal but for what is drawn, in shares that chance allows
//   refused    neither runs it; both reasons are shown
//   unported   it needs what is refused by name here (a plugin of its own, an engine); the reason is shown
//   crashed    an exception in its JavaScript ends the real one; here it ends the user
//   skipped    not run, for the reason shown
//   differs, late (the real one did not end)
// `--cache` keeps what the real one did, `--kept 1` runs only ours beside what it holds; `--show 1` prints requests that differ. Scripts run with their own phases when
// these take at most 25 s and 600 users, else with 20 users in 4 s.
// The second form prints requests per CPU second of both, interleaved, and their ratio.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { recorder } from './recorder.mjs';
import { find, lay, merged, needs, size } from './scripts.mjs';
import * as verdict from './verdict.mjs';

const options = { rounds: '3', jobs: '2', seconds: '120' };
const inputs = [];
for (let i = 2; i < process.argv.length; i++) {
  const word = process.argv[i];
  if (word.startsWith('--')) options[word.slice(2)] = process.argv[++i];
  else inputs.push(word);
}
for (const needed of ['nines', 'artillery']) {
  if (!options[needed]) throw new Error(`--${needed} BINARY is missing`);
  fs.accessSync(options[needed], fs.constants.X_OK);
}
const SOME = { config: { phases: [{ duration: 4, arrivalCount: 20 }] } };
const PAUSE = 35;

const require = createRequire(fs.realpathSync(options.artillery));
const yaml = require('js-yaml');
const ws = require('ws');
// The package's own folder.
const home = path.dirname(require.resolve('artillery/package.json'));
const modules = path.join(fs.realpathSync(options.artillery).split('/node_modules/')[0], 'node_modules');

const work = fs.mkdtempSync(path.join(os.tmpdir(), 'compare-'));
process.on('exit', () => fs.rmSync(work, { recursive: true, force: true }));
process.on('SIGINT', () => process.exit(130));

function certificate() {
  const [key, cert] = [path.join(work, 'key.pem'), path.join(work, 'cert.pem')];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', key, '-out', cert], { stdio: 'ignore' });
  return { key: fs.readFileSync(key), cert: fs.readFileSync(cert) };
}

/** Runs a command; after `stop` seconds it is asked to end, 15 s later it is ended. */
function run(command, args, cwd, env, stop) {
  return new Promise((done) => {
    const timed = 'TIMEFORMAT="cpu %U %S"; trap : INT; time "$@"';
    const all = { ...process.env, ARTILLERY_DISABLE_TELEMETRY: 'true', NO_UPDATE_NOTIFIER: '1', LC_ALL: 'C', ...env };
    const child = spawn('bash', ['-c', timed, '_', command, ...args], { cwd, env: all, detached: true });
    let [out, err, asked, late] = ['', '', false, false];
    child.stdout.on('data', (d) => { out += d; });
    child.stderr.on('data', (d) => { err += d; });
    const signal = (name) => { try { process.kill(-child.pid, name); } catch { /* it has ended */ } };
    const timers = [
      setTimeout(() => { asked = true; signal('SIGINT'); }, stop * 1000),
      setTimeout(() => { late = true; signal('SIGKILL'); }, (stop + 15) * 1000),
    ];
    child.on('close', (code) => {
      timers.forEach(clearTimeout);
      const cpu = /cpu ([\d.]+) ([\d.]+)\s*$/.exec(err);
      done({ code, asked, late, out, err, cpu: cpu ? Number(cpu[1]) + Number(cpu[2]) : 0 });
    });
  });
}

/** One side, once. `slot` holds the recorder and the folder with the copies. */
async function play(which, script, args, env, overrides, slot, stop) {
  slot.server.take();
  const report = path.join(slot.folder, `report-${which}.json`);
  fs.rmSync(report, { force: true });
  // `runner` is the real one without its command line.
  const before = { nines: ['load', 'run'], artillery: ['run'], runner: [path.join(import.meta.dirname, 'runner.mjs'), home] }[which];
  const all = [...before, path.basename(script), ...args, '-o', report];
  if (overrides) all.push('--overrides', JSON.stringify(overrides));
  if (which === 'nines') all.push('--i-own-this-target');
  const command = which === 'runner' ? process.execPath : path.resolve(options[which]);
  const ended = await run(command, all, path.dirname(script), env, stop);
  let counters = {};
  try {
    counters = JSON.parse(fs.readFileSync(report, 'utf8')).aggregate.counters ?? {};
  } catch { /* a run that failed writes no report */ }
  const plain = (text) => String(text).replaceAll(slot.folder, 'FOLDER').replace(/(127\.0\.0\.1|localhost):(\d+)/g, (whole, _, port) => ([slot.server.http, slot.server.https].includes(Number(port)) ? 'RECORDER' : whole));
  const seen = slot.server.take().map(({ c, t, text }) => ({ c, t: Math.round(t), text: plain(text) }));
  const lines = plain(`${ended.err}\n${ended.code ? ended.out : ''}`).split('\n').map((l) => l.trim().replace(/\x1b\[\d*m/g, ''));
  const checks = lines.filter((l) => /^(ok|fail): /.test(l)).sort();
  const said = lines.filter((l) => l && !/^(cpu |warning:|Test run id|Running scenarios|Phase|at |\[|---|Metrics for)/.test(l)).slice(0, 2).join(' | ');
  return { checks, code: ended.code, asked: ended.asked, late: ended.late, seen, counters: Object.fromEntries(Object.entries(counters).map(([n, v]) => [plain(n), v])), said, cpu: ended.cpu };
}

/** The real one's run, from the cache when it is there. */
async function real(key, make) {
  const kept = options.cache && path.join(options.cache, `${createHash('sha1').update(key).digest('hex')}.json`);
  if (kept && fs.existsSync(kept)) return JSON.parse(fs.readFileSync(kept, 'utf8'));
  if (options.kept) return { late: true, said: 'not recorded yet' };
  const made = await make();
  if (kept) {
    fs.mkdirSync(options.cache, { recursive: true });
    fs.writeFileSync(kept, JSON.stringify(made));
  }
  return made;
}

/** Checks of the time taken that came out otherwise, when nothing else did. */
function slower(there, here) {
  const failed = (run) => (run.checks ?? []).filter((c) => c.startsWith('fail: '));
  const only = [...failed(there).filter((c) => !failed(here).includes(c)), ...failed(here).filter((c) => !failed(there).includes(c))];
  const timed = only.every((c) => /response_time|session_length|: (min|max|median|p95|p99) </.test(c));
  return only.length && timed ? only.join(', ') : undefined;
}

const REFUSED = /is not supported|is TypeScript|not supported;/;

/** What came out: `{word, why}`. */
async function judge(entry, flags, slot) {
  const filled = (s) => s.replaceAll('PORT', slot.server.http);
  const given = flags[entry.name] ?? {};
  const args = (given.args ?? []).map(filled);
  const env = Object.fromEntries(Object.entries(given.env ?? {}).map(([n, v]) => [n, filled(v)]));
  if (given.skip) return { need: needs(entry.doc), word: 'skipped', why: given.skip };
  const script = path.join(slot.folder, 'scripts', entry.name);
  const config = merged(entry, given.args ?? [], yaml);
  const need = needs(entry.doc, config);
  const { length, users } = size(config.phases);
  const own = length <= 25 && users <= 600;
  let refuses = '';
  const both = async (overrides) => {
    const key = JSON.stringify(['3', entry.name, fs.readFileSync(entry.file, 'utf8'), { args: given.args, env: given.env }, overrides ?? null]);
    const stop = need.endless ? PAUSE : (given.seconds ?? Number(options.seconds));
    let there = await real(key, () => play('artillery', script, args, env, overrides, slot, stop));
    if (/^Scenario validation error/.test(there.said)) {
      refuses = `the real command line refuses it (${there.said.split(' | ')[0]}), its runner does the same as ours`;
      there = await real(`runner ${key}`, () => play('runner', script, [], env, overrides, slot, stop));
    }
    if (there.late || (there.asked && !need.endless)) return [there, undefined];
    return [there, await play('nines', script, args, env, overrides, slot, stop)];
  };
  const [there, here] = await both(own ? undefined : SOME);
  if (!here) return { need, word: 'late', why: there.said };
  const show = (a, b) => {
    if (!options.show) return;
    const [x, y] = [a.seen.map((r) => r.text), b.seen.map((r) => r.text)];
    console.log(`${x.filter((r) => !y.includes(r)).slice(0, 2).join('\n')}\n--- there above, here below ---\n${y.filter((r) => !x.includes(r)).slice(0, 2).join('\n')}`);
  };
  if (here.code === 2 && !here.seen.length) {
    if (there.code && !there.seen.length && !there.counters['vusers.created']) return { need, word: 'refused', why: `there ${there.code}: ${there.said}; here: ${here.said}` };
    if (REFUSED.test(here.said)) return { need, word: 'unported', why: here.said };
  }
  if (there.code === 11 && /worker error/.test(there.said)) return { need, word: 'crashed', why: `the real one ends at once: ${there.said}` };
  const wrong = [];
  const ordered = !need.parallel && !need.pool && !need.idles;
  if (need.endless) {
    // Stopped from outside: how many turns were made is chance.
    const texts = (run) => [...new Set(run.seen.map((r) => r.text))].sort().join('\n\n');
    if (texts(there) !== texts(here)) wrong.push(`wire: ${there.seen.length} and ${here.seen.length} requests`);
    const [a, b] = [verdict.turn(there.seen), verdict.turn(here.seen)];
    if (!(Math.abs(a - b) <= Math.max(100, a / 10))) wrong.push(`a turn takes ${a} ms there and ${b} ms here`);
    if (there.code !== here.code) wrong.push(`exit code ${there.code} and ${here.code}: ${here.said}`);
    return wrong.length ? { need, word: 'differs', why: wrong.join('; ') } : { need, word: 'same', why: `endless: both stopped after ${PAUSE} s` };
  }
  let runs = [there, here];
  let wired = verdict.wire(there.seen, here.seen, { ordered });
  let counted = verdict.counters(there.counters, here.counters, { drawn: false });
  if (wired.how !== 'same' || counted.how !== 'same') {
    // By chance, or not? With more users chance is small.
    const many = given.many ?? 200;
    runs = await both({ config: { phases: [{ duration: 8, arrivalCount: many }] } });
    if (!runs[1]) return { need, word: 'late', why: `${many} users` };
    wired = verdict.wire(runs[0].seen, runs[1].seen, { ordered });
    counted = verdict.counters(runs[0].counters, runs[1].counters, { drawn: true, users: many });
    if (runs[0].code !== runs[1].code && !slower(...runs)) wrong.push(`exit code ${runs[0].code} and ${runs[1].code} with ${many} users`);
  }
  if (wired.how === 'differs') wrong.push(`wire: ${wired.why}`);
  if (counted.how === 'differs') wrong.push(`counters ${counted.why}`);
  const slow = slower(there, here);
  if (there.code !== here.code && !slow) wrong.push(`exit code ${there.code} and ${here.code}: there ${there.said}; here ${here.said}`);
  if (wired.how === 'same' && need.thinks && ordered) {
    const pace = verdict.pace(there.seen, here.seen);
    if (pace) wrong.push(pace);
  }
  const asked = Object.keys(runs[1].counters).find((name) => /^errors\.ERR_\w+_NOT_SUPPORTED$/.test(name));
  if (asked) return { need, word: 'unported', why: `${asked.slice(7)}, counted for ${runs[1].counters[asked]} users` };
  if (wrong.length) {
    show(...runs);
    return { need, word: 'differs', why: wrong.join('; ') };
  }
  if (slow) return { need, word: 'same', why: `but for the time taken: ${slow}` };
  const word = wired.how === 'same' && counted.how === 'same' ? 'same' : 'drawn';
  const bytes = word === 'drawn' || there.counters['http.downloaded_bytes'] === here.counters['http.downloaded_bytes'];
  return { need, word, why: refuses || given.note, bytes };
}

async function cost(script) {
  const server = await recorder();
  const slot = { server, folder: work };
  const sums = { nines: [0, 0], artillery: [0, 0] };
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const which of ['artillery', 'nines']) {
      const got = await play(which, path.resolve(script), ['-t', `http://127.0.0.1:${server.http}`], {}, undefined, slot, 180);
      sums[which][0] += got.seen.length;
      sums[which][1] += got.cpu;
      console.log(`${which}: ${got.seen.length} requests, ${got.cpu.toFixed(2)} CPU s, exit code ${got.code}`);
    }
  }
  server.close();
  const per = (which) => sums[which][0] / Math.max(sums[which][1], 0.01);
  console.log(`requests per CPU second: nines ${per('nines').toFixed(0)}, Artillery ${per('artillery').toFixed(0)}, ratio ${(per('nines') / per('artillery')).toFixed(1)}`);
}

async function all() {
  const flags = options.flags ? JSON.parse(fs.readFileSync(options.flags, 'utf8')) : {};
  const folders = inputs.map((i) => path.resolve(i));
  const root = folders.length === 1 && fs.statSync(folders[0]).isDirectory() ? folders[0] : path.dirname(folders[0]);
  const entries = folders.flatMap((i) => find(i, root, yaml)).filter((e) => !options.only || e.name.includes(options.only));
  const tls = certificate();
  const results = [];
  const waiting = [...entries];
  const worker = async (n) => {
    const server = await recorder({ tls, ws });
    const slot = { server, folder: path.join(work, `slot-${n}`) };
    fs.mkdirSync(slot.folder);
    lay(root, path.join(slot.folder, 'scripts'), server, modules);
    for (let entry = waiting.shift(); entry; entry = waiting.shift()) {
      const engines = needs(entry.doc).engines.filter((e) => !['http', 'ws'].includes(e));
      const result = engines.length ? { need: needs(entry.doc), word: 'unported', why: `engine ${engines.join(', ')}` } : await judge(entry, flags, slot);
      results.push({ name: entry.name, ...result });
      console.log(`${result.word.padEnd(9)}${entry.name}${result.why ? `: ${result.why}` : ''}${result.bytes === false ? ' (downloaded_bytes differ)' : ''}`);
    }
    server.close();
  };
  await Promise.all(Array.from({ length: Number(options.jobs) }, (_, n) => worker(n)));
  const groups = {
    'http, no JavaScript': (r) => r.need.engines.join() === 'http' && r.need.processor === 'none',
    'http, a processor': (r) => r.need.engines.join() === 'http' && r.need.processor !== 'none',
    WebSocket: (r) => r.need.engines.join() === 'ws',
    'other engines': (r) => !['http', 'ws'].includes(r.need.engines.join()),
  };
  for (const [group, holds] of Object.entries(groups)) {
    const those = results.filter(holds);
    if (!those.length) continue;
    const words = ['same', 'drawn', 'refused', 'unported', 'crashed', 'skipped', 'differs', 'late'].map((w) => [w, those.filter((r) => r.word === w).length]);
    console.log(`${group}: ${those.length} scripts: ${words.filter(([, n]) => n).map(([w, n]) => `${n} ${w}`).join(', ')}`);
  }
  const passed = results.filter((r) => r.word === 'same' || r.word === 'drawn').length;
  console.log(`${passed} of ${results.length} passed`);
  process.exitCode = results.some((r) => r.word === 'differs') || !results.length ? 1 : 0;
}

await (options.cost ? cost(options.cost) : all());
process.exit();
