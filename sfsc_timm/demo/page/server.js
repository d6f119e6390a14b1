// What is asked of the server: what the page is about, and searches.

import { Sentence } from './sentence.js';

export async function loadSite() {
  return answer(await reached(fetch('site.json')));
}

// Sends an embedding, of 4 bytes a number, and nothing of the picture.
export function search(config, embedding) {
  return post(config, 'search', {}, new Uint8Array(embedding.buffer.slice(0)));
}

// Sends the picture itself, for a width that runs on the server.
export function searchByPicture(config, width, file) {
  return post(config, 'embed', { width }, file);
}

async function post(config, path, asked, body) {
  const url = `${path}?${new URLSearchParams({ of: config.compatibility, ...asked })}`;
  const start = performance.now();
  const found = await answer(
    await reached(fetch(url, { method: 'POST', body, headers: { 'Content-Type': 'application/octet-stream' } })),
  );
  const total = performance.now() - start;
  const working = found.search_ms + (found.prepare_ms ?? 0) + (found.embed_ms ?? 0);
  return { ...found, way_ms: Math.max(0, total - working), sent: body.size ?? body.length };
}

async function reached(request) {
  try {
    return await request;
  } catch {
    throw new Sentence('The server cannot be reached; is it still running?');
  }
}

async function answer(response) {
  let content;
  try {
    content = await response.json();
  } catch {
    throw new Sentence(`The server answered with status ${response.status}; try again.`);
  }
  if (!response.ok) throw new Sentence(content.error ?? 'The server refused without a reason; try again.');
  return content;
}
