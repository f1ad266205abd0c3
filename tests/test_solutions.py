"""The exercises of the chapters and the notebooks of `nbs/solutions`: one for the other, quoted, linked, with the same numbers.

That a solution is right is said by its own cells, which print what a reader should see and fail where it is not found
(`test_notebook_runs` of tests/test_notebooks.py runs them).
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from docs.contents import PARTS
from tests.notebooks import NBS, chapters, read, solutions

SECTION = re.compile(r"^## Exercises\n(.*?)(?=^#|^\*\*|\Z)", re.MULTILINE | re.DOTALL)
ITEM = re.compile(r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"(?P<said>.*?)(?: \*You should see (?P<target>.+?)\*)?(?: \[Solution\]\((?P<link>\S+)\))?")
CHAPTER = re.compile(r"^## (\d+)\. |^### Exercise (\d+)\.", re.MULTILINE)
HEADING = re.compile(r"^### Exercise (\d+\.\d+)$", re.MULTILINE)
QUOTE = re.compile(r"^> \*\*\[(\d+\.\d+)\]\((\S+)\)\*\* (.*?)(?=^[^>]|\Z)", re.MULTILINE | re.DOTALL)
SEEN = re.compile(r"^you should see (.*?)(?: \(here .*)?$", re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Exercise:
    "An exercise of a chapter: its text, the number that its reader should see, if there is one, and where its solution is."

    chapter: Path
    said: str
    target: str | None
    link: str | None


def words(text: str) -> str:
    "A text on one line, without the targets of its links, which depend on where it stands."
    return re.sub(r"\]\([^)]*\)", "]", " ".join(text.replace("\n> ", "\n").split()))


def numbers(text: str) -> set[float]:
    "The numbers in a text."
    return {float(number) for number in NUMBER.findall(text)}


def exercises(path: Path) -> dict[str, Exercise]:
    "The exercises of a chapter by number, such as 7.2, in their order."
    found, number = {}, re.match(r"(\d+)_", path.stem)
    texts = [m[1] for cell in read(path).cells if cell.cell_type == "markdown" for m in SECTION.finditer(cell.source)]
    for k, text in (item for section in texts for item in ITEM.findall(section)):
        said = TARGET.fullmatch(" ".join(text.split()))
        found[f"{int(number[1])}.{k}"] = Exercise(path, words(said["said"]), said["target"], said["link"])
    return found


def solved(path: Path) -> dict[str, tuple[str, str, str]]:
    "The solutions of a notebook by number, in their order: what they quote, its link, and all that is printed to be seen."
    found, at = {}, None
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            if heading := HEADING.search(cell.source):
                at, (number, link, text) = heading[1], QUOTE.search(cell.source).groups()
                assert number == at and at not in found, f"{path.name}: {at}"
                found[at] = words(text), link, ""
        elif at:
            printed = "".join(output.get("text", "") for output in cell.outputs)
            found[at] = (*found[at][:2], found[at][2] + "\n".join(["", *SEEN.findall(printed)]))
    return found


BOOK = {path.stem: path for path in chapters()}
ASKED = {part.solutions: [exercises(BOOK[stem]) for stem in part.chapters] for part in PARTS}
ASKED = {name: {key: each for found in asked for key, each in found.items()} for name, asked in ASKED.items()}


@pytest.mark.parametrize("path", solutions(), ids=lambda path: path.stem)
def test_every_exercise_has_a_solution_and_every_solution_its_exercise(path):
    "In the order of the book, quoted as it stands in its chapter."
    asked, found = ASKED[path.stem], solved(path)
    assert list(found) == list(asked)
    for number, (quoted, link, seen) in found.items():
        home, _, fragment = link.partition("#")
        assert (path.parent / home).resolve() == asked[number].chapter and fragment == "Exercises", number
        assert quoted == asked[number].said, number
        assert seen.strip(), f"{number} says nothing that should be seen"


@pytest.mark.parametrize("path", solutions(), ids=lambda path: path.stem)
def test_a_chapter_leads_to_the_solution_and_says_the_number_that_it_prints(path):
    found = solved(path)
    for number, exercise in ASKED[path.stem].items():
        file, _, fragment = (exercise.link or "").partition("#")
        assert (exercise.chapter.parent / file).resolve() == path and fragment == f"Exercise-{number}", number
        told, printed = exercise.target or "", numbers(found[number][2])
        assert numbers(told) <= printed, f"{number}: {told}, printed is {printed}"
        assert all(name in found[number][2] for name in re.findall(r"`([^`]+)`", told)), number


@pytest.mark.parametrize("path", solutions(), ids=lambda path: path.stem)
def test_solutions_stand_below_the_heading_of_their_chapter(path):
    text, chapter = "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown"), None
    found = CHAPTER.findall(text)
    assert found
    for heading, exercise in found:
        chapter = heading or chapter
        assert not exercise or exercise == chapter


def test_every_part_with_exercises_has_a_notebook_and_no_chapter_is_without_a_part():
    assert {path.stem for path in solutions()} == {name for name, asked in ASKED.items() if asked}
    told = {key for asked in ASKED.values() for key in asked}
    assert told == {key for path in chapters() if path.stem != "index" for key in exercises(path)}
    assert [path.name for path in (NBS / "solutions").glob("*.py")] == ["exercise.py"]
