"""A double of `tinycudann` in plain torch, for machines without a GPU.

Written from the formats of tiny-cuda-nn 2.0 (its DOCUMENTATION.md, its torch bindings and the
index arithmetic of its kernels), not from anything of ours: one flat `params` per module, a grid's
nodes with the first coordinate fastest and features adjacent, tables of a multiple of 8 nodes,
matrices row by row with inputs and outputs filled up to 16, padding inputs of 1, half precision,
batches filled up to 256, gradients of parameters that nothing differentiates again. In one thing it
is kinder: it sums in float32, where the fused network sums in half precision. It stands for what we
know of the package: that the real one agrees was not seen on a GPU.

Tests install it as `sys.modules["tinycudann"]`.
"""

import itertools
import math

import torch
from torch import nn

GRANULARITY = 256
PRIMES = (1, 2654435761, 805459861, 3674653429)
LARGEST = {1: 0xFFFFFFFF, 2: 0xFFFF, 3: 0x659, 4: 0xFF}  # dense indices overflow beyond
ACTIVATIONS = {"None": lambda x: x, "ReLU": torch.relu, "Sine": torch.sin, "Tanh": torch.tanh}


def up(number: int, step: int) -> int:
    return (number + step - 1) // step * step


class Native(torch.autograd.Function):
    """What happens in CUDA: one derivative, and half precision scaled by 128."""

    @staticmethod
    def forward(ctx, compute, x, params, loss_scale):
        wanted = ctx.needs_input_grad[1:3]
        ctx.leaves = [
            t.detach().requires_grad_(w) for t, w in zip((x, params), wanted, strict=True)
        ]
        ctx.loss_scale = loss_scale
        with torch.enable_grad():
            ctx.out = compute(*ctx.leaves)
        return ctx.out.detach()

    @staticmethod
    def backward(ctx, doutput):
        wanted = [t for t in ctx.leaves if t.requires_grad]
        found = torch.autograd.grad(
            ctx.out, wanted, (doutput * ctx.loss_scale).detach(), retain_graph=True
        )
        left = iter([g.detach() / ctx.loss_scale for g in found])
        dx, dparams = (next(left) if t.requires_grad else None for t in ctx.leaves)
        return None, dx, dparams, None


class Module(nn.Module):
    dtype: torch.dtype
    n_output_dims: int

    def __init__(self, count: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.params = nn.Parameter(torch.rand(count, generator=generator) * 2e-4 - 1e-4)
        self.count = count
        self.loss_scale = 128.0 if self.dtype == torch.float16 else 1.0

    def forward(self, x):
        assert x.ndim == 2
        assert x.shape[1] == self.n_input_dims
        assert self.params.shape == (self.count,), "params.size(0) == n_params()"
        size = len(x)
        x = nn.functional.pad(x, (0, 0, 0, up(size, GRANULARITY) - size))
        out = Native.apply(
            self.compute, x.float().contiguous(), self.params.to(self.dtype), self.loss_scale
        )
        return out[:size, : self.n_output_dims]


class Network(Module):
    """Identity encoding, then an MLP without biases."""

    def __init__(self, n_input_dims, n_output_dims, network_config, seed=1337):
        self.dtype = torch.float16
        config = dict(network_config)
        width = config["n_neurons"]
        hidden = config["n_hidden_layers"]
        if config["otype"] == "FullyFusedMLP":
            if width not in (16, 32, 64, 128):
                raise RuntimeError(
                    f"FullyFusedMLP only supports 16, 32, 64, and 128 neurons, but got {width}."
                )
            if hidden < 1:
                raise RuntimeError("FullyFusedMLP requires at least 1 hidden layer")
            if config["activation"] == "Sine":
                raise RuntimeError("Unsupported activation.")
        elif config["otype"] != "CutlassMLP":
            raise RuntimeError(f"Invalid network type: {config['otype']}")
        elif width % 8:
            raise RuntimeError("CUTLASS wants rows of 8 halves")
        sizes = [up(n_input_dims, 16), *[width] * hidden, up(n_output_dims, 16)]
        shapes = [(rows, columns) for columns, rows in itertools.pairwise(sizes)]
        super().__init__(sum(math.prod(shape) for shape in shapes), seed)
        self.n_input_dims, self.n_output_dims = n_input_dims, n_output_dims
        self.shapes = shapes
        self.activation = ACTIVATIONS[config["activation"]]
        self.last = ACTIVATIONS[config["output_activation"]]

    def compute(self, x, params):
        ones = torch.ones(len(x), self.shapes[0][1] - x.shape[1])
        x = torch.cat([x, ones], dim=1).half()
        start = 0
        for i, (rows, columns) in enumerate(self.shapes):
            matrix = params[start : start + rows * columns].view(rows, columns)
            start += rows * columns
            # tensor cores sum in float and round the result
            x = (x.float() @ matrix.float().T).half()
            x = (self.activation if i < len(self.shapes) - 1 else self.last)(x)
        return x


class Grid:
    """Levels of a multi-resolution grid, coarse to fine."""

    def __init__(self, dims, config):
        otype = config["otype"]
        default = {"DenseGrid": "Dense", "TiledGrid": "Tiled"}.get(otype, "Hash")
        self.kind = config.get("type", default)
        self.width = config.get("n_features_per_level", 2)
        self.levels = config.get("n_levels", 16)
        self.base = config.get("base_resolution", 16)
        self.dims = dims
        growth = 2.0
        if self.kind == "Dense":
            # the default divides by the number of levels less one
            growth = (
                math.exp(math.log(256 / self.base) / (self.levels - 1))
                if self.levels > 1
                else math.inf
            )
        self.growth = config.get("per_level_scale", growth)
        if dims not in (2, 3, 4):
            raise RuntimeError("GridEncoding: number of input dims must be 2 or 3.")
        if self.width not in (1, 2, 4, 8):
            raise RuntimeError("GridEncoding: n_features_per_level must be 1, 2, 4, or 8.")
        if self.kind not in ("Hash", "Dense") or config.get("interpolation", "Linear") != "Linear":
            raise RuntimeError("not in this double")
        capacity = 1 << config.get("log2_hashmap_size", 19)
        self.sizes = []
        for level in range(self.levels):
            resolution = self.resolution(level)
            size = up(min(resolution**dims, 0x7FFFFFFF), 8)
            self.sizes.append(min(size, capacity) if self.kind == "Hash" else size)
        self.count = sum(self.sizes) * self.width
        self.out = self.levels * self.width

    def scale(self, level):
        return 2.0 ** (level * math.log2(self.growth)) * self.base - 1.0

    def resolution(self, level):
        return math.ceil(self.scale(level)) + 1

    def index(self, corner, level):
        """Entry of a node; unsigned arithmetic of 32 bits."""
        resolution, size = self.resolution(level), self.sizes[level]
        index = torch.zeros_like(corner[0])
        stride = 1
        if resolution <= LARGEST[self.dims]:
            for node in corner:
                index = (index + node * stride) & 0xFFFFFFFF
                stride *= resolution
        else:
            stride = 0xFFFFFFFF
        if self.kind == "Hash" and size < stride:
            index = torch.zeros_like(corner[0])
            for node, prime in zip(corner, PRIMES, strict=False):
                # in two halves: the product of 32 and 32 bits does not fit into int64
                low = (node * (prime & 0xFFFF)) & 0xFFFFFFFF
                high = (node * (prime >> 16)) & 0xFFFF
                index = index ^ ((low + (high << 16)) & 0xFFFFFFFF)
        return index % size

    def encode(self, x, params):
        features = []
        start = 0
        for level, size in enumerate(self.sizes):
            table = params[start : start + size * self.width].view(size, self.width)
            start += size * self.width
            # fused multiply and add: rounded once
            position = (x.double() * self.scale(level) + 0.5).float()
            below = position.detach().floor()
            above = position - below
            node = below.long() & 0xFFFFFFFF
            total = torch.zeros(len(x), self.width)
            for corner in itertools.product((0, 1), repeat=self.dims):
                weight = torch.ones(len(x))
                nodes = []
                for dim, step in enumerate(corner):
                    weight = weight * (above[:, dim] if step else 1 - above[:, dim])
                    nodes.append((node[:, dim] + step) & 0xFFFFFFFF)
                total = total + weight[:, None] * table[self.index(nodes, level)].to(weight)
            features.append(total.to(params.dtype))
        return torch.cat(features, dim=1)


class Composite:
    """Encodings of one part of the coordinates each, side by side."""

    def __init__(self, dims, config):
        if config.get("reduction", "Concatenation") != "Concatenation":
            raise RuntimeError("not in this double")
        self.parts = []
        begin = out = 0
        for nested in config["nested"]:
            count = nested["n_dims_to_encode"]
            part = encoding(count, nested)
            if out % part.width:
                raise RuntimeError("padding between parts is not in this double")
            self.parts.append((begin, count, part))
            begin += count
            out += part.out
        if begin > dims:
            raise RuntimeError(f"must not encode more dims {begin} than composite {dims}")
        self.count = sum(part.count for _, _, part in self.parts)
        self.out = out

    def encode(self, x, params):
        features = []
        start = 0
        for begin, count, part in self.parts:
            mine = params[start : start + part.count]
            start += part.count
            features.append(part.encode(x[:, begin : begin + count], mine))
        return torch.cat(features, dim=1)


def encoding(dims, config):
    if config["otype"] == "Composite":
        return Composite(dims, config)
    if config["otype"] in ("Grid", "HashGrid", "DenseGrid"):
        return Grid(dims, config)
    raise RuntimeError(f"Encoding '{config['otype']}' not found")


class Encoding(Module):
    def __init__(self, n_input_dims, encoding_config, seed=1337, dtype=None):
        self.dtype = dtype or torch.float16
        native = encoding(n_input_dims, encoding_config)
        super().__init__(native.count, seed)
        self.native = native
        self.n_input_dims, self.n_output_dims = n_input_dims, native.out

    def compute(self, x, params):
        return self.native.encode(x, params)
