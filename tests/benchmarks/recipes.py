"""The reference recipes, `paper()`, on real data: one row a finished run in nbs/results/recipes.csv, what is known beside it.

    python -m tests.benchmarks.recipes                                          the rows so far
    python -m tests.benchmarks.recipes patchcore semi-ort --weights FILE        ResNet-18's, for want of WideResNet-50's
    python -m tests.benchmarks.recipes kdad favae --weights FILE --minutes 60   VGG-16's; a time budget beside the epochs
    python -m tests.benchmarks.recipes kdad --weights FILE --epochs 2 --limit 30    a trial: prints, writes no row

A training that was cut off goes on from its checkpoint in --work; a run whose row is there is not repeated (delete the row to
begin anew). A training with `calibration="cross"` is six, of which only the last leaves checkpoints; so the two trained ones
hold out --calibration of the good pictures here, and the others none.
"""

import argparse
import json
import sys
from pathlib import Path

from g100.experiments.experiment import public_parameters, run_experiment
from g100.experiments.table import read_rows, write_rows
from g100.foundations.errors import G100Error
from tests.benchmarks.common import RESULTS

FILE = RESULTS / "recipes.csv"
RESNET = {"backbone": "resnet18"}
SMALLER = {  # what the recipe is run with instead of its own network
    "patchcore": RESNET | {"feature_dim": None},  # all 384 numbers: 1024 is more than ResNet-18 has
    "semi-ort": RESNET | {"k": 100},  # the paper's k for this network
}
TRAINED = ("kdad", "favae")
# What is known of MVTec AD's bottle: image AUROC, pixel AUROC, PRO (None: not given), and with which network.
PAPER = {
    "patchcore": (1.0, 0.986, 0.961, "WideResNet-50, 10 %"),
    "semi-ort": (None, None, 0.962, "WideResNet-50, k = 300; PRO by picture"),
    "kdad": (0.994, 0.963, None, "VGG-16; pixels of defective pictures only"),
    "favae": (None, None, None, "VGG-16; mean of 15 categories: pixels 0.953"),
}
OTHERS = {
    "patchcore": (1.0, 0.981, None, "anomalib, ResNet-18"),
    "semi-ort": (0.999, 0.985, 0.962, "Anomaly.Paddle, WideResNet-50, k = 300"),
}
SEED = {
    "semi-ort": (0.989, 0.9864, None, "network not named; recall of good 0.95, of defective 0.968"),
    "favae": (0.960, 0.995, None, "VGG-16; recall of good 1, of defective 0.968"),
}
NOTHING = (None, None, None, "")


def beside(algorithm: str, category: str) -> dict:
    "The columns of what others report; empty for another category than the bottle."
    found, of_bottle = {}, category.endswith("bottle")
    for who, known in (("paper", PAPER), ("others", OTHERS), ("seed", SEED)):
        values = known.get(algorithm, NOTHING) if of_bottle else NOTHING
        found |= {f"{who}_{what}": v for what, v in zip(("image", "pixel", "pro", "with"), values, strict=True)}
    return found


def parameters_of(algorithm: str, told: argparse.Namespace) -> dict:
    "What `paper()` is told."
    parameters = {"weights": told.weights} | SMALLER.get(algorithm, {})
    if algorithm in TRAINED:
        parameters |= {"calibration": told.calibration, "max_minutes": told.minutes}
        parameters |= {"epochs": told.epochs} if told.epochs else {}
    return parameters


def run(algorithm: str, told: argparse.Namespace) -> dict:
    "The row of one run."
    checkpoint = told.work / f"recipe-{algorithm}-{told.seed}.ckpt" if algorithm in TRAINED and not told.limit else None
    done = run_experiment(algorithm, told.data, seed=told.seed, parameters=parameters_of(algorithm, told), paper=True,
                          limit_train=told.limit, checkpoint=checkpoint, device="auto", verbose=told.verbose)  # fmt: skip
    row, counts, notes = done.row, done.row["counts"], done.detector.fitted_.notes
    found = {"algorithm": algorithm, "category": row["category"], "seed": row["seed"], "backbone": row["backbone"]}
    found |= {"taught": counts["train"] - counts.get("validation", 0), "calibrated": counts["calibration"]}
    found |= {"epochs": len(notes["history"]), "stopped": notes["stopped"]} if "history" in notes else {}
    numbers = {name: row[name] for name in ("image_auroc", "pixel_auroc", "aupro", "normal_recall", "abnormal_recall")}
    found |= {name: None if value is None else round(value, 4) for name, value in numbers.items()}
    found |= beside(algorithm, row["category"]) | {"fit_minutes": round(row["fit_seconds"] / 60, 1)}
    found |= {"threads": row["machine"]["threads"], "commit": row["commit"]}
    return found | {"params": json.dumps(public_parameters(done.detector), default=str)}


def show(rows: list[dict]) -> None:
    "The rows, with the figures of others below each."
    for row in rows:
        epochs = f", {row['epochs']} epochs ({row['stopped']})" if row.get("epochs") else ""
        print(f"{row['algorithm']:10s} {row['backbone']:9s} {row['category']} seed {row['seed']}, taught by "
              f"{row['taught']}{epochs}: "
              f"image {row['image_auroc']}, pixel {row['pixel_auroc']}, AUPRO {row['aupro']}, recall of good "
              f"{row['normal_recall']}, of defective {row['abnormal_recall']}; {row['fit_minutes']} min")  # fmt: skip
        for who in ("paper", "others", "seed"):
            if row[f"{who}_with"]:
                values = (row[f"{who}_{what}"] or "-" for what in ("image", "pixel", "pro"))
                print("           {:7s} image {}, pixel {}, PRO {}".format(who, *values), f"({row[f'{who}_with']})")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("algorithms", nargs="*", metavar="ALGORITHM", help=", ".join([*SMALLER, *TRAINED]))
    words.add_argument("--weights", help="a .safetensors file of the network's ImageNet weights")
    words.add_argument("--data", default="mvtec:bottle")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--calibration", type=float, default=0.1, help="held out by a trained one; 0.1 of 209 can promise 0.05")
    words.add_argument("--work", type=Path, default=Path("."), help="folder of checkpoints")
    words.add_argument("--minutes", type=float)
    words.add_argument("--epochs", type=int)
    words.add_argument("--limit", type=int, help="so many good pictures only; writes no row")
    words.add_argument("--verbose", action="store_true")
    told, rows = words.parse_args(), read_rows(FILE) if FILE.exists() else []
    if strange := set(told.algorithms) - {*SMALLER, *TRAINED}:
        words.error(f"{strange.pop()}: takes {', '.join([*SMALLER, *TRAINED])}")
    for algorithm in told.algorithms:
        if any((row["algorithm"], int(row["seed"])) == (algorithm, told.seed) and told.data.endswith(row["category"])
               for row in rows):  # fmt: skip
            continue
        row = run(algorithm, told)
        if told.limit or told.epochs:
            show([row])
        else:
            rows.append(row)
            write_rows(FILE, rows)
    show(rows)


if __name__ == "__main__":
    try:
        main()
    except G100Error as error:
        sys.exit(str(error))
