"""FAVAE: what judging costs beside the bare networks, what the default training reaches, and what each choice is worth.

    python -m tests.benchmarks.favae                          the cost; exit code 1 when the target is missed
    python -m tests.benchmarks.favae --train --seeds 0 1 2    the default training on elpv:mono, image AUROC per seed
    python -m tests.benchmarks.favae --train --data mvtec:DIR --seeds 0
    python -m tests.benchmarks.favae --ablation               nbs/results/ablation-favae.csv: short trainings on elpv:poly,
                                                              ablation-favae-schedule.csv: how long, how fast

Target: judging at most 1.3 x the bare forwards of autoencoder and teacher. What large pictures cost in crops is measured by
tests.benchmarks.tiling.
"""

import sys

import numpy as np
import torch

from g100.algorithms.favae import FAVAE, differences
from g100.foundations.layouts import DataSet
from g100.foundations.lessons import Judge
from g100.foundations.maps import full_size, image_score
from g100.foundations.metrics import auroc
from g100.foundations.pictures import ImageSet
from g100.foundations.views import batches
from tests.benchmarks.common import ablation, command, milliseconds, ways

SETTINGS = [
    ("default", "-", {}),
    ("loss", "pixels only", {"feature_weight": 0.0}), ("loss", "features only", {"pixel_weight": 0.0}),
    ("w_x", "1", {"pixel_weight": 1.0}), ("beta", "10", {"kl_weight": 10.0}), ("beta", "100", {"kl_weight": 100.0}),
    ("strides of the taps", "16", {"levels": (3,)}), ("strides of the taps", "8", {"levels": (2,)}),
    ("strides of the taps", "4 to 16", {"levels": (1, 2, 3)}), ("strides of the taps", "2 to 8", {"levels": (0, 1, 2)}),
    ("Z", "16", {"z": 16}), ("Z", "400", {"z": 400}),
    ("width", "8", {"width": 8}), ("width", "32", {"width": 32}),
]  # fmt: skip
FORMER = {"image_size": 128, "studentise": False, "bounded": False}  # the defaults with which the rows were made
SCHEDULES = [
    (f"rate {rate:g}, batches of {size}", f"{n} epochs", {"learning_rate": rate, "train_batch": size, "epochs": n})
    for rate, size, n in ((1e-3, 8, 10), (1e-3, 8, 40), (2.5e-4, 8, 80), (2e-3, 16, 20), (2e-3, 16, 80))
]


def judging() -> bool:
    "A `Judge` against one forward pass of both networks; the autoencoder's weights are random: the arithmetic is the same."
    detector = FAVAE()
    scoring = detector.scoring()
    x = torch.rand(16, 3, *scoring.view.shape)
    model = detector.build(scoring.view.shape).eval()
    judge = Judge(model, scoring)

    @torch.inference_mode()
    def bare():
        model.teacher(x), model.vae(x.contiguous(memory_format=torch.channels_last))

    @torch.inference_mode()
    def whole():
        judge(x)

    forward, took = milliseconds(bare, whole)
    print(f"16 pictures of {x.shape[3]} px, one forward pass of both networks: {forward:.0f} ms")
    print(f"judging them: {took:.0f} ms, ratio {took / forward:.2f}   (at most 1.3)")
    return took <= 1.3 * forward


def parts(detector: FAVAE, images: ImageSet) -> dict[str, float]:
    "AUROC of either part of the map alone, by the detector's own way."
    shares, fitted = [], detector.fitted_
    with torch.inference_mode():
        for x in batches(images, fitted.scoring.view, 16):
            pixels, *levels = fitted.model.addends(x.to(fitted.device))
            features = sum(full_size(level, x.shape[2:]) for level in levels)
            smoothed = full_size(torch.cat([pixels, features]), x.shape[2:], fitted.scoring.sigma)
            shares.append(smoothed.unflatten(0, (2, -1)).cpu())
    named = zip(("pixels_alone", "features_alone"), torch.cat(shares, dim=1), strict=True)
    return {name: auroc(images.labels, image_score(part, detector.image_score).numpy()) for name, part in named}


def judged(detector: FAVAE, dataset: DataSet) -> dict[str, float]:
    "AUROC by each way from map to score, and of either part of the map."
    return ways(dataset.test.labels, detector.anomaly_map(dataset.test)) | parts(detector, dataset.test)


def errors(detector: FAVAE, images: ImageSet) -> dict[str, float]:
    "Of good pictures: KL in nats, and the mean squared errors of a pixel's channel and of a feature's, without weights."
    good, totals, fitted = images[np.flatnonzero(images.labels == 0)], [], detector.fitted_
    model = fitted.model
    with torch.inference_mode():
        for x in batches(good, fitted.scoring.view, 16):
            x = x.to(fitted.device)
            pixels, levels, divergence = differences(model.vae, x, model.teacher(x))
            per_channel = [level.mean((1, 2)) / c for level, c in zip(levels, model.teacher.channels, strict=True)]
            totals.append(torch.stack([divergence, pixels.mean((1, 2)) / 3, torch.stack(per_channel).mean(0)]))
    nats, pixel, feature = torch.cat(totals, dim=1).mean(1).tolist()
    return {"kl": round(nats, 1), "pixel_error": round(pixel, 5), "feature_error": round(feature, 4)}


def held_out(detector: FAVAE, *_, mean_of: int = 10) -> dict:
    "The loss of good pictures that did not teach, and whether its means over ten epochs each fell throughout."
    losses = np.array([row["validation"] for row in detector.history_])
    means = losses[: len(losses) // mean_of * mean_of].reshape(-1, mean_of).mean(1)
    return {"held_out_loss": round(losses[-1]), "falls": bool((np.diff(means) < 0).all())}


def worth(detector: FAVAE, test: ImageSet) -> dict:
    "What each part is worth, and the errors that are left."
    return {name: round(value, 4) for name, value in parts(detector, test).items()} | errors(detector, test)


def ablate(seeds: list[int]) -> None:
    ablation("favae", FAVAE, SETTINGS, FORMER | {"epochs": 20}, seeds, more=worth)
    for data in ("elpv:mono", "elpv:poly"):
        ablation("favae-schedule", FAVAE, SCHEDULES, FORMER, seeds, data, more=held_out)


if __name__ == "__main__":
    sys.exit(command(__doc__, FAVAE, judging, judged, ablate))
