// The server that both sides are run against: it writes down every request and every WebSocket message, and its answers
// depend on the request only. Must not know which side is talking.
import { createHash } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';

// What differs by design: who sends it, and on which connection.
const IGNORED = new Set(['user-agent', 'traceparent', 'x-nines-run-id', 'host', 'connection', 'content-length', 'transfer-encoding']);
// A WebSocket's key is drawn, extensions are the library's business.
const HANDSHAKE = new Set([...IGNORED, 'upgrade', 'sec-websocket-key', 'sec-websocket-version', 'sec-websocket-extensions']);

const JOURNEY = (id, rest) => `<Journey><JourneyId>${id}</JourneyId><JourneyFromCode>781</JourneyFromCode>${rest}</Journey>`;
const ENVELOPE = (body) => `<?xml version="1.0"?><soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"><soap:Body>${body}</soap:Body></soap:Envelope>`;
const GENERIC = { id: 7, key: 'abc', name: 'luna', token: 't0', success: true, status: 'ok', ids: [1], devices: [{ id: 'd1' }], data: { id: 9, name: 'n' } };
const json = (value, code = 200, headers = {}) => ({ code, headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(value) });
const text = (body, code = 200, headers = {}) => ({ code, headers: { 'content-type': 'text/plain', ...headers }, body });
const xml = (body) => ({ code: 200, headers: { 'content-type': 'application/xml' }, body: ENVELOPE(body) });

/** What the services behind Artillery's own scripts answer, as far as the scripts look at it; else one JSON object. */
function answer(method, path, headers, body) {
  const post = method === 'POST';
  if (path === '/') return text('ok');
  if (path === '/protected') return headers.authorization === 'Basic bGVvOnNlY3JldA==' ? text('secret') : text('', 401);
  if (path === '/pets' || path === '/pet') return post ? json({ id: '4dcb7544-42b1-4857-85b8-1833c77f4a46', success: true }, 201) : json({ result: [{ name: 'Tiki', species: 'pony' }] });
  if (path === '/pets/1') return json({ result: [{ name: 'Luna', species: 'dog' }] });
  if (path === '/pets/2') return { code: 404, headers: { 'content-type': 'application/problem+json; charset=utf-8' }, body: JSON.stringify({ type: path, title: 'Pet not found', status: 404 }) };
  if (path.startsWith('/pets/')) return json({ id: path.slice(6), name: 'MickeyTheDog', species: 'Dog' });
  if (path === '/users/1') return json({ user: 'banana', user_id: 15 });
  if (path === '/setscookie') return text('', 200, { 'set-cookie': 'testCookie=eyJ1aWQiOiIxIn0=; HttpOnly; Path=/' });
  if (path === '/expectscookie') return /testCookie=/.test(headers.cookie ?? '') ? text('ok') : text('', 403);
  if (path === '/malformed_cookie') return text('', 200, { 'set-cookie': 'malformed' });
  if (path === '/cookie-gh-1575') return text('ok', 200, { 'set-cookie': 'GUEST_LANGUAGE_ID=es_ES; Domain=.example.net; Path=/; HttpOnly' });
  if (path === '/header') return text('', 200, { 'x-auth': 'secret' });
  if (path === '/expectsHeader') return headers['x-auth'] === 'secret' ? json({ success: true }) : text('', 403);
  if (path === '/journeys') return xml([871, 915, 641].map((to, i) => JOURNEY(i + 1, `<JourneyToCode>${to}</JourneyToCode>`)).join(''));
  if (path.startsWith('/journey/')) return path === '/journey/1' ? xml(JOURNEY(1, '<JourneyPrice>199</JourneyPrice>')) : text('', 404);
  if (path === '/devices') return json(['4dcb754442b1285785b81833c77f4a46', 'e87c45241a484a3db9730ae4b98678d4'].map((id, i) => ({ id, label: `Lamp ${i + 1}`, power: i === 0 })));
  if (path === '/redirect/1') return text('', 301, { location: '/destination/1' });
  if (path === '/redirect/chain') return text('', 301, { location: '/redirect/chain1' });
  if (path === '/redirect/chain1') return text('', 302, { location: '/destination/1' });
  if (path.endsWith('/redirect')) return text('', 302, { location: '/redirected' });
  if (path === '/will404' || path === '/no-such-url' || path === '/404') return text('', 404);
  if (path === '/double' || path === '/inc') {
    const number = Number(new URLSearchParams(body).get('number'));
    return number ? json({ result: path === '/inc' ? number + 1 : number * 2 }) : text('', 400);
  }
  const cookie = path.includes('cookie') ? { 'set-cookie': ['testCookie=chocolate; Path=/', 'second=2; Path=/'] } : {};
  if (path.endsWith('.html')) return { code: 200, headers: { 'content-type': 'text/html', ...cookie }, body: '<p><a class="x" href="/a.html">a</a></p>' };
  return json(GENERIC, 200, cookie);
}

function listener(seen, connection) {
  return (request, response) => {
    const [chunks, at] = [[], performance.now()];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('error', () => {});
    request.on('end', () => {
      const whole = Buffer.concat(chunks);
      let body = whole.toString('latin1');
      const boundary = /boundary=(.+)$/.exec(request.headers['content-type'] ?? '')?.[1];
      const plain = (s) => (boundary ? s.replaceAll(boundary, 'BOUNDARY') : s);
      // The order of a part's own lines and the file's guessed type are the sender's business.
      body = plain(body).replace(/Content-Type: .*\r\n/gi, '');
      const headers = Object.entries(request.headers).filter(([name]) => !IGNORED.has(name));
      const lines = headers.map(([name, value]) => `${name}: ${plain(String(value))}`).sort();
      const shown = body.length > 2000 ? createHash('sha1').update(body).digest('hex') : body;
      seen.push({ c: connection(request.socket), t: at, text: [`${request.method} ${request.url}`, ...lines, shown].join('\n') });
      const path = request.url.split('?')[0];
      const found = answer(request.method, path, request.headers, whole.toString());
      response.writeHead(found.code, { 'server-timing': 'pets;dur=5, total;dur=5', 'x-auth': 'secret', ...found.headers });
      response.end(found.body);
    });
  };
}

/**
 * Listens on loopback, in the clear and, with `tls` (`key` and `cert`), with TLS. `ws` is the module of that name; with it
 * WebSockets are answered. `take()` gives what was seen since, and forgets it.
 */
export async function recorder({ tls, ws } = {}) {
  const state = { seen: [] };
  const numbers = new WeakMap();
  let next = 0;
  const connection = (socket) => {
    if (!numbers.has(socket)) numbers.set(socket, next++);
    return numbers.get(socket);
  };
  const push = (entry) => state.seen.push(entry);
  const servers = [http.createServer(listener({ push }, connection))];
  if (tls) servers.push(https.createServer(tls, listener({ push }, connection)));
  // A proxy, too: a tunnel to wherever it is asked for.
  servers[0].on('connect', (request, socket) => {
    push({ c: connection(socket), t: performance.now(), text: `CONNECT ${request.url}\n` });
    const [host, port] = request.url.split(':');
    const out = net.connect(Number(port), host, () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
      socket.pipe(out).pipe(socket);
    });
    for (const end of [socket, out]) end.on('error', () => { socket.destroy(); out.destroy(); });
  });
  if (ws) {
    const handleProtocols = (given) => ['my-custom-protocol', 'json'].find((p) => [...given].includes(p)) ?? false;
    const sockets = new ws.Server({ noServer: true, handleProtocols });
    for (const server of servers) {
      server.on('upgrade', (request, socket, head) => {
        const headers = Object.entries(request.headers).filter(([name]) => !HANDSHAKE.has(name)).map(([n, v]) => `${n}: ${v}`).sort();
        const c = connection(socket);
        push({ c, t: performance.now(), text: [`WS ${request.url}`, ...headers, ''].join('\n') });
        sockets.handleUpgrade(request, socket, head, (opened) => {
          opened.on('error', () => {});
          opened.on('message', (data, binary) => {
            push({ c, t: performance.now(), text: `WS message ${binary ? 'binary' : 'text'}\n${data}` });
            // A question is answered with itself, so that captures find something.
            opened.send(String(data));
          });
          opened.on('close', (code) => push({ c, t: performance.now(), text: `WS closed ${code}\n` }));
        });
      });
    }
  }
  const ports = [];
  for (const server of servers) {
    server.keepAliveTimeout = 120000;
    await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
    ports.push(server.address().port);
  }
  return {
    http: ports[0],
    https: ports[1] ?? ports[0],
    take: () => {
      for (const server of servers) server.closeAllConnections();
      const taken = state.seen;
      state.seen = [];
      return taken;
    },
    close: () => servers.forEach((server) => { server.closeAllConnections(); server.close(); }),
  };
}
