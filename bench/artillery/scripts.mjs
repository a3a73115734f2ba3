// Finds Artillery scripts in a folder, says by rule what each needs, and lays out copies whose hosts are the recorder.
// Must not run anything.
import fs from 'node:fs';
import path from 'node:path';

const TEXT = /\.(ya?ml|json|[cm]?js|ts|csv|txt|env)$|(^|\/)[^.\/]+$|\/\.env[^/]*$/;
const BUILT_IN = new Set(['ensure', 'expect', 'metrics-by-endpoint', 'apdex', 'fake-data']);
// Names that the scripts rely on not to be found.
const NOWHERE = /wontresolve|doesntmatter/;

/** Every script below `input`, or `input` itself: `{file, name, doc}`, the name relative to `root`. */
export function find(input, root, yaml) {
  const single = fs.statSync(input).isFile();
  const files = single ? [input] : fs.readdirSync(input, { recursive: true }).map((n) => path.join(input, n)).sort();
  const found = [];
  for (const file of files) {
    if (!/\.(ya?ml|json)$/.test(file) || file.includes('node_modules') || !fs.statSync(file).isFile()) continue;
    let doc;
    try {
      doc = yaml.load(fs.readFileSync(file, 'utf8'));
    } catch {
      continue;
    }
    if (Array.isArray(doc?.scenarios)) found.push({ file, name: path.relative(root, file), doc });
    else if (single) throw new Error(`${file} is no Artillery script: it has no list "scenarios"`);
  }
  return found;
}

function steps(flow) {
  return (Array.isArray(flow) ? flow.flat() : []).flatMap((s) => (s && typeof s === 'object' ? [s, ...steps(s.loop), ...steps(s.parallel)] : []));
}

/** What the script needs, by rule: `{engines, processor, plugins, parallel, pool, endless, thinks}`. */
export function needs(doc, config = doc.config ?? {}) {
  const all = doc.scenarios.flatMap((s) => steps(s?.flow));
  const processor = config.processor;
  return {
    engines: [...new Set(doc.scenarios.map((s) => s?.engine ?? 'http'))].sort(),
    processor: processor ? (/\.ts$/.test(processor) ? 'ts' : 'js') : 'none',
    plugins: Object.keys(config.plugins ?? {}).filter((p) => !BUILT_IN.has(p)),
    parallel: all.some((s) => s.parallel),
    pool: config.http?.pool !== undefined,
    endless: all.some((s) => s.loop && !s.count && !s.over && !s.whileTrue),
    thinks: all.some((s) => s.think !== undefined),
    // The real one closes a connection that has been idle for 4 s: then connections are not users.
    idles: all.some((s) => s.think !== undefined && !(seconds(s.think) < 3.5)),
  };
}

/** The configuration as the command line lays it together. */
export function merged(entry, args, yaml) {
  const after = (flag) => (args.includes(flag) ? args[args.indexOf(flag) + 1] : undefined);
  let config = entry.doc.config ?? {};
  const file = after('--config');
  if (file) config = { ...(yaml.load(fs.readFileSync(path.resolve(path.dirname(entry.file), file), 'utf8')).config ?? {}), ...config };
  return { ...config, ...(config.environments?.[after('-e') ?? after('--environment')] ?? {}) };
}

// Durations as the scripts write them.
const UNITS = { ms: 0.001, s: 1, sec: 1, second: 1, seconds: 1, m: 60, min: 60, minute: 60, minutes: 60, h: 3600, hour: 3600, hours: 3600 };
function seconds(value) {
  const [, number, unit] = /^([\d.]+)\s*([a-z]*)$/.exec(String(value)) ?? [];
  return number === undefined ? NaN : Number(number) * (UNITS[unit || 's'] ?? NaN);
}

/** How long the phases take, in seconds, and how many users come; NaN when that cannot be told. */
export function size(phases) {
  let [length, users] = [0, 0];
  if (!phases) return { length: 1, users: 1 };
  for (const p of Array.isArray(phases) ? phases : [NaN]) {
    const takes = seconds(p?.duration ?? p?.pause);
    length += takes;
    users += p?.arrivalCount ?? (p?.pause !== undefined ? 0 : takes * Math.max(Number(p?.arrivalRate ?? 0), Number(p?.rampTo ?? 0)));
  }
  return { length, users };
}

/** Copies `root` to `into`; in texts, hosts become the recorder's, so that a script runs with the target it names. */
export function lay(root, into, ports, modules) {
  const [plain, secure] = [`127.0.0.1:${ports.http}`, `127.0.0.1:${ports.https}`];
  const place = (text) => text
    .replace(/(https|wss):\/\/(?:127\.0\.0\.1|localhost):\d+/g, `$1://${secure}`)
    .replace(/(http|ws):\/\/(?:127\.0\.0\.1|localhost):\d+/g, `$1://${plain}`)
    .replace(/https?:\/\/([a-z0-9-]+\.)+(io|com|org|dev|app)(:\d+)?/g, (whole) => (NOWHERE.test(whole) ? whole : `http://${plain}`));
  fs.cpSync(root, into, { recursive: true, dereference: false, filter: (from) => !/node_modules|\.git($|\/)/.test(from.slice(root.length)) });
  for (const name of fs.readdirSync(into, { recursive: true })) {
    const file = path.join(into, name);
    const stat = fs.lstatSync(file);
    if (!stat.isFile() || stat.size > 200000 || !TEXT.test(`/${name}`)) continue;
    const text = fs.readFileSync(file, 'utf8');
    if (text.includes('\0')) continue;
    const placed = place(text);
    if (placed !== text) fs.writeFileSync(file, placed);
  }
  if (modules) fs.symlinkSync(modules, path.join(into, 'node_modules'));
}
