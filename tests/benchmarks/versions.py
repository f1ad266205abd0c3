"""This checkout against another one: how long the six fit and judge, as ratios, each version in processes of its own by turns.

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
start = time.perf_counter()
detector.fit(train)
fitted = time.perf_counter()
detector.inspect(test)
seconds = []
for _ in range(3):
    began = time.perf_counter()
    detector.inspect(test)
    seconds.append(time.perf_counter() - began)
print(json.dumps([fitted - start, min(seconds) / len(test)]))
"""


def once(checkout: Path, kind: str, parameters: dict) -> list[float]:
    "Seconds of a fit and of judging one picture, by the g100 of a checkout."
    env = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    words = [sys.executable, "-c", CHILD, kind, json.dumps(parameters)]
    done = subprocess.run(words, cwd=checkout, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


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
            pairs = [(once(told.other.resolve(), kind, parameters), once(HERE, kind, parameters)) for _ in range(told.rounds)]
            shown = []
            for i, factor in ((0, 1), (1, 1000)):
                old, new = (min(pair[j][i] for pair in pairs) * factor for j in (0, 1))
                ratio = statistics.median(pair[1][i] / pair[0][i] for pair in pairs)
                shown.append(f"{old:8.2f} ->{new:7.2f} {ratio:6.3f}")
            print(f"{name:10s} {shown[0]} {shown[1]}", flush=True)


if __name__ == "__main__":
    main()
