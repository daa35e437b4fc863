"""Inverse problems: the presets, the papers' settings, and scikit-image's classical methods.

Each picture is degraded, and brought back by each contender from the same observations: denoising
(30 photons, read noise 2), a tenth of the pixels, means over 4 x 4 pixels, 100 projections of the
Shepp-Logan phantom, and the gradient and Laplacian of the camera. PSNR is that of the 8-bit decode,
last iterate, no oracle; "best" is the highest along the way, which only an oracle knows.

    python benchmarks/operators.py [--only denoise] [--size 128] [--paper-steps 400]

The papers' schedules run over `--paper-steps` steps, of the thousands that they have; 0 leaves them
out. Pictures are read from $INR_SHARED, ../shared if unset; squares from their middle, averaged.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from common import ROOT, machine, table

import inr
from inr import presets
from inr.metrics import psnr_arrays
from inr.operators import OPERATORS, create
from inr.signals.image import Image
from inr.signals.observed import Observed

PICTURES = ("image_misc/camera.png", "kodak/kodim03.png", "kodak/kodim05.png")
OFFICIAL: dict[str, dict[str, Any]] = {
    "denoise": {"tv": 0.0},
    "inpaint": {"tv": 0.0},
    "superresolve": {"tv": 0.0},
    "ct": {"tv": 0.0, "endpoint": True},
    "gradient": {"derivative": "exact", "levels": 1},
    "laplacian": {"derivative": "exact", "levels": 1},
}
"""Options of an operator with which its paper's preset goes."""

Contender = Callable[[Observed], Iterator[tuple[str, np.ndarray]]]


class Best(pl.Callback):
    """The highest PSNR against the truth between bursts, looked at every `EVERY` steps."""

    EVERY = 10

    def __init__(self) -> None:
        self.psnr = 0.0
        self._next = 0

    def on_train_batch_end(self, trainer: Any, module: Any, *rest: Any) -> None:
        """Look, and let the fit go on as it would."""
        if module.fit_step >= self._next:
            self._next = module.fit_step + self.EVERY
            self.psnr = max(self.psnr, module.signal.metrics(module.field)["psnr_truth"])


def picture(path: Path, size: int) -> Image:
    """A square from the middle of a picture, averaged to about the size."""
    samples = inr.open(path).samples
    side = min(samples.shape[:2])
    top, left = ((n - side) // 2 for n in samples.shape[:2])
    step = side // size
    square = samples[top : top + step * size, left : left + step * size].astype(np.float64)
    return Image.from_array(
        np.rint(square.reshape(size, step, size, step, -1).mean((1, 3))).astype(np.uint8)
    )


def phantom(size: int) -> Image:
    """Shepp and Logan's phantom, 8 bits."""
    from skimage.data import shepp_logan_phantom
    from skimage.transform import resize

    made = resize(shepp_logan_phantom(), (size, size), anti_aliasing=True)
    return Image.from_array(np.rint(255 * made.clip(0, 1)).astype(np.uint8))


def light(signal: Any) -> np.ndarray:
    """Values in [0, 1], float64; noise may leave it."""
    return (signal.values.numpy().astype(np.float64) + 1) / 2


def denoisers(signal: Observed) -> Iterator[tuple[str, np.ndarray]]:
    """Chambolle's total variation, and non-local means: the setting that is best for the truth."""
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

    noisy, truth = light(signal.source), light(signal.truth)
    noise = float((noisy - truth).std())

    def best(tried: list[np.ndarray]) -> np.ndarray:
        return min(tried, key=lambda x: np.square(x.clip(0, 1) - truth).mean())

    weights = np.geomspace(0.02, 0.6, 30)
    tried = [denoise_tv_chambolle(noisy, weight=w, channel_axis=-1) for w in weights]
    yield "TV, best of 30 weights", best(tried)
    flat, axis = (noisy[..., 0], None) if noisy.shape[-1] == 1 else (noisy, -1)
    options: dict[str, Any] = {"patch_size": 5, "patch_distance": 6, "fast_mode": False}
    tried = [
        denoise_nl_means(flat, h=h * noise, sigma=noise, channel_axis=axis, **options)
        for h in np.linspace(0.4, 1.4, 6)
    ]
    yield "non-local means, best of 6", best([x.reshape(noisy.shape) for x in tried])


def interpolation(signal: Observed) -> Iterator[tuple[str, np.ndarray]]:
    """The biharmonic equation, and Delaunay triangles with linear and cubic patches."""
    from scipy.interpolate import griddata
    from skimage.restoration import inpaint_biharmonic

    assert signal.known is not None
    known = signal.known.numpy()
    seen = light(signal.source) * known[..., None]
    yield "biharmonic", inpaint_biharmonic(seen, ~known, channel_axis=-1)
    places, everywhere = np.argwhere(known), np.indices(known.shape).reshape(2, -1).T
    nearest = griddata(places, seen[known], everywhere, method="nearest")
    for method in ("linear", "cubic"):
        filled = griddata(places, seen[known], everywhere, method=method)
        yield f"griddata, {method}", np.where(np.isnan(filled), nearest, filled).reshape(seen.shape)


def bicubic(signal: Observed) -> Iterator[tuple[str, np.ndarray]]:
    """scikit-image's resize of order 3."""
    from skimage.transform import resize

    shape = (*signal.domain.shape, signal.channels)
    yield "bicubic", resize(light(signal.source), shape, order=3, mode="edge", clip=False)


def back_projection(signal: Observed) -> Iterator[tuple[str, np.ndarray]]:
    """scikit-image's iradon with the ramp filter."""
    from skimage.transform import iradon

    operator: Any = signal.operator
    sinogram = signal.source.samples[..., 0].astype(np.float64)
    angles = operator.degrees(sinogram.shape[1]).numpy()
    yield "filtered back-projection", iradon(sinogram, angles)[..., None] / 255


def nothing(signal: Observed) -> Iterator[tuple[str, np.ndarray]]:
    """No classical contender."""
    yield from ()


BASELINES: dict[str, Contender] = {
    "denoise": denoisers,
    "inpaint": interpolation,
    "superresolve": bicubic,
    "ct": back_projection,
    "gradient": nothing,
    "laplacian": nothing,
}


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM as scikit-image has it by default, on 8-bit samples."""
    from skimage.metrics import structural_similarity

    return float(structural_similarity(a, b, channel_axis=-1, data_range=255))


def run(task: str, name: str, clean: Image, paper_steps: int, out: Path | None) -> list[str]:
    """One task on one picture; returns its verdict, if there is a baseline."""
    options = {"keep": 0.1} if task == "inpaint" else {}
    signal = Observed.simulated(clean, create(task, **options))
    rows: list[list[str]] = []
    reached: dict[str, float] = {}

    def finished(label: str, samples: np.ndarray, *cells: str) -> None:
        reached[label] = psnr_arrays(samples, clean.samples, 255.0)
        ssim = f"{similarity(samples, clean.samples):.3f}"
        rows.append([label, f"{reached[label]:.2f} dB", ssim, *(cells or ("", "", ""))])
        print("  ".join(rows[-1]), flush=True)
        if out is not None:
            made = Image.from_array(samples)
            from inr.signals.image import write_image

            write_image(out / f"{task}-{name}-{len(rows)}.png", samples, made.domain)

    begin = time.perf_counter()
    for label, values in BASELINES[task](signal):
        finished(label, np.rint(255 * values.clip(0, 1)).astype(np.uint8), "", "", "")
    if rows:
        print(f"baselines in {time.perf_counter() - begin:.1f} s", flush=True)
    classical = max(reached.values(), default=30.0)

    def fitted(label: str, seen: Observed, preset: str, steps: int | None) -> None:
        best = Best()
        fit = inr.fit(seen, presets.load(preset), steps=steps, callbacks=[best], device="cpu")
        cells = (f"{max(best.psnr, fit.metrics['psnr_truth']):.2f} dB", str(fit.steps))
        finished(label, inr.render(fit.field), *cells, f"{fit.seconds:.0f} s")

    fitted("ours", signal, f"image/{task}", None)
    if paper_steps:
        theirs = Observed.simulated(clean, create(task, **(options | OFFICIAL[task])))
        fitted("the paper's", theirs, f"image/{task}-official", paper_steps)
    head = [f"{task}, {name}", "PSNR", "SSIM", "best", "steps", "time"]
    print("\n" + table(head, rows) + "\n", flush=True)
    ahead = reached["ours"] - classical
    what = "the best classical method" if BASELINES[task] is not nothing else "30 dB"
    return [f"{task}, {name}: {ahead:+.2f} dB against {what}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=tuple(OPERATORS), nargs="+", default=list(OPERATORS))
    parser.add_argument("--pictures", nargs="+", default=list(PICTURES))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--paper-steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder for the pictures")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    print(machine(), flush=True)
    data = Path(os.environ.get("INR_SHARED", ROOT.parent / "shared")) / "data"
    verdicts = []
    for task in args.only:
        if task == "ct":
            verdicts += run(task, "phantom", phantom(args.size), args.paper_steps, args.out)
            continue
        one = task in ("gradient", "laplacian")
        for path in args.pictures[:1] if one else args.pictures:
            clean = picture(data / path, args.size)
            verdicts += run(task, Path(path).stem, clean, args.paper_steps, args.out)
    print("\n".join(verdicts))


if __name__ == "__main__":
    main()
