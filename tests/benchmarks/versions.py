"""This checkout against another one: what the six cost in fitting and judging, as ratios of processor time.

Each version has processes of its own; two stand side by side and judge by turns, so that both see the machine alike. Which
of the two begins changes from round to round.

`python -m tests.benchmarks.versions OTHER_CHECKOUT [--rounds 5] [--only patchcore]`

Both are given the same pictures and the same parameters, and run with the same interpreter; only `g100` itself differs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
KINDS = {
    "patchcore": ("PatchCore", {}), "semi-ort": ("SemiOrthogonal", {}), "riad": ("RIAD", {"epochs": 2}),
    "favae": ("FAVAE", {"epochs": 2}), "kdad": ("KDAD", {"epochs": 2}), "fcdd": ("FCDD", {"epochs": 1}),
}  # fmt: skip
CHILD = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
import g100
kind, parameters = sys.argv[1], {"calibration": 0.2} | json.loads(sys.argv[2])
data = g100.load_data("elpv:mono", 0)
train, test = data.train, data.test[:96]
detector = getattr(g100, kind)(**parameters)
start = time.process_time()
detector.fit(train)
print(time.process_time() - start, flush=True)
detector.inspect(test)
for _ in sys.stdin:
    start = time.process_time()
    detector.inspect(test)
    print((time.process_time() - start) / len(test), flush=True)
"""
TURNS = 15


def started(checkout: Path, kind: str, parameters: dict) -> tuple[subprocess.Popen, float]:
    "A process in which a detector of a checkout's g100 is fitted, and the seconds that the fit took."
    env = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    words = [sys.executable, "-c", CHILD, kind, json.dumps(parameters)]
    child = subprocess.Popen(words, cwd=checkout, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return child, float(child.stdout.readline())


def pair(other: Path, kind: str, parameters: dict, turned: bool) -> list[tuple[float, float]]:
    "(other, here): seconds of a fit each, and of judging one picture, medians of turns between the two processes."
    order = [other, HERE][:: -1 if turned else 1]
    two = [started(checkout, kind, parameters) for checkout in order]
    times = [[], []]
    for _ in range(TURNS):
        for (child, _), mine in zip(two, times, strict=True):
            child.stdin.write("go\n")
            child.stdin.flush()
            mine.append(float(child.stdout.readline()))
    for child, _ in two:
        child.communicate()
    both = [(two[0][1], two[1][1]), tuple(map(statistics.median, times))]
    return [figures[:: -1 if turned else 1] for figures in both]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("other", type=Path)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--only", choices=KINDS)
    told = words.parse_args()
    print("other -> here, the least of the rounds; ratios are medians of pairs")
    print(f"{'':10s} {'fit, s':>18s} {'ratio':>6s} {'judging, ms':>18s} {'ratio':>6s}")
    for name, (kind, parameters) in KINDS.items():
        if told.only in (None, name):
            pairs = [pair(told.other.resolve(), kind, parameters, bool(i % 2)) for i in range(told.rounds)]
            shown = []
            for i, factor in ((0, 1), (1, 1000)):
                old, new = (min(pair[i][j] for pair in pairs) * factor for j in (0, 1))
                ratio = statistics.median(pair[i][1] / pair[i][0] for pair in pairs)
                shown.append(f"{old:8.2f} ->{new:7.2f} {ratio:6.3f}")
            print(f"{name:10s} {shown[0]} {shown[1]}", flush=True)


if __name__ == "__main__":
    main()
