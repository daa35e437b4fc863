"""Windows: many small fields side by side along one axis, with smooth joins.

One network for a long sound costs, per sample, as much as all its weights. Here each stretch has a
small network of its own, and a point is evaluated by the one or two that hold it: its cost is that
of one stretch, whatever their number. So do C. Reiser, S. Peng, Y. Liao, A. Geiger, "KiloNeRF:
Speeding up Neural Radiance Fields with Thousands of Tiny MLPs", ICCV 2021, arXiv:2103.13744, in
space and without joins; the joins are a partition of unity, as in B. Moseley, A. Markham,
T. Nissen-Meyer, "Finite basis physics-informed neural networks (FBPINNs)", Adv. Comput. Math. 49
(2023), arXiv:2107.07871, which also shifts and scales the values of each window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fields.base import Field, FieldError, SignalStatistics, StoredTensor, positive, whole
from fields.compose import NO_OPTIONS, build, record, scaled_options
from fields.doh import Projected

MAX_WINDOWS = 1 << 16

SAMPLES = 4096
"""Length of a cell where only the length of the signal is known."""

UNEVEN = 1.25
"""Where the fullest window has more points than so many times the mean, its points are dealt out
to several rows of the batch: padding all windows to its size would cost more."""


class Windows(Field):
    """y(x) = a + sum over k of w_k(x) (m_k + g_k N_k(x^k)), k = 1..K; at most two terms count.

    The first axis of [-1, 1]^d is cut into K equal cells. Window k is cell k and half an overlap
    on either side of it; x^k is x with that stretch mapped on [-1, 1], other axes as they are. In
    a join, around the border of two cells, w falls from 1 to 0 and rises from 0 to 1 as
    6 t^5 - 15 t^4 + 10 t^3, which has two continuous derivatives; a point's two weights sum to 1.
    The networks have one structure, and each has parameters of its own. a + m_k and g_k are the
    mean (per channel) and the standard deviation of the signal in window k, found before fitting
    and stored. Where it is constant nothing is trained, and the network holds zeros; a is the value
    of the most such windows, so that silence is as exact as one number. For a field without a
    signal a and m_k are 0, g_k is 1.

    Args:
        in_features: Coordinates per point, d.
        out_features: Values per point.
        count: Number K of windows.
        overlap: Length of a join as a part of a cell's, above 0, at most 1.
        base: Registered name of the networks N_k.
        base_options: Their hyperparameters.

    Raises:
        FieldError: a hyperparameter is out of range, here or in the base; the base is generated
            from a code; or it chooses some hyperparameter itself, not the same in all windows.
    """

    ground: Tensor
    means: Tensor
    levels: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        count: int = 8,
        overlap: float = 0.125,
        base: str = "siren",
        base_options: dict[str, Any] | list[Any] = NO_OPTIONS,
    ) -> None:
        super().__init__(in_features, out_features)
        self.count = whole("count", count, 1, MAX_WINDOWS)
        self.overlap = positive("overlap", overlap, 1.0)
        self._base = (base, base_options)
        self.network = self._part()
        if any(isinstance(module, Projected) for module in self.network.modules()):
            raise FieldError(
                f"base {base}: a code cannot be trained for many windows at once; make windows "
                "the target of doh or pranc instead"
            )
        record(self, "base", [self.network])
        self.smoothness = min(self.network.smoothness, 2)
        self.extends = self.network.extends
        self.register_buffer("ground", torch.zeros(out_features))
        self.register_buffer("means", torch.zeros(self.count, out_features))
        self.register_buffer("levels", torch.ones(self.count))
        self._stack()

    def _part(self) -> Field:
        """A network as it is before training."""
        name, options = self._base
        return build(self, "base", name, self.in_features, self.out_features, options)

    @torch.no_grad()
    def _stack(self) -> None:
        """Give every parameter of the network a first axis for the windows."""
        first = self._numbers()
        for name, parameter in first.items():
            path, _, last = name.rpartition(".")
            shape = (self.count, *parameter.shape)
            stacked = nn.Parameter(parameter.new_empty(shape), parameter.requires_grad)
            setattr(self.network.get_submodule(path), last, stacked)
        if any(parameter.is_meta for parameter in first.values()):
            return  # where a file is checked: there is nothing to draw
        self._put(0, first)
        for k in range(1, self.count):
            part = self._part()
            self._same(part)
            self._put(k, dict(part.named_parameters()))

    def _numbers(self) -> dict[str, Tensor]:
        """The parameters of the networks by name, those of all windows in one tensor."""
        return dict(self.network.named_parameters())

    def _put(self, k: int, numbers: dict[str, Tensor]) -> None:
        for name, stacked in self._numbers().items():
            stacked[k] = numbers[name].to(stacked)

    def _same(self, part: Field) -> None:
        """Refuse what a part has chosen differently: it cannot be shared."""
        for name, value in self.network.hyperparameters.items():
            if part.hyperparameters[name] != value:
                raise FieldError(
                    f"base {self._base[0]}: chooses its {name} itself, differently in each "
                    f"window; give it in base_options"
                )

    def chain(self) -> Field:
        return self.network

    @property
    def widest(self) -> int:
        return self.network.widest

    @property
    def drawn(self) -> int:
        return self.network.drawn

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        points = coords.reshape(-1, self.in_features)
        if coords.is_meta or len(points) == 0:
            return coords.new_empty(*coords.shape[:-1], self.out_features)
        share = self._shares(points[:, 0])
        # a window's own coordinate, rounded once: in float32 a place in a long signal is coarse
        places = (share.place - (share.window + 0.5)) * (2 / (1 + self.overlap))
        local = torch.cat([places[:, None].to(points), points[share.point, 1:]], dim=-1)

        deal = _deal(share.window, self.count)
        rows = local.new_zeros(deal.windows.numel() * deal.length, self.in_features)
        rows = rows.index_copy(0, deal.slots, local).unflatten(0, (-1, deal.length))
        numbers = {
            name: stacked if deal.all_once else stacked.index_select(0, deal.windows)
            for name, stacked in self._numbers().items()
        }

        def call(numbers: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(self.network, numbers, (x,))

        engine = self.network.engine
        if engine is not None:
            values = engine.networks(self.network, None if deal.all_once else deal.windows, rows)
        else:
            values = vmap(call)(numbers, rows)
        values = values.flatten(0, 1).index_select(0, deal.slots)
        values = self.means[share.window] + self.levels[share.window, None] * values
        weighted = share.weight[:, None].to(values) * values
        total = weighted.new_zeros(len(points), self.out_features)
        blend = self.ground + total.index_add(0, share.point, weighted)
        return blend.reshape(*coords.shape[:-1], -1)

    def _shares(self, x: Float[Tensor, " n"]) -> _Shares:
        """Which windows hold which points: first each point's own cell, then what lies in joins."""
        place = (x.double() + 1) * (self.count / 2)
        cell = place.detach().floor().clamp(0, self.count - 1)
        within = place - cell
        neighbour = cell + (2 * (within > 0.5) - 1)
        depth = torch.minimum(within, 1 - within)  # below the nearer border
        held = (neighbour >= 0) & (neighbour < self.count)
        t = torch.where(held, 0.5 + depth / self.overlap, 1.0).clamp(max=1)
        weight = t**3 * (10 + t * (6 * t - 15))
        joined = torch.nonzero(held & (2 * depth < self.overlap))[:, 0]
        return _Shares(
            torch.cat([torch.arange(len(x), device=x.device), joined]),
            torch.cat([cell, neighbour[joined]]).long(),
            torch.cat([place, place[joined]]),
            torch.cat([weight, 1 - weight[joined]]),
        )

    @torch.no_grad()
    def adapt(self, statistics: SignalStatistics) -> None:
        """Start each network from its own piece of the signal, of which it takes the level."""
        n = statistics.shape[0]
        length = max(1, round(n * (1 + self.overlap) / self.count))
        others = [slice(None)] * (self.in_features - 1)
        for k in range(self.count):
            start = round((k - self.overlap / 2) * n / self.count)
            start = min(max(start, 0), max(n - length, 0))
            piece = statistics.part((slice(start, start + length), *others))
            flat = piece.reshape(-1, self.out_features).double()
            mean = flat.mean(0)
            level = (flat - mean).square().mean().sqrt()
            constant = bool((flat == flat[0]).all())
            self.means[k] = flat[0] if constant else mean
            self.levels[k] = 0.0 if constant else level
            part = self._part()
            if constant:
                self._put(k, {name: 0 * p for name, p in part.named_parameters()})
                continue
            part.adapt(SignalStatistics(((piece - mean) / level).to(piece)))
            self._same(part)
            self._put(k, dict(part.named_parameters()))
        silent = self.means[self.levels == 0]
        if len(silent):
            values, counts = silent.unique(dim=0, return_counts=True)
            self.ground.copy_(values[counts.argmax()])
        self.means -= self.ground

    @classmethod
    def suggest(cls, shape: Sequence[int]) -> dict[str, Any]:
        """Cells of SAMPLES samples."""
        return {"count": min(MAX_WINDOWS, max(1, round(shape[0] / SAMPLES)))}

    @classmethod
    def scaled(cls, given: Mapping[str, Any], factor: float) -> dict[str, Any]:
        """The units of the networks; there are as many windows."""
        parts = given.get("base", "siren"), given.get("base_options", NO_OPTIONS)
        return dict(given) | {"base_options": scaled_options(*parts, factor)}

    def output_parameters(self) -> list[nn.Parameter]:
        return self.network.output_parameters()

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        return self.network.learning_rates()

    def stored_parameters(self) -> list[StoredTensor]:
        """Ground, means and levels, then each tensor of the networks, of all windows at once."""
        own = [StoredTensor(name, getattr(self, name)) for name in ("ground", "means", "levels")]
        return own + [
            StoredTensor(f"network.{stored.name}", stored.tensor)
            for stored in self.network.stored_parameters()
        ]

    def regenerate(self) -> None:
        self.network.regenerate()


class _Shares(NamedTuple):
    """Pairs of a point and a window that holds it.

    Args:
        point: Number of the point.
        window: Number of the window.
        place: Where the point lies, in cells from the beginning; float64.
        weight: What the window counts at the point; float64.
    """

    point: Int[Tensor, " pairs"]
    window: Int[Tensor, " pairs"]
    place: Float[Tensor, " pairs"]
    weight: Float[Tensor, " pairs"]


class _Deal(NamedTuple):
    """Pairs dealt out to rows of one length, each row to one window.

    Args:
        windows: Each row's window.
        length: Length of the rows.
        slots: Each pair's place in the rows, one after the other.
        all_once: Whether there is just one row for each window, in order.
    """

    windows: Int[Tensor, " rows"]
    length: int
    slots: Int[Tensor, " pairs"]
    all_once: bool


def _deal(window: Int[Tensor, " pairs"], count: int) -> _Deal:
    """Deal out pairs so that rows are nearly full, however unevenly windows are met."""
    order = torch.argsort(window, stable=True)
    sizes = torch.bincount(window, minlength=count)
    full = int(sizes.max())
    mean = -(-len(window) // int((sizes > 0).sum()))
    length = full if full <= UNEVEN * mean else -(-mean // 4)
    rows = (sizes + length - 1) // length
    ends = sizes.cumsum(0)
    sorted_window = window[order]
    within = torch.arange(len(window), device=window.device) - (ends - sizes)[sorted_window]
    first = rows.cumsum(0) - rows
    slots = torch.empty_like(window)
    slots[order] = (first[sorted_window] + within // length) * length + within % length
    windows = torch.repeat_interleave(torch.arange(count, device=window.device), rows)
    return _Deal(windows, length, slots, bool((rows == 1).all()))
