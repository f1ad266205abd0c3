"""Pictures that keep arriving: each finished before it is judged, judged once, and told in one line."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from g100.experiments import cli
from g100.foundations import errors, line
from g100.foundations.errors import G100Error
from tests.notebooks import ROOT
from tests.toys import MeanPicture, line_of, pictures, refused, spotted

pytestmark = pytest.mark.xdist_group("line")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    "The result of a run, as far as `inspect` looks at it: a folder with a model in it."
    folder = tmp_path_factory.mktemp("run") / "result"
    folder.mkdir()
    MeanPicture(image_size=32, calibration=0.4, target_fpr=0.1).fit(pictures(60, 32), device="cpu").save(folder / "model")
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, image in enumerate([*pictures(3, 32), *spotted(2, 32)[0]]):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


def lines(text: str) -> list[dict]:
    return [json.loads(row) for row in text.splitlines()]


# ---- the command


def test_json_and_the_table_say_the_same(within, model, photos, tmp_path):
    done = within("inspect", model, photos, "--out", tmp_path / "out", "--json", "--device", "cpu")
    with (tmp_path / "out" / "verdicts.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    told = lines(done.stdout)
    assert done.returncode == 0 and [row["name"] for row in told] == [f"{i}.png" for i in range(5)]
    for row, said in zip(told, table, strict=True):
        assert f"{row['score']:.9g}" == said["score"] and int(row["is_anomalous"]) == int(said["is_anomalous"])
        assert row["is_anomalous"] == (row["score"] > row["threshold"]) and int(row["unlike"]) == int(said["unlike"])
    assert [row["is_anomalous"] for row in told][3:] == [True, True]
    assert "called abnormal" in done.stderr and (tmp_path / "out" / "index.html").is_file()


def test_verdicts_alone_leave_nothing_and_end_with_a_code(within, model, photos, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = within("predict", model, photos, "--json", "--fail-on-abnormal", "--device", "cpu")
    assert done.returncode == 1 and len(lines(done.stdout)) == 5
    done = within("inspect", model, photos, "--json", "--fail-on-abnormal", "--threshold", "1e9", "--device", "cpu")
    assert done.returncode == 0 and not any(row["is_anomalous"] for row in lines(done.stdout))
    done = within("-q", "inspect", model, photos / "0.png", "--json", "--device", "cpu")
    assert sorted(tmp_path.rglob("*")) == before and len(lines(done.stdout)) == 1


def test_names_come_by_standard_input(within, model, photos, monkeypatch, capsys):
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{photos}/4.png\n\n{photos}/0.png\n"))
    done = within("inspect", model, "-", "--json", "--device", "cpu")
    assert [row["name"] for row in lines(done.stdout)] == ["4.png", "0.png"]


def test_masks_maps_and_coco_are_of_one_mind(within, model, photos, tmp_path):
    words = ("--masks", "--maps", "--coco", "--device", "cpu")
    assert within("inspect", model, photos, "--out", tmp_path / "out", *words).returncode == 0
    coco = json.loads((tmp_path / "out" / "coco.json").read_text())
    for image in coco["images"]:
        name = image["file_name"]
        mask = np.array(Image.open(tmp_path / "out" / "masks" / name)) > 0
        assert mask.shape == (image["height"], image["width"])
        assert np.load(tmp_path / "out" / "maps" / name.replace(".png", ".npy")).shape == (32, 32)
        drawn = np.zeros(mask.shape, np.uint8)
        for part in (a for a in coco["annotations"] if a["image_id"] == image["id"]):
            polygon = np.array(part["segmentation"][0]).reshape(-1, 2)
            assert (polygon.min(0) >= 0).all() and (polygon.max(0) <= mask.shape[::-1]).all()
            cv2.fillPoly(drawn, [(polygon - 0.5).round().astype(np.int32)], 1)
        assert (drawn[mask] == 1).mean() > 0.9 if mask.any() else not drawn.any()


def test_a_video_is_judged_frame_by_frame(within, model, tmp_path):
    film, shown = tmp_path / "film.avi", [*pictures(8, 32), *spotted(4, 32)[0]]
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 32))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for image in shown:
        writer.write(np.ascontiguousarray(image[..., ::-1]))
    writer.release()
    frames = list(line.frames_of(film))
    assert len(frames) == 12 and np.abs(frames[0][1].astype(int) - shown[0]).mean() < 12, "red is red"
    done = within("inspect", model, film, "--every", 3, "--json", "--no-pictures", "--device", "cpu")
    assert [row["name"] for row in lines(done.stdout)] == [f"film.avi@{k:06d}" for k in (0, 3, 6, 9)]
    assert "there is no video" in line_of(lambda: list(line.frames_of("none.avi")))
    film.write_bytes(b"no film")
    refused(within("inspect", model, film, "--json", "--device", "cpu"), "film.avi")


@pytest.mark.parametrize("words, said", [
    ((), "inspect wants pictures"), (("photos",), "say --out"), (("photos", "--json", "--masks"), "say --out"),
    (("photos", "--json", "--threshold", "1", "--target-fpr", "0.1"), "leave one out"), (("--watch", "photos"), "say --out"),
    (("photos", "--watch", "photos", "--out", "o"), "takes no other pictures"), (("x.mp4", "--json"), "there is no video"),
    (("camera:99", "--json", "--every", "0"), "every=0"), (("photos", "x.mp4", "--json"), "is a stream"),
    (("photos", "--out", "o", "--no-pictures", "--embed"), "--embed is for"),
    (("--watch", "photos", "--out", "o", "--evidence"), "--evidence is for"),
    (("photos", "--json", "--resume"), "--resume wants"),
    (("--watch", "photos", "--out", "o", "--resume"), "--watch goes on"), (("photos", "--json", "--jobs", "0"), "--jobs 0"),
    (("photos", "--json", "--jobs", "2", "--scheduler", "x"), "leave one out"),
    (("x.mp4", "--json", "--jobs", "2"), "for files"),
    (("--watch", "photos", "--out", "photos/o"), "lies in the folder"), (("--watch", "nowhere", "--out", "o"), "nowhere"),
])  # fmt: skip
def test_what_contradicts_itself_is_refused(within, model, photos, monkeypatch, words, said):
    monkeypatch.chdir(photos.parent)
    refused(within("inspect", model, *words, "--device", "cpu"), said)


def test_another_product_is_said_to_be_unlike(within, model, tmp_path):
    other = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(cv2.GaussianBlur(255 - pictures(1, 32)[0] // 9 + other // 9, (0, 0), 1)).save(tmp_path / "shoe.png")
    done = within("inspect", model, tmp_path / "shoe.png", "--json", "--device", "cpu")
    assert lines(done.stdout)[0]["unlike"] is True and "unlike the training pictures" in done.stderr


# ---- cut off, and done by many


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    "Forty pictures, three batches, of which one cannot be read."
    folder = tmp_path_factory.mktemp("many")
    for i, image in enumerate([*pictures(32, 32), *spotted(8, 32)[0]]):
        Image.fromarray(image).save(folder / f"{i:02d}.png")
    (folder / "20.png").write_bytes(b"no picture")
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    "What files below a folder hold, but for the ledger and the mark, which names it."
    files = [file for file in folder.rglob("*") if file.is_file() and file.name not in ("verdicts.jsonl", ".g100")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize("k", [0, 1, 15, 16, 17, 21, 39])
def test_an_inspection_that_is_cut_off_goes_on(within, model, many, tmp_path, monkeypatch, k):
    "Stopped at row k, then with the ledger's last line torn, and then continued: all is as in one go."
    words = ("inspect", model, many, "--coco", "--masks", "--json", "--device", "cpu", "--out")
    told = lines(within(*words, tmp_path / "whole").stdout)
    stop, told_of = [k], cli.tell_json

    def tell(row: dict) -> None:
        if not stop[0]:
            raise KeyboardInterrupt
        stop[0] -= 1
        told_of(row)

    monkeypatch.setattr(cli, "tell_json", tell)
    first = within(*words, tmp_path / "out", "--resume")
    assert first.returncode == 130 and "out.unfinished has the verdicts so far" in first.stderr
    ledger = tmp_path / "out.unfinished" / "verdicts.jsonl"
    with ledger.open("ab") as file:
        file.write(b'{"name": "torn')
    stop[0] = 99
    second = within(*words, tmp_path / "out", "--resume")
    assert second.returncode == 0 and files_in(tmp_path / "out") == files_in(tmp_path / "whole")
    assert len((tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()) == 41
    assert sorted(os.listdir(tmp_path)) == ["out", "whole"]
    names = [row["name"] for row in told]
    assert [row["name"] for row in lines(second.stdout)] == names[16 * (k // 16) :]


def test_nobody_goes_on_with_other_verdicts(within, model, many, tmp_path, monkeypatch):
    def stopped(*told):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "inspection_page", stopped)
    words = ("inspect", model, many, "--out", tmp_path / "out", "--resume", "--device", "cpu")
    assert within(*words).returncode == 130
    monkeypatch.undo()
    ledger = tmp_path / "out.unfinished" / "verdicts.jsonl"
    refused(within(*words, "--no-pictures"), "verdicts.jsonl belongs to")
    refused(within(*words, "--threshold", 1), "verdicts.jsonl belongs to")
    text = ledger.read_text()
    for line_of_another in ('{"name": "x"}', '["name"]'):
        ledger.write_text(f"{text}{line_of_another}\n")
        refused(within(*words), "not a ledger of pictures")
    ledger.write_text(text)
    os.utime(many / "00.png", (1, 1))
    refused(within(*words), "verdicts.jsonl belongs to")
    ledger.unlink()
    before = files_in(tmp_path)
    refused(within(*words), "out.unfinished holds other things")
    assert files_in(tmp_path) == before


def test_two_processes_say_what_one_says(within, many, tmp_path):
    from g100 import PatchCore

    PatchCore(image_size=32, weights="random", batch_size=4).fit(pictures(12, 32), device="cpu").save(tmp_path / "model")
    words = ("inspect", tmp_path / "model", many, "--device", "cpu", "--evidence", "--out")
    assert within(*words, tmp_path / "one").returncode == 0
    assert within(*words, tmp_path / "two", "--jobs", 2, "--resume").returncode == 0
    one, two = (csv.DictReader((tmp_path / name / "verdicts.csv").open()) for name in ("one", "two"))
    for row, other in zip(one, two, strict=True):
        assert (row["name"], row["is_anomalous"], row["error"]) == (other["name"], other["is_anomalous"], other["error"])
        assert row["error"] or float(row["score"]) == pytest.approx(float(other["score"]), rel=1e-4)
    assert files_in(tmp_path / "one").keys() == files_in(tmp_path / "two").keys()


# ---- the watched folder


def judged_in(folder: Path, ledger: Path, clock: list[float], waiting: dict, seen: dict) -> None:
    for name, state in line.finished(folder, seen, waiting, 1.0, lambda: clock[0]):
        line.told(ledger, [{"name": name, "state": state}])
        seen[name] = state


STEP = st.sampled_from(["start a file", "go on", "finish", "wait", "kill", "kill in a line", "remove"])


@settings(deadline=None, max_examples=60)
@given(st.lists(STEP, max_size=40), st.randoms(use_true_random=False))
def test_each_picture_has_one_line_whatever_happens(steps, random):
    "Writers that pause, and a judge that is killed anywhere, also in the middle of a line."
    image = cv2.imencode(".png", pictures(1, 8)[0])[1].tobytes()
    with tempfile.TemporaryDirectory() as place:
        folder, ledger, clock, waiting, parts = Path(place) / "in", Path(place) / "v.jsonl", [0.0], {}, {}
        folder.mkdir()
        seen = dict(line.begun(ledger, {"g": 1}))
        for k, step in enumerate([*steps, *["finish"] * 9, "wait", "wait", "wait", "wait"]):
            open_ones = sorted(name for name, n in parts.items() if n < len(image))
            if step == "start a file":
                parts[f"{k}.png"] = random.randint(0, 60)
            elif step == "go on" and open_ones:
                parts[open_ones[0]] += 7
            elif step == "finish" and open_ones:
                parts[random.choice(open_ones)] = len(image)
            elif step.startswith("kill"):
                if step == "kill in a line" and len(ledger.read_bytes().splitlines()) > 1:
                    ledger.write_bytes(ledger.read_bytes()[: -random.randint(1, 9)])
                waiting, seen = {}, dict(line.begun(ledger, {"g": 1}))
            for name, n in parts.items():
                if not (folder / name).exists() or (folder / name).stat().st_size != n:
                    (folder / name).write_bytes(image[:n])
            clock[0] += 0.7 if step == "wait" else 0.1
            judged_in(folder, ledger, clock, waiting, seen)
        for _ in range(5):
            clock[0] += 1
            judged_in(folder, ledger, clock, waiting, seen)
        names = [json.loads(row)["name"] for row in ledger.read_text().splitlines()[1:]]
        whole = sorted(name for name, n in parts.items() if n >= len(image))
        assert sorted(names) == whole, (names, whole)


def test_what_never_becomes_a_picture_is_told_at_last(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    clock, waiting = [0.0], {}
    found = lambda: [name for name, _ in line.finished(tmp_path, {}, waiting, 1.0, lambda: clock[0])]  # noqa: E731
    assert found() == []
    clock[0] = 59.0
    assert found() == []
    clock[0] = 60.0
    assert found() == ["a.png"]


def test_a_ledger_of_something_else_is_left_alone(tmp_path):
    line.begun(tmp_path / "v.jsonl", {"watched": "a"})
    text = (tmp_path / "v.jsonl").read_bytes()
    assert "name another folder" in line_of(line.begun, tmp_path / "v.jsonl", {"watched": "b"})
    (tmp_path / "w.jsonl").write_text("[" * 10_000 + "\n")
    assert "not a ledger" in line_of(line.begun, tmp_path / "w.jsonl", {"watched": "b"})
    assert (tmp_path / "v.jsonl").read_bytes() == text


def start(model: Path, folder: Path, out: Path) -> subprocess.Popen:
    words = ("inspect", model, "--watch", folder, "--out", out, "--settle", 0.2, "--device", "cpu", "--no-pictures", "--json")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    code = "import tests.toys; from g100.experiments.cli import main; main()"
    hears = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 - where whoever runs the tests does not
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], env=env, cwd=ROOT, text=True, preexec_fn=hears,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def test_a_watch_that_is_killed_twice_judges_each_once(model, tmp_path):
    "In processes of its own: two kills that cannot be caught, then a stop."
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    ledger, images = out / "verdicts.jsonl", [*pictures(20, 32), *spotted(10, 32)[0]]

    def told() -> int:
        return max(0, ledger.read_bytes().count(b"\n") - 1) if ledger.exists() else 0

    for turn, end in enumerate((signal.SIGKILL, signal.SIGKILL, signal.SIGINT)):
        for i in range(10 * turn, 10 * turn + 10):
            Image.fromarray(images[i]).save(folder / f"{i:02d}.png")
        judge = start(model, folder, out)
        deadline = time.monotonic() + 120
        while told() < 10 * turn + 10 - 4 * (end == signal.SIGKILL) and time.monotonic() < deadline:
            time.sleep(0.05)
        judge.send_signal(end)
        said = judge.communicate(timeout=60)[1]
    names = [row["name"] for row in lines(ledger.read_text())[1:]]
    assert names == sorted(set(names)) == [f"{i:02d}.png" for i in range(30)], said
    assert judge.returncode == 130 and "verdicts.jsonl has the verdicts so far" in said


# ---- the same in Python


def test_watch_is_an_iterator(model, photos):
    from g100 import load

    detector = load(model / "model", "cpu")
    (photos / "zz.png").write_bytes(b"no picture")
    stream = detector.watch(photos, settle=0.05)
    found = [next(stream) for _ in range(5)]
    stream.close()
    assert [verdict.names for verdict in found] == [(f"{i}.png",) for i in range(5)]
    whole = detector.inspect(photos / "3.png")
    np.testing.assert_allclose(found[3].score, whole.score, rtol=1e-5)
    frames = list(detector.watch(iter(pictures(3, 32))))
    assert [len(verdict) for verdict in frames] == [1, 1, 1] and frames[1].names == ("000001",)
    with pytest.raises(G100Error, match="nowhere"):
        next(detector.watch("nowhere"))


def test_doctor_and_list_speak(within):
    said = within("doctor", "--device", "cpu").stdout
    assert "torch" in said and "extra report" in said and " ms" in said
    told = json.loads(within("list", "--json").stdout)
    assert "patchcore" in told["algorithms"] and "mvtec:DIR" in told["data"] and "lite0" in told["backbones"]


@pytest.mark.parametrize("text, said", [
    ("algorithm: [", "YAML"), ("- a", "lines such as"), ("algorithmm: patchcore", "did you mean 'algorithm'"),
    ("algorithm: !!python/object/apply:os.system ['touch x']", "YAML"), ("seed: 1", "wants an algorithm"),
])  # fmt: skip
def test_a_config_that_is_none_is_refused(within, tmp_path, text, said):
    (tmp_path / "run.yaml").write_text(text)
    refused(within("run", "--config", tmp_path / "run.yaml", "--out", tmp_path / "out"), said)
    assert [file.name for file in tmp_path.iterdir()] == ["run.yaml"]


def test_a_config_says_what_is_not_said(within, tmp_path, monkeypatch):
    from g100.experiments import report

    told = {}
    monkeypatch.setattr(report, "experiment", lambda out, **options: told.update(options) or {})
    monkeypatch.setattr(report, "is_first", lambda: False)
    report.write_config(tmp_path / "run.yaml", {"algorithm": "riad", "data": "elpv:mono", "seed": 3, "metric_size": None,
                                                "parameters": {"epochs": 2, "ks": [4, 8]}, "verbose": True})  # fmt: skip
    done = within("run", "--config", tmp_path / "run.yaml", "--out", tmp_path / "o", "--seed", 5, "--set", "epochs=9")
    assert done.returncode == 0, done.stderr
    assert told["algorithm"] == "riad" and told["seed"] == 5 and told["metric_size"] is None
    assert told["parameters"] == {"epochs": 9, "ks": [4, 8]}


def test_where_no_bar_can_be_drawn_a_line_says_how_far_it_is(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(errors.time, "monotonic", lambda: now[0])
    with errors._Lines(50, "judging") as counted, errors._Lines(50, None) as silent:
        for _ in range(50):
            now[0] += 0.75
            counted.set_postfix(loss="0.1")
            counted.update()
            silent.update()
    assert counted.n == silent.n == 50
    assert caplog.messages == [f"judging: {n} of 50, {0.75 * n:.0f} s, loss 0.1" for n in (14, 28, 42)]


@pytest.mark.parametrize("told, drawn", [("1", True), ("0", False), (None, False)])
def test_who_shows_says_whether_bars_are_drawn(monkeypatch, told, drawn):
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    monkeypatch.delitem(sys.modules, "ipykernel")
    monkeypatch.setenv("G100_BARS", told) if told else monkeypatch.delenv("G100_BARS", raising=False)
    with errors.bar(3, "x") as counted:
        assert (not isinstance(counted, errors._Lines)) == drawn
