"""The committed table of results, nbs/results/results.csv, from which README.md and the overview are made.

    g100 benchmark --algorithms riad,kdad --data elpv:mono --seeds 0,1,2 --out FOLDER
    python -m tests.benchmarks.table FOLDER [FOLDER ...]     take the rows of benchmarks (or of single `g100 run`s)
    python -m tests.notebooks refresh nbs/index.ipynb nbs/00_overview.ipynb
    python -m tests.benchmarks.table --into starts FOLDER ...    nbs/results/starts.csv instead: networks that have not learnt,
                                                             `--set epochs=1 --set learning_rate=1e-12`; one epoch at no rate
                                                             leaves the weights, and fills in what batch norm divides by

A new row takes the place of the old one of the same algorithm, data set, backbone and seed. What was computed with other
parameters, or on other pictures, never stays beside it in one line of a table: such old rows are dropped, and named.
"""

import argparse
import json
import sys
from pathlib import Path

from g100.experiments.table import flat, groups, read_rows, rows_of, write_rows
from g100.foundations.errors import G100Error
from tests.benchmarks import common

RESULTS = common.RESULTS / "results.csv"
LINE = ("dataset", "category", "algorithm", "backbone")
FREE = {"seed", "batch_size", "cache_gigabytes"}  # they change no result
FREE |= {"verbose", "device", "checkpoint", "resume"}  # nor do these, which older rows have


def found(folder: Path) -> list[dict]:
    "The rows of a benchmark's folder, or the one row of an experiment's."
    if (folder / "metrics.json").exists():
        return [flat(folder.name, json.loads((folder / "metrics.json").read_text()))]
    if rows := rows_of(folder):
        return rows
    raise G100Error(f"{folder}: neither a benchmark with finished cells nor an experiment")


def alike(one: dict, other: dict) -> bool:
    "Whether two rows of one line may share a mean: same parameters, as far as both know them; for one seed, same pictures."
    a, b = json.loads(one["params"]), json.loads(other["params"])
    same = all(a[key] == b[key] for key in (a.keys() & b.keys()) - FREE)
    return same and (one["seed"] != other["seed"] or one["dataset_sha256"] == other["dataset_sha256"])


def merged(old: list[dict], new: list[dict]) -> tuple[list[dict], list[str]]:
    "The new rows and those old ones that may stay, line by line; and the names of rows dropped for what they ran with."
    kept, dropped = [], []
    for row in old:
        rivals = [other for other in new if all(other[key] == row[key] for key in LINE)]
        if any(other["seed"] == row["seed"] for other in rivals):
            continue
        if all(alike(row, other) for other in rivals):
            kept.append(row)
        else:
            dropped.append(row["cell"])
    order = sorted(kept + new, key=lambda row: ([row[key] or "" for key in LINE], row["seed"]))
    return order, dropped


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--into", default=RESULTS.stem)
    args = parser.parse_args(arguments)
    file = RESULTS.with_stem(args.into)
    rows = read_rows(file) if file.exists() else []
    for folder in args.folders:
        rows, dropped = merged(rows, found(folder))
        for name in dropped:
            print(f"dropped {name}: {folder} has that line with other parameters")
    write_rows(file, rows)
    counts = (f"{len(same)} of {name}" for (name,), same in groups(rows, "algorithm").items())
    print(f"{len(rows)} rows in {file.name}: {', '.join(counts)}")


if __name__ == "__main__":
    try:
        main()
    except G100Error as error:
        sys.exit(str(error))
