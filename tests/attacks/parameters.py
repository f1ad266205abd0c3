"""Twelve wrong values for every parameter of the six algorithms, and settings that are allowed and too much all the same."""

from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np

from g100.foundations.detector import algorithm
from tests.attacks.cases import Case
from tests.toys import MeanPicture, pictures

SIX = ("riad", "favae", "kdad", "fcdd", "patchcore", "semi-ort")


class Sly:
    "Equal to everything, and without a text in one line."

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 7

    def __repr__(self):
        return "two\nlines \x1b[31m"

    def __str__(self):
        raise RuntimeError("no text")


VALUES = {
    "None": None,
    "an empty text": "",
    "text": "nosuch\x1b[31m",
    "nan": float("nan"),
    "inf": float("inf"),
    "-1": -1,
    "0": 0,
    "10^40": 10**40,
    "an empty tuple": (),
    "a dict": {"a": 1},
    "an array": np.zeros(3),
    "a sly object": Sly(),
}

# Which of the twelve are right after all, and for what: written down by hand, and not asked of the types that are attacked.
ALLOWED = {
    "None": {
        "resize",
        "tile",
        "overlap",
        "confidence",
        "clip",
        "patience",
        "max_minutes",
        "frozen",
        "channels",
        "gain",
        "feature_dim",
        "projection_dim",
        "max_memory",
    },
    "an empty text": {"flip"},
    "0": {
        "overlap",
        "sigma",
        "seed",
        "weight_decay",
        "validation",
        "cache_gigabytes",
        "gms_weight",
        "ssim_weight",
        "pixel_weight",
        "feature_weight",
        "kl_weight",
        "value_weight",
        "smoothgrad_noise",
        "frozen",
    },
}


def checked(folder: Path, name: str, parameter: str, value) -> None:
    detector = algorithm(name)(**{parameter: value})
    detector.check()
    if parameter in ("backbone", "weights", "levels"):  # what these may be, the networks know: they are asked before any work
        detector.build((64, 64))


def set_later(folder: Path, name: str, parameter: str, value) -> None:
    "The same by set_params, and a fit, which must find it before any work."
    detector = algorithm(name)().set_params(**{parameter: value})
    detector.fit(pictures(4, 16))


def tiny(folder: Path, **settings) -> None:
    "A fit and a verdict with settings that a parameter allows."
    detector = MeanPicture(**{"image_size": 16, "target_fpr": 0.4} | settings).fit(pictures(12, 16))
    assert np.isfinite(detector.inspect(pictures(2, 16)).score).all()


def fitted(folder: Path, name: str, **settings) -> None:
    quick = {"epochs": 1} if "epochs" in {f.name for f in fields(algorithm(name))} else {}
    shown = {"weights": "random"} if "weights" in {f.name for f in fields(algorithm(name))} else {}
    detector = algorithm(name)(**{"image_size": 32, "target_fpr": 0.4} | quick | shown | settings).fit(
        pictures(8, 32), device="cpu"
    )
    assert np.isfinite(detector.inspect(pictures(2, 32)).score).all()


EXTREME = [
    {"sigma": 1e9},
    {"sigma": 1e300},
    {"sigma": 5e-324},
    {"sigma": 200.0},
    {"opening": 16383},
    {"opening": 17},
    {"opening": 15},
    {"image_size": 1},
    {"image_size": (1, 9)},
    {"image_size": (16384, 1)},
    {"image_size": 16384},
    {"resize": 16384},
    {"resize": 16, "image_size": 17},
    {"tile": 16384},
    {"tile": 1, "overlap": 0},
    {"tile": 4, "overlap": 4},
    {"tile": 4, "overlap": 3},
    {"overlap": 2**31 - 1},
    {"batch_size": 2**20},
    {"seed": 2**31 - 1},
    {"calibration": 1e-300},
    {"calibration": 1 - 1e-16},
    {"target_fpr": 1e-300},
    {"target_fpr": 1 - 1e-16},
    {"confidence": 1 - 1e-16},
    {"confidence": 1e-300},
    {"framing": "pad", "image_size": (3, 16)},
    {"framing": "crop", "image_size": (1, 16)},
]
BUILT = [
    ("riad", {"width": 2**20}),
    ("riad", {"ks": (2**20,)}),
    ("riad", {"ks": (1,) * 100}),
    ("riad", {"depth": 12}),
    ("riad", {"n": 2**20}),
    ("favae", {"z": 2**20}),
    ("favae", {"width": 2**20}),
    ("kdad", {"width": 2**20}),
    ("kdad", {"smoothgrad_n": 2**20, "method": "smoothgrad"}),
    ("fcdd", {"channels": 16384}),
    ("patchcore", {"feature_dim": 2**20}),
    ("patchcore", {"patch_size": 16383}),
    ("patchcore", {"n_neighbors": 2**20}),
    ("patchcore", {"projection_dim": 2**20}),
    ("patchcore", {"max_memory": 1e-9}),
    ("patchcore", {"coreset_ratio": 1e-300}),
    ("semi-ort", {"k": 2**20}),
    ("semi-ort", {"epsilon": 1e-300}),
    ("semi-ort", {"epsilon": 1e300}),
    ("riad", {"learning_rate": 1e30}),
    ("riad", {"epochs": 2**20, "max_minutes": 1e-9}),
    ("riad", {"train_batch": 2**20}),
    ("riad", {"validation": 1 - 1e-16}),
    ("riad", {"clip": 1e-300}),
    ("favae", {"kl_weight": 1e300}),
    ("riad", {"cache_gigabytes": 1e300}),
    ("fcdd", {"gain": 1e300}),
    ("fcdd", {"field_std": 1e-300}),
    ("fcdd", {"frozen": 99}),
    ("patchcore", {"levels": (99,)}),
    ("riad", {"weight_decay": 1e300, "optimizer": "sgd"}),
]


def cases() -> Iterator[Case]:
    for name in SIX:
        for f in fields(algorithm(name)):
            for what, value in VALUES.items():
                right = f.name in ALLOWED.get(what, ())
                yield Case(
                    f"{name}: {f.name} is {what}",
                    partial(checked, name=name, parameter=f.name, value=value),
                    "right" if right else "clear",
                    "" if right else f.name,
                )
            yield Case(
                f"{name}: {f.name} is set to a sly object before a fit",
                partial(set_later, name=name, parameter=f.name, value=VALUES["a sly object"]),
                word=f.name,
            )
    for settings in EXTREME:
        yield Case(f"mean-picture with {settings}", partial(tiny, **settings), "either", seconds=20, memory=4000)
    for name, settings in BUILT:
        yield Case(
            f"{name} with {settings}", partial(fitted, name=name, **settings), "either", seconds=60, slow=True, memory=4000
        )
    for wrong in ("nosuch", "device", "self", "fit", "fitted_", "__class__", "", "sigma "):
        yield Case(f"a parameter {wrong!r}", partial(checked, name="riad", parameter=wrong, value=1))
