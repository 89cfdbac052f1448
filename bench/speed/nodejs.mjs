// Trial: nodejs-order-book on a flow: `node nodejs.mjs MODULES FLOW` prints commands a second.
//
// It matches, and that is all. Prices and sizes are whole numbers, ids are texts (it takes no
// others), and both are made before the clock starts. The whole flow is carried out once before
// that, on another book, so that everything is compiled.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, file] = process.argv.slice(2);
const { OrderBook } = createRequire(join(modules, "nodejs.js"))("nodejs-order-book");
const flow = JSON.parse(readFileSync(file, "utf8"));

function inItsWords([kind, number, _peer, ...fields]) {
  if (kind === "c") return String(fields[0]);
  const [isBuy, price, size] = fields;
  return { id: String(number), side: isBuy ? "buy" : "sell", price, size };
}

function run(book, steps) {
  for (const step of steps) {
    if (typeof step === "string") book.cancel(step);
    else book.limit(step);
  }
}

const resting = flow.resting.map(inItsWords);
const steps = flow.steps.map(inItsWords);
const warm = new OrderBook();
run(warm, resting);
run(warm, steps);

const book = new OrderBook();
run(book, resting);
const began = performance.now();
run(book, steps);
const seconds = (performance.now() - began) / 1000;

const after = Object.keys(book.orders).length;
if (after !== flow.resting_after) {
  throw new Error(`expected ${flow.resting_after} orders, found ${after}`);
}
console.log(JSON.stringify({ value: steps.length / seconds }));
