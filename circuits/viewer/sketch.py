"""A still picture of lines, marks and words: as SVG in pages, as PNG where notebooks strip everything else."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from interp import theme

WIDE, TALL = 900, 640  # pixels
_FINER = 2  # each way: Pillow draws lines without smoothing them, a smaller copy is smooth
_COLOURS = 64  # of the PNG

Place = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line through places, in pixels."""

    places: Sequence[Place]
    colour: str
    width: float
    opacity: float = 1.0


@dataclass(frozen=True)
class Mark:
    """A disc, or a square, with an outline."""

    at: Place
    radius: float
    fill: str = "#ffffff"
    outline: str = theme.INK
    square: bool = False


@dataclass(frozen=True)
class Words:
    """Text that starts, is centred or ends (`start`, `middle`, `end`) at a place on its line."""

    at: Place
    text: str
    anchor: str = "start"
    size: int = 12


@dataclass
class Sketch:
    """Shapes on white, the later ones on top. `told` says in words what is seen."""

    told: str
    shapes: list[Line | Mark | Words] = field(default_factory=list)

    def add(self, shapes: Iterable[Line | Mark | Words]) -> None:
        """Put more shapes on top."""
        self.shapes += shapes

    def svg(self) -> str:
        """The picture as SVG."""
        body = "".join(map(_svg, self.shapes))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {TALL}" width="{WIDE}" height="{TALL}" '
            f'font-family="sans-serif" fill="{theme.INK}"><rect width="{WIDE}" height="{TALL}" fill="white"/>'
            f"{body}</svg>"
        )

    def png(self) -> bytes:
        """The picture as PNG, of some tens of kilobytes."""
        from PIL import Image, ImageDraw, ImageFont

        image = Image.new("RGB", (WIDE * _FINER, TALL * _FINER), "white")
        pen = ImageDraw.Draw(image, "RGBA")
        sizes = {shape.size for shape in self.shapes if isinstance(shape, Words)}
        fonts = {size: ImageFont.load_default(size * _FINER) for size in sizes}
        for shape in self.shapes:
            match shape:
                case Line(places, colour, width, opacity):
                    ink = f"{colour}{round(255 * opacity):02x}"
                    pen.line([(_FINER * x, _FINER * y) for x, y in places], ink, max(1, round(_FINER * width)), "curve")
                case Mark((x, y), radius, fill, outline, square):
                    box = [_FINER * value for value in (x - radius, y - radius, x + radius, y + radius)]
                    (pen.rectangle if square else pen.ellipse)(box, fill, outline, _FINER)
                case Words((x, y), text, anchor, size):
                    side = {"start": "l", "middle": "m", "end": "r"}[anchor]
                    pen.text((_FINER * x, _FINER * y), text, theme.INK, fonts[size], side + "s")
        file = io.BytesIO()
        small = image.resize((WIDE, TALL), Image.Resampling.BOX)
        small.quantize(_COLOURS, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
        return file.getvalue()

    def image(self, kind: str, picture: bytes, width: int = WIDE) -> str:
        """The picture, drawn as `png` or `svg+xml`, as an HTML image of a data address."""
        address = f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
        return f'<img alt="{html.escape(self.told)}" width="{width}" src="{address}">'


def _svg(shape: Line | Mark | Words) -> str:
    match shape:
        case Line(places, colour, width, opacity):
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            ink = f'stroke="{colour}" stroke-width="{width}" opacity="{opacity}"'
            return f'<polyline points="{points}" fill="none" {ink}/>'
        case Mark((x, y), radius, fill, outline, square):
            ink, left, top = f'fill="{fill}" stroke="{outline}"', x - radius, y - radius
            if square:
                return f'<rect x="{left:.1f}" y="{top:.1f}" width="{2 * radius}" height="{2 * radius}" {ink}/>'
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" {ink}/>'
        case Words((x, y), text, anchor, size):
            at = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
            return f"<text {at}>{html.escape(text)}</text>"
