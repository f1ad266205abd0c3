"""FCDD: what judging costs beside the bare network, what the default training reaches, and what its parts are worth.

    python -m tests.benchmarks.fcdd                          the costs; exit code 1 when a target is missed
    python -m tests.benchmarks.fcdd --train --seeds 0 1 2    the default training on elpv:mono, image AUROC per seed
    python -m tests.benchmarks.fcdd --train --labelled 5     the same with and without 5 labelled abnormal pictures
    python -m tests.benchmarks.fcdd --train --data mvtec:DIR --seeds 0
    python -m tests.benchmarks.fcdd --ablation               kinds and labelled ones -> nbs/results/ablation-fcdd.csv

Targets: judging at most 1.1 x the bare network; spoiling pictures at most 15 % of a training step.
Labelled pictures are drawn, with the seed, from the abnormal ones of the test set and their masks, if any, go with them;
HELD_BACK are drawn at once, the first N of them are given, and none of them is judged. So all numbers of a seed are over
the same pictures. The ablation is over elpv:poly.
"""

import argparse
import csv
import statistics
import sys
import time
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch

from g100.algorithms.fcdd import FCDD, pseudo_huber
from g100.backbones import Backbone, Teacher
from g100.data import ImageSet, batches, load_data
from g100.maps import IMAGE_SCORES, image_score
from g100.metrics import aupro, auroc
from g100.synthetic import KINDS, synthetic
from tests.benchmarks.common import milliseconds

ABLATION = Path(__file__).resolve().parents[2] / "nbs" / "results" / "ablation-fcdd.csv"
HELD_BACK = 10
COLUMNS = (*IMAGE_SCORES, "coarse_mean", "default")
ONE = {"channels": 1, "start": "random"}
SETTINGS = [
    *(("kind", kind, {"kind": kind}) for kind in (*KINDS, "mixed")),
    ("supervision", "label", {"supervision": "label"}),
    ("levels", "2, 3", {"levels": (2, 3)}),
    ("head", "whitened, not trained", {"epochs": 1, "learning_rate": 1e-12}),
    ("head", "one channel", ONE | {"learning_rate": 1e-2}),
    ("head", "one channel, network trained from stride 4", ONE | {"frozen": 1, "learning_rate": 1e-3}),
    *(("labelled", str(n), {}) for n in (0, 1, 5, 10)),
]


def untrained(**parameters) -> FCDD:
    "A detector that can judge, with a head of random weights: the arithmetic is the same."
    detector = FCDD(device="cpu", **parameters)
    detector._settle()
    detector._assemble(Teacher(Backbone(detector.backbone, detector.levels)))
    return detector


def judging() -> bool:
    "`_judge` against the bare network, and the parts of a training step."
    detector, random = untrained(), torch.Generator().manual_seed(0)
    side, network = detector.image_size, detector.network_
    x, step = torch.rand(16, 3, side, side), partial(detector._taught, network)
    with torch.inference_mode():
        coarse = pseudo_huber(network(x))

    @torch.inference_mode()
    def quietly(work):
        return work()

    works = (lambda: network.teacher.backbone(x), lambda: detector._judge(x), lambda: detector._spread(coarse, (side, side)))
    bare, whole, spreading = milliseconds(*(partial(quietly, work) for work in works))
    spoiling, stepping = milliseconds(lambda: synthetic(x[:8], detector.kind, random), lambda: step(x, random).backward())
    print(f"16 pictures of {side} px: bare network {bare:.0f} ms; judging {whole:.0f} ms, ratio {whole / bare:.2f}   "
          f"(at most 1.1); of it up-sampling {spreading:.1f} ms")  # fmt: skip
    print(f"a training step of 16: {stepping:.0f} ms, of it spoiling 8 pictures ({detector.kind}) {spoiling:.1f} ms, "
          f"{spoiling / stepping:.1%}   (at most 15 %)")  # fmt: skip
    return whole <= 1.1 * bare and spoiling <= 0.15 * stepping


def ways(detector: FCDD, images: ImageSet) -> dict[str, float]:
    "AUROC by each way from map to score, and by the mean of the coarse map."
    maps = torch.from_numpy(detector.anomaly_map(images))
    found = {how: auroc(images.labels, image_score(maps, how).numpy()) for how in IMAGE_SCORES}
    with torch.inference_mode():
        coarse = [detector._coarse(x.to(detector.device_)).mean((1, 2)) for x in batches(images, detector.view_, 16)]
    found["coarse_mean"] = auroc(images.labels, torch.cat(coarse).cpu().numpy())
    if images.has_masks:
        masks = [detector.view_.mask(images.mask(i)) for i in range(len(images))]
        found["pixel AUROC"] = auroc(np.stack(masks).ravel(), maps.numpy().ravel())
        found["AUPRO"] = aupro(masks, list(maps.numpy()))
    return found | {"default": found[detector.image_score]}


def apart(test: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
    "HELD_BACK abnormal pictures, in the order in which they are drawn, and all others."
    drawn = np.random.default_rng([seed, 100]).permutation(np.flatnonzero(test.labels == 1))[:HELD_BACK]
    return test[drawn], test[np.setdiff1d(np.arange(len(test)), drawn)]


def together(good: ImageSet, abnormal: ImageSet) -> ImageSet:
    columns = ("images", "names", "labels", "defects", "masks")
    return ImageSet(*([*getattr(good, c), *getattr(abnormal, c)] for c in columns))


def reached(data: str, seed: int, parameters: dict, labelled: int | None = None) -> dict[str, float]:
    "Train, judge, and the AUROC by each way. With `labelled`, the pictures that were held back are not judged."
    dataset = load_data(data, seed)
    given, test = dataset.test[:0], dataset.test
    if labelled is not None:
        given, test = apart(dataset.test, seed)
    start = time.perf_counter()
    detector = FCDD(seed=seed, **parameters).fit(together(dataset.train, given[: labelled or 0]))
    seconds = time.perf_counter() - start
    found = ways(detector, test)
    if labelled == 0:
        found["all test pictures"] = auroc(dataset.test.labels, -detector.score_samples(dataset.test))
    marked = "  ".join(f"{how}{'*' if how == detector.image_score else ''} {v:.4f}" for how, v in found.items())
    validation = detector.history_[-1]["validation"]
    print(f"{data} seed {seed}, {labelled or 0} labelled: fit {seconds / 60:.1f} min, {len(detector.history_)} epochs, "
          f"validation {validation or float('nan'):.4f};  {marked}", flush=True)  # fmt: skip
    return found | {"fit_seconds": seconds}


def ablation(seeds: list[int]) -> None:
    "One row for each setting and seed, written after each; rows that are in the file are not computed again."
    rows = []
    if ABLATION.exists():
        with ABLATION.open(newline="") as file:
            rows = list(csv.DictReader(file))
    there = {(int(row["seed"]), row["what"], row["setting"]) for row in rows}
    for seed, (what, setting, parameters) in product(seeds, SETTINGS):
        if (seed, what, setting) in there:
            continue
        found = reached("elpv:poly", seed, parameters, int(setting) if what == "labelled" else None)
        numbers = {name: f"{value:.4f}" for name, value in found.items() if name in COLUMNS}
        rows.append({"data": "elpv:poly", "seed": seed, "what": what, "setting": setting} | numbers)
        ABLATION.parent.mkdir(exist_ok=True)
        with ABLATION.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(sorted(rows, key=order))
    print(f"{len(rows)} rows in {ABLATION.name}")


def order(row: dict) -> tuple[int, int]:
    "A row's place in the table: by seed, then as in SETTINGS."
    names = [(what, setting) for what, setting, _ in SETTINGS]
    return int(row["seed"]), names.index((row["what"], row["setting"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--data", default="elpv:mono")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--labelled", type=int, choices=range(1, HELD_BACK + 1), metavar=f"1..{HELD_BACK}")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    if args.ablation:
        ablation(args.seeds)
        return 0
    if args.train:
        parameters = {"epochs": args.epochs} if args.epochs else {}
        counts = [None] if args.labelled is None else [0, args.labelled]
        rows = {n: [reached(args.data, seed, parameters, n) for seed in args.seeds] for n in counts}
        for n, found in rows.items():
            print(f"{n or 0} labelled, mean:", {how: round(statistics.mean(row[how] for row in found), 4) for how in found[0]})
        if args.labelled:
            gains = [b["default"] - a["default"] for a, b in zip(*rows.values(), strict=True)]
            print(f"gain by {args.labelled} labelled: {[round(g, 4) for g in gains]}, mean {statistics.mean(gains):.4f}")
        return 0
    met = judging()
    print("targets met" if met else "TARGETS MISSED")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
