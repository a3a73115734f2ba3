// The built-in modules of Node that processors use, as far as they make sense in a load test: path, util, url,
// querystring, events, crypto, fs (the script's folder, reading only), os, assert, timers. Anything else is refused by
// the host. Must not know virtual users.
(function (host, shared) {
  'use strict';
  const { inspect, format, process } = shared;

  // bytes -------------------------------------------------------------------------------------------------------------
  class TextEncoder {
    get encoding() { return 'utf-8'; }
    encode(text = '') { return new Uint8Array(host.utf8(String(text))); }
  }
  class TextDecoder {
    get encoding() { return 'utf-8'; }
    decode(view) { return view === undefined ? '' : host.text(plain(view)); }
  }
  const plain = (view) => {
    if (view instanceof ArrayBuffer) return new Uint8Array(view);
    return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  };
  const latin = (text) => Uint8Array.from(text, (c) => c.charCodeAt(0) & 255);
  const unlatin = (view) => Array.from(view, (b) => String.fromCharCode(b)).join('');
  function decode(text, encoding) {
    switch (String(encoding ?? 'utf8').toLowerCase()) {
      case 'utf8': case 'utf-8': return new Uint8Array(host.utf8(text));
      case 'hex': return Uint8Array.from(text.match(/[0-9a-f]{2}/gi) ?? [], (h) => parseInt(h, 16));
      case 'base64': case 'base64url': return new Uint8Array(host.unbase64(text));
      case 'latin1': case 'binary': case 'ascii': return latin(text);
      default: throw new TypeError(`Unknown encoding: ${encoding}`);
    }
  }
  function encode(view, encoding) {
    switch (String(encoding ?? 'utf8').toLowerCase()) {
      case 'utf8': case 'utf-8': return host.text(view);
      case 'hex': return Array.from(view, (b) => b.toString(16).padStart(2, '0')).join('');
      case 'base64': return host.base64(view, false);
      case 'base64url': return host.base64(view, true);
      case 'latin1': case 'binary': case 'ascii': return unlatin(view);
      default: throw new TypeError(`Unknown encoding: ${encoding}`);
    }
  }
  class Buffer extends Uint8Array {
    static from(value, encoding, length) {
      if (typeof value === 'string') value = decode(value, encoding);
      else if (value instanceof ArrayBuffer) return new Buffer(value, encoding ?? 0, length);
      else if (value && value.type === 'Buffer') value = value.data;
      const out = new Buffer(value.length);
      out.set(value);
      return out;
    }
    static alloc(size, fill, encoding) {
      const out = new Buffer(size);
      if (typeof fill === 'number') return out.fill(fill);
      if (fill === undefined) return out;
      const part = Buffer.from(fill, encoding);
      for (let i = 0; i < size && part.length; i++) out[i] = part[i % part.length];
      return out;
    }
    static allocUnsafe(size) { return new Buffer(size); }
    static isBuffer(value) { return value instanceof Buffer; }
    static byteLength(value, encoding) { return typeof value === 'string' ? decode(value, encoding).length : value.byteLength; }
    static concat(list, total = list.reduce((n, b) => n + b.length, 0)) {
      const out = new Buffer(total);
      let at = 0;
      for (const part of list) {
        out.set(part.subarray(0, Math.max(0, total - at)), at);
        at += part.length;
      }
      return out;
    }
    static compare(a, b) { return a.compare(b); }
    static isEncoding(name) { return /^(utf-?8|hex|base64(url)?|latin1|binary|ascii)$/i.test(name); }
    toString(encoding, from = 0, to = this.length) { return encode(plain(super.subarray(from, to)), encoding); }
    toJSON() { return { type: 'Buffer', data: Array.from(this) }; }
    equals(other) { return this.length === other.length && this.every((b, i) => b === other[i]); }
    compare(other) {
      for (let i = 0; i < Math.min(this.length, other.length); i++) if (this[i] !== other[i]) return this[i] < other[i] ? -1 : 1;
      return Math.sign(this.length - other.length);
    }
    slice(from, to) { return this.subarray(from, to); }
    write(text, at = 0, length, encoding) {
      const part = decode(text, typeof length === 'string' ? length : encoding);
      const fits = part.subarray(0, this.length - at);
      this.set(fits, at);
      return fits.length;
    }
    copy(target, at = 0, from = 0, to = this.length) {
      const part = this.subarray(from, to).subarray(0, target.length - at);
      target.set(part, at);
      return part.length;
    }
    #view() { return new DataView(this.buffer, this.byteOffset, this.byteLength); }
    readUInt8(at = 0) { return this[at]; }
    readInt8(at = 0) { return this.#view().getInt8(at); }
    readUInt16BE(at = 0) { return this.#view().getUint16(at); }
    readUInt16LE(at = 0) { return this.#view().getUint16(at, true); }
    readUInt32BE(at = 0) { return this.#view().getUint32(at); }
    readUInt32LE(at = 0) { return this.#view().getUint32(at, true); }
    readInt32BE(at = 0) { return this.#view().getInt32(at); }
    readInt32LE(at = 0) { return this.#view().getInt32(at, true); }
    writeUInt8(n, at = 0) { this[at] = n; return at + 1; }
    writeUInt16BE(n, at = 0) { this.#view().setUint16(at, n); return at + 2; }
    writeUInt16LE(n, at = 0) { this.#view().setUint16(at, n, true); return at + 2; }
    writeUInt32BE(n, at = 0) { this.#view().setUint32(at, n); return at + 4; }
    writeUInt32LE(n, at = 0) { this.#view().setUint32(at, n, true); return at + 4; }
  }
  const btoa = (text) => host.base64(latin(text), false);
  const atob = (text) => unlatin(new Uint8Array(host.unbase64(text)));

  // events ------------------------------------------------------------------------------------------------------------
  class EventEmitter {
    #all = new Map();
    on(name, fn) { this.#all.set(name, (this.#all.get(name) ?? []).concat([[fn, fn]])); return this; }
    once(name, fn) {
      const one = (...args) => { this.off(name, fn); fn.apply(this, args); };
      this.#all.set(name, (this.#all.get(name) ?? []).concat([[one, fn]]));
      return this;
    }
    off(name, fn) { this.#all.set(name, (this.#all.get(name) ?? []).filter(([, f]) => f !== fn)); return this; }
    addListener(name, fn) { return this.on(name, fn); }
    removeListener(name, fn) { return this.off(name, fn); }
    removeAllListeners(name) { name === undefined ? this.#all.clear() : this.#all.delete(name); return this; }
    listeners(name) { return (this.#all.get(name) ?? []).map(([, f]) => f); }
    listenerCount(name) { return (this.#all.get(name) ?? []).length; }
    eventNames() { return [...this.#all.keys()]; }
    setMaxListeners() { return this; }
    emit(name, ...args) {
      const list = this.#all.get(name) ?? [];
      if (!list.length && name === 'error') throw args[0] instanceof Error ? args[0] : new Error(`Unhandled error. (${inspect(args[0])})`);
      for (const [fn] of list) fn.apply(this, args);
      return list.length > 0;
    }
  }
  EventEmitter.EventEmitter = EventEmitter;
  EventEmitter.once = (ee, name) => new Promise((done, fail) => {
    ee.once(name, (...args) => done(args));
    if (name !== 'error') ee.once('error', fail);
  });

  // path --------------------------------------------------------------------------------------------------------------
  const path = {
    sep: '/', delimiter: ':',
    normalize(p) {
      if (!p) return '.';
      const out = [];
      for (const part of p.split('/')) {
        if (part === '' || part === '.') continue;
        if (part === '..' && out.length && out.at(-1) !== '..') out.pop();
        else if (part !== '..' || !p.startsWith('/')) out.push(part);
      }
      const body = out.join('/') + (p.endsWith('/') && out.length ? '/' : '');
      return p.startsWith('/') ? '/' + body : body || '.';
    },
    join: (...parts) => path.normalize(parts.filter(Boolean).join('/')),
    resolve: (...parts) => {
      let out = '';
      for (const part of [...parts].reverse()) {
        if (!part) continue;
        out = out ? `${part}/${out}` : part;
        if (part.startsWith('/')) break;
      }
      if (!out.startsWith('/')) out = `${host.directory}/${out}`;
      const full = path.normalize(out);
      return full.length > 1 && full.endsWith('/') ? full.slice(0, -1) : full;
    },
    isAbsolute: (p) => p.startsWith('/'),
    dirname: (p) => {
      const cut = p.replace(/\/+$/, '').lastIndexOf('/');
      return cut < 0 ? '.' : cut === 0 ? '/' : p.slice(0, cut);
    },
    basename: (p, ext = '') => {
      const base = p.replace(/\/+$/, '').split('/').pop();
      return ext && base !== ext && base.endsWith(ext) ? base.slice(0, -ext.length) : base;
    },
    extname: (p) => {
      const base = path.basename(p);
      const dot = base.lastIndexOf('.');
      return dot <= 0 ? '' : base.slice(dot);
    },
    relative: (from, to) => {
      const a = path.resolve(from).split('/').filter(Boolean);
      const b = path.resolve(to).split('/').filter(Boolean);
      let same = 0;
      while (same < a.length && a[same] === b[same]) same++;
      return [...a.slice(same).map(() => '..'), ...b.slice(same)].join('/');
    },
    parse: (p) => {
      const [base, ext] = [path.basename(p), path.extname(p)];
      return { root: p.startsWith('/') ? '/' : '', dir: p.includes('/') ? path.dirname(p) : '', base, ext, name: ext ? base.slice(0, -ext.length) : base };
    },
    format: (o) => (o.dir ? o.dir + '/' : o.root ?? '') + (o.base ?? (o.name ?? '') + (o.ext ?? '')),
  };
  path.posix = path;

  // url and querystring -----------------------------------------------------------------------------------------------
  const percent = (text) => encodeURIComponent(text).replace(/[!'()~]/g, (c) => '%' + c.charCodeAt(0).toString(16).toUpperCase()).replaceAll('%20', '+');
  const unpercent = (text) => {
    try { return decodeURIComponent(text.replaceAll('+', ' ')); } catch { return text; }
  };
  class URLSearchParams {
    #pairs = [];
    #changed = () => {};
    constructor(init = '', changed) {
      if (changed) this.#changed = changed;
      if (typeof init === 'string') {
        for (const part of init.replace(/^\?/, '').split('&')) {
          if (!part) continue;
          const cut = part.indexOf('=');
          this.#pairs.push(cut < 0 ? [unpercent(part), ''] : [unpercent(part.slice(0, cut)), unpercent(part.slice(cut + 1))]);
        }
      } else {
        const entries = init[Symbol.iterator] ? [...init] : Object.entries(init);
        this.#pairs = entries.map(([k, v]) => [String(k), String(v)]);
      }
    }
    get size() { return this.#pairs.length; }
    append(k, v) { this.#pairs.push([String(k), String(v)]); this.#changed(); }
    delete(k) { this.#pairs = this.#pairs.filter(([n]) => n !== k); this.#changed(); }
    get(k) { return this.#pairs.find(([n]) => n === k)?.[1] ?? null; }
    getAll(k) { return this.#pairs.filter(([n]) => n === k).map(([, v]) => v); }
    has(k) { return this.#pairs.some(([n]) => n === k); }
    set(k, v) {
      const at = this.#pairs.findIndex(([n]) => n === k);
      if (at < 0) this.#pairs.push([String(k), String(v)]);
      else {
        this.#pairs[at][1] = String(v);
        this.#pairs = this.#pairs.filter(([n], i) => n !== k || i === at);
      }
      this.#changed();
    }
    sort() { this.#pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)); this.#changed(); }
    forEach(fn) { for (const [k, v] of this.#pairs) fn(v, k, this); }
    keys() { return this.#pairs.map(([k]) => k).values(); }
    values() { return this.#pairs.map(([, v]) => v).values(); }
    entries() { return this.#pairs.map((p) => [...p]).values(); }
    [Symbol.iterator]() { return this.entries(); }
    toString() { return this.#pairs.map(([k, v]) => `${percent(k)}=${percent(v)}`).join('&'); }
  }
  class URL {
    #parts;
    #params;
    constructor(href, base) {
      const parsed = host.url(String(href), base === undefined ? '' : String(base), '', '');
      if (parsed === undefined) throw Object.assign(new TypeError('Invalid URL'), { code: 'ERR_INVALID_URL', input: String(href) });
      this.#take(parsed);
    }
    #take(parsed) {
      this.#parts = JSON.parse(parsed);
      this.#params = undefined;
    }
    _set(part, value) {
      const parsed = host.url(this.#parts.href, '', part, String(value));
      if (parsed !== undefined) this.#take(parsed);
    }
    _get(part) { return this.#parts[part]; }
    get origin() { return this.#parts.origin; }
    get searchParams() {
      this.#params ??= new URLSearchParams(this.#parts.search, () => {
        const params = this.#params;
        this._set('search', params.toString());
        this.#params = params;
      });
      return this.#params;
    }
    toString() { return this.#parts.href; }
    toJSON() { return this.#parts.href; }
    static canParse(href, base) {
      try { return Boolean(new URL(href, base)); } catch { return false; }
    }
  }
  for (const part of ['href', 'protocol', 'username', 'password', 'host', 'hostname', 'port', 'pathname', 'search', 'hash']) {
    Object.defineProperty(URL.prototype, part, {
      get() { return this._get(part); }, set(value) { this._set(part, value); }, enumerable: true,
    });
  }
  const querystring = {
    escape: encodeURIComponent,
    unescape: unpercent,
    stringify: (object, sep = '&', eq = '=') => Object.entries(object ?? {}).flatMap(([k, v]) => (Array.isArray(v) ? v : [v]).map((one) => `${encodeURIComponent(k)}${eq}${encodeURIComponent(typeof one === 'object' || one === undefined ? '' : one)}`)).join(sep),
    parse: (text, sep = '&', eq = '=') => {
      const out = {};
      for (const part of String(text ?? '').split(sep)) {
        if (!part) continue;
        const cut = part.indexOf(eq);
        const [k, v] = cut < 0 ? [unpercent(part), ''] : [unpercent(part.slice(0, cut)), unpercent(part.slice(cut + eq.length))];
        if (k in out) out[k] = [].concat(out[k], v);
        else out[k] = v;
      }
      return out;
    },
  };
  querystring.encode = querystring.stringify;
  querystring.decode = querystring.parse;
  const url = {
    URL, URLSearchParams,
    parse(text, withQuery) {
      const none = { protocol: null, slashes: null, auth: null, host: null, port: null, hostname: null, hash: null, search: null, query: null, pathname: null, path: null, href: String(text) };
      const relative = !/^[a-z][a-z0-9+.-]*:/i.test(text);
      if (relative && !URL.canParse(text, 'http://x')) return none;
      const u = new URL(text, 'http://x');
      const query = u.search ? u.search.slice(1) : null;
      const out = { ...none, hash: u.hash || null, search: u.search || null, query: withQuery ? querystring.parse(query) : query, pathname: u.pathname, path: u.pathname + u.search };
      if (relative) return out;
      return { ...out, protocol: u.protocol, slashes: true, host: u.host, hostname: u.hostname, port: u.port || null, auth: u.username ? `${u.username}${u.password ? ':' + u.password : ''}` : null, href: u.href };
    },
    format: (o) => (o instanceof URL ? o.href : `${o.protocol ? o.protocol.replace(/:?$/, ':') : ''}${o.host || o.hostname ? '//' : ''}${o.auth ? o.auth + '@' : ''}${o.host ?? (o.hostname ?? '') + (o.port ? ':' + o.port : '')}${o.pathname ?? ''}${o.search ?? (o.query ? '?' + querystring.stringify(o.query) : '')}${o.hash ?? ''}`),
    resolve: (from, to) => new URL(to, new URL(from, 'http://x')).href.replace(/^http:\/\/x/, ''),
    fileURLToPath: (u) => unpercent(new URL(u).pathname),
    pathToFileURL: (p) => new URL(`file://${path.resolve(p)}`),
  };

  // crypto ------------------------------------------------------------------------------------------------------------
  const raw = (data, encoding) => (typeof data === 'string' ? decode(data, encoding) : plain(data));
  class Hash {
    #parts = [];
    #finish;
    constructor(finish) { this.#finish = finish; }
    update(data, encoding) { this.#parts.push(raw(data, encoding)); return this; }
    digest(encoding) {
      const out = Buffer.from(this.#finish(plain(Buffer.concat(this.#parts))));
      return encoding ? out.toString(encoding) : out;
    }
  }
  const known = (name) => {
    const plainName = String(name).toLowerCase().replace('-', '');
    if (!['md5', 'sha1', 'sha256', 'sha384', 'sha512'].includes(plainName)) throw new Error(`the digest ${inspect(name)} is not supported; there are md5, sha1, sha256, sha384, sha512`);
    return plainName;
  };
  const randomBytes = (size, done) => {
    const out = Buffer.from(host.random(size));
    return done ? done(null, out) : out;
  };
  const crypto = {
    randomBytes,
    randomUUID: () => host.uuid(),
    randomInt: (min, max, done) => {
      if (max === undefined || typeof max === 'function') [min, max, done] = [0, min, max];
      const n = min + Math.floor(Math.random() * (max - min));
      return done ? done(null, n) : n;
    },
    getRandomValues: (view) => {
      plain(view).set(new Uint8Array(host.random(view.byteLength)));
      return view;
    },
    createHash: (name) => { const n = known(name); return new Hash((data) => host.digest(n, data)); },
    createHmac: (name, key) => { const n = known(name); return new Hash((data) => host.hmac(n, raw(key), data)); },
    getHashes: () => ['md5', 'sha1', 'sha256', 'sha384', 'sha512'],
    timingSafeEqual: (a, b) => Buffer.from(a).equals(Buffer.from(b)),
  };
  crypto.webcrypto = { randomUUID: crypto.randomUUID, getRandomValues: crypto.getRandomValues };

  // fs: the script's folder, reading only --------------------------------------------------------------------------------
  const located = (p) => path.resolve(p instanceof URL ? url.fileURLToPath(p) : String(p));
  const encodingOf = (options) => (typeof options === 'string' ? options : options?.encoding);
  const fs = {
    readFileSync: (p, options) => {
      const out = Buffer.from(host.readFile(located(p)));
      const encoding = encodingOf(options);
      return encoding ? out.toString(encoding) : out;
    },
    existsSync: (p) => { try { return Boolean(host.stat(located(p))); } catch { return false; } },
    statSync: (p) => {
      const [size, dir, ms] = JSON.parse(host.stat(located(p)));
      return { size, mtimeMs: ms, mtime: new Date(ms), isFile: () => !dir, isDirectory: () => dir };
    },
    readdirSync: (p) => JSON.parse(host.list(located(p))),
    accessSync: (p) => { host.stat(located(p)); },
  };
  const later = (sync) => (...args) => new Promise((done, fail) => {
    try { done(sync(...args)); } catch (error) { fail(error); }
  });
  const back = (sync) => (...args) => {
    const done = args.pop();
    later(sync)(...args).then((v) => done(null, v), done);
  };
  fs.promises = { readFile: later(fs.readFileSync), stat: later(fs.statSync), readdir: later(fs.readdirSync), access: later(fs.accessSync) };
  Object.assign(fs, { readFile: back(fs.readFileSync), stat: back(fs.statSync), readdir: back(fs.readdirSync), access: back(fs.accessSync) });

  // util, assert, os, timers -----------------------------------------------------------------------------------------------
  const custom = Symbol.for('nodejs.util.promisify.custom');
  const deepEqual = (a, b) => {
    if (Object.is(a, b)) return true;
    if (typeof a !== 'object' || typeof b !== 'object' || !a || !b || Array.isArray(a) !== Array.isArray(b)) return false;
    const [x, y] = [Object.keys(a), Object.keys(b)];
    return x.length === y.length && x.every((k) => deepEqual(a[k], b[k]));
  };
  const util = {
    inspect: (v, options) => inspect(v, options?.depth === null ? 100 : options?.depth ?? 2, [{}]),
    format,
    promisify: (fn) => {
      if (fn[custom]) return fn[custom];
      return function (...args) {
        return new Promise((done, fail) => fn.call(this, ...args, (error, value) => (error ? fail(error) : done(value))));
      };
    },
    callbackify: (fn) => (...args) => {
      const done = args.pop();
      fn(...args).then((v) => done(null, v), (e) => done(e ?? new Error('rejected')));
    },
    inherits: (child, parent) => Object.setPrototypeOf(child.prototype, parent.prototype),
    deprecate: (fn) => fn, debuglog: () => () => {}, isDeepStrictEqual: deepEqual,
    isArray: Array.isArray, TextEncoder, TextDecoder,
    types: { isPromise: (v) => v instanceof Promise, isDate: (v) => v instanceof Date, isRegExp: (v) => v instanceof RegExp },
  };
  util.promisify.custom = custom;
  const assertion = (message, fallback) => { throw message instanceof Error ? message : Object.assign(new Error(message ?? fallback), { code: 'ERR_ASSERTION', name: 'AssertionError' }); };
  const assert = (ok, message) => { if (!ok) assertion(message, 'The expression evaluated to a falsy value'); };
  const differ = (a, b) => `Expected values to be equal: ${inspect(a, 2, [{}])} and ${inspect(b, 2, [{}])}`;
  Object.assign(assert, {
    ok: assert,
    equal: (a, b, m) => assert(a == b, m ?? differ(a, b)), strictEqual: (a, b, m) => assert(Object.is(a, b), m ?? differ(a, b)),
    notEqual: (a, b, m) => assert(a != b, m), notStrictEqual: (a, b, m) => assert(!Object.is(a, b), m),
    deepEqual: (a, b, m) => assert(deepEqual(a, b), m ?? differ(a, b)), deepStrictEqual: (a, b, m) => assert(deepEqual(a, b), m ?? differ(a, b)),
    fail: (m) => assertion(m, 'Failed'),
    throws: (fn, m) => { try { fn(); } catch { return; } assertion(typeof m === 'string' ? m : undefined, 'Missing expected exception'); },
  });
  assert.strict = assert;
  const os = { EOL: '\n', platform: () => 'linux', hostname: () => process.env.HOSTNAME ?? 'localhost', tmpdir: () => '/tmp', cpus: () => [{}], type: () => 'Linux' };
  const { setTimeout, setInterval, setImmediate, clearTimeout, clearInterval, clearImmediate } = globalThis;

  class Event {
    constructor(type, init = {}) { Object.assign(this, init, { type: String(type), defaultPrevented: false, target: null }); }
    preventDefault() { this.defaultPrevented = true; }
  }
  class CustomEvent extends Event {}
  class EventTarget {
    #heard = new Map();
    #of(type) {
      if (!this.#heard.has(type)) this.#heard.set(type, new Map());
      return this.#heard.get(type);
    }
    addEventListener(type, fn, options) { if (fn) this.#of(type).set(fn, Boolean(options?.once)); }
    removeEventListener(type, fn) { this.#of(type).delete(fn); }
    dispatchEvent(event) {
      event.target = this;
      for (const [fn, once] of [...this.#of(event.type)]) {
        if (once) this.removeEventListener(event.type, fn);
        if (typeof fn === 'function') fn.call(this, event);
        else fn.handleEvent(event);
      }
      return !event.defaultPrevented;
    }
  }
  class AbortSignal extends EventTarget {
    aborted = false;
    reason = undefined;
    throwIfAborted() { if (this.aborted) throw this.reason; }
  }
  class AbortController {
    signal = new AbortSignal();
    abort(reason = Object.assign(new Error('This operation was aborted'), { name: 'AbortError' })) {
      if (this.signal.aborted) return;
      Object.assign(this.signal, { aborted: true, reason });
      this.signal.dispatchEvent(new Event('abort'));
    }
  }
  const fetch = () => Promise.reject(Object.assign(new Error('fetch is not supported in a processor'), { code: 'ERR_FETCH_NOT_SUPPORTED' }));

  Object.assign(globalThis, { Event, CustomEvent, EventTarget, AbortSignal, AbortController, fetch });
  Object.assign(globalThis, { Buffer, URL, URLSearchParams, TextEncoder, TextDecoder, atob, btoa, crypto: { ...crypto.webcrypto } });
  return {
    path, 'path/posix': path, util, url, querystring, events: EventEmitter, crypto, fs, 'fs/promises': fs.promises, assert, 'assert/strict': assert, os,
    buffer: { Buffer, atob, btoa }, process, console: globalThis.console,
    timers: { setTimeout, setInterval, setImmediate, clearTimeout, clearInterval, clearImmediate },
    'timers/promises': { setTimeout: setTimeout[custom], setImmediate: (v) => setTimeout[custom](0, v) },
    perf_hooks: { performance: globalThis.performance },
  };
})
