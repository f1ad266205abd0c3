"""The reference of the site: what `help()` says, as pages, from the same words; each name with its place in the book.

Classes that declare their parameters get a table of them, made of the very descriptions that check and complete them.
"""

import importlib
import inspect
import re
from dataclasses import MISSING, fields, is_dataclass

import g100
from docs.stage import Exported, label
from g100.foundations.parameters import Declared, hints_of, words

SPECIAL = re.compile(r"([\\*_\[\]<>$|#{}~^@])")


def escaped(text: str) -> str:
    "Words in which nothing is Markdown but `code`; a text in single quotes is code, too."
    text = re.sub(r"(?<![\w`])('[^'`\s]+')(?![\w`])", r"`\1`", text)
    parts = re.split(r"(`[^`\n]+`)", text)
    return "".join(part if k % 2 else SPECIAL.sub(r"\\\1", part) for k, part in enumerate(parts))


def prose(doc: str | None) -> str:
    "A docstring as Markdown: its paragraphs, and its examples as code."
    said = inspect.cleandoc(doc or "").partition("\n\nParameters\n---")[0]
    example = inspect.cleandoc(doc or "").partition("\n\nExample\n-------\n")[2]
    paragraphs = [" ".join(escaped(p).split()) for p in re.split(r"\n\s*\n", said)]
    return "\n\n".join([*paragraphs, *([f"```pycon\n{example.strip()}\n```"] if example else [])])


def default_of(field) -> str:
    return "" if field.default is MISSING else f"`{field.default!r}`"


def parameter_table(cls: type) -> str:
    "The parameters of a class: the same names, ranges, defaults and words that `help()` shows."
    hints = hints_of(cls)
    lines = ["| parameter | is | default | for |", "|---|---|---|---|"]
    for f in fields(cls):
        told = (f"`{f.name}`", escaped(words(hints[f.name])), default_of(f), escaped(f.metadata.get("what") or ""))
        lines.append(f"| {' | '.join(told)} |")
    return "\n".join(lines)


def declares(thing) -> bool:
    "Whether it is a class that declares its parameters."
    return inspect.isclass(thing) and issubclass(thing, Declared) and is_dataclass(thing)


def signature(thing) -> str:
    "The parameters of a function as they are called; of a declared class none, since the table has them."
    if declares(thing):
        return ""
    try:
        text = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return ""
    text = re.sub(r"<(?:object|function|class|factory|built-in)[^>]*>", "...", text)
    return re.sub(r"\b(?:torch|typing|collections\.abc|pathlib|numpy|g100)\.(?:[a-z_]+\.)*(?=[A-Za-z])", "", text)


def own_methods(cls: type) -> list[tuple[str, object]]:
    "The public methods and properties that a class itself describes."
    found = []
    for name, member in vars(cls).items():
        inner = getattr(member, "__func__", getattr(member, "fget", member))
        if not name.startswith("_") and callable(inner) and inspect.getdoc(inner) and not inspect.isclass(inner):
            found.append((name, member))
    return found


def block(kind: str, head: str, body: list[str], depth: int, options: str = "") -> str:
    "A directive of Sphinx's Python domain, its fence longer than those inside."
    fence = "`" * depth
    return "\n".join([f"{fence}{{py:{kind}}} {head}", *([options] if options else []), "", *body, fence, ""])


def method(cls: type, name: str, member) -> str:
    if isinstance(member, property):
        return block("property", name, [prose(member.__doc__)], 4)
    kind = {classmethod: ":classmethod:", staticmethod: ":staticmethod:"}.get(type(member), "")
    inner = getattr(member, "__func__", member)
    text = re.sub(r"^\((?:self|cls)(?:, )?", "(", signature(inner))
    return block("method", f"{name}{text}", [prose(inspect.getdoc(inner))], 4, kind)


def described(found: Exported, thing, public: str = "") -> str:
    "One name: how it is called, what it is, its parameters, its methods, and where the book derives it."
    place = f"{{.derived}}\nDerived in [{escaped(found.title)}: {escaped(found.heading)}](#{label(found.stem, found.cell)})"
    name = found.name
    if inspect.isclass(thing):
        body = [prose(vars(thing).get("__doc__")), "", place, ""]
        if declares(thing) and fields(thing):
            body += [parameter_table(thing), ""]
        return block("class", f"{name}{signature(thing)}", [*body, *(method(thing, *each) for each in own_methods(thing))], 6)
    if inspect.isroutine(thing) or inspect.isfunction(inspect.unwrap(thing)):
        return block("function", f"{name}{signature(thing)}", [prose(thing.__doc__), "", place], 6)
    return block("data", name, [place], 6)


def module_page(module: str, found: list[Exported], about: str) -> str:
    "All that a module exports, in the order of its chapter."
    home = importlib.import_module(f"g100.{module}")
    lines = [f"# g100.{module}", "", escaped(about), "", f"```{{py:module}} g100.{module}\n```", ""]
    seen = set()
    for each in found:
        if not each.name.startswith("_") and each.name not in seen:
            seen.add(each.name)
            lines.append(described(each, getattr(home, each.name)))
    return "\n".join(lines)


def public_page(found: dict[tuple[str, str], Exported]) -> str:
    "What `from g100 import ...` gives, each with its first sentence."
    lines = ["# What can be imported from g100", "",
             "These names stay. Whatever else the modules export is described below, for who reads or changes the book.", "",
             "| name | is | derived in |", "|---|---|---|"]  # fmt: skip
    for name in g100.__all__:
        thing = getattr(g100, name)
        module = thing.__module__.removeprefix("g100.")
        each = found[module, name]
        first, place = prose(thing.__doc__).split("\n\n")[0], f"[{escaped(each.title)}](#{label(each.stem, each.cell)})"
        lines.append(f"| {{py:obj}}`{name} <g100.{module}.{name}>` | {first} | {place} |")
    return "\n".join(lines)
