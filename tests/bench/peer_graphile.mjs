// graphile-worker as a peer: node peer_graphile.mjs FOLDER_OF_NODE_MODULES SOCKET_FOLDER USER DATABASE JOBS
// The fastest settings of those tried: a local queue of 2,000 jobs, completions written in batches.
import { createRequire } from "node:module";

const [folder, host, user, database, jobs] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const { Pool } = require("pg");
const { run, runMigrations } = require("graphile-worker");
const quiet = new (require("graphile-worker").Logger)(() => () => {});
const pool = new Pool({ host, user, database, max: 25 });
const preset = {
  worker: { concurrentJobs: 24, pollInterval: 2000, localQueue: { size: 2000 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 },
};

async function drain(count) {
  await pool.query(
    `select from graphile_worker.add_jobs(array(
       select json_populate_record(null::graphile_worker.job_spec, '{"identifier": "nothing"}'::json) from generate_series(1, $1::int)))`,
    [count]);
  let left = count;
  let done;
  const finished = new Promise((resolve) => { done = resolve; });
  const began = performance.now();
  const runner = await run({
    pgPool: pool, preset, logger: quiet, noHandleSignals: true,
    taskList: { nothing: async () => { if (--left === 0) done(); } },
  });
  await finished;
  for (;;) {  // the last completions are written, too
    const { rows } = await pool.query("select exists (select from graphile_worker.jobs) as busy");
    if (!rows[0].busy) break;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const seconds = (performance.now() - began) / 1000;
  await runner.stop();
  return seconds;
}

await runMigrations({ pgPool: pool, logger: quiet });
await drain(100);
console.log(JSON.stringify({ jobs: Number(jobs), seconds: await drain(Number(jobs)) }));
process.exit(0);
