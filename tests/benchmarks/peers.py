"""g100's PatchCore beside anomalib's, on the same pictures with the same weights: time, memory, and what both find.

    python -m tests.benchmarks.peers --data mvtec:DIR --weights resnet18.safetensors --peer-python PEER/bin/python

anomalib is no dependency and lives in an environment of its own, whose interpreter is told:

    python3.11 -m venv PEER && PEER/bin/pip install "anomalib==2.7.0" safetensors

--weights holds a ResNet-18 under timm's names, up to layer3 at least; both sides load that file. Both see all training and all
test pictures (anomalib's Folder sets half of the latter aside unless it is told otherwise), as PNG files that were written for
both, at 256 x 256 without a crop; levels 2 and 3, a coreset of 1 %, Eq. 7 with 9 neighbours. anomalib loads pictures by two
workers. g100 fits with its default calibration, `cross`, which judges every good picture by others; anomalib's fit does nothing
of the kind. Judging is timed in two ways: bare, where neither normalises, draws nor measures (`inspect` and `Engine.predict`);
and a whole test (`inspect`, image AUROC and all of g100's pixel metrics; and `Engine.test` with anomalib's post-processor and
its own metrics, image and pixel AUROC and F1, of which F1 means nothing here: without a validation no threshold is set). Each
side runs in a process of its own (memory: VmHWM), leaves its scores and maps as .npy, and both are measured by g100's metrics;
what anomalib's own say is printed too.

The targets: a fit at least 35 times, judging in either way at least 5 times as fast, at image AUROC, pixel AUROC and AUPRO that
are equal or better to three digits. Exit code 1 when one is missed.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

SIZE, RATIO, NEIGHBOURS, FASTER = 256, 0.01, 9, {"fit": 35, "judge": 5, "test": 5}


def lay_out(data: str, limit: int | None, folder: Path) -> None:
    "The pictures as PNG files, laid out as MVTec does: train/good, test/good, test/bad, ground_truth/bad."
    from PIL import Image

    from g100.foundations.layouts import load_data

    both = load_data(data)
    for part, images in (("train", both.train[:limit]), ("test", both.test)):
        for i, label in enumerate(images.labels):
            file = folder / part / ("bad" if label else "good") / f"{i:04d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[i]).save(file, compress_level=1)
            if label:
                mask = folder / "ground_truth" / "bad" / f"{i:04d}_mask.png"
                mask.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(255 * images.mask(i).astype(np.uint8)).save(mask)


def timed(seconds: dict, name: str, work):
    "The work, its seconds added to `seconds[name]`."

    def done(*args, **options):
        start = time.perf_counter()
        found = work(*args, **options)
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
        return found

    return done


def metrics(test, scores: np.ndarray, maps: np.ndarray) -> dict[str, float]:
    "Image AUROC, pixel AUROC and AUPRO by g100, pixels at 256; the other metrics of pixels are computed as well."
    from g100.foundations.metrics import auroc
    from g100.foundations.regions import pixel_scores
    from g100.foundations.views import View
    from tests.benchmarks.common import at_metric_size

    pixels = pixel_scores(*at_metric_size(test, maps, View(SIZE)), 0.0, test.labels == 0)
    return {"image_auroc": auroc(test.labels, scores)} | {key: pixels[key] for key in ("pixel_auroc", "aupro")}


def tested(detector, test) -> dict[str, float]:
    "Judge the pictures and measure."
    verdicts = detector.inspect(test)
    return metrics(test, verdicts.score, verdicts.map)


def by_g100(folder: Path, weights: str, seconds: dict) -> tuple[np.ndarray, np.ndarray, dict]:
    "Scores (N,) and maps (N, H, W) of the test pictures, the good ones first."
    from g100.algorithms import bank, patchcore
    from g100.foundations.layouts import load_data

    data = load_data(f"mvtec:{folder}")
    test = data.test[np.argsort(data.test.labels, kind="stable")]
    bank.thinned = timed(seconds, "coreset", bank.thinned)
    detector = patchcore.PatchCore(backbone="resnet18", weights=weights, image_size=SIZE, levels=(2, 3), coreset_ratio=RATIO,
                                   image_score="reweighted", n_neighbors=NEIGHBOURS)  # fmt: skip
    timed(seconds, "fit", detector.fit)(data.train, device="cpu")
    verdicts = timed(seconds, "judge", detector.inspect)(test)
    timed(seconds, "test", tested)(detector, test)
    return verdicts.score, verdicts.map, {}


def peer_model(weights: str, bare: bool = True):
    "anomalib's PatchCore with the weights of the file; bare: without what normalises and measures."
    from anomalib.models import Patchcore
    from safetensors.torch import load_file

    how = {"pre_processor": Patchcore.configure_pre_processor((SIZE, SIZE)), "visualizer": False}
    how |= {"post_processor": not bare, "evaluator": not bare}
    model = Patchcore("resnet18", ("layer2", "layer3"), pre_trained=False, coreset_sampling_ratio=RATIO,
                      num_neighbors=NEIGHBOURS, **how)  # fmt: skip
    network = model.model.feature_extractor.feature_extractor
    missing = network.load_state_dict(load_file(weights), strict=False).missing_keys
    if missing:
        sys.exit(f"{weights} lacks {missing}")
    return model


def by_anomalib(folder: Path, weights: str, seconds: dict) -> tuple[np.ndarray, np.ndarray, dict]:
    "The same by anomalib; and what its own metrics say."
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from anomalib.metrics import AUPRO, AUROC

    options = {"accelerator": "cpu", "logger": False, "limit_val_batches": 0}
    model, engine = peer_model(weights), Engine(default_root_dir=folder / "results", **options)
    data = Folder("pictures", "train/good", folder, "test/bad", "test/good", "ground_truth/bad", num_workers=2,
                  val_split_mode="same_as_test", test_split_mode="from_dir")  # fmt: skip
    model.fit = timed(seconds, "coreset", model.fit)
    timed(seconds, "fit", engine.fit)(model=model, datamodule=data)
    found = timed(seconds, "judge", engine.predict)(model=model, datamodule=data)
    whole = peer_model(weights, bare=False)
    whole.model.memory_bank = model.model.memory_bank
    timed(seconds, "test", Engine(default_root_dir=folder / "results", **options).test)(model=whole, datamodule=data)
    own = {"image_auroc": AUROC(["pred_score", "gt_label"]), "pixel_auroc": AUROC(["anomaly_map", "gt_mask"]),
           "aupro": AUPRO(["anomaly_map", "gt_mask"])}  # fmt: skip
    for batch in found:
        for metric in own.values():
            metric.update(batch)
    rows = [(path, s, m) for b in found for path, s, m in zip(b.image_path, b.pred_score, b.anomaly_map, strict=True)]
    rows.sort(key=lambda row: (Path(row[0]).parent.name != "good", row[0]))
    scores, maps = (torch.stack([row[i] for row in rows]).float() for i in (1, 2))
    return scores.flatten().numpy(), maps.view(len(maps), SIZE, SIZE).numpy(), {k: float(m.compute()) for k, m in own.items()}


def side(name: str, folder: Path, weights: str) -> None:
    "Fit and judge by one of both; leave scores and maps in the folder, and the numbers."
    seconds: dict[str, float] = {}
    scores, maps, own = {"g100": by_g100, "anomalib": by_anomalib}[name](folder, weights, seconds)
    peak = int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
    np.save(folder / f"{name}-scores.npy", scores)
    np.save(folder / f"{name}-maps.npy", maps)
    told = {"seconds": seconds, "peak": peak, "own": own, "threads": torch.get_num_threads()}
    (folder / f"{name}.json").write_text(json.dumps(told))


def measured(folder: Path, name: str) -> dict[str, float]:
    "Image AUROC, pixel AUROC and AUPRO of one side, by g100's metrics, pixels at 256."
    from g100.foundations.layouts import load_data

    test = load_data(f"mvtec:{folder}").test
    test = test[np.argsort(test.labels, kind="stable")]
    return metrics(test, np.load(folder / f"{name}-scores.npy"), np.load(folder / f"{name}-maps.npy"))


def shown(name: str, told: dict, found: dict, pictures: int) -> None:
    "A line of times and one of metrics."
    took = told["seconds"]
    judge, test = (1e3 * took[way] / pictures for way in ("judge", "test"))
    print(f"{name:9s} fit {took['fit']:7.1f} s (coreset {took['coreset']:.1f} s), a picture {judge:6.1f} ms, in a test "
          f"{test:6.1f} ms, peak {told['peak']:.0f} MB, {told['threads']} threads")  # fmt: skip
    print(f"{'':9s} " + ", ".join(f"{key} {value:.4f}" for key, value in found.items()))
    if told["own"]:
        print(f"{'':9s} by its own metrics: " + ", ".join(f"{key} {value:.4f}" for key, value in told["own"].items()))


def compare(folder: Path, peer: str, weights: str) -> bool:
    "Both sides, one after the other; whether the targets are met."
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    lines = {}
    for name, python in (("g100", sys.executable), ("anomalib", peer)):
        command = [python, "-P", __file__, "--side", name, "--folder", str(folder), "--weights", weights]
        done = subprocess.run(command, env=env if name == "g100" else None, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{name} failed: {done.stderr[-2000:]}")
        lines[name] = json.loads((folder / f"{name}.json").read_text()), measured(folder, name)
        shown(name, *lines[name], len(np.load(folder / f"{name}-scores.npy")))
    (ours, we), (theirs, they) = lines.values()
    met = [all(we[key] >= they[key] - 5e-4 for key in we)]
    for what, least in FASTER.items():
        ratio = theirs["seconds"][what] / ours["seconds"][what]
        print(f"{what}: {ratio:.1f} times as fast   (at least {least})")
        met.append(ratio >= least)
    print("equal or better" if met[0] else "WORSE in " + ", ".join(key for key in we if we[key] < they[key] - 5e-4))
    return all(met)


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", metavar="SPEC")
    words.add_argument("--weights", required=True)
    words.add_argument("--peer-python", metavar="FILE")
    words.add_argument("--limit-train", type=int, metavar="N")
    words.add_argument("--side", choices=["g100", "anomalib"], help=argparse.SUPPRESS)
    words.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    told = words.parse_args()
    if told.side:
        side(told.side, told.folder, told.weights)
        return 0
    if not (told.data and told.peer_python):
        words.error("--data and --peer-python are needed")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "pictures"
        lay_out(told.data, told.limit_train, folder)
        met = compare(folder, told.peer_python, os.path.abspath(told.weights))
    print("targets met" if met else "TARGETS MISSED")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
