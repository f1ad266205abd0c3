"""The Chinese book says what the English one says: block for cell, number for number, formula for formula, link for link."""

import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from markdown_it import MarkdownIt

from tests import chinese
from tests.chinese import FENCE, LINK, ROOT, ZH, blocks, prose, translated
from tests.notebooks import chapters, read

BOOKS = sorted(translated())
CJK = r"[\u4e00-\u9fff]"
FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$\n](?:[^$]*?[^$\n])?\$", re.DOTALL)
SPAN = re.compile(r"`[^`\n]+`")
NUMBER = re.compile(r"(?<![A-Za-z0-9_.])\d+(?:[.,]\d+)*(?:\s?%)?")
ROW = re.compile(r"^\| *(.+?) *\| *(.+?) *\| *(.+?) *\|$", re.MULTILINE)


def pairs(name: str) -> list[tuple[str, str, str]]:
    "Cell, English and Chinese of each block."
    found = blocks(name)
    return [(cell, source, found[cell][1]) for cell, source in prose(name).items() if cell in found]


def formulas(text: str) -> Counter:
    "The formulas of a text, without the words that stand in them."
    found = (re.sub(r"\s+", " ", formula.strip("$").strip()) for formula in FORMULA.findall(SPAN.sub("", FENCE.sub("", text))))
    found = (re.sub(rf"\\text\{{[^}}]*(?: |{CJK})[^}}]*\}}", "", formula) for formula in found)
    return Counter(re.sub(r"\s+", " ", formula).strip() for formula in found)


def code(text: str) -> Counter:
    "Code spans, and the lines of fenced code without their comments."
    lines = (line for fence in FENCE.findall(text) for line in fence.splitlines())
    return Counter(SPAN.findall(FENCE.sub("", text))) + Counter(re.sub(r"(^| +)# .*", "", line).rstrip() for line in lines)


def targets(text: str, home: Path) -> Counter:
    "Where links lead: addresses as they are, files from the top of the repository."
    found = LINK.findall(FORMULA.sub("", SPAN.sub("", FENCE.sub("", text))))
    return Counter((link if ":" in link or not link else str((home / link).resolve()), fragment) for link, fragment in found)


def numbers(text: str) -> set[str]:
    "The numbers of the text and of comments in code: those of code, formulas and link targets have stricter tests."
    text = FENCE.sub(lambda fence: "\n".join(re.findall(r"# (.*)", fence[0])), text)
    text = LINK.sub("]", FORMULA.sub(" ", SPAN.sub(" ", text)))
    text = re.sub(r"^\s*\d+\. ", "", text, flags=re.MULTILINE)
    return {re.sub(r"\s", "", number) for number in NUMBER.findall(text)}


def glossary() -> list[tuple[str, list[str]]]:
    rows = ROW.findall((ZH / "glossary.md").read_text(encoding="utf-8").partition("\n## ")[0])[2:]
    return [(english.lower(), re.split(r"\s*/\s*", word)) for english, word, _ in rows]


def test_each_translation_belongs_to_a_chapter():
    assert {path.stem for path in ZH.glob("*.md")} - {"glossary"} == set(BOOKS)


@pytest.mark.parametrize("name", BOOKS)
def test_every_cell_has_a_block_that_translates_its_present_english(name):
    assert not list(chinese.stale(name).values())
    assert list(blocks(name)) == list(prose(name)), "the blocks stand in the order of the cells, and none is left over"


@pytest.mark.parametrize("name", BOOKS)
def test_a_block_is_chinese_and_has_the_headings_of_its_cell(name):
    for cell, source, text in pairs(name):
        assert re.search(CJK, text), cell
        levels = [re.findall(r"^#+(?= )", FENCE.sub("", each), re.MULTILINE) for each in (source, text)]
        assert levels[0] == levels[1], cell
        numbered = [[re.match(r"\d+\.|", heading)[0] for heading in chinese.headings(each)] for each in (source, text)]
        assert numbered[0] == numbered[1], cell


def stars(text: str) -> int:
    "The asterisks that a reader of the rendered text would see, formulas aside."
    inline = (token for token in MarkdownIt().enable("table").parse(FORMULA.sub("x", text)) if token.type == "inline")
    return sum(child.content.count("*") for token in inline for child in token.children if child.type == "text")


@pytest.mark.parametrize("name", BOOKS)
def test_emphasis_is_rendered(name):
    "CommonMark ends no emphasis between a full stop and a letter, which Chinese has no space between."
    wrong = {cell: stars(text) - stars(source) for cell, source, text in pairs(name)}
    assert not any(wrong.values()), wrong


@pytest.mark.parametrize("name", BOOKS)
def test_numbers_are_those_of_the_english(name):
    wrong = {cell: numbers(source) ^ numbers(text) for cell, source, text in pairs(name)}
    assert not {cell: found for cell, found in wrong.items() if found}


@pytest.mark.parametrize("of", [formulas, code], ids=["formulas", "code"])
@pytest.mark.parametrize("name", BOOKS)
def test_formulas_and_code_are_those_of_the_english(name, of):
    for cell, source, text in pairs(name):
        there, here = of(source), of(text)
        assert there == here, f"{cell}: missing {there - here}, too much {here - there}"


@pytest.mark.parametrize("name", BOOKS)
def test_links_lead_where_the_english_ones_lead(name):
    for cell, source, text in pairs(name):
        there, here = targets(source, translated()[name].parent), targets(text, ZH)
        assert there == here, f"{cell}: missing {there - here}, too much {here - there}"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "_zh"
    return out, chinese.build(out)


def test_a_built_chapter_has_the_code_and_the_outputs_of_the_english(built):
    out, made = built
    assert [path.name.removesuffix(".zh.ipynb") for path in made] == list(translated())
    for path, (name, there) in zip(made, translated().items(), strict=True):
        english, nb = read(there), read(path)
        nbformat.validate(nb)
        assert [(cell.id, cell.cell_type) for cell in nb.cells] == [(cell.id, cell.cell_type) for cell in english.cells]
        kept = [[cell for cell in each.cells if cell.cell_type == "code"] for each in (english, nb)]
        assert kept[0] == kept[1] and english.metadata == nb.metadata, name


def test_every_link_of_a_built_chapter_leads_to_a_file_and_a_heading(built):
    out, made = built
    lost, led = [], 0
    for path in made:
        for cell in read(path).cells:
            if cell.cell_type != "markdown":
                continue
            for link, fragment in LINK.findall(FORMULA.sub("", SPAN.sub("", FENCE.sub("", cell.source)))):
                target = (path.parent / link) if link else path
                if ":" in link or link == "../LICENSE":
                    continue
                there = [c.source for c in read(target).cells] if target.suffix == ".ipynb" and target.exists() else []
                found = {heading.replace(" ", "-") for source in there for heading in chinese.headings(source)}
                led += link.endswith(".zh.ipynb")
                if not target.exists() or fragment and fragment[1:] not in found:
                    lost.append((path.name, link, fragment))
    assert not lost and (led or len(made) == 1)


def test_the_chinese_readme_is_what_the_chinese_index_says():
    assert chinese.readme() == (ROOT / "README.zh-CN.md").read_text(encoding="utf-8"), "run: python -m tests.notebooks zh"


def test_every_file_that_the_chinese_texts_name_is_there():
    for file in [ROOT / "README.zh-CN.md", *ZH.glob("*.md")]:
        text = FORMULA.sub("", SPAN.sub("", FENCE.sub("", file.read_text(encoding="utf-8"))))
        named = [link for link, _ in LINK.findall(text) if link and ":" not in link]
        assert not [link for link in named if not (file.parent / link).exists()], file


def test_each_term_of_the_glossary_occurs_in_the_book():
    book = "\n".join(cell.source for path in chapters() for cell in read(path).cells if cell.cell_type == "markdown")
    book = re.sub(r"\s+", " ", book.lower())
    assert len(glossary()) > 50 and not [english for english, _ in glossary() if english not in book]


@pytest.mark.parametrize("name", BOOKS)
def test_the_terms_of_the_glossary_are_used(name):
    "Where a chapter has a term, its translation has one of the words that the glossary has for it."
    source = SPAN.sub("", FENCE.sub("", "\n".join(prose(name).values())))
    source = re.sub(r"\s+", " ", source.lower()).partition("## references")[0]
    text = "\n".join(found for _, found in blocks(name).values())
    used = [(english, words) for english, words in glossary() if re.search(rf"\b{re.escape(english)}s?\b", source)]
    assert not [english for english, words in used if not any(word in text for word in words)]


def test_a_changed_cell_is_named_with_the_way_to_renew_it(monkeypatch):
    name = BOOKS[0]
    sources = prose(name)
    changed, gone = list(sources)[1:3]
    found = {cell: block for cell, block in blocks(name).items() if cell != gone}
    monkeypatch.setattr(chinese, "blocks", lambda _: found)
    monkeypatch.setattr(chinese, "prose", lambda _: sources | {changed: sources[changed] + " More."})
    wrong = chinese.stale(name)
    assert set(wrong) == {changed, gone}
    assert f"the English of cell {changed} has changed" in wrong[changed] and f"zh-stamp {name} {changed}" in wrong[changed]
    assert f"no block for cell {gone}" in wrong[gone]


def test_stamping_renews_a_block(tmp_path, monkeypatch):
    name = BOOKS[0]
    cell, source = next(iter(prose(name).items()))
    (tmp_path / f"{name}.md").write_text(f"Head.\n\n<!-- {cell} -->\n# 标题\n", encoding="utf-8")
    monkeypatch.setattr(chinese, "ZH", tmp_path)
    assert cell in chinese.stale(name)
    chinese.stamp(name, [cell])
    assert cell not in chinese.stale(name) and blocks(name) == {cell: (chinese.short(source), "# 标题")}
