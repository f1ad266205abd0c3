"""`python -m tests.attacks`: the corpus, as a table; exit code 1 where a case did not end as it must."""

import argparse
import importlib
import os
import sys

from tests.attacks.runner import Result, failures, run, table

CLASSES = ("images", "arrays", "labels", "layouts", "models", "weights", "parameters", "names", "fuzz")


def source(kind: str):
    return importlib.import_module(f"tests.attacks.{kind}").cases


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description="Run the corpus of attacks.")
    parser.add_argument("classes", nargs="*", metavar="CLASS", help=f"of {', '.join(CLASSES)}; none: all")
    parser.add_argument("--only", default="", help="cases whose names contain this, with what they said")
    parser.add_argument("--fuzz", type=int, help="so many cards and tensor files, twice as many pictures")
    told = parser.parse_args()
    if unknown := set(told.classes) - set(CLASSES):
        parser.error(f"no class {', '.join(sorted(unknown))}; known: {', '.join(CLASSES)}")
    if told.fuzz is not None:
        os.environ["G100_FUZZ"] = str(told.fuzz)

    def tell(result: Result) -> None:
        if told.only or not result.met:
            print(failures([result]) or f"{result.case.name}: {result.outcome}: {result.said}", flush=True)

    results = []
    for kind in told.classes or CLASSES:
        results += run(kind, source(kind), lambda i, case: told.only in case.name, tell)
    print(table(results))
    return int(not results or any(not result.met for result in results))


if __name__ == "__main__":
    sys.exit(main())
