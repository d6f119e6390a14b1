// The checkpoint's matrix as a table of coloured cells: mAP of each query width (rows) in each gallery (columns).

// Light to dark, as in the plots of `sfsc-timm eval`.
const COLOURS = ['#f4f8fb', '#bcd9ea', '#5ba3cf', '#1f6fae', '#0b3c6f'].map((name) =>
  [1, 3, 5].map((at) => parseInt(name.slice(at, at + 2), 16)),
);

// One of them reaches a contrast of 4.5 on any paper.
const INKS = [[0, 0, 0], [255, 255, 255]];

function colour(share) {
  const at = Math.min(share * (COLOURS.length - 1), COLOURS.length - 1.0001);
  const [low, high] = [COLOURS[Math.floor(at)], COLOURS[Math.floor(at) + 1]];
  return low.map((value, i) => Math.round(value + (high[i] - value) * (at % 1)));
}

const css = (values) => `rgb(${values.join(' ')})`;

// Relative luminance and contrast as WCAG defines them.
function luminance(values) {
  const [r, g, b] = values.map((value) => (value <= 10 ? value / 3295 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function inkOn(paper) {
  const contrast = (ink) => {
    const [light, dark] = [luminance(ink), luminance(paper)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  };
  return contrast(INKS[0]) >= contrast(INKS[1]) ? INKS[0] : INKS[1];
}

const signed = (value) => `${value < 0 ? '\u2212' : '+'}${Math.abs(value).toFixed(1)}`;

export function showMatrix(table, text, matrix) {
  const all = matrix.mAP.flat();
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const cross = matrix.compatible.flat().filter(Boolean).length - matrix.widths.length;
  text.textContent =
    `mAP in percent${matrix.data ? ` on ${matrix.data}` : ''}; darker is better. Framed: query and gallery of ` +
    `one width. ${cross} of ${all.length - matrix.widths.length} pairs of different widths beat the weaker of both alone; ` +
    'the others have a cross.';
  const head = table.createTHead().insertRow();
  head.append(cell('th', 'query \\ gallery'), ...matrix.widths.map((width) => scoped(`${width}`, 'col')));
  const body = table.createTBody();
  matrix.widths.forEach((width, i) => {
    const row = body.insertRow();
    row.append(scoped(`${width}`, 'row'));
    matrix.mAP[i].forEach((value, j) => row.append(entry(matrix, i, j, (value - low) / Math.max(high - low, 1e-9))));
  });
}

function entry(matrix, i, j, share) {
  const made = document.createElement('td');
  const paper = colour(0.08 + 0.84 * share);
  made.style.backgroundColor = css(paper);
  made.style.color = css(inkOn(paper));
  made.append(cell('b', matrix.mAP[i][j].toFixed(1)));
  if (matrix.rank1) made.append(cell('span', `rank-1 ${matrix.rank1[i][j].toFixed(1)}`));
  if (i === j) made.className = 'own';
  else made.append(cell('span', `${matrix.compatible[i][j] ? '' : '\u2717 '}${signed(matrix.gain[i][j])}`));
  return made;
}

function cell(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function scoped(text, scope) {
  const made = cell('th', text);
  made.scope = scope;
  return made;
}
