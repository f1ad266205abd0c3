"""What the pixel metrics cost: all of them together, one by one, and beside anomalib's where that is installed.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.metrics [--pictures 80] [--size 256]

Target: all pixel metrics of 80 maps of 256 x 256 in at most 0.3 s. Judged is the processor's time, which a busy machine
lengthens least; the sort of the normal pixels, printed beside it, tells how fast the machine is. Medians of works run in turns.
"""

import argparse
import importlib.util
import logging
import statistics
import time
import warnings

import numpy as np
import torch
from scipy import ndimage

from g100.foundations.regions import aupimo, aupro, pixel_scores, regions_at
from tests.benchmarks.common import milliseconds


def scenes(pictures: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    "Masks of discs, a quarter of the pictures good; smooth maps that see them; which are good."
    rng, good = np.random.default_rng(0), np.arange(pictures) < max(1, pictures // 4)
    masks, (rows, columns) = np.zeros((pictures, size, size), bool), np.mgrid[:size, :size]
    for mask in masks[good.sum() :]:
        for radius in rng.choice([3, 8, 20, 40], size=3) * size / 256:
            r, c = rng.integers(0, size, 2)
            mask |= (rows - r) ** 2 + (columns - c) ** 2 <= radius**2
    maps = np.stack([ndimage.gaussian_filter(rng.normal(size=mask.shape), 4) for mask in masks])
    return masks, (maps / maps.std() + 1.5 * masks).astype(np.float32), good


def processor(*works, repeats: int = 7) -> list[float]:
    "The median processor time of each in milliseconds, run in turns."
    took = [[] for _ in works]
    for _ in range(repeats):
        for times, work in zip(took, works, strict=True):
            start = time.process_time()
            work()
            times.append(1e3 * (time.process_time() - start))
    return [statistics.median(times) for times in took]


def anomalib_works(masks: np.ndarray, maps: np.ndarray) -> dict:
    "AUPRO at 0.3 and 0.05 and AUPIMO by anomalib, as works that give a number each."
    from anomalib.metrics.aupro import _AUPRO
    from anomalib.metrics.pimo.functional import aupimo_scores

    truth, a = torch.from_numpy(masks).int(), torch.from_numpy(maps)

    def of_regions(limit: float) -> float:
        metric = _AUPRO(fpr_limit=limit)
        metric.update(a, truth)
        return float(metric.compute())

    def of_pictures() -> float:
        return float(aupimo_scores(a, truth, force=True)[4].nanmean())

    return {"aupro 0.3": lambda: of_regions(0.3), "aupro 0.05": lambda: of_regions(0.05), "aupimo": of_pictures}


def beside_anomalib(masks: np.ndarray, maps: np.ndarray) -> None:
    "Its numbers and times beside ours, each metric alone."
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    ours = {"aupro 0.3": lambda: aupro(masks, maps), "aupro 0.05": lambda: aupro(masks, maps, 0.05)}
    ours["aupimo"] = lambda: float(np.nanmean(aupimo(masks, maps)))
    for name, theirs in anomalib_works(masks, maps).items():
        mine, other = milliseconds(ours[name], theirs, repeats=3)
        print(f"{name:10s} g100 {ours[name]():.6f} in {mine:.0f} ms, anomalib {theirs():.6f} in {other:.0f} ms: "
              f"{other / mine:.1f} x")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=80)
    parser.add_argument("--size", type=int, default=256)
    args = parser.parse_args()
    masks, maps, good = scenes(args.pictures, args.size)
    regions, normal = [regions_at(mask, mask.shape)[0] for mask in masks], maps[~masks]
    works = (lambda: pixel_scores(regions, maps, 2.0, good), lambda: aupro(masks, maps), lambda: np.sort(normal))
    together, alone, sort = processor(*works)
    print(f"{len(maps)} maps of {args.size} x {args.size}: all pixel metrics {together:.0f} ms, AUPRO alone {alone:.0f} ms, "
          f"a sort of the normal pixels {sort:.0f} ms; all / AUPRO {together / alone:.2f}, all / sort {together / sort:.2f}; "
          f"by the clock {milliseconds(works[0])[0]:.0f} ms")  # fmt: skip
    if importlib.util.find_spec("anomalib"):
        beside_anomalib(masks, maps)
    met = together <= 300
    print("target met" if met else "TARGET MISSED")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
