// From a file to upright sRGB pixels on white, in bands of rows, so that no canvas of the whole picture is needed.

import { dimensions } from './dimensions.js';
import { uprightParts } from './orientation.js';
import { Sentence } from './sentence.js';

const MOST_BYTES = 100e6;
const MOST_PIXELS = 50e6;
const MOST_ELONGATED = 200; // of the longer side to the shorter, as in Python
const BAND_PIXELS = 1 << 20;

export async function openPicture(file) {
  if (file.size > MOST_BYTES) {
    throw new Sentence(`The file has ${mega(file.size)} MB, at most 100 are read; choose a smaller one.`);
  }
  const buffer = await file.arrayBuffer();
  check(dimensions(buffer));
  const { parts, turn } = uprightParts(buffer);
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob(parts), { imageOrientation: 'from-image' });
  } catch {
    throw new Sentence(
      'The file is no picture that this browser can read, or a damaged one; choose a JPEG, PNG or WebP file.',
    );
  }
  check([bitmap.width, bitmap.height]);
  const [width, height] = turn > 4 ? [bitmap.height, bitmap.width] : [bitmap.width, bitmap.height];
  return { width, height, bands: () => bands(bitmap, width, height, turn), close: () => bitmap.close() };
}

function check(size) {
  if (!size) return;
  const [width, height] = size;
  if (width * height > MOST_PIXELS) {
    throw new Sentence(`The picture has ${width} x ${height} pixels, more than 50 million; choose a smaller one.`);
  }
  if (Math.max(width, height) > MOST_ELONGATED * Math.min(width, height)) {
    throw new Sentence(
      `The picture has ${width} x ${height} pixels, its longer side is more than 200 times the shorter; crop it.`,
    );
  }
}

// From stored to upright places, as a canvas takes it: x' = a x + c y + e, y' = b x + d y + f.
const turned = (turn, width, height) =>
  ({
    2: [-1, 0, 0, 1, width, 0],
    3: [-1, 0, 0, -1, width, height],
    4: [1, 0, 0, -1, 0, height],
    5: [0, 1, 1, 0, 0, 0],
    6: [0, 1, -1, 0, width, 0],
    7: [0, -1, -1, 0, width, height],
    8: [0, -1, 1, 0, 0, height],
  })[turn] ?? [1, 0, 0, 1, 0, 0];

// `width` and `height` are those of the upright picture.
function* bands(bitmap, width, height, turn) {
  const most = Math.max(1, Math.min(height, Math.floor(BAND_PIXELS / width)));
  const context = new OffscreenCanvas(width, most).getContext('2d', { alpha: false, willReadFrequently: true });
  const [a, b, c, d, e, f] = turned(turn, width, height);
  context.imageSmoothingEnabled = false;
  context.fillStyle = 'white';
  for (let first = 0; first < height; first += most) {
    const rows = Math.min(most, height - first);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillRect(0, 0, width, rows);
    context.setTransform(a, b, c, d, e, f - first);
    context.drawImage(bitmap, 0, 0);
    yield { first, rows, pixels: context.getImageData(0, 0, width, rows).data };
  }
}

const mega = (bytes) => (bytes / 1e6).toFixed(0);
