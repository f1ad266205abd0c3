"""KDAD: what maps cost beside the two networks, what the default training reaches, and what its parts are worth.

    python -m tests.benchmarks.kdad                          the costs; exit code 1 when a target is missed
    python -m tests.benchmarks.kdad --train --seeds 0 1 2    the default training on elpv:mono, image AUROC per seed
    python -m tests.benchmarks.kdad --train --data mvtec:DIR --seeds 0
    python -m tests.benchmarks.kdad --ablation               cloner, lambda, taps, map -> nbs/results/ablation-kdad.csv

Target: gradient maps ("plain", "guided") of 16 pictures in at most 4 x the time of one forward pass of both networks;
"smoothgrad" in n times that.
"""

import argparse
import statistics
import sys
import time

import torch

from g100.algorithms.kdad import KDAD, METHODS
from g100.backbones import Backbone, Teacher
from g100.data import load_data
from g100.metrics import auroc
from tests.benchmarks.common import ablation, milliseconds, ways

JUDGING = ("method", "guide_source", "smoothgrad_n")
SETTINGS = [
    ("default", "-", {}),
    ("map", "plain", {"method": "plain"}), ("map", "smoothgrad, n = 5", {"method": "smoothgrad", "smoothgrad_n": 5}),
    ("map", "guided", {"method": "guided"}),
    ("map", "guided, cloner alone", {"method": "guided", "guide_source": False}),
    ("width of the cloner", "8", {"width": 8}), ("width of the cloner", "32", {"width": 32}),
    ("lambda", "0", {"value_weight": 0.0}), ("lambda", "2", {"value_weight": 2.0}),
    ("strides of the taps", "8", {"levels": (2,)}), ("strides of the taps", "16", {"levels": (3,)}),
    ("strides of the taps", "8 and 16", {"levels": (2, 3)}), ("strides of the taps", "4 to 32", {"levels": (1, 2, 3, 4)}),
    ("channels of the source", "as they are", {"standardise": False}),
]  # fmt: skip


def untrained(**parameters) -> KDAD:
    "A detector that can judge, with a cloner of random weights: the arithmetic is the same."
    detector = KDAD(device="cpu", **parameters)
    detector._settle()
    detector.teacher_ = Teacher(Backbone(detector.backbone, detector.levels))
    detector.cloner_ = detector._new_cloner()
    return detector


def judging() -> bool:
    "`_judge` by each method against one forward pass of both networks."
    detectors = {method: untrained(method=method, smoothgrad_n=5) for method in METHODS}
    x, any_one = torch.rand(16, 3, 128, 128), detectors["plain"]

    @torch.inference_mode()
    def bare():
        any_one._source(x), any_one.cloner_(x)

    @torch.inference_mode()
    def whole(detector):
        detector._judge(x)

    forward, *took = milliseconds(bare, *(lambda d=d: whole(d) for d in detectors.values()))
    met = True
    print(f"16 pictures of 128 px, one forward pass of both networks: {forward:.0f} ms")
    for method, each in zip(METHODS, took, strict=True):
        most = {"discrepancy": 1.5, "smoothgrad": 4 * 5 + 1}.get(method, 4)
        print(f"{method} map: {each:.0f} ms, ratio {each / forward:.2f}   (at most {most})")
        met &= each <= most * forward
    return met


def reached(data: str, seed: int, parameters: dict) -> dict[str, float]:
    "Train by default, judge the test pictures, AUROC by each way from map to score, and by the loss; the default's is marked."
    dataset = load_data(data, seed)
    start = time.perf_counter()
    detector = KDAD(seed=seed, **parameters).fit(dataset.train)
    seconds, default = time.perf_counter() - start, detector.image_score
    found = ways(dataset.test.labels, detector.anomaly_map(dataset.test))
    found["loss"] = auroc(dataset.test.labels, detector.set_params(image_score="loss").inspect(dataset.test).score)
    marked = "  ".join(f"{how}{'*' if how == default else ''} {v:.4f}" for how, v in found.items())
    print(f"{data} seed {seed}: fit {seconds / 60:.1f} min, {len(detector.history_)} epochs, validation "
          f"{detector.history_[-1]['validation']:.4f};  {marked}", flush=True)  # fmt: skip
    return found | {"default": found[default]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--data", default="elpv:mono")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    if args.ablation:
        ablation("kdad", KDAD, SETTINGS, 25, args.seeds or [0], judging=JUDGING)
        return 0
    if args.train:
        parameters = {"epochs": args.epochs} if args.epochs else {}
        rows = [reached(args.data, seed, parameters) for seed in args.seeds or [0, 1, 2]]
        print("mean:", {how: round(statistics.mean(row[how] for row in rows), 4) for how in rows[0]})
        return 0
    met = judging()
    print("targets met" if met else "TARGETS MISSED")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
