// The page: wires what is chosen to the worker that embeds and to the server that searches.

import { setUpCamera } from './camera.js';
import { Embedder } from './embedder.js';
import { showMatrix } from './matrix.js';
import { bytes, column, factsOf, summary } from './results.js';
import { Sentence, told } from './sentence.js';
import { loadSite, search, searchByPicture } from './server.js';

const part = (name) => document.getElementById(name);
const embedder = new Embedder();
let config;
let current; // the file that is shown
let turn = 0; // of the latest picture: answers to earlier ones are dropped

async function start() {
  try {
    config = await loadSite();
    describe();
    setUpWidths();
    setUpExamples();
    const model = `the model of width ${config.browser.width}, ${bytes(config.browser.bytes)}`;
    part('status').textContent = `Loading ONNX Runtime and ${model}.`;
    const begin = performance.now();
    const { threads } = await embedder.load(config);
    const spent = ((performance.now() - begin) / 1000).toFixed(1);
    part('status').textContent =
      `Ready: ${model}, runs in this browser on ${threads} ` +
      `${threads === 1 ? 'thread' : 'threads'}; loading took ${spent} s.`;
    part('file').disabled = part('camera').disabled = false;
    document.body.dataset.ready = 'true';
  } catch (error) {
    if (!(error instanceof Sentence)) console.error(error);
    part('status').textContent = 'Not ready.';
    fail(told(error, 'The page could not be started; load it again.'));
  }
}

function describe() {
  const { items, width, embed_dim: size } = config.gallery;
  part('about').textContent =
    `Your browser embeds a picture at width ${config.browser.width} of ${config.model}; the server searches ` +
    `${items.toLocaleString('en')} pictures that width ${width} embedded. Only the embedding travels, ` +
    `${bytes(4 * size)}.`;
  part('facts').textContent =
    `Gallery: ${items.toLocaleString('en')} pictures at width ${width}, ${size} numbers each. Checkpoint ` +
    `${config.compatibility}. ONNX Runtime Web ${config.runtime}, served from here. Scores are cosine similarities.`;
  if (config.matrix) {
    showMatrix(part('matrix-table'), part('matrix-text'), config.matrix);
    part('matrix').hidden = false;
  }
}

// A switch for each width; the browser's is always on.
function setUpWidths() {
  const add = (id, text, isFixed) => {
    const label = document.createElement('label');
    const state = { type: 'checkbox', id, checked: isFixed, disabled: isFixed };
    const box = Object.assign(document.createElement('input'), state);
    label.append(box, text);
    part('widths').append(label);
    return box;
  };
  const size = bytes(4 * config.gallery.embed_dim);
  add('width-browser', `Width ${config.browser.width} in this browser: only the embedding is sent, ${size}.`, true);
  for (const { width } of config.server) {
    const text = `Width ${width} on the server, side by side: for this the picture itself is sent.`;
    const box = add(`width-${width}`, text, false);
    box.dataset.width = width;
    box.onchange = () => current && show(current);
  }
}

function setUpExamples() {
  config.examples.forEach((name, i) => {
    const button = Object.assign(document.createElement('button'), { type: 'button' });
    button.setAttribute('aria-pressed', 'false');
    button.append(Object.assign(document.createElement('img'), { src: `examples/${i}`, alt: name, title: name }));
    button.onclick = async () => {
      try {
        const response = await fetch(`examples/${i}`);
        await take(new File([await response.blob()], name), button);
      } catch {
        fail('The example could not be loaded; is the server still running?');
      }
    };
    const entry = document.createElement('li');
    entry.append(button);
    part('examples').append(entry);
  });
  part('examples-part').hidden = !config.examples.length;
}

// A new picture, from wherever.
async function take(file, button) {
  if (!document.body.dataset.ready) return;
  for (const one of document.querySelectorAll('#examples button')) {
    one.setAttribute('aria-pressed', String(one === button));
  }
  part('preview-image').hidden = true;
  part('preview-text').textContent = `${file.name}, ${bytes(file.size)}`;
  part('preview').hidden = false;
  current = file;
  await show(file);
}

async function show(file) {
  const mine = ++turn;
  part('error').hidden = true;
  part('results').setAttribute('aria-busy', 'true');
  part('summary').textContent = 'Searching.';
  const asked = [byBrowser(file), ...checkedWidths().map((width) => byServer(file, width))];
  const found = await Promise.allSettled(asked);
  if (mine !== turn) return;
  part('results').removeAttribute('aria-busy');
  const columns = found.filter(({ status }) => status === 'fulfilled').map(({ value }) => value);
  const failed = found.find(({ status }) => status === 'rejected');
  if (failed) fail(told(failed.reason, 'The search failed; try another picture.'));
  part('columns').replaceChildren(...columns.map(({ title, facts, matches }) => column(title, facts, matches)));
  part('summary').textContent = columns.length ? summary(columns) : 'No matches.';
  document.body.dataset.turn = String(mine);
}

const checkedWidths = () =>
  [...document.querySelectorAll('#widths input[data-width]:checked')].map((box) => box.dataset.width);

async function byBrowser(file) {
  const embedded = await embedder.embed(file);
  if (file === current) preview(file, embedded);
  const found = await search(config, embedded.embedding);
  const title = `width ${config.browser.width}, this browser`;
  return { title, facts: factsOf({ ...embedded, ...found }, true), matches: found.matches };
}

// Shown once it is known to be a picture of a bearable size: the browser decodes it once more for this.
function preview(file, { width, height }) {
  const image = part('preview-image');
  URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(file);
  image.alt = `Your picture: ${file.name}`;
  image.hidden = false;
  part('preview-text').textContent = `${file.name}, ${width} x ${height} pixels, ${bytes(file.size)}`;
}

async function byServer(file, width) {
  const found = await searchByPicture(config, width, file);
  return { title: `width ${width}, the server`, facts: factsOf(found, false), matches: found.matches };
}

function fail(text) {
  part('error').textContent = text;
  part('error').hidden = false;
}

part('file').onchange = ({ target }) => {
  if (target.files[0]) take(target.files[0]);
};
document.addEventListener('paste', ({ clipboardData }) => {
  if (clipboardData.files[0]) take(clipboardData.files[0]);
});
document.addEventListener('dragover', (event) => {
  event.preventDefault();
  part('drop').classList.add('over');
});
document.addEventListener('dragleave', () => part('drop').classList.remove('over'));
document.addEventListener('drop', (event) => {
  event.preventDefault(); // a picture beside the field would otherwise replace the page
  part('drop').classList.remove('over');
  if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
});
setUpCamera((file) => take(file));
start();

// For tests: the embedding of a file as this page makes it.
window.embedFile = (file) => embedder.embed(file);
