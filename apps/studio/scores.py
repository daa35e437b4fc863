"""How contestants do: SSIM, a table of their figures, a chart, a line of words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from apps.studio.words import waits
from apps.view.page import Section

if TYPE_CHECKING:
    import numpy as np

    from apps.studio.service import Job

SSIM_SIDE = 11
SSIM_SAMPLES = 1 << 24
"""The least side of a picture that has an SSIM, which is that of its window; and what is too much
to be worth the memory."""

COLUMNS = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "snr": "SNR, dB",
    "lsd": "log-spectral distance",
    "iou": "IoU",
    "chamfer_share": "Chamfer / diagonal",
}
"""Measures that have a column of the table where the kind of signal has them."""


def ssim(signal: Any, samples: np.ndarray) -> float | None:
    """SSIM of a picture, mean over channels.

    Z. Wang et al., "Image quality assessment: from error visibility to structural similarity",
    2004, with its Gaussian window of 11 x 11, sigma 1.5.

    Args:
        signal: The picture.
        samples: Shape (height, width, channels), in its own type; channels may be missing.

    Returns:
        At most 1; None where the picture is smaller than the window, or too large.
    """
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    original = signal.samples[..., : samples.shape[-1]]
    if min(original.shape[:2]) < SSIM_SIDE or original.size > SSIM_SAMPLES:
        return None
    made, truth = (
        torch.from_numpy(x.astype("float32")).movedim(-1, 0)[None] for x in (samples, original)
    )
    found = structural_similarity_index_measure(made, truth, data_range=float(signal.domain.peak))
    assert isinstance(found, torch.Tensor)
    return round(float(found), 5)


def table_of(rows: Sequence[Mapping[str, Any]]) -> Section:
    """The table of all contestants, what is not known yet as "-"."""
    measures = [key for key in COLUMNS if any(_measure(row, key) is not None for row in rows)]
    unit = next((name for row in rows for name in row.get("density") or {}), "bpp")
    columns = ["contestant", "state", *(COLUMNS[key] for key in measures), "bytes", unit]
    columns += ["steps", "seconds", "previews, s", "coding, s", "parameters"]
    cells = []
    for row in rows:
        state = row["state"]
        if state == "done" and row.get("ended") == "stopped":
            state = "stopped early"
        if row.get("setting"):
            state = f"{state}, {row['setting']}"
        density = (row.get("density") or {}).get(unit)
        cells.append(
            [
                str(row["name"]),
                state,
                *(_figure(_measure(row, key), 4 if key != "psnr" else 2) for key in measures),
                _whole(row.get("bytes")),
                _figure(density, 3),
                _whole(row.get("steps")),
                _figure(row.get("seconds"), 2),
                _figure(row.get("seconds_shown"), 2),
                _figure(row.get("seconds_encoding"), 2),
                _whole(row.get("parameters")),
            ]
        )
    notes = [f"{row['name']}: {row['error']}" for row in rows if row.get("error")]
    notes += [f"{row['name']}: {note}" for row in rows for note in row.get("warnings") or []]
    notes.append(
        "Measures are those of the decoded files. Previews took their part of the seconds."
    )
    return Section("Contestants", "table", {"columns": columns, "rows": cells}, notes)


def _measure(row: Mapping[str, Any], key: str) -> float | None:
    found = (row.get("metrics") or {}).get(key)
    return None if found is None else float(found)


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _whole(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


# ---------------------------------------------------------------------- what the page is told


def found_of(job: Job) -> Mapping[str, Any]:
    """What a comparison has found so far, whatever became of it."""
    return job.result if job.result and "contestants" in job.result else job.progress


def curves(found: Mapping[str, Any]) -> dict[str, list[list[float | None]]]:
    """What the chart shows: a curve for each field, a level for each codec's file."""
    lines = {one["name"]: one["points"] for one in found.get("series", ()) if one["points"]}
    ends = [point for points in lines.values() for point in (points[0], points[-1])]
    for row in found.get("contestants", ()):
        if row["codec"] and row.get("psnr") is not None and ends:
            loss = 4 * 10 ** (-row["psnr"] / 10)  # of values in [-1, 1], as fits tell it
            sides = [[side(p[k] for p in ends) for k in (0, 1)] for side in (min, max)]
            name = f"{row['label']}, {row['setting']}"
            lines[name] = [[*at, row["psnr"], loss] for at in sides]
    return lines


def downloads(found: Mapping[str, Any], folder: str, slots: int) -> list[dict[str, Any]]:
    """What each download button offers.

    Args:
        found: What `found_of` tells.
        folder: Where the files lie.
        slots: How many buttons there are.

    Returns:
        What changes of each.
    """
    rows = found.get("contestants", ())
    made: list[dict[str, Any]] = []
    for row in rows:
        ready = row["state"] == "done"
        value = f"{folder}/{row['file']}" if ready else None
        label = f"Download {row['file'] if ready else row['label']}"
        made.append({"value": value, "label": label, "interactive": ready, "visible": True})
    return made + [{"visible": False}] * (slots - len(made))


def state(job: Job) -> str:
    """A line that says how a comparison stands."""
    if job.state == "queued":
        return waits(job)
    rows = found_of(job).get("contestants", ())
    done = sum(row["state"] == "done" for row in rows)
    if job.state == "failed":
        kept = f" ({done} of {len(rows)} are done)" if done else ""
        return f"Failed: {job.error}{kept}"
    if job.state == "done" and job.result is not None:
        where = f"{job.result['device']}: {job.result['backend']}"
        early = "Stopped" if job.result["stopped"] else "Done"
        return f"{early} · {done} of {len(rows)} contestants · {where} ({job.result['why']})"
    told = job.progress
    if not told:
        return "Starting"
    row = rows[told["index"]]
    doing = "paused" if job.state == "paused" else row["state"]
    parts = [f"{told['name']} ({told['index'] + 1} of {len(rows)}): {doing}"]
    if "step" in told:
        parts.append(f"step {told['step']:,}")
        if told["psnr"] is not None:
            parts.append(f"{told['psnr']:.2f} dB")
        parts += [f"{told['seconds']:.1f} s", f"{told['steps_per_second']:,.1f} steps/s"]
        if told["seconds_left"] is not None:
            parts.append(f"{told['seconds_left']:.0f} s left of its budget")
    return " · ".join([*parts, *([job.error] if job.error else [])])
