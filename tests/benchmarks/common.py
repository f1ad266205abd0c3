"""What the benchmarks of the detectors share: timing in turns, and ablations that are written down."""

import csv
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from g100.data import ImageSet, load_data
from g100.detector import Detector
from g100.maps import IMAGE_SCORES, image_score
from g100.metrics import aupro, auroc
from g100.synthetic import synthetic_test

RESULTS = Path(__file__).resolve().parents[2] / "nbs" / "results"


def milliseconds(*works, repeats: int = 7) -> list[float]:
    "The median of each, run in turns so that a busy machine disturbs all."
    took = [[] for _ in works]
    for i in range(repeats + 1):
        for times, work in zip(took, works, strict=True):
            start = time.perf_counter()
            work()
            times.append(1e3 * (time.perf_counter() - start)) if i else None
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


def written(file: Path, rows: list[dict]) -> None:
    "The rows as a CSV, which is at any moment the old one or the new one."
    draft = file.with_suffix(".partial")
    with draft.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draft.replace(file)


def ablation(name: str, cls: type[Detector], settings: list[tuple[str, str, dict]], epochs: int, seeds: list[int],
             data: str = "elpv:poly", judging: tuple[str, ...] = ()) -> None:  # fmt: skip
    """Train each setting (what, its value, parameters) for `epochs`; one row each in nbs/results/ablation-NAME.csv.

    A row that is there already is kept: delete the file to begin anew. Settings of nothing but `judging` parameters train
    nothing more: the default's detector judges by them. Times are the processor's: a busy machine does not lengthen them.
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
        trained = {}
        for what, setting, parameters in todo:
            taught = {"epochs": epochs} | {key: value for key, value in parameters.items() if key not in judging}
            key = repr(sorted(taught.items()))
            if key not in trained:
                start = time.process_time()
                trained = {key: (cls(seed=seed, **taught).fit(dataset.train), time.process_time() - start)}
            detector, seconds = trained[key]
            detector.set_params(**{**cls().get_params(), "seed": seed, **taught, **parameters})
            same = {"data": data, "seed": seed, "epochs": detector.epochs, "what": what, "setting": setting}
            same["train_seconds"] = round(seconds, 1)
            rows.append(same | measured(detector, dataset.test, synthetic))
            written(file, rows)
            print(rows[-1], flush=True)
    print(f"{len(rows)} rows in {file.name}")
