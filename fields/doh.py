"""Weights from a short code: D'OH and PRANC.

C. Gordon, L. E. MacDonald, H. Saratchandran, S. Lucey, "D'OH: Decoder-Only Random Hypernetworks
for Implicit Neural Representations", ACCV 2024, arXiv:2403.19163; P. Nooralinejad, A. Abbasi,
S. Koohpayegani, K. Pourahmadi, R. Khan, S. Kolouri, H. Pirsiavash, "PRANC: Pseudo RAndom Networks
for Compacting Deep Models", ICCV 2023, arXiv:2206.08464.

Both write the weights of a target network as fixed random combinations of the numbers of a code:
vec(W_l) = s_l B_l^T z. The basis B_l, one row for each number of the code, is drawn from a seed, so
that a file holds the code, the seed and what is not generated.
"""

from __future__ import annotations

import contextlib
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from fields import seeded
from fields.base import Field, FieldError, SignalStatistics, whole
from fields.compose import NO_OPTIONS, build, record, scaled_options
from fields.octaves import eighth

CACHE_BYTES = 256 << 20
"""A basis of float32 up to this size is kept in memory; a larger one is drawn anew at each use."""

CHUNK_BYTES = 16 << 20
"""Size in float32 of the rows of a basis that are worked on at once, or of one row, if that is
larger."""

MAX_LATENTS = 1 << 16

STREAM = 1 << 31
"""First stream of the seed: a target that freezes numbers of its own draws from the lower ones."""

GRAIN = 2.0**-16
LIMIT = (1 << 27) - 1
"""In whole multiples of GRAIN, the largest magnitude that a number of the code counts with: sums of
MAX_LATENTS such, times entries of 8 bits, stay below 2^53, so that float64 adds them exactly."""

NO_SPREAD = 0.0625
"""Size of a generated tensor that its target starts at zero, and which thus has none of its own."""

SCALES: list[int] = []


class Projected(Field):
    """A target field whose weights are s_l B_l^T z; subclasses say which, and how B is drawn.

    Entries of B are odd whole numbers of `bits` bits. Where no gradient is taken, a float32
    field's weights are exact: z is rounded to multiples of 2^-16 (and held within 2048), sums are
    whole numbers in float64, and one rounding to float32 follows; they are the same bits on every
    machine, for any number of threads and any size of chunks. With a gradient, float32 does.

    Attributes:
        bits: Bits of an entry of the basis.
        code: z, the trained code.
    """

    bits: ClassVar[int]
    sizes = ("latents",)
    basis: Tensor | None

    @classmethod
    def scaled(cls, given: Mapping[str, Any], factor: float) -> dict[str, Any]:
        """The code, and so many more units of the target that its weights grow with it."""
        parts = given.get("target", "siren"), given.get("target_options", NO_OPTIONS)
        options = scaled_options(*parts, math.sqrt(factor))
        return super().scaled(given, factor) | {"target_options": options}

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        target: str,
        target_options: dict[str, Any] | list[Any],
        latents: int,
        seed: int,
        scales: list[int],
    ) -> None:
        super().__init__(in_features, out_features)
        count = whole("latents", latents, 1, MAX_LATENTS)
        self.seed = whole("seed", seed, 0, seeded.MAX_SEED)
        net = build(self, "target", target, in_features, out_features, target_options)
        record(self, "target", [net])
        self.smoothness, self.extends = net.smoothness, net.extends
        self.code = nn.Parameter(self.start(count))
        self.target = _Methods(net)
        self._names = self._release()
        self._shapes = [tensor.shape for tensor in self._placeholders()]
        self._sizes = [shape.numel() for shape in self._shapes]
        if count > sum(self._sizes):
            raise FieldError(
                f"latents is {count}: the target has only {sum(self._sizes)} numbers to generate; "
                "give fewer latents, or a larger target"
            )
        small = 4 * count * sum(self._sizes) <= CACHE_BYTES
        cache = torch.empty(count, sum(self._sizes)) if small else None
        self.register_buffer("basis", cache, persistent=False)
        self._measured = not scales
        self._factors: list[float] = []
        if scales:
            self._set_scales(scales)
        else:
            self._measure()
        self._shared: dict[bool, tuple[Tensor, Tensor]] | None = None
        self.regenerate()

    @abstractmethod
    def start(self, count: int) -> Float[Tensor, " n"]:
        """The code before training."""

    @abstractmethod
    def is_free(self, tensor: Tensor) -> bool:
        """Whether a tensor of the target is trained and stored itself."""

    @abstractmethod
    def pace(self) -> float:
        """The code's learning rate as a factor on the recipe's."""

    @abstractmethod
    def variance(self) -> float:
        """What B_l^T z is to be divided by, squared, for unit variance."""

    def _release(self) -> list[str]:
        """Turn what is generated from parameters into buffers; returns their names in order.

        The buffers are places that generated tensors are put into. They keep the target's own
        initial values, from which the scales are measured.
        """
        names = []
        for name, parameter in list(self.target.named_parameters()):
            if not self.is_free(parameter):
                path, _, last = name.rpartition(".")
                owner = self.target.get_submodule(path)
                delattr(owner, last)
                owner.register_buffer(last, parameter.detach(), persistent=False)
                names.append(name)
        return names

    def _placeholders(self) -> list[Tensor]:
        return [self.target.get_buffer(name) for name in self._names]

    @torch.no_grad()
    def _measure(self) -> None:
        """Settle the scales at the root mean squares of the target's tensors as they are now."""
        tensors = self._placeholders()
        if any(tensor.is_meta for tensor in tensors):
            return
        sizes = [float(tensor.double().square().mean().sqrt()) or NO_SPREAD for tensor in tensors]
        scales = [round(8 * math.log2(size)) for size in sizes]
        self.settle("scales", scales)
        self._set_scales(scales)

    def _set_scales(self, scales: Sequence[int]) -> None:
        if len(scales) != len(self._names):
            raise FieldError(
                f"scales has {len(scales)} numbers: give one for each of the "
                f"{len(self._names)} generated tensors, or none to have them measured"
            )
        self._factors = [
            eighth(whole("scales", index, -512, 512)) / math.sqrt(self.variance())
            for index in scales
        ]

    @property
    def widest(self) -> int:
        return self.target.field.widest

    @property
    def drawn(self) -> int:
        return self.code.numel() * sum(self._sizes) + self.target.field.drawn

    def forward(self, coords: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        return self._call("__call__", coords)

    def on_grid(self, axes: Sequence[Float[Tensor, " _"]]) -> Float[Tensor, "*shape d_out"]:
        """As the target does it."""
        return self._call("on_grid", axes)

    def supervised(self, axes: Sequence[Float[Tensor, " _"]]) -> list[Tensor]:
        return self._call("supervised", axes)

    def supervised_at(self, coords: Float[Tensor, "*batch d_in"]) -> list[Tensor]:
        return self._call("supervised_at", coords)

    def rate(self) -> Tensor | None:
        """The target's, of what is generated."""
        return self._call("rate")

    def adapt(self, statistics: SignalStatistics) -> None:
        """Let the target adapt; scales that were not given follow the sizes of its tensors."""
        self.target.field.adapt(statistics)
        record(self, "target", [self.target.field])
        if self._measured:
            self._measure()

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """The code at its own pace, what is free as the target has it."""
        free = [
            ([p for p in group if isinstance(p, nn.Parameter)], factor)
            for group, factor in self.target.field.learning_rates()
        ]
        return [([self.code], self.pace()), *free]

    @torch.no_grad()
    def regenerate(self) -> None:
        """Draw the basis, where it is kept, and what the target draws."""
        if not self._factors and not self.code.is_meta:
            raise FieldError("scales is []: what is rebuilt from a file needs them")
        self.target.field.regenerate()
        if self.basis is not None and not self.basis.is_meta:
            for rows in self._chunks():
                self.basis[rows] = self._draw(rows)

    @contextlib.contextmanager
    def one_step(self) -> Iterator[None]:
        """Within it weights are generated once; the code's gradient comes as it ends."""
        if self._shared is not None:
            yield
            return
        self._shared = {}
        try:
            with self.target.field.one_step():
                yield
            for weights, leaf in self._shared.values():
                if leaf.grad is not None:
                    weights.backward(leaf.grad)
        finally:
            self._shared = None

    def weights(self) -> dict[str, Tensor]:
        """The generated tensors by name, as the target has them."""
        # of a rendering amid training, only the passes that are trained may take the quick sums
        learning = torch.is_grad_enabled() and self.code.requires_grad
        if self._shared is None:
            flat = self._generate(learning)
        else:
            if learning not in self._shared:
                made = self._generate(learning)
                self._shared[learning] = made, made.detach().requires_grad_(learning)
            flat = self._shared[learning][1]
        parts = flat.split(self._sizes)
        shaped = [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]
        return dict(zip(self._names, shaped, strict=True))

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the target with generated weights in it."""
        return torch.func.functional_call(self.target, self.weights(), (method, *arguments))

    def _generate(self, learning: bool) -> Float[Tensor, " numbers"]:
        """All generated numbers, tensor by tensor."""
        if not learning and self.code.dtype == torch.float32:
            sums: Tensor = self._exact_sums()
        elif self.basis is not None:
            sums = self.code @ self.basis
        else:
            sums = _Combination.apply(self.code, self)
        parts = zip(sums.split(self._sizes), self._factors, strict=True)
        return torch.cat([part * factor for part, factor in parts]).to(self.code.dtype)

    def _exact_sums(self) -> Float64[Tensor, " numbers"]:
        grains = torch.round(self.code.detach().double() / GRAIN).clamp(-LIMIT, LIMIT)
        total = grains.new_zeros(sum(self._sizes))
        for rows in self._chunks():
            total = total + grains[rows] @ self.rows(rows).double()
        return total * GRAIN

    def rows(self, rows: slice) -> Float[Tensor, "rows numbers"]:
        """Rows of the basis, its columns those of all generated tensors, one after the other."""
        return self._draw(rows) if self.basis is None else self.basis[rows]

    def _draw(self, rows: slice) -> Float[Tensor, "rows numbers"]:
        count = rows.stop - rows.start
        parts = [
            seeded.digits(
                self.seed,
                STREAM + i,
                (count, size),
                self.bits,
                offset=rows.start * size,
                device=self.code.device,
            )
            for i, size in enumerate(self._sizes)
        ]
        return torch.cat(parts, dim=1).to(self.code.dtype) * 2 - ((1 << self.bits) - 1)

    def _chunks(self) -> Iterator[slice]:
        """Ranges of rows that fill CHUNK_BYTES."""
        count = self.code.numel()
        step = max(1, CHUNK_BYTES // (4 * sum(self._sizes)))
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))


class Doh(Projected):
    """D'OH: all weights of a target are random projections of one code; its biases are free.

    Entries of the basis are +1 or -1 with equal probability, z starts as N(0, 1), and
    s_l = sigma_l / sqrt(n), so that each weight matrix starts with the target's own variance
    sigma_l^2. Tensors of one axis are trained and stored as they are, from the target's initial
    values on. The paper tells neither the law of z nor the scales: both are choices.

    Args:
        in_features: Coordinates per point.
        out_features: Values per point.
        target: The field whose weights are generated, by its registered name.
        target_options: Its hyperparameters.
        latents: Length n of the code; with the biases it is what a file stores.
        seed: Seed of the basis.
        scales: For each generated tensor in order, 8 log2 of the size of its entries, a whole
            number; where none are given they are measured on the target as it starts.
        free_up_to: Tensors of at most this many numbers are free, as biases are.

    Raises:
        FieldError: a hyperparameter is out of range, here or in the target; the code is longer
            than what it is to generate.
    """

    bits = 1

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        target: str = "siren",
        target_options: dict[str, Any] | list[Any] = NO_OPTIONS,
        latents: int = 1024,
        seed: int = 0,
        scales: list[int] = SCALES,
        free_up_to: int = 0,
    ) -> None:
        self.free_up_to = whole("free_up_to", free_up_to, 0, 1 << 30)
        super().__init__(
            in_features,
            out_features,
            target=target,
            target_options=target_options,
            latents=latents,
            seed=seed,
            scales=scales,
        )

    def start(self, count: int) -> Float[Tensor, " n"]:
        return torch.randn(count)

    def is_free(self, tensor: Tensor) -> bool:
        return tensor.ndim < 2 or tensor.numel() <= self.free_up_to

    def pace(self) -> float:
        return 10.0

    def variance(self) -> float:
        return float(self.code.numel())


class Pranc(Projected):
    """PRANC: all parameters of a target are a combination of random networks.

    theta = sum_i alpha_i theta_i: row i of the basis is network i, whatever n is, its entries
    uniform with the target's own variance (on 256 levels, so that they are exact); training starts
    at network 0, alpha = (1, 0, ..., 0). Nothing but alpha is trained. The authors' code draws
    networks from torch's generator for CUDA, which other devices cannot follow.

    Args:
        in_features: Coordinates per point.
        out_features: Values per point.
        target: The field whose parameters are generated, by its registered name.
        target_options: Its hyperparameters.
        latents: Number n of networks, which is the count of numbers that a file stores.
        seed: Seed of the networks.
        scales: For each tensor in order, 8 log2 of the size of its entries, a whole number; where
            none are given they are measured on the target as it starts.

    Raises:
        FieldError: a hyperparameter is out of range, here or in the target; there are more
            networks than parameters.
    """

    bits = 8

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        target: str = "siren",
        target_options: dict[str, Any] | list[Any] = NO_OPTIONS,
        latents: int = 1024,
        seed: int = 0,
        scales: list[int] = SCALES,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            target=target,
            target_options=target_options,
            latents=latents,
            seed=seed,
            scales=scales,
        )

    def start(self, count: int) -> Float[Tensor, " n"]:
        alpha = torch.zeros(count)
        alpha[0] = 1
        return alpha

    def is_free(self, tensor: Tensor) -> bool:
        return False

    def pace(self) -> float:
        return 10 / math.sqrt(self.code.numel())  # the weights then move as far as D'OH's

    def variance(self) -> float:
        return ((1 << 2 * self.bits) - 1) / 3  # of odd numbers from -255 to 255, equally likely


class _Methods(nn.Module):
    """A field whose methods `functional_call` can reach, which calls `forward` alone."""

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.field = field

    def forward(self, method: str, *arguments: Any) -> Any:
        return getattr(self.field, method)(*arguments)


class _Combination(torch.autograd.Function):
    """B^T z, and for the gradient B g, from rows of B that are drawn anew for both."""

    @staticmethod
    def forward(ctx: Any, code: Tensor, field: Projected) -> Tensor:
        ctx.field = field
        total = code.new_zeros(sum(field._sizes))
        for rows in field._chunks():
            total += code[rows] @ field.rows(rows)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        field = ctx.field
        return torch.cat([field.rows(rows) @ gradient for rows in field._chunks()]), None
