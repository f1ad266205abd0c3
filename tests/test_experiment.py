"Pixels of all detectors are judged at one size, and nothing defective is lost without being counted."

import csv
import json
import shutil
import subprocess

import numpy as np
import psutil
import pytest
from PIL import Image

from g100.experiments.experiment import PIXEL, metric_shape, pixel_metrics, run_experiment, write_results
from g100.experiments.report import kernel_manager, pixels_said
from g100.foundations.detector import Inspection
from g100.foundations.metrics import auroc, average_precision, f1_at, f1_max
from g100.foundations.pictures import ImageSet
from g100.foundations.regions import PIXEL_SCORES, aupimo, aupro
from tests.toys import MeanPicture, line_of, mvtec_folder, pictures, spotted

pytestmark = pytest.mark.filterwarnings("ignore:.*false-positive rate.*")
SPOTS = {"image_size": 24, "sigma": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return mvtec_folder(tmp_path_factory.mktemp("data") / "bottle", size=48)


@pytest.fixture(scope="module")
def done(folder):
    return run_experiment("mean-picture", f"mvtec:{folder}", parameters=SPOTS)


def labelled(good: int = 4, bad: int = 6, size: int = 48) -> ImageSet:
    images, masks = spotted(bad, size)
    names = [f"{i}" for i in range(good + bad)]
    labels = [0] * good + [1] * bad
    return ImageSet([*pictures(good, size), *images], names, labels, ["x"] * len(names), [None] * good + list(masks))


def fitted(**parameters) -> MeanPicture:
    return MeanPicture(**SPOTS | parameters).fit(pictures(30, 48))


def test_longer_side_aspect_ratio_and_no_enlargement():
    assert metric_shape((900, 900), 256) == (256, 256) and metric_shape((250, 630), 256) == (102, 256)
    assert metric_shape((100, 60), 256) == (100, 60) and metric_shape((1000, 600), None) == (1000, 600)
    assert metric_shape((5000, 3), 256) == (256, 1)


def test_the_row_has_the_metrics_of_maps_on_the_frame_of_the_picture(done):
    row, test = done.row, done.data.test
    masks = [test.mask(i) for i in range(len(test))]
    maps = [done.detector.frame(mask.shape).back(a, mask.shape) for mask, a in zip(masks, done.verdicts.map, strict=True)]
    y, s = np.array(masks), np.array(maps)
    expected = (auroc(y, s), average_precision(y, s), aupro(y, s), f1_max(y, s)[0], f1_at(y, s, done.detector.pixel_threshold_))
    expected += (aupro(y, s, 0.05), np.nanmean(aupimo(y, s)))
    assert [row[name] for name in PIXEL_SCORES] == pytest.approx(list(expected), abs=1e-12)
    assert (row["metric_size"], row["regions"], row["regions_lost"]) == (256, 8, 0)
    assert row["seg_f1"] <= row["pixel_f1_max"] and "no defective region was lost" in pixels_said(row)


def test_detectors_of_all_sizes_are_judged_on_the_same_pixels(folder):
    rows = [run_experiment("mean-picture", f"mvtec:{folder}", parameters=SPOTS | {"image_size": n}).row for n in (12, 48)]
    assert [row["regions"] for row in rows] == [8, 8]
    assert abs(rows[0]["pixel_aupr"] - rows[1]["pixel_aupr"]) < 0.2


def test_the_size_is_a_parameter(folder):
    rows = [run_experiment("mean-picture", f"mvtec:{folder}", parameters=SPOTS, metric_size=n).row for n in (16, None)]
    assert [row["metric_size"] for row in rows] == [16, "own"] and all(row["regions"] == 8 for row in rows)
    assert "16 pixels" in pixels_said(rows[0]) and "own size" in pixels_said(rows[1])
    for wrong in (0, -3, 2.5, "big"):
        assert "metric_size" in line_of(lambda n=wrong: run_experiment("mean-picture", f"mvtec:{folder}", metric_size=n))


def test_a_size_that_does_not_fit_into_memory_is_refused_before_the_fit(folder, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 100_000}))
    said = line_of(lambda: run_experiment("mean-picture", f"mvtec:{folder}", parameters=SPOTS, metric_size=None))
    assert "metric_size=None" in said and "GB" in said and "256" in said


def test_what_a_crop_does_not_see_counts_as_missed_and_is_counted():
    masks = np.zeros((2, 48, 48), bool)
    masks[0, :3, :3], masks[1, 20:30, 20:30] = True, True  # the first lies in the corner
    test = ImageSet(list(pictures(4, 48)), list("abcd"), [0, 0, 1, 1], ["x"] * 4, [None, None, *masks])
    detector = fitted(resize=48)
    maps = np.stack([np.zeros((24, 24)), np.zeros((24, 24)), np.zeros((24, 24)), masks[1, 12:36, 12:36]]).astype(np.float32)
    verdicts = Inspection(test.names, maps.max((1, 2)), maps, maps > 0.5, np.zeros(4, bool))
    row, each = pixel_metrics(test, verdicts, detector)
    assert (row["regions"], row["regions_lost"]) == (2, 1) and row["aupro"] == pytest.approx(1 / 2, abs=0.01)
    assert each[2] == 0 and each[3] == 1 and np.isnan(each[:2]).all() and row["aupimo"] == 1 / 2
    assert "1 of 2 defective regions" in pixels_said(row)
    whole, _ = pixel_metrics(test, verdicts, fitted())
    assert whole["regions_lost"] == 0


def test_without_masks_or_without_good_pictures_it_is_null():
    detector, test = fitted(), labelled()
    images = ImageSet(test.images, test.names, test.labels, test.defects, [None] * len(test))
    row, each = pixel_metrics(images, detector.inspect(images), detector)
    assert row == dict.fromkeys(PIXEL) and np.isnan(each).all() and "Without masks" in pixels_said(row)
    bad = test[4:]
    row, each = pixel_metrics(bad, detector.inspect(bad), detector)
    assert row["aupimo"] is None and row["aupro"] is not None and np.isnan(each).all()


def test_pictures_of_unknown_label_are_left_out():
    detector, test = fitted(), labelled()
    more = ImageSet([*test.images, *pictures(2, 48, seed=5)], [*test.names, "u", "v"], [*test.labels, -1, -1],
                    [*test.defects, "unknown", "unknown"], [*test.masks, None, None])  # fmt: skip
    (row, each), (other, without) = (pixel_metrics(s, detector.inspect(s), detector) for s in (more, test))
    assert row == other and np.isnan(each[-2:]).all()
    np.testing.assert_array_equal(each[:-2], without)


def test_a_mask_of_another_size_is_named(folder, tmp_path):
    data = shutil.copytree(folder, tmp_path / "bottle")
    Image.new("L", (7, 9)).save(data / "ground_truth" / "spot" / "002_mask.png")
    said = line_of(lambda: run_experiment("mean-picture", f"mvtec:{data}", parameters=SPOTS))
    assert "002" in said and "9 x 7" in said


def test_aupimo_of_each_picture_is_written_down(done, tmp_path):
    write_results(done, tmp_path / "result")
    with (tmp_path / "result" / "scores.csv").open() as file:
        lines = list(csv.DictReader(file))
    values = [float(line["aupimo"]) for line in lines if line["aupimo"]]
    assert len(values) == 8 and all((line["label"] == "1") == bool(line["aupimo"]) for line in lines)
    assert np.mean(values) == pytest.approx(json.loads((tmp_path / "result" / "metrics.json").read_text())["aupimo"], abs=1e-5)


def test_a_kernel_whose_file_is_gone_ends_without_a_word(tmp_path):
    "Whoever asked for it was stopped, and has taken the folder away."
    argv = [word.format(connection_file=tmp_path / "gone" / "kernel.json") for word in kernel_manager().kernel_spec.argv]
    done = subprocess.run(argv, capture_output=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"") and not list(tmp_path.iterdir())
