"""Fields as parts of fields: built by name, refused in one line, never within themselves."""

import pytest
import torch

import fields
from fields import compose, registry
from fields.base import Field, FieldError
from fields.compose import NO_OPTIONS
from inr.codec.decode import decode, inspect
from inr.codec.encode import encode
from inr.signals.image import Image


class Wrapper(Field):
    """A field around another, as composites are."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        base: str = "siren",
        base_options: dict = NO_OPTIONS,
    ) -> None:
        super().__init__(in_features, out_features)
        self.base = compose.build(self, "base", base, in_features, out_features, base_options)

    @property
    def widest(self) -> int:
        return self.base.widest

    def forward(self, coords):
        return self.base(coords)


class Other(Wrapper):
    """Another kind of the same."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        base: str = "siren",
        base_options: dict = NO_OPTIONS,
    ) -> None:
        super().__init__(in_features, out_features, base=base, base_options=base_options)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(registry.FIELDS, "wrapper", (f"{__name__}:Wrapper", ""))
    monkeypatch.setitem(registry.FIELDS, "other", (f"{__name__}:Other", ""))


def test_a_part_is_built_by_name_and_options():
    torch.manual_seed(0)
    whole = Wrapper(2, 3, base="siren", base_options={"hidden_features": 7})
    torch.manual_seed(0)
    alone = registry.create("siren", 2, 3, hidden_features=7)
    x = torch.rand(5, 2)
    assert whole(x).equal(alone(x))
    assert whole.hyperparameters == {"base": "siren", "base_options": {"hidden_features": 7}}


def test_hyperparameters_are_a_copy():
    options = {"hidden_features": 7}
    whole = Wrapper(2, 3, base_options=options)
    options["hidden_features"] = 9
    assert whole.hyperparameters["base_options"] == {"hidden_features": 7}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"base": "sirem"}, "base: no field is named 'sirem': did you mean 'siren'"),
        ({"base_options": {"hidden_features": 0}}, "base siren: hidden_features is 0: give"),
        ({"base_options": {"widht": 3}}, "base siren: Siren: got an unexpected .*'widht'"),
        ({"base": "wrapper"}, "base is 'wrapper': a field cannot be a part of its own kind"),
        (
            {"base": "other", "base_options": {"base": "wrapper"}},
            "base other: base is 'wrapper': a field cannot be a part of its own kind",
        ),
    ],
)
def test_what_cannot_be_built_is_told_in_one_line(given, told):
    with pytest.raises(FieldError, match=told) as error:
        Wrapper(2, 3, **given)
    assert "\n" not in str(error.value)


def test_options_that_are_no_names_and_values():
    # the one in a file may be of any type: beartype, which tests have, would refuse it before
    build = compose.build.__wrapped__
    for options in ({3: 4}, "hidden_features", None):
        with pytest.raises(FieldError, match=r"base_options is .*: give names and values"):
            build(Wrapper(1, 1), "base", "siren", 1, 1, options)


def test_options_by_position_as_in_a_file():
    field = compose.build(Wrapper(1, 1), "base", "siren", 1, 1, [7, 2, 20.0])
    assert list(field.hyperparameters.values())[:4] == [7, 2, 20.0, 30.0]


@pytest.mark.parametrize(
    ("options", "each"),
    [
        ({}, [{}, {}]),
        ({"levels": 3}, [{"levels": 3}] * 2),
        ([{"levels": 3}, {}], [{"levels": 3}, {}]),
        ([[8, 3], [9]], [[8, 3], [9]]),
        ([8, 3, [1]], [[8, 3, [1]]] * 2),
        ([], [[], []]),
    ],
)
def test_options_of_each_part(options, each):
    assert compose.options_each("base_options", options, 2) == each
    if isinstance(options, list) and each == options:
        with pytest.raises(FieldError, match="base_options is .*: give one, or a list of 3"):
            compose.options_each("base_options", options, 3)


SIREN_REST = (30.0, 30.0)  # without what concerns training alone


def test_a_file_names_all_that_parts_have(patch):
    # were a default to change, files from before would mean what they meant
    image = Image.from_array(patch)
    torch.manual_seed(0)
    small = {"hidden_features": 12, "hidden_layers": 1}
    field = fields.MultiStage(
        2,
        3,
        stages=2,
        base=["doh", "siren"],
        base_options=[{"latents": 40, "target_options": small}, small],
    )
    field.domain = image.domain
    data = encode(field)
    given = inspect(data).hyperparameters[2]
    assert given == [
        ["siren", [12, 1, *SIREN_REST], 40, 0, field.networks[0].hyperparameters["scales"], 0],
        [12, 1, *SIREN_REST],
    ]
    again = decode(data)
    assert again.networks[1].sines[0].omega == 30.0
    assert again.hyperparameters == field.hyperparameters


def test_kinds_may_be_mixed_and_used_twice_side_by_side():
    Wrapper(2, 3, base="other")
    Other(2, 3, base="wrapper")  # nothing is left of the first one
