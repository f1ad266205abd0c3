"""Labels that are none, masks that do not fit, and what a detector is asked to learn or judge with them."""

import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from g100.experiments.experiment import pixel_metrics
from g100.foundations.lessons import split
from g100.foundations.pictures import ImageSet, NumberedMask, labels_of
from g100.foundations.sources import as_image_set
from tests.attacks.cases import Case, heard
from tests.toys import MeanPicture, mvtec_folder, pictures, spotted

N = 12
GOOD = pictures(N, 16)


class Odd:
    "A label that is equal to everything, and has no text."

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0

    def __repr__(self):
        raise RuntimeError("no\ntext")


class Short:
    "A sequence that is shorter than it says."

    def __len__(self):
        return N

    def __getitem__(self, i):
        raise RuntimeError("nothing here")


def read(folder: Path, y, wanted=None) -> None:
    "The labels y are refused, or read as wanted."
    got = labels_of(as_image_set(GOOD), y)
    assert wanted is None or got.tolist() == list(wanted)


def fitted(folder: Path, y) -> None:
    MeanPicture(image_size=16, sigma=1.0, target_fpr=0.3).fit(GOOD, y)


HALF = [0, 1] * (N // 2)
RIGHT = {
    "0 and 1": HALF,
    "+1 and -1": [1 - 2 * v for v in HALF],
    "an array": np.array(HALF),
    "bools": [bool(v) for v in HALF],
    "floats": [float(v) for v in HALF],
    "a tensor": torch.tensor(HALF),
    "int8": np.array(HALF, np.int8),
    "an array of bools": np.array(HALF, bool),
    "an array of objects": np.array(HALF, object),
    "0-d tensors": [torch.tensor(v) for v in HALF],
    "a tuple": tuple(HALF),
}
WRONG = {
    "text": "good",
    "bytes": b"good",
    "a number": 1,
    "nan": float("nan"),
    "a dict": {0: 1},
    "a set": {0, 1},
    "an iterator": iter(HALF),
    "too few": HALF[:-1],
    "too many": [*HALF, 0],
    "none at all": [],
    "2 axes": np.array(HALF)[:, None],
    "0 axes": np.array(1),
    "2": [2] * N,
    "0, 1 and -1": [0, 1, -1] * (N // 3),
    "0, 1 and 2": [0, 1, 2] * (N // 3),
    "0.5": [0.5] * N,
    "nan in it": [*HALF[:-1], np.nan],
    "inf in it": [*HALF[:-1], np.inf],
    "None in it": [*HALF[:-1], None],
    "texts": ["0", "1"] * (N // 2),
    "words": ["good"] * N,
    "nothing but 1": [1] * N,
    "1e30": [10**30] * N,
    "lists": [[0]] * N,
    "complex": [0j] * N,
    "an odd object": [Odd()] * N,
    "a sequence that is none": Short(),
    "an object": object(),
    "a class": int,
    "a masked array of all": np.ma.masked_all(N),
    "dates": np.zeros(N, "datetime64[s]"),
    "a sparse tensor": torch.zeros(N).to_sparse(),
    "a tensor on meta": torch.zeros(N, device="meta"),
    "records": np.zeros(N, dtype=[("y", int)]),
}

MASK = np.zeros((16, 16), bool)
MASK[4:9, 4:9] = True


def masked(folder: Path, mask, label: int = 1) -> None:
    "A picture with that mask, which may be the name of a file that `file_mask` wrote."
    images = ImageSet(list(GOOD[:2]), "ab", [label, 0], ["x", "good"], [mask, None])
    got = images.mask(0)
    assert got.dtype == bool and got.shape == (16, 16)


def file_mask(folder: Path, array: np.ndarray | bytes, numbered: bool = False, wanted=None) -> None:
    path = folder / "m.png"
    path.write_bytes(array) if isinstance(array, bytes) else Image.fromarray(array).save(path)
    images = ImageSet(list(GOOD[:1]), "a", [1], ["x"], [NumberedMask(path) if numbered else path])
    got = images.mask(0)
    assert got.dtype == bool and got.shape == (16, 16)
    assert wanted is None or (got == wanted).all()


def empty_mask(folder: Path) -> None:
    with heard("marks nothing"):
        masked(folder, np.zeros((16, 16), bool))


MASKS_RIGHT = {"bool": MASK, "uint8 of 255": MASK * np.uint8(255), "uint8 of 1": MASK * np.uint8(1), "floats": MASK * 1.0}
MASKS_WRONG = {
    "another size": MASK[:8],
    "turned": np.zeros((16, 15), bool),
    "3 axes": MASK[..., None].repeat(3, 2),
    "1 axis": MASK.ravel(),
    "0 axes": np.array(True),
    "text": "mask",
    "a number": 3,
    "a list": MASK.tolist(),
    "nan": np.full((16, 16), np.nan),
    "objects": np.full((16, 16), None),
    "an object": object(),
    "no file": Path("none.png"),
    "texts": np.full((16, 16), "a"),
}
FILES_RIGHT = {
    "255": MASK * np.uint8(255),
    "grey edges": np.where(MASK, 200, 90).astype(np.uint8),
    "16 bits": MASK * np.uint16(65535),
    "colour": (MASK * np.uint8(255))[..., None].repeat(3, 2),
}
FILES_WRONG = {
    "values of 1": MASK * np.uint8(1),
    "values of 127": MASK * np.uint8(127),
    "another size": np.zeros((8, 16), np.uint8),
    "text": b"mask",
    "nothing": b"",
}


def few(folder: Path, n: int, calibration) -> None:
    MeanPicture(image_size=16, calibration=calibration, target_fpr=0.5).fit(GOOD[:n])


def only(folder: Path, kind: int, n: int = 6) -> None:
    "Metrics of test pictures of one label, and of labels unknown, are None and no error."
    images, masks = spotted(n, 16)
    detector = MeanPicture(image_size=16, target_fpr=0.3).fit(GOOD)
    known = ImageSet(list(images), [str(i) for i in range(n)], [kind] * n, ["x"] * n, list(masks) if kind == 1 else [None] * n)
    row, each = pixel_metrics(known, detector.inspect(known), detector)
    assert set(row) >= {"pixel_auroc", "aupro"} and len(each) == n


def same(folder: Path) -> None:
    "Pictures that are all the same calibrate a detector that still says something finite."
    detector = MeanPicture(image_size=16, target_fpr=0.3).fit(np.full((N, 16, 16, 3), 7, np.uint8))
    assert np.isfinite(detector.inspect(GOOD).score).all() and np.isfinite(detector.threshold_)


def small_for_tiles(folder: Path) -> None:
    MeanPicture(image_size=16, tile=32).fit(GOOD)


def copies(folder: Path, calibration) -> None:
    "Test pictures that taught are said."
    from g100.experiments.experiment import run_experiment

    root = mvtec_folder(folder / "part", size=16)
    (root / "test" / "good" / "000.png").write_bytes((root / "train" / "good" / "003.png").read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = run_experiment("mean-picture", f"mvtec:{root}", parameters={"image_size": 16, "calibration": calibration})
    assert any("test/good/000.png" in line and "train/good/003.png" in line for line in done.remarks), done.remarks


def cases() -> Iterator[Case]:
    for what, y in RIGHT.items():
        yield Case(f"labels: {what}", partial(read, y=y, wanted=HALF), "right")
    for what, y in WRONG.items():
        yield Case(f"labels: {what}", partial(read, y=y))
        if what != "nothing but 1":
            yield Case(f"labels: {what}, fit", partial(fitted, y=y))
    for what, mask in MASKS_RIGHT.items():
        yield Case(f"mask: {what}", partial(masked, mask=mask), "right")
    for what, mask in MASKS_WRONG.items():
        yield Case(f"mask: {what}", partial(masked, mask=mask))
    for what, array in FILES_RIGHT.items():
        yield Case(f"mask file: {what}", partial(file_mask, array=array, wanted=MASK), "right")
    for what, array in FILES_WRONG.items():
        yield Case(f"mask file: {what}", partial(file_mask, array=array), word="m.png")
    yield Case("mask file of numbers", partial(file_mask, array=MASK * np.uint8(3), numbered=True, wanted=MASK), "right")
    yield Case("an empty mask is said", empty_mask, "right")
    for label in (-1, 0, 1):
        yield Case(f"a mask of a picture labelled {label}", partial(masked, mask=MASK, label=label), "right")
    for n in range(5):
        for calibration in (0.2, 0.999, "cross"):
            yield Case(
                f"{n} good pictures, calibration={calibration}",
                partial(few, n=n, calibration=calibration),
                "clear" if n < 2 else "right",
            )
    for share in (0, 1, -1, float("nan"), 2):
        yield Case(f"split at {share}", partial(lambda folder, share: split(as_image_set(GOOD), share, 0), share=share))
    for kind in (-1, 0, 1):
        yield Case(f"nothing but pictures labelled {kind}", partial(only, kind=kind), "right")
    yield Case("pictures that are all the same", same, "right")
    yield Case("pictures smaller than a tile", small_for_tiles, word="tile=32")
    for calibration in (0.2, "cross"):
        yield Case(f"a test picture that taught, calibration={calibration}", partial(copies, calibration=calibration), "right")
