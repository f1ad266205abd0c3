"""What the benchmarks of the detectors share: timing in turns, and ablations that are written down."""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from g100.algorithms.synthetic import synthetic_test
from g100.experiments.experiment import metric_shape
from g100.experiments.table import write_rows
from g100.foundations.detector import Detector
from g100.foundations.engines import keep_freed
from g100.foundations.layouts import load_data
from g100.foundations.maps import IMAGE_SCORES, image_score
from g100.foundations.metrics import auroc
from g100.foundations.pictures import ImageSet
from g100.foundations.regions import aupro, regions_at
from g100.foundations.views import View

RESULTS = Path(__file__).resolve().parents[2] / "nbs" / "results"


def milliseconds(*works, repeats: int = 7, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    "The median of each, run in turns so that a busy machine disturbs all; freed memory is kept, as detectors keep it."
    keep_freed()
    took = [[] for _ in works]
    for i in range(repeats + 1):
        for times, work in zip(took, works, strict=True):
            start = clock()
            work()
            times.append(1e3 * (clock() - start)) if i else None
    return [statistics.median(times) for times in took]


def ways(labels: np.ndarray, maps: np.ndarray) -> dict[str, float]:
    "Image AUROC by each way from map to score."
    return {how: auroc(labels, image_score(torch.from_numpy(maps), how).numpy()) for how in IMAGE_SCORES}


def measured(detector: Detector, test: ImageSet, synthetic: ImageSet) -> dict:
    "The numbers of one row: on real test pictures, and on synthetic anomalies, the only ones with masks; processor time."
    verdicts = detector.inspect(test)
    start = time.process_time()
    maps = detector.anomaly_map(synthetic)
    took = 1e3 * (time.process_time() - start) / len(maps)
    masks = [detector.frame(m.shape).mask(m) for m in map(synthetic.mask, range(len(synthetic)))]
    row = {"image_auroc": auroc(test.labels, verdicts.score)}
    row |= {f"auroc_{how}": value for how, value in ways(test.labels, verdicts.map).items()}
    row |= {"aupro_synthetic": aupro(masks, maps)}
    return {name: round(value, 4) for name, value in row.items()} | {"ms_a_picture": round(took, 1)}


def at_metric_size(images: ImageSet, maps: np.ndarray, view: View, size: int = 256) -> tuple[list, list]:
    "Regions of the masks and maps, N each, with the longer side at most `size`; the maps (N, H, W) lie as `view` says."
    regions, laid = [], []
    for i, found in enumerate(maps):
        mask = images.mask(i)
        regions.append(regions_at(mask, metric_shape(mask.shape, size))[0])
        laid.append(view.back(found, mask.shape, regions[-1].shape))
    return regions, laid


def reached(cls: type[Detector], data: str, seed: int, parameters: dict, judged: Callable) -> dict[str, float]:
    "Train, judge the test pictures; AUROC by each way from map to score that `judged` knows. The default's is marked."
    dataset = load_data(data, seed)
    start = time.perf_counter()
    detector = cls(seed=seed, **parameters).fit(dataset.train)
    minutes = (time.perf_counter() - start) / 60
    found = judged(detector, dataset)
    marked = "  ".join(f"{how}{'*' if how == detector.image_score else ''} {v:.4f}" for how, v in found.items())
    print(f"{data} seed {seed}: fit {minutes:.1f} min, {len(detector.history_)} epochs, validation "
          f"{detector.history_[-1]['validation']:.5g};  {marked}", flush=True)  # fmt: skip
    return found | {"default": found[detector.image_score]}


def command(doc: str, cls: type[Detector], costs: Callable[[], bool], judged: Callable, ablate: Callable) -> int:
    "The command line of a detector's benchmark: what it costs, what its training reaches, or its ablation."
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--data", default="elpv:mono")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    if args.ablation:
        ablate(args.seeds or [0])
        return 0
    if args.train:
        parameters = {"epochs": args.epochs} if args.epochs else {}
        rows = [reached(cls, args.data, seed, parameters, judged) for seed in args.seeds or [0, 1, 2]]
        print("mean:", {how: round(statistics.mean(row[how] for row in rows), 4) for how in rows[0]})
        return 0
    met = costs()
    print("targets met" if met else "TARGETS MISSED")
    return 0 if met else 1


def ablation(name: str, cls: type[Detector], settings: list[tuple[str, str, dict]], common: dict, seeds: list[int],
             data: str = "elpv:poly", more: Callable | None = None) -> None:  # fmt: skip
    """Train each setting (what, its value, parameters) with `common` parameters; one row each in nbs/results/ablation-NAME.csv.

    A row that is there already is kept: delete the file to begin anew. Times are the processor's: a busy machine does not
    lengthen them. `more(detector, test pictures)` gives further columns.
    """
    file = RESULTS / f"ablation-{name}.csv"
    rows = list(csv.DictReader(file.open())) if file.exists() else []
    done = {(row["data"], int(row["seed"]), row["what"], row["setting"]) for row in rows}
    for seed in seeds:
        todo = [setting for setting in settings if (data, seed, *setting[:2]) not in done]
        if not todo:
            continue
        dataset = load_data(data, seed)
        synthetic = synthetic_test(dataset.test[np.flatnonzero(dataset.test.labels == 0)[:48]])
        for what, setting, parameters in todo:
            start = time.process_time()
            detector = cls(seed=seed, **common | parameters).fit(dataset.train)
            seconds = round(time.process_time() - start, 1)
            same = {"data": data, "seed": seed, "epochs": detector.epochs, "what": what, "setting": setting}
            same["train_seconds"] = seconds
            rows.append(same | measured(detector, dataset.test, synthetic) | (more(detector, dataset.test) if more else {}))
            write_rows(file, rows)
            print(rows[-1], flush=True)
    print(f"{len(rows)} rows in {file.name}")
