"""What the size of the input, the levels, the network and the memory of PatchCore and SemiOrthogonal bring, and what they cost.

    python -m tests.benchmarks.sizes                                  all settings on the first dealing of the pictures
    python -m tests.benchmarks.sizes --seeds 1 2 --only "lite0 320"   more dealings, of the settings whose names contain that

352 good polycrystalline cells teach, as many as `g100 demo` has; 320 of the test cells and, for a measure with masks, 64 good
ones of them with a synthetic anomaly each, are judged. Each setting is fitted with all other parameters at their defaults, in
a process of its own, which says its processor time (set OMP_NUM_THREADS=1 for numbers of one thread) and the peak of its
memory up to the end of the fit. A row each is added to nbs/results/sizes.csv, which the chapters of both read; rows that are
there are kept. Settings of lite2 want the extra [lite2].
"""

import argparse
import csv
import json
import subprocess
import sys
import time
import warnings

import numpy as np

from g100.algorithms.synthetic import synthetic_test
from g100.experiments.experiment import make_detector, peak_memory_mb, pixel_metrics
from g100.experiments.table import write_rows
from g100.foundations.layouts import load_data
from g100.foundations.metrics import auroc
from tests.benchmarks.common import RESULTS

FILE, DATA, TAUGHT, JUDGED, SPOILT = RESULTS / "sizes.csv", "elpv:poly", 352, 320, 64
SHARE = {"patchcore": "coreset_ratio", "semi-ort": "k"}
SETTINGS = [line.split() for line in """
patchcore lite0 224 2+3 0.01
patchcore lite0 320 2+3 0.01
patchcore lite0 320 2+3 0.005
patchcore lite0 320 2+3 0.0025
patchcore lite0 256 2+3 0.01
patchcore lite0 288 2+3 0.005
patchcore lite0 320 2 0.005
patchcore lite0 320 3 0.01
patchcore lite0 320 2+3+4 0.005
patchcore lite2 256 2+3 0.005
patchcore lite2 320 2+3 0.005
semi-ort lite0 224 1+2+3 100
semi-ort lite0 256 1+2+3 100
semi-ort lite0 288 1+2+3 100
semi-ort lite0 320 1+2+3 100
semi-ort lite0 320 1+2+3 50
semi-ort lite0 224 2+3 100
semi-ort lite0 320 2+3 100
semi-ort lite0 320 2+3 75
semi-ort lite0 320 2+3+4 100
semi-ort lite0 320 2+3+4 150
semi-ort lite2 256 1+2+3 100
semi-ort lite2 320 2+3 100
""".strip().splitlines()]
COLUMNS = ("algorithm", "backbone", "image_size", "levels", "share")  # share: of the patches, or k


def parameters(algorithm: str, backbone: str, image_size: str, levels: str, share: str) -> dict:
    "What a setting's words stand for."
    found = {"backbone": backbone, "image_size": int(image_size), "levels": tuple(map(int, levels.split("+")))}
    return found | {SHARE[algorithm]: json.loads(share)}


def measured(words: list[str], seed: int) -> dict:
    "The numbers of one row."
    data, draw = load_data(DATA, seed), np.random.default_rng(seed).permutation
    teach, test = data.train[np.sort(draw(len(data.train))[:TAUGHT])], data.test[np.sort(draw(len(data.test))[:JUDGED])]
    spoilt = synthetic_test(test[np.flatnonzero(test.labels == 0)[:SPOILT]])
    detector = make_detector(words[0], parameters(*words) | {"seed": seed})
    start = time.process_time()
    detector.fit(teach, device="cpu")
    fitted, peak = time.process_time(), peak_memory_mb()
    verdicts = detector.inspect(test)
    judged, drawn = time.process_time(), detector.inspect(spoilt)
    row = {"image_auroc": auroc(test.labels, verdicts.score), "auroc_synthetic": auroc(spoilt.labels, drawn.score)}
    row |= {"aupro_synthetic": pixel_metrics(spoilt, drawn, detector)[0]["aupro"]}
    row = {name: round(value, 4) for name, value in row.items()}
    costs = {"fit_seconds": fitted - start, "fit_mb": peak, "ms_a_picture": 1e3 * (judged - fitted) / len(test)}
    return row | {name: round(value, 1) for name, value in costs.items()}


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--seeds", type=int, nargs="+", default=[0])
    words.add_argument("--only", nargs="+", default=[""], metavar="TEXT")
    words.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    told = words.parse_args()
    if told.one:
        warnings.simplefilter("ignore")
        print(json.dumps(measured(told.one, *told.seeds)))
        return 0
    rows = list(csv.DictReader(FILE.open(encoding="utf-8"))) if FILE.exists() else []
    done = {(*(row[column] for column in COLUMNS), int(row["seed"])) for row in rows}
    for seed in told.seeds:
        for setting in SETTINGS:
            if (*setting, seed) in done or not any(text in " ".join(setting) for text in told.only):
                continue
            command = [sys.executable, "-m", "tests.benchmarks.sizes", "--seeds", str(seed), "--one", *setting]
            found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            rows.append(dict(zip(COLUMNS, setting, strict=True)) | {"seed": seed} | json.loads(found))
            write_rows(FILE, rows)
            print(rows[-1], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
