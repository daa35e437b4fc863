"""What makes files larger or smaller: one dial for each fit, marked in octaves of their size.

A field that is trained for its rate, such as a grid, has that rate's weight as its dial; any other
has its own size. Octaves are of the size that is expected: a model of what is measured (`model.py`)
corrects them.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fields import registry
from fields.base import FieldError
from fields.sizes import LARGEST, SMALLEST, at_most, stored_scalars
from inr.errors import FitError
from inr.presets import Preset

if TYPE_CHECKING:
    from fields.base import Field
    from inr.signals.base import Signal

OCTAVES_PER_WEIGHT = 0.6
"""Octaves of a grid's size for each octave of its rate's weight, on photographs."""

WEIGHT_RANGE = (1e-7, 1e3)

BYTES_PER_SCALAR = 0.75
"""Of a network whose steps cost half a dB."""

BYTES_PER_SAMPLE = 0.12
"""Of a grid on a photograph at the weight of its preset."""


class Dial(ABC):
    """A preset that can be turned to larger and smaller files.

    Attributes:
        low: How far down it can be turned, in octaves of the expected size.
        high: How far up.
        expected: log2 of the bytes that are expected at 0.
    """

    low: float
    high: float
    expected: float

    @abstractmethod
    def preset(self, turn: float) -> Preset:
        """What is to be fitted at a place of the dial."""

    @abstractmethod
    def label(self, preset: Preset) -> str:
        """What is turned, and how far, for people."""


class WeightDial(Dial):
    """Turns the weight of the rate, for a field of any size.

    Args:
        preset: What stands at 0.
        samples: Samples of the signal.
    """

    def __init__(self, preset: Preset, samples: int) -> None:
        self._preset = preset
        low, high = (math.log2(weight / preset.recipe.rate_weight) for weight in WEIGHT_RANGE)
        self.low, self.high = -high * OCTAVES_PER_WEIGHT, -low * OCTAVES_PER_WEIGHT
        self.expected = math.log2(BYTES_PER_SAMPLE * samples)

    def preset(self, turn: float) -> Preset:
        recipe = self._preset.recipe
        weight = recipe.rate_weight * 2 ** (-turn / OCTAVES_PER_WEIGHT)
        recipe = dataclasses.replace(recipe, rate_weight=weight)
        return dataclasses.replace(self._preset, recipe=recipe)

    def label(self, preset: Preset) -> str:
        return f"rate_weight {preset.recipe.rate_weight:.2g}"


class SizeDial(Dial):
    """Turns the size of the field.

    A weight of the rate that the recipe has goes along: on the curve of a field's best sizes D
    falls about as 1 / R, where the weight is -dD/dR = D/R.

    Args:
        preset: What stands at 0; its hyperparameters are complete.
        signal: What is fitted.
        fixed_weight: Whether the weight of the rate stays.
    """

    def __init__(self, preset: Preset, signal: Signal, *, fixed_weight: bool = False) -> None:
        self._preset = preset
        self._fixed_weight = fixed_weight
        domain = signal.domain
        self._shape, self._channels = domain.shape, domain.channels
        self._scalars = self._count(preset.hyperparameters)
        # of a field that chooses its ranks itself the numbers are known with the signal only
        cls = registry.field_class(preset.field)
        larger = cls.scaled(preset.hyperparameters, 2.0)
        self._countable = self._count(larger) != self._scalars
        if self._countable:
            self._smallest = self._find_smallest()
            self.low = math.log2(self._count(self._smallest) / self._scalars)
            self.high = 2 * math.log2(LARGEST)
            self.expected = math.log2(BYTES_PER_SCALAR * self._scalars)
        else:
            self.low, self.high = 2 * math.log2(SMALLEST), 2 * math.log2(LARGEST)
            self.expected = math.log2(BYTES_PER_SAMPLE * math.prod(domain.shape))

    def preset(self, turn: float) -> Preset:
        if self._countable:
            wanted = max(1, round(self._scalars * 2**turn))
            place = self._preset.field, self._shape, self._channels
            given = at_most(wanted, *place, self._preset.hyperparameters)
            hyperparameters = self._smallest if given is None else given
        else:
            hyperparameters = self._scaled(2 ** (turn / 2))
        recipe = self._preset.recipe
        if recipe.rate_weight and not self._fixed_weight:
            recipe = dataclasses.replace(recipe, rate_weight=recipe.rate_weight * 4.0**-turn)
        return Preset(self._preset.field, hyperparameters, recipe)

    def label(self, preset: Preset) -> str:
        if not self._countable:
            return f"start_psnr {preset.hyperparameters['start_psnr']:.1f}"
        return f"{self._count(preset.hyperparameters):,} numbers"

    def _count(self, hyperparameters: Mapping[str, Any]) -> int:
        axes = len(self._shape)
        return stored_scalars(self._preset.field, axes, self._channels, hyperparameters)

    def _find_smallest(self) -> dict[str, Any]:
        """Hyperparameters of about the smallest field that can be built."""
        factor = SMALLEST
        while True:
            try:
                self._count(self._scaled(factor))
            except FieldError:
                factor *= 1.25
                if factor > 1:
                    raise
            else:
                return self._scaled(factor)

    def _scaled(self, factor: float) -> dict[str, Any]:
        cls = registry.field_class(self._preset.field)
        return cls.scaled(self._preset.hyperparameters, factor)


class NoDial(Dial):
    """A field that stays as it is: only its coding can be chosen.

    Args:
        preset: What is fitted.
        field: The field, if it is given.
    """

    low = high = 0.0

    def __init__(self, preset: Preset, field: Field) -> None:
        self._preset = preset
        scalars = sum(stored.tensor.numel() for stored in field.stored_parameters())
        self.expected = math.log2(BYTES_PER_SCALAR * max(1, scalars))

    def preset(self, turn: float) -> Preset:
        return self._preset

    def label(self, preset: Preset) -> str:
        return "the field as given"


def suited(preset: Preset, signal: Signal, weight: float | None) -> Dial:
    """The dial of a field: the weight of its rate, if it has one and none is given, or its size.

    Raises:
        FitError: field and signal do not belong together.
    """
    domain = signal.domain
    try:
        cls = registry.field_class(preset.field)
        complete = cls.complete(domain.shape, preset.hyperparameters)
        preset = dataclasses.replace(preset, hyperparameters=complete)
        if weight is None and has_rate(preset, signal):
            return WeightDial(preset, signal.count * domain.channels)
        return SizeDial(preset, signal, fixed_weight=weight is not None)
    except FieldError as error:
        raise FitError(str(error)) from None


def has_rate(preset: Preset, signal: Signal) -> bool:
    """Whether a field is trained for its rate from the beginning (see `Field.rate`)."""
    import torch

    if not preset.recipe.rate_weight:
        return False
    shape, channels = signal.domain.shape, signal.domain.channels
    given = registry.field_class(preset.field).complete(shape, preset.hyperparameters)
    with torch.random.fork_rng(devices=[]):
        return registry.create(preset.field, len(shape), channels, **given).rate() is not None
