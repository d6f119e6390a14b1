// From a file to upright sRGB pixels on white, in bands of rows, so that no canvas of the whole picture is needed.

import { dimensions } from './dimensions.js';
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
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([buffer]), { imageOrientation: 'from-image' });
  } catch {
    throw new Sentence(
      'The file is no picture that this browser can read, or a damaged one; choose a JPEG, PNG or WebP file.',
    );
  }
  check([bitmap.width, bitmap.height]);
  return { width: bitmap.width, height: bitmap.height, bands: () => bands(bitmap), close: () => bitmap.close() };
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

function* bands(bitmap) {
  const { width, height } = bitmap;
  const most = Math.max(1, Math.min(height, Math.floor(BAND_PIXELS / width)));
  const context = new OffscreenCanvas(width, most).getContext('2d', { alpha: false, willReadFrequently: true });
  for (let first = 0; first < height; first += most) {
    const rows = Math.min(most, height - first);
    context.fillStyle = 'white';
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, first, width, rows, 0, 0, width, rows);
    yield { first, rows, pixels: context.getImageData(0, 0, width, rows).data };
  }
}

const mega = (bytes) => (bytes / 1e6).toFixed(0);
