"""What each algorithm bears at one frozen threshold: light, blur, noise, JPEG, shift and rotation, by strength.

    python -m tests.benchmarks.robustness --work FOLDER [--data mvtec:bottle] [--algorithms patchcore riad] [--seed 0]

Each is fitted once, by default, on four fifths of the good pictures, and kept in FOLDER: a run that was cut off goes on. The
other fifth calibrates the four that train, and is what the Monitor compares with; PatchCore and Semi-orthogonal calibrate
across folds of what they learn from. The test pictures are perturbed, judged at the threshold of the fit, and counted; the
Monitor is told the good ones. One row a setting in nbs/results/robustness.csv; those of other parameters than today's are
replaced. The chapter on watching shows the data set that stands first.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

from g100 import Monitor, load
from g100.experiments.experiment import make_detector, public_parameters
from g100.experiments.table import read_rows, write_rows
from g100.experiments.watch import PERTURBATIONS, perturbed
from g100.foundations.detector import ALGORITHMS, Detector
from g100.foundations.errors import G100Error
from g100.foundations.layouts import load_data
from g100.foundations.lessons import split
from g100.foundations.metrics import auroc
from g100.foundations.pictures import ImageSet
from tests.benchmarks.common import RESULTS

FILE, FALSE_ALARM, HELD_OUT = RESULTS / "robustness.csv", 0.05, 0.2
STRENGTHS = {
    "gamma": (0.1, 0.25, 0.5, 1.0), "gain": (0.05, 0.1, 0.2, 0.4), "blur": (0.1, 0.2, 0.4, 0.8), "noise": (1, 2, 5, 10),
    "JPEG": (10, 30, 60, 85), "shift": (0.5, 1, 2, 4), "rotation": (0.5, 1, 2, 5),
}  # fmt: skip
SETTINGS = [("none", 0), *((kind, strength) for kind in PERTURBATIONS for strength in STRENGTHS[kind])]


def fitted(detector: Detector, name: str, train: ImageSet, work: Path) -> tuple[Detector, ImageSet]:
    "The detector from the folder of models, or fitted and put there; and the good pictures that did not teach it."
    teach, held = split(train, HELD_OUT, detector.seed)
    folder = work / f"{name}-{train.sha256[:12]}-{detector.seed}"
    if folder.exists() and (known := load(folder, device="cpu")).get_params() == detector.get_params():
        return known, held
    start = time.perf_counter()
    detector.fit(teach if detector.calibration == "cross" else train, device="cpu")
    print(f"{name}: fitted in {(time.perf_counter() - start) / 60:.1f} min", flush=True)
    detector.save(folder, force=True)
    return detector, held


def worse(images: ImageSet, kind: str, strength: float) -> ImageSet:
    "The pictures, gone wrong."
    if kind == "none":
        return images
    changed = [perturbed(images[i], kind, strength) for i in range(len(images))]
    return ImageSet(changed, images.names, images.labels, images.defects, [None] * len(images))


def judged(detector: Detector, held: ImageSet, images: ImageSet) -> dict:
    "The numbers of one setting, at the threshold of the fit."
    verdicts, good = detector.inspect(images), images.labels == 0
    monitor = Monitor(detector, FALSE_ALARM, None if detector.calibration_.method == "split" else held)
    monitor.watch(verdicts[good])
    row = {"abnormal_recall": verdicts.is_anomalous[~good].mean(), "false_positive_rate": verdicts.is_anomalous[good].mean()}
    row |= {"image_auroc": auroc(images.labels, verdicts.score)}
    row = {name: round(float(value), 4) for name, value in row.items()}
    says = "no drift seen" if monitor.alarm is None else f"drift, seen at picture {monitor.alarm}"
    return row | {"monitor": says, "alarm": monitor.alarm, "good": int(good.sum()), "bad": int((~good).sum())}


def rows_kept(key: dict, params: str) -> tuple[list[dict], set]:
    "The rows of the file that stay, and the settings of this algorithm that are among them."
    rows = read_rows(FILE) if FILE.exists() else []
    mine = [row for row in rows if all(row[column] == value for column, value in key.items())]
    if any(row["params"] not in (None, params) for row in mine):
        rows, mine = [row for row in rows if row not in mine], []
    return rows, {(row["perturbation"], row["strength"]) for row in mine}


def measure(told: argparse.Namespace, name: str) -> None:
    "All settings of one algorithm that are not there yet, each written when it is done."
    data, detector = load_data(told.data, told.seed), make_detector(name, {"seed": told.seed})
    key = {"data": f"{data.name}:{data.category}", "seed": told.seed, "algorithm": name}
    params = json.dumps(public_parameters(detector), default=str)
    rows, done = rows_kept(key, params)
    todo = [setting for setting in SETTINGS if setting not in done]
    if not todo:
        return
    detector, held = fitted(detector, name, data.train, told.work)
    for kind, strength in todo:
        row = key | {"perturbation": kind, "strength": strength} | judged(detector, held, worse(data.test, kind, strength))
        rows.append(row | {"params": params if kind == "none" else None})
        write_rows(FILE, rows)
        print(*(row[column] for column in list(row)[2:9]), flush=True)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--work", type=Path, required=True, help="folder of the fitted models")
    words.add_argument("--data", default="mvtec:bottle")
    words.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS), metavar="NAME")
    words.add_argument("--seed", type=int, default=0)
    told = words.parse_args()
    told.work.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    for name in told.algorithms:
        measure(told, name)


if __name__ == "__main__":
    try:
        main()
    except G100Error as error:
        sys.exit(str(error))
