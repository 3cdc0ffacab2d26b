"""Flat colour with a dark outline, on a canvas three times as fine as the picture."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

INK: Colour = (48, 34, 44)
FINENESS = 3


class Brush:
    """Draws shapes given in picture pixels; `shift` moves all that is drawn after it is set."""

    def __init__(self, size: int) -> None:
        self.canvas = Image.new("RGB", (size * FINENESS, size * FINENESS))
        self.shift: Point = (0.0, 0.0)
        self._draw = ImageDraw.Draw(self.canvas)

    def polygon(self, points: Sequence[Point], fill: Colour, line: float = 1.6) -> None:
        """A filled shape with straight edges."""
        self._draw.polygon(self._fine(points), fill=fill, outline=INK if line else None, width=round(line * FINENESS) or 1)

    def blob(self, points: Sequence[Point], fill: Colour, line: float = 1.6) -> None:
        """A filled shape with its corners rounded."""
        self.polygon(rounded(rounded(points)), fill, line)

    def ellipse(self, centre: Point, radii: Point, fill: Colour | None, line: float = 1.6, ink: Colour = INK) -> None:
        """A filled ellipse; without `fill` a ring of width `line`."""
        (x, y), (rx, ry) = centre, radii
        box = self._fine([(x - rx, y - ry), (x + rx, y + ry)])
        self._draw.ellipse(box, fill=fill, outline=ink if line else None, width=round(line * FINENESS) or 1)

    def line(self, points: Sequence[Point], ink: Colour = INK, width: float = 1.6) -> None:
        """An open stroke."""
        self._draw.line(self._fine(points), fill=ink, width=round(width * FINENESS), joint="curve")

    def arc(self, centre: Point, radii: Point, angles: tuple[float, float], ink: Colour = INK, width: float = 1.6) -> None:
        """Part of an ellipse's rim; angles in degrees, clockwise from the right."""
        (x, y), (rx, ry) = centre, radii
        self._draw.arc(self._fine([(x - rx, y - ry), (x + rx, y + ry)]), *angles, fill=ink, width=round(width * FINENESS))

    def picture(self) -> Image.Image:
        """What was drawn, at its final size."""
        return self.canvas.reduce(FINENESS)

    def _fine(self, points: Sequence[Point]) -> list[Point]:
        dx, dy = self.shift
        return [((x + dx) * FINENESS, (y + dy) * FINENESS) for x, y in points]


def rounded(points: Sequence[Point]) -> list[Point]:
    """Chaikin's corner cutting: each corner becomes two, a quarter of the way along its edges."""
    following = [*points[1:], points[0]]
    return [
        ((1 - part) * ax + part * bx, (1 - part) * ay + part * by)
        for (ax, ay), (bx, by) in zip(points, following, strict=True)
        for part in (0.25, 0.75)
    ]


def mirrored(points: Sequence[Point], axis: float = 64) -> list[Point]:
    """The same shape on the other side of the figure."""
    return [(2 * axis - x, y) for x, y in points]
