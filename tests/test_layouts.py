"g100.foundations.layouts: the ways in which data sets lie on disk, their errors of one line, how a new one is registered."

import os
import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from g100.foundations import layouts as gl
from g100.foundations.layouts import DataSet, load_data
from g100.foundations.pictures import ImageSet
from g100.foundations.sources import file_set, image_files
from tests.test_pictures import GREY, save, tree
from tests.toys import line_of

# ---- what a data set knows


def test_mask_of_good_unknown_and_wrong(tmp_path):
    images = load_data(f"mvtec:{tree(tmp_path / 'a')}").test
    assert images.has_masks and images.defects == ("crack", "crack", "dent", "good", "good")
    assert images.mask(0).sum() == 14 and not images.mask(4).any() and images.mask(4).shape == (12, 17)
    bare = load_data(f"folder:{tree(tmp_path / 'b', masks=False)}").test
    assert not bare.has_masks and bare.mask(0) is None and not bare.mask(4).any()
    save(tmp_path / "a/ground_truth/crack/001_mask.png", np.zeros((17, 12), np.uint8))
    line = line_of(images.mask, 1)
    assert "001_mask.png" in line and "17 x 12" in line and "12 x 17" in line
    arrays = ImageSet([np.zeros((3, 4, 3), np.uint8)], ["a"], [1], ["bad"], [np.ones((4, 3), bool)])
    assert "4 x 3" in line_of(arrays.mask, 0)


def test_hash_knows_content_and_nothing_else(tmp_path):
    root = tree(tmp_path / "a")
    first = load_data(f"mvtec:{root}").sha256
    assert len(first) == 64
    shutil.copytree(root, tmp_path / "deeper/b")
    os.utime(tmp_path / "deeper/b/train/good/000.png", (1, 1))
    assert load_data(f"mvtec:{tmp_path / 'deeper/b'}").sha256 == first
    assert load_data(f"folder:{root}").sha256 == first
    seen = {first}

    def changed(work):
        here = tmp_path / f"c{len(seen)}"
        shutil.copytree(root, here)
        work(here)
        value = load_data(f"mvtec:{here}").sha256
        assert value not in seen
        seen.add(value)

    def append(path):
        path.write_bytes(path.read_bytes() + b"\0")

    changed(lambda r: append(r / "train/good/000.png"))
    changed(lambda r: append(r / "test/crack/000.png"))
    changed(lambda r: append(r / "ground_truth/crack/000_mask.png"))
    changed(lambda r: (r / "train/good/000.png").rename(r / "train/good/new.png"))
    changed(lambda r: (r / "train/good/004.png").rename(r / "test/good/004.png"))
    changed(lambda r: [(r / part / "dent").rename(r / part / "bump") for part in ("test", "ground_truth")])


# ---- layouts


def test_mvtec(tmp_path):
    data = load_data(f"mvtec:{tree(tmp_path / 'bottle')}")
    assert isinstance(data, DataSet) and (data.name, data.category) == ("mvtec", "bottle")
    assert data.train.names == tuple(f"train/good/{i:03d}.png" for i in range(5)) and not data.train.labels.any()
    assert data.test.labels.tolist() == [1, 1, 1, 0, 0]


def test_mvtec_errors(tmp_path):
    root = tree(tmp_path / "a")
    (root / "ground_truth/dent/000_mask.png").unlink()
    line = line_of(load_data, f"mvtec:{root}")
    assert "test/dent/000.png" in line and "ground_truth/dent/000_mask.png" in line
    assert load_data(f"folder:{root}").test.has_masks is False
    shutil.rmtree(root / "train/good")
    for layout in ("mvtec", "folder"):
        assert "no normal images" in line_of(load_data, f"{layout}:{root}")
    (root / "train/good").mkdir()
    assert "no normal images" in line_of(load_data, f"mvtec:{root}")
    (tmp_path / "file").touch()
    assert "no folder" in line_of(load_data, f"mvtec:{tmp_path / 'absent'}")
    assert "not a folder" in line_of(load_data, f"folder:{tmp_path / 'file'}")
    save(tmp_path / "b/train/good/0.png")
    assert "test" in line_of(load_data, f"mvtec:{tmp_path / 'b'}")
    (tmp_path / "b/test/good").mkdir(parents=True)
    assert "no images" in line_of(load_data, f"mvtec:{tmp_path / 'b'}")


def test_folder_masks_of_other_types(tmp_path):
    root = tree(tmp_path / "a", masks=False)
    save(root / "ground_truth/crack/000.bmp", np.full((12, 17), 255, np.uint8))
    test = load_data(f"folder:{root}").test
    assert test.mask(0).all() and test.mask(1) is None and not test.has_masks


@pytest.mark.parametrize("nested", [False, True])
def test_folder_of_good_pictures(tmp_path, nested):
    for i in range(10):
        save(tmp_path / "d" / (f"line{i % 2}/x{i}.png" if nested else f"x{i}.png"))
    a, b = (load_data(f"folder:{tmp_path / 'd'}", seed) for seed in (0, 0))
    assert len(a.test) == 2 and len(a.train) == 8 and a.test.names == b.test.names
    assert not set(a.train.names) & set(a.test.names) and not a.test.labels.any()
    assert len({load_data(f"folder:{tmp_path / 'd'}", seed).test.names for seed in range(8)}) > 1


def test_folder_errors(tmp_path):
    assert "holds no images" in line_of(load_data, f"folder:{tmp_path}")
    save(tmp_path / "one/a.png")
    assert "single" in line_of(load_data, f"folder:{tmp_path / 'one'}")
    save(tmp_path / "mixed/good/a.png")
    save(tmp_path / "mixed/broken/a.png")
    assert "broken" in line_of(load_data, f"folder:{tmp_path / 'mixed'}")


def btad(root):
    "One product, the masks of another type than the pictures."
    for part, n in (("train/ok", 3), ("test/ok", 2), ("test/ko", 2)):
        for i in range(n):
            save(root / part / f"{i:04d}.bmp", GREY[:8, :8])
    for i in range(2):
        save(root / "ground_truth/ko" / f"{i:04d}.png", np.eye(8, dtype=np.uint8) * 255)
    return root


def test_btad(tmp_path):
    data = load_data(f"btad:{btad(tmp_path / '01')}")
    assert (data.name, data.category) == ("btad", "01") and not data.train.labels.any()
    assert data.train.names == tuple(f"train/ok/{i:04d}.bmp" for i in range(3))
    assert data.test.labels.tolist() == [0, 0, 1, 1] and data.test.defects == ("good", "good", "ko", "ko")
    assert data.test.has_masks and (data.test.mask(2) == np.eye(8, dtype=bool)).all() and not data.test.mask(0).any()


def test_btad_errors(tmp_path):
    root = btad(tmp_path / "01")
    (root / "ground_truth/ko/0001.png").unlink()
    assert "test/ko/0001.bmp" in line_of(load_data, f"btad:{root}")
    for file in (root / "train/ok").iterdir():
        file.unlink()
    assert "train/ok holds no images" in line_of(load_data, f"btad:{root}")
    (root / "train/ok").rmdir()
    assert "no folder" in line_of(load_data, f"btad:{root}")


def visa(root):
    "Two objects of which one is read; masks hold the numbers of defects."
    lines = ["object,split,label,image,mask", "candle,train,normal,candle/Data/Images/Normal/0.JPG,"]
    for i, (split, label) in enumerate((("train", "normal"), ("test", "anomaly"), ("train", "normal"), ("test", "normal"))):
        image = f"pcb1/Data/Images/{label.capitalize()}/{i}.JPG"
        mask = f"pcb1/Data/Masks/Anomaly/{i}.png" if label == "anomaly" else ""
        save(root / image, GREY[:8, :8])
        if mask:
            save(root / mask, np.diag(np.arange(8, dtype=np.uint8)))
        lines.append(f"pcb1,{split},{label},{image},{mask}")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(lines))
    return root


def test_visa(tmp_path):
    data = load_data(f"visa:{visa(tmp_path / 'VisA')}:pcb1")
    assert (data.name, data.category, len(data.train), data.train.labels.any()) == ("visa", "pcb1", 2, False)
    assert data.test.labels.tolist() == [1, 0] and data.test.defects == ("anomaly", "good") and data.test.has_masks
    assert np.diag(data.test.mask(0)).tolist() == [False] + [True] * 7, "every number above 0 is a defect"
    before = data.sha256
    (tmp_path / "VisA").rename(tmp_path / "moved")
    assert load_data(f"visa:{tmp_path / 'moved'}:pcb1").sha256 == before
    save(tmp_path / "moved/pcb1/Data/Masks/Anomaly/1.png", np.diag(np.full(8, 1, np.uint8)))
    assert load_data(f"visa:{tmp_path / 'moved'}:pcb1").sha256 != before, "the hash knows the masks"


def test_visa_errors(tmp_path):
    root = visa(tmp_path / "VisA")
    assert "did you mean 'pcb1'" in line_of(load_data, f"visa:{root}:pcb")
    assert "candle, pcb1" in line_of(load_data, f"visa:{root}")
    assert "candle/Data/Images/Normal/0.JPG" in line_of(load_data, f"visa:{root}:candle")
    (root / "pcb1/Data/Masks/Anomaly/1.png").unlink()
    assert "Masks/Anomaly/1.png" in line_of(load_data, f"visa:{root}:pcb1")
    (root / "split_csv/1cls.csv").write_text("a,b\n1,2\n")
    assert "1cls.csv: not VisA's table" in line_of(load_data, f"visa:{root}:pcb1")
    assert "no folder" in line_of(load_data, f"visa:{tmp_path / 'absent'}:pcb1")


def test_specs(tmp_path):
    assert "did you mean 'mvtec'" in line_of(load_data, "mvtek:x")
    assert "elpv:mono or elpv:poly" in line_of(load_data, "elpv")
    assert "mono" in line_of(load_data, "elpv:nomo")
    assert "mvtec:DIR" in line_of(load_data, "mvtec:")
    assert f"folder:{tmp_path}" in line_of(load_data, str(tmp_path))
    assert {spec.partition(":")[0] for spec in gl.SPECS} == set(gl.LAYOUTS)


def test_elpv_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)  # as if it were not installed
    assert 'pip install "g100[demo]"' in line_of(load_data, "elpv:mono")


@pytest.mark.skipif(find_spec("elpv_dataset") is None, reason="package elpv-dataset is not installed")
@pytest.mark.parametrize(("kind", "good", "bad"), [("mono", 588, 313), ("poly", 920, 402)])
def test_elpv(kind, good, bad):
    sets = [load_data(f"elpv:{kind}", seed) for seed in range(4)]
    for data in sets:
        assert len(data.train) == int(0.6 * good) and (data.test.labels == 0).sum() == good - len(data.train)
        assert (data.test.labels == 1).sum() == bad and not data.train.labels.any()
        assert not set(data.train.names) & set(data.test.names)
    assert len({data.sha256 for data in sets}) == 4 and sets[0].sha256 == load_data(f"elpv:{kind}").sha256
    assert sets[0].train[0].shape == (300, 300, 3) and sets[0].test.has_masks is False


# ---- new ones


@pytest.fixture
def register(monkeypatch):
    "The register, which is as before afterwards."
    monkeypatch.setattr(gl, "LAYOUTS", dict(gl.LAYOUTS))
    monkeypatch.setattr(gl, "SPECS", dict(gl.SPECS))


def test_a_layout_is_registered_where_it_is_written(tmp_path, register):
    before = list(gl.SPECS)

    @gl.layout("flat", "flat:DIR", "a folder", "flat:DIR:N", "the first N of it")
    def load_flat(where, seed=0):
        "What lies in a folder, good, and nothing to be judged."
        rows = [(path, "good", None) for path in image_files(tmp_path / where)]
        return DataSet("flat", f"{where} by {seed}", file_set(tmp_path, rows), file_set(tmp_path, []))

    save(tmp_path / "d/a.png")
    data = load_data("flat:d", 3)
    assert (data.category, data.train.names, len(data.test)) == ("d by 3", ("d/a.png",), 0)
    assert list(gl.SPECS) == [*before, "flat:DIR", "flat:DIR:N"] and gl.SPECS["flat:DIR:N"] == "the first N of it"
    assert load_flat("d").train.names == ("d/a.png",), "the loader itself stays what it is"
    assert "flat:DIR or flat:DIR:N" in line_of(load_data, "flat") and "did you mean 'flat'" in line_of(load_data, "flaat:d")


def test_only_the_specs_of_a_layout_are_offered(register):
    gl.layout("mv", "mv:DIR", "its name begins another's")(None)
    assert "say mv:DIR" in (line := line_of(load_data, "mv")) and "mvtec" not in line


@pytest.mark.parametrize("specs", [(), ("flat:DIR",), ("flat:DIR", "a", "flat:N"), ("other:DIR", "a"), ("a", "flat:DIR")])
def test_specs_that_do_not_belong_to_their_layout_are_refused(register, specs):
    assert "'flat'" in line_of(gl.layout, "flat", *specs) and "flat" not in gl.LAYOUTS


def test_the_register_is_what_the_command_line_prints():
    assert gl.SPECS == {
        "elpv:mono": "monocrystalline solar cells of the package elpv-dataset, labels without masks",
        "elpv:poly": "polycrystalline solar cells of the package elpv-dataset, labels without masks",
        "mvtec:DIR": "a category folder: train/good, test/DEFECT, ground_truth/DEFECT/STEM_mask.png",
        "folder:DIR": "the same tree with masks and defects optional, or a folder of good pictures (20 % held out)",
        "btad:DIR": "a product folder of BTAD: train/ok, test/ok, test/ko, ground_truth/ko/STEM.*",
        "visa:DIR:CATEGORY": "an object of VisA, as its table DIR/split_csv/1cls.csv names the pictures",
    }
    assert list(gl.LAYOUTS) == list(dict.fromkeys(spec.partition(":")[0] for spec in gl.SPECS))
    assert list(gl.SPECS)[:2] == ["elpv:mono", "elpv:poly"] and list(gl.LAYOUTS) == ["elpv", "mvtec", "folder", "btad", "visa"]
