// The EXIF orientation of PNG and WebP files, which some browsers pass over and others mind; in JPEG all do.

const TAG = 0x0112;
const SHORT = 3;

const text = (view, at, length) =>
  String.fromCharCode(...new Uint8Array(view.buffer, view.byteOffset + at, length));

// The file in parts, without an orientation that the browser might mind, and the turn that is left to do: 1 for none.
export function uprightParts(buffer) {
  try {
    const view = new DataView(buffer);
    if (view.getUint32(0) === 0x89504e47) return png(view);
    if (text(view, 0, 4) === 'RIFF' && text(view, 8, 4) === 'WEBP') return webp(view);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // cut off
  }
  return { parts: [buffer], turn: 1 };
}

function png(view) {
  for (let at = 8; at + 12 <= view.byteLength; ) {
    const end = at + 12 + view.getUint32(at);
    if (text(view, at + 4, 4) === 'eXIf') {
      const turn = orientation(view, at + 8, end - 4);
      return { parts: [view.buffer.slice(0, at), view.buffer.slice(end)], turn };
    }
    at = end;
  }
  return { parts: [view.buffer], turn: 1 };
}

function webp(view) {
  for (let at = 12; at + 8 <= view.byteLength; ) {
    const size = view.getUint32(at + 4, true);
    const end = at + 8 + size + (size % 2);
    if (text(view, at, 4) === 'EXIF') {
      const turn = orientation(view, at + 8, at + 8 + size);
      const head = view.buffer.slice(0, at);
      const changed = new DataView(head);
      changed.setUint32(4, view.getUint32(4, true) - (end - at), true);
      if (text(view, 12, 4) === 'VP8X') changed.setUint8(20, view.getUint8(20) & ~8); // the bit that says EXIF
      return { parts: [head, view.buffer.slice(end)], turn };
    }
    at = end;
  }
  return { parts: [view.buffer], turn: 1 };
}

// That of the first directory; 1 where there is none, or no valid one.
function orientation(view, begin, end) {
  if (text(view, begin, 4) === 'Exif') begin += 6;
  const order = view.getUint16(begin);
  if (order !== 0x4949 && order !== 0x4d4d) return 1;
  const little = order === 0x4949;
  const directory = begin + view.getUint32(begin + 4, little);
  const count = view.getUint16(directory, little);
  for (let i = 0; i < count && directory + 14 + 12 * i <= end; i++) {
    const at = directory + 2 + 12 * i;
    if (view.getUint16(at, little) !== TAG) continue;
    const value = view.getUint16(at + 8, little);
    return view.getUint16(at + 2, little) === SHORT && value >= 1 && value <= 8 ? value : 1;
  }
  return 1;
}
