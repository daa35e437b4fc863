// A PNG of one bit a pixel, made at once: what is clicked next must find it there.

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c >>> 0;
});

function crc32(data) {
  let c = 0xffffffff;
  for (let i = 0; i < data.length; i++) c = CRC[(c ^ data[i]) & 255] ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}

function adler32(data) {
  let a = 1;
  let b = 0;
  for (let i = 0; i < data.length;) {
    // as many as cannot overflow
    for (const end = Math.min(i + 3800, data.length); i < end; i++) b += a += data[i];
    a %= 65521;
    b %= 65521;
  }
  return (b * 65536 + a) >>> 0;
}

function word(n) {
  return [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255];
}

function joined(parts) {
  const made = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    made.set(part, at);
    at += part.length;
  }
  return made;
}

function chunk(name, data) {
  const body = joined([[...name].map((c) => c.charCodeAt(0)), data]);
  return [word(data.length), body, word(crc32(body))];
}

// `dark` has a byte a pixel, rows from the top; what is not 0 becomes black, the rest white.
function bitmapPng(dark, height, width) {
  const stride = 1 + Math.ceil(width / 8);
  const rows = new Uint8Array(height * stride);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!dark[i]) rows[y * stride + 1 + (x >> 3)] |= 128 >> (x & 7);
    }
  }
  const stored = [[0x78, 0x01]];
  for (let at = 0; at < rows.length; at += 65535) {
    const part = rows.subarray(at, at + 65535);
    const n = part.length;
    stored.push([at + n === rows.length ? 1 : 0, n & 255, n >> 8, ~n & 255, (~n >> 8) & 255], part);
  }
  stored.push(word(adler32(rows)));
  const png = joined([[137, 80, 78, 71, 13, 10, 26, 10],
    ...chunk("IHDR", [...word(width), ...word(height), 1, 0, 0, 0, 0]),
    ...chunk("IDAT", joined(stored)), ...chunk("IEND", [])]);
  let letters = "";
  for (let i = 0; i < png.length; i += 8192) letters += String.fromCharCode(...png.subarray(i, i + 8192));
  return `data:image/png;base64,${btoa(letters)}`;
}
