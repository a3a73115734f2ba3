// Runs Artillery scripts both with the real Artillery and with `nines load run`, each against a server that writes down
// every request, and compares what went over the wire, every counter and the exit code. Must not know what a script does.
//
//   node compare.mjs --nines BINARY --artillery BINARY [--cache FOLDER] [--users 3] [--seconds 60] [--only TEXT] FILE|FOLDER...
//   node compare.mjs --nines BINARY --artillery BINARY --cost SCRIPT [--rounds 3]
//
// The first form prints a line a script and how many passed. `--cache` keeps what the real one did, which does not
// change; `--record 1` only fills it, `--kept 1` compares only what it holds; `--show 1` shows requests
// that differ.
// The second form prints requests per CPU second of both, interleaved, and their ratio.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';

const options = { users: '3', seconds: '60', rounds: '3' };
const inputs = [];
for (let i = 2; i < process.argv.length; i++) {
  const word = process.argv[i];
  if (word.startsWith('--')) options[word.slice(2)] = process.argv[++i];
  else inputs.push(word);
}
for (const needed of ['nines', 'artillery']) {
  if (!options[needed]) throw new Error(`--${needed} BINARY is missing`);
}

// What differs by design: who sends it, and on which connection.
const IGNORED = new Set(['user-agent', 'traceparent', 'x-nines-run-id', 'host', 'connection', 'content-length', 'transfer-encoding']);

/** A server whose answers depend on the request only. */
function recorder() {
  const seen = [];
  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('error', () => {});
    request.on('end', () => {
      let body = Buffer.concat(chunks).toString('latin1');
      const headers = Object.entries(request.headers).filter(([name]) => !IGNORED.has(name));
      const boundary = /boundary=(.+)$/.exec(request.headers['content-type'] ?? '')?.[1];
      const plain = (text) => (boundary ? text.replaceAll(boundary, 'BOUNDARY') : text);
      // The order of a part's own lines and the file's guessed type are the sender's business.
      body = plain(body).replace(/Content-Type: .*\r\n/gi, '');
      const line = headers.map(([name, value]) => `${name}: ${plain(String(value))}`).sort();
      seen.push([`${request.method} ${request.url}`, ...line, body.length > 2000 ? createHash('sha1').update(body).digest('hex') : body].join('\n'));
      const url = request.url.split('?')[0];
      if (url.endsWith('/redirect')) return response.writeHead(302, { location: '/redirected' }).end();
      if (url.includes('cookie')) response.setHeader('set-cookie', ['testCookie=chocolate; Path=/', 'second=2; Path=/']);
      response.setHeader('content-type', url.endsWith('.html') ? 'text/html' : 'application/json');
      response.setHeader('server-timing', 'pets;dur=5, total;dur=5');
      response.setHeader('x-auth', 'secret');
      const answer = { id: 7, key: 'abc', name: 'luna', token: 't0', success: true, status: 'ok', ids: [1], devices: [{ id: 'd1' }], data: { id: 9, name: 'n' } };
      response.end(url.endsWith('.html') ? '<p><a class="x" href="/a.html">a</a></p>' : JSON.stringify(answer));
    });
  });
  server.keepAliveTimeout = 60000;
  return new Promise((ready) => server.listen(0, '127.0.0.1', () => ready({ seen, server, url: `http://127.0.0.1:${server.address().port}` })));
}

function run(command, args, cwd, seconds) {
  return new Promise((done) => {
    const timed = 'TIMEFORMAT="cpu %U %S"; time "$@"';
    const env = { ...process.env, ARTILLERY_DISABLE_TELEMETRY: 'true', NO_UPDATE_NOTIFIER: '1', LC_ALL: 'C' };
    const child = spawn('bash', ['-c', timed, '_', command, ...args], { cwd, env, detached: true });
    let [out, err] = ['', ''];
    child.stdout.on('data', (d) => { out += d; });
    child.stderr.on('data', (d) => { err += d; });
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      process.kill(-child.pid, 'SIGKILL');
    }, seconds * 1000);
    child.on('close', (code) => {
      clearTimeout(timer);
      const cpu = /cpu ([\d.]+) ([\d.]+)\s*$/.exec(err);
      done({ code: late ? 'late' : code, out, err, cpu: cpu ? Number(cpu[1]) + Number(cpu[2]) : 0 });
    });
  });
}

async function play(which, script, overrides) {
  const { seen, server, url } = await recorder();
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'compare-'));
  const report = path.join(folder, 'report.json');
  const args = which === 'nines' ? ['load', 'run'] : ['run'];
  args.push(script, '-t', url, '-o', report, '-k');
  if (overrides) args.push('--overrides', JSON.stringify(overrides));
  if (which === 'nines') args.push('--i-own-this-target');
  const ended = await run(path.resolve(options[which]), args, path.dirname(script), Number(options.seconds));
  let counters = {};
  try {
    counters = JSON.parse(fs.readFileSync(report, 'utf8')).aggregate.counters ?? {};
  } catch { /* a run that failed writes no report */ }
  server.closeAllConnections();
  server.close();
  fs.rmSync(folder, { recursive: true });
  const plain = (text) => text.replaceAll(url, 'TARGET').replaceAll(url.slice(7), 'TARGET');
  const named = Object.entries(counters).map(([name, n]) => [plain(name), n]);
  const last = ended.err.trim().split('\n').filter((l) => !l.startsWith('cpu ') && l.trim() && !/^(real|user|sys)/.test(l));
  return { code: ended.code, seen: seen.map(plain).sort(), counters: Object.fromEntries(named), said: last.slice(0, 2).join(' | '), cpu: ended.cpu };
}

/** What is random by nature in a script: then numbers are compared, not each request. */
const DRAWN = /weight|\$random|\$uuid|\$rand|payload|probability|variables|Date\.now|jitter|formData|Math\.random|uuid|flow[^]*flow/i;

function compare(real, ours, text) {
  const wrong = [];
  const masked = (s) => s.replace(/[A-Za-z0-9._%-]+/g, '*');
  const shapes = (list) => list.map((r) => r.split('\n')[0].split(' ')[0]).sort().join('\n');
  let drawn = false;
  if (real.seen.join('\n\n') !== ours.seen.join('\n\n')) {
    if (DRAWN.test(text) && (shapes(real.seen) === shapes(ours.seen) || /weight|probability|\$random|jitter|flow[^]*flow/.test(text))) drawn = true;
    else wrong.push(`wire (${real.seen.length} and ${ours.seen.length} requests)`);
  }
  const counters = (all, other) => Object.entries(all).filter(([name]) => {
    // Endpoints are counted here always, there when the plugin is named; bytes of responses to requests with cookies are
    // not counted there. Apdex depends on the time taken.
    const endpoint = name.startsWith('plugins.metrics-by-endpoint');
    return name !== 'http.downloaded_bytes' && !name.startsWith('apdex.') && !(endpoint && !Object.keys(other).some((n) => n.startsWith('plugins.metrics-by-endpoint')));
  }).filter(([, n]) => n !== 0).map(([name, n]) => `${name}=${n}`).sort();
  const [a, b] = [counters(real.counters, ours.counters), counters(ours.counters, real.counters)];
  const only = (x, y) => x.filter((c) => !y.includes(c)).map((c) => (c.length > 90 ? c.slice(0, 90) + '...' : c)).slice(0, 3).join(', ');
  if (a.join() !== b.join()) {
    const sum = (list) => list.filter((c) => /^(vusers.created|vusers.completed|vusers.failed)=/.test(c)).join();
    if ((drawn || /weight|flow[^]*flow/.test(text)) && sum(a) === sum(b)) drawn = true;
    else if (DRAWN.test(text) && a.map(masked).join() === b.map(masked).join()) drawn = true;
    else wrong.push(`counters (there: ${only(a, b) || '-'}; here: ${only(b, a) || '-'})`);
  }
  // A bad script ends there with 1 or 11, here with 2.
  const code = ours.code === 2 && real.code && !real.seen.length ? real.code : ours.code;
  if (code !== real.code) wrong.push(`exit code ${real.code} and ${ours.code}${ours.said ? ': ' + ours.said : ''}`);
  return { wrong, drawn };
}

async function cost(script) {
  const rounds = Number(options.rounds);
  const sums = { nines: [0, 0], artillery: [0, 0] };
  for (let round = 0; round < rounds; round++) {
    for (const which of ['artillery', 'nines']) {
      const got = await play(which, path.resolve(script));
      sums[which][0] += got.seen.length;
      sums[which][1] += got.cpu;
      console.log(`${which}: ${got.seen.length} requests, ${got.cpu.toFixed(2)} CPU s, exit code ${got.code}`);
    }
  }
  const per = (which) => sums[which][0] / Math.max(sums[which][1], 0.01);
  console.log(`requests per CPU second: nines ${per('nines').toFixed(0)}, Artillery ${per('artillery').toFixed(0)}, ratio ${(per('nines') / per('artillery')).toFixed(1)}`);
}

function scripts(input) {
  if (!fs.statSync(input).isDirectory()) return [path.resolve(input)];
  return fs.readdirSync(input, { recursive: true }).map((name) => path.resolve(input, name))
    .filter((file) => /\.(ya?ml|json)$/.test(file) && !file.includes('node_modules') && fs.statSync(file).isFile())
    .filter((file) => {
      const text = fs.readFileSync(file, 'utf8');
      return /^ *"?scenarios"? *:/m.test(text) && !/^ *"?engine"? *: *"?(playwright|socketio|ws|posthog|example)/m.test(text.replace(/- engine/g, '  engine')) && !/socketio/.test(text);
    }).sort();
}

if (options.cost) {
  await cost(options.cost);
} else {
  const users = Number(options.users);
  const overrides = { config: { phases: [{ duration: 1, arrivalCount: users }] } };
  const totals = { same: 0, drawn: 0, differs: 0, late: 0 };
  let compared = 0;
  const all = inputs.flatMap(scripts).filter((f) => !options.only || f.includes(options.only));
  for (const script of all) {
    const key = createHash('sha1').update(script + options.users).digest('hex');
    const kept = options.cache && path.join(options.cache, key + '.json');
    let real;
    if (kept && fs.existsSync(kept)) real = JSON.parse(fs.readFileSync(kept, 'utf8'));
    else if (options.kept) continue;
    else {
      real = await play('artillery', script, overrides);
      if (kept) {
        fs.mkdirSync(options.cache, { recursive: true });
        fs.writeFileSync(kept, JSON.stringify(real));
      }
    }
    if (options.record) continue;
    compared += 1;
    const ours = real.code === 'late' ? { code: 'late', seen: [], counters: {} } : await play('nines', script, overrides);
    let text = fs.readFileSync(script, 'utf8');
    const processor = /"?processor"?: *"?([^\s",]+)/.exec(text)?.[1];
    if (processor) {
      try { text += fs.readFileSync(path.resolve(path.dirname(script), processor), 'utf8'); } catch { /* it is missing on purpose */ }
    }
    const { wrong, drawn } = compare(real, ours, text);
    if (options.show) console.log(real.seen.filter((r) => !ours.seen.includes(r)).slice(0, 2).join('\n'), '\n--- there above, here below ---\n', ours.seen.filter((r) => !real.seen.includes(r)).slice(0, 2).join('\n'));
    const word = real.code === 'late' ? 'late' : wrong.length ? 'differs' : drawn ? 'drawn' : 'same';
    totals[word] += 1;
    const shown = path.relative(process.cwd(), script);
    console.log(`${word.padEnd(8)}${shown}${wrong.length ? ': ' + wrong.join('; ') : ''}`);
  }
  console.log(`${totals.same + totals.drawn} of ${compared} passed: ${totals.same} the same, ${totals.drawn} the same but for what is drawn at random, ${totals.differs} differ, ${totals.late} did not end within ${options.seconds} s with the real one`);
  process.exitCode = totals.differs ? 1 : 0;
}
