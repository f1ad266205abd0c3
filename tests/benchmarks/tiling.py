"""Large pictures in crops: how much memory one of 8192 x 8192 takes, and what the cutting and merging cost.

    python -m tests.benchmarks.tiling        exit code 1 when a target is missed

Targets: 8192 x 8192 pixels inspected, from a file and from an array, in under 1 GB above the model (the highest resident
memory of a process of its own, less what it had after judging a small picture); a large picture within 1.2 x the time
of its crops as separate pictures.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from g100.algorithms.favae import FAVAE
from g100.experiments.experiment import peak_memory_mb
from g100.foundations.detector import load
from g100.foundations.layouts import load_data
from g100.foundations.lessons import Judge
from g100.foundations.pictures import pixels
from g100.foundations.runtime import cut
from g100.foundations.sources import as_image_set

TILE, OVERLAP, LARGE = 512, 64, 8192


def picture(side: int) -> np.ndarray:
    "A made-up picture (side, side, 3), uint8: a cell of the data set, over and over."
    cell = pixels(load_data("elpv:mono").train.images[0])
    repeats = -(-side // min(cell.shape[:2]))
    return np.tile(cell, (repeats, repeats, 1))[:side, :side].copy()


def small_model(folder: Path) -> Path:
    "A detector of crops that has hardly learnt: the arithmetic of judging is the same."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = FAVAE(tile=TILE, overlap=OVERLAP, epochs=1).fit([picture(TILE)] * 8, device="cpu")
    return detector.save(folder / "model")


def child(model: str, source: str) -> None:
    "Print the highest memory (MB) before and after judging one large picture from `source`, and the seconds."
    detector = load(model, device="cpu")
    detector.inspect([picture(TILE + 100)])
    X = [source] if source.endswith(".png") else [picture(LARGE)]
    before, start = peak_memory_mb(), time.perf_counter()
    verdict = detector.inspect(X)
    assert verdict.map.shape == verdict.mask.shape == (1, LARGE, LARGE)
    print(before * 1.048576, peak_memory_mb() * 1.048576, time.perf_counter() - start)


def memory(model: Path) -> bool:
    "The target on memory; an array's own bytes were there before, and are added."
    met, file = True, model.parent / "large.png"
    Image.fromarray(picture(LARGE)).save(file, compress_level=1)
    for source, own in ((str(file), 0), ("array", LARGE * LARGE * 3 / 1e6)):
        done = subprocess.run([sys.executable, "-m", "tests.benchmarks.tiling", "--child", str(model), source],
                              capture_output=True, text=True, check=True)  # fmt: skip
        before, after, seconds = map(float, done.stdout.split())
        more = after - before + own
        where = "an array" if own else "a file"
        print(f"{LARGE} x {LARGE} from {where}: {more:.0f} MB above the model's {before - own:.0f}, "
              f"{seconds:.0f} s   (under 1000)", flush=True)  # fmt: skip
        met &= more < 1000
    return met


def speed(model: Path, side: int = 4096, repeats: int = 3) -> bool:
    "The target on time, the best of some turns."
    detector, whole = load(model, device="cpu"), load(model, device="cpu")
    fitted = whole.fitted_
    whole.fitted_ = replace(fitted, judge=Judge(fitted.model, replace(fitted.scoring, tile=None)))
    large = picture(side)
    crops = [pixels(crop).copy() for crop in cut(as_image_set([large]), TILE, OVERLAP).images]
    took = [[], []]
    for _ in range(repeats):
        for times, judge, X in ((took[0], detector, [large]), (took[1], whole, crops)):
            start = time.perf_counter()
            judge.inspect(X)
            times.append(time.perf_counter() - start)
    tiled, alone = map(min, took)
    print(f"{side} x {side}, {len(crops)} crops: {tiled:.2f} s as one picture, {alone:.2f} s as separate pictures, ratio "
          f"{tiled / alone:.2f}   (at most 1.2)")  # fmt: skip
    return tiled <= 1.2 * alone


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child)
        return 0
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        model = small_model(Path(folder))
        met = [memory(model), speed(model)]
    print("targets met" if all(met) else "TARGETS MISSED")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
