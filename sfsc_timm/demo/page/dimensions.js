// Width and height of a picture from its first bytes, so that a huge one is refused before it is decoded.

const text = (view, at, length) =>
  String.fromCharCode(...new Uint8Array(view.buffer, view.byteOffset + at, length));

// [width, height] as they are stored; null where the format is not known here or the header is cut off.
export function dimensions(buffer) {
  const view = new DataView(buffer);
  try {
    if (view.getUint32(0) === 0x89504e47) return [view.getUint32(16), view.getUint32(20)];
    if (view.getUint16(0) === 0xffd8) return jpeg(view);
    if (text(view, 0, 3) === 'GIF') return [view.getUint16(6, true), view.getUint16(8, true)];
    if (text(view, 0, 2) === 'BM') return [view.getInt32(18, true), Math.abs(view.getInt32(22, true))];
    if (text(view, 0, 4) === 'RIFF' && text(view, 8, 4) === 'WEBP') return webp(view);
    if (text(view, 4, 4) === 'ftyp') return heif(view);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return null;
}

function jpeg(view) {
  let at = 2;
  for (;;) {
    while (view.getUint8(at) === 0xff && view.getUint8(at + 1) === 0xff) at++;
    const marker = view.getUint8(at + 1);
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) return [view.getUint16(at + 7), view.getUint16(at + 5)];
    if (view.getUint8(at) !== 0xff || marker === 0xda) return null;
    at += 2 + view.getUint16(at + 2);
  }
}

function webp(view) {
  const kind = text(view, 12, 4);
  const three = (at) => view.getUint16(at, true) + (view.getUint8(at + 2) << 16);
  if (kind === 'VP8X') return [three(24) + 1, three(27) + 1];
  if (kind === 'VP8L') {
    const bits = view.getUint32(21, true);
    return [(bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1];
  }
  return [view.getUint16(26, true) & 0x3fff, view.getUint16(28, true) & 0x3fff];
}

// AVIF and HEIC: the largest of the boxes that tell a size.
function heif(view) {
  let found = null;
  const end = Math.min(view.byteLength - 16, 1 << 16);
  for (let at = 0; at < end; at++) {
    if (view.getUint32(at) !== 0x69737065) continue; // 'ispe'
    const size = [view.getUint32(at + 8), view.getUint32(at + 12)];
    if (!found || size[0] * size[1] > found[0] * found[1]) found = size;
  }
  return found;
}
