'use strict';
const crypto = require('node:crypto');
const { double } = require('./lib/double');
const data = require('./lib/data.json');

let users = 0;

module.exports = {
  start(context, ee, done) {
    users += 1;
    context.vars.number = double(data.base);
    context.private = { begun: true };
    ee.emit('counter', 'own.started', 1);
    return done();
  },
  stop(context, ee, done) {
    ee.emit('counter', 'own.stopped', 1);
    return done();
  },
  sign(req, context, ee, next) {
    req.headers['x-signature'] = crypto.createHmac('sha256', 'key').update(req.method + context.vars.number).digest('hex');
    return next();
  },
  body(req, context, ee, next) {
    req.json = { ...req.json, number: context.vars.number, private: context.private.begun };
    return next();
  },
  async slow(req) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    req.url = `${req.url}?slow=1`;
  },
  look(req, res, context, ee, next) {
    ee.emit('counter', `own.status.${res.statusCode}`, 1);
    ee.emit('histogram', 'own.length', res.body.length);
    return next();
  },
  derive(context, ee, done) {
    context.vars.derived = Buffer.from(context.vars.token).toString('hex');
    return done();
  },
  more(context, next) {
    return next(context.vars.$loopCount < 2);
  },
  nobody(vars) {
    return vars.number === 0;
  },
  bytes(req, context, ee, next) {
    req.body = Buffer.from('0001ff', 'hex');
    return next();
  },
  refuse(req, context, ee, next) {
    return next({ code: 'E_REFUSED' });
  },
  failed(error, req, context, ee, next) {
    ee.emit('counter', 'own.failed', 1);
    return next();
  },
};
