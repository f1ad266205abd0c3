"""What the site asks of Sphinx beyond its own: mathematics as the notebooks write it, links to equations, heads of pages."""

import json
import re
import shutil
from html import escape
from pathlib import Path

from docutils import nodes

from docs.stage import is_chinese, number, words_for

TAG = re.compile(r"\\tag\{([^}]*)\}")
REFERENCE = re.compile(r"(?<![\w)\]])\((\d+[a-z]?)\)(?!\w)")
MATHJAX = {
    "tex": {"inlineMath": [["\\(", "\\)"]], "displayMath": [["\\[", "\\]"]], "tags": "none"},
    "chtml": {"matchFontHeight": False, "scale": 1.0},
    "options": {"processHtmlClass": "math", "ignoreHtmlClass": ".*", "enableMenu": False},
}


def slug(title: str) -> str:
    "The fragment of a heading as Jupyter has it, so that one link serves notebooks and site."
    return title.replace(" ", "-")


def visit_math(self, node) -> None:
    self.body.append(self.starttag(node, "span", "", CLASS="math notranslate nohighlight"))
    self.body.append(rf"\({self.encode(node.astext())}\)</span>")
    raise nodes.SkipNode


def visit_displaymath(self, node) -> None:
    "An equation as it was written: its number is its own `\\tag`, and nothing is put around it."
    self.body.append(rf'<div class="math notranslate nohighlight">\[{self.encode(node.astext())}\]</div>' + "\n")
    raise nodes.SkipNode


def name_equations(doctree, chapter: str) -> dict[str, str]:
    "Give each numbered equation an identifier; which number has which."
    named = {}
    for node in doctree.findall(nodes.math_block):
        for tag in TAG.findall(node.astext()):
            if tag not in named:
                named[tag] = f"equation-{chapter}-{tag}"
                node["ids"] = [*node["ids"], named[tag]]
    return named


def link_equations(doctree, named: dict[str, str]) -> None:
    "Turn every (n) in running text into a link to the equation of that number of the same chapter."
    closed = (nodes.literal, nodes.reference, nodes.literal_block, nodes.title, nodes.math, nodes.raw)
    for text in list(doctree.findall(nodes.Text)):
        above, inside = text.parent, []
        while above is not None:
            inside.append(above)
            above = above.parent
        found = [m for m in REFERENCE.finditer(text.astext()) if m[1] in named]
        if not found or any(isinstance(node, closed) or "pending_xref" in node.tagname for node in inside):
            continue
        whole, parts, at = text.astext(), [], 0
        for m in found:
            parts += [nodes.Text(whole[at : m.start()])] if m.start() > at else []
            parts.append(nodes.reference("", m[0], internal=True, refid=named[m[1]], classes=["equation"]))
            at = m.end()
        parts += [nodes.Text(whole[at:])] if at < len(whole) else []
        text.parent.replace(text, parts)


def link_code(doctree, named: dict[str, str], computed: dict, word: str) -> None:
    "Below an equation, the exported cells that name it."
    for node in list(doctree.findall(nodes.math_block)):
        cells = [cell for tag in TAG.findall(node.astext()) if named[tag] in node["ids"] for cell in computed.get(tag, [])]
        if cells and isinstance(node.parent, nodes.section):
            line = nodes.paragraph("", word, classes=["computed"])
            for k, (name, place) in enumerate(cells):
                line += [nodes.Text(", ")] if k else []
                line += nodes.reference("", "", nodes.literal(text=name), internal=True, refid=place)
            node.parent.insert(node.parent.index(node) + 1, line)


def mark_latin(doctree) -> None:
    "Emphasis in a Chinese page that is not Chinese, such as titles of books: it is italic, the other has dots."
    for node in doctree.findall(nodes.emphasis):
        if not re.search(r"[\u4e00-\u9fff]", node.astext()):
            node["classes"].append("latin")


def on_read(app, doctree) -> None:
    page = app.env.docname
    if is_chinese(page):
        mark_latin(doctree)
    found = re.match(r"(?:.*/)?(\d+_.*)", page)
    if found and (named := name_equations(doctree, number(found[1]))):
        std = app.env.get_domain("std")
        for tag, target in named.items():
            std.note_hyperlink_target(target, page, target, f"({tag})")
        link_equations(doctree, named)
        link_code(doctree, named, app.config.site["computed"].get(page, {}), words_for(page)["code"])


def margin(app, pagename: str, context) -> str:
    """The table of contents in the margin: captions and chapters, on a Chinese page the Chinese ones first; of the reference
    only its first page, unless one is in it.
    """
    lines = []
    trees = app.config.site["trees"]
    if is_chinese(pagename):
        trees = sorted(trees, key=lambda tree: not is_chinese(tree[1][0]))
    for caption, pages in trees:
        within = pagename.startswith("api/") or not caption == "Reference"
        lang = language(pages[0])
        lines.append(f'<p class="caption" lang="{lang}"><span class="caption-text">{escape(caption)}</span></p>')
        lines.append(f'<ul lang="{lang}">')
        for page in pages if within else pages[:1]:
            here = ' class="current"' if page == pagename else ""
            title = re.sub("<[^>]*>", "", app.env.titles[page].astext())
            lines.append(f'<li{here}><a class="reference internal" href="{context["pathto"](page)}">{escape(title)}</a></li>')
        lines.append("</ul>")
    return "\n".join(lines)


def language(page: str) -> str:
    return "zh" if is_chinese(page) else "en"


def in_two(app, pagename: str, context) -> tuple[str, str]:
    "For a page that is there in both languages: what its head says of the other, and the line above its title."
    translated = app.config.site["translated"]
    other = (translated | {zh: en for en, zh in translated.items()}).get(pagename)
    if other is None:
        return "", ""
    lang, to = language(other), context["pathto"](other)
    links = [f'<a href="{to}" lang="{lang}" hreflang="{lang}">{"中文" if lang == "zh" else "English"}</a>']
    if is_chinese(pagename):
        links.append(f'<a href="{context["pathto"]("zh/glossary")}">术语表</a>')
    line = f'<nav class="languages" aria-label="{"语言" if is_chinese(pagename) else "Languages"}">{" · ".join(links)}</nav>\n'
    return f'<link rel="alternate" hreflang="{lang}" href="{to}">\n', line


def on_page(app, pagename, templatename, context, doctree) -> None:
    "A description in the head of each page, its language, the margin, and MathJax where there is mathematics."
    about = app.config.site["about"].get(pagename) or app.config.site["about"]["index"]
    head, line = in_two(app, pagename, context)
    context["language"] = language(pagename)
    context["metatags"] = context.get("metatags", "") + f'<meta name="description" content="{escape(about)}">\n{head}'
    body = context.get("body", "").replace(' aria-label="Toggle hidden content"', "")  # the words inside say more
    context["body"] = line + body
    context["toctree"] = lambda **options: margin(app, pagename, context)
    if doctree is not None and any(doctree.findall(lambda n: isinstance(n, nodes.math | nodes.math_block))):
        app.add_js_file(None, body=f"window.MathJax = {json.dumps(MATHJAX)}")
        app.add_js_file("mathjax/tex-chtml.js", loading_method="defer")


def read_site(app) -> None:
    app.config.site = json.loads((Path(app.srcdir) / "site.json").read_text(encoding="utf-8"))


def copy_mathjax(app, error) -> None:
    "MathJax and its fonts into the site: what it loads, and no more."
    if error is None:
        to = Path(app.outdir) / "_static" / "mathjax"
        for part in ("output/chtml/fonts", "input/tex/extensions"):
            shutil.copytree(app.config.mathjax_files / part, to / part, dirs_exist_ok=True)
        shutil.copy2(app.config.mathjax_files / "tex-chtml.js", to / "tex-chtml.js")


def setup(app) -> dict:
    app.add_config_value("mathjax_files", None, "html", types=(type(Path()),))
    app.add_config_value("site", {}, "", types=(dict,))
    app.add_html_math_renderer("book", (visit_math, None), (visit_displaymath, None))
    app.connect("builder-inited", read_site)
    app.connect("doctree-read", on_read)
    app.connect("html-page-context", on_page, priority=400)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
