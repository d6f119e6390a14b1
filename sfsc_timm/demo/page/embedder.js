// The page's side of the worker: questions and their answers.

import { Sentence } from './sentence.js';

export class Embedder {
  constructor() {
    this.waiting = new Map();
    this.next = 0;
    this.worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
    this.worker.onmessage = ({ data: { id, result, error } }) => {
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      if (error) reject(new Sentence(error));
      else resolve(result);
    };
    this.worker.onerror = () => {
      this.failed = new Sentence('This browser did not start the part that embeds; update it, or try another one.');
      for (const { reject } of this.waiting.values()) reject(this.failed);
      this.waiting.clear();
    };
  }

  // { threads }, once runtime and model are there.
  load(config) {
    return this.ask('load', config);
  }

  // { embedding, prepareMs, embedMs, width, height } of a file.
  embed(file) {
    return this.ask('embed', file);
  }

  ask(task, value) {
    if (this.failed) return Promise.reject(this.failed);
    return new Promise((resolve, reject) => {
      const id = this.next++;
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, task, value });
    });
  }
}
