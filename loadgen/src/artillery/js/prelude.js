// What a processor finds besides the language: console, timers, process, modules, and how a virtual user's call enters
// and leaves. One function of the host's own functions; gives what the host calls. Must not know HTTP or scripts.
(function (host) {
  'use strict';
  const now = host.now;
  // Bytes go to the host as texts of one character a byte.
  const packed = (view) => {
    if (!(view instanceof Uint8Array)) return view;
    let out = '';
    for (let at = 0; at < view.length; at += 8192) out += String.fromCharCode.apply(null, view.subarray(at, at + 8192));
    return out;
  };
  for (const name of ['text', 'base64', 'digest', 'hmac']) {
    const given = host[name];
    host[name] = (...args) => given(...args.map(packed));
  }

  // console -----------------------------------------------------------------------------------------------------------
  function inspect(value, depth = 2, seen = []) {
    switch (typeof value) {
      case 'string': return seen.length ? quoted(value) : value;
      case 'bigint': return value + 'n';
      case 'symbol': return value.toString();
      case 'function': return `[${value.constructor?.name ?? 'Function'}${value.name ? ': ' + value.name : ' (anonymous)'}]`;
      case 'number': return Object.is(value, -0) ? '-0' : String(value);
      case 'object': break;
      default: return String(value);
    }
    if (value === null) return 'null';
    if (value instanceof Error) return (value.stack ? `${value.name}: ${value.message}\n${value.stack}` : String(value)).trimEnd();
    if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'Invalid Date' : value.toISOString();
    if (value instanceof RegExp) return String(value);
    if (value instanceof Promise) return 'Promise { <pending> }';
    if (seen.includes(value)) return '[Circular *1]';
    const list = Array.isArray(value) || ArrayBuffer.isView(value);
    if (seen.length > depth) return list ? '[Array]' : '[Object]';
    const below = seen.concat([value]);
    const show = (v) => inspect(v, depth, below.length ? below : [value]);
    const key = (k) => (/^[A-Za-z_$][\w$]*$/.test(k) ? k : quoted(k));
    let name = value.constructor?.name;
    let parts;
    let [open, close] = ['{', '}'];
    if (list) {
      [open, close] = ['[', ']'];
      parts = Array.from(value).slice(0, 100).map(show);
      if (value.length > 100) parts.push(`... ${value.length - 100} more items`);
      name = Array.isArray(value) ? '' : `${name}(${value.length})`;
    } else if (value instanceof Map) {
      parts = [...value].map(([k, v]) => `${show(k)} => ${show(v)}`);
      name = `Map(${value.size})`;
    } else if (value instanceof Set) {
      parts = [...value].map(show);
      name = `Set(${value.size})`;
    } else {
      parts = Object.keys(value).map((k) => `${key(k)}: ${show(value[k])}`);
      name = name === 'Object' || name === undefined ? '' : name;
    }
    const head = name ? name + ' ' : '';
    if (!parts.length) return `${head}${open}${close}`;
    const line = `${head}${open} ${parts.join(', ')} ${close}`;
    if (line.length <= 76 && !line.includes('\n')) return line;
    return `${head}${open}\n${parts.map((p) => '  ' + p.replaceAll('\n', '\n  ')).join(',\n')}\n${close}`;
  }
  const quoted = (s) => (s.includes("'") && !s.includes('"') ? JSON.stringify(s) : `'${s.replaceAll('\\', '\\\\').replaceAll("'", "\\'").replaceAll('\n', '\\n')}'`);

  function format(...args) {
    let out = '';
    if (typeof args[0] === 'string' && args.length > 1) {
      let at = 1;
      out = args[0].replace(/%([sdifjoOc%])/g, (whole, kind) => {
        if (kind === '%') return '%';
        if (at >= args.length) return whole;
        const value = args[at++];
        if (kind === 's') return typeof value === 'object' && value !== null ? inspect(value, 0, [{}]) : String(value);
        if (kind === 'd') return String(Number(value));
        if (kind === 'i') return String(parseInt(value, 10));
        if (kind === 'f') return String(parseFloat(value));
        if (kind === 'j') return JSON.stringify(value);
        return kind === 'c' ? '' : inspect(value, 4, [{}]);
      });
      args = args.slice(at);
      if (args.length) out += ' ';
    }
    return out + args.map((a) => inspect(a)).join(' ');
  }
  const say = (...args) => host.say(false, format(...args));
  const complain = (...args) => host.say(true, format(...args));
  const times = new Map();
  globalThis.console = {
    log: say, info: say, debug: say, error: complain, warn: complain, trace: complain, table: say,
    dir: (v) => say(inspect(v, 4, [])), assert: (ok, ...args) => { if (!ok) complain('Assertion failed:', ...args); },
    time: (label = 'default') => times.set(label, now()),
    timeEnd: (label = 'default') => say(`${label}: ${(now() - times.get(label)).toFixed(3)}ms`),
    group: say, groupEnd() {}, count() {},
  };

  // timers ------------------------------------------------------------------------------------------------------------
  const timers = new Map();
  let lastTimer = 0;
  class Timeout {
    constructor(id) { this.id = id; }
    ref() { return this; }
    unref() { return this; }
    hasRef() { return true; }
    [Symbol.toPrimitive]() { return this.id; }
  }
  function timer(fn, ms, args, every) {
    if (typeof fn !== 'function') throw new TypeError(`The "callback" argument must be of type function. Received ${inspect(fn)}`);
    if (timers.size >= 100000) throw new RangeError('more than 100000 timers are set');
    const wait = Math.max(1, Number(ms) || 1);
    lastTimer += 1;
    timers.set(lastTimer, { at: now() + wait, fn, args, every: every ? wait : 0 });
    return new Timeout(lastTimer);
  }
  const clear = (t) => { timers.delete(typeof t === 'object' && t ? t.id : Number(t)); };
  Object.assign(globalThis, {
    setTimeout: (fn, ms, ...args) => timer(fn, ms, args, false),
    setInterval: (fn, ms, ...args) => timer(fn, ms, args, true),
    setImmediate: (fn, ...args) => timer(fn, 0, args, false),
    clearTimeout: clear, clearInterval: clear, clearImmediate: clear,
    queueMicrotask: (fn) => { Promise.resolve().then(fn); },
    global: globalThis,
    structuredClone: (v) => JSON.parse(JSON.stringify(v)),
    performance: { now, timeOrigin: host.origin },
  });
  globalThis.setTimeout[Symbol.for('nodejs.util.promisify.custom')] = (ms, v) => new Promise((done) => setTimeout(done, ms, v));

  /** Runs one timer that is due; gives the milliseconds until the next one, below 0 when there is none. */
  function tick() {
    const at = now();
    let due, next = Infinity;
    for (const [id, t] of timers) {
      if (t.at <= at && (!due || t.at < due[1].at)) due = [id, t];
      next = Math.min(next, t.at);
    }
    if (!due) return next === Infinity ? -1 : Math.max(0, next - at);
    const [id, t] = due;
    if (t.every) t.at = at + t.every;
    else timers.delete(id);
    t.fn(...t.args);
    return 0;
  }

  // process -----------------------------------------------------------------------------------------------------------
  const hrtime = (before) => {
    const ns = BigInt(Math.round(now() * 1e6));
    let [s, n] = [Number(ns / 1000000000n), Number(ns % 1000000000n)];
    if (before) {
      s -= before[0];
      n -= before[1];
      if (n < 0) { s -= 1; n += 1e9; }
    }
    return [s, n];
  };
  hrtime.bigint = () => BigInt(Math.round(now() * 1e6));
  const process = {
    env: JSON.parse(host.env()), argv: ['nines'], platform: 'linux', arch: 'x64', pid: 1, version: 'v20.0.0',
    versions: { node: '20.0.0' }, hrtime, cwd: () => host.directory, uptime: () => now() / 1000,
    nextTick: (fn, ...args) => { Promise.resolve().then(() => fn(...args)); },
    memoryUsage: () => JSON.parse(host.memory()),
    on() { return process; }, once() { return process; }, off() { return process; }, emitWarning: complain,
    stdout: { write: (s) => { say(String(s).replace(/\n$/, '')); return true; }, isTTY: false },
    stderr: { write: (s) => { complain(String(s).replace(/\n$/, '')); return true; }, isTTY: false },
    exit() { throw new Error('process.exit() is not supported in a processor'); },
  };
  globalThis.process = process;
  globalThis.artillery = {
    testRunId: undefined, version: '2', log: say,
    get suggestedExitCode() { return host.exitCode(-1); },
    set suggestedExitCode(code) { host.exitCode(Number(code) | 0); },
  };

  // modules -----------------------------------------------------------------------------------------------------------
  const builtins = host.builtins(host, { inspect, format, process });
  const loaded = new Map();
  function requireFrom(file) {
    const require = (name) => {
      const [kind, path] = host.resolve(file, String(name));
      if (kind === 'builtin') return builtins[path];
      if (kind === 'module') throw new Error(`${path} is an ES module: use import instead of require`);
      return requireFile(kind, path);
    };
    require.resolve = (name) => host.resolve(file, String(name))[1];
    require.cache = {};
    return require;
  }
  function requireFile(kind, path) {
    const known = loaded.get(path);
    if (known) return known.exports;
    const module = { exports: {}, id: path, filename: path, loaded: false, children: [], paths: [] };
    loaded.set(path, module);
    try {
      if (kind === 'json') module.exports = JSON.parse(host.source(path));
      else host.compile(path).call(module.exports, module.exports, requireFrom(path), module, path, builtins.path.dirname(path));
    } catch (error) {
      loaded.delete(path);
      throw error;
    }
    module.loaded = true;
    return module.exports;
  }

  // calls -------------------------------------------------------------------------------------------------------------
  let functions = {};
  const users = new Map();
  const shared = new Map();
  const hidden = new Set(['$env', '$processEnvironment']);

  class Emitter extends builtins.events {
    constructor(counted) {
      super();
      this.counted = counted;
    }
    emit(kind, name, value) {
      if (kind === 'customStat' && name) [kind, name, value] = ['histogram', name.stat, name.value];
      if (kind === 'rate') value = 1;
      const known = kind === 'counter' || kind === 'histogram' || kind === 'summary' || kind === 'rate' || kind === 'error';
      if (known && this.counted) host.emit(kind, String(name), Number(value));
      return (this.listenerCount(kind) > 0 && super.emit(kind, name, value)) || known;
    }
  }
  const emitters = { true: new Emitter(true), false: new Emitter(false) };

  function lookUp(vars, path) {
    return path.replace(/\[['"]?([^\]'"]*)['"]?\]/g, '.$1').split('.').reduce((v, k) => (v === undefined || v === null ? undefined : v[k]), vars);
  }
  function template(input, vars) {
    if (Array.isArray(input)) return input.map((v) => template(v, vars));
    if (input && typeof input === 'object') return Object.fromEntries(Object.entries(input).map(([k, v]) => [template(k, vars), template(v, vars)]));
    if (typeof input !== 'string') return input;
    const alone = /^\{\{\{?\s*([\w$.[\]'"-]+)\s*\}?\}\}$/.exec(input);
    if (alone) return lookUp(vars, alone[1]);
    return input.replace(/\{\{\{?\s*([\w$.[\]'"-]+)\s*\}?\}\}/g, (_, path) => {
      const value = lookUp(vars, path);
      return typeof value === 'object' ? JSON.stringify(value) : String(value);
    });
  }

  function user(call) {
    let u = users.get(call.vu);
    if (!u) {
      const vars = {};
      for (const name of hidden) vars[name] = process.env;
      for (const [name, value] of shared) vars[name] = value;
      const context = {
        vars, scenario: call.scenario, _uid: call.vars?.$uuid, _successCount: 0, _jar: { store: { idx: {} } },
        funcs: {
          $randomNumber: (a, b) => Math.floor(a + Math.random() * (b - a + 1)),
          $randomString: (n = 10) => Array.from({ length: n }, () => 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'[(Math.random() * 62) | 0]).join(''),
          $template: (input) => template(input, context.vars),
        },
      };
      u = { context, known: new Map(), requests: new Map(), ee: emitters[call.counted] };
      users.set(call.vu, u);
    }
    const vars = u.context.vars;
    for (const name in call.vars) {
      const value = call.vars[name];
      vars[name] = value;
      u.known.set(name, typeof value === 'object' && value !== null ? JSON.stringify(value) : value);
    }
    for (const name of call.gone ?? []) {
      delete vars[name];
      u.known.delete(name);
    }
    if (call.jar) u.context._jar.store = { idx: call.jar };
    return u;
  }

  /** What the script changed since the host last knew, as JSON: [set, gone]. */
  function changes(u) {
    const vars = u.context.vars ?? {};
    const set = [];
    const gone = [];
    for (const name of Object.keys(vars)) {
      const value = vars[name];
      if (hidden.has(name) || (shared.has(name) && shared.get(name) === value)) continue;
      const json = JSON.stringify(value);
      const mark = typeof value === 'object' && value !== null ? json : value;
      if (u.known.has(name) && u.known.get(name) === mark) continue;
      if (json === undefined) {
        if (u.known.delete(name)) gone.push(name);
        continue;
      }
      u.known.set(name, mark);
      set.push(`${JSON.stringify(name)}:${json}`);
    }
    for (const name of u.known.keys()) {
      if (!(name in vars)) {
        u.known.delete(name);
        gone.push(name);
      }
    }
    return `[{${set.join(',')}},${JSON.stringify(gone)}]`;
  }

  const isAsync = (fn) => fn.constructor.name !== 'Function';
  const text = (v) => (v === undefined ? 'undefined' : String(v));

  /** What the host is told of something thrown: what Artillery would count, and where it came from. */
  function failure(error) {
    // Messages as in Node, so that errors are counted by the same names.
    const said = error?.message;
    if (error instanceof TypeError && typeof said === 'string') {
      error.message = said
        .replace(/^cannot read property '(.*)' of (undefined|null)$/, "Cannot read properties of $2 (reading '$1')")
        .replace(/^cannot set property '(.*)' of (undefined|null)$/, "Cannot set properties of $2 (setting '$1')");
      if (said === 'not a function') error.message = host.called(error.stack ?? '') ?? said;
    }
    let label = text(error?.code || error?.message);
    if (error instanceof InternalError && error.message === 'interrupted') label = 'ERR_SCRIPT_TIMEOUT';
    const place = error instanceof Error ? error.stack ?? '' : '';
    const shown = error instanceof Error ? `${error.name}: ${error.message}` : inspect(error, 2, [{}]);
    return JSON.stringify([label, shown, place]);
  }

  /** Calls one function; `then(error, value)` once it is done, whichever way it says so. */
  function run(fn, args, takesValue, then) {
    let over = false;
    const end = (error, value) => {
      if (over) return;
      over = true;
      then(error, value);
    };
    if (isAsync(fn)) {
      fn(...args).then((v) => (takesValue === 'hook' ? end(v) : end(null, v)), (e) => end(e ?? new Error('rejected')));
      return;
    }
    const answer = (a) => (takesValue === 'value' ? end(null, a) : end(a));
    const back = fn(...args, answer);
    // A transpiled async function is a plain one that gives a promise and never calls back.
    if (back && typeof back.then === 'function') back.then((v) => end(null, v), (e) => end(e ?? new Error('rejected')));
  }

  function inOrder(names, each, then) {
    let at = 0;
    const next = (error) => {
      if (error) return then(error);
      if (at >= names.length) return then(null);
      const name = names[at++];
      const fn = functions[name];
      if (typeof fn !== 'function') {
        say(`WARNING: custom function ${name} could not be found`);
        return next(null);
      }
      try {
        each(fn, next);
      } catch (thrown) {
        then(thrown ?? new Error('thrown'));
      }
    };
    next(null);
  }

  /** The request's parameters: the same object in all hooks of one request. */
  function request(call, u) {
    const params = Object.assign(u.requests.get(call.rid) ?? {}, call.params);
    if (call.last) u.requests.delete(call.rid);
    else u.requests.set(call.rid, params);
    return params;
  }

  const bytes = (key, value) => (ArrayBuffer.isView(value) ? { $bytes: host.base64(new Uint8Array(value.buffer, value.byteOffset, value.byteLength), false) } : value);
  const plain = (params) => JSON.stringify(params, (k, v) => {
    // A Buffer has a toJSON of its own, which has already run.
    if (v && v.type === 'Buffer' && Array.isArray(v.data)) return { $bytes: host.base64(Uint8Array.from(v.data), false) };
    return bytes(k, v);
  });

  const kinds = {
    step(call, u, done) {
      const fn = functions[call.name];
      run(fn, [u.context, u.ee], 'step', done);
    },
    whileTrue(call, u, done) {
      run(functions[call.name], [u.context], 'value', (error, value) => done(error, JSON.stringify(Boolean(value))));
    },
    ifTrue(call, u, done) {
      done(null, JSON.stringify(Boolean(functions[call.name](u.context.vars))));
    },
    fill(call, u, done) {
      const fn = u.context.funcs[call.name];
      if (typeof fn !== 'function') return done(null, 'null');
      done(null, JSON.stringify(text(fn(...call.args))));
    },
    before(call, u, done) {
      const params = request(call, u);
      const each = (fn, next) => run(fn, [params, u.context, u.ee], 'hook', next);
      inOrder(call.scenarioHooks, each, (error) => {
        if (error) return done(error);
        const at = { url: params.url, name: params.name };
        inOrder(call.requestHooks, each, (error) => (error ? done(error) : done(null, `[${plain(params)},${JSON.stringify(at)}]`)));
      });
    },
    after(call, u, done) {
      const params = request(call, u);
      const res = call.res;
      inOrder(call.hooks, (fn, next) => run(fn, [params, res, u.context, u.ee], 'hook', next), done);
    },
    error(call, u, done) {
      const params = request(call, u);
      const error = Object.assign(new Error(call.error), { code: call.code });
      inOrder(call.hooks, (fn, next) => run(fn, [error, params, u.context, u.ee], 'hook', next), done);
    },
    connect(call, u, done) {
      const args = call.args;
      run(functions[call.name], [args, u.context], 'hook', (error) => (error ? done(error) : done(null, JSON.stringify(args))));
    },
  };

  function enter(id, json) {
    const call = JSON.parse(json);
    const u = user(call);
    const done = (error, value) => host.done(id, error ? failure(error) : '', changes(u), value ?? '');
    try {
      kinds[call.kind](call, u, done);
    } catch (thrown) {
      done(thrown ?? new Error('thrown'));
    }
  }

  Object.defineProperty(globalThis, '__nines_require', {
    value: (kind, path) => (kind === 'builtin' ? builtins[path] : requireFile(kind, path)),
  });
  return {
    enter, tick, failure,
    load: (kind, path) => requireFile(kind, path),
    use: (exports) => {
      const all = Object.assign({}, exports?.default ?? {}, exports);
      functions = Object.fromEntries(Object.entries(all).filter(([, v]) => typeof v === 'function'));
      return JSON.stringify(Object.keys(functions));
    },
    begin: (runId, json) => {
      artillery.testRunId = runId;
      for (const [name, value] of Object.entries(JSON.parse(json))) shared.set(name, value);
    },
    forget: (vu) => users.delete(vu),
  };
})
