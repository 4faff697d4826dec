"""Of a picture, what a reader of one mode sees: texts with their size, their colour and what is behind them.

It knows the few things of SVG and CSS that drawing.py and its users write:
classes, one media query, rectangles, groups and texts that are moved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

LIGHT, DARK = "light", "dark"
# Of a letter, in parts of the type's size: what sans-serif and monospaced ones have on average.
_LETTER = 0.52
_DARK_RULES = re.compile(r"@media \(prefers-color-scheme: dark\) \{\n(.*?)\n\}\n", re.DOTALL)
_RULE = re.compile(r"^\s*(\.?[\w-]+) \{([^{}]*)\}$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Said:
    """One text.

    Attributes:
        words: All of it.
        size: In pixels.
        colour, behind: As #rrggbb.
        right: Where it ends, in pixels, about.
    """

    words: str
    size: float
    colour: str
    behind: str
    right: float


class Picture:
    """A picture in one mode."""

    def __init__(self, source: str, mode: str) -> None:
        self._root = ElementTree.fromstring(source)
        style = "".join(one.text or "" for one in self._root.iter() if _tag(one) == "style")
        dark = "\n".join(_DARK_RULES.findall(style)) if mode == DARK else ""
        self._rules = _RULE.findall(_DARK_RULES.sub("", style) + "\n" + dark)
        self.width = float(self._root.get("width", "0"))
        self.page = self.colour({"page"}, "fill")
        self.texts = list(self._texts())

    def colour(self, kinds: set[str], what: str, tag: str = "") -> str:
        """Return the colour that a fill or a stroke of these classes has: a class goes before a tag."""
        return self._property(kinds, what, tag) or self._property(set(), what, tag)

    def kinds(self, *tags: str) -> set[str]:
        """Return all classes of these shapes."""
        return {kind for one in self._root.iter() if _tag(one) in tags for kind in _kinds(one)}

    def _property(self, kinds: set[str], what: str, tag: str) -> str:
        wanted = {f".{kind}" for kind in kinds} or {tag}
        found = [re.search(rf"(?:^|;) *{what}: ([^;]*)", body) for selector, body in self._rules if selector in wanted]
        return next((one[1].strip() for one in reversed(found) if one), "")

    def _texts(self) -> Iterator[Said]:
        boxes = []
        for one, left, top in _placed(self._root, 0.0, 0.0):
            kinds = _kinds(one)
            if _tag(one) == "rect":
                x, y, width, height = (float(one.get(name, "0")) for name in ("x", "y", "width", "height"))
                boxes.append((left + x, top + y, width, height, self.colour(kinds, "fill")))
            elif _tag(one) == "text":
                font = self._property(kinds, "font", "text") or self._property(set(), "font", "text")
                size = float(re.findall(r"([\d.]+)px", font)[0])
                moved = re.match(r"translate\(([\d.]+),([\d.]+)\)", one.get("transform", ""))
                x, y = (float(moved[1]), float(moved[2])) if moved else (float(one.get("x", 0)), float(one.get("y", 0)))
                x, y = left + x, top + y - size / 3
                behind = [fill for a, b, width, height, fill in boxes if a <= x <= a + width and b <= y <= b + height]
                words = "".join(one.itertext())
                share = {"end": 0.0, "middle": 0.5}.get(one.get("text-anchor", ""), 1.0)
                # One that is turned is as wide as its shadow, which is not longer.
                right = x + share * _LETTER * size * len(words) * (0.7 if "rotate" in one.get("transform", "") else 1.0)
                for part in one.iter():
                    colour = self.colour(_kinds(part) or kinds, "fill", "text")
                    yield Said(words, size, colour, behind[-1], right)


def _placed(parent: ElementTree.Element, left: float, top: float) -> Iterator[tuple[ElementTree.Element, float, float]]:
    for one in parent:
        yield one, left, top
        if _tag(one) == "g":
            moved = re.findall(r"[\d.]+", one.get("transform", ""))
            yield from _placed(one, left + float(moved[0]), top + float(moved[1]))


def _tag(one: ElementTree.Element) -> str:
    return one.tag.rpartition("}")[2]


def _kinds(one: ElementTree.Element) -> set[str]:
    return set(one.get("class", "").split())


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21 (WCAG 2, 1.4.3)."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
