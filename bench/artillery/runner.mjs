// Runs a script through the real Artillery's runner without its command line, as its own tests of the engine do: for
// scripts that its command line refuses. Writes the counters as a report.
//
//   node runner.mjs PACKAGE SCRIPT -o REPORT [--overrides JSON]
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [home, script, ...rest] = process.argv.slice(2);
const after = (flag) => (rest.includes(flag) ? rest[rest.indexOf(flag) + 1] : undefined);
const yaml = createRequire(path.join(home, 'package.json'))('js-yaml');
const load = (name) => import(pathToFileURL(path.join(home, 'dist/lib', name)).href);
const read = yaml.load(fs.readFileSync(script, 'utf8'));
const phases = JSON.parse(after('--overrides') ?? '{}').config?.phases;
if (phases) read.config.phases = phases;
globalThis.artillery ??= { runtimeOptions: {} };
const { runner } = (await load('core/index.js')).runner;
const { SSMS } = await load('core/ssms.js');
const events = await runner(read);
events.on('done', (totals) => {
  const plain = JSON.parse(SSMS.serializeMetrics(totals));
  fs.writeFileSync(after('-o'), JSON.stringify({ aggregate: { counters: plain.counters ?? {} } }));
  events.stop().then(() => process.exit(0));
});
events.run();
