"""Make the small signals of the studio that are our own: `python -m tests.make_examples`.

All are drawn by formulas, the same each time. `assets/camera.inr` is what
`inr compress assets/camera.png --bpp 0.5` made of the camera.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np

ASSETS = Path(__file__).parents[1] / "assets"


def bell() -> bytes:
    """A bell that is struck three times: partials of a church bell, each dying away, as FLAC."""
    import soundfile

    rate, seconds = 22050, 4.0
    t = np.arange(round(rate * seconds)) / rate
    # ratios to the prime, strengths, and seconds until a partial has 1/e of its strength
    partials = [
        (0.5, 0.5, 2.2), (1.0, 0.8, 1.4), (1.2, 0.7, 1.0), (1.5, 0.4, 0.8), (2.0, 1.0, 0.7),
        (2.5, 0.3, 0.4), (3.0, 0.3, 0.3), (4.2, 0.25, 0.2), (5.4, 0.15, 0.12), (6.8, 0.1, 0.08),
    ]  # fmt: skip
    sound = np.zeros_like(t)
    for begin, prime in ((0.1, 220.0), (1.3, 277.18), (2.5, 329.63)):
        since = np.clip(t - begin, 0, None)
        struck = 1 - np.exp(-since / 0.002)
        for ratio, strength, lasting in partials:
            sound += (
                strength
                * struck
                * np.exp(-since / lasting)
                * np.sin(2 * np.pi * prime * ratio * since)
            )
    fade = np.clip((seconds - t) / 0.3, 0, 1)
    samples = np.rint(sound * fade * (0.8 * 32767 / np.abs(sound).max())).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def knot() -> bytes:
    """A tube along a trefoil knot, closed, as a binary PLY."""
    around, along = 20, 120
    t = np.arange(along) * (2 * np.pi / along)
    line = np.stack(
        [np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -np.sin(3 * t)], -1
    )
    tangent = np.stack(
        [np.cos(t) + 4 * np.cos(2 * t), -np.sin(t) + 4 * np.sin(2 * t), -3 * np.cos(3 * t)], -1
    )
    # normal and binormal by the vertical: the tube's start and end meet without a twist
    side = np.cross(tangent, [0.0, 0.0, 1.0])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, tangent)
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    s = np.arange(around) * (2 * np.pi / around)
    radius = 0.45
    ring = np.cos(s)[None, :, None] * side[:, None] + np.sin(s)[None, :, None] * up[:, None]
    vertices = (line[:, None] + radius * ring).reshape(-1, 3).astype("<f4")
    i, j = (x.ravel() for x in np.meshgrid(np.arange(along), np.arange(around), indexing="ij"))
    a, b = i * around + j, i * around + (j + 1) % around
    c, d = ((i + 1) % along * around + k for k in (j, (j + 1) % around))
    faces = np.concatenate([np.stack([a, c, b], -1), np.stack([b, c, d], -1)])
    rows = np.zeros(len(faces), [("n", "u1"), ("v", "<i4", 3)])
    rows["n"], rows["v"] = 3, faces
    head = (
        "ply\nformat binary_little_endian 1.0\ncomment a trefoil knot\n"
        f"element vertex {len(vertices)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    return head.encode() + vertices.tobytes() + rows.tobytes()


def phantom() -> bytes:
    """A head of ellipsoids after Shepp and Logan, 2 mm voxels, uint8, as NIfTI."""
    import nibabel

    shape = (72, 88, 68)
    spacing = 2.0
    x, y, z = np.meshgrid(
        *(np.linspace(-1, 1, n) * n / 88 for n in shape), indexing="ij", sparse=True
    )
    # brightness that is added, half axes, centre, degrees about z
    ellipsoids = [
        (200, (0.69, 0.92, 0.72), (0, 0, 0), 0),
        (-120, (0.6624, 0.874, 0.67), (0, -0.0184, 0), 0),
        (-50, (0.11, 0.31, 0.22), (0.22, 0, 0), -18),
        (-50, (0.16, 0.41, 0.28), (-0.22, 0, 0), 18),
        (60, (0.21, 0.25, 0.41), (0, 0.35, -0.15), 0),
        (90, (0.06, 0.06, 0.06), (0, 0.1, 0.25), 0),
        (90, (0.046, 0.023, 0.05), (-0.08, -0.605, 0), 0),
        (90, (0.046, 0.046, 0.05), (0.06, -0.605, 0.1), 90),
    ]
    voxels = np.zeros(shape)
    for value, axes, centre, degrees in ellipsoids:
        turn = np.deg2rad(degrees)
        u, v, w = x - centre[0], y - centre[1], z - centre[2]
        p, q = np.cos(turn) * u + np.sin(turn) * v, np.cos(turn) * v - np.sin(turn) * u
        away = np.sqrt((p / axes[0]) ** 2 + (q / axes[1]) ** 2 + (w / axes[2]) ** 2)
        # an edge as wide as a voxel, as a scanner has it
        voxels += value / (1 + np.exp((away - 1) * min(axes) * 88))
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = [-spacing * (n - 1) / 2 for n in shape]
    image = nibabel.Nifti1Image(np.rint(voxels.clip(0, 255)).astype(np.uint8), affine)
    return gzip.compress(image.to_bytes(), 9, mtime=0)


def clip() -> bytes:
    """A ball that bounces before a turning square, 32 frames of 96 x 64 pixels, as `.npz`."""
    frames, height, width = 32, 64, 96
    y, x = np.mgrid[:height, :width] + 0.5
    shown = []
    for k in range(frames):
        phase = 2 * np.pi * k / frames
        sky = np.stack([60 + y, 90 + y, 200 - y], -1)
        u = (x - 66) * np.cos(phase / 4) + (y - 26) * np.sin(phase / 4)
        v = (y - 26) * np.cos(phase / 4) - (x - 66) * np.sin(phase / 4)
        sky = blend(sky, 14 - np.maximum(np.abs(u), np.abs(v)), (40, 160, 90))
        cx, cy = 30 - 16 * np.cos(phase), 52 - 40 * np.abs(np.sin(phase))
        sky = blend(sky, 9 - np.hypot(x - cx, y - cy), (240, 190, 40))
        shown.append(np.rint(sky).clip(0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, frames=np.stack(shown), fps=16.0)
    return buffer.getvalue()


def blend(picture: np.ndarray, depth: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """A picture with a shape on it, given how far inside each pixel is."""
    cover = np.clip(depth + 0.5, 0, 1)[..., None]
    return (1 - cover) * picture + cover * np.array(colour)


def waves() -> bytes:
    """Two waves that meet behind two slits: a plane of float32 numbers, as `.npz`."""
    y, x = np.mgrid[:128, :160] / 64
    total = sum(
        np.cos(2 * np.pi * 6 * away) / np.sqrt(0.2 + away)
        for away in (np.hypot(x + 0.1, y - 0.65), np.hypot(x + 0.1, y - 1.35))
    )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, waves=total.astype(np.float32))
    return buffer.getvalue()


MADE = {
    "bell.flac": bell,
    "knot.ply": knot,
    "phantom.nii.gz": phantom,
    "ball.npz": clip,
    "waves.npz": waves,
}

if __name__ == "__main__":
    for name, make in MADE.items():
        data = make()
        (ASSETS / name).write_bytes(data)
        print(f"{name}: {len(data):,} bytes")
