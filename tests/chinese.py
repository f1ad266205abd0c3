"""The Chinese book: `nbs/zh/NAME.md` holds the text of a chapter, a block a Markdown cell; all else is the chapter's own.

A block is headed by `<!-- CELL HASH -->`: the cell's id, and a short hash of the English source that it translates. Code,
outputs and figures are taken from the English notebook when the Chinese one is built, so that no number stands twice. Links
in a block are seen from `nbs/zh`, where they can be followed; `NAME.zh.ipynb` lies beside `NAME.ipynb`.

`python -m tests.notebooks zh [OUT]` builds the book with its Chinese chapters in a folder (`_zh`) and writes README.zh-CN.md;
`... zh-stale` prints the cells whose English has changed, `... zh-stamp NAME CELL ...` says that their blocks are renewed.
A new translation begins with an empty `nbs/zh/NAME.md`: `zh-stale` prints all that is to be written.
"""

import difflib
import hashlib
import json
import os
import posixpath
import re
import shutil
import subprocess
from pathlib import Path

import nbformat

from tests.notebooks import NBS, ROOT, chapters, markdown, read, switched

ZH = NBS / "zh"
HEAD = re.compile(r"^<!-- (\w+) ?([0-9a-f]{8})? -->\n", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s#]*)(#[^)\s]*)?\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def short(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:8]


def translated() -> dict[str, Path]:
    "The chapters that have a translation: name -> notebook."
    return {path.stem: path for path in chapters() if (ZH / f"{path.stem}.md").exists()}


def blocks(name: str) -> dict[str, tuple[str | None, str]]:
    "The translation of a chapter: cell id -> (hash of the English it translates, Chinese)."
    parts = HEAD.split((ZH / f"{name}.md").read_text(encoding="utf-8"))[1:]
    return {cell: (of, text.strip()) for cell, of, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)}


def prose(name: str) -> dict[str, str]:
    "The Markdown cells of a chapter: cell id -> English source."
    return {cell.id: cell.source for cell in read(translated()[name]).cells if cell.cell_type == "markdown"}


def headings(text: str) -> list[str]:
    return re.findall(r"^#{1,6} +(.+?) *$", FENCE.sub("", text), re.MULTILINE)


def fragments(name: str) -> dict[str, str]:
    "What stands behind # in links to a chapter: that of each English heading -> that of the Chinese one."
    found = blocks(name)
    pairs = ((e, c) for cell, source in prose(name).items() if cell in found
             for e, c in zip(headings(source), headings(found[cell][1]), strict=False))  # fmt: skip
    return {f"#{english.replace(' ', '-')}": f"#{chinese.replace(' ', '-')}" for english, chinese in pairs}


def relinked(text: str, name: str) -> str:
    "A block's links as they are seen from its chapter; those to a translated chapter lead to the Chinese one."
    books = translated()
    home = books[name].parent.relative_to(NBS).as_posix()

    def seen(found: re.Match) -> str:
        target, fragment = found[1], found[2] or ""
        if re.match("https?:|mailto:", target):
            return found[0]
        if target:
            target = posixpath.relpath(posixpath.join("zh", target), home)
        stem = Path(target).stem if target else name
        if stem in books and target in ("", posixpath.relpath(books[stem].relative_to(NBS).as_posix(), home)):
            fragment = fragments(stem).get(fragment, fragment)
            target = re.sub(r"\.ipynb$", ".zh.ipynb", target)
        return f"]({target}{fragment})"

    pieces = re.split(r"(^```.*?^```|`[^`\n]*`)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(piece if i % 2 else LINK.sub(seen, piece) for i, piece in enumerate(pieces))


def chinese(name: str):
    "A chapter in Chinese, nbformat: its text from `nbs/zh`, its code and outputs its own; English where a block is missing."
    nb, found = read(translated()[name]), blocks(name)
    for cell in nb.cells:
        if cell.cell_type == "markdown" and cell.id in found:
            cell.source = relinked(found[cell.id][1], name)
    return nb


def readme() -> str:
    "README.zh-CN.md: the Chinese index as README.md is made of the English one; translated chapters by their text."
    nb = switched(chinese("index"), English="../README.md", 术语表="zh/glossary.md")
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\((?:\w+/)?(\w+)\.zh\.ipynb(?:#[^)]*)?\)", r"](zh/\1.md)", cell.source)
    return markdown(nb)


def build(out: Path) -> list[Path]:
    "The book into a folder, as it is, and beside each translated chapter the Chinese one; where those are."
    shutil.copytree(NBS, out, ignore=shutil.ignore_patterns(".ipynb_checkpoints"), dirs_exist_ok=True)
    made = []
    for name, path in translated().items():
        made.append(out / path.relative_to(NBS).with_suffix(".zh.ipynb"))
        terms = posixpath.relpath("zh/glossary.md", path.parent.relative_to(NBS).as_posix())
        nbformat.write(switched(chinese(name), English=path.name, 术语表=terms), made[-1])
    return made


def stale(name: str) -> dict[str, str]:
    "The Markdown cells of a chapter without a block that translates their present source: id -> what is wrong, in one line."
    found, file = blocks(name), f"nbs/zh/{name}.md"
    way = f"see python -m tests.notebooks zh-stale; then zh-stamp {name}"
    wrong = {cell: f"{file}: no block for cell {cell}; {way} {cell}" for cell in prose(name) if cell not in found}
    changed = [cell for cell, source in prose(name).items() if cell in found and found[cell][0] != short(source)]
    return wrong | {cell: f"{file}: the English of cell {cell} has changed; {way} {cell}" for cell in changed}


def former(name: str, cell: str, of: str | None) -> str | None:
    "The English source that a block translates, from the history of the notebook; None where it is not in it."
    file = translated()[name].relative_to(ROOT).as_posix()
    git = ["git", "-C", str(ROOT)]
    log = subprocess.run([*git, "log", "--format=%h", "-50", "--", file], capture_output=True, text=True, check=False).stdout
    for commit in log.split() if of else ():
        shown = subprocess.run([*git, "show", f"{commit}:{file}"], capture_output=True, text=True, check=False).stdout
        for old in json.loads(shown or '{"cells": []}')["cells"]:
            source = "".join(old["source"])
            if old.get("id") == cell and short(source) == of:
                return source
    return None


def say_stale(name: str) -> None:
    "Print what is needed to renew the blocks of a chapter: the change of the English, its new source, the old block."
    found, sources = blocks(name), prose(name)
    for cell, wrong in stale(name).items():
        of, block = found.get(cell, (None, "(none)"))
        old = former(name, cell, of)
        change = difflib.unified_diff((old or "").splitlines(), sources[cell].splitlines(), "then", "now", lineterm="")
        print(f"==== {wrong}\n---- English\n{sources[cell]}\n---- Chinese\n{block}")
        print("---- what changed\n" + "\n".join(change) if old else "---- (the former English is not in the history)")
    for cell in found.keys() - sources.keys():
        print(f"==== nbs/zh/{name}.md: cell {cell} is no longer in the chapter; remove its block")


def stamp(name: str, cells: list[str]) -> None:
    "Head the blocks of these cells with the hash of their present English."
    if name not in translated():
        raise SystemExit(f"{name}: not a translated chapter; there are {', '.join(translated())}")
    file, sources = ZH / f"{name}.md", prose(name)
    if missing := [cell for cell in cells if cell not in blocks(name) or cell not in sources]:
        raise SystemExit(f"nbs/zh/{name}.md: no block for {', '.join(missing)}; write one below <!-- {missing[0]} -->")
    text = file.read_text(encoding="utf-8")
    for cell in cells:
        text = re.sub(rf"^<!-- {cell}\b.*-->$", f"<!-- {cell} {short(sources[cell])} -->", text, flags=re.MULTILINE)
    file.write_text(text, encoding="utf-8")


def command(words: list[str]) -> None:
    "What `python -m tests.notebooks zh...` does."
    if words[0] == "zh-stale":
        for name in translated():
            say_stale(name)
    elif words[0] == "zh-stamp":
        stamp(words[1], words[2:])
    else:
        for path in build(Path(words[1] if len(words) > 1 else ROOT / "_zh").resolve()):
            print(os.path.relpath(path))
        (ROOT / "README.zh-CN.md").write_text(readme(), encoding="utf-8")
        print(*(wrong for name in translated() for wrong in stale(name).values()), sep="\n")
