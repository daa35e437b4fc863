"""tiny-cuda-nn's CUDA kernels, where its torch bindings (`tinycudann`) are installed.

T. Mueller, "tiny-cuda-nn", 2021, https://github.com/NVlabs/tiny-cuda-nn (BSD-3-Clause); formats as
of version 2.0. It is loaded when first asked for, because importing it fails without a GPU.
docs/CUDA.md says how to install it. Tests hold what is here to the reference with a double written
from tinycudann's formats; the package itself was not run: not measured on a GPU. For that reason
everything that is built is held to the reference once, on the user's machine, before it is used.

Our parameters stay what they are. Each call lays them out as the one flat vector that tinycudann
wants, by differentiable torch operations, and gradients return the same way, so that optimisers
and files know nothing of it.

Networks. tinycudann has ReLU networks of one width, without biases, in half precision. Biases are
carried by an input that is always 1 and by one more unit per hidden layer that hands the 1 on; a
width that it has not is filled up with zeros. Both are exact.

Grids. Our levels differ from tinycudann's in resolution and in where nodes sit, by another affine
map at each level, so each level is an encoding of its own with one level, and a composite encoding
computes them all in one call. Its position is x (n - 1) + 1/2 on nodes 0, 1, ...; we give it the x
that puts the position where ours is. It has one resolution for all axes; a dense level is filled
up with zeros to that of its longest. It counts dense nodes with the first coordinate fastest, we
with the last, so coordinates are given in reverse; hashed ones agree as they are. It has no single
coordinate; one axis is the first row of two.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.kernels import reference
from fields.kernels.build import NoKernel
from fields.kernels.plan import GridPlan, Layer, Mlp, Plan, twice_differentiable

DEVICES = ("cuda",)
"""Where tinycudann computes."""

FUSED_WIDTHS = (16, 32, 64, 128)
"""Widths of its fully fused networks; any other goes layer by layer through CUTLASS."""

FEATURES = (1, 2, 4, 8)
"""Features per node that it was compiled for."""

LARGEST_DENSE = {2: 0xFFFF, 3: 0x659, 4: 0xFF}
"""Nodes per axis up to which its index of a dense level, of 32 bits, does not overflow."""

FILLING = 4
"""How many times as many nodes filled-up dense levels may have as our own."""

LARGEST_FILLING = 1 << 20
"""Nodes that filled-up levels may have in any case."""

NUDGE = 2.0**-22
"""How far inside the outer nodes positions are kept, in units of the resolution. Rounding moves
them by a quarter of that; beyond the outer nodes is a neighbour that is none."""


def module() -> ModuleType:
    """The package.

    Raises:
        NoKernel: it is not installed, or does not load; the message says what to do.
    """
    try:
        return importlib.import_module("tinycudann")
    except ModuleNotFoundError as error:
        if error.name == "tinycudann":
            raise NoKernel("tinycudann is not installed: see docs/CUDA.md") from None
        raise NoKernel(f"tinycudann needs {error.name}, which is not installed") from None
    except ImportError as error:
        said = str(error).splitlines()[0]
        raise NoKernel(
            f"tinycudann was built for another torch or CUDA: build it again ({said})"
        ) from None
    except OSError as error:
        if not torch.cuda.is_available():
            raise NoKernel("torch sees no CUDA device, without which tinycudann fails") from None
        raise NoKernel(
            f"tinycudann was not built for this GPU: set TCNN_CUDA_ARCHITECTURES ({error})"
        ) from None


def version() -> str:
    """Its version, "unknown" where it is not known to pip.

    Raises:
        NoKernel: it is not to be had (see `module`).
    """
    module()
    try:
        return importlib.metadata.version("tinycudann")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def refusal(plan: Plan) -> str | None:
    """Why a plan cannot go through tinycudann here, in half a sentence; None where it can."""
    reason = _refused(plan)
    if reason is not None:
        return reason
    try:
        module()
    except NoKernel as error:
        return str(error)
    return None


def prepare(plan: Plan, device: str | torch.device) -> None:
    """Build what computes such a plan on a device, and hold it to the reference.

    The first call that computes does the same. It takes two evaluations of 512 points.

    Raises:
        NoKernel: tinycudann is not there, cannot compute it, or computes something else.
    """
    place = _place(torch.device(device))
    _check(plan)
    if isinstance(plan, Mlp):
        _network(_NetworkShape.of(plan), place)
    else:
        _encoding(_Levels.of(plan), place)


def mlp(plan: Mlp, points: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
    """Values of a network; see `fields.kernels.reference.mlp`.

    Coordinates, parameters and all between are rounded to half precision.

    Raises:
        NoKernel: tinycudann is not there, or cannot compute it (see `refusal`).
    """
    _check(plan)
    if points.numel() == 0:
        return reference.mlp(plan, points)
    shape = _NetworkShape.of(plan)
    return _through_network(shape, _network(shape, _place(points.device)), plan, points)


def mlp_error(plan: Mlp, points: Tensor, targets: Tensor) -> Float[Tensor, ""]:
    """Sum of squared errors; differentiable in the plan's tensors.

    Raises:
        NoKernel: tinycudann is not there, or cannot compute it (see `refusal`).
    """
    return (mlp(plan, points.detach()) - targets).square().sum()


def grid(plan: GridPlan, coords: Float[Tensor, "p d"]) -> Float[Tensor, "p c"]:
    """Values at scattered coordinates; see `fields.kernels.reference.grid`.

    tinycudann computes the features in float32, plain torch the maps after them.

    Raises:
        NoKernel: tinycudann is not there, or cannot compute it (see `refusal`).
    """
    _check(plan)
    if coords.numel() == 0:
        return reference.grid(plan, coords)
    levels = _Levels.of(plan)
    encoding = _encoding(levels, _place(coords.device))
    return reference.head(plan, _through_encoding(levels, encoding, plan.tables, coords))


def grid_on_lattice(
    plan: GridPlan, axes: Sequence[Float[Tensor, " _"]]
) -> Float[Tensor, "*shape c"]:
    """Values on the product of one coordinate vector per axis, point by point.

    Raises:
        NoKernel: tinycudann is not there, or cannot compute it (see `refusal`).
    """
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    values = grid(plan, points.flatten(0, -2))
    return values.reshape(*points.shape[:-1], plan.out_features)


def grid_error(plan: GridPlan, coords: Tensor, targets: Tensor) -> Float[Tensor, ""]:
    """Sum of squared errors at scattered coordinates; differentiable in the plan's tensors.

    Raises:
        NoKernel: tinycudann is not there, or cannot compute it (see `refusal`).
    """
    return (grid(plan, coords.detach()) - targets).square().sum()


def grid_error_on_lattice(
    plan: GridPlan, axes: Sequence[Tensor], targets: Tensor
) -> Float[Tensor, ""]:
    """Sum of squared errors on a lattice; differentiable in the plan's tensors.

    Raises:
        NoKernel: tinycudann is not there, or cannot compute it (see `refusal`).
    """
    return (grid_on_lattice(plan, [axis.detach() for axis in axes]) - targets).square().sum()


def to_tcnn(plan: Plan) -> Float[Tensor, " params"]:
    """A network's parameters, or a grid's tables, as tinycudann's flat vector; differentiable.

    Raises:
        NoKernel: tinycudann cannot compute it (see `refusal`).
    """
    _check(plan)
    if isinstance(plan, Mlp):
        return _NetworkShape.of(plan).pack(plan)
    return _Levels.of(plan).pack(plan.tables)


def from_tcnn(flat: Float[Tensor, " params"], plan: Plan) -> list[Tensor]:
    """The inverse of `to_tcnn`.

    Args:
        flat: What `to_tcnn` gives, or tinycudann's `params` of the same network or encoding.
        plan: Says what the tensors are to look like; its own numbers do not matter.

    Returns:
        For a network weight and bias of each layer as in `Mlp.tensors`, for a grid the tables.
        Views of `flat`, where that is possible.
    """
    if isinstance(plan, Mlp):
        return _NetworkShape.of(plan).unpack(flat, plan)
    return _Levels.of(plan).unpack(flat)


def _refused(plan: Plan) -> str | None:
    """Why tinycudann has nothing like a plan; None if it has."""
    for tensor in plan.tensors():
        if tensor.dtype != torch.float32:
            name = str(tensor.dtype).removeprefix("torch.")
            return f"parameters are {name}: tinycudann takes float32"
    return _refused_network(plan) if isinstance(plan, Mlp) else _refused_grid(plan)


def _check(plan: Plan) -> None:
    reason = _refused(plan)
    if reason is not None:
        raise NoKernel(reason)


def _place(device: torch.device) -> torch.device:
    """The device with its number."""
    if device.type not in DEVICES:
        raise NoKernel(f"points are on {device}: tinycudann computes on CUDA")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _up(number: int, step: int) -> int:
    """The next multiple."""
    return -(-number // step) * step


# networks


def _refused_network(plan: Mlp) -> str | None:
    if plan.networks is not None:
        return f"{plan.networks} networks at once: tinycudann has one at a time"
    if len(plan.layers) < 2:
        return "it has no hidden layer: tinycudann's networks have one at least"
    for i, layer in enumerate(plan.layers[:-1]):
        if layer.activation == "sine":
            return (
                f"layer {i} has activation sine: tinycudann's fused networks have none, and its "
                "others round the phase to half precision"
            )
        if layer.activation != "relu":
            return f"layer {i} has activation {layer.activation}: tinycudann's are relu here"
        if layer.omega != 1:
            return f"layer {i} has omega {layer.omega:g}: tinycudann has none"
    return None


@dataclass(frozen=True)
class _NetworkShape:
    """How a network is laid out in tinycudann.

    Args:
        inputs: Numbers per point, the constant 1 included.
        width: Units of each hidden layer, with those that are there to fill up, and last the one
            that hands on the 1.
        depth: Hidden layers.
        outputs: Values per point.
        biased: Whether any layer has a bias, so that there is a 1.
    """

    inputs: int
    width: int
    depth: int
    outputs: int
    biased: bool

    @classmethod
    def of(cls, plan: Mlp) -> _NetworkShape:
        biased = any(layer.bias is not None for layer in plan.layers)
        needed = max(layer.out_features for layer in plan.layers[:-1]) + biased
        width = next((w for w in FUSED_WIDTHS if w >= needed), _up(needed, 16))
        depth = len(plan.layers) - 1
        return cls(plan.in_features + biased, width, depth, plan.out_features, biased)

    @property
    def config(self) -> dict[str, Any]:
        """What tinycudann is to build."""
        return {
            "otype": "FullyFusedMLP" if self.width in FUSED_WIDTHS else "CutlassMLP",
            "activation": "ReLU",
            "output_activation": "None",
            "n_neurons": self.width,
            "n_hidden_layers": self.depth,
        }

    def sizes(self) -> list[tuple[int, int]]:
        """Rows and columns of each matrix; inputs and outputs are multiples of 16."""
        between = [(self.width, self.width)] * (self.depth - 1)
        return [
            (self.width, _up(self.inputs, 16)),
            *between,
            (_up(self.outputs, 16), self.width),
        ]

    @property
    def count(self) -> int:
        """Length of the flat vector."""
        return sum(rows * columns for rows, columns in self.sizes())

    def one(self, layer: int) -> int:
        """The column of a matrix that meets the 1."""
        return self.width - 1 if layer else self.inputs - 1

    def pack(self, plan: Mlp) -> Tensor:
        """Each matrix row by row, one after the other."""
        flat = []
        for i, (layer, (rows, columns)) in enumerate(zip(plan.layers, self.sizes(), strict=True)):
            matrix = layer.weight
            if self.biased:
                bias = layer.weight.new_zeros(layer.out_features)
                bias = bias if layer.bias is None else layer.bias
                free = self.one(i) - layer.in_features
                matrix = torch.cat([nn.functional.pad(matrix, (0, free)), bias[:, None]], dim=1)
            height, length = matrix.shape
            matrix = nn.functional.pad(matrix, (0, columns - length, 0, rows - height))
            if self.biased and i < self.depth:
                hand_on = torch.zeros_like(matrix)
                hand_on[-1, self.one(i)] = 1
                matrix = matrix + hand_on
            flat.append(matrix.flatten())
        return torch.cat(flat)

    def unpack(self, flat: Tensor, plan: Mlp) -> list[Tensor]:
        """Weight and bias of each layer."""
        tensors = []
        parts = flat.split([rows * columns for rows, columns in self.sizes()])
        for i, (part, size) in enumerate(zip(parts, self.sizes(), strict=True)):
            layer = plan.layers[i]
            rows = part.view(size)[: layer.out_features]
            tensors.append(rows[:, : layer.in_features])
            if layer.bias is not None:
                tensors.append(rows[:, self.one(i)])
        return tensors


def _through_network(
    shape: _NetworkShape, network: nn.Module, plan: Mlp, points: Tensor
) -> Float[Tensor, "*batch d_out"]:
    def run(points: Tensor, *tensors: Tensor) -> Tensor:
        flat = points.reshape(-1, plan.in_features).float()
        if shape.biased:
            flat = torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1)
        values = _call(network, shape.pack(plan.holding(tensors)), flat)
        return values.float().reshape(*points.shape[:-1], plan.out_features)

    def twin(points: Tensor, *tensors: Tensor) -> Tensor:
        return reference.mlp(plan.holding(tensors), points)

    return _through(run, twin, [points, *plan.tensors()], half=True)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(mode=False)
def _network(shape: _NetworkShape, device: torch.device) -> nn.Module:
    """A network of that shape, held to the reference."""
    tcnn = module()
    network = _built(
        lambda: tcnn.Network(shape.inputs, shape.outputs, shape.config), shape.count, device
    )
    random = _Random(device)
    own = shape.width - shape.biased
    sizes = [shape.inputs - shape.biased, *[own] * shape.depth, shape.outputs]
    layers = []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        # of unit gain, so that values are neither lost in half precision nor too large for it
        weight = random(fan_out, fan_in) * math.sqrt(6 / fan_in)
        bias = random(fan_out) if shape.biased else None
        layers.append(Layer(weight, bias, "relu" if i < shape.depth else "linear"))
    plan = Mlp(tuple(layers))
    points = random(512, plan.in_features)

    def theirs(*tensors: Tensor) -> Tensor:
        return _through_network(shape, network, plan.holding(tensors), points)

    def ours(*tensors: Tensor) -> Tensor:
        return reference.mlp(plan.holding(tensors), points)

    # rounding to half precision is 5e-4 a time, and switches units that are near 0
    _hold(theirs, ours, plan.tensors(), random(512, shape.outputs), 0.2)
    return network


# grids


def _refused_grid(plan: GridPlan) -> str | None:
    axes = plan.in_features
    if axes > 4:
        return f"{axes} coordinates: tinycudann has grids of up to 4"
    features = sorted({len(table) for table in plan.tables})
    if len(features) > 1:
        return f"levels of {features} features: tinycudann wants the same for all"
    if features[0] > FEATURES[-1]:
        return f"{features[0]} features: tinycudann has up to {FEATURES[-1]} per node"
    own = sum(table[0].numel() for table in plan.tables)
    filled = 0
    for table, nodes in zip(plan.tables, plan.resolutions, strict=True):
        level = _Level.of(table, nodes)
        size = " x ".join(str(n) for n in nodes)
        if not level.hashed and level.resolution > LARGEST_DENSE[axes]:
            return f"resolution {size}: tinycudann's dense levels end at {LARGEST_DENSE[axes]}"
        if axes == 1 and level.table is not None:
            return f"resolution {size}: a hashed level of one axis"
        if level.hashed and level.entries & (level.entries - 1):
            return f"a table of {level.entries} nodes: tinycudann's are powers of two"
        filled += level.entries
        if filled > max(LARGEST_FILLING, FILLING * own):
            return (
                f"resolution {size}: tinycudann has one resolution for all axes, and filling up "
                f"to {level.resolution} of each takes more than {FILLING} times the memory"
            )
    if filled * _Levels.of(plan).width >= 1 << 31:
        return f"{filled} nodes: tinycudann counts parameters in 32 bits"
    return None


@dataclass(frozen=True)
class _Level:
    """How one level of ours is laid out in tinycudann.

    Args:
        nodes: Nodes per axis, in our order.
        table: Length of our hashed table; None if ours is dense.
    """

    nodes: tuple[int, ...]
    table: int | None

    @classmethod
    def of(cls, table: Tensor, nodes: tuple[int, ...]) -> _Level:
        return cls(nodes, None if tuple(table.shape[1:]) == nodes else table.shape[1])

    @property
    def hashed(self) -> bool:
        """Whether tinycudann is to take it for a hashed level.

        A level of one axis is the row of two axes where the second coordinate is 0. There the
        hash, x xor 0, is x, so a dense level of one axis is a hashed one that nothing collides in.
        """
        return self.table is not None or len(self.nodes) == 1

    @property
    def resolution(self) -> int:
        """Tinycudann's resolution of all axes; with 1 the position would not depend on x."""
        return max(2, *self.nodes)

    @property
    def entries(self) -> int:
        """Nodes of tinycudann's table: a multiple of 8."""
        if self.table is not None:
            return self.table
        if len(self.nodes) == 1:
            return max(8, 1 << (self.nodes[0] - 1).bit_length())
        return _up(self.resolution ** len(self.nodes), 8)

    @property
    def axes(self) -> list[int | None]:
        """Which of our axes is each of tinycudann's; None for one where x stays at the node 0."""
        order: list[int | None] = [i if n > 1 else None for i, n in enumerate(self.nodes)]
        if len(order) == 1:
            return [*order, None]
        return order if self.hashed else order[::-1]

    def config(self, width: int) -> dict[str, Any]:
        """What tinycudann is to build."""
        config = {
            "otype": "Grid",
            "type": "Hash" if self.hashed else "Dense",
            "n_dims_to_encode": len(self.axes),
            "n_levels": 1,
            "n_features_per_level": width,
            "base_resolution": self.resolution,
            # one level needs none, but its default divides by the levels less one
            "per_level_scale": 1.0,
            "interpolation": "Linear",
        }
        if self.hashed:
            config["log2_hashmap_size"] = self.entries.bit_length() - 1
        return config

    def pack(self, table: Tensor, width: int) -> Tensor:
        """Node by node, features of a node together, zeros where ours has nothing."""
        if not self.hashed:
            pads = [(0, self.resolution - n) for n in reversed(self.nodes)]
            table = nn.functional.pad(table, list(itertools.chain(*pads)))
        table = table.flatten(1)
        table = nn.functional.pad(table, (0, self.entries - table.shape[1], 0, width - len(table)))
        return table.T.reshape(-1)

    def unpack(self, flat: Tensor, width: int, features: int) -> Tensor:
        """The inverse: (features, *nodes) of a dense level, (features, table) of a hashed one."""
        table = flat.view(self.entries, width).T[:features]
        if self.table is not None:
            return table
        if len(self.nodes) == 1:
            return table[:, : self.nodes[0]]
        axes = len(self.nodes)
        table = table[:, : self.resolution**axes].unflatten(1, [self.resolution] * axes)
        return table[(slice(None), *(slice(n) for n in self.nodes))]


@dataclass(frozen=True)
class _Levels:
    """How a grid is laid out in tinycudann: level after level.

    Args:
        levels: Coarse to fine.
        features: Ours per node.
    """

    levels: tuple[_Level, ...]
    features: int

    @classmethod
    def of(cls, plan: GridPlan) -> _Levels:
        levels = map(_Level.of, plan.tables, plan.resolutions)
        return cls(tuple(levels), len(plan.tables[0]))

    @property
    def width(self) -> int:
        """Tinycudann's features per node."""
        return next(f for f in FEATURES if f >= self.features)

    @property
    def counts(self) -> list[int]:
        """Length of each level's part of the flat vector."""
        return [level.entries * self.width for level in self.levels]

    @property
    def config(self) -> dict[str, Any]:
        """What tinycudann is to build."""
        nested = [level.config(self.width) for level in self.levels]
        return {"otype": "Composite", "reduction": "Concatenation", "nested": nested}

    @property
    def inputs(self) -> int:
        """Numbers per point: each level has its own coordinates."""
        return sum(len(level.axes) for level in self.levels)

    def pack(self, tables: Sequence[Tensor]) -> Tensor:
        """The flat vector."""
        pairs = zip(self.levels, tables, strict=True)
        return torch.cat([level.pack(table, self.width) for level, table in pairs])

    def unpack(self, flat: Tensor) -> list[Tensor]:
        """The tables."""
        parts = zip(self.levels, flat.split(self.counts), strict=True)
        return [level.unpack(part, self.width, self.features) for level, part in parts]

    def at(self, encoding: nn.Module, coords: Tensor, tables: Sequence[Tensor]) -> Tensor:
        """Features at coordinates in [-1, 1], shape (points, levels x features)."""
        x = _positions(self, coords.device)(coords.float())
        values = _call(encoding, self.pack(tables), x).float()
        # without those that fill up
        return values.unflatten(1, (len(self.levels), self.width))[..., : self.features].flatten(1)


def _gathered(levels: _Levels, coords: Tensor, tables: Sequence[Tensor]) -> Tensor:
    """The twin of `_Levels.at`."""
    pairs = zip(tables, levels.levels, strict=True)
    return torch.cat([reference.gather(table, level.nodes, coords) for table, level in pairs]).T


class _Positions:
    """Coordinates in [-1, 1] to those that tinycudann needs, all levels side by side.

    Its position is p = fma(x, n - 1, 1/2) on nodes 0, 1, ...
    """

    def __init__(self, levels: _Levels, device: torch.device) -> None:
        axes, nodes, scales = [], [], []
        for level in levels.levels:
            for axis in level.axes:
                axes.append(-1 if axis is None else axis)
                nodes.append(1 if axis is None else level.nodes[axis])
                scales.append(level.resolution - 1)
        self.axes = torch.tensor([max(axis, 0) for axis in axes], device=device)
        self.still = torch.tensor([axis < 0 for axis in axes], device=device)
        self.nodes = torch.tensor(nodes, dtype=torch.float32, device=device)
        self.scale = torch.tensor(scales, dtype=torch.float32, device=device)
        self.low = torch.zeros_like(self.nodes)
        self.high = self.nodes - 1
        margin = (self.scale + 1) * NUDGE
        self.inner = torch.where(self.still, self.low, margin)
        self.outer = torch.where(self.still, self.low, self.high - margin)
        # where an axis stays at the node 0, rounding must not carry it below
        self.zero = torch.nextafter(-0.5 / self.scale, self.low)

    def __call__(self, coords: Float[Tensor, "p d"]) -> Float[Tensor, "p columns"]:
        p = (coords[:, self.axes] + 1) * (self.nodes / 2) - 0.5
        # gradients are those of the reference: 1 up to the outer nodes themselves, 0 beyond
        inside = p.detach().clamp(self.low, self.high)
        p = torch.where(inside == p.detach(), p, inside)
        p = p + (inside.clamp(self.inner, self.outer) - inside)
        return torch.where(self.still, self.zero, (p - 0.5) / self.scale)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(mode=False)
def _positions(levels: _Levels, device: torch.device) -> _Positions:
    return _Positions(levels, device)


def _through_encoding(
    levels: _Levels, encoding: nn.Module, tables: Sequence[Tensor], coords: Tensor
) -> Float[Tensor, "p z"]:
    def run(coords: Tensor, *tables: Tensor) -> Tensor:
        return levels.at(encoding, coords, tables)

    def twin(coords: Tensor, *tables: Tensor) -> Tensor:
        return _gathered(levels, coords, tables)

    return _through(run, twin, [coords, *tables], half=False)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(mode=False)
def _encoding(levels: _Levels, device: torch.device) -> nn.Module:
    """An encoding of those levels, held to the reference."""
    tcnn = module()
    encoding = _built(
        lambda: tcnn.Encoding(levels.inputs, levels.config, dtype=torch.float32),
        sum(levels.counts),
        device,
    )
    random = _Random(device)
    tables = [
        random(levels.features, *(level.nodes if level.table is None else [level.table]))
        for level in levels.levels
    ]
    # a little beyond the domain, too
    coords = random(512, len(levels.levels[0].nodes)) * 1.05

    def theirs(*tables: Tensor) -> Tensor:
        return _through_encoding(levels, encoding, tables, coords)

    def ours(*tables: Tensor) -> Tensor:
        return _gathered(levels, coords, tables)

    # positions are rounded to some 2^-24 of the domain
    bound = 1e-3 + levels.levels[-1].resolution * 2.0**-22
    _hold(theirs, ours, tables, random(512, len(levels.levels) * levels.features), bound)
    return encoding


# calling tinycudann


class _Random:
    """Uniform numbers in [-1, 1], the same ones each time, leaving torch's own generator alone."""

    def __init__(self, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(0)

    def __call__(self, *size: int) -> Tensor:
        drawn = torch.rand(
            size, generator=self.generator, dtype=torch.float32, device=self.generator.device
        )
        return drawn * 2 - 1


def _built(make: Callable[[], nn.Module], count: int, device: torch.device) -> nn.Module:
    """A module of tinycudann without parameters of its own; they are given with each call.

    Raises:
        NoKernel: it will not be built, or has another number of parameters than we think.
    """
    try:
        if device.type == "cuda":
            with torch.cuda.device(device):
                made = make()
        else:
            made = make()
    except RuntimeError as error:
        raise NoKernel(f"tinycudann refuses: {str(error).splitlines()[0]}") from None
    found = made.get_parameter("params").numel()
    if found != count:
        raise NoKernel(f"tinycudann wants {found} parameters where {count} were expected")
    made.params = nn.Parameter(torch.empty(0, device=device), requires_grad=False)
    return made


def _call(made: nn.Module, flat: Tensor, points: Tensor) -> Tensor:
    """Values of a module for given parameters, which gradients then reach."""
    return torch.func.functional_call(made, {"params": flat}, (points,))


def _hold(
    theirs: Callable[..., Tensor],
    ours: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    grad: Tensor,
    bound: float,
) -> None:
    """Hold tinycudann's values and gradients to the reference, once.

    Raises:
        NoKernel: they differ by more than a share `bound`, root mean square.
    """
    found = []
    for function in (theirs, ours):
        leaves = [x.clone().requires_grad_() for x in inputs]
        with torch.enable_grad():
            values = function(*leaves)
        found.append([values.detach(), *torch.autograd.grad(values, leaves, grad)])
    for i, (mine, right) in enumerate(zip(*found, strict=True)):
        error = float((mine - right).norm() / right.norm().clamp_min(1e-30))
        if not error <= bound:
            what = "gradients" if i else "values"
            raise NoKernel(f"tinycudann computes something else: {what} differ by {error:.1%}")


def _through(
    run: Callable[..., Tensor], twin: Callable[..., Tensor], inputs: Sequence[Tensor], half: bool
) -> Tensor:
    """Values of `run`, differentiable once through tinycudann and again through the twin."""
    if not torch.is_grad_enabled() or not any(x.requires_grad for x in inputs):
        return run(*inputs)
    return _Through.apply(run, twin, half, *inputs)


class _Through(torch.autograd.Function):
    """Keeps tinycudann's own graph for the first derivative, and scales what half precision takes.

    A second derivative that concerns parameters would silently lack its part in that graph; the
    twin has it.
    """

    @staticmethod
    def forward(
        ctx: Any, run: Callable[..., Tensor], twin: Callable[..., Tensor], half: bool, *inputs: Any
    ) -> Tensor:
        wanted = ctx.needs_input_grad[3:]
        ctx.leaves = [x.detach().requires_grad_(w) for x, w in zip(inputs, wanted, strict=True)]
        with torch.enable_grad():
            ctx.values = run(*ctx.leaves)
        ctx.twin, ctx.half = twin, half
        ctx.save_for_backward(*inputs)
        return ctx.values.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad = grads[0]
        if torch.is_grad_enabled():
            return None, None, None, *twice_differentiable(ctx.twin, ctx.saved_tensors, grad)
        scale = _scale(grad) if ctx.half else None
        wanted = [x for x in ctx.leaves if x.requires_grad]
        found = torch.autograd.grad(
            ctx.values, wanted, grad if scale is None else grad * scale, retain_graph=True
        )
        if scale is not None:
            found = tuple(g / scale for g in found)
        left = iter(found)
        return None, None, None, *(next(left) if x.requires_grad else None for x in ctx.leaves)


def _scale(grad: Tensor) -> Float[Tensor, ""]:
    """The power of two that suits gradients to half precision, on their own device.

    tinycudann keeps a parameter's gradient, summed over all points, in half precision and 128 times
    as large as it is. The absolute values are made to sum up to 64 to 128, so that no sum exceeds
    65,504 where activations are up to 4; they may be larger as far as terms cancel out. Of a
    million values the mean, times 128, is then 0.01, far from the 6e-8 where half precision ends.
    """
    _, exponent = torch.frexp(grad.detach().abs().sum().float())
    return torch.exp2((7 - exponent).clamp(-100, 100).float())
