// Pillow's resize of 8-bit pixels, number for number: antialiased, in fixed point, rows after columns or before.
// A canvas scales in other ways, and embeddings would differ.

const BITS = 32 - 8 - 2; // of a weight's fraction, as in Pillow
const HALF = 1 << (BITS - 1);

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

// Name to [reach, weight at a distance], distances in pixels of the larger of both images.
const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, (x) => (Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)))],
  bicubic: [2, cubic],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

function cubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// For each pixel of the result: where its sources begin, how many they are, and their weights in fixed point.
export function weights(from, to, filter) {
  if (filter === 'nearest') return nearest(from, to);
  const [reach, weigh] = FILTERS[filter];
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const support = reach * stretch;
  const most = Math.ceil(support) * 2 + 1;
  const begins = new Int32Array(to);
  const counts = new Int32Array(to);
  const table = new Int32Array(to * most);
  for (let i = 0; i < to; i++) {
    const centre = (i + 0.5) * scale;
    const begin = Math.max(0, Math.trunc(centre - support + 0.5));
    const count = Math.min(from, Math.trunc(centre + support + 0.5)) - begin;
    const values = Array.from({ length: count }, (_, j) => weigh((j + begin - centre + 0.5) / stretch));
    const sum = values.reduce((total, value) => total + value, 0);
    begins[i] = begin;
    counts[i] = count;
    values.forEach((value, j) => {
      const share = (sum === 0 ? value : value / sum) * (1 << BITS);
      table[i * most + j] = Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    });
  }
  return { begins, counts, table, most };
}

// The step is added up, as Pillow does: where a place falls between two pixels, the rounding decides.
function nearest(from, to) {
  const begins = new Int32Array(to);
  let place = (from / to) * 0.5;
  for (let i = 0; i < to; i++, place += from / to) begins[i] = Math.min(from - 1, Math.trunc(place));
  return { begins, counts: new Int32Array(to).fill(1), table: new Int32Array(to).fill(1 << BITS), most: 1 };
}

const clipped = (sum) => {
  const value = sum >> BITS;
  return value < 0 ? 0 : value > 255 ? 255 : value;
};

// Whether columns come before rows, as in Pillow since version 13: where the height shrinks by more than twice as much.
export const columnsFirst = (width, height, toWidth, toHeight) =>
  height > toHeight && height - toHeight > 2 * (width - toWidth);

// Resizes the rows of a band of pixels of red, green, blue and perhaps alpha (a stride of 3 or 4), which goes.
// Sums stay within 32 bits, as in Pillow; saying so to the machine makes this several times as fast.
export function resizeColours(source, stride, rows, from, plan, target, to) {
  const { begins, counts, table, most } = plan;
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < to; x++) {
      let at = (y * from + begins[x]) * stride;
      const first = x * most;
      const end = first + counts[x];
      let r = HALF;
      let g = HALF;
      let b = HALF;
      for (let j = first; j < end; j++, at += stride) {
        const weight = table[j];
        r = (r + Math.imul(source[at], weight)) | 0;
        g = (g + Math.imul(source[at + 1], weight)) | 0;
        b = (b + Math.imul(source[at + 2], weight)) | 0;
      }
      const place = (y * to + x) * 3;
      target[place] = clipped(r);
      target[place + 1] = clipped(g);
      target[place + 2] = clipped(b);
    }
  }
}

// The same for greys.
export function resizeGreys(source, rows, from, plan, target, to) {
  const { begins, counts, table, most } = plan;
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < to; x++) {
      const first = y * from + begins[x];
      let sum = HALF;
      for (let j = 0; j < counts[x]; j++) sum = (sum + Math.imul(source[first + j], table[x * most + j])) | 0;
      target[y * to + x] = clipped(sum);
    }
  }
}

// Resizes the columns of a whole image of `line` values a row.
export function resizeColumns(source, line, plan, to) {
  const { begins, counts, table, most } = plan;
  const target = new Uint8Array(to * line);
  for (let y = 0; y < to; y++) {
    for (let x = 0; x < line; x++) {
      let at = begins[y] * line + x;
      let sum = HALF;
      for (let j = 0; j < counts[y]; j++, at += line) sum = (sum + Math.imul(source[at], table[y * most + j])) | 0;
      target[y * line + x] = clipped(sum);
    }
  }
  return target;
}

// Resizes columns before rows, of bands as they come: `add` takes rows of `line` values, `finish` gives the image.
export function columnSums(line, plan, to) {
  const { begins, counts, table, most } = plan;
  const sums = new Int32Array(to * line).fill(HALF);
  const add = (source, first, rows) => {
    for (let i = 0; i < to; i++) {
      const begin = Math.max(first, begins[i]);
      const end = Math.min(first + rows, begins[i] + counts[i]);
      for (let y = begin; y < end; y++) {
        const weight = table[i * most + y - begins[i]];
        let from = (y - first) * line;
        for (let x = i * line; x < (i + 1) * line; x++, from++) sums[x] += Math.imul(source[from], weight);
      }
    }
  };
  return { add, finish: () => Uint8Array.from(sums, clipped) };
}
