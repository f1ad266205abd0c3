"""Sphinx's configuration of the site; `python -m docs` is what reads it."""

import configparser
from importlib.util import find_spec
from pathlib import Path

settings = configparser.ConfigParser(delimiters=["="])
settings.read(Path(__file__).parents[1] / "settings.ini", encoding="utf-8")

project = html_title = "g100"
author = settings["DEFAULT"]["author"]
copyright = settings["DEFAULT"]["copyright"]
release = version = settings["DEFAULT"]["version"]
language = "en"
extensions = ["myst_nb", "docs.extension"]
exclude_patterns = []
root_doc = "index"
smartquotes = False
add_module_names = False
toc_object_entries_show_parents = "hide"
suppress_warnings = ["myst.header"]

nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_output_stderr = "remove"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "attrs_block", "attrs_inline"]
myst_dmath_double_inline = True
myst_heading_anchors = 4
myst_heading_slug_func = "docs.extension.slug"

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_js_files = [("book.js", {"defer": "defer"})]
html_favicon = "static/favicon.svg"
pygments_style = "a11y-light"
pygments_dark_style = "a11y-dark"
html_math_renderer = "book"
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = True
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": [], "footer_icons": []}
mathjax_files = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
