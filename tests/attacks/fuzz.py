"""Chance: pictures, cards and tensor files with random damage, each by its own seed: clear errors, or right results."""

import os
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from g100.foundations.pictures import image_size, read_image
from g100.foundations.sources import as_image_set
from g100.foundations.store import write_model
from tests.attacks.cases import Case
from tests.attacks.images import KINDS, SMOOTH, encoded
from tests.attacks.models import before, changed, model, seal, verdicts

WORDS = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    0.5,
    -0.0,
    1e-300,
    1e300,
    10**6,
    10**30,
    "",
    "x",
    "\0",
    "\x1b[31m",
    "nan",
    "mean-picture",
    "__class__",
    [],
    [1],
    [[1, 2]],
    {},
    {"a": None},
    2**63,
    "🙂",
    "a" * 5000,
    [0] * 500,
]


@lru_cache
def seeds() -> list[tuple[str, bytes]]:
    "Whole pictures, small ones, of every format and several kinds."
    found = [(kind, encoded(kind, image)) for kind in KINDS for image in (SMOOTH, SMOOTH[..., 0], SMOOTH[:5, :7])]
    found += [("tif", encoded("tif", SMOOTH, compression=how)) for how in (None, "packbits", "tiff_adobe_deflate", "jpeg")]
    found += [("jpg", encoded("jpg", SMOOTH, progressive=True)), ("webp", encoded("webp", SMOOTH, lossless=False))]
    return found + [
        ("png", encoded("png", (SMOOTH[..., 0].astype(np.uint16) * 257))),
        ("png", encoded("png", SMOOTH[..., 0] > 9)),
    ]


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    "The data after one to four accidents."
    data = bytearray(data)
    for _ in range(int(random.integers(1, 5))):
        at, n = int(random.integers(max(1, len(data)))), int(random.integers(1, 9))
        what = int(random.integers(7))
        if what == 0 and data:
            data[at] ^= 1 << int(random.integers(8))
        elif what == 1:
            data[at : at + n] = random.bytes(n)
        elif what == 2:
            data[at : at + n] = b""
        elif what == 3:
            data[at:at] = random.bytes(n)
        elif what == 4:
            data[at : at + 4] = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80"][n % 4]
        elif what == 5:
            data[at:] = data[at : at + int(random.integers(len(data) + 1))] * 2
        else:
            data = data[: max(1, at)] if n == 1 else data
    return bytes(data)


def picture(folder: Path, seed: int) -> None:
    random = np.random.default_rng([1, seed])
    kind, data = seeds()[int(random.integers(len(seeds())))]
    path = folder / f"x.{kind}"
    path.write_bytes(damaged(data, random))
    found = read_image(path)
    assert found.dtype == np.uint8 and found.shape == (*image_size(path), 3)
    assert (as_image_set(path)[0] == found).all()


def text_damaged(text: str, random: np.random.Generator) -> bytes:
    return damaged(text.encode(), random)


def leaves(card, path=()) -> Iterator[tuple]:
    yield path
    for key in card if isinstance(card, dict) else ():
        yield from leaves(card[key], (*path, key))


def card(folder: Path, seed: int) -> None:
    "Values changed and sealed again, or letters of the text changed and not."
    random = np.random.default_rng([2, seed])
    said, tensors = model("mean-picture")
    said = {"format": 2} | said
    if random.random() < 0.6:
        for _ in range(int(random.integers(1, 4))):
            places = list(leaves(said))
            said = changed(said, places[int(random.integers(1, len(places)))], WORDS[int(random.integers(len(WORDS)))])
        verdicts(seal(folder / "m", said, tensors))
        return
    root = write_model(folder / "m", *model("mean-picture"))
    (root / "model.json").write_bytes(text_damaged((root / "model.json").read_text(), random))
    assert (verdicts(root).score == before("mean-picture")).all()


def tensor_file(folder: Path, seed: int) -> None:
    "Bytes changed anywhere, or in the header with its length made right."
    random = np.random.default_rng([3, seed])
    path = write_model(folder / "m", *model("mean-picture")) / "model.safetensors"
    data = path.read_bytes()
    n = 8 + int.from_bytes(data[:8], "little")
    if random.random() < 0.6:
        header = damaged(data[8:n], random)
        data = len(header).to_bytes(8, "little") + header + data[n:]
    else:
        data = damaged(data, random)
    path.write_bytes(data)
    assert (verdicts(path.parent).score == before("mean-picture")).all()


def cases() -> Iterator[Case]:
    n = int(os.environ.get("G100_FUZZ", 1000))
    for what, work, times in (("picture", picture, 2 * n), ("card", card, n), ("tensor file", tensor_file, n)):
        for seed in range(times):
            yield Case(f"{what} {seed}", partial(work, seed=seed), "either", seconds=15)
