"""What displaced and turned pictures cost Semi-orthogonal embedding, and what a window that shares a Gaussian gives back.

    python -m tests.benchmarks.alignment --data mvtec:DIR [--size 224] [--seeds 0 1 2]

Every picture, good or abnormal, is displaced by up to 15 % of its sides, or turned by any angle, its border mirrored; or it
stays. One row a data set, movement, seed and window in nbs/results/alignment.csv: the gain G of the good pictures, and the
image AUROC; PatchCore's stands beside, with the window 0. Nothing is chosen by them.
"""

import argparse
from dataclasses import replace

import cv2
import numpy as np

from g100 import PatchCore, SemiOrthogonal
from g100.experiments.table import read_rows, write_rows
from g100.foundations.layouts import load_data
from g100.foundations.metrics import auroc
from g100.foundations.pictures import ImageSet
from tests.benchmarks.common import RESULTS

FILE, LARGEST, REACH = RESULTS / "alignment.csv", 600, 0.15
KEYS = "data", "movement", "seed", "window"


def moved(images: ImageSet, how: str, seed: int) -> ImageSet:
    "The pictures, none larger than LARGEST pixels, as they are ('still'), 'displaced', or 'turned'."
    rng, found = np.random.default_rng(seed), []
    for image in (np.asarray(images[i]) for i in range(len(images))):
        factor = min(1.0, LARGEST / max(image.shape[:2]))
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else image
        h, w = image.shape[:2]
        way = cv2.getRotationMatrix2D((w / 2, h / 2), rng.uniform(0, 360) if how == "turned" else 0, 1.0)
        way[:, 2] += rng.uniform(-REACH, REACH, 2) * (w, h) if how == "displaced" else 0
        found.append(image if how == "still" else cv2.warpAffine(image, way, (w, h), borderMode=cv2.BORDER_REFLECT_101))
    return replace(images, images=found, masks=[None] * len(found))


def studied(spec: str, size: int | tuple[int, int], seed: int) -> list[dict]:
    "The rows of one data set and seed."
    data, rows = load_data(spec, seed=seed), []
    for how in ("still", "displaced", "turned"):
        train, test = moved(data.train, how, seed), moved(data.test, how, seed + 1)
        detectors = {0: PatchCore(image_size=size, seed=seed)}
        detectors |= {window: SemiOrthogonal(image_size=size, window=window, seed=seed) for window in (1, 3, 5, 9)}
        for window, detector in detectors.items():
            score = detector.fit(train, device="cpu").inspect(test).score
            row = {"data": spec.rsplit("/", 1)[-1], "movement": how, "seed": seed, "window": window}
            row |= {"shift_gain": getattr(detector, "shift_gain_", None), "image_auroc": float(auroc(test.labels, score))}
            print(row, flush=True)
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--size", type=int, nargs="+", default=[224])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    size = given.size[0] if len(given.size) == 1 else tuple(given.size)
    for spec in given.data:
        for seed in given.seeds:
            new = studied(spec, size, seed)
            mine = {tuple(row[key] for key in KEYS) for row in new}
            old = read_rows(FILE) if FILE.exists() else []
            kept = [row for row in old if tuple(row[key] for key in KEYS) not in mine]
            write_rows(FILE, [*kept, *new])


if __name__ == "__main__":
    main()
