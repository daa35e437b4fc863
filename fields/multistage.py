"""Multi-stage networks: a sum of networks, each of which refines what the earlier ones left.

Y. Wang, C.-Y. Lai, "Multi-stage Neural Networks: Function Approximator of Machine Precision",
Journal of Computational Physics 504 (2024), arXiv:2307.08934, with the authors' regression code.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.base import (
    Field,
    FieldError,
    SignalStatistics,
    StoredTensor,
    check_axes,
    one_each,
    positive,
    whole,
)
from fields.compose import (
    NO_OPTIONS,
    build,
    options_each,
    record,
    scaled_options,
    stored_in,
)

MAX_STAGES = 16


class SumOfNetworks(Field):
    """What fields have in common that add up networks, from coarse to fine.

    Args:
        in_features: Coordinates per point.
        out_features: Values per point.
        base: Registered name of the networks, one for all or a list of one per network.
        options: Hyperparameters of each network.

    Raises:
        FieldError: a hyperparameter is out of range.
    """

    def __init__(
        self, in_features: int, out_features: int, *, base: str | list[str], options: list[Any]
    ) -> None:
        super().__init__(in_features, out_features)
        names = one_each("base", base, len(options))
        self.stages = nn.ModuleList(
            build(self, "base", name, in_features, out_features, given)
            for name, given in zip(names, options, strict=True)
        )
        record(self, "base", self.networks)
        self.smoothness = min(network.smoothness for network in self.networks)

    @property
    def networks(self) -> list[Field]:
        """The networks, coarse to fine."""
        return [cast(Field, network) for network in self.stages]

    @property
    def widest(self) -> int:
        return max(network.widest for network in self.networks)

    @property
    def drawn(self) -> int:
        return sum(network.drawn for network in self.networks)

    @contextlib.contextmanager
    def one_step(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for network in self.networks:
                stack.enter_context(network.one_step())
            yield

    def output_parameters(self) -> list[nn.Parameter]:
        return [p for network in self.networks for p in network.output_parameters()]

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        return [group for network in self.networks for group in network.learning_rates()]

    def own_stored(self) -> list[StoredTensor]:
        """What is stored besides the networks' own tensors, before them."""
        return []

    def stored_parameters(self) -> list[StoredTensor]:
        """What all have in common, then network by network."""
        return self.own_stored() + stored_in("stages", self.networks)

    def groups(self) -> list[int]:
        """What all have in common with the first network, then network by network."""
        first, *later = (len(network.stored_parameters()) for network in self.networks)
        return [len(self.own_stored()) + first, *later]

    def regenerate(self) -> None:
        for network in self.networks:
            network.regenerate()


class MultiStage(SumOfNetworks):
    """u(x) = sum over s of eps_s N_s(kappa_s x), s = 1..S, added in that order.

    eps_s is the size of what stage s refines, so that N_s has values near 1 whatever it is. kappa_s
    is its frequency, one number per coordinate. kappa_s multiplies the coordinates, which for a
    network whose first layer is a(W x + b) is the authors' a(kappa_s W x + b). Neither is trained;
    both are stored. Stages are added from large to small, so that rounding of the small ones is
    not lost on the large ones.

    `inr.fit` fits one stage after the other and sets eps_s and kappa_s from the residue. Until
    then eps_1 = kappa_s = 1 and the other eps_s are 0, which makes their stages no part of it.

    Networks of an array of float64 are float64, in memory and in the file. Float32 caps the
    relative error near 1e-7.

    Args:
        in_features: Coordinates per point, d.
        out_features: Values per point.
        stages: Number S of stages.
        base: Registered name of the networks N_s, one for all stages or a list of one per stage.
        base_options: Hyperparameters of the networks, or a list of one set per stage. "tanh" has
            the authors' `first` where they give none: "tanh" in the first stage, then "sin".
        crossings: kappa_s, s > 1, over the number of times that the residue crosses zero along an
            axis. The authors' 3 is for a first layer of about unit weights; a base with a
            frequency omega of its own, such as "siren", needs about 1.5 / omega.

    Raises:
        FieldError: a hyperparameter is out of range, or a base means nothing beyond [-1, 1], where
            kappa_s x lies.
    """

    scales: Tensor
    kappas: Tensor

    training_only = ("crossings",)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        stages: int = 4,
        base: str | list[str] = "tanh",
        base_options: dict[str, Any] | list[Any] = NO_OPTIONS,
        crossings: float = 3.0,
    ) -> None:
        count = whole("stages", stages, 1, MAX_STAGES)
        names = one_each("base", base, count)
        options = options_each("base_options", base_options, count)
        for stage, (name, given) in enumerate(zip(names, options, strict=True)):
            if name == "tanh" and isinstance(given, Mapping):
                options[stage] = {"first": "sin" if stage else "tanh", **given}
        super().__init__(in_features, out_features, base=base, options=options)
        self.crossings = positive("crossings", crossings, 1e6)
        for name, network in list(zip(names, self.networks, strict=True))[1:]:
            if not network.extends:
                raise FieldError(
                    f"base {name}: it means nothing beyond [-1, 1], where later stages look; "
                    "choose a network of formulas, such as tanh or siren"
                )
        self.register_buffer("scales", torch.zeros(count))
        self.register_buffer("kappas", torch.ones(count, in_features))
        self.scales[0] = 1.0
        self.extends = self.networks[0].extends

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        parts = zip(self.scales, self.kappas, self.networks, strict=True)
        return functools.reduce(
            torch.add, (scale * network(kappa * coords) for scale, kappa, network in parts)
        )

    def on_grid(self, axes: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, "*shape d_out"]:
        """Every stage on its own, scaled lattice."""
        check_axes(self, axes)
        parts = zip(self.scales, self.kappas, self.networks, strict=True)
        terms = (
            scale * network.on_grid([k * axis for k, axis in zip(kappa, axes, strict=True)])
            for scale, kappa, network in parts
        )
        return functools.reduce(torch.add, terms)

    @torch.no_grad()
    def set_stage(self, stage: int, scale: float, kappa: Sequence[float]) -> None:
        """Set eps and kappa of a stage, counted from 0; a scale of 0 takes the stage out."""
        self.scales[stage] = scale
        self.kappas[stage] = torch.tensor(kappa, dtype=torch.float64).to(self.kappas)

    def adapt(self, statistics: SignalStatistics) -> None:
        """Initialise the first stage; of what the others fit nothing is known yet."""
        self.networks[0].adapt(statistics)
        record(self, "base", self.networks)

    @classmethod
    def scaled(cls, given: Mapping[str, Any], factor: float) -> dict[str, Any]:
        """The units of the networks; there are as many stages."""
        parts = given.get("base", "tanh"), given.get("base_options", NO_OPTIONS)
        return dict(given) | {"base_options": scaled_options(*parts, factor)}

    def own_stored(self) -> list[StoredTensor]:
        """Eps and kappa, a row and thus a step for each stage."""
        return [
            StoredTensor("scales", self.scales, per_row=True),
            StoredTensor("kappas", self.kappas, per_row=True),
        ]
