"""Renders a Vega-Lite specification to an SVG element for an HTML page.

Owns what Vega does not know: the name and description that a screen reader reads, tooltips without
scripts, and a size that follows the page. Fetches nothing.
"""

from typing import Any
from xml.etree import ElementTree as ET

import vl_convert
from markupsafe import Markup

TIP = "_tip"
"""Marks of a layer whose name ends in this show their description as a tooltip."""

_AXIS = {
    "labelColor": "var(--ink-soft)",
    "titleColor": "var(--ink-soft)",
    "titleFontWeight": "normal",
    "gridColor": "var(--grid)",
    "domainColor": "var(--axis)",
    "tickColor": "var(--axis)",
    "labelFontSize": 11,
    "titleFontSize": 12,
    "titlePadding": 8,
}


def render(spec: dict[str, Any], ident: str, title: str, description: str) -> Markup:
    """SVG element whose ids start with ``ident``, which is unique on the page."""
    source = vl_convert.vegalite_to_svg(
        {"background": "transparent", "config": {"axis": _AXIS, "view": {"stroke": None}}, **spec},
        allowed_base_urls=[],
    )
    # an HTML page needs no namespaces, and without them ElementTree keeps its names short
    root = ET.fromstring(source.replace(' xmlns="http://www.w3.org/2000/svg"', "", 1))  # our own renderer's
    _add_tooltips(root)
    _drop_inner_roles(root)
    _name(root, ident, title, description)
    return Markup(ET.tostring(root, encoding="unicode"))  # safe: the serialiser escapes all text


def _add_tooltips(root: ET.Element) -> None:
    for group in root.iter("g"):
        if f"{TIP}_marks" in group.get("class", ""):
            for mark in group:
                ET.SubElement(mark, "title").text = mark.get("aria-label", "")


def _drop_inner_roles(root: ET.Element) -> None:
    """The figure speaks as one image; a thousand marks read out one by one would bury it."""
    for element in root.iter():
        for attribute in [name for name in element.attrib if name == "role" or name.startswith("aria-")]:
            del element.attrib[attribute]


def _name(root: ET.Element, ident: str, title: str, description: str) -> None:
    del root.attrib["width"], root.attrib["height"]  # the view box scales with the page
    root.set("role", "img")
    root.set("aria-labelledby", f"{ident}-title")
    root.set("aria-describedby", f"{ident}-desc")
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(tag, id=f"{ident}-{tag}")
        element.text = text
        root.insert(position, element)
