"""A second decoder of `.inr` files, written from docs/FORMAT.md alone.

    python tests/plain_decoder.py picture.inr out.npy [scale]

numpy and the standard library, nothing of this project. It reads the integers of every file and
renders pictures of the fields `siren` and `grid`. It is to be read beside the page, not to be fast.
"""

import bisect
import hashlib
import itertools
import math
import struct
import sys
import zlib
from pathlib import Path

import numpy as np


class Refused(Exception):
    """The file breaks a rule of the format, or needs more than is read here."""


# ---------------------------------------------------------------------- 1. container


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Unsigned LEB128 of at most five bytes in its shortest form: (value, next position)."""
    value = 0
    for i, byte in enumerate(data[at : at + 5]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            if byte == 0 and i > 0:
                raise Refused("a length is not in its shortest form")
            return value, at + i + 1
    raise Refused("a length does not end")


def guarded(data: bytes, at: int, kind: bytes) -> tuple[bytes, int]:
    """A body behind its length and its CRC-32, which covers `kind` too."""
    size, at = varint(data, at)
    body = data[at + 4 : at + 4 + size]
    if len(body) != size or zlib.crc32(kind + body) != int.from_bytes(data[at : at + 4], "big"):
        raise Refused("a checksum does not match")
    return body, at + 4 + size


def container(data: bytes) -> tuple[list, list[tuple[str, bytes]]]:
    """The header's items and the chunks (type, body), all checksums verified."""
    if data[:4] != b"\x89INR" or len(data) < 14:
        raise Refused("not an .inr file")
    if data[4] & 15 != 1:
        raise Refused(f"format {data[4] & 15}.{data[4] >> 4}")
    if hashlib.blake2b(data[:-8], digest_size=8).digest() != data[-8:]:
        raise Refused("the digest does not match")
    header, at = guarded(data, 5, b"")
    items, end = cbor(header, 0, 1)
    if end != len(header) or not isinstance(items, list) or not 4 <= len(items) <= 5:
        raise Refused("the header is no array of four or five items")
    chunks = []
    while data[at : at + 1] != b"Z":
        kind = data[at : at + 1]
        body, at = guarded(data, at + 1, kind)
        if kind.isupper() and kind != b"P":
            raise Refused(f"critical chunk {kind!r}")
        chunks.append((kind.decode("ascii"), body))
    if at + 9 != len(data):
        raise Refused("bytes behind the end marker")
    return items, chunks


# ------------------------------------------------------------------------- 2. header


def cbor(raw: bytes, at: int, depth: int) -> tuple[object, int]:
    """One item of deterministic CBOR, and the position behind it."""
    if at >= len(raw) or depth > 8:
        raise Refused("the header is cut short, or nested too deep")
    major, low = raw[at] >> 5, raw[at] & 31
    at += 1
    if major == 7:
        if low in (20, 21, 22):
            return (False, True, None)[low - 20], at
        if low not in (25, 26, 27):
            raise Refused("a simple value has no meaning here")
        size = 1 << (low - 24)
        return struct.unpack(">" + "efd"[low - 25], raw[at : at + size])[0], at + size
    if low > 27:
        raise Refused("an item of indefinite length")
    size = 1 << (low - 24) if low > 23 else 0
    number, at = int.from_bytes(raw[at : at + size], "big") if size else low, at + size
    if major in (0, 1):
        return (number if major == 0 else -1 - number), at
    if major == 3 and number <= len(raw) - at:
        return raw[at : at + number].decode("utf-8"), at + number
    if major in (4, 5) and number <= len(raw) - at:
        parts = []
        for _ in range(number * (major - 3)):
            part, at = cbor(raw, at, depth + 1)
            parts.append(part)
        return (parts if major == 4 else dict(zip(parts[::2], parts[1::2], strict=True))), at
    raise Refused("a tag, a byte string, or a length beyond the header")


def samples(domain: list, values: np.ndarray) -> np.ndarray:
    """What normalised values of a picture stand for."""
    depth = domain[3]
    low, high = domain[4:] if depth == 32 else (0.0, 2.0**depth - 1)
    out = low + (np.clip(values.astype(np.float64), -1, 1) + 1) * ((high - low) / 2)
    return out.astype(np.float32) if depth == 32 else np.rint(out).astype(f"u{depth // 8}")


# ---------------------------------------------------------------- 3. parameter chunk

STEPS = (8388608, 9147842, 9975792, 10878679, 11863283, 12937002, 14107901, 15384775)
EIGHTHS = (1048576, 1143480, 1246974, 1359835, 1482910, 1617125, 1763488, 1923097)
TOTAL = 1 << 24
CLASSES = [1] * 8 + [1 << (octave - 2) for octave in range(3, 15) for _ in range(4)]
SHAPES = ((0, 1), (0, 2), (0, 5), (1, 0), (1, 1), (1, 2), (1, 5), (2, 4))
EXTENTS = [1, *(k << j for j in range(14) for k in (2, 3)), 32767]
WORD, MASK = 1 << 32, (1 << 64) - 1
DIAGONAL, STRAIGHT = ((-1, -1), (-1, 1), (1, -1), (1, 1)), ((-1, 0), (1, 0), (0, -1), (0, 1))


def classes_of(model: bytes) -> tuple[list[int], list[int]]:
    """Weights of the classes of models 1, 2 and 16 to 255, and their sizes."""
    if model[0] == 2:
        sizes = CLASSES[: len(model) - 2]
        shares = [EIGHTHS[b % 8] << b // 8 if b else 0 for b in model[2:]]
        return [2 * shares[0], *(s // n for s, n in zip(shares[1:], sizes[1:], strict=True))], sizes
    weights = []
    if model[0] == 1:
        _, p, d, largest = model
        t = 1 << 40
        for _ in range(largest):
            weights.append(max(t, 1))
            t = t * d // 256
        weights.insert(0, 2 * sum(weights) * (2 * p + 1) // (511 - 2 * p))
    else:
        (a, b), largest = SHAPES[(model[0] - 16) // 30], EXTENTS[(model[0] - 16) % 30]
        s = (EIGHTHS[model[1] % 8] << model[1] // 8) // (1 << 20)
        for k in range(largest + 1):
            x = min((k << 20) // s, 1 << 21)
            for _ in range(a):
                x = x * x // (1 << 12)
            w = (1 << 42) // ((1 << 12) + x)
            for _ in range(b):
                w = w * w // (1 << 30)
            weights.append(w)
    return weights, [1] * len(weights)


def table(model: bytes) -> list[int]:
    """Frequencies of the symbols -K ... K."""
    weights, sizes = classes_of(model)
    symbols = 2 * sum(sizes) - 1
    whole = weights[0] + 2 * sum(w * n for w, n in zip(weights[1:], sizes[1:], strict=True))
    if whole == 0:
        raise Refused("an empty model")
    half = []
    for w, n in zip(weights, sizes, strict=True):
        half += [1 + (TOTAL - symbols) * w // whole] * n
    out = half[:0:-1] + half
    top = out.index(max(out))
    out[top] += TOTAL - sum(out)
    excess = out[top] - (TOTAL - (1 << 16))
    if excess > 0:
        out[top] -= excess
        out[top + (1 if top <= symbols // 2 else -1)] += excess
    return out


class RangeDecoder:
    """The range decoder, state and all."""

    def __init__(self, coded: bytes) -> None:
        whole = len(coded) // 4 * 4
        words = [word for (word,) in struct.iter_unpack("<I", coded[:whole])]
        words.append(int.from_bytes(coded[whole:].ljust(4, b"\0"), "big"))
        self.words = itertools.chain(words, itertools.repeat(0))
        self.low, self.range = 0, MASK
        self.point = next(self.words) * WORD + next(self.words)

    def places(self, frequencies: list[int], count: int) -> list[int]:
        """Places in a table of the next symbols."""
        starts = [0, *itertools.accumulate(frequencies)]
        found = []
        for _ in range(count):
            s = self.range >> 24
            q = ((self.point - self.low) & MASK) // s
            if q >= TOTAL:
                raise Refused("words that no encoder writes")
            k = bisect.bisect_right(starts, q) - 1
            found.append(k)
            self.low = self.low + s * starts[k] & MASK
            self.range = s * frequencies[k]
            if self.range < WORD:
                self.low, self.range = self.low * WORD & MASK, self.range * WORD & MASK
                self.point = (self.point * WORD + next(self.words)) & MASK
        return found

    def symbols(self, model: bytes, count: int) -> list[int]:
        """The next symbols under a model."""
        if model[0] == 5:
            return self.interlaced(model, count)
        if model[0] == 4:
            upper = self.symbols(model[2:], count)
            lower = self.places([TOTAL >> model[1]] * (1 << model[1]), count)
            return [(h << model[1]) + low for h, low in zip(upper, lower, strict=True)]
        own = table(model)
        return [k - len(own) // 2 for k in self.places(own, count)]

    def interlaced(self, model: bytes, count: int) -> list[int]:
        """Symbols on a lattice, coarse to fine."""
        width, at = varint(model, 1)
        height, at, (d, s) = count // width, at + 2, model[at : at + 2]
        levels = model[at : at + 2 + model[at + 1]]
        changes = model[at + len(levels) :]
        found = [0] * count
        step = 1
        while 8 * step <= max(width, height):
            step *= 2

        def known(y: int, x: int, dy: int, dx: int) -> int:
            y = y + dy if 0 <= y + dy < height else y - dy
            x = x + dx if 0 <= x + dx < width else x - dx
            return abs(found[y * width + x]) if 0 <= y < height and 0 <= x < width else 0

        def take(points: list[tuple[int, int]], model: bytes) -> None:
            for (y, x), symbol in zip(points, self.symbols(model, len(points)), strict=True):
                found[y * width + x] = symbol

        take([(y, x) for y in range(0, height, step) for x in range(0, width, step)], levels)
        while step > 1:
            step //= 2
            for top, left in ((step, step), (step, 0), (0, step)):
                first, kinds = (0, d) if top == left else (d, s)
                groups, around = [[] for _ in range(kinds)], DIAGONAL if top == left else STRAIGHT
                ys, xs = range(top, height, 2 * step), range(left, width, 2 * step)
                for y, x in itertools.product(ys, xs):
                    m = sum(known(y, x, i * step, j * step) for i, j in around)
                    kind = max(1, m.bit_length() - 1) if m else 0
                    groups[min(kind, kinds - 1)].append((y, x))
                for kind, points in enumerate(groups, first):
                    u, v = changes[2 * kind : 2 * kind + 2]
                    moved = [
                        max(1, min(255, b + u - 128 + (v - 128) * c // 8)) if b and c else b
                        for c, b in enumerate(levels[2:])
                    ]
                    take(points, bytes([*levels[:2], *moved]))
        return found


def model_end(body: bytes, at: int, count: int) -> int:
    """The position behind a model."""
    kind, more = (*body[at : at + 2], 0, 0)[:2]
    if kind == 4:
        return model_end(body, at + 2, count)
    if kind == 5:
        at = varint(body, at + 1)[1]
        return model_end(body, at + 2, count) + 2 * sum(body[at : at + 2])
    if (kind == 2 and not 2 <= more <= 56) or (kind == 1 and body[at + 3] == 0) or 5 < kind < 16:
        raise Refused(f"entropy model {kind}")
    return at + (2 if kind >= 16 else (1, 4, 2 + more, 1 + 8 * count)[kind])


def rows_of(body: bytes) -> list[tuple[int, np.ndarray]]:
    """(step byte, symbols) of each row of a parameter chunk; of model 3 float64, the numbers."""
    count, at = varint(body, 0)
    plan = []
    for _ in range(count):
        size, at = varint(body, at)
        end = model_end(body, at + 1, size)
        if end > len(body):
            raise Refused("a model is cut short")
        plan.append((size, body[at], body[at + 1 : end]))
        at = end
    decoder = RangeDecoder(body[at:])
    rows = []
    for size, step, model in plan:
        if model[0] == 3:
            symbols = np.frombuffer(model[1:], "<f8")
        else:
            symbols = np.array(decoder.symbols(model, size) if model[0] else [0] * size, np.int32)
        rows.append((step, symbols))
    return rows


def numbers(step: int, symbols: np.ndarray) -> np.ndarray:
    """Parameters of a row."""
    octave, eighth = divmod(step - 192, 8)
    size = np.float32(math.ldexp(STEPS[eighth], octave - 23))
    return symbols if symbols.dtype == np.float64 else symbols.astype(np.float32) * size


# ------------------------------------------------------------------------- 4. fields

PRIMES = (1, 2654435761, 805459861, 3674653429, 2097192037, 1434869437, 2165219737, 1546526257)


class Parameters:
    """The rows of a file, handed out as tensors in their order."""

    def __init__(self, rows: list[np.ndarray]) -> None:
        self.rows = iter(rows)

    def take(self, *shape: int, per_channel: bool = False) -> np.ndarray:
        """The next tensor: one row, or one for each index of its first axis."""
        rows = [next(self.rows, np.zeros(0)) for _ in range(shape[0] if per_channel else 1)]
        each = math.prod(shape) // len(rows)
        if any(len(row) != each for row in rows):
            raise Refused("the rows do not make the field")
        return np.concatenate(rows).reshape(shape).astype(np.float32)


def siren(given: list, parameters: Parameters, axes: list[np.ndarray], channels: int) -> np.ndarray:
    """Values of shape (*lengths of axes, channels)."""
    n, layers, first_omega, hidden_omega = given[:4]
    omegas = hidden_omega if isinstance(hidden_omega, list) else [hidden_omega] * layers
    h = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    for omega in [first_omega, *omegas[:layers]]:
        weight, bias = parameters.take(n, h.shape[-1]), parameters.take(n)
        h = np.sin(h.dtype.type(omega) * (h @ weight.T + bias))
    return h @ parameters.take(channels, n).T + parameters.take(channels)


def grid(given: list, parameters: Parameters, axes: list[np.ndarray], channels: int) -> np.ndarray:
    """Values of shape (*lengths of axes, channels)."""
    resolution, levels, features, log2_table, m, depth = given
    finest = resolution if isinstance(resolution, list) else [resolution] * len(axes)
    f = features or channels
    weight, bias = parameters.take(channels, levels * f), parameters.take(channels)
    sizes = [levels * f, *([m] * depth), channels] if depth else []
    maps = [(parameters.take(o, i), parameters.take(o)) for i, o in itertools.pairwise(sizes)]
    z = []
    for k in range(levels):
        nodes = [-(-r // (1 << (levels - 1 - k))) for r in finest]
        hashed = math.prod(nodes) > 1 << log2_table
        count = 1 << log2_table if hashed else math.prod(nodes)
        z.append(interpolated(parameters.take(f, count, per_channel=True), nodes, hashed, axes))
    z = np.concatenate(z, -1)
    out = z @ weight.T + bias
    for i, (w, b) in enumerate(maps):
        z = z @ w.T + b
        z = np.maximum(z, 0) if i < depth else z
    return out + z if depth else out


def interpolated(entries: np.ndarray, nodes: list[int], hashed: bool, axes: list) -> np.ndarray:
    """A level's features on a lattice, shape (*lengths of axes, f)."""
    below, share = [], []
    for x, r in zip(axes, nodes, strict=True):
        u = np.clip((x + 1) * r / 2 - 0.5, 0, r - 1)
        below.append(np.floor(u).astype(np.int64))
        share.append(u - np.floor(u))
    total = 0
    for corner in itertools.product((0, 1), repeat=len(nodes)):
        index, weight = np.int64(0), np.ones((), axes[0].dtype)
        for i, (up, r) in enumerate(zip(corner, nodes, strict=True)):
            along = [-1 if j == i else 1 for j in range(len(nodes))]
            node = np.minimum(below[i] + up, r - 1).reshape(along)
            index = index ^ node * PRIMES[i] % WORD if hashed else index * r + node
            weight = weight * (share[i] if up else 1 - share[i]).reshape(along)
        total = total + entries[:, index % entries.shape[1]] * weight
    return np.moveaxis(total, 0, -1)


# --------------------------------------------------------------------------- whole


def integers(data: bytes) -> list[tuple[int, np.ndarray]]:
    """(step byte, symbols) of every row of a file, of any field and kind."""
    return [row for kind, body in container(data)[1] if kind == "P" for row in rows_of(body)]


def render(data: bytes, scale: float = 1) -> np.ndarray:
    """Samples of a picture (height, width, channels) at `scale` times its size."""
    (kind, domain, name, given, *_), _ = container(data)
    fields = {"siren": siren, "grid": grid}
    if kind != "image" or name not in fields or scale < 1:
        raise Refused(f"{kind!r} as {name!r} at {scale} times its size is not rendered here")
    parameters = Parameters([numbers(*row) for row in integers(data)])
    axes = []
    for length in domain[:2]:
        n = max(1, round(length * scale))
        axes.append(((2 * np.arange(n) + 1) / n - 1).astype(np.float32))
    given = [domain[:2] if value is None else value for value in given]
    values = fields[name](given, parameters, axes, domain[2])
    if next(parameters.rows, None) is not None:
        raise Refused("more rows than the field has")
    return samples(domain, values)


if __name__ == "__main__":
    source, target, *scale = sys.argv[1:]
    np.save(target, render(Path(source).read_bytes(), *map(float, scale)))
