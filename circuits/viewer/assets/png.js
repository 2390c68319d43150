// A PNG that says how large it is on paper: a chunk behind its header, which browsers leave out.

const FINER = 300 / 96;                       // pixels of a PNG to one of the page: 300 in an inch

function checksum(bytes) {                    // CRC-32, as in the standard's appendix
  let sum = 0xffffffff;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = sum & 1 ? (sum >>> 1) ^ 0xedb88320 : sum >>> 1;
  }
  return (sum ^ 0xffffffff) >>> 0;
}

async function inDots(blob, dots) {           // in an inch
  const bytes = new Uint8Array(await blob.arrayBuffer()), chunk = new DataView(new ArrayBuffer(21)), header = 33, meters = Math.round(dots / 0.0254);
  chunk.setUint32(0, 9);
  [..."pHYs"].forEach((letter, at) => chunk.setUint8(4 + at, letter.charCodeAt(0)));
  chunk.setUint32(8, meters);
  chunk.setUint32(12, meters);
  chunk.setUint8(16, 1);
  chunk.setUint32(17, checksum(new Uint8Array(chunk.buffer, 4, 13)));
  return new Blob([bytes.subarray(0, header), chunk.buffer, bytes.subarray(header)], { type: "image/png" });
}
