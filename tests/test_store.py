"""Tensors and models: believed only when they are what was written."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from g100.foundations.store import (
    digest,
    read_card,
    read_model,
    read_tensors,
    write_model,
    write_tensors,
)
from tests.toys import line_of

# --- tensors ---


TENSORS = {"w": torch.arange(12.0).view(3, 4), "half": torch.ones(3, dtype=torch.float16), "none": torch.zeros(0, 4),
           "bf": torch.ones(2, dtype=torch.bfloat16), "n": torch.tensor(7), "b": torch.tensor([True, False])}  # fmt: skip


def test_tensors_come_back_with_their_card(tmp_path):
    write_tensors(tmp_path / "t", {**TENSORS, "turned": TENSORS["w"].T}, {"epoch": 3})
    tensors, card = read_tensors(tmp_path / "t", "checkpoint", "delete it")
    assert card == {"epoch": 3} and torch.equal(tensors["turned"], TENSORS["w"].T)
    for name, t in TENSORS.items():
        assert tensors[name].dtype == t.dtype and torch.equal(tensors[name], t)
    assert torch.equal(load_file(tmp_path / "t")["w"], TENSORS["w"]), "any reader of the format reads it"


def test_digest_knows_names_types_shapes_and_values():
    w = torch.arange(6.0)
    different = [{"w": w}, {"v": w}, {"w": w.view(2, 3)}, {"w": w.double()}, {"w": w + 1}, {"w": w, "v": w}, {}]
    assert len({digest(t) for t in different}) == len(different)
    assert digest({"a": w, "b": w + 1}) == digest({"b": w + 1, "a": w}) and digest({"w": w.view(2, 3).T.contiguous().T}) == \
        digest({"w": w.view(2, 3)})


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 255), st.sampled_from(["flip", "cut", "grow"]))
def test_no_damage_goes_unnoticed(tmp_path_factory, where, what, how):
    file = tmp_path_factory.mktemp("t") / "t"
    write_tensors(file, TENSORS, {"epoch": 3})
    good = bytearray(file.read_bytes())
    where %= len(good)
    flipped = good[:where] + bytes([good[where] ^ what]) + good[where + 1 :]
    bad = {"flip": flipped, "cut": good[:where], "grow": good + b"x"}[how]
    file.write_bytes(bytes(bad))
    try:
        tensors, card = read_tensors(file, "checkpoint", "delete it")
    except ValueError as error:
        assert str(error).startswith(f"checkpoint {file}: ") and "delete it" in str(error) and "\n" not in str(error)
    else:  # a byte of the header that changes nothing of what is said, such as the order of keys or a space
        assert all(torch.equal(tensors[n], t) for n, t in TENSORS.items()) and set(tensors) == set(TENSORS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(tmp_path, bad):
    write_tensors(tmp_path / "t", {"w": torch.tensor([1.0, bad])})
    assert "w holds NaN or Inf" in line_of(read_tensors, tmp_path / "t", "model", "fit again")


# --- a model ---


@pytest.fixture
def model(tmp_path) -> Path:
    card = {"algorithm": "riad", "parameters": {"sigma": 4.0, "levels": [2, 3]}, "fitted": {"threshold": 0.5}}
    return write_model(tmp_path / "model", card, TENSORS)


def leaves(card, path=()):
    "The paths of all plain values in a card."
    if isinstance(card, dict):
        return [leaf for key, value in card.items() for leaf in leaves(value, (*path, key))]
    return [path]


def test_every_value_of_the_card_is_covered_by_the_hash(model):
    file, good = model / "model.json", json.loads((model / "model.json").read_text())
    for path in leaves(good):
        card = json.loads(json.dumps(good))
        inner = card
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = [9] if inner[path[-1]] != [9] else 1
        file.write_text(json.dumps(card))
        said = line_of(read_model, model)
        assert "altered" in said or path == ("format",)
    file.write_text(json.dumps(good, indent=7))
    assert read_model(model)[0] == good, "how the file is laid out is nobody's business"


@pytest.mark.parametrize("text", ['{"format": 2, "x": NaN}', '{"format": 2, "x": Infinity}', "[]", "7", "", "{", "[" * 100_000])
def test_a_card_that_is_none_is_one_line(model, text):
    (model / "model.json").write_text(text)
    assert "not a model's description" in line_of(read_card, model)


def test_a_card_with_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError):
        write_model(tmp_path / "model", {"threshold": float("nan")}, TENSORS)
    assert not list(tmp_path.iterdir())


def test_files_of_two_models_do_not_make_one(model, tmp_path):
    other = write_model(tmp_path / "other", {"algorithm": "riad", "parameters": {"sigma": 3.0}}, TENSORS)
    (model / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    assert "altered, or of another model" in line_of(read_model, model)
