"""What the input's size, the levels, the network and the size of what is remembered bring to PatchCore and SemiOrthogonal.

    python -m tests.benchmarks.sizes [--seeds 0 1 2] [--only lite0 ...]   what they find, nbs/results/sizes.csv
    python -m tests.benchmarks.sizes --costs                              what they cost, nbs/results/sizes-costs.csv

What they find: 240 good polycrystalline cells teach; 240 of the test cells, which have labels but no masks, and 48 more of the
good ones with and without a synthetic anomaly, which have masks, are judged. The network sees every picture once a size, and
all settings are read off its feature maps; smaller coresets are prefixes of the largest. What is not named has its default.

What they cost: a fit of 352 good cells, as many as `g100 demo` has, and the judging of 64, by the detector itself, each in a
process of its own: processor time (of one thread with OMP_NUM_THREADS=1) and the peak of memory at the end of the fit.

Rows that are there are kept. The chapters of both detectors read the tables. Settings of lite2 want the extra [lite2].
"""

import argparse
import csv
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator

import numpy as np
import torch

from g100.algorithms import gaussians, patchcore, semiorth, subspace
from g100.algorithms.coreset import k_center_greedy
from g100.algorithms.neighbors import Neighbors
from g100.algorithms.synthetic import synthetic_test
from g100.experiments.experiment import peak_memory_mb
from g100.experiments.table import write_rows
from g100.foundations.detector import joined
from g100.foundations.features import Backbone
from g100.foundations.layouts import load_data
from g100.foundations.lessons import Judge
from g100.foundations.metrics import auroc
from g100.foundations.pictures import ImageSet
from g100.foundations.regions import pixel_scores
from g100.foundations.views import View, batches
from tests.benchmarks.common import RESULTS, at_metric_size

DATA, TAUGHT, JUDGED, SPOILT = "elpv:poly", 240, 240, 48
SEEN = [("lite0", 224), ("lite0", 320), ("lite0", 256), ("lite0", 288), ("lite2", 256), ("lite2", 320)]
RATIOS, KS = (0.01, 0.005, 0.0025), (100, 50)
MEMORIES, GAUSSIANS = ((2, 3), (2,), (2, 3, 4)), ((2, 3), (1, 2, 3), (2, 3, 4))  # levels
ELSEWHERE = ((2, 3), (1, 2, 3))  # of these, the levels that are looked at where it is not Lite0 at 224 pixels
COSTS = [line.split() for line in """
PatchCore lite0 224 2+3 0.01
PatchCore lite0 320 2+3 0.005
SemiOrthogonal lite0 224 1+2+3 100
SemiOrthogonal lite0 320 2+3 100
PatchCore lite2 320 2+3 0.005
SemiOrthogonal lite2 320 2+3 100
PatchCore lite0 320 2+3 0.01
SemiOrthogonal lite0 320 1+2+3 100
""".strip().splitlines()]  # fmt: skip
Found = Iterator[tuple[float, torch.Tensor]]  # the share of the patches or k, and raw maps (N, h, w)


def by_patches(taps: list[torch.Tensor], taught: int) -> Found:
    "PatchCore's maps of the pictures behind the first `taught`, for every ratio; taps (N, C, H, W) of the levels."
    z = torch.cat([patchcore.patch_features(list(part), 3) for part in zip(*(t.split(16) for t in taps), strict=True)])
    z = z.permute(0, 2, 3, 1).contiguous()
    memory = z[:taught].flatten(0, 2)
    coreset = k_center_greedy(memory, round(max(RATIOS) * len(memory)), seed=0)
    for ratio in RATIOS:
        search = Neighbors(memory[coreset.prefix(round(ratio * len(memory))).index])
        yield ratio, torch.cat([search.nearest(part.flatten(0, 2))[0].view(part.shape[:3]) for part in z[taught:].split(16)])


def by_gaussians(taps: list[torch.Tensor], taught: int) -> Found:
    "SemiOrthogonal's maps of the pictures behind the first `taught`, for every k."
    features, grid = sum(t.shape[1] for t in taps), taps[0].shape[2:]
    for k in (k for k in KS if k <= features):
        W = subspace.haar(features, k)
        P, seen = grid.numel(), 0
        parts = [subspace.embed(list(part), W) for part in zip(*(t.split(16) for t in taps), strict=True)]
        mean, scatter = torch.zeros(P, k), torch.zeros(P, k, k)
        for part in parts[: taught // 16]:
            seen = gaussians.accumulate(mean, scatter, seen, part)
        white = torch.cat([block for _, block in gaussians.whitenings(scatter, seen, 0.01)])
        new = torch.cat(parts[taught // 16 :], dim=1)
        yield k, gaussians.distances(new, mean, white).T.unflatten(1, grid)


def rows_of(backbone: str, size: int, images: ImageSet, labels: np.ndarray) -> Iterator[dict]:
    "The rows of a network at a size: of images the first TAUGHT teach, then come JUDGED, then the spoilt ones."
    network = Backbone(backbone, (1, 2, 3, 4))
    taps = dict(zip(network.levels, map(torch.cat, zip(*(network(x) for x in batches(images, View(size), 16)), strict=True)),
                    strict=True))  # fmt: skip
    real, last = slice(0, JUDGED), slice(JUDGED, None)
    for cls, way, choices in ((patchcore.PatchCore, by_patches, MEMORIES), (semiorth.SemiOrthogonal, by_gaussians, GAUSSIANS)):
        judge = Judge(None, cls(image_size=size).scoring())
        for levels in choices if (backbone, size) == ("lite0", 224) else [c for c in choices if c in ELSEWHERE]:
            for share, raw in way([taps[level] for level in levels], TAUGHT):
                said = zip(*(judge.read(part, None) for part in raw.split(16)), strict=True)
                maps, scores = (torch.cat(part).numpy() for part in said)
                pixels = at_metric_size(images[TAUGHT + JUDGED :], maps[last], View(size))
                row = {"algorithm": cls.__name__, "backbone": backbone, "image_size": size}
                row |= {"levels": "+".join(map(str, levels)), "share": share}
                found = {"image_auroc": auroc(labels[real], scores[real]), "auroc_synthetic": auroc(labels[last], scores[last])}
                found["aupro_synthetic"] = pixel_scores(*pixels, 0.0, labels[last] == 0)["aupro"]
                yield row | {name: round(value, 4) for name, value in found.items()}


def pictures(seed: int) -> tuple[ImageSet, np.ndarray]:
    "All pictures of a dealing, and the labels of those that are judged."
    data, draw = load_data(DATA, seed), np.random.default_rng(seed).permutation
    test = data.test[draw(len(data.test))]
    spoilt = synthetic_test(test[JUDGED:][np.flatnonzero(test.labels[JUDGED:] == 0)[:SPOILT]], seed=seed)
    shown = test[:JUDGED]
    return joined([data.train[draw(len(data.train))[:TAUGHT]], shown, spoilt]), np.append(shown.labels, spoilt.labels)


def cost(algorithm: str, backbone: str, size: str, levels: str, share: str) -> dict:
    "What a fit and judging cost."
    kinds = {"PatchCore": (patchcore.PatchCore, "coreset_ratio"), "SemiOrthogonal": (semiorth.SemiOrthogonal, "k")}
    (cls, name), taps = kinds[algorithm], tuple(map(int, levels.split("+")))
    how = {"backbone": backbone, "image_size": int(size), "levels": taps, name: json.loads(share)}
    data, start = load_data(DATA, 0), time.process_time()
    detector = cls(**how).fit(data.train[:352], device="cpu")
    fitted, peak = time.process_time(), peak_memory_mb()
    detector.inspect(data.test[:64])
    costs = {"fit_seconds": fitted - start, "fit_mb": peak, "ms_a_picture": 1e3 * (time.process_time() - fitted) / 64}
    costs["model_mb"] = sum(t.nbytes for t in detector.fitted_.tensors().values()) / 2**20
    return {key: round(value, 1) for key, value in costs.items()}


def add(file, rows: list[dict], more: list[dict]) -> None:
    rows += more
    write_rows(file, rows)
    for row in more:
        print(*row.values(), flush=True)


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--seeds", type=int, nargs="+", default=[0])
    words.add_argument("--only", nargs="+", default=[""], metavar="TEXT")
    words.add_argument("--costs", action="store_true")
    words.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    told = words.parse_args()
    warnings.simplefilter("ignore")
    if told.one:
        print(json.dumps(cost(*told.one)))
        return 0
    file = RESULTS / ("sizes-costs.csv" if told.costs else "sizes.csv")
    rows, columns = list(csv.DictReader(file.open(encoding="utf-8"))) if file.exists() else [], []
    for setting in COSTS if told.costs else []:
        columns = ("algorithm", "backbone", "image_size", "levels", "share")
        if setting not in ([row[column] for column in columns] for row in rows):
            command = [sys.executable, "-m", "tests.benchmarks.sizes", "--one", *setting]
            found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            add(file, rows, [dict(zip(columns, setting, strict=True)) | json.loads(found)])
    for seed in [] if told.costs else told.seeds:
        images, labels = pictures(seed)
        for backbone, size in SEEN:
            there = any((row["backbone"], row["image_size"], row["seed"]) == (backbone, str(size), str(seed)) for row in rows)
            if not there and any(text in f"{backbone} {size}" for text in told.only):
                with torch.inference_mode():
                    add(file, rows, [{"seed": seed} | row for row in rows_of(backbone, size, images, labels)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
