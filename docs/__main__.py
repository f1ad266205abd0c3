"""Build the site: `python -m docs` lays chapters and reference out below `build/site`, and runs Sphinx on them, into `_docs/`.

No chapter is executed, nothing is fetched, and a warning is an error. `python -m docs FOLDER WORK` takes two other folders.
"""

import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat.v4 import new_markdown_cell
from sphinx.cmd.build import main as sphinx

from docs import api
from docs.contents import CHINESE, PARTS, READERS, SOLUTIONS
from docs.stage import computed, exports, plain, staged, title_and_about
from tests.chinese import LINK, ZH, chinese
from tests.notebooks import NBS, ROOT, chapters, read, solutions, templates

HERE = Path(__file__).parent
GLOSSARY = "zh/glossary"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def toctree(caption: str, pages: list[str]) -> str:
    return "\n".join([f"```{{toctree}}\n:caption: {caption}\n:hidden:\n", *pages, "```", ""])


def navigation(places: dict[str, str], modules: list[str]) -> list[tuple[str, list[str]]]:
    "What stands in the margin of every page and is walked by previous and next: captions, and the pages below each."
    trees = [("Where to begin", ["contents", *READERS])]
    trees += [(part.title, [places[stem] for stem in part.chapters]) for part in PARTS]
    trees[-1][1].extend(f"reports/{path.stem}" for path in templates())
    trees.append((SOLUTIONS.title, [places[stem] for stem in SOLUTIONS.chapters]))
    trees.append((CHINESE.title, [*(places[f"{stem}.zh"] for stem in CHINESE.chapters), GLOSSARY]))
    return [*trees, ("Reference", ["api/index", *(f"api/{module}" for module in modules)])]


def contents_page(places: dict[str, str], abouts: dict[str, tuple[str, str]]) -> str:
    "The book by parts, each chapter with its own first sentence."
    lines = ["# Contents", ""]
    for part in (*PARTS, SOLUTIONS):
        lines += [f"## {part.title}", "", part.about, "", *listed(part.chapters, places, abouts), ""]
    stems = [f"{stem}.zh" for stem in CHINESE.chapters]
    lines += [f"## {CHINESE.title}", "", CHINESE.about, "", *listed(stems, places, abouts)]
    return "\n".join([*lines, f"- **[术语表]({GLOSSARY}.md)**", ""])


def listed(stems: Iterable[str], places: dict[str, str], abouts: dict[str, tuple[str, str]]) -> list[str]:
    return [f"- **[{abouts[stem][0]}]({places[stem]}.ipynb)**: {api.escaped(abouts[stem][1])}" for stem in stems]


def first_words(name: str) -> str:
    "The first paragraph of a reader's page, as words."
    return plain((HERE / "pages" / f"{name}.md").read_text(encoding="utf-8").split("\n\n")[1])


def doors() -> str:
    "The three readers, for the first page."
    lines = [f"- **[{title}]({name}.md)** {first_words(name)}" for name, title in READERS.items()]
    return "\n".join(["{.doors}", *lines, "", "[The contents of the book](contents.md), part by part."])


def first_page(nb, trees: list[tuple[str, list[str]]]):
    "The page that the README is, with the ways into the site after its first sentence."
    head, _, rest = nb.cells[0].source.partition("\n\nSee it work")
    nb.cells[0].source = f"{head}\n\n{doors()}\n\nSee it work{rest}"
    nb.cells.append(new_markdown_cell("\n".join(toctree(*tree) for tree in trees)))
    return nb


def glossary(places: dict[str, str]) -> str:
    "The words of the translation, with links to the pages of the site."
    to = {f"{stem}.md": f"../{places[f'{stem}.zh']}.ipynb" for stem in CHINESE.chapters}
    return LINK.sub(lambda m: f"]({to.get(m[1], m[1])}{m[2] or ''})", (ZH / "glossary.md").read_text(encoding="utf-8"))


def heads(places: dict, abouts: dict, found: list) -> dict[str, str]:
    "The sentence about each page, for its head."
    told = {places[stem]: about for stem, (_, about) in abouts.items()} | {name: first_words(name) for name in READERS}
    told |= {f"api/{each.module}": f"Reference of g100.{each.module}. {abouts[each.stem][1]}" for each in found}
    told["contents"] = "The book by parts: " + ", ".join(part.title for part in PARTS)
    return told | {GLOSSARY: "书中用语的中文与意思。"}


def lay_out(to: Path) -> None:
    "Everything that Sphinx reads, below one folder."
    files = (*chapters(), *solutions(), *templates())
    books = {path.stem: read(path) for path in files}
    places = {path.stem: path.relative_to(NBS).with_suffix("").as_posix() for path in files}
    found = [each for stem, nb in books.items() for each in exports(nb, stem)]
    books |= {f"{stem}.zh": chinese(stem) for stem in CHINESE.chapters}
    places |= {f"{stem}.zh": f"{places[stem]}.zh" for stem in CHINESE.chapters}
    abouts = {stem: title_and_about(nb) for stem, nb in books.items()}
    modules = list(dict.fromkeys(each.module for each in found))
    trees = navigation(places, modules)
    site = {"about": heads(places, abouts, found), "trees": trees,
            "translated": {places[stem]: places[f"{stem}.zh"] for stem in CHINESE.chapters},
            "computed": {places[stem]: computed(nb, stem) for stem, nb in books.items()}}  # fmt: skip
    for stem, nb in books.items():
        nb = staged(nb, stem, new_markdown_cell)
        text = nbformat.writes(first_page(nb, trees) if stem == "index" else nb)
        write(to / f"{places[stem]}.ipynb", text.replace("](../LICENSE)", "](LICENSE)"))
    write_pages(to, places, abouts, modules, found)
    write(to / "site.json", json.dumps(site))


def write_pages(to: Path, places: dict, abouts: dict, modules: list[str], found: list) -> None:
    "What no notebook is: the contents, the readers' pages, the reference; and what the links lead to beside pages."
    write(to / "contents.md", contents_page(places, abouts))
    write(to / f"{GLOSSARY}.md", glossary(places))
    for name in READERS:
        write(to / f"{name}.md", (HERE / "pages" / f"{name}.md").read_text(encoding="utf-8"))
    write(to / "api" / "index.md", api.public_page({(each.module, each.name): each for each in found}))
    for module in modules:
        mine = [each for each in found if each.module == module]
        write(to / "api" / f"{module}.md", api.module_page(module, mine, abouts[mine[0].stem][1]))
    shutil.copytree(NBS / "results", to / "results", dirs_exist_ok=True)
    shutil.copy2(ROOT / "LICENSE", to / "LICENSE")


def build(to: Path, work: Path) -> int:
    "The whole site anew into a folder, by way of another; the exit code of Sphinx. A site that was there stays if one fails."
    if to.exists() and any(to.iterdir()) and not (to / ".buildinfo").exists():
        sys.exit(f"{to} is there, and is no site")
    if (work / "source" / "site.json").exists():
        shutil.rmtree(work)
    lay_out(work / "source")
    folders = (work / "source", work / "html")
    words = ["-b", "html", "-j", "2", "-q", "-W", "--keep-going", "-c", HERE, "-d", work / "doctrees", *folders]
    if code := sphinx([str(word) for word in words]):
        return code
    shutil.rmtree(to, ignore_errors=True)
    shutil.move(work / "html", to)
    return 0


if __name__ == "__main__":
    folders = [Path(word).resolve() for word in sys.argv[1:3]]
    sys.exit(build(*folders, *(ROOT / "_docs", ROOT / "build" / "site")[len(folders) :]))
