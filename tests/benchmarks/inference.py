"""How much PatchCore adds to the bare backbone's forward pass, and how much memory `fit` adds to the feature matrix.

    python -m tests.benchmarks.inference [--repeats 7] [--batch 16] [--bank 3276] [--pictures 1500]

Times are medians of interleaved repeats in one process, printed as ratios. Two baselines for the forward pass: the
backbone as PatchCore runs it, and the same network as timm makes it (its own memory format, uncut).
"""

import argparse
import statistics
import subprocess
import sys
import time

import timm
import torch

from g100 import PatchCore
from g100.algorithms.neighbors import Neighbors
from g100.foundations.features import Backbone
from g100.foundations.layouts import load_data
from g100.foundations.views import View, batches

MEMORY = """
import resource, sys, numpy as np
from g100 import PatchCore
from g100.foundations.sources import as_image_set
n = int(sys.argv[1])
images = as_image_set(np.random.default_rng(0).integers(0, 255, (n, 224, 224), dtype=np.uint8))
detector = PatchCore(image_size=224, coreset_ratio=0.002, calibration=16 / n)
PatchCore(image_size=224, calibration=0.5).fit(images[:64])  # libraries, batches and buffers of the allocator are there now
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
detector.fit(images)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def interleaved(works: dict, repeats: int) -> dict[str, float]:
    "The median seconds of each piece of work, all run once in every round."
    seconds = {name: [] for name in works}
    for n in range(repeats + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if n:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def detector_with_bank(size: int) -> PatchCore:
    "PatchCore on solar cells, with a bank of exactly `size` patches."
    detector = PatchCore(image_size=224, calibration=0.2, coreset_ratio=0.02).fit(load_data("elpv:mono").train, device="cpu")
    model = detector.fitted_.model
    model.bank = model.bank[:size].contiguous()
    assert len(model.bank) == size
    model.bank_neighbors = Neighbors(model.bank).kneighbors(model.bank, 9)[1]
    return detector


def inference(args: argparse.Namespace) -> None:
    detector = detector_with_bank(args.bank)
    x = next(batches(load_data("elpv:mono").test, View(224), args.batch))
    uncut = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3)).eval()
    backbone: Backbone = detector.backbone_
    with torch.inference_mode():
        works = {"as timm makes it": lambda: uncut(x), "as PatchCore runs it": lambda: backbone(x)}
        seconds = interleaved(works | {"PatchCore": lambda: detector.fitted_.judge(x)}, args.repeats)
    print(f"batch {args.batch}, bank {args.bank} x {detector.bank_.shape[1]}, {torch.get_num_threads()} threads")
    for name, value in seconds.items():
        print(f"  {name:22s} {1000 * value / args.batch:7.2f} ms a picture")
    for name in works:
        print(f"  PatchCore / bare backbone {name}: {seconds['PatchCore'] / seconds[name]:.2f}   (at most 1.3)")


def memory(args: argparse.Namespace) -> None:
    command = [sys.executable, "-c", MEMORY, str(args.pictures)]
    added = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    matrix = 4 * (args.pictures - 16) * 784 * 152
    print(f"fit on {args.pictures} pictures: feature matrix {matrix / 2**20:.0f} MiB, peak rises by {added / 2**20:.0f} MiB")
    print(f"  ratio {added / matrix:.2f}   (at most 1.25)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("repeats", 7), ("batch", 16), ("bank", 3276), ("pictures", 1500)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    inference(arguments)
    memory(arguments)
