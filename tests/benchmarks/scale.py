"""Two workers against one, and the memory of a long inspection; the pictures are those of tests.benchmarks.streaming.

    python -m tests.benchmarks.scale --workers --pictures 1000 --folder DIR    fits by one and by two workers of a Dask cluster
    python -m tests.benchmarks.scale --inspect --pictures 20000 --folder DIR   memory of one `g100 inspect` as it goes

Two workers are to be at least 1.7 times as fast by the clock, which needs two idle cores: each worker has one, for all of
its threads, as if it were a machine of its own, and the client computes with one thread. Fits are repeated in turns, and
the medians count; both fits of an algorithm must call the same pictures abnormal. An inspection is to have as many rows as
there are pictures, and not to take more memory in its last quarter than in its second by a twentieth. Exit code 1 when a
target is missed.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from tests.benchmarks.streaming import SETTINGS, cells


def by_workers(algorithm: str, files: list[str], turns: int) -> bool:
    "Seconds of the clock by one and by two workers, medians; whether two are fast enough and say the same."
    from distributed import LocalCluster

    from g100.experiments.cluster import connected, spread_over
    from g100.experiments.experiment import make_detector

    parameters = SETTINGS if algorithm == "patchcore" else {"image_size": SETTINGS["image_size"]}
    took, said = {1: [], 2: []}, {}
    for n in [*took] * turns:
        ready = {"n_workers": n, "threads_per_worker": 1, "dashboard_address": None}
        with LocalCluster(**ready) as cluster, spread_over(cluster.scheduler_address) as spread:
            with connected(cluster.scheduler_address) as client:
                for core, worker in enumerate(client.nthreads()):
                    client.run(os.sched_setaffinity, 0, {core}, workers=[worker])  # of its threads that are yet to come
                client.run(__import__, "g100.algorithms.semiorth")  # a fit begins with libraries that are there
            start = time.perf_counter()
            detector = make_detector(algorithm, parameters).fit(files, device="cpu", spread=spread)
            took[n].append(time.perf_counter() - start)
        said[n] = detector.inspect(files[:200]).is_anomalous
    one, two = (statistics.median(seconds) for seconds in took.values())
    print(f"{algorithm}, {len(files)} pictures: one worker {one:.1f} s, two {two:.1f} s, {one / two:.2f} times as fast   "
          f"(at least 1.7); of 200 pictures {(said[1] != said[2]).sum()} verdicts differ", flush=True)  # fmt: skip
    return one >= 1.7 * two and np.array_equal(said[1], said[2])


def resident_mb(pid: int) -> float:
    "The resident memory of a process and of its children, in MB (Linux)."
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    told = [Path(f"/proc/{one}/status").read_text() for one in (pid, *children)]
    return sum(int(line.split()[1]) for text in told for line in text.splitlines() if line.startswith("VmRSS")) / 1024


def inspected(files: list[str]) -> bool:
    "Memory of `g100 inspect` of all of them, every second; whether it stays, and each picture has its row."
    from g100 import PatchCore

    with tempfile.TemporaryDirectory(dir=Path(files[0]).parents[1]) as place:
        os.mkdir(pictures := f"{place}/pictures")
        for file in files:
            os.link(file, f"{pictures}/{Path(file).name}")
        PatchCore(**SETTINGS).fit(files[:200], device="cpu").save(f"{place}/model")
        start, seen = time.perf_counter(), []
        words = ["inspect", f"{place}/model", pictures, "--out", f"{place}/out"]
        with subprocess.Popen([sys.executable, "-m", "g100", *words], stdout=subprocess.DEVNULL) as going:
            while going.poll() is None:
                with suppress(OSError):  # it, or a child, has ended meanwhile
                    seen.append(resident_mb(going.pid))
                time.sleep(1)
        seconds = time.perf_counter() - start
        if going.returncode or len(seen) < 30:
            sys.exit(
                f"g100 inspect ended with {going.returncode} after {seconds:.0f} s; half a minute is needed: more --pictures"
            )
        with open(f"{place}/out/verdicts.csv") as file:
            names = [row["name"] for row in csv.DictReader(file)]
    quarters = [max(part) for part in np.array_split(seen[5:-1], 4)]
    print(f"{len(names)} pictures in {seconds:.0f} s; largest resident memory by quarters of the time: "
          + ", ".join(f"{mb:.0f}" for mb in quarters) + " MB", flush=True)  # fmt: skip
    return len(set(names)) == len(names) == len(files) and quarters[3] <= 1.05 * quarters[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "g100-cells")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--workers", action="store_true")
    parser.add_argument("--inspect", action="store_true")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    files = [str(file) for file in cells(args.folder, args.pictures)]
    met = [by_workers(name, files, args.turns) for name in ("patchcore", "semi-ort")] if args.workers else []
    met += [inspected(files)] if args.inspect else []
    print("targets met" if all(met) else "TARGETS MISSED")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
