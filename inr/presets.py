"""Presets: which field, which hyperparameters, which recipe. YAML files in `configs/`.

`configs/image/grid.yaml` is what `inr fit photo.png` uses, `configs/audio/windows.yaml` what
`inr fit song.wav` uses; a preset is named by its path without
the suffix ("image/grid-fast"). For a field that the user names, `configs/KIND/FIELD.yaml` is used,
and it is also what any other file for that field need not repeat.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inr.errors import UsageError

DEFAULTS = {
    "array": "array/siren",
    "audio": "audio/windows",
    "image": "image/grid",
    "shape": "shape/siren",
    "video": "video/finr",
    "volume": "volume/finr",
}
"""By kind of signal."""

SCHEDULES = ("constant", "cosine", "exponential")
TEACHING = ("off", "constant", "linear", "step", "cosine", "reverse-cosine")
PICKS = ("hardest", "drawn")
INTERVALS = ("dense", "dense2", "sparse", "incremental", "reverse-incremental")


@dataclass(frozen=True)
class Recipe:
    """How a field is trained.

    Args:
        lr: Learning rate of Adam.
        schedule: How it falls over the budget: not at all, along half a cosine, or exponentially.
        final_lr: What is left of it at the end, as a factor.
        beta2: Decay of Adam's second moment.
        clip: Largest norm of the gradient of all parameters together; a longer one is shortened to
            it. 0 leaves all as they are.
        eps: Adam's floor under the root of the second moment. A sample's gradient shrinks with the
            number of samples, so a field with a parameter per sample needs it far below torch's.
        rate_weight: Weight in the loss, which is a mean squared error of values in [-1, 1], of the
            stored bits per sample, estimated by the field itself all along (see `Field.rate`), or
            else from the rounded parameters, and then in the part of the fit that is trained with
            rounding alone. Larger gives smaller files.
        quantize_db: What rounding the parameters to the steps of a file may cost, in dB, before the
            rest of the fit is trained with it. The file holds just these parameters. The steps stay
            as they are, or are learnt where `rate_weight` balances them. 0: the fit knows nothing
            of rounding, and the file's loss is bounded instead.
        quantize_share: Part of the budget, at its end, that is trained so.
        second_order: Part of each stage's share of the budget, at its end, that goes to
            Levenberg-Marquardt steps on all samples, in a multistage field of float64 and of at
            most a few thousand parameters a stage. They take far longer and gain far more.
        teach: Nonparametric teaching: how the part of the samples that a step sees rises over the
            budget. Selections cost time, which counts. off: a step sees its whole batch.
        teach_ratio: That part at the beginning.
        teach_pick: hardest: those where the field is furthest off; drawn: anew at each step, the
            likelier the further off, and weighted so that on average nothing is favoured.
        teach_interval: How often samples are selected: at every step, at every second or tenth
            (sparse), less and less often, or more and more.
        batch: Samples per step at most; a larger signal is sampled anew at each step.
        steps: Budget of optimiser steps where the user sets none.
    """

    lr: float = 1e-4
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    final_lr: float = 0.1
    beta2: float = 0.999
    clip: float = 0.0
    eps: float = 1e-8
    rate_weight: float = 0.0
    quantize_db: float = 0.0
    quantize_share: float = 0.3
    second_order: float = 0.0
    teach: Literal["off", "constant", "linear", "step", "cosine", "reverse-cosine"] = "off"
    teach_ratio: float = 0.2
    teach_pick: Literal["hardest", "drawn"] = "hardest"
    teach_interval: Literal["dense", "dense2", "sparse", "incremental", "reverse-incremental"] = (
        "incremental"
    )
    batch: int = 1 << 18
    steps: int = 1000

    def __post_init__(self) -> None:
        """Refuse values that cannot work, by name."""
        checks = {
            "lr": (_number(self.lr) and self.lr > 0, "a number above 0"),
            "schedule": (self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            "final_lr": (_number(self.final_lr) and 0 < self.final_lr <= 1, "a number in (0, 1]"),
            "beta2": (_number(self.beta2) and 0 < self.beta2 < 1, "a number between 0 and 1"),
            "clip": (_number(self.clip) and self.clip >= 0, "0 or more"),
            "eps": (_number(self.eps) and self.eps > 0, "a number above 0"),
            "rate_weight": (_number(self.rate_weight) and self.rate_weight >= 0, "0 or more"),
            "quantize_db": (
                _number(self.quantize_db) and 0 <= self.quantize_db <= 60,
                "dB from 0 to 60",
            ),
            "quantize_share": (
                _number(self.quantize_share) and 0 < self.quantize_share <= 1,
                "a number in (0, 1]",
            ),
            "second_order": (
                _number(self.second_order) and 0 <= self.second_order < 1,
                "a number in [0, 1)",
            ),
            "teach": (self.teach in TEACHING, f"one of {', '.join(TEACHING)}"),
            "teach_ratio": (
                _number(self.teach_ratio) and 0 < self.teach_ratio <= 1,
                "a number in (0, 1]",
            ),
            "teach_pick": (self.teach_pick in PICKS, f"one of {', '.join(PICKS)}"),
            "teach_interval": (
                self.teach_interval in INTERVALS,
                f"one of {', '.join(INTERVALS)}",
            ),
            "batch": (_whole(self.batch) and self.batch >= 1, "a whole number from 1 up"),
            "steps": (_whole(self.steps) and self.steps >= 0, "a whole number from 0 up"),
        }
        for name, (good, allowed) in checks.items():
            if not good:
                raise UsageError(f"recipe.{name} is {getattr(self, name)!r}: give {allowed}")

    def factor(self, progress: float) -> float:
        """Factor on the learning rate after a fraction of the budget."""
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
    return sorted(p.relative_to(root).with_suffix("").as_posix() for p in root.rglob("*.yaml"))


def path_of(name: str) -> Path:
    """The file of a shipped preset, or of a YAML file that the user wrote.

    Raises:
        UsageError: there is no such file and no such preset.
    """
    for path in (Path(name), _root() / f"{name}.yaml"):
        if path.is_file():
            return path
    near = difflib.get_close_matches(name, names(), n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(names())}"
    raise UsageError(f"no preset or file is named {name!r}: {hint}")


def kind_of(path: Path) -> str:
    """The kind of signal that a shipped preset is for, by its folder; "image" for other files."""
    return path.parent.name if path.parent.parent == _root() else "image"


def load(name: str, kind: str | None = None) -> Preset:
    """Read a preset by name or path; what it leaves out is as `for_field` has it.

    Args:
        name: A shipped preset's name, or the path of a YAML file.
        kind: Kind of signal that it is for; if not given, as `kind_of` tells.

    Raises:
        UsageError: it does not exist or does not read.
    """
    path = path_of(name)
    items = read(path)
    try:
        return from_dict(items, kind or kind_of(path))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def read(path: Path) -> dict[str, Any]:
    """What a YAML file holds: a mapping, whose `field` and `recipe` are mappings if given.

    Raises:
        UsageError: the file cannot be read, or is of another form.
    """
    import yaml

    try:
        loader = _loader()(path.read_text(encoding="utf-8"))
        items = loader.get_single_data()
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(items, dict):
        raise UsageError(f"{path}: holds no settings; expected `field:` and `recipe:`")
    for key in ("field", "recipe"):
        if not isinstance(items.get(key, {}), dict):
            raise UsageError(f"{path}: `{key}` is {items[key]!r}; expected names and values in it")
    if not isinstance(items.get("field", {}).get("name", ""), str):
        raise UsageError(f"{path}: field.name is {items['field']['name']!r}; expected a name")
    return items


def from_dict(items: dict[str, Any], kind: str = "image") -> Preset:
    """Build a preset from the mapping that a YAML file holds.

    Raises:
        UsageError: a key is unknown, or a value of the recipe is out of range.
    """
    unknown = sorted(str(key) for key in items.keys() - {"field", "recipe"})
    if unknown:
        raise UsageError(f"{', '.join(unknown)}: not a part of a preset; `field` and `recipe` are")
    given = dict(items.get("field", {}))
    name = given.pop("name", None)
    base = default(kind) if name is None else for_field(kind, name)
    recipe = items.get("recipe", {})
    known = {f.name for f in dataclasses.fields(Recipe)}
    for key in sorted(map(str, recipe.keys() - known)):
        raise UsageError(f"recipe.{key}: no such setting; choose from {', '.join(sorted(known))}")
    return Preset(
        base.field,
        # null leaves a hyperparameter to the field
        {k: v for k, v in (base.hyperparameters | given).items() if v is not None},
        dataclasses.replace(base.recipe, **recipe),
    )


def for_field(kind: str, field_name: str) -> Preset:
    """The preset of a field on a kind of signal; general defaults where none is shipped."""
    name = f"{kind}/{field_name}"
    if name not in names():
        return Preset(field_name)
    items = read(_root() / f"{name}.yaml")
    hyperparameters = {k: v for k, v in items["field"].items() if k != "name"}
    return Preset(field_name, hyperparameters, Recipe(**items["recipe"]))


def default(kind: str) -> Preset:
    """What is used where the user chooses nothing."""
    return load(DEFAULTS[kind], kind)


def _root() -> Path:
    return Path(str(importlib.resources.files("configs").joinpath("image"))).parent


def _loader() -> Any:
    """Safe YAML in which 1e-4 is a number, as it is on the command line (YAML 1.1: a text)."""
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        pass

    number = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    return Loader


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
