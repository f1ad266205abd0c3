"""What the detectors that learn reach at other sizes, by their maps as they are (A) and measured by what is usual (Z).

    python -m tests.benchmarks.learners --algorithm kdad --data bottle=mvtec:DIR --set image_size=192 [--seeds 0 1 2]

Trained once with studentise=True; A = mu + spread * Z gives the plain map back. Two rows a data set, setting and seed in
nbs/results/learners.csv, in the place of older ones: image AUROC by each way from map to score, pixel AUROC and AUPRO with the
longer side at 256 pixels, and what fitting took, in seconds of processor time. Defaults are chosen by `elpv:poly` alone.
"""

import argparse
import csv
import time
from itertools import product

import numpy as np

from g100.experiments.cli import parse_settings
from g100.experiments.experiment import make_detector
from g100.experiments.table import write_rows
from g100.foundations.detector import Detector
from g100.foundations.layouts import load_data
from g100.foundations.pictures import ImageSet
from g100.foundations.regions import pixel_scores
from tests.benchmarks.common import RESULTS, at_metric_size, ways

FILE, KEYS = RESULTS / "learners.csv", ("algorithm", "data", "settings", "seed", "map")


def columns(detector: Detector, test: ImageSet, maps: np.ndarray) -> dict:
    "Image AUROCs, and pixel numbers where there are masks, of maps (N, H, W)."
    row = {f"auroc_{how}": value for how, value in ways(test.labels, maps).items()} | {"pixel_auroc": None, "aupro": None}
    if test.has_masks:
        found = pixel_scores(*at_metric_size(test, maps, detector.view_), 0.0, test.labels == 0)
        row |= {name: found[name] for name in ("pixel_auroc", "aupro")}
    return {name: value and round(value, 4) for name, value in row.items()}


def studied(algorithm: str, name: str, spec: str, settings: list[str], seed: int) -> list[dict]:
    "The two rows of one training."
    data, start = load_data(spec, seed=seed), time.process_time()
    detector = make_detector(algorithm, {"seed": seed, "studentise": True} | parse_settings(settings)).fit(
        data.train, device="cpu"
    )
    seconds = round(time.process_time() - start)
    usual, Z = detector.fitted_.judge.usual, detector.inspect(data.test).map
    A = Z * usual.spread.numpy() + usual.mean.numpy()
    same = {"algorithm": algorithm, "data": name, "seed": seed, "settings": " ".join(settings) or "-"}
    return [
        same | {"map": which} | columns(detector, data.test, maps) | {"fit_seconds": seconds}
        for which, maps in (("A", A), ("Z", Z))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", required=True)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    for (name, _, spec), seed in product((d.partition("=") for d in args.data), args.seeds):
        new = studied(args.algorithm, name, spec, args.set, seed)
        print(*new, sep="\n", flush=True)
        rows = list(csv.DictReader(FILE.open())) if FILE.exists() else []
        known = {tuple(str(row[key]) for key in KEYS) for row in new}
        kept = [row for row in rows if tuple(row[key] for key in KEYS) not in known]
        write_rows(FILE, sorted(kept + new, key=lambda row: [str(row[key]) for key in KEYS]))


if __name__ == "__main__":
    main()
