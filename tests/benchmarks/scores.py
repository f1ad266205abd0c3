"""How else a map could become a score, and whether synthetic anomalies know which way is best.

    python -m tests.benchmarks.scores --data bottle=mvtec:DIR --data poly=elpv:poly [--algorithms patchcore kdad] [--seeds 0]

One row a data set, detector, seed and rule in nbs/results/scores.csv; a row that is there already is kept: delete the file to
begin anew. A fifth of the good pictures is set aside. `real`: image AUROC of the test pictures. `synthetic`: AUROC of the
pictures set aside, as they are and with an anomaly that is made as faint as the detector's own score asks for to have
AIM; `strength` says how faint. `pairs`: the share of them whose anomaly scores higher than the clean picture. Nothing is
chosen by what is real.
"""

import argparse
import csv
from itertools import product

import numpy as np
import torch

from g100.algorithms.synthetic import synthetic
from g100.experiments.experiment import make_detector
from g100.experiments.table import write_rows
from g100.foundations.layouts import load_data
from g100.foundations.lessons import Judge
from g100.foundations.maps import IMAGE_SCORES, image_score
from g100.foundations.metrics import auroc
from g100.foundations.views import batches
from tests.benchmarks.common import RESULTS

FILE, AIM, ROUNDS = RESULTS / "scores.csv", 0.75, 6
TALL_DATA, TALL = ("commutator",), (320, 128)  # pictures that are seen in a view of their shape
SMALL = {"patchcore": {"image_size": 224}, "semi-ort": {"image_size": 224}}  # a quarter of the work, nearly the same maps


RULES = [*(f"{map} {how}" for map in "AZ" for how in (*IMAGE_SCORES, "contrast")), "joined"]


@torch.inference_mode()
def statistics(judge: Judge, x: torch.Tensor) -> np.ndarray:
    """Pictures (B, 3, H, W) -> (B, 8), by RULES without the last, from their maps A and, measured by what is usual, Z.
    Contrast is the highest percent beside the picture's own median: log of the ratio for A, the difference for Z."""
    Z, columns = judge(x)[0], []
    for maps, beside in ((Z * judge.usual.spread + judge.usual.mean, lambda s, m: (s / m).log()), (Z, torch.sub)):
        columns += [image_score(maps, how) for how in IMAGE_SCORES]
        columns.append(beside(image_score(maps, "top_percent"), maps.flatten(1).median(dim=1).values))
    return torch.stack(columns, dim=1).double().cpu().numpy()


def by_rule(found: np.ndarray, good: np.ndarray) -> np.ndarray:
    "Statistics (N, 8) and, joined, the higher of the highest percent and the contrast of A, by what `good` ones (n, 8) show."
    i, j = RULES.index("A top_percent"), RULES.index("A contrast")
    two, of_good = (np.stack([np.log(s[:, i]), s[:, j]], axis=1) for s in (found, good))
    return np.column_stack([found, ((two - of_good.mean(0)) / of_good.std(0)).max(1)])


def faint(x: torch.Tensor, strength: float, seed: int) -> torch.Tensor:
    "Pictures (B, 3, H, W), each with a synthetic anomaly that shows with this strength in [0, 1]."
    return x + strength * (synthetic(x, "mixed", torch.Generator().manual_seed(seed))[0] - x)


def judged_of(judge: Judge, shown: list[torch.Tensor]) -> np.ndarray:
    "Statistics (N, 8) of batches of pictures."
    return np.concatenate([statistics(judge, x) for x in shown])


def tuned(judge: Judge, held: list[torch.Tensor], clean: np.ndarray, own: int, seed: int) -> tuple[float, np.ndarray]:
    "The strength by which rule number `own` has an AUROC of AIM on the pictures held out, found by halving, and statistics."
    low, high = 0.0, 1.0
    labels = np.repeat([0, 1], len(clean))
    for _ in range(ROUNDS):
        strength = (low + high) / 2
        found = judged_of(judge, [faint(x, strength, seed + i) for i, x in enumerate(held)])
        much = auroc(labels, np.r_[clean[:, own], found[:, own]]) > AIM
        low, high = (low, strength) if much else (strength, high)
    return strength, found


def studied(name: str, spec: str, algorithm: str, seed: int) -> list[dict]:
    "The rows of one detector that is fitted to one data set."
    data = load_data(spec, seed=seed)
    size = {"image_size": TALL} if name in TALL_DATA else SMALL.get(algorithm, {})
    detector = make_detector(algorithm, {"seed": seed, "studentise": True, "calibration": 0.2} | size)
    fitted = detector.fit(data.train, device="cpu").fitted_
    seen = lambda images: list(batches(images, fitted.scoring.view, detector.batch_size))  # noqa: E731
    usually, held = type(detector)(), seen(fitted.held_out)
    own = RULES.index(f"{'Z' if usually.studentise else 'A'} {usually.image_score}")
    clean = judged_of(fitted.judge, held)
    strength, spoilt = tuned(fitted.judge, held, clean, own, seed)
    real = by_rule(judged_of(fitted.judge, seen(data.test)), clean)
    clean, spoilt = by_rule(clean, clean), by_rule(spoilt, clean)
    labels, rows = np.repeat([0, 1], len(clean)), []
    for i, (rule, a, b, c) in enumerate(zip(RULES, real.T, clean.T, spoilt.T, strict=True)):
        row = {
            "data": name,
            "algorithm": algorithm,
            "seed": seed,
            "rule": rule,
            "own": i == own,
            "strength": round(strength, 3),
        }
        found = {"real": auroc(data.test.labels, a), "synthetic": auroc(labels, np.r_[b, c]), "pairs": float((c > b).mean())}
        rows.append(row | {what: round(value, 4) for what, value in found.items()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--algorithms", nargs="+", default=["patchcore", "semi-ort", "fcdd", "kdad", "favae", "riad"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    rows = list(csv.DictReader(FILE.open())) if FILE.exists() else []
    done = {(row["data"], row["algorithm"], int(row["seed"])) for row in rows}
    for (name, _, spec), algorithm, seed in product((d.partition("=") for d in args.data), args.algorithms, args.seeds):
        if (name, algorithm, seed) not in done:
            rows += studied(name, spec, algorithm, seed)
            write_rows(FILE, rows)
            print(*rows[-len(RULES) :], sep="\n", flush=True)


if __name__ == "__main__":
    main()
