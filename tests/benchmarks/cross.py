"""What it costs that every good picture teaches and calibrates, and what rate of false alarms comes of it.

    python -m tests.benchmarks.cross                                   fits of `split` and `cross` in turns, 352 solar cells
    python -m tests.benchmarks.cross --deals mono=elpv:mono NAME=SPEC  realised false-positive rates of twenty dealings
    python -m tests.benchmarks.cross --gain mono=elpv:mono NAME=SPEC   image AUROC by both, three seeds, the default parameters

The targets: PatchCore's fit with `cross` takes at most 1.8 times that with `split`, SemiOrthogonal's at most 2 times;
processor time, medians of three in turns. Exit code 1 when one is missed.

A dealing gives two thirds of 240 good pictures to the detector, which teaches with four fifths of them (`split`) or with all
(`cross`), and counts the alarms among the other third, at 224 pixels. Features are computed once. Rows are added to
nbs/results/calibration.csv, which the chapter on calibration reads.

For the gain, the detectors are fitted and asked as anywhere; only the network's features of a picture are computed once and
remembered, for both methods, both detectors and all seeds. Rows are added to nbs/results/calibration-gain.csv.
"""

import argparse
import csv
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from unittest.mock import patch

import numpy as np
import torch

from g100.algorithms import bank, gaussians, patchcore, semiorth
from g100.algorithms.favae import fingerprint
from g100.foundations.calibration import Calibration
from g100.foundations.detector import Detector, built, joined
from g100.foundations.features import Backbone
from g100.foundations.layouts import load_data
from g100.foundations.lessons import Judge, Lessons, Options, folds, kept_of, pick_device
from g100.foundations.metrics import auroc
from tests.benchmarks.common import RESULTS

LIMITS = {patchcore.PatchCore: 1.8, semiorth.SemiOrthogonal: 2.0}
GOOD, ALPHA, SIDE = 240, 0.05, 224
Found = tuple[Calibration, np.ndarray, np.ndarray]  # the calibration, scores and peaks of new pictures


def cost(cls: type[Detector], limit: float) -> bool:
    "Print what `cross` costs beside `split`; whether that is within the limit."
    images, took = load_data("elpv:mono", 0).train, {0.2: [], "cross": []}
    cls(calibration=0.5).fit(images[:16], device="cpu")
    for _ in range(3):
        for how, times in took.items():
            start = time.process_time()
            cls(calibration=how).fit(images, device="cpu")
            times.append(time.process_time() - start)
    split, cross = map(statistics.median, took.values())
    print(f"{cls.__name__:16s} split {split:5.1f} s, cross {cross:5.1f} s, {cross / split:.2f} times; at most {limit}")
    return cross <= limit * split


def read(judge: Judge, raw: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    "Scores and highest values (n,) of raw maps (n, h, w)."
    rows = [kept_of(*(part.numpy() for part in judge.read(one[None], None))) for one in raw]
    scores, peaks, *_ = (np.concatenate(column) for column in zip(*rows, strict=True))
    return scores, peaks


def record(judge: Judge, raw: torch.Tensor, method: str) -> Calibration:
    return Calibration(*read(judge, raw), 0.0, ALPHA, None, method)


def by_patchcore(detector, judge: Judge, lessons: Lessons) -> Callable[..., Iterator[Found]]:
    "Deals of given, taught, held-out and new pictures: the calibrations by both methods, and what follows."
    features, seen = bank.remembered(detector, judge.model, lessons)
    memory = patchcore.PatchMemory(judge.model.backbone)

    def near(which) -> torch.Tensor:
        return torch.cat([memory.nearest(features[[i]])[0] for i in which])

    def dealt(given, taught, held, fresh, seed: int) -> Iterator[Found]:
        detector.seed, flat = seed, features[taught].flatten(0, 2)
        bank.thinned(detector, memory, flat, flat, round(detector.coreset_ratio * len(flat)))
        yield record(judge, near(held), "split"), *read(judge, near(fresh))
        parts = [torch.from_numpy(part) for part in folds(len(given), seed)]
        said = zip(parts, bank.told_across(detector, memory, features[given], seen[given], parts), strict=True)
        rows = [(which, raw) for which, (raw, _) in said]
        raws = torch.cat([raw for _, raw in rows])[torch.cat([which for which, _ in rows]).argsort()]
        yield record(judge, raws, "cross"), *read(judge, near(fresh))

    return dealt


def by_gaussians(detector, judge: Judge, lessons: Lessons) -> Callable[..., Iterator[Found]]:
    "The same for the semi-orthogonal embedding."
    semiorth.begun(detector, judge.model, lessons)
    model, grid = judge.model, judge.model.grid(lessons.view.shape)
    z = torch.cat([model.embedded(x)[0].transpose(0, 1) for x in lessons.batches("looking")])  # (N, P, k)

    def in_parts(which, work) -> torch.Tensor:
        parts = np.array_split(which, -(-len(which) // 16))
        return torch.cat([work(z[part].transpose(0, 1)).T.unflatten(1, grid) for part in parts])

    def taught_by(which) -> tuple[torch.Tensor, int]:
        model.mean, seen = torch.zeros_like(z[0]), 0
        scatter = torch.zeros(*z.shape[1:], z.shape[2])
        for part in np.array_split(which, -(-len(which) // 16)):
            seen = gaussians.accumulate(model.mean, scatter, seen, z[part].transpose(0, 1))
        return scatter, seen

    def dealt(given, taught, held, fresh, seed: int) -> Iterator[Found]:
        def judged(which) -> torch.Tensor:
            return in_parts(which, lambda z: gaussians.distances(z, model.mean, model.whitening))

        gaussians.whiten(model, *taught_by(taught), detector.epsilon)
        yield record(judge, judged(held), "split"), *read(judge, judged(fresh))
        scatter, seen = taught_by(given)
        white = gaussians.forgetting(scatter, seen, 1, detector.epsilon)
        raws = in_parts(given, lambda z: gaussians.left_out(z[:, :, None], model.mean, white, seen)[..., 0])
        gaussians.whiten(model, scatter, seen, detector.epsilon)
        yield record(judge, raws, "cross"), *read(judge, judged(fresh))

    return dealt


def dealings(n: int) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    "Twenty times: seed, the given pictures, of these the ones that teach and are held out by `split`, the new ones."
    for seed in range(20):
        order, size = np.random.default_rng(1000 + seed).permutation(n), round(2 / 3 * n)
        given, again, held = np.sort(order[:size]), np.random.default_rng(seed).permutation(size), -(-size // 5)
        yield seed, given, given[np.sort(again[held:])], given[np.sort(again[:held])], np.sort(order[size:])


@torch.no_grad()
def deals(name: str, spec: str, lines) -> None:
    "Add the rows of one data set."
    data = load_data(spec, 0)
    good = joined([data.train, data.test[data.test.labels == 0]])
    good = good[np.sort(np.random.default_rng(0).permutation(len(good))[:GOOD])]
    for cls, way in ((semiorth.SemiOrthogonal, by_gaussians), (patchcore.PatchCore, by_patchcore)):
        detector = cls(image_size=SIDE)
        lessons = Lessons(good, detector.scoring(), 16, Options(pick_device("cpu")))
        judge = Judge(built(detector, lessons), lessons.scoring)
        dealt = way(detector, judge, lessons)
        for seed, given, taught, held, fresh in dealings(len(good)):
            for found, scores, peaks in dealt(given, taught, held, fresh, seed):
                alarm, mark = scores > found.threshold, peaks > found.pixel_threshold
                teach = taught if found.method == "split" else given
                lines.writerow([name, cls.__name__, found.method, seed, len(teach), len(found.scores), len(fresh),
                                alarm.sum(), mark.sum(), (alarm | mark).sum()])  # fmt: skip


def remembering(forward: Callable) -> Callable:
    "A network's forward for pictures (B, 3, H, W) that has its answer to each picture ready when it is asked again."
    known: dict[bytes, list[torch.Tensor]] = {}

    def ready(self, x: torch.Tensor) -> list[torch.Tensor]:
        keys = [fingerprint(row) for row in x]
        if not all(key in known for key in keys):
            known.update((key, list(row)) for key, *row in zip(keys, *(f.clone() for f in forward(self, x)), strict=True))
        return [torch.stack(level) for level in zip(*(known[key] for key in keys), strict=True)]

    return ready


def gain(name: str, spec: str, lines) -> None:
    "Add the rows of one data set."
    with patch.object(Backbone, "forward", remembering(Backbone.forward)):
        for cls, seed, how in product((semiorth.SemiOrthogonal, patchcore.PatchCore), range(3), (0.2, "cross")):
            data, detector = load_data(spec, seed), cls(seed=seed, calibration=how)
            found = detector.fit(data.train, device="cpu").inspect(data.test)
            alarms = found.is_anomalous[data.test.labels == 0]
            row = [name, cls.__name__, detector.calibration_.method, seed, f"{auroc(data.test.labels, found.score):.5f}"]
            lines.writerow([*row, f"{found.is_anomalous[data.test.labels == 1].mean():.4f}", alarms.sum(), len(alarms)])
            print(*row, flush=True)


TABLES = {  # what is asked for: the file, its columns, and who adds rows for a data set
    "deals": ("calibration.csv", "data algorithm method seed taught calibrated new_good alarms marked either", deals),
    "gain": ("calibration-gain.csv", "data algorithm method seed image_auroc abnormal_recall alarms test_good", gain),
}


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in TABLES:
        words.add_argument(f"--{name}", nargs="+", metavar="NAME=SPEC")
    told = words.parse_args()
    warnings.simplefilter("ignore")
    asked = {name: pairs for name, pairs in vars(told).items() if pairs}
    if not asked:
        return int(not all([cost(cls, limit) for cls, limit in LIMITS.items()]))
    for table, pairs in asked.items():
        file, columns, add = TABLES[table]
        with (RESULTS / file).open("a", newline="", encoding="utf-8") as out:
            lines = csv.writer(out, lineterminator="\n")
            if not out.tell():
                lines.writerow(columns.split())
            for name, spec in (pair.split("=", 1) for pair in pairs):
                add(name, spec, lines)
                out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
