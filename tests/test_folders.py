"""Files, folders and locks: whole or not at all, held by one, and nothing of the user's is ever replaced."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from g100.foundations import folders
from g100.foundations.errors import G100Error
from g100.foundations.folders import (
    beside,
    check_goal,
    files_below,
    fresh_folder,
    locked,
    mark,
    replaced,
    strangers,
    tidied,
    write_text,
)
from g100.foundations.store import read_model, write_tensors
from tests.toys import line_of


class PowerCut(Exception):
    pass


def killed(code: str) -> None:
    "Run code that prints a line and sleeps, and kill it then."
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGKILL)
    process.wait()


# --- a file ---


def test_a_file_is_the_old_one_until_it_is_the_new_one(tmp_path):
    file = tmp_path / "deep" / "note.txt"
    write_text(file, "old")
    with pytest.raises(PowerCut), replaced(file) as draft:
        draft.write_text("half")
        assert file.read_text() == "old"
        raise PowerCut
    assert file.read_text() == "old" and os.listdir(file.parent) == ["note.txt"]
    write_text(file, "new")
    assert file.read_text() == "new" and os.listdir(file.parent) == ["note.txt"]


def test_a_writer_that_cannot_flush_leaves_the_old_file(tmp_path, monkeypatch):
    write_text(tmp_path / "c", "old")
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        write_text(tmp_path / "c", "new")
    assert (tmp_path / "c").read_text() == "old" and os.listdir(tmp_path) == ["c"]


def test_a_killed_writer_leaves_the_old_file_and_is_not_in_the_way(tmp_path):
    write_text(tmp_path / "c", "old")
    killed(f"""
import time
from g100.foundations.folders import replaced
with replaced({str(tmp_path / "c")!r}) as draft:
    draft.write_text("half")
    print("now", flush=True)
    time.sleep(60)
""")
    assert (tmp_path / "c").read_text() == "old"
    write_text(tmp_path / "c", "new")
    assert (tmp_path / "c").read_text() == "new" and os.listdir(tmp_path) == ["c"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_rights_are_those_of_the_users_settings(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_tensors(tmp_path / "t", {"a": torch.ones(2)})
        write_text(tmp_path / "x", "x")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "tx"] == [0o666 & ~mask] * 2


# --- a folder ---


def made(goal: Path, force: bool = False, needed=(), **files: str) -> None:
    "Make a folder of these files."
    with fresh_folder(goal, force, needed) as draft:
        for name, text in files.items():
            (draft / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    "All files below a folder, but for the marks."
    return {name: (folder / name).read_text() for name in files_below(folder) if Path(name).name != ".g100"}


@pytest.fixture(params=["in one act", "by two renames"])
def way(request, monkeypatch):
    "Both ways of taking and exchanging names, the system's and the portable one."
    if request.param == "by two renames":
        monkeypatch.setattr(folders, "renamed", lambda old, new, swap: False)
    return request.param


def test_a_failed_folder_leaves_nothing_not_even_its_parents(tmp_path):
    (tmp_path / "here").mkdir()
    with pytest.raises(PowerCut), fresh_folder(tmp_path / "here" / "b" / "c") as draft:
        (draft / "half").write_text("half")
        raise PowerCut
    assert os.listdir(tmp_path) == ["here"] and not os.listdir(tmp_path / "here")


def test_a_folder_is_replaced_whole(tmp_path, way):
    made(tmp_path / "a", one="1", two="2")
    made(tmp_path / "a", force=True, one="new")
    assert content(tmp_path) == {"a/one": "new"} and os.listdir(tmp_path) == ["a"]
    assert strangers(tmp_path / "a") == []


def test_a_failed_replacement_keeps_the_old(tmp_path, way):
    made(tmp_path / "old", kept="kept")
    with pytest.raises(PowerCut), fresh_folder(tmp_path / "old", force=True):
        raise PowerCut
    assert content(tmp_path) == {"old/kept": "kept"} and os.listdir(tmp_path) == ["old"]
    assert "exists" in line_of(lambda: fresh_folder(tmp_path / "old").__enter__())


def test_a_draft_may_last(tmp_path):
    with pytest.raises(PowerCut), fresh_folder(tmp_path / "a", lasting=True) as draft:
        (draft / "one").write_text("1")
        raise PowerCut
    assert content(tmp_path) == {"a.unfinished/one": "1"}
    made(tmp_path / "a", old="old")
    with fresh_folder(tmp_path / "a", force=True, lasting=True) as draft:
        (draft / "two").write_text("2")
    assert content(tmp_path) == {"a/one": "1", "a/two": "2"} and os.listdir(tmp_path) == ["a"]
    assert strangers(tmp_path / "a") == []


def test_a_second_rename_that_fails_puts_the_old_one_back(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "renamed", lambda old, new, swap: False)
    made(tmp_path / "a", old="old")
    rename, calls = Path.rename, []

    def failing(self, target):
        calls.append(self.name)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output"):
        made(tmp_path / "a", force=True, new="new")
    assert content(tmp_path) == {"a/old": "old"} and os.listdir(tmp_path) == ["a"]


def test_only_what_g100_made_is_replaced(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_text("precious")
    assert "was not made by g100" in line_of(made, photos, True)
    made(tmp_path / "result", scores="s")
    (tmp_path / "result" / "deep").mkdir()
    (tmp_path / "result" / "deep" / "notes.txt").write_text("mine")
    said = line_of(made, tmp_path / "result", True)
    assert "deep/notes.txt" in said and "more" not in said
    (tmp_path / "file").write_text("a file")
    assert "was not made by g100" in line_of(made, tmp_path / "file", True)
    for mistaken in ("{}", "[", "", '{"made by g100": 7}', "[" * 100_000):
        (photos / ".g100").write_text(mistaken)
        assert "was not made by g100" in line_of(made, photos, True)
    theirs = {"photos/a.png": "precious", "result/deep/notes.txt": "mine", "file": "a file"}
    assert content(tmp_path) == theirs | {"result/scores": "s"}


def test_litter_of_desktops_is_no_stranger_and_links_are(tmp_path):
    made(tmp_path / "a", one="1")
    (tmp_path / "a" / ".DS_Store").write_text("")
    made(tmp_path / "a", True, one="2")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "a" / "link").symlink_to(elsewhere, target_is_directory=True)
    assert "a holds link" in line_of(made, tmp_path / "a", True)
    (tmp_path / "to-a").symlink_to(tmp_path / "a", target_is_directory=True)
    assert "is a link to" in line_of(made, tmp_path / "to-a", True)


def test_nothing_needed_is_replaced(tmp_path, monkeypatch):
    made(tmp_path / "a", picture="p")
    for needed in (tmp_path / "a", tmp_path / "a" / "picture", tmp_path / "." / "a" / ".." / "a"):
        assert "in use" in line_of(check_goal, tmp_path / "a", True, [needed])
    (tmp_path / "link").symlink_to(tmp_path / "a" / "picture")
    assert "in use" in line_of(check_goal, tmp_path / "a", True, [tmp_path / "link"])
    check_goal(tmp_path / "a", True, [tmp_path, tmp_path / "ab", tmp_path / "b"])
    monkeypatch.chdir(tmp_path / "a")
    assert "in use" in line_of(check_goal, Path(tmp_path / "a"), True)


@pytest.mark.parametrize("theirs", [{}, {"theirs": "t"}])
def test_what_appears_meanwhile_stays_and_the_result_is_kept_beside(tmp_path, way, theirs):
    for i in (2, 3):
        said = f"appeared meanwhile.*the result is in .*a-{i}"
        with pytest.raises(G100Error, match=said), fresh_folder(tmp_path / "a") as draft:
            (draft / "mine").write_text(f"{i}")
            (tmp_path / "a").mkdir()
            for name, text in theirs.items():
                (tmp_path / "a" / name).write_text(text)
        (tmp_path / "a").rename(tmp_path / f"theirs-{i}")
    stays = {f"theirs-{i}/{name}": "t" for i in (2, 3) for name in theirs}
    assert content(tmp_path) == {"a-2/mine": "2", "a-3/mine": "3"} | stays
    assert len(os.listdir(tmp_path)) == 4


def test_notes_put_into_the_old_folder_meanwhile_stay(tmp_path, way):
    made(tmp_path / "a", old="old")
    said = "holds note.*the result is in .*a-2"
    with pytest.raises(G100Error, match=said), fresh_folder(tmp_path / "a", force=True) as draft:
        (draft / "new").write_text("new")
        (tmp_path / "a" / "note").write_text("mine")
    assert content(tmp_path) == {"a/old": "old", "a/note": "mine", "a-2/new": "new"}


def test_of_two_the_second_is_refused(tmp_path):
    inside, go = threading.Event(), threading.Event()

    def first():
        with fresh_folder(tmp_path / "a") as draft:
            (draft / "first").write_text("1")
            inside.set()
            go.wait(30)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(30)
    for force in (False, True):
        said = line_of(lambda f=force: made(tmp_path / "a", f, second="2"))
        assert said.startswith(f"{tmp_path / 'a'}: another command is at work here")
    go.set()
    thread.join()
    assert content(tmp_path) == {"a/first": "1"} and os.listdir(tmp_path) == ["a"]


def test_what_a_killed_process_has_left_goes_with_the_next(tmp_path):
    killed(f"""
import time
from g100.foundations.folders import fresh_folder
with fresh_folder({str(tmp_path / "model")!r}) as draft:
    (draft / "model.safetensors").write_bytes(b"half")
    print("now", flush=True)
    time.sleep(60)
""")
    assert not (tmp_path / "model").exists() and list(tmp_path.iterdir())
    for left in tmp_path.iterdir():
        line_of(read_model, left)
    made(tmp_path / "model", whole="whole")
    assert content(tmp_path) == {"model/whole": "whole"} and os.listdir(tmp_path) == ["model"]


def test_an_old_folder_that_had_stepped_aside_comes_back(tmp_path):
    made(tmp_path / "a", old="old")
    (tmp_path / "a").rename(beside(tmp_path / "a", "old"))
    with pytest.raises(PowerCut), fresh_folder(tmp_path / "a", force=True):
        raise PowerCut
    assert content(tmp_path) == {"a/old": "old"}
    (tmp_path / "a").rename(beside(tmp_path / "a", "old"))
    made(tmp_path / "a", new="new", force=True)
    tidied(tmp_path / "a")
    assert content(tmp_path) == {"a/new": "new"} and os.listdir(tmp_path) == ["a"]


def test_a_hidden_folder_of_the_users_that_only_has_the_name_stays(tmp_path):
    for goal in ("a", "b"):
        beside(tmp_path / goal, "old").mkdir()
        (beside(tmp_path / goal, "old") / "diary").write_text("mine")
    made(tmp_path / "a", one="1")
    made(tmp_path / "a", force=True, one="2")
    with pytest.raises(PowerCut), fresh_folder(tmp_path / "b"):
        raise PowerCut
    assert content(tmp_path) == {".a.old/diary": "mine", ".b.old/diary": "mine", "a/one": "2"}


def test_a_full_disk_names_the_folder(tmp_path):
    with pytest.raises(OSError) as caught, fresh_folder(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    assert str(tmp_path / "a") in str(caught.value) and not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "{}", "{out}", "a b", "-rf", "$HOME", "[a-z]*", "new\nline", ".hidden"])
def test_names_of_all_kinds(tmp_path, name, way):
    for force in (False, True):
        made(tmp_path / name, force=force, one="1")
    write_text(tmp_path / name / name, "text")
    assert set(content(tmp_path)) == {f"{name}/one", f"{name}/{name}"} and os.listdir(tmp_path) == [name]


LETTERS = st.characters(codec="utf-8", exclude_characters="/\0")
NAMES = st.text(LETTERS, min_size=1, max_size=20).filter(lambda name: name not in (".", ".."))


@settings(deadline=None, max_examples=40)
@given(st.sets(NAMES, max_size=5), st.sets(NAMES, max_size=3))
def test_the_mark_knows_what_it_has_marked(tmp_path_factory, ours, others):
    folder = tmp_path_factory.mktemp("m")
    for name in ours:
        (folder / name).write_bytes(b"")
    mark(folder)
    assert strangers(folder) == []
    for name in others - {".g100"}:
        (folder / name).write_bytes(b"")
    assert strangers(folder) == sorted(others - ours - {".g100"} - folders.LITTER)


# --- a lock ---


def test_one_holds_the_lock_and_a_dead_process_does_not(tmp_path):
    code = f"""
import time
from g100.foundations.folders import locked
with locked({str(tmp_path / "a.lock")!r}):
    print("now", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "now\n"
    said = line_of(lambda: locked(tmp_path / "a.lock").__enter__())
    assert f"process {process.pid}" in said and str(tmp_path) in said
    (tmp_path / "a.holder").unlink()  # as the holder does just before it lets go
    assert "another process" in line_of(lambda: locked(tmp_path / "a.lock").__enter__())
    (tmp_path / "a.holder").mkdir()  # there, and not to be read: as where it goes between a look and the reading
    assert "another process" in line_of(lambda: locked(tmp_path / "a.lock").__enter__())
    (tmp_path / "a.holder").rmdir()
    process.kill()
    process.wait()
    with locked(tmp_path / "a.lock"):
        assert f"process {os.getpid()}" in (tmp_path / "a.holder").read_text()
    with locked(tmp_path / "a.lock", wait=True):
        pass
    assert not os.listdir(tmp_path), "neither the lock nor its holder's name is left"


def test_many_hold_one_lock_one_after_the_other(tmp_path):
    "Each removes the lock's file while the others wait for it."
    inside, most = [], []

    def hold():
        for _ in range(10):
            with locked(tmp_path / "a.lock", wait=True):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=hold) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1} and len(most) == 60 and not os.listdir(tmp_path)
