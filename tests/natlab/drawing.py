"""What all pictures of the documents have in common: their width, their type, their colours.  Pure.

GitHub shows a picture of a README at most 838 pixels wide, and a wider one is
made smaller, with its text.  So every picture is that wide, and no text is
below 12 pixels.  Each brings its own page, so that it is readable on any page,
and the colours of the page and of all ink follow the reader's mode.

Nothing here needs more of a renderer than classes in a style sheet: one that
knows no media query shows the light mode.
"""

from __future__ import annotations

from html import escape

WIDTH = 838
SIZE = 12
# Of a letter of that size, at most; sans-serif may be a wide one.
LETTER = 7.0

Colours = dict[str, tuple[str, str]]

# A class, and its colour in the light and in the dark mode.
INK: Colours = {"ink": ("#1f2328", "#e6edf3"), "muted": ("#59636e", "#9198a1")}
PAGE = ("#ffffff", "#0d1117")
GRID = ("#d8dee4", "#30363d")


def document(height: float, body: str, colours: Colours, more: str = "") -> str:
    """Return a whole picture.

    Args:
        height: In pixels.
        body: Shapes that have a class of `colours`, or `muted`, `page`, `grid`, `title`.
        colours: Of the classes of this picture, for fills and strokes.
        more: Rules that are the same in both modes.
    """
    light, dark = (_rules(colours, mode) for mode in (0, 1))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" '
        f'height="{height:g}">\n<style>\n'
        f"text {{ font: {SIZE}px sans-serif }}\n.title {{ font-weight: bold }}\n{more}{light}"
        f"@media (prefers-color-scheme: dark) {{\n{dark}}}\n</style>\n"
        f'<rect class="page" width="{WIDTH}" height="{height:g}"/>\n{body}\n</svg>\n'
    )


def _rules(colours: Colours, mode: int) -> str:
    """Return the rules of one mode: a class colours what is filled, its name with `line-` what is drawn."""
    named = {name: both[mode] for name, both in (INK | colours).items()}
    lines = [
        f"text {{ fill: {named['ink']} }}",
        f".page {{ fill: {PAGE[mode]} }}",
        f".grid {{ stroke: {GRID[mode]}; fill: none }}",
        *(
            f".{name} {{ fill: {colour} }}\n.line-{name} {{ stroke: {colour}; fill: none }}"
            for name, colour in named.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Return one line of text; `kind` is its classes."""
    look = f' class="{kind}"' if kind else ""
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text{look} x="{x:g}" y="{y:g}"{place}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    """Return a filled rectangle."""
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"/>'
