"""What a shoot-out leaves: a table, a CSV, curves and spectra."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.bench.contestants import BY_NAME
from apps.bench.shootout import BINS, Run, Settings, quality, radial_power
from inr.files import atomic_path, write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("source", "contestant", "lr", "seed", "scalars", "psnr", "best", "iou", "seconds")


class Row:
    """A contestant on a signal: its runs at the best learning rate."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.lr = max((r for r in runs if r.seed == 0), key=quality).lr
        self.runs = [r for r in runs if r.lr == self.lr]
        self.name = runs[0].contestant
        values = [quality(r) for r in self.runs]
        self.mean = statistics.fmean(values)
        self.spread = statistics.stdev(values) if len(values) > 1 and self.mean > -1e9 else 0.0
        self.best = statistics.fmean(
            [r.best if r.best is not None else quality(r) for r in self.runs]
        )
        ious = [r.iou for r in self.runs if r.iou is not None]
        self.iou = statistics.fmean(ious) if ious else None
        self.seconds = statistics.fmean([r.seconds for r in self.runs])
        self.scalars = self.runs[0].scalars
        self.median = sorted(self.runs, key=quality)[len(self.runs) // 2]

    def text(self, place: int, paper_lr: float) -> list[str]:
        """Cells of the table."""
        cells = [
            str(place),
            self.name,
            "diverged" if self.mean < -1e9 else f"{self.mean:.2f} ± {self.spread:.2f}",
            f"{self.best:.2f}",
            f"{self.lr:.1e} ({self.lr / paper_lr:.2g}x)",
            f"{self.scalars:,}",
            f"{self.seconds:.1f}",
        ]
        return cells if self.iou is None else [*cells, f"{self.iou:.4f}"]


def rows(runs: Sequence[Run], source: str, contestants: Sequence[str]) -> list[Row]:
    """All contestants on one signal, best first; those without a run are left out."""
    found = []
    for name in contestants:
        own = [r for r in runs if r.source == source and r.contestant == name]
        if any(r.seed == 0 for r in own):
            found.append(Row(own))
    return sorted(found, key=lambda row: -row.mean)


def table(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    written = ["| " + " | ".join(map(str, line)) + " |" for line in (head, *lines)]
    return "\n".join([written[0], "|" + "---|" * len(head), *written[1:]])


def write(folder: Path, settings: Settings, runs: Sequence[Run], machine: str) -> Path:
    """Write `results.csv`, `report.md` and the pictures; returns the report's path."""
    buffer = io.StringIO()
    sheet = csv.writer(buffer, lineterminator="\n")
    sheet.writerow(COLUMNS)
    for r in sorted(runs, key=lambda r: (r.source, r.contestant, r.lr, r.seed)):
        sheet.writerow(["" if v is None else v for v in (getattr(r, c) for c in COLUMNS)])
    write_bytes(folder / "results.csv", buffer.getvalue().encode(), overwrite=True)

    text = [
        f"{machine}\n",
        f"At most {settings.scalars:,} stored scalars, {settings.steps:,} full-batch steps of "
        f"Adam, rate falling exponentially to a tenth, {settings.seeds} seeds at the best rate of "
        "each sweep. PSNR: last iterate, values clipped to [-1, 1], R = 2, mean ± standard "
        "deviation over seeds. 'Best' is the best of all steps. In brackets behind the rate: its "
        "ratio to the authors'. Seconds of one fit, as run. 'Paper' is what the SL2A paper reports "
        "on 16 DIV2K images of 512 x 512 with 199,000 to 330,000 parameters: other signals, sizes "
        "and budgets, so that only the order can be compared.\n",
    ]
    for source in settings.sources:
        found = rows(runs, source.name, settings.contestants)
        head = ["", "field", "PSNR, dB", "best, dB", "rate", "scalars", "s"]
        head += ["IoU"] if any(row.iou is not None for row in found) else []
        head += ["paper, dB"] if source.kind == "image" else []
        shape = " x ".join(map(str, source.open().domain.shape))
        lines = []
        for place, row in enumerate(found, 1):
            contestant = BY_NAME[row.name]
            cells = row.text(place, contestant.lr_for(source.kind))
            if source.kind == "image":
                cells.append("" if contestant.paper is None else f"{contestant.paper:.2f}")
            lines.append(cells)
        text += [f"## {source.name} ({source.kind}, {shape})\n", table(head, lines)]
        text.append(
            f"\n![curves](curves-{source.name}.png)\n![spectra](spectra-{source.name}.png)\n"
        )
        _curves(folder / f"curves-{source.name}.png", source.name, found)
        _spectra(folder / f"spectra-{source.name}.png", source, found)
    report = folder / "report.md"
    write_bytes(report, "\n".join(text).encode(), overwrite=True)
    return report


def _curves(path: Path, name: str, found: Sequence[Row]) -> None:
    """PSNR of the training loss over steps and over seconds, the median run of each."""
    figure, (left, right) = _figure(2)
    for row, style in zip(found, _styles(len(found)), strict=True):
        run = row.median
        left.plot(run.steps, run.curve, label=row.name, **style)
        right.plot(run.times, run.curve, **style)
    left.set(xlabel="steps", ylabel="PSNR of the training loss, dB", title=name)
    right.set(xlabel="seconds", title="the same over time")
    _finish(figure, left, path)


def _spectra(path: Path, source: Any, found: Sequence[Row]) -> None:
    """Power of signal and errors by frequency."""
    figure, (axes,) = _figure(1)
    frequency = [(i + 0.5) / BINS for i in range(BINS)]
    axes.semilogy(frequency, radial_power(source.open().values), "k", lw=2, label="signal")
    for row, style in zip(found, _styles(len(found)), strict=True):
        if row.median.spectrum:
            axes.semilogy(frequency, row.median.spectrum, label=row.name, **style)
    axes.set(xlabel="frequency / Nyquist", ylabel="mean power", title=f"{source.name}: errors")
    _finish(figure, axes, path)


def _figure(panels: int) -> tuple[Any, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * panels + 3, 6), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _styles(count: int) -> list[dict[str, Any]]:
    from matplotlib import colormaps

    colours = colormaps["turbo"]
    dashes = ("-", "--", ":")
    return [
        {"color": colours(i / max(count - 1, 1)), "ls": dashes[i % 3], "lw": 1.3}
        for i in range(count)
    ]


def _finish(figure: Any, axes: Axes, path: Path) -> None:
    axes.figure.legend(loc="outside right upper", fontsize=8)
    for panel in figure.axes:
        panel.grid(alpha=0.3)
    with atomic_path(path, overwrite=True) as part:
        figure.savefig(part, dpi=110, format="png")
