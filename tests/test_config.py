"""Strict configurations: what is refused, and that the way back is the way there."""

import dataclasses

import pytest

from dalle2_jax.config import build, plain
from dalle2_jax.errors import BadInput


@dataclasses.dataclass(frozen=True)
class Inner:
    """A nested group."""

    rate: float
    sizes: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outer:
    """A group with a group."""

    inner: Inner
    name: str = "a"
    maybe: Inner | None = None
    flag: bool = False

    def __post_init__(self):
        assert self.name != "bad", "name must not be bad"


def test_there_and_back():
    values = {"inner": {"rate": 1, "sizes": [1, 2]}, "maybe": {"rate": 0.5}}
    made = build(Outer, values)
    assert made == Outer(Inner(1.0, (1, 2)), maybe=Inner(0.5))
    assert isinstance(made.inner.rate, float)
    assert build(Outer, plain(made)) == made


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"inner": {"rate": 1, "size": []}}, "did you mean 'sizes'"),
        ({"inner": {"rate": "fast"}}, "config.inner.rate must be float"),
        ({"inner": {"rate": 1, "sizes": 3}}, "config.inner.sizes must be a list"),
        ({"inner": {"rate": 1, "sizes": [1.5]}}, "config.inner.sizes[0] must be int"),
        ({"inner": {}}, "config.inner.rate is missing"),
        ({"inner": 3}, "config.inner must be a group"),
        ({"inner": {"rate": 1}, "flag": 1}, "config.flag must be bool"),
        ({"inner": {"rate": True}}, "config.inner.rate must be float"),
        ({"inner": {"rate": 1}, "name": "bad"}, "name must not be bad"),
    ],
)
def test_one_sentence_names_the_field(values, sentence):
    with pytest.raises(BadInput) as caught:
        build(Outer, values)
    assert sentence in str(caught.value)
