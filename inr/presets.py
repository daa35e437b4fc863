"""Presets: which field, which hyperparameters, which recipe. YAML files in `configs/`.

`configs/image/grid.yaml` is what `inr fit photo.png` uses; a preset is named by its path without
the suffix ("image/grid-fast"). For a field that the user names, `configs/KIND/FIELD.yaml` is used.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inr.errors import UsageError

DEFAULTS = {"image": "image/grid"}


@dataclass(frozen=True)
class Recipe:
    """How a field is trained.

    Args:
        lr: Learning rate of Adam.
        schedule: How it falls over the budget: not at all, along half a cosine, or exponentially.
        final_lr: What is left of it at the end, as a factor.
        beta2: Decay of Adam's second moment.
        rate_weight: Weight of the field's rate (see `Field.rate`) in the loss, which is a mean
            squared error of values in [-1, 1]. Larger gives smaller files.
        batch: Samples per step at most; a larger signal is sampled anew at each step.
        steps: Budget of optimiser steps where the user sets none.
    """

    lr: float = 1e-4
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    final_lr: float = 0.1
    beta2: float = 0.999
    rate_weight: float = 0.0
    batch: int = 1 << 18
    steps: int = 1000

    def __post_init__(self) -> None:
        """Refuse values that cannot work, by name."""
        checks = {
            "lr": self.lr > 0,
            "schedule": self.schedule in ("constant", "cosine", "exponential"),
            "final_lr": 0 < self.final_lr <= 1,
            "beta2": 0 < self.beta2 < 1,
            "rate_weight": self.rate_weight >= 0,
            "batch": self.batch >= 1,
            "steps": self.steps >= 0,
        }
        for name, good in checks.items():
            if not good:
                raise UsageError(f"recipe.{name} is {getattr(self, name)!r}: out of range")

    def factor(self, progress: float) -> float:
        """Factor on the learning rate after a fraction of the budget."""
        import math

        progress = min(max(progress, 0.0), 1.0)
        if self.schedule == "cosine":
            return self.final_lr + (1 - self.final_lr) * (1 + math.cos(math.pi * progress)) / 2
        if self.schedule == "exponential":
            return self.final_lr**progress
        return 1.0


@dataclass(frozen=True)
class Preset:
    """A field by name, its hyperparameters, and how to train it."""

    field: str
    hyperparameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    recipe: Recipe = dataclasses.field(default_factory=Recipe)


def names() -> list[str]:
    """Names of all shipped presets."""
    root = _root()
    return sorted(str(p.relative_to(root).with_suffix("")) for p in root.rglob("*.yaml"))


def path_of(name: str) -> Path:
    """The file of a shipped preset, or of a YAML file that the user wrote.

    Raises:
        UsageError: there is no such file and no such preset.
    """
    for path in (Path(name), _root() / f"{name}.yaml"):
        if path.is_file():
            return path
    raise UsageError(f"no preset or file is named {name!r}: choose from {', '.join(names())}")


def load(name: str) -> Preset:
    """Read a preset by name or path.

    Raises:
        UsageError: it does not exist or does not read.
    """
    import yaml

    path = path_of(name)
    try:
        items = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return from_dict(items)
    except (yaml.YAMLError, OSError, UnicodeError) as error:
        raise UsageError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def from_dict(items: Any) -> Preset:
    """Build a preset from the mapping that a YAML file holds."""
    unknown = set(items) - {"field", "recipe"} if isinstance(items, dict) else {"the whole"}
    if unknown:
        raise UsageError(f"{', '.join(map(str, sorted(unknown)))}: expected `field` and `recipe`")
    hyperparameters = dict(items.get("field") or {})
    name = hyperparameters.pop("name", None)
    recipe = dict(items.get("recipe") or {})
    known = {f.name for f in dataclasses.fields(Recipe)}
    if not isinstance(name, str):
        raise UsageError("field.name is missing")
    if recipe.keys() - known:
        raise UsageError(f"recipe.{sorted(recipe.keys() - known)[0]}: no such setting")
    return Preset(name, hyperparameters, Recipe(**recipe))


def for_field(kind: str, field_name: str) -> Preset:
    """The preset of a field on a kind of signal; general defaults where none is shipped."""
    name = f"{kind}/{field_name}"
    return load(name) if name in names() else Preset(field_name)


def default(kind: str) -> Preset:
    """What is used where the user chooses nothing."""
    return load(DEFAULTS[kind])


def _root() -> Path:
    return Path(str(importlib.resources.files("configs").joinpath("image"))).parent
