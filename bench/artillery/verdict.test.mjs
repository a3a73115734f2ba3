// What the comparison calls the same, and what it must not: node --test bench/artillery
import assert from 'node:assert';
import { test } from 'node:test';
import { counters, pace, wire } from './verdict.mjs';

/** A source of chance that is the same in every run. */
function dice(seed) {
  let state = seed;
  return (n) => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return Math.floor((state / 2147483648) * n);
  };
}

/** 200 users, each a list of texts. */
const users = (make, seed) => {
  const roll = dice(seed);
  return Array.from({ length: 200 }, (_, c) => make(roll, c).map((text, i) => ({ c, t: i, text }))).flat();
};
const how = (there, here, ordered = true) => wire(users(there, 1), users(here, 99), { ordered }).how;
const letters = (roll) => Array.from({ length: 10 }, () => 'abcdefghijklmnopqrstuvwxyz'[roll(26)]).join('');

test('requests that are equal, and their order', () => {
  const flow = () => ['GET /a\n', 'GET /b\n'];
  assert.equal(how(flow, flow), 'same');
  assert.equal(how(flow, () => flow().reverse()), 'differs');
  assert.equal(how(flow, () => flow().reverse(), false), 'same');
  assert.equal(how(flow, () => ['GET /a\n']), 'differs');
  assert.equal(how(flow, () => []), 'differs');
});

test('what is drawn passes, what differs beside it does not', () => {
  const flow = (path, header) => (roll) => [`GET ${path}/${letters(roll)}\n${header}`];
  assert.equal(how(flow('/x', 'accept: a'), flow('/x', 'accept: a')), 'drawn');
  assert.equal(how(flow('/x', 'accept: a'), flow('/y', 'accept: a')), 'differs');
  assert.equal(how(flow('/x', 'accept: a'), flow('//x', 'accept: a')), 'differs');
  assert.equal(how(flow('/x', 'accept: a'), flow('/x', 'accept: b')), 'differs');
  assert.equal(how(flow('/x', 'accept: a'), flow('/x', 'accept: a\nmore: 1')), 'differs');
  const shorter = (roll) => [`GET /x/${letters(roll).slice(1)}\naccept: a`];
  assert.equal(how(flow('/x', 'accept: a'), shorter), 'differs');
});

test('numbers must be spread alike', () => {
  const flow = (n) => (roll) => [`GET /${1 + roll(n)}\n`];
  assert.equal(how(flow(100000), flow(100000)), 'drawn');
  assert.equal(how(flow(100000), flow(50000)), 'differs');
});

test('scenarios must come as often', () => {
  const flow = (share) => (roll) => (roll(100) < share ? ['GET /a\n', 'GET /b\n'] : ['GET /c\n']);
  assert.equal(how(flow(50), flow(50)), 'drawn');
  assert.equal(how(flow(50), flow(80)), 'differs');
  const wrong = (roll) => (roll(100) < 50 ? ['GET /b\n', 'GET /a\n'] : ['GET /c\n']);
  assert.equal(how(flow(50), wrong), 'differs');
});

test('counters', () => {
  const drawn = { drawn: true, users: 200 };
  const base = { 'vusers.created': 200, 'http.codes.200': 400 };
  const same = (a, b, options = { drawn: false }) => counters(a, b, options).how;
  assert.equal(same(base, { ...base, 'vusers.failed': 0 }), 'same');
  assert.equal(same(base, { ...base, 'http.codes.200': 399 }), 'differs');
  assert.equal(same(base, { ...base, 'http.codes.200': 390 }, drawn), 'drawn');
  assert.equal(same(base, { ...base, 'http.codes.200': 200 }, drawn), 'differs');
  assert.equal(same(base, { ...base, 'vusers.created': 199 }, drawn), 'differs');
  assert.equal(same(base, { ...base, 'errors.ECONNREFUSED': 30 }, drawn), 'differs');
  assert.equal(same({ ...base, 'apdex.satisfied': 3, 'apdex.tolerated': 1 }, { ...base, 'apdex.satisfied': 4 }), 'same');
});

test('the time that a user takes', () => {
  const run = (ms) => [{ c: 1, t: 0, text: 'GET /' }, { c: 1, t: ms, text: 'GET /' }];
  assert.equal(pace(run(2000), run(2100)), undefined);
  assert.match(pace(run(2000), run(3000)), /2000 ms there and 3000 ms here/);
});
