"""The site: its contents keep in step with the chapters; and built, every link in it leads somewhere, also in a browser."""

import functools
import http.server
import re
import subprocess
import sys
import threading
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest

from docs.contents import CHINESE, PARTS, SOLUTIONS
from docs.stage import captioned, exports, has_picture, headings, label, staged
from tests.chinese import chinese, translated
from tests.notebooks import NBS, ROOT, chapters, read, solutions

pytestmark = pytest.mark.xdist_group("site")
BOOK = [path for path in chapters() if path.stem != "index"]
PLACE = re.compile(r"(?:\]\(#|^\()((?:cell|equation)-[^)]+)\)", re.MULTILINE)


class Cell(dict):
    "As much of a Markdown cell as staging needs."

    cell_type = "markdown"

    def __init__(self, source: str):
        super().__init__(source=source)
        self.source = source


# ---- what needs no Sphinx


def test_every_chapter_stands_in_exactly_one_part():
    told = Counter(stem for part in PARTS for stem in part.chapters)
    assert told == Counter(path.stem for path in BOOK)
    assert PARTS[0].chapters[0] == "00_overview"
    numbers = [stem[:2] for part in PARTS for stem in part.chapters]
    assert numbers == [f"{n:02d}" for n in range(len(numbers))], "a chapter's number is its place for the reader"


def test_every_part_has_its_solutions():
    assert Counter(SOLUTIONS.chapters) == Counter(path.stem for path in solutions())


def test_every_translated_chapter_stands_in_the_chinese_part():
    assert Counter(CHINESE.chapters) == Counter(translated().keys())


def test_a_chinese_chapter_is_staged_like_the_english_one_with_places_of_its_own():
    "The same code, folded and named in Chinese; no place that a link leads to is one of the English chapter."
    for stem in CHINESE.chapters:
        pair = staged(read(translated()[stem]), stem, Cell), staged(chinese(stem), f"{stem}.zh", Cell)
        code = [[cell for cell in nb.cells if cell.cell_type == "code"] for nb in pair]
        assert [cell.source for cell in code[0]] == [cell.source for cell in code[1]]
        there, here = ({place for cell in nb.cells for place in PLACE.findall(cell.source)} for nb in pair)
        assert not there & here and len(there) == len(here)
        prompts = [cell.metadata.get("mystnb", {}).get("code_prompt_show") for cell in code[1]]
        assert all(re.search("[\u4e00-\u9fff]", prompt) for prompt in prompts if prompt)


def test_headings_go_down_one_step_at_a_time():
    "One title a chapter, and below it no level is left out; no two have the same address."
    for path in BOOK + solutions():
        found = [each for cell in read(path).cells if cell.cell_type == "markdown" for each in headings(cell.source)]
        levels = [level for level, _ in found]
        assert levels[0] == 1 and levels.count(1) == 1, path
        assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False)), path
        assert max(Counter(text for _, text in found).values()) == 1, path


@pytest.mark.parametrize("path", BOOK, ids=lambda path: path.stem)
def test_every_figure_has_a_caption_with_its_number(path):
    "C.1, C.2, ... in their order, in the first paragraph of the cell below each; and every figure that is named is there."
    cells = read(path).cells
    pairs = [(cell, below) for cell, below in zip(cells, [*cells[1:], None], strict=True)]
    found = [captioned(below) for cell, below in pairs if cell.cell_type == "code" and has_picture(cell)]
    chapter = int(path.stem.split("_")[0])
    assert [caption and caption[0] for caption in found] == [f"{chapter}.{n}" for n in range(1, len(found) + 1)]
    assert all(len(caption[1]) >= 30 for caption in found)
    named = {name for cell in cells if cell.cell_type == "markdown"
             for name in re.findall(rf"(?:Figure |图 )({chapter}\.\d+)", cell.source)}  # fmt: skip
    assert named <= {caption[0] for caption in found}


def test_what_a_chapter_becomes_on_the_site():
    "Directives are gone, every picture has words, what is exported is named above its cell, and nothing else has changed."
    for path in BOOK:
        before, after = read(path), staged(read(path), path.stem, Cell)
        code = [cell for cell in after.cells if cell.cell_type == "code"]
        assert not [cell for cell in code if re.search(r"^#\|", cell.source, re.MULTILINE)]
        for cell in code:
            pictures = [o for o in cell.outputs if any(kind.startswith("image/") for kind in o.get("data", {}))]
            assert not pictures or cell.metadata["mystnb"]["image"]["alt"]
        texts = "\n".join(cell.source for cell in after.cells if cell.cell_type == "markdown")
        for each in exports(before, path.stem):
            assert each.name.startswith("_") or f"g100.{each.module}.{each.name}>" in texts
            assert f"({label(path.stem, each.cell)})=" in texts
        kept = [cell.source for cell in after.cells if cell.cell_type == "markdown" and not isinstance(cell, Cell)]
        assert kept == [cell.source for cell in before.cells if cell.cell_type == "markdown"]


# ---- built


class Page(HTMLParser):
    "The addresses in a page: what it has, what it leads to, and what it loads."

    def __init__(self, file: Path):
        super().__init__()
        self.ids, self.links, self.loads, self.bare, self.title, self.next, self.about = Counter(), [], [], [], "", "", ""
        self.lang, self.other = "", {}
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if attrs.get("id"):
            self.ids[attrs["id"]] += 1
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
            self.next = attrs["href"] if "next-page" in (attrs.get("class") or "") else self.next
        if tag == "html":
            self.lang = attrs.get("lang")
        if attrs.get("hreflang"):
            self.other.setdefault(tag, (attrs["hreflang"], attrs["href"]))
        if tag == "link" and attrs.get("href") or tag != "a" and attrs.get("src"):
            self.loads.append(attrs.get("src") or attrs["href"])
        if tag == "meta" and attrs.get("name") == "description":
            self.about = attrs["content"]
        if tag == "img" and attrs.get("alt") is None:
            self.bare.append(attrs["src"][:80])
        self.inside = tag

    def handle_data(self, data):
        if getattr(self, "inside", "") == "title":
            self.title += data


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    "The site, built as the README says; the folder."
    pytest.importorskip("myst_nb", reason="the extra docs is not installed")
    to, work = tmp_path_factory.mktemp("site") / "out", tmp_path_factory.mktemp("work")
    done = subprocess.run([sys.executable, "-m", "docs", to, work], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr[-3000:]
    return to


@pytest.fixture(scope="session")
def pages(site):
    return {file.relative_to(site).as_posix(): Page(file) for file in sorted(site.rglob("*.html"))}


def external(address: str) -> bool:
    return bool(urlsplit(address).scheme) or address.startswith("//")


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere(site, pages):
    "To a file of the site, and to a place that exists in it."
    assert {"index.html", "contents.html", "00_overview.html", "search.html", "api/index.html"} <= set(pages)
    broken = []
    for name, page in pages.items():
        for address in {*page.links, *page.loads}:
            if external(address):
                continue
            where, fragment = urldefrag(urljoin(f"http://site/{name}", address))
            file = unquote(urlsplit(where).path).lstrip("/") or "index.html"
            if not (site / file).is_file():
                broken.append(f"{name}: {address}: no such file")
            elif fragment and file in pages and unquote(fragment) not in pages[file].ids:
                broken.append(f"{name}: {address}: no such place")
    assert not broken, "\n".join(broken[:40])


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site, pages):
    "Neither scripts nor styles, fonts or pictures; and what a style names lies beside it."
    for name, page in pages.items():
        assert not [load for load in page.loads if external(load) and not load.startswith("data:")], name
    for style in site.rglob("*.css"):
        for address in re.findall(r"url\(\s*['\"]?([^'\")]+)", style.read_text(encoding="utf-8")):
            assert address.startswith("data:") or not external(address), (style, address)
            assert address.startswith(("data:", "#")) or (style.parent / address.split("?")[0].split("#")[0]).is_file(), address


@pytest.mark.slow
def test_every_page_has_a_head_words_for_its_pictures_and_one_of_each_place(pages):
    for name, page in pages.items():
        assert page.title and page.about, name
        assert not page.bare, (name, page.bare)
        twice = [place for place, n in page.ids.items() if n > 1]
        assert not twice, (name, twice)


@pytest.mark.slow
def test_a_page_in_two_languages_leads_to_its_other_and_says_which_it_is_in(pages):
    two = {path.relative_to(NBS).with_suffix(".html").as_posix() for path in translated().values()}
    chinese_ones = {name.replace(".html", ".zh.html") for name in two}
    for name in two | chinese_ones:
        lang, other = ("en", name.replace(".zh", "")) if name in chinese_ones else ("zh", name.replace(".html", ".zh.html"))
        assert set(pages[name].other) == {"a", "link"}, name
        for told, address in pages[name].other.values():
            assert told == lang and urljoin(f"/{name}", address).lstrip("/") == other, name
    for name, page in pages.items():
        assert page.lang == ("zh" if name in chinese_ones | {"zh/glossary.html"} else "en"), name


@pytest.mark.slow
def test_jupyters_addresses_of_headings_exist_on_the_site(pages):
    "A link that was written for a notebook, with its heading's text as Jupyter has it, serves for the page, too."
    books = [(path, ".html", read(path)) for path in BOOK + solutions()]
    books += [(path, ".zh.html", chinese(stem)) for stem, path in translated().items()]
    for path, kind, nb in books:
        page = pages[path.relative_to(NBS).with_suffix(kind).as_posix()]
        found = [text for cell in nb.cells if cell.cell_type == "markdown" for level, text in headings(cell.source)]
        for text in found:
            if not re.search(r"[`$*\[]", text):
                assert text.replace(" ", "-") in page.ids, (path, text)


@pytest.mark.slow
def test_next_leads_through_the_parts_in_their_order(pages):
    name, walked = "index.html", []
    while name and name not in walked:
        walked.append(name)
        name = urljoin(f"/{name}", pages[name].next).lstrip("/") if pages[name].next else ""
    order = [stem for part in (*PARTS, SOLUTIONS) for stem in part.chapters] + [f"{stem}.zh" for stem in CHINESE.chapters]
    assert [stem for page in walked if (stem := Path(page).stem) in order] == order


# ---- in a browser


@pytest.fixture(scope="session")
def served(site):
    "The address at which the site is served."

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *said):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture
def tab_at(chromium, served):
    "A function that gives a window of a width; afterwards: no request has left the site, and nothing was complained of."
    contexts, said, asked = [], [], []

    def open_at(width: int, scheme: str = "light"):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        return tab

    yield open_at
    for context in contexts:
        context.close()
    assert not said, said[:5]
    away = [url for url in asked if not url.startswith((served, "data:", "blob:", "about:"))]
    assert not away, away[:5]


def opened(tab, address: str) -> None:
    "Open a page and wait until its mathematics stands."
    tab.goto(address, wait_until="load")
    tab.wait_for_function("() => !window.MathJax || MathJax.startup.promise !== undefined")
    tab.evaluate("() => window.MathJax && MathJax.startup.promise")


MATHEMATICS = """() => ({asked: document.querySelectorAll('article .math').length,
    drawn: document.querySelectorAll('article .math mjx-container').length,
    wrong: [...document.querySelectorAll('mjx-merror, mjx-mtext[style*=red]')].map(e => e.textContent.slice(0, 80))})"""


def unfit(tab, name: str, width: int) -> list[str]:
    "What is wrong with the page that is open: mathematics that is not drawn, or a page wider than its window."
    found, wide = tab.evaluate(MATHEMATICS), tab.evaluate("document.documentElement.scrollWidth")
    wrong = [f"{name}: {found}"] if found["asked"] != found["drawn"] or found["wrong"] else []
    return wrong + ([f"{name}: {wide} pixels wide in a window of {width}"] if wide > width else [])


@pytest.mark.slow
def test_every_page_shows_its_mathematics_and_fits_a_telephone(tab_at, served, pages):
    tab, wrong = tab_at(420), []
    for name in pages:
        opened(tab, served + name)
        wrong += unfit(tab, name, 420)
    assert not wrong, "\n".join(wrong)


READ = ("index", "contents", "00_overview", "2_algorithms/16_patchcore", "2_algorithms/16_patchcore.zh", "zh/glossary",
        "1_foundations/12_detector", "1_foundations/54_page", "2_algorithms/13_coreset", "api/index",
        "api/algorithms.patchcore", "student", "solutions/1_see_and_measure")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("width, scheme", [(1400, "light"), (1400, "dark"), (420, "dark")])
def test_pages_are_accessible_and_fit_the_window(tab_at, served, width, scheme):
    "By the rules that a machine can check, contrast among them."
    axe = (ROOT / "tests" / "vendor" / "axe.min.js").read_text()
    tab, wrong = tab_at(width, scheme), []
    for name in READ:
        opened(tab, f"{served}{name}.html")
        wrong += unfit(tab, name, width)
        tab.wait_for_timeout(500)  # until what scrolls can be reached by keyboard
        tab.evaluate(axe)
        found = tab.evaluate("axe.run(document, {resultTypes: ['violations'], iframes: false})")["violations"]
        for v in found:
            if v["impact"] in ("serious", "critical"):
                first = v["nodes"][0]
                wrong.append(f"{name}: {v['id']} x {len(v['nodes'])}: {first['html'][:200]} {first['failureSummary'][:200]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_search_and_folds_work(tab_at, served):
    tab = tab_at(1400)
    opened(tab, f"{served}search.html?q=coreset")
    tab.wait_for_selector("#search-results a")
    assert "coreset" in tab.locator("#search-results").inner_text().lower()
    opened(tab, f"{served}2_algorithms/16_patchcore.html")
    fold = tab.locator("details", has_text="How the figure is drawn").first
    code = fold.locator("pre")
    assert not code.is_visible()
    fold.locator("summary").click()
    assert code.is_visible() and "plt." in code.inner_text()


@pytest.mark.slow
def test_a_slider_moves_its_picture_and_not_the_page(tab_at, served):
    "By the keys that elsewhere on a page lead to its neighbours."
    tab = tab_at(420)
    opened(tab, f"{served}2_algorithms/13_coreset.html")
    address, said, image = tab.url, tab.locator("figure[id^=flip] span"), tab.locator("figure[id^=flip] img")
    tab.get_by_role("slider", name="Number of centres").focus()
    seen = [(said.inner_text(), image.get_attribute("src"))]
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowLeft"):
        tab.keyboard.press(key)
        seen.append((said.inner_text(), image.get_attribute("src")))
    assert [label.partition(",")[0] for label, _ in seen] == ["n = 5", "n = 1", "n = 2", "n = 3", "n = 2"]
    assert len({source for _, source in seen}) == 4 and tab.url == address
