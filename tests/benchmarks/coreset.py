"""The lazy batched k-centre greedy against the plain sequential one, on real patch features in the same run.

    python -m tests.benchmarks.coreset            320 solar cells at 256 px: 327,680 patches to 3,276 centres
    python -m tests.benchmarks.coreset --quick    64 cells: 65,536 patches to 655 centres

Both are timed in turns, lazy - plain - lazy - ..., so that a busy machine disturbs both. Exit code 1 when the speed-up
is below 10, the covering radii differ by more than 1e-4 relatively, or the cost grows faster than N * K.
"""

import argparse
import contextlib
import ctypes
import statistics
import sys
import threading
import time
from pathlib import Path

import torch
from torch.nn.functional import avg_pool2d, interpolate

from g100.algorithms.coreset import k_center_greedy, project
from g100.foundations.features import Backbone
from g100.foundations.layouts import load_data
from g100.foundations.views import View, batches


def features(images: int, size: int = 256) -> torch.Tensor:
    "Patch features (N, 152): level 2 beside level 3 on the grid of level 2, both averaged over 3 x 3."
    network, rows = Backbone("lite0", (2, 3)), []
    with torch.inference_mode():
        for x in batches(load_data("elpv:mono").train[:images], View(size), 16):
            fine, coarse = (avg_pool2d(f, 3, 1, 1, count_include_pad=False) for f in network(x))
            coarse = interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
            rows.append(torch.cat([fine, coarse], 1).permute(0, 2, 3, 1).flatten(0, 2))
    return torch.cat(rows)


def plain_greedy(X: torch.Tensor, n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    "The sequential greedy at its best: running minimum, one matrix-vector product a pick, cached norms."
    X = X - X.mean(0)
    square, gap, near = X.square().sum(1), torch.full((len(X),), torch.inf), torch.empty(len(X))
    index, radius = torch.empty(n, dtype=torch.long), torch.empty(n)
    j = int(torch.randint(len(X), (1,), generator=torch.Generator().manual_seed(seed)))
    for i in range(n):
        index[i] = j
        torch.addmv(square, X, X[j], alpha=-2, out=near)
        torch.minimum(gap, near.add_(float(square[j])).clamp_(min=0), out=gap)
        gap[j] = -1
        value, j = (v.item() for v in gap.max(0))
        radius[i] = max(value, 0) ** 0.5
    return index, radius


def timed(work, *args):
    started = time.perf_counter()
    result = work(*args)
    return result, time.perf_counter() - started


def resident() -> int:
    "Bytes of memory of this process (Linux)."
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def extra_memory(X: torch.Tensor, n: int) -> float:
    "Peak of the resident memory while the coreset is chosen, above what it was before, in MB (sampled every ms)."
    k_center_greedy(X[:20_000], 200)  # what the libraries set up once is not counted
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what the process has freed goes back first, or it would hide the cost
    before, peak, done = resident(), [0], threading.Event()

    def watch():
        while not done.wait(0.001):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    k_center_greedy(X, n)
    done.set()
    watcher.join()
    return (peak[0] - before) / 2**20


def compare(X: torch.Tensor, n: int, repeats: int) -> bool:
    "Lazy against plain, in turns; prints and says whether the targets are met."
    k_center_greedy(X[:2000], 100)
    lazy, plain = [], []
    for _ in range(repeats):
        coreset, seconds = timed(k_center_greedy, X, n)
        lazy.append(seconds)
        (index, radius), seconds = timed(plain_greedy, X, n)
        plain.append(seconds)
    a, b = statistics.median(lazy), statistics.median(plain)
    gap = float((coreset.radius / radius - 1).abs().max())
    print(f"lazy  {a:8.2f} s   (median of {', '.join(f'{t:.2f}' for t in lazy)})")
    print(f"plain {b:8.2f} s   (median of {', '.join(f'{t:.2f}' for t in plain)})")
    print(f"ratio {b / a:8.1f}     (at least 10)")
    print(f"covering radius: lazy {float(coreset.radius[-1]):.6f}, plain {float(radius[-1]):.6f}")
    print(f"largest relative difference of the radius over all {n} prefixes: {gap:.1e}   (at most 1e-4)")
    print(f"same picks: {float((coreset.index == index).float().mean()):.2%}")
    return b / a >= 10 and gap <= 1e-4


def growth(X: torch.Tensor, ratio: float, repeats: int) -> bool:
    "Seconds for a quarter, a half and all of the points at a constant ratio of centres, and per N * K."
    print("\n        N      K   seconds   ns / (N K)")
    cost = []
    for part in (4, 2, 1):
        x = X[: len(X) // part]
        n = int(len(x) * ratio)
        seconds = min(timed(k_center_greedy, x, n)[1] for _ in range(repeats))
        cost.append(1e9 * seconds / (len(x) * n))
        print(f"{len(x):9}{n:7}{seconds:10.2f}{cost[-1]:12.2f}")
    print(f"growth of the cost beyond N * K: {cost[-1] / cost[0]:.2f}   (at most 1.2)")
    return cost[-1] <= 1.2 * cost[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=320, help="cells, 1,024 patches each")
    parser.add_argument("--ratio", type=float, default=0.01, help="centres per patch")
    parser.add_argument("--dim", type=int, default=128, help="dimensions of the projection")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch; 1 is what a busy machine disturbs least")
    parser.add_argument("--quick", action="store_true", help="64 images")
    args = parser.parse_args()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    X = project(features(64 if args.quick else args.images), args.dim)
    n = int(len(X) * args.ratio)
    print(f"{len(X)} x {X.shape[1]} {X.dtype} to {n} centres;", end=" ")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    extra = extra_memory(X, n)
    size = X.nbytes / 2**20
    print(f"memory beside the {size:.0f} MB of features: {extra:.0f} MB, {extra / size:.0%}   (at most 25 %)")
    met = [compare(X, n, args.repeats), growth(X, args.ratio, args.repeats), args.quick or extra <= size / 4]
    print("\ntargets met" if all(met) else "\nTARGETS MISSED")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
