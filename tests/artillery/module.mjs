import { createHash } from 'node:crypto';
import { double } from './lib/double.js';

export async function prepare(context, ee) {
  await Promise.resolve();
  context.vars.path = createHash('md5').update(String(double(4))).digest('hex');
  ee.emit('counter', 'own.prepared', 1);
}

export async function header(req, context) {
  req.headers['x-path'] = context.vars.path.slice(0, 4);
}

export const remember = async (req, res, context) => {
  context.vars.seen = JSON.parse(res.body).data.id;
};

export async function fail() {
  throw new Error('failed on purpose');
}
