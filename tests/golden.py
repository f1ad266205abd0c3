"""Golden numbers: what the six algorithms say of a few real pictures, kept while the code around them moves.

`python -m tests.golden record FILE` writes scores, maps and thresholds of every case; `python -m tests.golden compare FILE`
computes them anew and prints, for each case, the largest relative deviation. Compare on the machine that recorded:
processors differ in the last digits. Needs nothing but what `g100` itself exports, so that any two versions can be compared.
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

import g100

TRAINED, MEMORY, THREE = {"epochs": 3, "train_batch": 8}, {"coreset_ratio": 0.01}, {"levels": (1, 2, 3)}
CASES = {
    "patchcore": ("PatchCore", {"image_size": 96, **MEMORY}),
    "patchcore-max": ("PatchCore", {"image_size": (96, 64), "image_score": "max", "resize": None, "patch_size": 5, **MEMORY}),
    "patchcore-reweighted": ("PatchCore", {"image_size": 64, "resize": 80, "image_score": "reweighted", "feature_dim": 60,
                                           **MEMORY}),
    "patchcore-tiled": ("PatchCore", {"image_size": 64, "tile": 150, "overlap": 30, **MEMORY}),
    "semi-ort": ("SemiOrthogonal", {"image_size": 64, "k": 40, **THREE}),
    "semi-ort-packed": ("SemiOrthogonal", {"image_size": 64, "k": 30, "storage": "packed", **THREE}),
    "semi-ort-half": ("SemiOrthogonal", {"image_size": 64, "k": 30, "storage": "half", "upsampling": "nearest",
                                         **THREE}),
    "semi-ort-tiled": ("SemiOrthogonal", {"image_size": 64, "k": 20, "tile": 200, **THREE}),
    "riad": ("RIAD", {"image_size": 64, **TRAINED}),
    "riad-max": ("RIAD", {"image_size": 32, "ks": (4, 8), "width": 4, "depth": 2, "image_score": "max", "flip": "hv",
                          **TRAINED}),
    "favae": ("FAVAE", {"image_size": 64, **TRAINED}),
    "favae-raw": ("FAVAE", {"image_size": 64, "standardise": False, "normalise": False, "validation": 0.0, **TRAINED}),
    "kdad": ("KDAD", {"image_size": 64, **TRAINED}),
    "kdad-guided": ("KDAD", {"image_size": 64, "method": "guided", "image_score": "loss", "pool": True, **TRAINED}),
    "kdad-plain": ("KDAD", {"image_size": 64, "method": "plain", "guide_source": False, **TRAINED}),
    "kdad-smoothgrad": ("KDAD", {"image_size": 64, "method": "smoothgrad", "smoothgrad_n": 3, **TRAINED}),
    "fcdd": ("FCDD", {"image_size": 96, "epochs": 2, "train_batch": 8}),
    "fcdd-coarse": ("FCDD", {"image_size": 96, "epochs": 1, "passes": 2, "frozen": 3, "image_score": "coarse_mean",
                             "sigma": 2.0, "kind": "mixed", "start": "random", "channels": 4, "gain": 3.7}),
    "fcdd-labelled": ("FCDD", {"image_size": 96, "epochs": 1, "train_batch": 8, "supervision": "label"}),
}  # fmt: skip
SEEDS = (0, 1)


def parts(seed: int):
    "Good cells to learn from, further good ones, and cells to be judged."
    data = g100.load_data("elpv:mono", seed)
    bad = data.test[data.test.labels == 1]
    return data.train[:32], data.train[32:44], data.test[data.test.labels == 0][:4], bad[:4]


def said(detector, pictures) -> dict[str, np.ndarray]:
    "What a detector says of pictures."
    verdicts = detector.inspect(pictures)
    maps = np.concatenate([np.asarray(m, dtype=np.float32).ravel() for m in verdicts.map])
    thresholds = np.array([detector.threshold_, detector.pixel_threshold_, *detector.color_range_])
    calibration = np.sort(detector.calibration_scores_)
    return {"score": verdicts.score, "map": maps, "thresholds": thresholds, "calibration": calibration}


def case(name: str, seed: int) -> dict[str, np.ndarray]:
    "All numbers of one case: fitted, saved and loaded, and after `partial_fit` where there is one."
    kind, parameters = CASES[name]
    train, more, good, bad = parts(seed)
    both = [*good.images, *bad.images]
    detector = getattr(g100, kind)(**{"seed": seed, "batch_size": 8, "calibration": 0.2} | parameters)
    if name == "fcdd-labelled":
        labelled = [*train.images, *bad.images]
        detector.fit(labelled, [0] * len(train) + [1] * len(bad))
    else:
        detector.fit(train)
    found = {f"fitted/{key}": value for key, value in said(detector, both).items()}
    with tempfile.TemporaryDirectory() as folder:
        loaded = g100.load(detector.save(Path(folder) / "model"))
        found |= {f"loaded/{key}": value for key, value in said(loaded, both).items()}
    if name in ("semi-ort", "semi-ort-packed"):
        found |= {f"partial/{key}": value for key, value in said(detector.partial_fit(more), both).items()}
    return found


def deviation(mine: np.ndarray, theirs: np.ndarray) -> float:
    "The largest difference, relative to the largest magnitude."
    if mine.shape != theirs.shape:
        return np.inf
    return float(np.abs(mine - theirs).max() / max(np.abs(theirs).max(), 1e-30))


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("what", choices=("record", "compare"))
    words.add_argument("file", type=Path)
    words.add_argument("--only", default="", help="cases whose names begin so")
    told = words.parse_args()
    warnings.simplefilter("ignore")
    kept, worst, fresh = (np.load(told.file) if told.what == "compare" else {}), 0.0, {}
    for name in (n for n in CASES if n.startswith(told.only)):
        for seed in SEEDS:
            found = {f"{name}/{seed}/{key}": value for key, value in case(name, seed).items()}
            if told.what == "compare":
                each = {key.partition("/")[2]: deviation(value, kept[key]) for key, value in found.items()}
                worst = max(worst, *each.values())
                print(f"{name:22s} {max(each.values()):.1e}  {max(each, key=each.get)}", flush=True)
            fresh |= found
    if told.what == "record":
        np.savez_compressed(told.file, **fresh)
    print(f"largest deviation {worst:.1e}" if kept else f"{len(fresh)} arrays of {len(CASES) * len(SEEDS)} fits")
    return int(worst > 1e-5)


if __name__ == "__main__":
    sys.exit(main())
