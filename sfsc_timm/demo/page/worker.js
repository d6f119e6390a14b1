// The worker that prepares and embeds pictures, so that the page stays usable meanwhile.

import * as ort from './runtime/ort.wasm.bundle.min.mjs';
import { openPicture } from './picture.js';
import { mirrored, prepare } from './prepare.js';
import { Sentence, told } from './sentence.js';

let session;
let config;

ort.env.wasm.wasmPaths = { wasm: new URL('runtime/ort-wasm-simd-threaded.wasm', import.meta.url).href };
// Threads need memory that is shared between them, which browsers give to isolated pages alone.
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;

async function load(site) {
  config = site;
  if (typeof OffscreenCanvas === 'undefined') {
    throw new Sentence('This browser is too old to prepare pictures in the background; update it.');
  }
  const response = await fetch(new URL(config.browser.model, import.meta.url));
  if (!response.ok) throw new Sentence('The small model could not be loaded; load the page again.');
  session = await ort.InferenceSession.create(new Uint8Array(await response.arrayBuffer()), {
    executionProviders: ['wasm'],
    graphOptimizationLevel: 'all',
  });
  await run(new Float32Array(shape().reduce((a, b) => a * b)), false); // the first run is slower than all others
  return { threads: ort.env.wasm.numThreads };
}

const shape = () => config.preprocessing.input.shape.slice(1);

async function run(values, flip) {
  const { input, output } = config.preprocessing;
  const inputs = flip ? [values, mirrored(values, shape().at(-1))] : [values];
  let sum;
  for (const one of inputs) {
    const tensor = new ort.Tensor('float32', one, [1, ...shape()]);
    const found = (await session.run({ [input.name]: tensor }))[output.name].data;
    sum = sum ? sum.map((value, i) => (value + found[i]) / 2) : Float32Array.from(found);
  }
  return sum.slice(0, config.gallery.embed_dim); // an embedding may hold a smaller one, which the gallery is of
}

async function embed(file) {
  const start = performance.now();
  const picture = await openPicture(file);
  let values;
  try {
    values = prepare(picture, config.preprocessing);
  } finally {
    picture.close();
  }
  const prepared = performance.now();
  const embedding = await run(values, config.flip);
  return {
    embedding,
    prepareMs: prepared - start,
    embedMs: performance.now() - prepared,
    width: picture.width,
    height: picture.height,
  };
}

async function answer({ id, task, value }) {
  try {
    self.postMessage({ id, result: await { load, embed }[task](value) });
  } catch (error) {
    if (!(error instanceof Sentence)) console.error(error);
    const otherwise =
      task === 'load'
        ? 'The model could not be started in this browser; update it, or try another one.'
        : 'The picture could not be embedded in this browser; try a smaller one.';
    self.postMessage({ id, error: told(error, otherwise) });
  }
}

// One after the other: a session runs once at a time, and two pictures would need twice the memory.
let last = Promise.resolve();
self.onmessage = ({ data }) => {
  last = last.then(() => answer(data));
};
