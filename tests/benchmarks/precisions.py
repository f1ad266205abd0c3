"""What a lower precision costs where a detector was fitted in it: image AUROC and realised false-positive rate.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.precisions mono=elpv:mono bottle=mvtec:DIR tile=mvtec:DIR [--seeds 0]

PatchCore and SemiOrthogonal at 224 pixels, otherwise as they are, learn from all good pictures of a data set and judge its
test pictures, in torch and in every precision of OpenVINO. One row each in nbs/results/precisions.csv: the false-positive
rate among the good test pictures with the ends of its 95 % binomial (Clopper-Pearson) interval, and the processor's
milliseconds a picture. A row that is there is kept. The engines' chapter reads the table.
"""

import argparse
import csv
import time
import warnings

import numpy as np
from scipy.stats import binomtest

from g100 import PatchCore, SemiOrthogonal
from g100.experiments.table import write_rows
from g100.foundations.detector import Detector
from g100.foundations.layouts import load_data
from g100.foundations.metrics import auroc
from tests.benchmarks.common import RESULTS
from tests.benchmarks.engines import cpu

FILE = RESULTS / "precisions.csv"
WAYS = [("torch", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8")]


def told(detector: Detector, dataset) -> dict:
    "What a fitted detector says of the test pictures, as the columns of a row."
    start = time.process_time()
    parts = [(part.score, part.is_anomalous) for part in detector.inspect_batches(dataset.test)]
    took = 1e3 * (time.process_time() - start) / len(dataset.test)
    score, abnormal = (np.concatenate(column) for column in zip(*parts, strict=True))
    alarms = abnormal[dataset.test.labels == 0]
    ends = binomtest(int(alarms.sum()), len(alarms)).proportion_ci(0.95)
    return {"image_auroc": round(auroc(dataset.test.labels, score), 4), "good": len(alarms), "alarms": int(alarms.sum()),
            "rate": round(float(alarms.mean()), 4), "low": round(ends.low, 4), "high": round(ends.high, 4),
            "ms_a_picture": round(took, 1)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="NAME=DATA, the name for the table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(cpu(), flush=True)
    rows = list(csv.DictReader(FILE.open())) if FILE.exists() else []
    done = {(row["data"], int(row["seed"]), row["algorithm"], row["engine"], row["precision"]) for row in rows}
    for name, data in (one.split("=", 1) for one in args.data):
        for seed in args.seeds:
            dataset = load_data(data, seed)
            for kind in (PatchCore, SemiOrthogonal):
                for engine, precision in WAYS:
                    key = (name, seed, kind.__name__, engine, precision)
                    if key in done:
                        continue
                    detector = kind(image_size=224, seed=seed, engine=engine, precision=precision)
                    detector.fit(dataset.train, device="cpu")
                    same = dict(zip(("data", "seed", "algorithm", "engine", "precision"), key, strict=True))
                    rows.append(same | {"taught": len(dataset.train)} | told(detector, dataset))
                    write_rows(FILE, rows)
                    print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
