// From a picture to the input of the model, by the steps of preprocessing.json.

import { columnSums, columnsFirst, resizeColours, resizeColumns, resizeGreys, weights } from './resample.js';

// Python's rounding: halves to the even neighbour.
export function rounded(value) {
  const below = Math.floor(value);
  const rest = value - below;
  return rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
}

// Width and height after the resize.
export function resizedSize(width, height, resize) {
  if (resize.size) return [resize.size[1], resize.size[0]];
  if (resize.shorter_side) {
    const side = resize.shorter_side;
    return width <= height
      ? [side, Math.trunc((side * height) / width)]
      : [Math.trunc((side * width) / height), side];
  }
  const target = resize.fit_inside ?? resize.cover;
  const ratios = [height / target[0], width / target[1]];
  const ratio = resize.fit_inside ? Math.max(...ratios) : Math.min(...ratios);
  return [rounded(width / ratio), rounded(height / ratio)];
}

// Where the crop begins in the resized image; before it, where it is larger than that.
export const cropBegin = (found, wanted) =>
  wanted > found ? -Math.floor((wanted - found) / 2) : rounded((found - wanted) / 2);

// `picture` has width, height and `bands()`, which yields { first, rows, pixels } of red, green, blue and alpha.
export function prepare(picture, preprocessing) {
  const steps = Object.assign({}, ...preprocessing.steps);
  const channels = preprocessing.input.channels === 'L' ? 1 : 3;
  const [width, height] = resizedSize(picture.width, picture.height, steps.resize);
  const pixels = resized(picture, width, height, channels, steps.resize.interpolation);
  return normalised(pixels, width, height, channels, steps);
}

function resized(picture, width, height, channels, filter) {
  const across = width === picture.width ? null : weights(picture.width, width, filter);
  const down = height === picture.height ? null : weights(picture.height, height, filter);
  const shorten = (pixels, stride, rows, target) => {
    if (channels === 1) resizeGreys(pixels, rows, picture.width, across, target, width);
    else resizeColours(pixels, stride, rows, picture.width, across, target, width);
  };
  const unpacked = channels === 1 ? greys : colours;

  if (down && columnsFirst(picture.width, picture.height, width, height)) {
    const columns = columnSums(picture.width * channels, down, height);
    for (const { first, rows, pixels } of picture.bands()) columns.add(unpacked(pixels), first, rows);
    const lower = columns.finish();
    if (!across) return lower;
    const result = new Uint8Array(height * width * channels);
    shorten(lower, channels, height, result);
    return result;
  }
  const line = width * channels;
  const narrower = new Uint8Array(picture.height * line);
  for (const { first, rows, pixels } of picture.bands()) {
    const target = narrower.subarray(first * line, (first + rows) * line);
    if (across) shorten(channels === 1 ? greys(pixels) : pixels, 4, rows, target);
    else target.set(unpacked(pixels));
  }
  return down ? resizeColumns(narrower, line, down, height) : narrower;
}

// Pillow's grey of red, green and blue.
function greys(pixels) {
  const result = new Uint8Array(pixels.length / 4);
  for (let i = 0; i < result.length; i++) {
    result[i] = (pixels[4 * i] * 19595 + pixels[4 * i + 1] * 38470 + pixels[4 * i + 2] * 7471 + 0x8000) >> 16;
  }
  return result;
}

// Red, green and blue without alpha.
function colours(pixels) {
  const result = new Uint8Array((pixels.length / 4) * 3);
  for (let i = 0, j = 0; i < pixels.length; i += 4) {
    result[j++] = pixels[i];
    result[j++] = pixels[i + 1];
    result[j++] = pixels[i + 2];
  }
  return result;
}

// Crops, or pads with the colour that is stated, else with black; scales, and normalises: channels first.
function normalised(pixels, width, height, channels, { crop, normalise }) {
  const [rows, columns] = crop.size;
  const [left, top] = [cropBegin(width, columns), cropBegin(height, rows)];
  const border = crop.pad_with ?? new Array(channels).fill(0);
  const result = new Float32Array(channels * rows * columns);
  for (let c = 0; c < channels; c++) {
    const [mean, std] = [Math.fround(normalise.mean[c]), Math.fround(normalise.std[c])];
    const table = Float32Array.from({ length: 256 }, (_, v) => Math.fround(Math.fround(v / 255) - mean) / std);
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const [sx, sy] = [x + left, y + top];
        const inside = sx >= 0 && sx < width && sy >= 0 && sy < height;
        result[(c * rows + y) * columns + x] = table[inside ? pixels[(sy * width + sx) * channels + c] : border[c]];
      }
    }
  }
  return result;
}

// The same input mirrored, for galleries whose embeddings are averaged with those of the mirrored image.
export function mirrored(values, columns) {
  const result = new Float32Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const x = i % columns;
    result[i] = values[i - x + columns - 1 - x];
  }
  return result;
}
