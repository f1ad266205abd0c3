"""Arrays, tensors and what else may stand where pictures are wanted."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from g100.foundations.pictures import ImageSet
from g100.foundations.sources import as_image_set
from tests.attacks.cases import Case
from tests.toys import MeanPicture, pictures

X = np.random.default_rng(7).integers(0, 256, (4, 9, 14, 3), dtype=np.uint8)
FLOAT = (X / 255).astype(np.float32)


def read(folder: Path, make: Callable[[], object], wanted=None) -> None:
    "What `make` gives is refused, or read as `wanted`: the pictures of X, if it does not say."
    found = as_image_set(make())
    if wanted is not None:
        assert len(found) == len(wanted)
        for got, y in zip(found, wanted, strict=True):
            assert got.dtype == y.dtype and got.shape == y.shape and (got == y).all()


def judged(folder: Path, make: Callable[[], object]) -> None:
    "The same before a fitted detector."
    detector = MeanPicture(image_size=16, sigma=1.0, target_fpr=0.3).fit(pictures(12, 16))
    verdicts = detector.inspect(make())
    assert np.isfinite(verdicts.score).all() and len(verdicts.score) == len(verdicts.names)


class Rows(Dataset):
    def __init__(self, rows, length=None):
        self.rows, self.length = rows, length

    def __len__(self):
        return len(self.rows) if self.length is None else self.length

    def __getitem__(self, i):
        return self.rows[i]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


class Lying:
    "Has a length and no items."

    def __len__(self):
        return 3


class Endless:
    "Names itself an array, and raises whatever is asked."

    def __array__(self, *args, **options):
        raise RuntimeError("no array after all")

    def __repr__(self):
        raise RuntimeError("no text either\nin two lines")


def circular() -> list:
    found: list = []
    found.append(found)
    return found


RIGHT: dict[str, tuple[Callable, object]] = {
    "uint8": (lambda: X, X),
    "a list": (lambda: list(X), X),
    "a tuple": (lambda: tuple(X), X),
    "an iterator": (lambda: iter(X), X),
    "uint16": (lambda: X.astype(np.uint16) * 257, X),
    "big endian": (lambda: X.astype(">u2") * 257, X),
    "float32": (lambda: FLOAT, FLOAT),
    "float64": (lambda: FLOAT.astype(np.float64), FLOAT),
    "channels first": (lambda: np.moveaxis(X, 3, 1), X),
    "backwards": (lambda: X[::-1], X[::-1]),
    "Fortran's order": (lambda: np.asfortranarray(X), X),
    "strided": (lambda: X.repeat(2, 0)[::2], X),
    "read only": (lambda: np.frombuffer(X.tobytes(), np.uint8).reshape(X.shape), X),
    "a tensor": (lambda: torch.from_numpy(X), X),
    "a tensor with a gradient": (lambda: torch.from_numpy(FLOAT.copy()).requires_grad_(), FLOAT),
    "PIL images": (lambda: [Image.fromarray(x) for x in X], X),
    "a Dataset": (lambda: Rows(X), X),
    "a stream": (Stream, X),
    "a TensorDataset": (lambda: TensorDataset(torch.from_numpy(X)), X),
    "a DataLoader": (lambda: DataLoader(TensorDataset(torch.from_numpy(X)), 3), X),
    "an array of objects": (lambda: np.array([*X, None], dtype=object)[:4], X),
    "dicts": (lambda: Rows([{"image": x} for x in X]), X),
    "pairs": (lambda: Rows([(x, 0) for x in X]), X),
    "a masked array": (lambda: np.ma.masked_array(X), X),
    "an overlapping view": (
        lambda: np.lib.stride_tricks.sliding_window_view(X[0, :, :, 0], (9, 14)).repeat(2, 0)[0],
        X[0, :, :, :1].repeat(3, 2)[None],
    ),
    "one column": (lambda: X[:, :, 4:5].repeat(9, 2), X[:, :, 4:5].repeat(9, 2)),
    "an ImageSet": (lambda: as_image_set(X), X),
    "float16 of ones": (lambda: np.ones((2, 9, 9, 3), np.float16), np.ones((2, 9, 9, 3), np.float32)),
    "a generator": (lambda: (x for x in X), X),
    "bfloat16": (lambda: torch.ones(2, 3, 9, 9, dtype=torch.bfloat16), np.ones((2, 9, 9, 3), np.float32)),
}

WRONG: dict[str, Callable] = {
    "None": lambda: None,
    "a number": lambda: 7,
    "nan": lambda: float("nan"),
    "True": lambda: True,
    "bytes": lambda: b"abc",
    "a bytearray": lambda: bytearray(9),
    "a dict": lambda: {"image": X},
    "a set": lambda: {1, 2},
    "an object": object,
    "a class": lambda: Lying,
    "a module": lambda: np,
    "a function": lambda: print,
    "an empty list": list,
    "an empty tuple": tuple,
    "an empty iterator": lambda: iter(()),
    "an empty array": lambda: X[:0],
    "pictures of no rows": lambda: X[:, :0],
    "pictures of no columns": lambda: X[:, :, :0],
    "no colours": lambda: X[..., :0],
    "a length without items": Lying,
    "an item that is none": lambda: [X[0], None],
    "an item that is text": lambda: [X[0], "none.png"],
    "an item that is a list": lambda: [X[0].tolist()],
    "a list in itself": circular,
    "lists": lambda: X.tolist(),
    "2 colours": lambda: X[..., :2],
    "4 colours": lambda: np.dstack([X[0], X[0, ..., :1]]),
    "5 axes": lambda: X[None],
    "6 axes": lambda: X[None, None],
    "one row, or three": lambda: X[:, :1],
    "1 axis": lambda: X.ravel(),
    "0 axes": lambda: np.array(3),
    "a scalar": lambda: np.uint8(3),
    "three grey or one": lambda: np.moveaxis(X[0], 2, 0),
    "int8": lambda: X.astype(np.int8),
    "int16": lambda: X.astype(np.int16),
    "int32": lambda: X.astype(np.int32),
    "int64": lambda: X.astype(np.int64),
    "uint32": lambda: X.astype(np.uint32),
    "uint64": lambda: X.astype(np.uint64),
    "bool": lambda: X > 9,
    "complex": lambda: X.astype(complex),
    "text": lambda: X.astype(str),
    "bytes in an array": lambda: X.astype("S3"),
    "dates": lambda: X.astype("datetime64[s]"),
    "spans": lambda: X.astype("timedelta64[s]"),
    "records": lambda: np.zeros((4, 9, 9), dtype=[("r", "u1"), ("g", "u1")]),
    "objects": lambda: X.astype(object),
    "objects in a picture": lambda: [X[0].astype(object)],
    "nan in it": lambda: np.where(X == X.max(), np.nan, FLOAT),
    "all nan": lambda: np.full(X.shape, np.nan),
    "inf": lambda: np.full(X.shape, np.inf),
    "minus inf": lambda: np.full(X.shape, -np.inf),
    "below 0": lambda: FLOAT - 0.01,
    "above 1": lambda: FLOAT + 0.5,
    "0 to 255 as float": lambda: X.astype(float),
    "1e300": lambda: np.full(X.shape, 1e300),
    "a sparse tensor": lambda: torch.zeros(9, 9).to_sparse(),
    "a tensor on meta": lambda: torch.zeros(2, 3, 9, 9, device="meta"),
    "a tensor of bool": lambda: torch.zeros(2, 3, 9, 9, dtype=torch.bool),
    "a complex tensor": lambda: torch.zeros(2, 3, 9, 9, dtype=torch.complex64),
    "a quantised tensor": lambda: torch.quantize_per_tensor(torch.zeros(2, 3, 9, 9), 0.1, 0, torch.quint8),
    "an empty tensor": lambda: torch.zeros(0, 3, 9, 9),
    "a tensor of int64": lambda: torch.zeros(2, 3, 9, 9, dtype=torch.int64),
    "a row without a picture": lambda: Rows([{}]),
    "an empty pair": lambda: Rows([()]),
    "rows of text": lambda: Rows(["none.png"]),
    "a Dataset without a length": lambda: Dataset(),
    "batches of pairs of batches": lambda: DataLoader(Rows([("a", 1)]), 2),
    "an array that is none": Endless,
    "a list of them": lambda: [Endless()],
    "a web address": lambda: "https://example.com/a.png",
    "an unclosed file": lambda: open("/dev/null", "rb"),
    "an ImageSet of wrong arrays": lambda: ImageSet([X[0].astype(int)], "a", [0], ["good"], [None]),
    "an ImageSet of nothing": lambda: ImageSet([], [], [], [], []),
    "an ImageSet of missing files": lambda: ImageSet([Path("none.png")], "a", [0], ["good"], [None]),
    "a Dataset that lies about its length": lambda: Rows(list(X), 9),
    "a Dataset of negative length": lambda: Rows(list(X), -1),
}

COLUMNS: dict[str, tuple] = {
    "names too few": (X, "abc", [0] * 4, ["good"] * 4, [None] * 4),
    "a name twice": (X, "aabc", [0] * 4, ["good"] * 4, [None] * 4),
    "labels of text": (X, "abcd", ["a"] * 4, ["good"] * 4, [None] * 4),
    "labels None": (X, "abcd", [None] * 4, ["good"] * 4, [None] * 4),
    "labels nan": (X, "abcd", [np.nan] * 4, ["good"] * 4, [None] * 4),
    "masks too many": (X, "abcd", [0] * 4, ["good"] * 4, [None] * 5),
    "labels beyond": (X, "abcd", [0, 1, 2, 3], ["good"] * 4, [None] * 4),
    "labels too large": (X, "abcd", [10**30] * 4, ["good"] * 4, [None] * 4),
    "names that are numbers": (X, range(4), [0] * 4, ["good"] * 4, [None] * 4),
    "names that are lists": (X, [[]] * 4, [0] * 4, ["good"] * 4, [None] * 4),
    "images that are one number": (7, "abcd", [0] * 4, ["good"] * 4, [None] * 4),
    "labels by halves": (X, "abcd", [0.5] * 4, ["good"] * 4, [None] * 4),
}


def cases() -> Iterator[Case]:
    for what, (make, wanted) in RIGHT.items():
        yield Case(f"{what}, read", partial(read, make=make, wanted=wanted), "right")
        if what not in ("an overlapping view",):
            yield Case(f"{what}, judged", partial(judged, make=make), "right")
    for what, make in WRONG.items():
        for door, work in (("read", read), ("judged", judged)):
            late = door == "read" and what == "an ImageSet of missing files"
            yield Case(f"{what}, {door}", partial(work, make=make), "either" if late else "clear")
    for what, columns in COLUMNS.items():
        yield Case(f"an ImageSet with {what}", partial(lambda folder, columns: ImageSet(*columns), columns=columns))
    for channels in ("RGB", "", None, 3, ["rgb"], b"rgb", "gbr"):
        yield Case(f"channels={channels!r}", partial(lambda folder, channels: as_image_set(X, channels), channels=channels))
