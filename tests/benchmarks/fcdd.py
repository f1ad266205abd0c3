"""FCDD: what judging costs beside the bare network, what the default training reaches, and what its parts are worth.

    python -m tests.benchmarks.fcdd                          the costs; exit code 1 when a target is missed
    python -m tests.benchmarks.fcdd --places                 where labelled pictures stand in a batch, on elpv:poly
    python -m tests.benchmarks.fcdd --ablation               kinds, parts, numbers of labelled pictures, on elpv:poly
    python -m tests.benchmarks.fcdd --train --labelled 5     the default, and with and without 5 labelled, on elpv:mono
    python -m tests.benchmarks.fcdd --train --data mvtec:DIR --seeds 0
    python -m tests.benchmarks.fcdd --start --data mvtec:DIR [--size 320 128]     before training

What is measured on elpv goes to nbs/results/ablation-fcdd.csv; a row that is there already is kept: delete the file to
begin anew. Its detectors are FORMER: the defaults of the time when they were trained. What --start finds goes to
nbs/results/fcdd-starts.csv, in the place of older rows of the same data and seed.
Targets: judging at most 1.1 x the bare network; spoiling pictures at most 15 % of a training step.
Labelled pictures are drawn, with the seed, from the abnormal ones of the test set and their masks, if any, go with them;
HELD_BACK are drawn at once, the first N of them are given, and none of them is judged. So all numbers of a seed are over
the same pictures.
"""

import argparse
import csv
import statistics
import sys
import time
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from g100.algorithms.fcdd import FCDD, drawn, fcdd_loss, pseudo_huber, some, spoilt
from g100.algorithms.receptive import spread
from g100.algorithms.synthetic import KINDS, synthetic
from g100.experiments.table import write_rows
from g100.foundations.layouts import load_data
from g100.foundations.lessons import Judge, judged
from g100.foundations.maps import IMAGE_SCORES
from g100.foundations.metrics import auroc
from g100.foundations.pictures import ImageSet
from g100.foundations.regions import aupro
from g100.foundations.views import batches
from tests.benchmarks.common import RESULTS, milliseconds, ways

ABLATION, STARTS = RESULTS / "ablation-fcdd.csv", RESULTS / "fcdd-starts.csv"
FORMER = {"image_size": 160, "epochs": 15, "learning_rate": 5e-5, "levels": (2, 3, 4), "studentise": False}
HELD_BACK, GIVEN = 10, 5
COLUMNS = (*IMAGE_SCORES, "coarse_mean", "default")
ONE = {"channels": 1, "start": "random"}


class Placed(FCDD):
    "FCDD whose labelled pictures stand elsewhere in a batch, or weigh more or less in the loss than the others."

    place, weight = "synthetic", 1.0  # in place of synthetic anomalies, of "good" pictures, or "beside" both

    def placed(self, x, random, labelled=None):
        "As `shown`, and the slice of the batch in which labelled pictures stand."
        shown, truth, n = spoilt(x, self.abnormal, self.kind, self.supervision, random)
        m = some(self.labelled_share, n, random) if labelled else 0
        first = {"synthetic": 0, "good": n, "beside": len(x)}[self.place]
        if m:
            given, masks = (t.to(x.device) for t in drawn(labelled, m, self.flip, random))
            shown, truth = (torch.cat([a[:first], b, a[first + m :]]) for a, b in ((shown, given), (truth, masks)))
        return shown, truth, slice(first, first + m)

    def shown(self, x, random, labelled=None):
        return self.placed(x, random, labelled)[:2]

    def loss(self, network, x, random, labelled=None):
        x, truth, where = self.placed(x, random, labelled)
        weights = torch.ones(len(x), device=x.device)
        weights[where] = self.weight
        return (weights * fcdd_loss(network(x), truth)).mean()


class Setting(NamedTuple):
    "What is trained for one row."

    what: str
    setting: str
    parameters: dict = {}
    labelled: int | None = None  # how many are given; None: none are held back, and all test pictures are judged
    place: str = "synthetic"
    weight: float = 1.0


SETTINGS = [
    *(Setting("kind", kind, {"kind": kind}) for kind in (*KINDS, "mixed")),
    Setting("supervision", "label", {"supervision": "label"}),
    Setting("levels", "2, 3", {"levels": (2, 3)}),
    Setting("head", "whitened, not trained", {"epochs": 1, "learning_rate": 1e-12}),
    Setting("head", "one channel", ONE | {"learning_rate": 1e-2}),
    Setting("head", "one channel, network trained from stride 4", ONE | {"frozen": 1, "learning_rate": 1e-3}),
    *(Setting("labelled", str(n), {}, n) for n in (0, 1, GIVEN, 10)),
]
REPORTED = [Setting("all test pictures", "default"), Setting("labelled", "0", {}, 0)]
PLACES = [
    REPORTED[1],
    Setting("labelled", str(GIVEN), {}, GIVEN),
    Setting("where 5 labelled stand", "in place of good ones", {}, GIVEN, "good"),
    Setting("where 5 labelled stand", "beside the others", {}, GIVEN, "beside"),
    *(Setting("what 5 labelled weigh", f"{weight:g}", {}, GIVEN, "synthetic", weight) for weight in (0.5, 2.0)),
]


def judging() -> bool:
    "A judge against the bare network, and the parts of a training step; the head is random: the arithmetic is the same."
    detector, random = FCDD(), torch.Generator().manual_seed(0)
    size = detector.scoring().view.shape
    network = detector.build(size).eval()
    judge, x = Judge(network, detector.scoring()), torch.rand(16, 3, *size)
    with torch.inference_mode():
        coarse = pseudo_huber(network.z(x))

    @torch.inference_mode()
    def quietly(work):
        return work()

    n = tuple(field.size for field in network.field)
    works = (lambda: network.teacher.backbone(x), lambda: network.z(x), lambda: judge(x))
    works += (lambda: spread(coarse, size, n, detector.field_std, detector.gain),)
    bare, headed, whole, spreading = milliseconds(*(partial(quietly, work) for work in works))
    spoiling, stepping = milliseconds(lambda: synthetic(x[:8], detector.kind, random),
                                      lambda: detector.loss(network, x, random).backward())  # fmt: skip
    print(f"16 pictures of {size[0]} px: bare network {bare:.0f} ms; judging {whole:.0f} ms, ratio {whole / bare:.2f}   "
          f"(at most 1.1); with the head alone {headed / bare:.2f}; up-sampling {spreading:.1f} ms")  # fmt: skip
    print(f"a training step of 16: {stepping:.0f} ms, of it spoiling 8 pictures ({detector.kind}) {spoiling:.1f} ms, "
          f"{spoiling / stepping:.1%}   (at most 15 %)")  # fmt: skip
    return whole <= 1.1 * bare and spoiling <= 0.15 * stepping


def by_way(detector: FCDD, images: ImageSet) -> dict[str, float]:
    "AUROC by each way from map to score, and by the mean of the coarse map."
    maps = detector.anomaly_map(images)
    with torch.inference_mode():
        coarse = [detector.model_.scored(x.to(detector.device_))[1] for x in batches(images, detector.view_, 16)]
    found = ways(images.labels, maps) | {"coarse_mean": auroc(images.labels, torch.cat(coarse).cpu().numpy())}
    if images.has_masks:
        masks = [detector.view_.mask(images.mask(i)) for i in range(len(images))]
        found["pixel AUROC"] = auroc(np.stack(masks).ravel(), maps.ravel())
        found["AUPRO"] = aupro(masks, list(maps))
    return found | {"default": found[detector.image_score]}


def apart(test: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
    "HELD_BACK abnormal pictures, in the order in which they are drawn, and all others."
    drawn = np.random.default_rng([seed, 100]).permutation(np.flatnonzero(test.labels == 1))[:HELD_BACK]
    return test[drawn], test[np.setdiff1d(np.arange(len(test)), drawn)]


def together(good: ImageSet, abnormal: ImageSet) -> ImageSet:
    columns = ("images", "names", "labels", "defects", "masks")
    return ImageSet(*([*getattr(good, c), *getattr(abnormal, c)] for c in columns))


def reached(data: str, seed: int, setting: Setting, trained: dict) -> dict[str, float]:
    "Train, unless `trained` has it, and judge; AUROC by each way. Labelled pictures, given or held back, are not judged."
    dataset = load_data(data, seed)
    given, test = (dataset.test[:0], dataset.test) if setting.labelled is None else apart(dataset.test, seed)
    given = given[: setting.labelled or 0]
    detector, start = Placed(seed=seed, **FORMER | setting.parameters), time.perf_counter()
    if (key := (data, seed, repr(detector), given.sha256, *setting[-2:])) not in trained:
        detector.place, detector.weight = setting.place, setting.weight
        trained[key] = detector.fit(together(dataset.train, given))
    detector, seconds = trained[key], time.perf_counter() - start
    found = by_way(detector, test)
    marked = "  ".join(f"{how}{'*' if how == detector.image_score else ''} {v:.4f}" for how, v in found.items())
    print(f"{data} seed {seed}, {setting.what} {setting.setting}: fit {seconds / 60:.1f} min, {len(detector.history_)} "
          f"epochs, validation {detector.history_[-1]['validation'] or float('nan'):.4f};  {marked}", flush=True)  # fmt: skip
    return found


def tabulated(data: str, seeds: list[int], settings: list[Setting]) -> list[dict]:
    "One row for each setting and seed, written after each; rows that are in the file are not computed again."
    rows, trained = list(csv.DictReader(ABLATION.open())) if ABLATION.exists() else [], {}
    for seed, setting in product(seeds, settings):
        same = {"data": data, "seed": str(seed), "what": setting.what, "setting": setting.setting}
        if not any(same.items() <= row.items() for row in rows):
            found = reached(data, seed, setting, trained)
            rows.append(same | {name: f"{found[name]:.4f}" for name in COLUMNS})
            write_rows(ABLATION, sorted(rows, key=order))
    return rows


def starts(data: str, seed: int, size: int | tuple[int, int]) -> list[dict]:
    "How the whitened head does before training, by levels, with maps as they are and measured by what is usual."
    dataset, rows = load_data(data, seed), []
    for levels in ((2, 3), (2, 3, 4)):
        told = {"image_size": size, "levels": levels, "epochs": 1, "learning_rate": 1e-12, "studentise": True}
        fitted = FCDD(seed=seed, **told).fit(dataset.train).fitted_
        for measured, judge in ((False, Judge(fitted.model, fitted.scoring).eval()), (True, fitted.judge)):
            maps = np.concatenate([maps for maps, _ in judged(judge, dataset.test, fitted.device, 16)])
            row = {"data": f"{dataset.name}:{dataset.category}", "seed": seed, "levels": "+".join(map(str, levels))}
            row |= {"measured": measured} | {how: f"{value:.4f}" for how, value in ways(dataset.test.labels, maps).items()}
            masks = [fitted.scoring.view.mask(dataset.test.mask(i)) for i in range(len(maps))] if dataset.test.has_masks else []
            rows.append(row | {"aupro": f"{aupro(masks, list(maps)):.4f}" if masks else ""})
            print(rows[-1], flush=True)
    return rows


def order(row: dict) -> tuple:
    "A row's place in the table: by data and seed, then as in PLACES and SETTINGS."
    names = list(dict.fromkeys(setting[:2] for setting in (*REPORTED, *SETTINGS, *PLACES)))
    return row["data"] != "elpv:poly", int(row["seed"]), names.index((row["what"], row["setting"]))


def means(rows: list[dict], data: str, seeds: list[int], settings: list[Setting]) -> None:
    "Mean and every seed; where labelled pictures were held back, the gain over none given."
    table = {(row["data"], int(row["seed"]), row["what"], row["setting"]): float(row["default"]) for row in rows}
    for setting in settings:
        values = [table[data, seed, setting.what, setting.setting] for seed in seeds]
        line = f"{setting.what + ' ' + setting.setting:50s} {statistics.mean(values):.4f}  {values}"
        if setting.labelled:
            gains = [v - table[data, seed, "labelled", "0"] for v, seed in zip(values, seeds, strict=True)]
            line += f"   gain {statistics.mean(gains):+.4f}  {[round(gain, 4) for gain in gains]}"
        print(line)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--places", action="store_true")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--start", action="store_true")
    parser.add_argument("--size", type=int, nargs="+", default=[FCDD().image_size])
    parser.add_argument("--data", default="elpv:mono")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--labelled", type=int, choices=range(1, HELD_BACK + 1), metavar=f"1..{HELD_BACK}")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    if args.places or args.ablation:
        settings = PLACES if args.places else SETTINGS
        means(tabulated("elpv:poly", args.seeds, settings), "elpv:poly", args.seeds, settings)
        return 0
    if args.train:
        settings = [REPORTED[0]]
        settings += [] if args.labelled is None else [REPORTED[1], Setting("labelled", str(args.labelled), {}, args.labelled)]
        if args.data.startswith("elpv:"):
            means(tabulated(args.data, args.seeds, settings), args.data, args.seeds, settings)
        else:
            for seed, setting in product(args.seeds, settings):
                reached(args.data, seed, setting, {})
        return 0
    if args.start:
        rows = list(csv.DictReader(STARTS.open())) if STARTS.exists() else []
        for seed in args.seeds:
            found = starts(args.data, seed, args.size[0] if len(args.size) == 1 else tuple(args.size))
            same = (found[0]["data"], str(seed))
            rows = [row for row in rows if (row["data"], row["seed"]) != same] + [{**row, "seed": str(seed)} for row in found]
            write_rows(STARTS, rows)
        return 0
    met = judging()
    print("targets met" if met else "TARGETS MISSED")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
