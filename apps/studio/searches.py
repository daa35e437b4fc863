"""What the page tells of a search for a file: how far it is, its curve, its fits, its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.studio.picker import plain
from apps.studio.service import Job
from apps.studio.words import waits

MEASURES = {"audio": ("psnr", "snr"), "shape": ("psnr", "iou")}
"""By kind of signal, the measures whose curves are drawn."""

NAMES = {"psnr": "PSNR, dB", "snr": "SNR, dB", "iou": "IoU"}

TRIED, FILE, TARGET = "fits tried", "the file", "the target"

POINTS = (
    "The point of a fit is a file of it: a quick one whose quality was measured, or one of the "
    "search's own, of which is said what its quality is at least."
)
MORE = (
    "JPEG and WebP are of the same picture, at a few of their qualities: what lies above their "
    "curves is better than they are at that size."
)


def trials(job: Job) -> list[dict[str, Any]]:
    """What is known of each fit of a search, in order."""
    # a copy: the service appends to them meanwhile
    found = {event["number"]: event for event in list(job.events) if event["event"] == "trial"}
    return [found[number] for number in sorted(found)]


def share(job: Job) -> float:
    """The share of a search that is done, where it takes as many fits as are planned."""
    fits = trials(job)
    if not fits:
        return 0.0
    last, told = fits[-1], job.progress
    running = last["state"] == "fitting"
    done = float(last["before"] + last["part"] * (told.get("progress", 0.0) if running else 1.0))
    spent = last["spent"] + (told.get("seconds", 0.0) if running else last["seconds"])
    return min(max(done, spent / float(job.spec["seconds"])), 1.0)


def state(job: Job) -> str:
    """A line that says how a search stands."""
    if job.state == "queued":
        return waits(job)
    if job.state == "failed":
        return f"Failed: {job.error}"
    if job.result is not None:
        return "Stopped" if job.result["stopped"] else "Done"
    fits = trials(job)
    if not fits:
        return "Looking at the signal"
    last, told = fits[-1], job.progress
    parts = [f"Fit {last['number']} of up to {last['of']} ({last['purpose']}, {last['label']})"]
    if last["number"] > 1 and last["number"] > fits[0]["of"]:
        parts[0] = f"Fit {last['number']}, as none met the target ({last['label']})"
    if last["state"] == "fitting":
        parts.append(f"step {told.get('step', 0):,}")
        if told.get("psnr") is not None:
            parts.append(f"{told['psnr']:.2f} dB")
        spent = last["spent"] + told.get("seconds", 0.0)
    else:
        parts.append("is being coded")
        spent = last["spent"] + last["seconds"]
    done = share(job)
    parts.append(f"{min(done, 0.99):.0%} of the search")
    if 0.05 < done < 1:
        left = min(spent * (1 - done) / done, max(float(job.spec["seconds"]) - spent, 0.0))
        parts.append(f"about {left:.0f} s of fitting left at this pace")
    if job.asked:
        parts = ["Stopping: what is being coded is coded first"]
    where = next((e for e in reversed(list(job.events)) if e["event"] == "backend"), None)
    if where is not None:
        parts.append(f"{where['device']}: {where['backend']} ({where['why']})")
    return " · ".join(parts)


def curves(job: Job) -> list[dict[str, Any]]:
    """Quality against bytes as it is known so far, and the list of fits, as sections."""
    fits = trials(job)
    reference = next((e for e in list(job.events) if e["event"] == "reference"), None)
    if not fits and reference is None:
        return []
    measures = MEASURES.get(job.spec["kind"], ("psnr",))
    series: dict[str, list[list[Any]]] = {TRIED: [], FILE: [], TARGET: []}
    for fit in fits:
        quality = fit.get("metrics") or fit.get("least")
        if quality:
            least = "" if "metrics" in fit else ", at least"
            label = f"fit {fit['number']}, {fit['purpose']}, {fit['label']}{least}"
            series[TRIED].append([fit["bytes"], [quality.get(name) for name in measures], label])
    series[TRIED].sort(key=lambda point: point[0])
    if job.result is not None:
        values = [job.result["metrics"].get(name) for name in measures]
        met = "meets the target" if job.result["reached"] else "misses the target"
        series[FILE].append([job.result["bytes"], values, met])
    notes = [POINTS]
    if reference is not None:
        # another measure than the PSNR they have none of
        rest = [None] * (len(measures) - 1)
        for other in reference["series"]:
            series[other["name"]] = [[x, [y, *rest], label] for x, y, label in other["points"]]
        notes += [MORE] if reference["series"] else []
        notes += reference["notes"]
    known = [point for its in series.values() for point in its]
    series[TARGET] = _line(job, known, measures)
    data = {
        "x": "bytes",
        "measures": [NAMES[name] for name in measures],
        "codecs": list(series),
        "views": [
            {
                "name": "this signal",
                "curves": [{"codec": name, "points": its} for name, its in series.items()],
            }
        ],
    }
    curve = {"title": "Quality against bytes", "widget": "curves", "data": data, "notes": notes}
    sections = [curve] if known else []
    if fits:
        columns = [
            "fit",
            "kind",
            "dial",
            "steps",
            "seconds",
            "PSNR, dB",
            "bytes of a file",
            "its PSNR, dB",
        ]
        table = {"columns": columns, "rows": [_row(fit) for fit in fits]}
        sections.append({"title": "Fits", "widget": "table", "data": table, "notes": []})
    return sections


def _line(job: Job, points: list[list[Any]], measures: tuple[str, ...]) -> list[list[Any]]:
    """The target: an upright line at a size, or a level one at a quality."""
    target = next((e for e in list(job.events) if e["event"] == "target"), None)
    if target is None or not points:
        return []
    name, value = target["measure"], target["value"]
    if name == "bytes":
        known = [[y for y in column if y is not None] for column in _columns(points, measures)]
        label = f"{value:,.0f} bytes at most"
        ends = [[pick(its) if its else None for its in known] for pick in (min, max)]
        return [[value, ends[0], label], [value, ends[1], label]]
    label = f"{NAMES[name]}: {value:g} at least"
    level = [value if measure == name else None for measure in measures]
    sizes = [point[0] for point in points]
    return [[min(sizes), level, label], [max(sizes), level, label]]


def _columns(points: list[list[Any]], measures: tuple[str, ...]) -> list[list[float | None]]:
    return [[point[1][k] for point in points] for k in range(len(measures))]


def _row(fit: Mapping[str, Any]) -> list[str]:
    """A fit in the list: "-" is not known yet, or not at all."""

    def quality(values: Mapping[str, Any], name: str) -> str:
        if name not in values:
            return "-"
        return "exact" if values[name] is None else f"{values[name]:.2f}"

    least = quality(fit.get("least", {}), "psnr")
    return [
        str(fit["number"]),
        fit["purpose"],
        fit["label"],
        f"{fit['steps']:,}" if "steps" in fit else "-",
        f"{fit['seconds']:.1f}" if "seconds" in fit else "-",
        quality(fit, "quality"),
        f"{fit['bytes']:,}" if fit.get("bytes") is not None else "-",
        quality(fit["metrics"], "psnr")
        if "metrics" in fit
        else f"{least}, at least"
        if least != "-"
        else "-",
    ]


def outcome(result: Mapping[str, Any]) -> str:
    """What became of a search, as Markdown."""
    measure, value = result["target"]["measure"], result["target"]["value"]
    lines = []
    if not result["reached"]:
        got = result["metrics"][measure]
        lines.append(
            f"**The target is not reached**: the best file found has {plain(f'{got:.4g}')} of "
            f"{plain(result['asked'])}. Allow more effort or seconds, or take another field."
        )
    if result["stopped"]:
        lines.append("Stopped before its end: this is the best file so far that meets the target.")
    shown = "exact" if result["psnr"] is None else f"{result['psnr']:.2f} dB"
    if measure in ("snr", "iou"):
        shown += f", {measure} {result['metrics'][measure]:.4g}"
    size = f"{result['bytes']:,} bytes" + (f" of {value:,.0f}" if measure == "bytes" else "")
    unit, cost = next(iter(result["density"].items()))
    fits = f"{result['fits']} fit{'s' * (result['fits'] != 1)} in {result['seconds']:.1f} s"
    facts = f"{shown}, {size}, {cost:.3f} {unit.replace('_', ' ')}; {fits}"
    lines.append(
        f"**{plain(result['file'])}**: {plain(facts)}. The pictures below are decoded from it."
    )
    return "\n\n".join([*lines, *map(plain, result["warnings"])])
