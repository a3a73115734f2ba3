// Compares two runs: what went over the wire, the counters, the exit code. Exactly where the script draws nothing, else
// by structure and distribution. Must not know who made which run, nor read a script.

const LIMIT = 4.5; // Standard errors. One comparison in 150,000 is further off by chance.

const count = (list) => {
  const all = new Map();
  for (const item of list) all.set(item, (all.get(item) ?? 0) + 1);
  return all;
};
const sorted = (list) => [...list].sort().join('\n\n');

/** Each connection's requests in order. Without a pool a connection is a user. */
function sequences(seen, ordered) {
  const by = new Map();
  for (const { c, text } of seen) by.set(c, [...(by.get(c) ?? []), text]);
  return [...by.values()].map((list) => (ordered ? list : [...list].sort()));
}

const words = (text) => text.split(/([A-Za-z0-9]+)/);
const kind = (word) => (/^\d+$/.test(word) ? 'N' : `W${word.length}`);

/**
 * Finds the words that are drawn: at the same place of the same shape both runs have values that the other one has not.
 * Gives a function that puts their kind in their place, and what speaks against a draw.
 */
export function mask(there, here) {
  const shapes = new Map();
  for (const [side, texts] of [[0, there], [1, here]]) {
    for (const text of texts) {
      const parts = words(text);
      const shape = parts.map((w, i) => (i % 2 ? '' : w)).join('\u0001');
      if (!shapes.has(shape)) shapes.set(shape, []);
      const places = shapes.get(shape);
      for (let i = 1; i < parts.length; i += 2) {
        places[i] ??= [new Map(), new Map()];
        places[i][side].set(parts[i], (places[i][side].get(parts[i]) ?? 0) + 1);
      }
    }
  }
  const against = [];
  const drawn = new Map();
  for (const [shape, places] of shapes) {
    for (const [i, place] of places.entries()) {
      if (!place) continue;
      const [a, b] = place;
      const only = (x, y) => [...x].filter(([v]) => !y.has(v)).reduce((sum, [, n]) => sum + n, 0);
      const total = (x) => [...x.values()].reduce((sum, n) => sum + n, 0);
      if (!a.size || !b.size) continue;
      if (only(a, b) <= total(a) / 20 && only(b, a) <= total(b) / 20) continue;
      const [one, other] = [[...a.keys()], [...b.keys()]];
      // One value throughout is a draw only when it looks like one: an id of the run, a time.
      const id = (v) => v.length >= 12 || /^\d{10,}$/.test(v);
      if ((one.length === 1 && total(a) > 2 && !id(one[0])) || (other.length === 1 && total(b) > 2 && !id(other[0]))) continue;
      drawn.set(`${shape}\u0002${i}`, true);
      if ([...one, ...other].every((v) => /^\d{1,9}$/.test(v))) {
        const far = distance(a, b);
        if (far) against.push(`numbers are spread otherwise (${far}): there ${one.slice(0, 4)}, here ${other.slice(0, 4)}`);
      }
    }
  }
  const apply = (text) => {
    const parts = words(text);
    const shape = parts.map((w, i) => (i % 2 ? '' : w)).join('\u0001');
    return parts.map((w, i) => (i % 2 && drawn.has(`${shape}\u0002${i}`) ? kind(w) : w)).join('');
  };
  return { apply, against, drawn: drawn.size };
}

/** Kolmogorov and Smirnov's test on two samples of numbers, at one in 10,000. Nothing when it finds nothing. */
function distance(a, b) {
  const flat = (m) => [...m].flatMap(([v, n]) => Array(n).fill(Number(v))).sort((x, y) => x - y);
  const [x, y] = [flat(a), flat(b)];
  if (x.length < 30 || y.length < 30) return undefined;
  let [i, j, most] = [0, 0, 0];
  while (i < x.length && j < y.length) {
    const v = Math.min(x[i], y[j]);
    while (x[i] === v) i++;
    while (y[j] === v) j++;
    most = Math.max(most, Math.abs(i / x.length - j / y.length));
  }
  return most > 2.23 * Math.sqrt((x.length + y.length) / (x.length * y.length)) ? `distance ${most.toFixed(2)}` : undefined;
}

/** Shares of what occurs must agree within what chance allows, and what only one side has must be rare. Gives what does not. */
function shares(there, here) {
  const [a, b] = [count(there), count(here)];
  const wrong = [];
  const alone = (x, y) => [...x].filter(([text]) => !y.has(text));
  for (const list of [alone(a, b), alone(b, a)]) {
    const sum = list.reduce((n, [, m]) => n + m, 0);
    if (sum <= Math.max(6, Math.min(there.length, here.length) / 20)) continue;
    for (const [text] of list) wrong.push({ text, there: a.get(text) ?? 0, here: b.get(text) ?? 0 });
  }
  for (const text of new Set([...a.keys(), ...b.keys()])) {
    const [x, y] = [a.get(text) ?? 0, b.get(text) ?? 0];
    const p = (x + y) / (there.length + here.length);
    const off = Math.abs(x / there.length - y / here.length);
    if (off > LIMIT * Math.sqrt(p * (1 - p) * (1 / there.length + 1 / here.length))) wrong.push({ text, there: x, here: y });
  }
  return wrong;
}

const first = (text) => text.split('\n')[0].slice(0, 90);

/** What went over the wire. `how`: same, drawn or differs. */
export function wire(there, here, { ordered }) {
  const texts = (seen) => seen.map((r) => r.text);
  const lines = (seen) => sequences(seen, ordered).map((s) => s.join('\n\n'));
  if (sorted(texts(there)) === sorted(texts(here))) {
    // Several requests at once, or connections shared: order means nothing.
    if (!ordered || sorted(lines(there)) === sorted(lines(here))) return { how: 'same' };
    return { how: 'differs', why: 'order within a user' };
  }
  const differ = (why) => ({ how: 'differs', why: `${why} (${there.length} requests there, ${here.length} here)` });
  if (!there.length || !here.length) return differ('nothing was sent on one side');
  const { apply, against } = mask(texts(there), texts(here));
  if (against.length) return differ(against[0]);
  const plain = (seen) => seen.map((r) => ({ ...r, text: apply(r.text) }));
  const [a, b] = [plain(there), plain(here)];
  const [x, y] = [lines(a), lines(b)];
  const few = ordered && new Set([...x, ...y]).size <= Math.max(2, (x.length + y.length) / 6);
  const wrong = few ? shares(x, y) : shares(texts(a), texts(b));
  if (wrong.length) {
    const { text, there: n, here: m } = wrong[0];
    const other = wrong.find((w) => w !== wrong[0] && (w.there > w.here) !== (n > m));
    return differ(`${first(text)}: ${n} there, ${m} here${other ? `; ${firstDifference(text, other.text)}` : ''}`);
  }
  return { how: 'drawn', by: few ? 'users' : 'requests' };
}

function firstDifference(a, b) {
  const [x, y] = [a.split('\n'), b.split('\n')];
  const i = x.findIndex((line, n) => line !== y[n]);
  return i < 0 ? `and ${y.length - x.length} more lines` : `${(x[i] ?? '').slice(0, 70)} | ${(y[i] ?? '').slice(0, 70)}`;
}

/** Counters, zeros left out; `apdex.*`, which depends on the time taken, as one sum. */
export function named(counters) {
  const all = {};
  for (const [name, n] of Object.entries(counters)) {
    if (name === 'http.downloaded_bytes' || !n) continue;
    const as = name.startsWith('apdex.') ? 'apdex.(all)' : name;
    all[as] = (all[as] ?? 0) + n;
  }
  return all;
}

/** Counters compared. With `drawn`, names by structure and numbers by what chance allows. */
export function counters(there, here, { drawn, users }) {
  let [a, b] = [named(there), named(here)];
  const list = (x) => Object.entries(x).map(([n, v]) => `${n}=${v}`).sort();
  if (list(a).join() === list(b).join()) return { how: 'same' };
  const differ = () => {
    const [x, y] = [list(a), list(b)];
    const only = (p, q) => p.filter((c) => !q.includes(c)).slice(0, 3).map((c) => c.slice(0, 90)).join(', ') || '-';
    return { how: 'differs', why: `there: ${only(x, y)}; here: ${only(y, x)}` };
  };
  if (!drawn) return differ();
  const { apply } = mask(Object.keys(a), Object.keys(b));
  const fold = (x) => {
    const sum = {};
    for (const [name, n] of Object.entries(x)) sum[apply(name)] = (sum[apply(name)] ?? 0) + n;
    return sum;
  };
  [a, b] = [fold(a), fold(b)];
  for (const name of new Set([...Object.keys(a), ...Object.keys(b)])) {
    const [x, y] = [a[name] ?? 0, b[name] ?? 0];
    if (x === y) continue;
    if (name === 'vusers.created') return differ();
    const each = Math.max(1, (x + y) / (2 * users));
    if (Math.abs(x - y) > LIMIT * Math.sqrt((x + y) * each) + 1) return differ();
  }
  return { how: 'drawn' };
}

/** The time between two requests of a user, middle of all. */
export function turn(seen) {
  const last = new Map();
  const gaps = [];
  for (const { c, t } of seen) {
    if (last.has(c)) gaps.push(t - last.get(c));
    last.set(c, t);
  }
  return gaps.sort((x, y) => x - y)[Math.floor(gaps.length / 2)];
}

/** The time from a user's first request to its last, middle of all users: alike within a tenth or 300 ms. */
export function pace(there, here) {
  const middle = (seen) => {
    const by = new Map();
    for (const { c, t } of seen) {
      const [from, to] = by.get(c) ?? [t, t];
      by.set(c, [Math.min(from, t), Math.max(to, t)]);
    }
    const spans = [...by.values()].map(([from, to]) => to - from).sort((x, y) => x - y);
    return spans[Math.floor(spans.length / 2)] ?? 0;
  };
  const [a, b] = [middle(there), middle(here)];
  return Math.abs(a - b) <= Math.max(300, a / 10) ? undefined : `a user takes ${Math.round(a)} ms there and ${Math.round(b)} ms here`;
}
