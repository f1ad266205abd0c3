"""KDAD: what maps cost beside the two networks, what the default training reaches, and what its parts are worth.

    python -m tests.benchmarks.kdad                          the costs; exit code 1 when a target is missed
    python -m tests.benchmarks.kdad --train --seeds 0 1 2    the default training on elpv:mono, image AUROC per seed
    python -m tests.benchmarks.kdad --train --data mvtec:DIR --seeds 0
    python -m tests.benchmarks.kdad --ablation               cloner, lambda, taps, map -> nbs/results/ablation-kdad.csv

Target: gradient maps ("plain", "guided") of 16 pictures in at most 4 x the time of one forward pass of both networks;
"smoothgrad" in n times that.
"""

import sys

import torch

from g100.algorithms.kdad import KDAD, METHODS
from g100.foundations.features import Backbone, Teacher
from g100.foundations.layouts import DataSet
from g100.foundations.metrics import auroc
from tests.benchmarks.common import ablation, command, milliseconds, ways

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


def judged(detector: KDAD, dataset: DataSet) -> dict[str, float]:
    "AUROC by each way from map to score, and by the loss. The detector judges as before when this is done."
    test, default = dataset.test, detector.image_score
    found = ways(test.labels, detector.anomaly_map(test))
    found["loss"] = auroc(test.labels, detector.set_params(image_score="loss").inspect(test).score)
    detector.set_params(image_score=default)
    return found


def ablate(seeds: list[int]) -> None:
    ablation("kdad", KDAD, SETTINGS, 25, seeds, judging=JUDGING)


if __name__ == "__main__":
    sys.exit(command(__doc__, KDAD, judging, judged, ablate))
