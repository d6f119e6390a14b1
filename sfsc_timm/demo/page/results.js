// The matches of one query, a column for each width that embedded it.

const milliseconds = (value) => (value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`);
export const bytes = (count) => `${count.toLocaleString('en')} bytes`;

const element = (name, text, className) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
};

// What was sent, and the time on each side.
export function factsOf(found, inBrowser) {
  const times = inBrowser
    ? [['prepared here', found.prepareMs], ['embedded here', found.embedMs]]
    : [['prepared there', found.prepare_ms], ['embedded there', found.embed_ms]];
  times.push(['searched there', found.search_ms], ['on the way', found.way_ms]);
  const sent = `${bytes(found.sent)}, ${inBrowser ? 'the embedding' : 'the picture'}`;
  return [['sent', sent], ...times.map(([name, value]) => [name, milliseconds(value)])];
}

export function column(title, facts, matches) {
  const made = element('article');
  const head = element('h3', title);
  head.id = `column-${title.replace(/\W+/g, '-')}`;
  made.setAttribute('aria-labelledby', head.id);
  const list = element('dl', undefined, 'facts');
  for (const [name, value] of facts) list.append(element('dt', name), element('dd', value));
  made.append(head, list, ordered(matches));
  return made;
}

function ordered(matches) {
  const list = element('ol', undefined, 'matches');
  for (const { item, score, label } of matches) {
    const entry = element('li');
    const image = element('img');
    image.src = `images/${item}`;
    image.alt = label;
    image.onerror = () => { image.alt = `${label} (its file is gone)`; };
    const name = element('span', label, 'label');
    name.setAttribute('aria-hidden', 'true'); // the picture's name says it
    entry.append(image, element('span', score.toFixed(3), 'score'), name);
    list.append(entry);
  }
  return list;
}

// What is said of the columns together, also to screen readers.
export function summary(columns) {
  const [first, ...others] = columns;
  const best = first.matches[0];
  const parts = [`Nearest by ${first.title}: ${best.label}, score ${best.score.toFixed(3)}.`];
  for (const other of others) {
    const known = new Set(first.matches.map(({ item }) => item));
    const shared = other.matches.filter(({ item }) => known.has(item)).length;
    parts.push(`${shared} of ${other.matches.length} matches are found by ${other.title}, too.`);
  }
  return parts.join(' ');
}
