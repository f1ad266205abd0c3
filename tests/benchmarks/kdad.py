"""KDAD: what maps cost beside the two networks, what the default training reaches, and what its parts are worth.

    python -m tests.benchmarks.kdad                          the costs; exit code 1 when a target is missed
    python -m tests.benchmarks.kdad --train --seeds 0 1 2    the default training on elpv:mono, image AUROC per seed
    python -m tests.benchmarks.kdad --train --data mvtec:DIR --seeds 0
    python -m tests.benchmarks.kdad --ablation               cloner, lambda, taps, map -> nbs/results/ablation-kdad.csv

Target: gradient maps ("plain", "guided") of 16 pictures in at most 4 x the time of one forward pass of both networks;
"smoothgrad" in n times that.
"""

import sys
from dataclasses import replace

import numpy as np
import torch

from g100.algorithms.kdad import KDAD, METHODS
from g100.foundations.layouts import DataSet
from g100.foundations.lessons import Judge
from g100.foundations.lessons import judged as judged_by
from g100.foundations.metrics import auroc
from tests.benchmarks.common import ablation, command, milliseconds, ways

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

FORMER = {"image_size": 128, "studentise": False, "epochs": 25}  # the defaults with which the rows were made, fewer epochs


def untrained(**parameters) -> Judge:
    "What judges, with a cloner of random weights: the arithmetic is the same."
    detector = KDAD(**parameters)
    detector.check()
    return Judge(detector.build(detector.scoring().view.shape), detector.scoring()).eval()


def judging() -> bool:
    "A judge by each method against one forward pass of both networks."
    judges = {method: untrained(method=method, smoothgrad_n=5) for method in METHODS}
    model = judges["plain"].model
    x = torch.rand(16, 3, *judges["plain"].scoring.view.shape)

    @torch.inference_mode()
    def bare():
        model.source(x), model.cloner(x)

    @torch.inference_mode()
    def whole(judge):
        judge(x)

    forward, *took = milliseconds(bare, *(lambda judge=judge: whole(judge) for judge in judges.values()))
    met = True
    print(f"16 pictures of {x.shape[3]} px, one forward pass of both networks: {forward:.0f} ms")
    for method, each in zip(METHODS, took, strict=True):
        most = {"discrepancy": 1.5, "smoothgrad": 4 * 5 + 1}.get(method, 4)
        print(f"{method} map: {each:.0f} ms, ratio {each / forward:.2f}   (at most {most})")
        met &= each <= most * forward
    return met


def judged(detector: KDAD, dataset: DataSet) -> dict[str, float]:
    "AUROC by each way from map to score, and by the loss."
    test, fitted = dataset.test, detector.fitted_
    by_loss = Judge(fitted.model, replace(fitted.scoring, image_score="loss")).eval()
    found = [np.concatenate(each) for each in zip(*judged_by(by_loss, test, fitted.device, detector.batch_size), strict=True)]
    return ways(test.labels, found[0]) | {"loss": auroc(test.labels, found[1])}


def ablate(seeds: list[int]) -> None:
    ablation("kdad", KDAD, SETTINGS, FORMER, seeds)


if __name__ == "__main__":
    sys.exit(command(__doc__, KDAD, judging, judged, ablate))
