"""HTML from Python values. Text is escaped wherever it goes; only what `element` made is taken as it is. Pure."""

from collections.abc import Iterable
from html import escape

_VOID = frozenset({"br", "hr", "input", "link", "meta", "rect"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | int | None | Iterable["Child"]


def element(tag: str, *children: Child, **attributes: str | int | bool | None) -> Markup:
    """`<tag …>children</tag>`.

    Names of attributes are written with `_` for `-`, and with one behind a word of Python (`class_`). True is an attribute without
    a value; False and None leave it out.
    """
    head = "".join(_attribute(name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items())
    if tag in _VOID:
        return Markup(f"<{tag}{head}>" if tag != "rect" else f"<{tag}{head}/>")
    return Markup(f"<{tag}{head}>{_inner(children)}</{tag}>")


def together(*children: Child) -> Markup:
    """Several pieces without an element around them."""
    return Markup(_inner(children))


def page(title: str, head: Iterable[Child], body: Iterable[Child]) -> bytes:
    """A whole document."""
    viewport = element("meta", name="viewport", content="width=device-width, initial-scale=1")
    top = element("head", element("meta", charset="utf-8"), viewport, element("title", title), head)
    return f"<!doctype html>\n{element('html', top, element('body', body), lang='en')}\n".encode()


def _attribute(name: str, value: str | int | bool | None) -> str:  # noqa: FBT001 - an attribute's value
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'


def _inner(children: Iterable[Child]) -> str:
    return "".join(_child(child) for child in children)


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int):
        return escape(str(child))
    return _inner(child)
