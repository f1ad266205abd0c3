"""RIAD: what judging and drawing masks cost beside the bare U-Net, and what the default training reaches.

    python -m tests.benchmarks.riad                          the costs; exit code 1 when a target is missed
    python -m tests.benchmarks.riad --train --seeds 0 1 2    the default training on elpv:mono, image AUROC per seed
    python -m tests.benchmarks.riad --train --data mvtec:DIR --seeds 0
    python -m tests.benchmarks.riad --ablation               cells, size, width, loss, epochs -> nbs/results/ablation-riad.csv

Targets: judging at most 1.2 x the bare forwards of all views (the views of one k in one batch, as judging has them);
masks under 0.1 % of a training step of the paper's network and of the default.
"""

import sys

import torch

from g100.algorithms.riad import RIAD, UNet, distance, inpaint, masks
from g100.foundations.layouts import DataSet
from g100.foundations.lessons import Judge
from g100.foundations.metrics import auroc
from g100.foundations.views import batches
from tests.benchmarks.common import ablation, command, milliseconds, ways

FORMER = {"image_size": 96, "studentise": False, "epochs": 20}  # the defaults with which the rows were made, fewer epochs
FEWER = {"ks": (4, 8, 16)}
SETTINGS = [
    ("sides of the cells", "4, 8, 16", FEWER), ("sides of the cells", "2, 4, 8, 16", {}),
    ("sides of the cells", "4", {"ks": (4,)}), ("sides of the cells", "8", {"ks": (8,)}),
    ("sides of the cells", "16", {"ks": (16,)}),
    ("epochs", "40", FEWER | {"epochs": 40}), ("epochs", "40, with sides 2, 4, 8, 16", {"epochs": 40}),
    ("side of the picture", "64", FEWER | {"image_size": 64}), ("width of the U-Net", "8", FEWER | {"width": 8}),
    ("loss", "L_2 alone", FEWER | {"gms_weight": 0.0, "ssim_weight": 0.0}),
    ("loss", "without L_G", FEWER | {"gms_weight": 0.0}), ("loss", "without L_S", FEWER | {"ssim_weight": 0.0}),
]  # fmt: skip


def judging(ks: tuple[int, ...]) -> bool:
    "A `Judge` against the bare forwards of its views; the weights are random: the arithmetic is the same."
    detector = RIAD(ks=ks)
    scoring = detector.scoring()
    model = detector.build(scoring.view.shape).eval().deal(detector.seed)
    size = scoring.view.shape
    judge, x, views = Judge(model, scoring), torch.rand(16, 3, *size), torch.rand(16 * detector.n, 3, *size)

    @torch.inference_mode()
    def whole():
        judge(x)

    @torch.inference_mode()
    def bare():
        for _ in ks:
            model.unet(views)

    a, b = milliseconds(whole, bare)
    print(f"judging 16 pictures, k {ks}: {a:.0f} ms; {len(ks)} x {detector.n} bare forwards: {b:.0f} ms; "
          f"ratio {a / b:.2f}   (at most 1.2)")  # fmt: skip
    return a <= 1.2 * b


def drawing(name: str, size: int, batch: int, k: int, **unet) -> bool:
    "Masks against a training step."
    net = UNet(**unet).to(memory_format=torch.channels_last)
    optimizer, x, random = torch.optim.Adam(net.parameters()), torch.rand(batch, 3, size, size), torch.Generator()

    def step():
        optimizer.zero_grad()
        distance(x, inpaint(net, x, masks((size, size), k, 3, random))).backward()
        optimizer.step()

    a, b = milliseconds(lambda: masks((size, size), k, 3, random), step, repeats=3)
    print(f"{name}: masks (k={k}) {a:.2f} ms, step {b:.0f} ms, {a / b:.3%}   (under 0.1 %)")
    return a < 1e-3 * b


def judged(detector: RIAD, dataset: DataSet) -> dict[str, float]:
    "AUROC by each way from map to score, and by the mean difference to the mean training picture."
    found = ways(dataset.test.labels, detector.anomaly_map(dataset.test))
    mean = torch.cat(list(batches(dataset.train, detector.view_))).mean(0)
    residual = torch.cat([(x - mean).abs().mean((1, 2, 3)) for x in batches(dataset.test, detector.view_)])
    return found | {"mean-picture residual": auroc(dataset.test.labels, residual.numpy())}


def costs() -> bool:
    "The targets."
    met = [judging((2, 4, 8, 16)), judging((4, 8, 16))]
    met += [drawing("default", RIAD().scoring().view.shape[0], 8, 4, width=16, depth=3, shuffle=2), drawing("paper", 256, 4, 2)]
    return all(met)


def ablate(seeds: list[int]) -> None:
    ablation("riad", RIAD, SETTINGS, FORMER, seeds)


if __name__ == "__main__":
    sys.exit(command(__doc__, RIAD, costs, judged, ablate))
