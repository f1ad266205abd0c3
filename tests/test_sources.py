"g100.foundations.sources: which files are found, and what an image set may hold (what may become one: test_inputs.py)."

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from g100.foundations import sources as gs
from g100.foundations.pictures import ImageSet, read_image
from g100.foundations.sources import as_image_set, readable
from tests.test_pictures import RNG, few, save, some_set, tree
from tests.toys import line_of

# ---- finding files


@pytest.mark.parametrize("kind", ["jpg", "JPEG", "bmp", "tif", "TIFF", "webp", "PNG"])
def test_every_extension_is_read_and_listed(tmp_path, kind):
    save(tmp_path / f"a.{kind}", np.full((8, 8), 77, np.uint8))
    assert gs.image_files(tmp_path) == [tmp_path / f"a.{kind}"]
    got = read_image(tmp_path / f"a.{kind}")
    assert got.dtype == np.uint8 and got.shape == (8, 8, 3) and np.abs(got.astype(int) - 77).max() <= 1


def test_order_is_natural_and_hidden_files_are_ignored(tmp_path):
    for name in ("b10.png", "b9.PNG", "a.jpg", "._b9.png", "notes.txt"):
        save(tmp_path / name) if "txt" not in name and not name.startswith(".") else (tmp_path / name).touch()
    save(tmp_path / ".hidden/x.png")
    assert [path.name for path in gs.image_files(tmp_path, deep=True)] == ["a.jpg", "b9.PNG", "b10.png"]


@few
@given(st.lists(st.text(max_size=8)))
def test_natural_order_is_total(names):
    once = sorted(names, key=gs.natural)
    assert sorted(reversed(names), key=gs.natural) == once
    for a in names:
        assert gs.natural(a) == gs.natural(a) and (gs.natural(f"t{2}") < gs.natural(f"t{10}"))


# ---- what an ImageSet may hold


def test_what_is_in_a_set_is_checked(tmp_path):
    stack = RNG.random((2, 5, 9, 3)).astype(np.float32)
    for value, word in ((np.nan, "NaN"), (np.inf, "NaN or Inf"), (1.5, "[0, 1]"), (-0.1, "[0, 1]")):
        wrong = stack.copy()
        wrong[1, 2, 3, 0] = value
        image = ImageSet([wrong[1]], ["bad one"], [0], ["good"], [None])
        assert word in line_of(as_image_set, wrong) and "bad one" in line_of(as_image_set, image)
    images = some_set()
    assert as_image_set(images) is images and set(as_image_set(stack).labels) == {-1}


def test_what_is_in_a_folder(tmp_path):
    save(tmp_path / "s/x/a.png")
    save(tmp_path / "s/b.png")
    assert as_image_set(tmp_path / "s").names == ("b.png", "x/a.png")
    assert as_image_set(str(tmp_path / "s/b.png")).names == ("b.png",)
    assert as_image_set([tmp_path / "s/b.png", str(tmp_path / "s/x/a.png")]).names == ("b.png", "x/a.png")
    (tmp_path / "none").mkdir()
    assert "holds no images" in line_of(as_image_set, tmp_path / "none")
    assert "whole data set" in line_of(as_image_set, tree(tmp_path / "a"))
    assert "'b.png' stands twice" in line_of(as_image_set, [tmp_path / "s/b.png"] * 2)


def test_readable(tmp_path):
    for i in range(4):
        save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    (tmp_path / "3.png").write_bytes(b"")
    fine, lines = readable(as_image_set(tmp_path))
    assert fine.names == ("0.png", "2.png") and len(lines) == 2 and "1.png" in lines[0] and "3.png" in lines[1]
