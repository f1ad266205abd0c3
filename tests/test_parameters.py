"""Parameters: what a type says in words, what passes for a value, and that no wrong value of any algorithm is a traceback."""

import inspect
import math
import pydoc
import re
from dataclasses import fields
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from g100.foundations.detector import ALGORITHMS, algorithm
from g100.foundations.errors import G100Error
from g100.foundations.parameters import (
    Channels,
    Count,
    Declared,
    Levels,
    NonNegative,
    Odd,
    Positive,
    Rate,
    Ratio,
    Share,
    Side,
    Size,
    Whole,
    check_values,
    param,
    words,
)
from tests.toys import line_of

NAMES = sorted(name for name, place in ALGORITHMS.items() if place.startswith("g100."))
WRONG = ("abc", -1, math.nan, math.inf, 1.5, None, [], {}, object(), True, 10**30, b"x")
assert len(WRONG) == 12


class Holder(Declared):
    "One parameter of each type."

    count: Count = param(1, "c")
    whole: Whole = param(0, "w")
    odd: Odd = param(1, "o")
    side: Side = param(1, "s")
    size: Size = param(1, "z")
    channels: Channels = param(1, "h")
    levels: Levels = param((1,), "l")
    positive: Positive = param(1.0, "p")
    non_negative: NonNegative = param(0.0, "n")
    rate: Rate = param(0.5, "r")
    share: Share = param(0.0, "a")
    ratio: Ratio = param(1.0, "t")
    choice: Literal["one", "two"] | None = param("one", "i")
    flag: bool = param(True, "f")
    place: str | Path = param("x", "b")


# name: what is right, what is wrong
VALUES = {
    "count": ([1, 7, np.int64(3)], [0, -1, 1.0, "1", None, True, 2**40, np.float32(2)]),
    "whole": ([0, 7, np.uint8(3)], [-1, 0.5, False]),
    "odd": ([1, 3, 5], [0, 2, -1, 1.0]),
    "side": ([1, 2**14], [0, 2**14 + 1]),
    "size": ([3, (3, 4), [3, 4], np.int32(9)], [0, (3,), (3, 4, 5), (0, 4), 2.5, "3", {3, 4}]),
    "channels": ([1, 2**14], [0, 2**15]),
    "levels": ([(1, 2), [0], ()], [(1.5,), (-1,), 3, "12"]),
    "positive": ([1, 1e-9, np.float32(0.5)], [0, -1.0, math.nan, math.inf, "1", True]),
    "non_negative": ([0, 0.0, 3], [-1e-9, math.nan]),
    "rate": ([0.5], [0, 1, 1.5, -0.1, None]),
    "share": ([0, 0.99], [1, -0.1]),
    "ratio": ([1, 0.01], [0, 1.01]),
    "choice": (["one", "two", None], ["three", 1, ("one",)]),
    "flag": ([True, False, np.True_], [1, 0, "yes", None]),
    "place": (["x", Path("y")], [1, b"x", None]),
}


@pytest.mark.parametrize("name", VALUES)
def test_what_passes_for_a_value(name):
    right, wrong = VALUES[name]
    for value in right:
        check_values(Holder(**{name: value}))
    for value in wrong:
        said = line_of(lambda value=value: check_values(Holder(**{name: value})))
        assert name in said and ("wants" in said or "unknown" in said)
    assert set(VALUES) == {f.name for f in fields(Holder)}


@given(st.one_of(st.integers(), st.floats(), st.text(max_size=3), st.booleans(), st.none(), st.lists(st.integers())))
def test_a_rate_is_a_number_strictly_between_0_and_1(value):
    right = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1
    if right:
        check_values(Holder(rate=value))
    else:
        assert "rate=" in line_of(lambda: check_values(Holder(rate=value)))


def test_nothing_is_converted():
    holder = Holder(size=[3, 4], count=np.int64(2))
    check_values(holder)
    assert holder.size == [3, 4] and type(holder.count) is np.int64


def test_words():
    assert words(Count) == "a whole number >= 1" and words(Odd) == "an odd whole number >= 1"
    assert words(Rate) == "a number in (0, 1)" and words(Share) == "a number in [0, 1)" and words(Ratio) == "a number in (0, 1]"
    assert words(Side | None) == "a whole number >= 1 or None" and words(Literal["a", "b"]) == "'a', 'b'"
    assert words(NonNegative) == "a number >= 0" and words(Positive) == "a number > 0"


def test_a_class_below_need_not_repeat_the_sentence():
    class Above(Declared):
        "A."

        rate: Rate = param(0.5, "the share of it")

    class Below(Above):
        "B."

        rate: Rate = param(0.1)

    assert "rate : a number in (0, 1), default 0.1\n    the share of it" in Below.__doc__
    assert Below().rate == 0.1 and Above().rate == 0.5


@pytest.mark.parametrize("name", NAMES)
def test_help_describes_every_parameter(name):
    cls = algorithm(name)
    page = pydoc.render_doc(cls, renderer=pydoc.plaintext)
    for f in fields(cls):
        found = re.search(rf"^ \|  {f.name} : (.+), default (.+)\n \|      (\S.{{10,}})$", page, re.MULTILINE)
        assert found and found[2] == repr(f.default), f.name
    first = cls.__doc__.splitlines()[0]
    assert first and "Example" in cls.__doc__
    (example,) = re.findall(r">>> (.+)", cls.__doc__)
    made = eval(example.partition(".fit(")[0].partition("= ")[2], {cls.__name__: cls})
    made.check()


@pytest.mark.parametrize("name", NAMES)
def test_the_signature_is_plain_and_complete(name):
    signature = inspect.signature(algorithm(name))
    assert list(signature.parameters) == [f.name for f in fields(algorithm(name))]
    assert "Annotated" not in str(signature)
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in signature.parameters.values())


@pytest.mark.parametrize("name", NAMES)
def test_no_wrong_value_is_a_traceback(name):
    "Twelve values for every parameter: refused in one line that names it, or the structure of a model can be made with it."
    cls, refusals = algorithm(name), 0
    shaping = {"backbone", "weights", "levels", "frozen", "width", "depth", "shuffle", "ks", "n", "z", "k", "channels"}
    for f in fields(cls):
        for value in WRONG:
            detector = cls(**{f.name: value})
            try:
                detector.check()
                if f.name in shaping or f.name == "image_size":
                    with torch.device("meta"):
                        detector.build(detector.scoring().view.shape)
            except G100Error as error:
                assert "\n" not in str(error), str(error)
                refusals += 1
    assert refusals > 8 * len(fields(cls))
