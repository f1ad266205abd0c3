"Differences between detectors and their uncertainty, against repetition, against all signs, and on made-up benchmarks."

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wilcoxon
from sklearn.metrics import roc_auc_score

from g100.experiments.table import SAID, by_picture, compared, marks_of, read_scores, result_table
from g100.experiments.uncertainty import auroc_gap, drawn_weights, kernel, signed_rank, told_apart, weighted
from g100.foundations.folders import write_text
from tests.toys import line_of

few = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**32 - 1)


def said(seed: int, n: int = 30, lead: float = 0.0):
    "Names, labels and the scores of two detectors, with ties."
    rng = np.random.default_rng(seed)
    label = np.repeat([0, 1], n)
    hard = rng.normal(size=2 * n)
    a, b = (np.round(hard + more * label + rng.normal(0, 0.3, 2 * n), 1) for more in (1 + lead, 1))
    return np.array([f"{i}.png" for i in range(2 * n)]), label, a, b


@few
@given(seeds)
def test_weights_are_repetitions(seed):
    _, label, a, _ = said(seed)
    good, bad = (np.random.default_rng(seed).multinomial(30, [1 / 30] * 30, 3).astype(float) for _ in range(2))
    found = weighted(kernel(label, a), good, bad)
    for i in range(3):
        w = np.concatenate([good[i], bad[i]]).astype(int)
        assert found[i] == pytest.approx(roc_auc_score(np.repeat(label, w), np.repeat(a, w)), abs=1e-12)


def test_a_name_is_drawn_equally_often_in_every_test_set():
    sets = [np.array(list("abcde")), np.array(list("edcx"))]
    one, two = drawn_weights(sets, 50, np.random.default_rng(0))
    assert one.shape == (50, 5) and two.shape == (50, 4)
    np.testing.assert_array_equal(one[:, [4, 3, 2]], two[:, :3])
    np.testing.assert_array_equal(one.sum(1) + two[:, 3], 6)


@few
@given(seeds)
def test_the_gap_is_the_difference_and_turns_with_the_pair(seed):
    pairs = [said(seed + s) for s in range(2)]
    gap, low, high = auroc_gap(pairs, draws=200)
    assert gap == pytest.approx(np.mean([roc_auc_score(y, a) - roc_auc_score(y, b) for _, y, a, b in pairs]), abs=1e-12)
    turned = auroc_gap([(name, y, b, a) for name, y, a, b in pairs], draws=200)
    assert turned == pytest.approx((-gap, -high, -low), abs=1e-12)
    narrow = auroc_gap(pairs, level=0.5, draws=200)
    assert low <= narrow[1] <= narrow[2] <= high


def test_the_interval_widens_with_the_seeds_and_is_that_of_delong_for_one():
    "DeLong's variance for one pair; and seeds that disagree about everything."
    name, label, a, b = said(0, n=200, lead=0.2)
    k = kernel(label, a) - kernel(label, b)
    variance = k.mean(0).var(ddof=1) / 200 + k.mean(1).var(ddof=1) / 200
    _, low, high = auroc_gap([(name, label, a, b)], draws=4000)
    assert (high - low) / (2 * 1.96) == pytest.approx(np.sqrt(variance), rel=0.06)
    other = auroc_gap([(name, label, a, b), (name, label, b, a)], draws=4000)
    assert other[2] - other[1] > 1.5 * (high - low) and not told_apart(*other[1:])


def test_a_large_difference_is_told_and_none_is_not():
    assert told_apart(*auroc_gap([said(s, lead=2) for s in range(3)], 0.99)[1:])
    name, label, a, _ = said(3)
    assert auroc_gap([(name, label, a, a)]) == (0, 0, 0) and not told_apart(0, 0)
    assert auroc_gap([said(5)], seed=1) == auroc_gap([said(5)], seed=1), "the same seed, the same draws"


@few
@given(seeds, st.integers(2, 9))
def test_signed_ranks_are_the_count_of_all_signs(seed, n):
    d = np.random.default_rng(seed).normal(0.3, 1, n)
    rank = np.argsort(np.argsort(np.abs(d))) + 1
    W = np.array([rank[np.array(signs)].sum() for signs in product((False, True), repeat=n)])
    far = np.abs(W - W.mean()) >= abs(rank[d > 0].sum() - W.mean()) - 1e-9
    assert signed_rank(d, np.zeros(n)) == pytest.approx(far.mean(), abs=1e-12)


def test_pictures_without_a_difference():
    assert signed_rank(np.ones(7), np.ones(7)) == 1
    a, b = np.r_[np.zeros(20), np.linspace(0.1, 1, 12)], np.zeros(32)
    assert signed_rank(a, b) == pytest.approx(wilcoxon(a - b, zero_method="pratt").pvalue)
    assert signed_rank(a[20:], b[20:]) < signed_rank(a, b) < 0.05


def test_what_cannot_be_compared_is_said_in_one_line():
    name, label, a, b = said(0)
    assert "good and with abnormal" in line_of(auroc_gap, [])
    assert "good and with abnormal" in line_of(auroc_gap, [(name[:5], label[:5], a[:5], b[:5])])
    assert "level" in line_of(lambda: auroc_gap([said(0)], level=1.0))
    assert "one finite value" in line_of(signed_rank, [0.1, np.nan], [0.1, 0.2])
    assert "one finite value" in line_of(signed_rank, [0.1], [0.1, 0.2])


# --- in the table of a benchmark ---


def benchmark(folder: Path, quality: dict[str, float], seeds: int = 3, aupimo: bool = True) -> list[dict]:
    "The scores of algorithms of that quality on the same pictures, and their rows."
    rows = []
    for seed in range(seeds):
        rng = np.random.default_rng(0)
        label, hard = np.repeat([0, 1], 60), rng.normal(size=120)
        for name, more in quality.items():
            score = hard + more * label + np.random.default_rng([seed, len(name)]).normal(0, 0.2, 120)
            pixels = np.clip(score / 6 + 0.2, 0, 1)
            lines = ["name,label,defect,score,threshold,is_anomalous,marked" + (",aupimo" if aupimo else "")]
            for i, y in enumerate(label):
                last = [f"{pixels[i]:.6g}" if y else ""] if aupimo else []
                lines.append(",".join([f"{i}.png", str(y), "d", f"{score[i]:.6g}", "1.0", "0", "0.1", *last]))
            cell = f"{name}-{seed}"
            write_text(folder / "cells" / cell / "scores.csv", "\n".join(lines) + "\n")
            made = {"dataset": "toy", "category": "x", "algorithm": name, "seed": seed, "cell": cell, "dataset_sha256": "1"}
            value = float(pixels[label == 1].mean()) if aupimo else None
            rows.append(made | {"image_auroc": roc_auc_score(label, score), "aupimo": value})
    return rows


def test_the_table_marks_what_cannot_be_told_apart(tmp_path):
    rows = benchmark(tmp_path, {"best": 2.5, "nearly": 2.45, "behind": 1.0})
    found = {(line["column"], line["other"]): line for line in compared(tmp_path, rows)}
    assert [found["image_auroc", name]["apart"] for name in ("nearly", "behind")] == [False, True]
    assert found["aupimo", "behind"]["apart"] and found["aupimo", "behind"]["seeds"] == 3
    assert all(line["best"] == "best" and line["lead"] > 0 for line in found.values())
    cells = {line.split("|")[1].strip(): line for line in result_table(rows, marks_of(tmp_path, rows)).splitlines()[2:]}
    assert r"\*" in cells["best"] and " = |" in cells["nearly"] and " =" not in cells["behind"] and "=" in SAID


def test_nothing_is_marked_where_there_is_nothing_to_compare(tmp_path):
    rows = benchmark(tmp_path, {"alone": 2.0})
    assert compared(tmp_path, rows) == [] and marks_of(tmp_path, rows) == {}
    two = benchmark(tmp_path / "two", {"a": 2.0, "bb": 2.1}, seeds=1)
    assert {line["column"] for line in compared(tmp_path / "two", two)} == {"image_auroc", "aupimo"}
    for row in two:
        row["dataset_sha256"] = row["algorithm"]
    assert compared(tmp_path / "two", two) == [], "other pictures"
    assert compared(tmp_path / "gone", benchmark(tmp_path, {"a": 2.0, "bb": 2.1})) == [], "no scores are left"
    old = benchmark(tmp_path / "old", {"a": 2.0, "bb": 2.1}, aupimo=False)
    assert {line["column"] for line in compared(tmp_path / "old", old)} == {"image_auroc"}
    assert np.isnan(read_scores(tmp_path / "old", "a-0")["aupimo"]).all()


def test_a_picture_judged_by_three_seeds_is_one_picture():
    names = np.array(["p", "q"])
    pairs = [
        (names, np.ones(2), np.array([0.1, 0.5]), np.array([0.0, 1.0])),
        (names[:1], np.ones(1), np.array([0.3]), np.zeros(1)),
    ]
    a, b = by_picture(pairs)
    assert a.tolist() == pytest.approx([0.2, 0.5]) and b.tolist() == [0, 1]
