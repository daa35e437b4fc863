"""How a fit is told: its state in a line, its curve, what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.studio.components import charted
from apps.studio.picker import plain
from apps.studio.service import Job
from apps.studio.visitors import escape

PHASES = {"starting": "Starting", "fitting": "Fitting", "coding": "Writing the file"}

CURVE_POINTS = 600


def curve(job: Job) -> dict[str, Any]:
    """The chart of a fit, of bounded size.

    A grid begins as an exact copy of the signal, which the first step spoils: the first point is
    no part of the fit.
    """
    history = [point for point in job.history if point[0] > 1]
    step = max(1, len(history) // CURVE_POINTS)
    points = history[::step]
    if history and points[-1] is not history[-1]:
        points = [*points, history[-1]]
    return charted({str(job.spec.get("field") or "fit"): points})


def waits(job: Job) -> str:
    """What is said of a job in the queue."""
    before = max(job.position, 0)
    return f"Waiting: {before} before you" if before else "Waiting for the device"


def state(job: Job) -> str:
    """A line that says how a job stands."""
    if job.state == "queued":
        return waits(job)
    if job.state == "failed":
        return f"Failed: {job.error}"
    told = job.progress
    parts = [{"paused": "Paused", "done": "Done"}.get(job.state) or PHASES.get(job.phase, "")]
    if told:
        parts.append(f"step {told['step']:,}")
        if told.get("psnr") is not None:
            parts.append(f"{told['psnr']:.2f} dB")
        parts.append(f"{told['seconds']:.1f} s")
    if job.state == "running" and told:
        parts += [
            f"{told['steps_per_second']:,.1f} steps/s",
            f"{told['points_per_second']:,} points/s",
        ]
        if told.get("seconds_left") is not None:
            parts.append(f"{told['seconds_left']:.0f} s left")
    where = next(
        (e for e in reversed(list(job.events)) if e["event"] == "backend"), job.result or {}
    )
    if where.get("device"):
        parts.append(f"{where['device']}: {where['backend']} ({where['why']})")
    if job.state == "paused" and job.error:
        parts.append(job.error)
    return " · ".join(filter(None, parts))


def said(text: str, state: str = "") -> str:
    """The status line; what screens read aloud."""
    return f'<p role="status" aria-live="polite" data-state="{escape(state)}">{escape(text)}</p>'


def outcome(result: Mapping[str, Any]) -> str:
    """What became of a fit, as Markdown."""
    quality = "exact" if result["psnr"] is None else f"{result['psnr']:.2f} dB"
    unit, cost = next(iter(result["density"].items()))
    lines = [
        f"**{plain(result['file'])}**: {quality}, {result['bytes']:,} bytes, {cost:.3f} "
        f"{plain(unit.replace('_', ' '))}; {result['steps']:,} steps in {result['seconds']:.1f} s, "
        f"coded in {result['seconds_encoding']:.1f} s. The pictures above are decoded from it."
    ]
    if result.get("truth") is not None:
        lines.append(f"Against the truth: {result['truth']:.2f} dB.")
    return "\n\n".join([*lines, *map(plain, result["warnings"])])
