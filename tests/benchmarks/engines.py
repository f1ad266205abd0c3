"""What an engine brings: ratios of things timed in turns in one process, one thread.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.engines [--six | --parts | --search | --quality | --own] [--only NAME ...]

Without an option: PatchCore (Lite0, 224 pixels, a bank of 3,276) in each engine against that engine's bare backbone and
against torch, one picture against sixteen, and the fit. `--six`: each detector against its own network in the same engine,
and exported. `--parts`: where the milliseconds of a picture go, for each detector. `--search`: an exported PatchCore that finds
the nearest member by one argmin, and in groups as it does, beside its bare backbone, in fp32. `--quality`: image AUROC and
realised false-positive rate in each precision, fitted in it. `--own`: what torch.compile and autocast do for torch. Times are
those of the processor, which another program's work lengthens less than those of the clock.
"""

import argparse
import copy
import functools
import statistics
import time
import warnings
from unittest import mock

import numpy as np
import torch

from g100 import PatchCore
from g100.algorithms import patchcore
from g100.algorithms.neighbors import Neighbors
from g100.foundations.detector import algorithm
from g100.foundations.engines import compiled
from g100.foundations.features import Backbone
from g100.foundations.layouts import load_data
from g100.foundations.maps import full_size, image_score
from g100.foundations.metrics import auroc
from g100.foundations.overlay import segment
from g100.foundations.pictures import ImageSet
from g100.foundations.runtime import exported_from
from g100.foundations.views import View
from tests.benchmarks.common import milliseconds as by_clock

WAYS = [("torch", "fp32"), ("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8")]
SIX = ("patchcore", "semi-ort", "riad", "favae", "kdad", "fcdd")


milliseconds = functools.partial(by_clock, clock=time.process_time)


def cpu() -> str:
    "The processor, and which of its units matter here."
    with open("/proc/cpuinfo") as file:
        told = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
    told = {name.strip(): value.strip() for name, value in told.items()}
    units = [unit for unit in ("avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8") if unit in told.get("flags", "").split()]
    return f"{told.get('model name')} ({', '.join(units) or 'none of VNNI, bf16, AMX'}), {torch.get_num_threads()} thread(s)"


def in_memory(data: str, most: int = 10**6) -> tuple[ImageSet, ImageSet]:
    "Good pictures that teach and test pictures, at most so many of each, decoded."
    parts = load_data(data)
    few = (one[:most] for one in (parts.train, parts.test))
    return tuple(ImageSet([one[i] for i in range(len(one))], one.names, one.labels, one.defects, [None] * len(one))
                 for one in few)  # fmt: skip


def with_bank(train, bank: int, **parameters) -> PatchCore:
    "PatchCore at 224 pixels with a bank of exactly so many patches, from 200 pictures, of which 160 teach."
    ratio = (bank + 50) / (160 * 784)
    detector = PatchCore(image_size=224, coreset_ratio=ratio, calibration=0.2, **parameters).fit(train[:200], device="cpu")
    model = detector.fitted_.model
    model.bank = model.bank[:bank].contiguous()
    model.bank_neighbors = Neighbors(model.bank).kneighbors(model.bank, 9)[1]
    return detector


def in_engine(detector: PatchCore, engine: str, precision: str, x: torch.Tensor) -> PatchCore:
    "The same detector, its backbone computed elsewhere: what that costs, not what it says."
    there = copy.deepcopy(detector)
    net = there.fitted_.model.backbone
    if engine != "torch":
        net.engine = compiled(net, (224, 224), ("level2", "level3"), engine, precision, [x.numpy()])
    return there


def judging(args: argparse.Namespace) -> bool:
    "PatchCore in each engine against its bare backbone and against torch; one picture against a batch."
    train, test = in_memory(args.data, 200)
    few, x = test[: args.batch], torch.stack([View(224).image(test[i]) for i in range(args.batch)])
    bare, whole, single, detector = {}, {}, {}, with_bank(train, args.bank)
    for engine, precision in WAYS:
        name, there = f"{engine} {precision}", in_engine(detector, engine, precision, x)
        bare[name] = functools.partial(there.fitted_.model.backbone, x)
        whole[name] = functools.partial(there.inspect, few)
        single[name] = functools.partial(there.inspect, test[0])
    with torch.inference_mode():
        took = dict(zip(bare, milliseconds(*bare.values(), repeats=args.turns), strict=True))
    all_of, one = (dict(zip(bare, milliseconds(*works.values(), repeats=args.turns), strict=True)) for works in (whole, single))
    print(f"{'':14s} backbone  PatchCore   ratio   torch's / this   one picture / sixteen's a picture")
    met = True
    for name in bare:
        a, b, faster = took[name] / args.batch, all_of[name] / args.batch, all_of["torch fp32"] / all_of[name]
        print(f"{name:14s} {a:7.2f}  {b:8.2f} ms   {b / a:5.2f}   {faster:8.2f}         {one[name] / b:5.2f}", flush=True)
        met &= name == "torch fp32" or name.endswith(("bf16", "int8")) or b / a <= 1.5
    return met


def fitting(args: argparse.Namespace) -> None:
    "The fit in each engine, as users run it: all good pictures, the default parameters at 224 pixels."
    train, _ = in_memory(args.data)
    train = train[: args.train]
    works = [functools.partial(PatchCore(image_size=224, engine=e, precision=p).fit, train, device="cpu") for e, p in WAYS[:3]]
    took = milliseconds(*works, repeats=max(1, args.turns // 3))
    for (engine, precision), value in zip(WAYS, took, strict=False):
        print(f"fit of {len(train)} pictures, {engine} {precision}: {value / 1000:.2f} s, torch's / this {took[0] / value:.2f}")


def clocked(parts: dict, name: str, work, *args):
    "Do the work, and add its milliseconds to a part."
    start = time.process_time()
    found = work(*args)
    parts.setdefault(name, []).append(1e3 * (time.process_time() - start))
    return found


def small(name: str, engine: str, train: ImageSet):
    "A detector by its default parameters, trained for one epoch where it is trained at all: its cost is that of any other."
    few = {"epochs": 1} if name in SIX[2:] else {}
    return algorithm(name)(engine=engine, **few).fit(train, device="cpu")


def six(args: argparse.Namespace) -> bool:
    "Each detector, and its exported model, against its own network in the same engine."
    (train, test), met = in_memory(args.data, 64), True
    few = test[: args.batch]
    for name in args.only or SIX:
        for engine in ("openvino", "onnx"):
            detector = small(name, engine, train)
            fitted, model = detector.fitted_, exported_from(detector, engine, "fp32", None)
            x = np.stack([fitted.scoring.view.pixels(test[i]) for i in range(args.batch)])
            works = {"network": functools.partial(fitted.engine, x), "inspect": functools.partial(detector.inspect, few),
                     "graph": functools.partial(model.engine, x), "runtime": functools.partial(model.inspect, few),
                     "one": functools.partial(detector.inspect, test[0])}  # fmt: skip
            took = dict(zip(works, milliseconds(*works.values(), repeats=args.turns), strict=True))
            whole, runtime = took["inspect"] / took["network"], took["runtime"] / took["network"]
            print(f"{name:10s} {engine:9s} network {took['network'] / args.batch:7.2f} ms   detector {whole:5.2f}   exported "
                  f"{runtime:5.2f} (its graph {took['graph'] / took['network']:5.2f})   one picture / sixteen's a picture "
                  f"{args.batch * took['one'] / took['inspect']:5.2f}", flush=True)  # fmt: skip
            met &= whole <= 1.5
    return met


def where(args: argparse.Namespace) -> None:
    "Milliseconds a picture of each detector by part: view, model, reading of the map, mask; torch and OpenVINO."
    train, test = in_memory(args.data, 64)
    for name in args.only or SIX:
        for engine in ("torch", "openvino"):
            detector = small(name, engine, train)
            judge, scoring, parts = detector.fitted_.judge, detector.fitted_.scoring, {}
            with torch.inference_mode():
                for _ in range(args.turns + 1):
                    x = torch.stack([clocked(parts, "view", scoring.view.image, test[i]) for i in range(args.batch)])
                    raw, own = clocked(parts, "model", judge.raw, x)
                    maps = clocked(parts, "map", full_size, raw, scoring.view.shape, scoring.sigma)
                    clocked(parts, "score", image_score, maps, "top_percent")
                    clocked(parts, "mask", segment, maps.numpy(), detector.calibration_.pixel_threshold, scoring.opening)
                    if hasattr(judge.model, "backbone"):
                        clocked(parts, "of it the backbone", judge.model.backbone, x)
            told = {part: statistics.median(value) * (1 if part == "view" else 1 / args.batch) for part, value in parts.items()}
            print(f"{name:10s} {engine:9s}", "  ".join(f"{part} {value:.2f}" for part, value in told.items()), flush=True)


def by_argmin(z: torch.Tensor, bank: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    "What `picked` says, by one argmin over all members."
    c = bank.mean(0)
    m = bank - c
    index = torch.addmm(m.square().sum(1) / 2, z - c, m.T, alpha=-1).argmin(1)
    return torch.linalg.vector_norm(z - bank[index], dim=1), index


def searching(args: argparse.Namespace) -> None:
    "The graph of an exported PatchCore, with the search in groups and by one argmin, against its bare backbone."
    train, test = in_memory(args.data, 200)
    detector, works = with_bank(train, args.bank), {}
    x = np.stack([View(224).pixels(test[i]) for i in range(args.batch)])
    for engine in ("onnx", "openvino"):
        bare = compiled(detector.fitted_.model.backbone, (224, 224), ("level2", "level3"), engine, "fp32")
        works[engine, "backbone"] = functools.partial(bare, x)
        for name, how in (("argmin", by_argmin), ("groups", patchcore.picked)):
            with mock.patch.object(patchcore, "picked", how):
                works[engine, name] = functools.partial(exported_from(detector, engine, "fp32", None).engine, x)
    took = dict(zip(works, milliseconds(*works.values(), repeats=args.turns), strict=True))
    for engine in ("onnx", "openvino"):
        bare, whole, groups = (took[engine, name] / args.batch for name in ("backbone", "argmin", "groups"))
        print(f"{engine:9s} backbone {bare:6.2f} ms   with an argmin {whole:6.2f} ms ({whole / bare:.2f})   in groups "
              f"{groups:6.2f} ms ({groups / bare:.2f})   {whole / groups:.2f} times as fast", flush=True)  # fmt: skip


def own_ways(args: argparse.Namespace) -> None:
    "What torch itself can do for Lite0: `torch.compile`, which wants a C++ compiler, and autocast to bf16."
    net = Backbone("lite0", (2, 3))
    for n in (args.batch, 1):
        x = torch.rand(n, 3, 224, 224)
        with torch.inference_mode():
            begun, fast = time.perf_counter(), torch.compile(net, dynamic=False)
            fast(x)
            begun = time.perf_counter() - begun

            def rounded(x=x):
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    return net(x)

            works = functools.partial(net, x), functools.partial(fast, x), rounded
            plain, compiled_, cast = milliseconds(*works, repeats=args.turns)
        print(f"{n} pictures: torch {plain / n:.2f} ms a picture; compiled {plain / compiled_:.2f} times as fast, after "
              f"{begun:.0f} s; under autocast {plain / cast:.2f} times as fast", flush=True)  # fmt: skip


def quality(args: argparse.Namespace) -> None:
    "Image AUROC, realised false-positive rate and milliseconds a picture, fitted and judged in each precision."
    train, test = in_memory(args.data)
    for engine, precision in WAYS:
        detector = PatchCore(image_size=224, engine=engine, precision=precision).fit(train[: args.train], device="cpu")
        start = time.process_time()
        found = detector.inspect(test)
        took = 1e3 * (time.process_time() - start) / len(test)
        good = test.labels == 0
        print(f"{engine} {precision}: AUROC {auroc(test.labels, found.score):.4f}, false positives "
              f"{found.is_anomalous[good].mean():.3f} of {good.sum()}, {took:.1f} ms of the processor", flush=True)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("turns", 7), ("batch", 16), ("bank", 3276)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--data", default="elpv:mono")
    parser.add_argument("--train", type=int, default=10**6, help="good pictures at most, for the fit (0: none) and --quality")
    parser.add_argument("--only", nargs="+", choices=SIX, help="of the six, these")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--six", action="store_true")
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--quality", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(cpu(), flush=True)
    for told, work in ((args.parts, where), (args.search, searching), (args.quality, quality), (args.own, own_ways)):
        if told:
            work(args)
            return 0
    met = six(args) if args.six else judging(args)
    if args.train and not args.six:
        fitting(args)
    print("targets met" if met else "TARGETS MISSED")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
