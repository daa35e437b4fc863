"""Fields as parts of fields: built by name, refused in one line, never within themselves."""

import pytest
import torch

from fields import compose, registry
from fields.base import Field, FieldError
from fields.compose import NO_OPTIONS


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
    for options in ([3], {3: 4}, "hidden_features"):
        with pytest.raises(FieldError, match=r"base_options is .*: give names and values"):
            build(Wrapper(1, 1), "base", "siren", 1, 1, options)


def test_kinds_may_be_mixed_and_used_twice_side_by_side():
    Wrapper(2, 3, base="other")
    Other(2, 3, base="wrapper")  # nothing is left of the first one
