"""Networks that are trained together so that the first of them already make a coarser signal.

After the streamable progressive INRs of M. Conde et al., "Streaming Neural Images", ICIP 2024,
arXiv:2409.17134. The layout is ours.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fields.base import SignalStatistics, check_axes, whole, within
from fields.compose import NO_OPTIONS, options_each, record, scaled_options
from fields.multistage import MAX_STAGES, SumOfNetworks


class Progressive(SumOfNetworks):
    """u_S(x), where u_s(x) = N_1(x) + ... + N_s(x): every sum is trained towards the signal.

    A file holds one network after the other, so that its first bytes already render as u_1, and
    each layer that arrives improves it. In contrast to `multistage` all networks are trained at
    once. Sums before the last have a small weight in that: what each costs the whole field is the
    price of its own quality. docs/benchmarks/progressive.md compares layouts and weights.

    Args:
        in_features: Coordinates per point.
        out_features: Values per point.
        stages: Number S of networks.
        base: Registered name of the networks, one for all or a list of one per network.
        base_options: Hyperparameters of the networks, or a list of one set per network. Small
            networks of low frequencies are to come first.
        prefix_weight: Weight of the squared error of each sum before the last, where that of the
            last is 1.

    Raises:
        FieldError: a hyperparameter is out of range.
    """

    layered = True
    training_only = ("prefix_weight",)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        stages: int = 2,
        base: str | list[str] = "siren",
        base_options: dict[str, Any] | list[Any] = NO_OPTIONS,
        prefix_weight: float = 0.1,
    ) -> None:
        count = whole("stages", stages, 1, MAX_STAGES)
        options = options_each("base_options", base_options, count)
        super().__init__(in_features, out_features, base=base, options=options)
        self.prefix_weight = within("prefix_weight", prefix_weight, 0.0, 1.0)
        self.extends = all(network.extends for network in self.networks)
        self._present = count

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        terms = (network(coords) for network in self.networks[: self._present])
        return functools.reduce(torch.add, terms)

    def on_grid(self, axes: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, "*shape d_out"]:
        check_axes(self, axes)
        terms = (network.on_grid(axes) for network in self.networks[: self._present])
        return functools.reduce(torch.add, terms)

    def supervised(self, axes: Sequence[Float[Tensor, " _"]]) -> list[Tensor]:
        return self._weighted([network.on_grid(axes) for network in self.networks])

    def supervised_at(self, coords: Float[Tensor, "*batch d_in"]) -> list[Tensor]:
        return self._weighted([network(coords) for network in self.networks])

    def _weighted(self, terms: Sequence[Tensor]) -> list[Tensor]:
        """u_1 ... u_S; a gradient that comes back through those before the last has its weight."""
        *prefixes, last = itertools.accumulate(terms)
        weight = self.prefix_weight
        return [*(weight * u + (1 - weight) * u.detach() for u in prefixes), last]

    def adapt(self, statistics: SignalStatistics) -> None:
        """Initialise each network from the signal."""
        for network in self.networks:
            network.adapt(statistics)
        record(self, "base", self.networks)

    def load_stored(self, values: Mapping[str, Tensor]) -> None:
        super().load_stored(values)
        self._present = len(self.networks)

    def leave_out(self, first: int) -> None:
        """Networks of which nothing is there are not evaluated; the first one always is."""
        begins = [0, *itertools.accumulate(self.groups())][:-1]
        self._present = max(1, sum(begin < first for begin in begins))

    @classmethod
    def scaled(cls, given: Mapping[str, Any], factor: float) -> dict[str, Any]:
        """The units of the networks; there are as many."""
        parts = given.get("base", "siren"), given.get("base_options", NO_OPTIONS)
        return dict(given) | {"base_options": scaled_options(*parts, factor)}
