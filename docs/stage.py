"""The notebooks as the site shows them: changed in memory, laid into a folder of the build, and never committed.

What a reader of the site need not see goes (directives, remarks to a formatter), what can wait is folded (imports, drawing),
and what a page must have is added (texts for figures, what a cell exports and where it is described).
"""

import ast
import re
from dataclasses import dataclass

EXPORTED = re.compile(r"#\|\s*export\b")
MODULE = re.compile(r"#\|\s*default_exp\s+(\S+)")
DIRECTIVE = re.compile(r"^#\|.*\n?", re.MULTILINE)
REMARK = re.compile(r"[ \t]*#[ \t]*(?:fmt: skip|fmt: off|fmt: on|noqa\b[^\n]*|type: ignore\b[^\n]*)[ \t]*$", re.MULTILINE)
DRAWS = re.compile(r"\bplt\.(?!style|rc)|\b(?:axes|figure)\s*[.,=\[)]|\baxis\s*[.,\[)]")
TAG = re.compile(r"\\tag\{([^}]*)\}")
FIGURE = re.compile(r"\*\*(?:Figure |图 )(\d+\.\d+)[.。]\*\*\s*((?:.+\n?)+)")  # a caption: the first paragraph of a cell
HEADING = re.compile(r"(#{1,6})\s+(.*)")
# what the site itself says on a page
ENGLISH = {"imports": "Imports", "figure": "How the figure is drawn", "drawn": "How it is drawn", "equation": "equation",
           "module": "What this chapter exports is the module {}.", "in": "Figure in “{}”",
           "code": "code: ", "sep": ": "}  # fmt: skip
CHINESE = {"imports": "导入", "figure": "这幅图怎样画成", "drawn": "怎样画成", "equation": "式",
           "module": "本章导出的模块是 {}。", "in": "“{}”一节的图", "code": "代码：", "sep": "："}  # fmt: skip


@dataclass(frozen=True)
class Exported:
    "A name that a chapter exports, and the cell and section in which it does."

    name: str
    module: str
    stem: str
    cell: str
    heading: str
    title: str


def is_chinese(page: str) -> bool:
    "Whether a page, or the chapter that it shows, is one of the Chinese ones."
    return page.endswith(".zh") or page.startswith("zh/")


def words_for(page: str) -> dict[str, str]:
    "What the site itself says on a page, in its language."
    return CHINESE if is_chinese(page) else ENGLISH


def number(stem: str) -> str:
    "The number of a chapter as its labels have it: those of a Chinese chapter are its own."
    return ("zh" if is_chinese(stem) else "") + stem.split("_")[0]


def label(stem: str, cell: str) -> str:
    "What a cell of a chapter is called in links, all over the site."
    return f"cell-{number(stem)}-{cell}"


def defined(source: str) -> list[str]:
    "The names that the top level of a cell defines: functions, classes, constants."
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [t.id for target in targets for t in ast.walk(target) if isinstance(t, ast.Name)]
    return found


def is_imports(source: str) -> bool:
    "Whether a cell imports and sets up, and shows nothing."
    try:
        body = ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.MULTILINE)).body
    except SyntaxError:
        return False
    return bool(body) and isinstance(body[0], ast.Import | ast.ImportFrom) and all(
        isinstance(node, ast.Import | ast.ImportFrom | ast.Expr) for node in body
    )  # fmt: skip


def has_picture(cell) -> bool:
    return any(kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {}))


def has_slider(cell) -> bool:
    "Whether a cell shows figures that a slider chooses from, as `g100.foundations.overlay.flip` makes them."
    return any(output.get("data", {}).get("text/html", "").startswith('<figure id="flip-') for output in cell.outputs)


def folded(cell, source: str, exported: bool) -> str | None:
    "Why a cell is folded, or None: it is read."
    if is_imports(source):
        return "imports"
    if exported or not DRAWS.search(source):
        return None
    if has_picture(cell) or has_slider(cell):
        return "figure"
    helps = all(isinstance(node, ast.FunctionDef | ast.Assign) for node in ast.parse(source).body)
    return "drawn" if helps else None


def headings(source: str) -> list[tuple[int, str]]:
    "The headings of a Markdown cell, (level, text), those in code blocks left out."
    outside = re.sub(r"^```.*?^```", "", source, flags=re.MULTILINE | re.DOTALL)
    return [(len(found[1]), found[2].strip()) for line in outside.splitlines() if (found := HEADING.match(line))]


def plain(text: str) -> str:
    "Markdown as words: without links, marks and mathematics' signs."
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(re.sub(r"\\[a-zA-Z]+ ?|[*`$|>]|\\\\|^#+ ", "", text).split())


def title_and_about(nb) -> tuple[str, str]:
    "The title of a chapter and the sentence below it, as words."
    first = nb.cells[0].source
    about = re.search(r"(?:^> .*\n?)+", first, re.MULTILINE)
    return headings(first)[0][1], plain(about[0]) if about else ""


def last_words(source: str, longest: int = 300) -> str:
    "The last paragraph of a Markdown cell as words, cut at the end of a sentence where it is long."
    paragraphs = [p for p in re.split(r"\n\s*\n", source) if p.strip() and not p.lstrip().startswith(("#", "$$", "|", "```"))]
    words = plain(paragraphs[-1]) if paragraphs else ""
    while len(words) > longest and (rest := re.split(r"\. |。(?=.)", words, maxsplit=1)[1:]):
        words = rest[0]
    return words[:longest]


def width_of(output) -> int:
    "The width in pixels of a page at which a picture is meant to be seen, 0 where it does not say: half of what it has."
    return output.get("metadata", {}).get("image/png", {}).get("width", 0)


def captioned(cell) -> tuple[str, str] | None:
    "The number of the figure, such as 9.1, whose caption a Markdown cell begins with, and the caption as words; else None."
    found = FIGURE.match(cell.source) if cell is not None and cell.cell_type == "markdown" else None
    return found and (found[1], plain(found[2]))


def alternative(output, below, where: str, said: str, words: dict[str, str]) -> str:
    """What a figure shows, in words: what its output says of it, or the caption with which the cell `below` it begins, or else
    the section it stands in and what is said before it."""
    told = output.get("metadata", {})
    told = told.get("alt") or next((each["alt"] for each in told.values() if isinstance(each, dict) and each.get("alt")), "")
    caption = captioned(below)
    return told or (caption and caption[1]) or words["in"].format(plain(where)) + (f"{words['sep']}{said}" if said else "")


def exports(nb, stem: str) -> list[Exported]:
    "What a chapter exports, in its order."
    module, heading, found = "", "", []
    title, _ = title_and_about(nb)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            heading = ([text for _, text in headings(cell.source)] or [heading])[-1]
        elif begins := MODULE.match(cell.source):
            module = begins[1]
        elif EXPORTED.match(cell.source):
            found += [Exported(name, module, stem, cell.id, plain(heading), title) for name in defined(cell.source)]
    return found


def filled(source: str) -> str:
    "Every picture that stands in a page of HTML without a text gets an empty one: the words beside it say what it is."
    source = re.sub(r"<img (?![^>]*\balt=)", '<img alt="" ', source)
    return re.sub(r"<iframe (?![^>]*\btitle=)", '<iframe title="A page inside this page" ', source)


def shown_outputs(outputs: list) -> list:
    "The outputs without those in which nothing is to be seen."
    kept = []
    for output in outputs:
        html = output.get("data", {}).get("text/html")
        if html is not None:
            if not re.sub(r"<(?!img|iframe|svg|table)[^>]*>", "", html).strip():
                continue
            output.data["text/html"] = filled(html)
        kept.append(output)
    return kept


def equations_of(nb) -> dict[str, list[str]]:
    """The numbers of the equations that each exported cell belongs to: those that its own words name, and those that stand
    in the text right before it, since that is how a chapter is written.
    """
    found, near, tags = {}, [], equation_tags(nb)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            near += TAG.findall(cell.source)
        else:
            if EXPORTED.match(cell.source) and defined(cell.source):
                named = [n for n in re.findall(r"\((\d+[a-z]?)\)", said_in(cell.source)) if n in tags]
                found[cell.id] = list(dict.fromkeys([*near, *named]))
            near = []
    return found


def caption(stem: str, module: str, cell, equations: list[str]) -> str:
    "The line above an exported cell: where its names are described, and the equations it belongs to."
    names = [name for name in defined(cell.source) if not name.startswith("_")]
    linked = ", ".join(f"{{py:obj}}`{name} <g100.{module}.{name}>`" for name in names)
    numbers = ", ".join(f"[({n})](#{equation_label(stem, n)})" for n in equations)
    return (f"({label(stem, cell.id)})=\n{{.exported}}\ng100.{module}" + (f": {linked}" if linked else "")
            + (f" · {words_for(stem)['equation']} {numbers}" if numbers else ""))  # fmt: skip


def computed(nb, stem: str) -> dict[str, list[tuple[str, str]]]:
    "The exported cells that belong to an equation, by its number: a name that the cell defines, and the cell's label."
    found, cells = {}, {cell.id: cell for cell in nb.cells}
    for cell, numbers in equations_of(nb).items():
        for number in numbers:
            found.setdefault(number, []).append((defined(cells[cell].source)[-1], label(stem, cell)))
    return found


def said_in(source: str) -> str:
    "The docstrings and comments of a cell."
    tree = ast.parse(source)
    kinds = (ast.FunctionDef, ast.ClassDef)
    docs = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    return "\n".join([*docs, *re.findall(r"#[^|\n][^\n]*", source)])


def equation_label(stem: str, tag: str) -> str:
    return f"equation-{number(stem)}-{tag}"


def equation_tags(nb) -> set[str]:
    "The numbers of the equations of a chapter."
    return {tag for cell in nb.cells if cell.cell_type == "markdown" for tag in TAG.findall(cell.source)}


def code_cell(cell, below, where: str, said: str, words: dict[str, str]):
    "A code cell as it is shown; `below`: the cell after it."
    exported, bare = bool(EXPORTED.match(cell.source)), bool(re.match(r"#\|\s*echo:\s*false", cell.source))
    source = REMARK.sub("", DIRECTIVE.sub("", cell.source)).strip("\n")
    tags = ["exported"] if exported else []
    if bare:
        tags.append("remove-input")
    elif why := folded(cell, source, exported):
        tags.append("hide-input")
        cell.metadata["mystnb"] = {"code_prompt_show": words[why], "code_prompt_hide": words[why]}
    if has_picture(cell):
        pictures = [o for o in cell.outputs if any(k.startswith("image/") for k in o.get("data", {}))]
        told = {"alt": alternative(pictures[0], below, where, said, words)}
        if wide := max(width_of(output) for output in pictures):
            told["width"] = f"{wide}px"
        cell.metadata.setdefault("mystnb", {})["image"] = told
    cell.metadata["tags"] = [*cell.metadata.get("tags", []), *tags]
    cell.source, cell.outputs = source, shown_outputs(cell.outputs)
    return cell


def staged(nb, stem: str, markdown):
    "A chapter as the site shows it; `markdown` makes a Markdown cell of a text."
    cells, where, said, module, equations = [], title_and_about(nb)[0], "", "", equations_of(nb)
    words = words_for(stem)
    for cell, below in zip(nb.cells, [*nb.cells[1:], None], strict=True):
        if cell.cell_type == "markdown":
            where = ([text for _, text in headings(cell.source)] or [where])[-1]
            said = last_words(cell.source) or said
            cells.append(cell)
        elif begins := MODULE.match(cell.source):
            module = begins[1]
            cells.append(markdown("{.module}\n" + words["module"].format(f"{{py:mod}}`g100.{module}`")))
        elif not cell.source.startswith("#| hide"):
            if EXPORTED.match(cell.source) and defined(cell.source):
                cells.append(markdown(caption(stem, module, cell, equations[cell.id])))
            cells.append(code_cell(cell, below, where, said, words))
    nb.cells = cells
    return nb
