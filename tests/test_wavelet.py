"""WIRE (arXiv:2301.05187) and the wavelet pair (arXiv:2310.00545): formulas, spectra, maxima."""

import math
import re

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import fields
from fields import Wavelet, Wire
from fields.base import FieldError, SignalStatistics
from fields.complex import ComplexLinear, complex_truncated_exp, truncated_exp
from fields.maxima import modulus_maxima
from fields.wavelet import Atoms, gabor, polynomial_variance, real_gabor


def parameters_of(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def as_complex(pairs: torch.Tensor) -> torch.Tensor:
    return torch.complex(*pairs.chunk(2, dim=-1))


def as_pairs(z: torch.Tensor) -> torch.Tensor:
    return torch.cat([z.real, z.imag], dim=-1)


# WIRE


@pytest.mark.parametrize(
    ("depth", "entries", "scalars"), [(2, 66_973, 133_403), (3, 99_915, 199_287)]
)
def test_wire_parameter_counts(depth, entries, scalars):
    field = Wire(2, 3, hidden_layers=depth)
    # the code also has the 3 imaginary parts of the last bias, which no output depends on
    assert parameters_of(field) == scalars - 3
    imaginary = [p for name, p in field.named_parameters() if ".imag." in name]
    assert parameters_of(field) - sum(p.numel() for p in imaginary) == entries


def test_wire_kinds_have_about_as_many_numbers():
    counts = [parameters_of(Wire(2, 3, kind=kind)) for kind in ("1d", "2d", "real")]
    assert max(counts) < 1.03 * min(counts)


def test_wire_bounds_are_those_of_torch():
    torch.manual_seed(0)
    field = Wire(2, 3)
    for name, p in field.named_parameters():
        fan_in = 2 if name.startswith("layers.0") else 181
        bound = 1 / math.sqrt(fan_in)
        assert p.abs().max() <= bound
        if p.numel() > 100:
            assert p.abs().max() > 0.95 * bound
            assert float(p.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.15)


def reference(field: Wire, x: torch.Tensor) -> torch.Tensor:
    """The formula in complex128."""
    z = x.to(torch.complex128)
    for layer, omega in zip(field.layers, field.omegas, strict=True):
        if isinstance(layer, ComplexLinear):
            w = torch.complex(layer.real.weight, layer.imag.weight).to(torch.complex128)
            b = torch.complex(layer.real.bias, layer.imag.bias).to(torch.complex128)
        else:
            w, b = layer.weight.to(torch.complex128), layer.bias.to(torch.complex128)
        z, *others = (z @ w.T + b).chunk(2 if field.kind == "2d" else 1, dim=-1)
        envelope = sum((y.abs() ** 2 for y in others), z.abs() ** 2)
        z = torch.exp(1j * omega * z - field.scale**2 * envelope)
    w = torch.complex(field.out.real.weight, field.out.imag.weight).to(torch.complex128)
    return (z @ w.T).real + field.out.real.bias.double()


@pytest.mark.parametrize("kind", ["1d", "2d"])
def test_wire_is_the_formula(kind):
    torch.manual_seed(0)
    sizes = {"hidden_features": 48, "first_omega": 20.0, "hidden_omega": 10.0, "scale": 5.0}
    field = Wire(2, 3, kind=kind, **sizes)
    x = torch.rand(50, 2, dtype=torch.float64) * 2 - 1
    single = field(x.float())
    assert single.dtype == torch.float32
    expected = reference(field.double(), x)
    torch.testing.assert_close(field(x), expected, atol=1e-12, rtol=1e-12)
    # float32: each layer multiplies the rounding of z, 6e-8, by omega and 2 s^2 |z|, here < 100
    torch.testing.assert_close(single.double(), expected, atol=2e-3, rtol=0)


def test_real_wire_is_the_formula():
    torch.manual_seed(0)
    field = Wire(2, 1, hidden_features=16, hidden_layers=1, scale=4.0, kind="real").double()
    x = h = torch.rand(20, 2, dtype=torch.float64)
    for layer in field.layers:
        n = len(layer.bias) // 2
        z = h @ layer.weight[:n].T + layer.bias[:n]
        y = h @ layer.weight[n:].T + layer.bias[n:]
        h = torch.cos(10 * z) * torch.exp(-((4 * y) ** 2))
    torch.testing.assert_close(field(x), h @ field.out.weight.T + field.out.bias)


numbers = st.floats(-2, 2, width=32)
frequencies = st.floats(0, 30)


@given(u=numbers, omega=frequencies, scale=frequencies)
def test_gabor_of_real_numbers(u, omega, scale):
    z = torch.tensor([u], dtype=torch.float64)
    cosine = gabor(z, omega, 0.0, 1, False)[0]
    assert float(cosine) == pytest.approx(math.cos(omega * u), abs=1e-12)
    gauss = gabor(z, 0.0, scale, 1, False)
    assert float(gauss[0]) == pytest.approx(math.exp(-((scale * u) ** 2)), abs=1e-12)
    assert float(gauss[1]) == 0
    assert float(as_complex(gabor(z, omega, scale, 1, False)).abs()) <= 1 + 1e-12
    assert gabor(0 * z, omega, scale, 1, False).tolist() == [1, 0]
    twice = torch.stack([omega * z[0], 0 * z[0]])
    assert float(real_gabor(twice, 1.0, scale)) == pytest.approx(float(cosine), abs=1e-12)


@given(u=numbers, v=numbers, omega=frequencies, scale=st.floats(1, 30))
def test_gabor_of_complex_numbers(u, v, omega, scale):
    z = torch.tensor([u, v], dtype=torch.float64)
    one = gabor(z, omega, scale, 1, True)
    peak = math.exp(omega**2 / (4 * scale**2))
    assert float(one.norm()) <= peak * (1 + 1e-9)
    highest = torch.tensor([0.0, -omega / (2 * scale**2)], dtype=torch.float64)
    assert float(gabor(highest, omega, scale, 1, True).norm()) == pytest.approx(peak)
    # a second map that is zero changes nothing
    two = gabor(torch.tensor([u, 0, v, 0], dtype=torch.float64), omega, scale, 2, True)
    torch.testing.assert_close(one, two)


def test_gabor_slope_at_zero_is_i_omega():
    slope = torch.func.jacrev(lambda u: gabor(u, 7.0, 3.0, 1, False))(torch.zeros(1).double())
    assert slope.flatten().tolist() == [0, 7]


def test_unknown_choices_are_named():
    # built by name, as files do; beartype would refuse them before the constructors do
    for cls, key in ((Wire, "kind"), (Wavelet, "template")):
        unchecked = getattr(cls.__init__, "__wrapped__", cls.__init__)
        unchecked = getattr(unchecked, "__wrapped__", unchecked)
        with pytest.raises(FieldError, match=re.escape(f"{key} is 'none': choose from")):
            unchecked(cls.__new__(cls), 2, 3, **{key: "none"})


# polynomials and initialisation


@given(st.integers(1, 8), numbers, numbers)
def test_polynomials_are_truncated_exponentials(degree, x, y):
    z = torch.complex(torch.tensor([x], dtype=torch.float64), torch.tensor([y]).double())
    expected = sum(z**k / math.factorial(k) for k in range(1, degree + 1))
    found = as_complex(complex_truncated_exp(as_pairs(z), degree))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    real = sum(z.real**k / math.factorial(k) for k in range(1, degree + 1))
    torch.testing.assert_close(truncated_exp(z.real, degree), real, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_polynomial_variance(degree):
    torch.manual_seed(0)
    z = torch.randn(400_000, dtype=torch.complex128)
    power = as_complex(complex_truncated_exp(as_pairs(z[:, None]), degree)).abs().square().mean()
    assert float(power) == pytest.approx(polynomial_variance(degree, True), rel=0.03)
    x = torch.randn(400_000, dtype=torch.float64)
    power = truncated_exp(x, degree).square().mean()
    assert float(power) == pytest.approx(polynomial_variance(degree, False), rel=0.03)


@torch.no_grad()
def test_depth_does_not_blow_up():
    x = torch.rand(1000, 2) * 2 - 1
    for name in ("band_pass", "low_pass"):
        variances = []
        for seed in range(4):
            torch.manual_seed(seed)
            part = getattr(Wavelet(2, 1, hidden_layers=4, octaves=2), name)
            z, found = part.atoms(x), []
            polynomial = complex_truncated_exp if part.atoms.complex else truncated_exp
            for layer in part.layers:
                y = layer(z)
                found.append(float(y.square().mean()) * (1 + part.atoms.complex))
                z = polynomial(y, 2)
            variances.append(found)
        mean = torch.tensor(variances).mean(0)
        assert 0.3 < mean[0] < 2  # what atoms lose over the edge of the domain lowers it
        assert mean.max() < 6


# atoms


def test_cauchy_atoms_are_the_formula_and_become_gabor():
    x = torch.linspace(-3, 3, 50, dtype=torch.float64)[:, None]
    found = {}
    for template, k in (("cauchy", 3.0), ("cauchy", 60.0), ("gabor", 60.0)):
        atoms = Atoms(1, 1, template, k, 1).double()
        with torch.no_grad():
            atoms.matrix.zero_()
            atoms.centre.zero_()
        found[template, k] = as_complex(atoms(x))
    torch.testing.assert_close(found["cauchy", 3.0], (1 - 1j * x / 3) ** -9)
    torch.testing.assert_close(found["gabor", 60.0], torch.exp(60j * x - x**2 / 2))
    difference = (found["cauchy", 60.0].abs() - found["gabor", 60.0].abs()).abs()
    assert difference.max() < 2e-3


@pytest.mark.parametrize("d", [1, 2, 3])
def test_atoms_start_as_rotations_of_known_width(d):
    torch.manual_seed(0)
    maps = Atoms(d, 20, "cauchy", 3.0, 4).double().maps().detach()
    widths = maps[:, 0].norm(dim=-1)
    assert widths.min() == pytest.approx(2)
    assert widths.max() == pytest.approx(2 ** (1 + 4 * 19 / 20))
    expected = widths[:, None, None] ** 2 * torch.eye(d)
    # built in float32, orthonormal to its rounding times the slopes
    torch.testing.assert_close(maps @ maps.mT, expected.double(), atol=1e-3, rtol=1e-4)


@settings(max_examples=50)
@given(st.integers(1, 4), st.integers(0, 10**6), st.floats(0.1, 30))
def test_frequencies_stay_in_a_half_space_wherever_training_goes(d, seed, size):
    torch.manual_seed(seed)
    atoms = Atoms(d, 8, "cauchy", 3.0, 4).double()
    with torch.no_grad():
        atoms.matrix += size * torch.randn(atoms.matrix.shape)
    assert (atoms.maps()[:, 0, 0] > 0).all()


@torch.no_grad()
def test_nothing_is_where_no_atom_is():
    torch.manual_seed(0)
    part = Wavelet(1, 1, atoms=16, hidden_layers=2, template="gabor", octaves=3).band_pass.double()
    part.atoms.centre.uniform_(0.6, 1.0)
    part.atoms.matrix.clamp_(min=math.log(16))
    x = torch.linspace(-1, 1, 201, dtype=torch.float64)[:, None]
    inside, outside = part(x[160:]).abs().max(), part(x[:60]).abs().max()
    assert outside < 1e-30 * inside
    one, two = as_complex(part.atoms(x)).abs()[:, :2].T
    # so does a product: it is no larger than either factor
    assert (one * two <= torch.minimum(one, two)).all()


# spectra


SPAN, COUNT = 40.0, 1 << 15


def power(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Angular frequencies and the share of energy at each, of samples over [-SPAN, SPAN]."""
    energy = torch.fft.fft(values, dim=0).abs().square().reshape(COUNT, -1).sum(-1)
    omega = 2 * math.pi * torch.fft.fftfreq(COUNT, 2 * SPAN / COUNT, dtype=torch.float64)
    return omega, energy / energy.sum()


def line() -> torch.Tensor:
    return torch.arange(COUNT, dtype=torch.float64)[:, None] * (2 * SPAN / COUNT) - SPAN


@torch.no_grad()
@pytest.mark.parametrize("template", ["cauchy", "gabor"])
def test_powers_of_an_atom_have_its_harmonics(template):
    atoms = Atoms(1, 1, template, 4.0, 1).double()
    atoms.matrix.fill_(math.log(2))
    atoms.centre.fill_(0.3)
    psi = as_complex(atoms(line()))
    for m in (1, 2, 3):
        omega = power(psi)[0] / 2
        # the transform itself, not its square, is the density of mean m k and deviation sqrt(m)
        density = torch.fft.fft(psi[:, 0] ** m).abs()
        density = density / density.sum()
        mean = (omega * density).sum()
        deviation = ((omega - mean).square() * density).sum().sqrt()
        assert float(mean) == pytest.approx(4 * m, rel=1e-3)
        assert float(deviation) == pytest.approx(math.sqrt(m), rel=1e-2)


def chirp() -> torch.Tensor:
    """A chirp with two jumps and a cusp, 512 samples."""
    x = (torch.arange(512, dtype=torch.float64) + 0.5) / 256 - 1
    sweep = torch.sin(40 * (x + 1.2).square())
    jumps = 0.6 * (x > -0.3) - 0.8 * (x > 0.45)
    return (0.4 * sweep + jumps - 0.5 * (x - 0.1).abs().sqrt()).clamp(-1, 1)[:, None]


def speech(folder) -> torch.Tensor:
    """512 samples of speech, the loudest of a few."""
    wavfile = pytest.importorskip("scipy.io.wavfile")
    _, samples = wavfile.read(folder / "audio" / "vctk_p286_011.wav")
    values = torch.as_tensor(samples.copy()).double().reshape(len(samples), -1)[:, 0]
    pieces = values[: len(values) // 512 * 512].reshape(-1, 512)
    piece = pieces[pieces.abs().sum(-1).argmax()]
    return (piece / piece.abs().max())[:, None]


def fit(field: torch.nn.Module, samples: torch.Tensor, steps: int, lr: float = 5e-3) -> float:
    n = len(samples)
    x = ((torch.arange(n) + 0.5) * 2 / n - 1).to(samples)[:, None]
    optimiser = torch.optim.Adam(field.parameters(), lr=lr)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = (field(x) - samples).square().mean()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return float((field(x) - samples).square().mean())


@torch.no_grad()
def analytic(field: Wavelet) -> torch.Tensor:
    """The band-pass part with its imaginary part."""
    z, out = as_complex(field.band_pass.features(line())), field.band_pass.out
    return z @ torch.complex(out.real.weight, out.imag.weight).T


@pytest.mark.parametrize("source", ["chirp", "speech"])
@pytest.mark.parametrize("depth", [1, 2])
def test_the_band_pass_part_stays_progressive_and_off_zero(source, depth, request):
    samples = chirp() if source == "chirp" else speech(request.getfixturevalue("shared"))
    torch.manual_seed(0)
    sizes = {"atoms": 32, "hidden_features": 16, "low_features": 8, "octaves": 3}
    field = Wavelet(1, 1, hidden_layers=depth, **sizes).double()
    field.adapt(SignalStatistics(samples))
    before = float(samples.square().mean())
    for steps in (0, 60):
        after = fit(field, samples, steps)
        omega, share = power(analytic(field))
        assert float(share[omega < 0].sum()) < 1e-16  # what is left of the FFT's own rounding
        lowest = float(field.band_pass.atoms.maps()[:, 0, 0].detach().min())
        assert float(share[omega.abs() < lowest].sum()) < 1e-2
        assert float(share[omega.abs() < lowest / 5].sum()) < 1e-8
        # degree 2, depth times: not above 2^depth of the finest frequency, and the Gamma's tail
        highest = float(field.band_pass.atoms.maps()[:, 0, 0].detach().max())
        assert float(share[omega > highest * (2**depth * 3 + 8 * 2 ** (depth / 2))].sum()) < 1e-12
    assert after < 0.7 * before

    # the same polynomial of real wavelets comes back to zero
    with torch.no_grad():
        real = field.band_pass.atoms(line())[:, : field.band_pass.sizes[0]]
        mixed = real @ field.band_pass.layers[0].real.weight.T
        omega, share = power(truncated_exp(mixed, 2))
    assert float(share[omega.abs() < lowest / 5].sum()) > 1e-4


@torch.no_grad()
def test_gabor_leaks_below_zero_as_its_gaussian_tail():
    leaks = {}
    for template in ("cauchy", "gabor"):
        atoms = Atoms(1, 1, template, 2.0, 1).double()
        atoms.centre.zero_()
        omega, share = power(as_complex(atoms(line())))
        leaks[template] = float(share[omega < 0].sum())
    assert leaks["cauchy"] < 1e-12
    # the energy's Gaussian has deviation 1/sqrt 2
    assert leaks["gabor"] == pytest.approx(math.erfc(2.0) / 2, rel=0.1)


# modulus maxima


def test_maxima_of_known_signals():
    x = (torch.arange(256) + 0.5) / 128 - 1
    signals = {
        "step": ((x > 0.25).float(), [0.25]),
        "ramp": (torch.clamp(4 * x, -1, 1), [0.0]),
        "bump": (torch.exp(-((x / 0.2) ** 2) / 2), [-0.2, 0.2]),
    }
    for name, (values, places) in signals.items():
        scale = 0.3 if name == "ramp" else 0.03
        found = modulus_maxima(SignalStatistics(values[:, None]), scale)
        assert len(found.modulus) >= len(places), name
        expected = torch.tensor(places)
        distance = (found.centres - expected).abs().min(dim=-1).values
        assert distance.max() < scale / 2, name
        # and each of the places is among those found
        assert (found.centres - expected).abs().min(dim=0).values.max() < scale / 2, name


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_straight_edge_in_any_dimension(d):
    shape = (24, 20, 18)[:d]
    grids = [(torch.arange(n) + 0.5) * 2 / n - 1 for n in shape]
    first = torch.meshgrid(*grids, indexing="ij")[0]
    samples = torch.where(first > 0, 0.5, -0.5)[..., None].expand(*shape, 3)
    found = modulus_maxima(SignalStatistics(samples), 0.15)
    assert len(found.modulus) >= math.prod(shape[1:]) / 4
    assert found.centres[:, 0].abs().max() <= 2 / 24
    assert (found.directions[:, 0] > 0.999).all()


def test_flat_signals_have_no_maxima_and_leave_the_field_as_it_is():
    flat = SignalStatistics(torch.full((9, 8, 3), 0.3))
    assert len(modulus_maxima(flat, 0.1).modulus) == 0
    torch.manual_seed(0)
    field = Wavelet(2, 3, atoms=8)
    before = [p.clone() for p in field.parameters()]
    field.adapt(flat)
    assert all(a.equal(b) for a, b in zip(before, field.parameters(), strict=True))


def test_adapt_turns_atoms_along_the_gradient_onto_the_edge():
    torch.manual_seed(0)
    grid = (torch.arange(64) + 0.5) / 32 - 1
    a, b = torch.meshgrid(grid, grid, indexing="ij")
    normal = torch.tensor([0.6, -0.8])
    samples = torch.tanh(40 * (normal[0] * a + normal[1] * b))[..., None]
    field = Wavelet(2, 1, atoms=64, octaves=4)
    field.adapt(SignalStatistics(samples))
    fine = torch.arange(32, 64)
    towards = field.band_pass.atoms.maps().detach()[fine, 0]
    cosines = torch.nn.functional.normalize(towards, dim=-1) @ normal
    assert cosines.abs().median() > 0.98
    assert (field.band_pass.atoms.centre.detach()[fine] @ normal).abs().median() < 0.1


def piecewise() -> torch.Tensor:
    x = (torch.arange(512) + 0.5) / 256 - 1
    jumps = 0.8 * (x > -0.62) - 1.1 * (x > -0.17) + 0.9 * (x > 0.33) - 0.5 * (x > 0.71)
    return (0.3 * torch.sin(3 * x) + jumps - 0.2)[:, None]


def test_centres_at_maxima_fit_better_than_random_ones():
    errors = {True: 0.0, False: 0.0}
    sizes = {"atoms": 32, "hidden_features": 16, "low_features": 8, "octaves": 6}
    for seed in range(2):
        for adapted in errors:
            torch.manual_seed(seed)
            field = fields.create("wavelet", 1, 1, **sizes)
            if adapted:
                field.adapt(SignalStatistics(piecewise()))
            errors[adapted] += math.log10(fit(field, piecewise(), 100)) / 2
    assert errors[True] < errors[False] - 0.4  # 4 dB
