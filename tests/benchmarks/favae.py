"""FAVAE: what judging costs beside the bare networks, what the default training reaches, and what each choice is worth.

    python -m tests.benchmarks.favae                          the cost; exit code 1 when the target is missed
    python -m tests.benchmarks.favae --train --seeds 0 1 2    the default training on elpv:mono, image AUROC per seed
    python -m tests.benchmarks.favae --train --data mvtec:DIR --seeds 0
    python -m tests.benchmarks.favae --ablation               short trainings on elpv:poly: nbs/results/ablation-favae.csv

Target: judging at most 1.3 x the bare forwards of autoencoder and teacher. What large pictures cost in crops is measured by
tests.benchmarks.tiling.
"""

import argparse
import csv
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from g100.algorithms.favae import FAVAE
from g100.backbones import Backbone, Teacher
from g100.data import ImageSet, batches, load_data
from g100.maps import IMAGE_SCORES, full_size, image_score
from g100.metrics import auroc
from tests.benchmarks.common import milliseconds

ABLATION = Path(__file__).resolve().parents[2] / "nbs" / "results" / "ablation-favae.csv"
EPOCHS = 18  # of the trainings of the ablation; the default trains longer
SETTINGS = [
    ("default", "", {}),
    ("loss", "pixels only", {"feature_weight": 0.0}), ("loss", "features only", {"pixel_weight": 0.0}),
    ("w_x", "1", {"pixel_weight": 1.0}), ("beta", "10", {"kl_weight": 10.0}), ("beta", "100", {"kl_weight": 100.0}),
    ("strides of the taps", "16", {"levels": (3,)}), ("strides of the taps", "8", {"levels": (2,)}),
    ("strides of the taps", "4 to 16", {"levels": (1, 2, 3)}), ("strides of the taps", "2 to 8", {"levels": (0, 1, 2)}),
    ("Z", "16", {"z": 16}), ("Z", "400", {"z": 400}),
    ("width", "8", {"width": 8}), ("width", "32", {"width": 32}),
]  # fmt: skip


def untrained(**parameters) -> FAVAE:
    "A detector that can judge, with an autoencoder of random weights: the arithmetic is the same."
    detector = FAVAE(device="cpu", **parameters)
    detector._settle()
    detector.teacher_ = Teacher(Backbone(detector.backbone, detector.levels))
    detector.vae_ = detector._new_vae()
    return detector


def judging() -> bool:
    "`_judge` against one forward pass of both networks."
    detector, x = untrained(), torch.rand(16, 3, 128, 128)

    @torch.inference_mode()
    def bare():
        detector.teacher_(x), detector.vae_(x.contiguous(memory_format=torch.channels_last))

    @torch.inference_mode()
    def whole():
        detector._judge(x)

    forward, took = milliseconds(bare, whole)
    print(f"16 pictures of 128 px, one forward pass of both networks: {forward:.0f} ms")
    print(f"judging them: {took:.0f} ms, ratio {took / forward:.2f}   (at most 1.3)")
    return took <= 1.3 * forward


def ways(detector: FAVAE, images: ImageSet) -> dict[str, float]:
    "AUROC by each way from map to score, of the whole map; and of either part of it by the detector's own way."
    shares = []
    with torch.inference_mode():
        for x in batches(images, detector.view_, 16):
            x = x.to(detector.device_)
            pixels, levels, _ = detector._parts(detector.vae_, x, detector._source)
            features = sum(full_size(level, x.shape[2:]) for level in levels)
            shares.append(full_size(torch.cat([pixels, features]), x.shape[2:], detector.sigma).unflatten(0, (2, -1)).cpu())
    pixels, features = torch.cat(shares, dim=1)
    found = {how: auroc(images.labels, image_score(pixels + features, how).numpy()) for how in IMAGE_SCORES}
    for name, part in (("pixels", pixels), ("features", features)):
        found[f"{name} alone"] = auroc(images.labels, image_score(part, detector.image_score).numpy())
    return found


def reached(data: str, seed: int, parameters: dict) -> dict[str, float]:
    "Train by default, judge the test pictures; the default's way is marked."
    dataset = load_data(data, seed)
    start = time.perf_counter()
    detector = FAVAE(seed=seed, **parameters).fit(dataset.train)
    seconds = time.perf_counter() - start
    found = ways(detector, dataset.test)
    marked = "  ".join(f"{how}{'*' if how == detector.image_score else ''} {v:.4f}" for how, v in found.items())
    best = min(row["validation"] for row in detector.history_)
    print(f"{data} seed {seed}: fit {seconds / 60:.1f} min, {len(detector.history_)} epochs, validation {best:.1f};  {marked}",
          flush=True)  # fmt: skip
    return found | {"default": found[detector.image_score]}


def ablation(seeds: list[int]) -> None:
    "One row for each setting: AUROC by way from map to score, and by part of the map."
    rows = []
    for seed in seeds:
        dataset = load_data("elpv:poly", seed)
        for what, setting, parameters in SETTINGS:
            detector = FAVAE(seed=seed, epochs=EPOCHS, **parameters).fit(dataset.train)
            found = ways(detector, dataset.test)
            row = {"data": "elpv:poly", "seed": seed, "epochs": EPOCHS, "what": what, "setting": setting}
            row |= {"weights": sum(w.numel() for w in detector.vae_.parameters())}
            row |= {"train_seconds": round(detector.history_[-1]["seconds"], 1)}
            row |= {name.replace(" ", "_"): round(value, 4) for name, value in found.items()}
            rows.append(row | measured(detector, dataset.test))
            print(rows[-1], flush=True)
    ABLATION.parent.mkdir(exist_ok=True)
    with ABLATION.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} rows in {ABLATION.name}")


def measured(detector: FAVAE, images: ImageSet) -> dict[str, float]:
    "Of good pictures: KL in nats, and the mean squared errors of a pixel's channel and of a feature's, without weights."
    good, totals = images[np.flatnonzero(images.labels == 0)], []
    plain = FAVAE(**detector.get_params() | {"pixel_weight": 1.0, "feature_weight": 1.0})
    plain.teacher_ = detector.teacher_
    with torch.inference_mode():
        for x in batches(good, detector.view_, 16):
            pixels, levels, divergence = plain._parts(detector.vae_, x.to(detector.device_), detector._source)
            per_channel = [level.mean((1, 2)) / c for level, c in zip(levels, detector.teacher_.channels, strict=True)]
            totals.append(torch.stack([divergence, pixels.mean((1, 2)) / 3, torch.stack(per_channel).mean(0)]))
    nats, pixel, feature = torch.cat(totals, dim=1).mean(1).tolist()
    return {"kl": round(nats, 1), "pixel_error": round(pixel, 5), "feature_error": round(feature, 4)}


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
        ablation(args.seeds or [0])
        return 0
    if args.train:
        parameters = {"epochs": args.epochs} if args.epochs else {}
        rows = [reached(args.data, seed, parameters) for seed in args.seeds or [0, 1, 2]]
        print("mean:", {how: round(statistics.mean(row[how] for row in rows), 4) for how in rows[0]})
        return 0
    met = judging()
    print("target met" if met else "TARGET MISSED")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
