"""Snapshots: a safetensors file whose metadata is JSON, from which a fit resumes exactly.

No pickle: weights and Adam's moments are tensors, everything else is text and numbers. On one
machine a resumed fit computes the same bytes as one that was never interrupted.
"""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from inr.errors import FitError, InputError
from inr.files import write_bytes
from inr.fitting.callbacks import BetweenBursts
from inr.fitting.module import FitModule

VERSION = 2


class Snapshot(BetweenBursts):
    """Save the state of a fit every so often, and take it up again.

    Args:
        path: The snapshot file; written atomically, removed by `discard` once the result is safe.
        every: Seconds between snapshots.
        resume: Whether to continue from the file if it exists.

    Raises:
        FitError: the snapshot belongs to another signal, field or recipe.
        InputError: the snapshot is damaged.
    """

    def __init__(self, path: str | Path, *, every: float = 30.0, resume: bool = False) -> None:
        super().__init__()
        self.path = Path(path)
        self.every = every
        self.resume = resume

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Continue from the snapshot if asked and there is one."""
        assert isinstance(pl_module, FitModule)
        if self.resume and self.path.exists():
            if not pl_module.resumable:
                raise FitError(f"{self.path}: a fit in stages cannot be resumed; delete it")
            load(pl_module, self.path)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep an interrupted fit so that it can go on."""
        assert isinstance(pl_module, FitModule)
        if pl_module.finished == "stopped" and pl_module.resumable:
            save(pl_module, self.path)

    def between(self, module: FitModule) -> None:
        """Save, unless the state is not one to return to."""
        if math.isfinite(module.loss) and module.resumable:
            save(module, self.path)

    def discard(self) -> None:
        """Remove the snapshot: the result is written."""
        self.path.unlink(missing_ok=True)


def save(module: FitModule, path: Path) -> None:
    """Write the state of a fit to `path`."""
    from safetensors.torch import save as to_bytes

    # the field, and the steps of rounding where they are learnt
    tensors = {f"module.{k}": v.contiguous() for k, v in module.state_dict().items()}
    for index, state in module.adam.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{k}": v.contiguous() for k, v in state.items()}
    taught, teaching = ({}, {}) if module.teacher is None else module.teacher.state()
    tensors |= {f"teacher.{k}": v.contiguous() for k, v in taught.items()}
    facts = _identity(module) | {
        "fit_step": module.fit_step,
        "seconds": module.seconds,
        "loss": module.loss,
        "lr_scale": module.lr_scale,
        "rounding": module.rounding,
        "teaching": teaching,
        "history": module.history,
        "generator": base64.b64encode(module.generator.get_state().numpy().tobytes()).decode(),
    }
    write_bytes(path, to_bytes(tensors, metadata={"inr_snapshot": json.dumps(facts)}))


def load(module: FitModule, path: Path) -> None:
    """Put a module, its optimiser set up, into the state that `save` wrote."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["inr_snapshot"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: is no snapshot of a fit ({error}); delete it") from None
    for key, value in _identity(module).items():
        if facts.get(key) != value:
            raise FitError(f"{path}: was made with another {key}; delete it, or fit as it was made")
    weights = {k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")}
    module.load_state_dict(weights)
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    groups = module.adam.state_dict()["param_groups"]
    module.adam.load_state_dict({"state": state, "param_groups": groups})
    module.fit_step = facts["fit_step"]
    module.seconds = facts["seconds"]
    module.loss = facts["loss"]
    module.lr_scale = facts["lr_scale"]
    module.rounding = facts["rounding"]
    module.history = [(s, t, x) for s, t, x in facts["history"]]
    if module.teacher is not None:
        taught = {k.removeprefix("teacher."): v for k, v in tensors.items() if k[:8] == "teacher."}
        module.teacher.restore(taught, facts["teaching"])
    raw = bytearray(base64.b64decode(facts["generator"]))
    module.generator.set_state(torch.frombuffer(raw, dtype=torch.uint8))


def _identity(module: FitModule) -> dict[str, Any]:
    """What must agree for a resumed fit to be the same fit."""
    import dataclasses

    budget = dataclasses.asdict(module.budget)
    return {
        "version": VERSION,
        "signal": module.signal.digest(),
        "field": f"{type(module.field).__name__} {json.dumps(module.field.hyperparameters)}",
        "recipe": dataclasses.asdict(module.recipe),
        "budget": budget,
    }
