"""How fields bear few bits, other seeds and damage: the questions of Streaming Neural Images.

M. Conde et al. (ICIP 2024, arXiv:2409.17134) hold that fields are costly, unstable and fragile.
There is no code of theirs; this asks the same, under settings of our own, on photographs of Kodak:

1. rate: SIREN of several widths and depths as fp32, fp16, int8, int4 and whole `.inr` files, beside
   JPEG and JPEG 2000 of the same picture at half its sides;
2. stability: a sweep of the learning rate, and ten seeds at its best one, for every field;
3. damage: noise on the weights, weights that are zero, flipped bits in raw fp16 and int8, a packet
   lost from a layer, and flipped bits in `.inr` files, for every field.

Fields of 2 and 3 store about as many numbers each and see pictures at a quarter of their sides. All
fits are Adam on random sub-lattices, the rate falling along half a cosine to a hundredth.

    python benchmarks/robustness.py FOLDER OUT [--quick] [--parts rate stability damage]

adds to the sheets in OUT what they do not hold yet, draws the curves and prints the tables.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from common import machine, table
from damage import (
    BITS,
    Judge,
    Row,
    State,
    bits_flipped,
    blind_flips,
    count,
    layers_of,
    noisy,
    packet_lost,
    refusals,
    state_of,
    zeroed,
)
from matplotlib.figure import Figure

import inr
from apps.bench.contestants import BY_NAME, Contestant
from apps.bench.signals import averaged
from fields.base import Field
from inr.codec.decode import decode
from inr.codec.encode import encode
from inr.errors import FitError
from inr.files import write_bytes
from inr.fitting.fit import Fit
from inr.metrics import bits_per_pixel, psnr_arrays
from inr.presets import Preset, Recipe
from inr.signals import open_signal
from inr.signals.image import Image

FIELDS = ("siren", "finer", "wire", "relu-pe", "rff", "grid", "doh", "finr")
FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""On the authors' learning rate."""

BATCH = 2048
WIDTH_LR = 0.064
"""Learning rate times width of the networks of the first part: at 2e-3 some of 128 collapse."""

LEVELS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Of noise, relative to each tensor's standard deviation, and parts of weights that are zero."""

ERROR_RATES = (1e-5, 1e-4, 1e-3, 1e-2)
LAYER_NOISE = 0.03
PACKET_BYTES = 1024
JPEG = (2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95)
JPEG_2000 = (200, 100, 60, 40, 30, 20, 15, 10, 7, 5, 3, 2)
"""Qualities of JPEG; how many times smaller than the samples a JPEG 2000 file shall be."""


@dataclass(frozen=True)
class Settings:
    """How much of it is done."""

    pictures: tuple[str, ...] = ("kodim03", "kodim05")
    fields: tuple[str, ...] = FIELDS
    widths: tuple[int, ...] = (32, 64, 128)
    depths: tuple[int, ...] = (2, 3, 4)
    scalars: int = 3072
    steps: int = 600
    trial_steps: int = 200
    seeds: int = 10
    draws: int = 10


QUICK = Settings(("kodim03",), ("siren", "grid"), (32,), (2, 3), 1024, 60, 40, 3, 3)


def picture(folder: Path, name: str, factor: int) -> Image:
    """A picture averaged down by a whole factor."""
    image = open_signal(folder / f"{name}.png")
    assert isinstance(image, Image)
    return averaged(image, factor)


def fit_like(
    who: Contestant, image: Image, factor: float, steps: int, seed: int, scalars: int
) -> Fit:
    """A fit of a contestant of so many numbers at a factor on its authors' learning rate."""
    options = who.sized("image", image, scalars)
    return fitted(image, who.field, options, factor * who.lr_for("image"), steps, seed)


def fitted(image: Image, name: str, options: Row, lr: float, steps: int, seed: int = 0) -> Fit:
    """A fit under the recipe that all have."""
    recipe = Recipe(lr=lr, schedule="cosine", final_lr=0.01, batch=BATCH, steps=steps)
    return inr.fit(image, Preset(name, options, recipe), seed=seed, device="cpu")


def storages(field: Field, image: Image) -> Iterator[Row]:
    """PSNR and size of a field's raw numbers, by their type; scales are not counted."""
    judge = Judge(field, image)
    numbers = count(judge.clean)
    for storage, bits in BITS.items():
        found = judge.psnr(bits_flipped(judge.clean, np.random.default_rng(0), 0.0, storage))
        size = math.ceil(bits * numbers / 8)
        yield {"storage": storage, "numbers": numbers, "bytes": size, "psnr": round(found, 3)}


def codecs(image: Image) -> Iterator[Row]:
    """JPEG (4:2:0, its tables optimised) and JPEG 2000 (irreversible, bare codestream)."""
    for quality in JPEG:
        yield _coded(image, "JPEG", str(quality), format="JPEG", quality=quality, optimize=True)
    for times in JPEG_2000:
        given = {"quality_mode": "rates", "quality_layers": [times]}
        yield _coded(
            image, "JPEG 2000", f"1:{times}", format="JPEG2000", irreversible=True, **given
        )


def _coded(image: Image, name: str, setting: str, **options: Any) -> Row:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image.samples).save(buffer, no_jp2=True, **options)
    back = np.asarray(PIL.Image.open(buffer))
    found = psnr_arrays(back, image.samples, 255.0)
    return {
        "network": setting, "storage": name, "bytes": len(buffer.getvalue()),
        "psnr": round(found, 3),
    }  # fmt: skip


def rate(folder: Path, s: Settings, sheet: Sheet) -> None:
    """Part 1: SIREN by width and depth, and the codecs, at half the sides."""
    for name in s.pictures:
        image = picture(folder, name, 2)
        pixels = math.prod(image.domain.shape)
        jobs: dict[str, Callable[[], Iterable[Row]]] = {"codecs": partial(codecs, image)}
        for width in s.widths:
            for depth in s.depths:
                jobs[f"{width}x{depth}"] = partial(_network, image, width, depth, s.steps)
        for job, run in jobs.items():
            if not sheet.holds(picture=name, job=job):
                rows: list[Row] = [
                    {"picture": name, "job": job, "network": job} | row for row in run()
                ]
                for row in rows:
                    row["bpp"] = round(bits_per_pixel(row["bytes"], pixels), 4)
                sheet.add(rows)


def _network(image: Image, width: int, depth: int, steps: int) -> Iterator[Row]:
    options = {"hidden_features": width, "hidden_layers": depth}
    begin = time.perf_counter()
    done = fitted(image, "siren", options, WIDTH_LR / width, steps)
    seconds = round(time.perf_counter() - begin, 1)
    weights = sum(v.size for v in state_of(done.field).values() if v.ndim > 1)
    rows = [*storages(done.field, image), _file(done.field, image, encode(done.field, image))]
    for row in rows:
        yield row | {"mac_per_pixel": weights, "seconds": seconds}


def _file(field: Field, image: Image, data: bytes) -> Row:
    numbers = count(state_of(field))
    found = image.metrics(decode(data))["psnr"]
    return {"storage": ".inr", "numbers": numbers, "bytes": len(data), "psnr": round(found, 3)}


def stability(folder: Path, s: Settings, sheet: Sheet) -> None:
    """Part 2: learning rates with one seed, then seeds at the best, on the first picture."""
    image = picture(folder, s.pictures[0], 4)
    for name in s.fields:
        for factor in FACTORS:
            _try(image, name, factor, 0, s, sheet)
        for seed in range(1, s.seeds):
            _try(image, name, best_factor(sheet.rows, name), seed, s, sheet)


def _try(image: Image, name: str, factor: float, seed: int, s: Settings, sheet: Sheet) -> None:
    """One short fit, unless the sheet has it; -inf dB where it diverged in spite of the guard."""
    if sheet.holds(field=name, factor=factor, seed=seed):
        return
    row = {"field": name, "factor": factor, "lr": factor * BY_NAME[name].lr_for("image")}
    try:
        done = fit_like(BY_NAME[name], image, factor, s.trial_steps, seed, s.scalars)
    except FitError:
        sheet.add([row | {"seed": seed, "psnr": -math.inf}])
        return
    found = {"numbers": count(state_of(done.field)), "psnr": round(done.metrics["psnr"], 3)}
    sheet.add([row | {"seed": seed} | found])


def best_factor(rows: list[Row], field: str) -> float:
    """The best learning rate of a field's sweep, as a factor on its authors'."""
    sweep = [r for r in rows if r["field"] == field and r["seed"] == 0]
    return max(sweep, key=lambda r: r["psnr"])["factor"]


def damage(folder: Path, s: Settings, tried: list[Row], sheet: Sheet, files: Sheet) -> None:
    """Part 3: what is done to a fit of every field, and to its file."""
    for name in s.pictures:
        image = picture(folder, name, 4)
        pixels = math.prod(image.domain.shape)
        for field in s.fields:
            if sheet.holds(picture=name, field=field):
                continue
            factor = best_factor(tried, field)
            done = fit_like(BY_NAME[field], image, factor, s.steps, 0, s.scalars)
            data = encode(done.field, image)
            about = {"picture": name, "field": field}
            stored = [*storages(done.field, image), _file(done.field, image, data)]
            flips = refusals(data) | blind_flips(data, image)
            for row in stored:
                row["bpp"] = round(bits_per_pixel(row["bytes"], pixels), 3)
            stored[-1] |= flips
            if not files.holds(**about):  # a run may have ended between the two sheets
                files.add([about | row for row in stored])
            judge = Judge(done.field, image, s.draws)
            clean = {"clean": round(judge.psnr(judge.clean), 3)}
            sheet.add([about | clean | row for row in damages(judge)])


def damages(judge: Judge) -> Iterator[Row]:
    """Every damage to a field at every level."""
    clean = judge.clean
    whole: dict[str, tuple[Callable[[np.random.Generator, float], State], tuple[float, ...]]] = {
        "noise": (lambda rng, x: noisy(clean, rng, x), LEVELS),
        "zero": (lambda rng, x: zeroed(clean, rng, x), LEVELS),
        "flips, fp16": (lambda rng, x: bits_flipped(clean, rng, x, "fp16"), ERROR_RATES),
        "flips, int8": (lambda rng, x: bits_flipped(clean, rng, x, "int8"), ERROR_RATES),
    }
    for kind, (change, levels) in whole.items():
        for level in levels:
            yield {"kind": kind, "part": "", "level": level} | judge.drops(change, level).row
    for part, names in layers_of(clean).items():
        numbers = sum(clean[name].size for name in names)
        alone = judge.drops(partial(_noise_on, clean, names), LAYER_NOISE).row
        yield {"kind": "noise", "part": part, "level": LAYER_NOISE, "numbers": numbers} | alone
        lost = judge.drops(partial(_loss_from, clean, names), PACKET_BYTES).row
        yield {"kind": "packet", "part": part, "level": PACKET_BYTES, "numbers": numbers} | lost


def _noise_on(state: State, names: list[str], rng: np.random.Generator, rho: float) -> State:
    return noisy(state, rng, rho, names)


def _loss_from(state: State, names: list[str], rng: np.random.Generator, size: float) -> State:
    return packet_lost(state, rng, names, int(size) // 2)  # numbers of two bytes


class Sheet:
    """Rows of a CSV file, written anew after each addition.

    Args:
        path: The file; what it holds is read.
        columns: Their names.
    """

    def __init__(self, path: Path, columns: str) -> None:
        self.path = path
        self.columns = columns.split()
        self.rows: list[Row] = []
        if path.exists():
            with path.open(newline="") as file:
                self.rows = [{k: _cell(v) for k, v in r.items()} for r in csv.DictReader(file)]

    def holds(self, **cells: Any) -> bool:
        """Whether there is a row with these cells."""
        return any(all(row[k] == v for k, v in cells.items()) for row in self.rows)

    def add(self, rows: list[Row]) -> None:
        """Append rows, and show them."""
        for row in rows:
            self.rows.append({column: row.get(column, "") for column in self.columns})
            print(*(f"{k}={v}" for k, v in row.items()), flush=True)
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_bytes(self.path, text.getvalue().encode(), overwrite=True)


def _cell(text: str) -> str | float:
    try:
        return float(text) if "." in text or "e-" in text or "inf" in text else int(text)
    except ValueError:
        return text


def at_rate(rows: list[Row], bpp: float) -> str:
    """PSNR of a codec at a rate, linear in the logarithm of the rate; - beyond its settings."""
    curve = sorted((math.log(r["bpp"]), r["psnr"]) for r in rows)
    x = math.log(bpp)
    if not curve or not curve[0][0] <= x <= curve[-1][0]:
        return "-"
    return f"{np.interp(x, *zip(*curve, strict=True)):.2f}"


def tolerance(rows: list[Row], drop: float = 1.0) -> str:
    """The level at which a damage costs so many dB on average, on a log scale between levels."""
    curve = sorted((r["level"], max(r["mean_drop"], 1e-4)) for r in rows)
    if curve[0][1] >= drop:
        return f"< {curve[0][0]:.0e}"
    for (a, low), (b, high) in itertools.pairwise(curve):
        if high >= drop:
            part = math.log(drop / low) / math.log(high / low)
            return f"{a * (b / a) ** part:.1e}"
    return f"> {curve[-1][0]:.0e}"


def not_monotone(rows: list[Row]) -> list[str]:
    """Where more of a damage costs less on average."""
    found = []
    kinds = dict.fromkeys((r["picture"], r["field"], r["kind"]) for r in rows if not r["part"])
    for key in kinds:
        own = [r for r in rows if (r["picture"], r["field"], r["kind"], r["part"]) == (*key, "")]
        own.sort(key=lambda r: r["level"])
        for a, b in itertools.pairwise(own):
            if b["mean_drop"] < a["mean_drop"]:
                change = f"{a['mean_drop']:.4f} to {b['mean_drop']:.4f} dB"
                found.append(f"{', '.join(key)}: {a['level']:g} to {b['level']:g}, {change}")
    return found


def report_rate(rows: list[Row]) -> None:
    for name in dict.fromkeys(r["picture"] for r in rows):
        own = [r for r in rows if r["picture"] == name]
        lines = []
        for network in dict.fromkeys(r["network"] for r in own if r["job"] != "codecs"):
            by = {r["storage"]: r for r in own if r["network"] == network}
            cells = [f"{by[x]['bpp']:.2f}: {by[x]['psnr']:.2f}" for x in (*BITS, ".inr")]
            others = [
                at_rate([r for r in own if r["storage"] == codec], by[".inr"]["bpp"])
                for codec in ("JPEG", "JPEG 2000")
            ]
            first = by[".inr"]
            lines.append([network, first["numbers"], first["mac_per_pixel"], *cells, *others])
        head = ["width x depth", "numbers", "MAC per pixel", *BITS, ".inr", "JPEG", "JPEG 2000"]
        print(f"\n{name}: bits per pixel: PSNR, dB\n\n{table(head, lines)}")


def report_stability(rows: list[Row]) -> None:
    lines = []
    for field in dict.fromkeys(r["field"] for r in rows):
        own = [r for r in rows if r["field"] == field]
        best = best_factor(rows, field)
        sweep = [r for r in own if r["seed"] == 0]
        sweep.sort(key=lambda r: r["factor"])
        cells = [f"{r['psnr']:.2f}" if r["psnr"] > -math.inf else "diverged" for r in sweep]
        all_seeds = [r["psnr"] for r in own if r["factor"] == best]
        found = [x for x in all_seeds if x > -math.inf]
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        numbers = [statistics.fmean(found), spread, min(found), max(found)]
        shown = [f"{x:.2f}" for x in numbers]
        lost = len(all_seeds) - len(found)
        lines.append([field, own[0]["numbers"], *cells, f"{best:g}", *shown, lost])
    factors = [f"lr x{factor:g}" for factor in FACTORS]
    head = ["field", "numbers", *factors, "best", "mean", "std", "min", "max", "diverged"]
    print(f"\nPSNR by learning rate, then of the seeds at the best\n\n{table(head, lines)}")


def report_damage(rows: list[Row], files: list[Row]) -> None:
    fields = list(dict.fromkeys(r["field"] for r in rows))
    kinds = list(dict.fromkeys(r["kind"] for r in rows if not r["part"]))
    for name in dict.fromkeys(r["picture"] for r in rows):
        own = [r for r in rows if r["picture"] == name]
        lines, layers = [], []
        for field in fields:
            mine = [r for r in own if r["field"] == field]
            whole = {k: [r for r in mine if r["kind"] == k and not r["part"]] for k in kinds}
            (one,) = (r for r in whole["noise"] if r["level"] == 1e-2)
            shown = f"{one['mean_drop']:.2f} ({one['worst_drop']:.2f})"
            levels = [tolerance(whole[kind]) for kind in kinds]
            lines.append([field, f"{mine[0]['clean']:.2f}", shown, f"{one['moved']:.1f}", *levels])
            for part in dict.fromkeys(r["part"] for r in mine if r["part"]):
                by = {r["kind"]: r for r in mine if r["part"] == part}
                cells = [
                    f"{by[k]['mean_drop']:.2f} ({by[k]['worst_drop']:.2f})"
                    for k in ("noise", "packet")
                ]
                layers.append([field, part, by["noise"]["numbers"], *cells])
        head = ["field", "clean, dB", "noise of 1e-2: mean (worst) drop", "PSNR to its own clean"]
        print(f"\n{name}\n\n{table([*head, *(f'1 dB lost: {k}' for k in kinds)], lines)}")
        head = ["field", "part", "numbers", f"noise of {LAYER_NOISE}", f"{PACKET_BYTES} bytes lost"]
        print(f"\n{table(head, layers)}")
        lines = []
        for field in fields:
            by = {r["storage"]: r for r in files if (r["picture"], r["field"]) == (name, field)}
            file = by[".inr"]
            cells = [f"{by[x]['psnr']:.2f}" for x in BITS]
            shown = f"{file['bytes']} ({file['bpp']:.2f}): {file['psnr']:.2f}"
            blind = [f"{file['blind_decoded']} of {file['blind']}"]
            blind += [str(file["blind_median"]), str(file["blind_worst"])]
            refused = f"{file['refused']} of {file['flips']}"
            lines.append([field, file["numbers"], *cells, shown, refused, *blind])
        head = ["field", "numbers", *BITS, ".inr: bytes (bpp): dB", "flips refused"]
        head += ["without checksums: decode", "median drop", "worst"]
        print(f"\n{table(head, lines)}")
    print("\nmore damage, less loss on average:", *(not_monotone(rows) or ["nowhere"]), sep="\n- ")


def draw_rate(rows: list[Row], path: Path) -> None:
    """PSNR over bits per pixel, one panel a picture."""
    names = list(dict.fromkeys(r["picture"] for r in rows))
    figure = Figure(figsize=(6 * len(names), 4.5), layout="constrained")
    for name, panel in zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True):
        for storage in ("JPEG", "JPEG 2000", *BITS, ".inr"):
            own = [r for r in rows if r["picture"] == name and r["storage"] == storage]
            own.sort(key=lambda r: r["bpp"])
            style = "-" if storage.startswith("JPEG") else "o"
            points = [(r["bpp"], r["psnr"]) for r in own]
            panel.plot(*zip(*points, strict=True), style, label=storage, ms=4)
        panel.set(xscale="log", xlabel="bits per pixel", ylabel="PSNR, dB", title=name)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.savefig(path, dpi=100)


def draw_damage(rows: list[Row], path: Path) -> None:
    """Mean drop over the level of a damage, mean of the pictures; 0.001 dB and less as 0.001."""
    kinds = list(dict.fromkeys(r["kind"] for r in rows if not r["part"]))
    figure = Figure(figsize=(14, 8), layout="constrained")
    for kind, panel in zip(kinds, figure.subplots(2, 2).flat, strict=True):
        for field in dict.fromkeys(r["field"] for r in rows):
            levels: dict[float, list[float]] = {}
            for r in rows:
                if (r["kind"], r["part"], r["field"]) == (kind, "", field):
                    levels.setdefault(r["level"], []).append(max(r["mean_drop"], 1e-3))
            means = [statistics.fmean(drops) for drops in levels.values()]
            panel.plot([*levels], means, "-o", ms=3, label=field)
        told = {"noise": "standard deviation, of the tensor's", "zero": "part of the numbers"}
        axis = told.get(kind, "part of the bits")
        panel.set(xscale="log", yscale="log", title=kind, xlabel=axis, ylabel="mean drop, dB")
        panel.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=90)


def run(folder: Path, out: Path, s: Settings, parts: list[str]) -> None:
    """Do what the sheets lack, then tell and draw all that they hold."""
    out.mkdir(parents=True, exist_ok=True)
    note = out / "settings.json"
    mine = json.dumps(dataclasses.asdict(s), indent=1) + "\n"
    if note.exists() and note.read_text() != mine:
        raise SystemExit(f"{out}: holds figures of other settings; choose another folder")
    note.write_text(mine)

    rates = Sheet(
        out / "rate.csv",
        "picture job network storage numbers mac_per_pixel bytes bpp psnr seconds",
    )
    tried = Sheet(out / "stability.csv", "field numbers factor lr seed psnr")
    damaged = Sheet(
        out / "damage.csv",
        "picture field clean kind part numbers level draws mean_drop worst_drop moved",
    )
    files = Sheet(
        out / "storage.csv",
        "picture field storage numbers bytes bpp psnr flips refused blind blind_decoded "
        "blind_median blind_worst",
    )
    if "rate" in parts:
        rate(folder, s, rates)
    if {"stability", "damage"} & {*parts}:
        stability(folder, s, tried)
    if "damage" in parts:
        damage(folder, s, tried.rows, damaged, files)
    if rates.rows:
        report_rate(rates.rows)
        draw_rate(rates.rows, out / "rate.png")
    if tried.rows:
        report_stability(tried.rows)
    if damaged.rows:
        report_damage(damaged.rows, files.rows)
        draw_damage(damaged.rows, out / "damage.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="Kodak's pictures, 768 x 512")
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true", help="two fields, a minute")
    parts = ["rate", "stability", "damage"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    run(args.folder, args.out, QUICK if args.quick else Settings(), args.parts)


if __name__ == "__main__":
    main()
