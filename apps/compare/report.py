"""What comes of a comparison: tables as CSV, a page of HTML, and a summary in words.

Means over files are means of per-file values: of sizes and qualities at a setting that all files
have, and of the Bjontegaard differences of each file's own curves.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.compare.bjontegaard import Curve, bd_quality, bd_rate, curve
from apps.compare.kinds import KINDS, Kind, Measure
from apps.compare.runner import Point
from apps.view.page import Section, page
from inr.files import write_bytes

MEASURES = ("psnr", "snr", "lsd", "iou", "chamfer", "chamfer_share")
"""Columns of quality in the table of points."""

UNITS = ("bpp", "kbps", "kB")
"""Columns of size beside the bytes."""

MEAN = "mean"

NAMES = {"points": "points.csv", "differences": "bd.csv", "page": "index.html"}
"""What is written."""

METHOD = (
    "Bjontegaard differences (VCEG-M33) between monotone piecewise cubic (PCHIP) curves of quality "
    "over the logarithm of the size; points that another one beats in both are left out. BD-rate "
    "is the mean difference of size at equal quality, less is better; the others are the mean "
    "difference of quality at equal size, more is better. Of a single point it is the difference "
    "there; - where the curves do not meet."
)


@dataclass(frozen=True)
class Difference:
    """A codec against the reference on one file.

    Args:
        file: Its path; `MEAN` for the mean over files.
        kind: Kind of signal.
        codec: The codec.
        reference: The codec that it is compared with.
        measure: Key of the measure.
        rate: BD-rate, 0.1 for 10 % more; None where the curves share no quality.
        quality: BD-quality in the unit of the measure's `quality`; or None.
        files: Files that it is the mean of, by rate.
    """

    file: str
    kind: str
    codec: str
    reference: str
    measure: str
    rate: float | None
    quality: float | None
    files: int = 1


def reference_of(kind: str, points: Iterable[Point], asked: str | None) -> str:
    """The codec that others are compared with: as asked, or the usual one, or the first there is.

    Args:
        kind: Kind of signal.
        points: Its points.
        asked: What the user named, if anything.
    """
    there = list(dict.fromkeys(point.codec for point in points))
    for name in (asked, KINDS[kind].usual[0]):
        if name in there:
            return str(name)
    return there[0]


def differences(kind: str, points: Sequence[Point], reference: str) -> list[Difference]:
    """Every codec against the reference, by every measure, on each file and in the mean."""
    found = []
    others = [c for c in dict.fromkeys(p.codec for p in points) if c != reference]
    for measure in KINDS[kind].measures:
        for codec in others:
            own = []
            for file, its in _by_file(points).items():
                first, second = (_curve(its, name, measure) for name in (reference, codec))
                if second.rates:
                    own.append(
                        Difference(
                            file, kind, codec, reference, measure.key,
                            bd_rate(first, second), bd_quality(first, second),
                        )
                    )  # fmt: skip
            rates = [d.rate for d in own if d.rate is not None]
            gains = [d.quality for d in own if d.quality is not None]
            mean = Difference(
                MEAN, kind, codec, reference, measure.key, _mean(rates), _mean(gains), len(rates)
            )
            found += [*own, mean]
    return found


def _by_file(points: Iterable[Point]) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.file, []).append(point)
    return found


def _curve(points: Iterable[Point], codec: str, measure: Measure) -> Curve:
    return curve(
        (p.size, measure.quality(p.measures[measure.key])) for p in points if p.codec == codec
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


# ------------------------------------------------------------------------------- tables


def write(
    folder: Path, points: Sequence[Point], asked: str | None, facts: Mapping[str, str]
) -> str:
    """Write all tables and the page.

    Args:
        folder: Where to.
        points: What was measured, at least one point.
        asked: The reference that the user named, if any.
        facts: What is to stand at the end of the page.

    Returns:
        A summary for a terminal.
    """
    found = {}
    for kind in dict.fromkeys(point.kind for point in points):
        own = [point for point in points if point.kind == kind]
        found[kind] = (own, differences(kind, own, reference_of(kind, own, asked)))
    _write_csv(folder / NAMES["points"], [_row(point) for point in points])
    every = [d for _, its in found.values() for d in its]
    _write_csv(folder / NAMES["differences"], [_difference_row(d) for d in every])
    sections = [s for kind, (own, its) in found.items() for s in _sections(kind, own, its)]
    about = dict.fromkeys((p.codec, p.about) for p in points)
    told = {f"codec {name}": text for name, text in about}
    told |= {m.key: m.told for kind in found for m in KINDS[kind].measures}
    files = len({point.file for point in points})
    highlights = {"files": str(files), "points": str(len(points))}
    text = page(
        "Rate and distortion",
        "How large files are and how good what they hold, for .inr and other codecs.",
        highlights,
        sections,
        {**told, **facts},
    )
    write_bytes(folder / NAMES["page"], text.encode())
    return "\n\n".join(_summary(kind, own, its) for kind, (own, its) in found.items())


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO(newline="")
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def _row(point: Point) -> dict[str, Any]:
    size = {KINDS[point.kind].unit: round(point.size, 5)}
    return {
        "file": point.file,
        "kind": point.kind,
        "codec": point.codec,
        "setting": point.label,
        "bytes": point.bytes,
        **{unit: size.get(unit, "") for unit in UNITS},
        **{key: _rounded(point.measures.get(key)) for key in MEASURES},
        "encode_seconds": "" if point.encode_seconds is None else point.encode_seconds,
        "decode_seconds": point.decode_seconds,
        "about": point.about,
    }


def _rounded(value: float | None) -> Any:
    return "" if value is None else float(f"{value:.6g}")


def _difference_row(found: Difference) -> dict[str, Any]:
    return {
        "file": found.file,
        "kind": found.kind,
        "codec": found.codec,
        "reference": found.reference,
        "measure": found.measure,
        "bd_rate_percent": "" if found.rate is None else round(100 * found.rate, 3),
        "bd_quality": "" if found.quality is None else round(found.quality, 4),
        "files": found.files,
    }


# ------------------------------------------------------------------------------ the page


def _sections(kind: str, points: list[Point], found: list[Difference]) -> list[Section]:
    about = KINDS[kind]
    files = _by_file(points)
    names = _names(list(files))
    views = [{"name": names[file], "curves": _curves(its, about)} for file, its in files.items()]
    means = _means(points)
    if len(files) > 1 and means:
        views.insert(0, {"name": f"mean of {len(files)} files", "curves": _curves(means, about)})
    data = {
        "x": about.axis,
        "measures": [measure.name for measure in about.measures],
        "codecs": list(dict.fromkeys(point.codec for point in points)),
        "views": views,
    }
    title = about.noun.capitalize()
    sections = [Section(title, "curves", data)]
    header, rows = _ranking(about, points, found)
    if rows:
        notes = (METHOD, "Means over files of each file's own difference.")
        table = {"columns": header, "rows": rows}
        sections.append(
            Section(f"{title}: codecs against {found[0].reference}", "table", table, notes)
        )
    columns = ["file", "codec", "setting", "bytes", about.unit]
    columns += [m.key for m in about.measures] + ["encoding, s", "decoding, s"]
    cells = [
        [
            names[p.file], p.codec, p.label, f"{p.bytes:,}", f"{p.size:.4g}",
            *(_figure(p.measures[m.key], m.digits) for m in about.measures),
            _seconds(p.encode_seconds), _seconds(p.decode_seconds),
        ]
        for p in points
    ]  # fmt: skip
    table = {"columns": columns, "rows": cells}
    return [*sections, Section(f"{title}: all points", "table", table)]


def _names(files: Sequence[str]) -> dict[str, str]:
    """Names of files, their whole paths where two have the same name."""
    short = [Path(file).name for file in files]
    return {f: f if short.count(name) > 1 else name for f, name in zip(files, short, strict=True)}


def _curves(points: Iterable[Point], kind: Kind) -> list[dict[str, Any]]:
    """By codec, its points as [size, qualities, label], from small to large."""
    found: dict[str, list[list[Any]]] = {}
    for point in sorted(points, key=lambda p: p.size):
        values = [m.quality(point.measures[m.key]) for m in kind.measures]
        found.setdefault(point.codec, []).append(
            [
                round(point.size, 6),
                [round(v, 5) if math.isfinite(v) else None for v in values],
                point.label,
            ]
        )
    return [{"codec": codec, "points": its} for codec, its in found.items()]


def _means(points: Sequence[Point]) -> list[Point]:
    """One point for each codec and setting that all files have."""
    files = {point.file for point in points}
    alike: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        alike.setdefault((point.codec, point.label), []).append(point)
    found = []
    for (codec, label), its in alike.items():
        if {p.file for p in its} != files:
            continue
        n = len(its)
        measures = {k: sum(p.measures[k] for p in its) / n for k in its[0].measures}
        size = sum(p.size for p in its) / n
        whole = round(sum(p.bytes for p in its) / n)
        first = its[0]
        found.append(
            Point(
                MEAN, first.kind, "", codec, first.about, first.setting, label, whole, size,
                measures, None, 0.0,
            )
        )  # fmt: skip
    return found


def _ranking(
    kind: Kind, points: Sequence[Point], found: Sequence[Difference]
) -> tuple[list[str], list[list[str]]]:
    """A table of all codecs but the reference: mean differences and mean seconds."""
    header = ["codec"]
    for measure in kind.measures:
        header += [f"BD-rate by {measure.short}", f"BD-{measure.short}"]
    header += ["files", "encoding, s", "decoding, s"]
    total = len({p.file for p in points})
    rows = []
    means = [d for d in found if d.file == MEAN]
    for codec in dict.fromkeys(d.codec for d in means):
        row = [codec]
        its = [d for d in means if d.codec == codec]
        for measure, difference in zip(kind.measures, its, strict=True):
            row += [_percent(difference.rate), _signed(difference.quality, measure.unit)]
        own = [p for p in points if p.codec == codec]
        made = _mean([p.encode_seconds for p in own if p.encode_seconds is not None])
        read = _mean([p.decode_seconds for p in own])
        row += [f"{its[0].files} of {total}", _seconds(made), _seconds(read)]
        rows.append(row)
    return header, rows


def _summary(kind: str, points: Sequence[Point], found: Sequence[Difference]) -> str:
    """The ranking as lines of text."""
    about = KINDS[kind]
    files = len({p.file for p in points})
    what = about.noun if files > 1 else about.noun.removesuffix("s")
    if not found:
        return f"{files} {what}: one codec alone, nothing to compare it with"
    header, rows = _ranking(about, points, found)
    table = [header, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = [f"{files} {what} against {found[0].reference} (BD-rate below 0: smaller files)"]
    for row in table:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  " + "  ".join(cells))
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:+.1f} %"


def _signed(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:+.2f} {unit}".strip()


def _figure(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "exact" if value > 0 else "-"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value < 1 else f"{value:.1f}"
