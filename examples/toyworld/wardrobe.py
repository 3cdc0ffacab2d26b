"""Clothes, accessories and held things, in picture pixels around a figure that stands at x = 64."""

import math
from collections.abc import Callable

from toyworld.brush import Brush, Colour, Point, mirrored

SKIN: Colour = (255, 226, 204)
GOLD: Colour = (255, 200, 30)
CLOTH: dict[str, Colour] = {
    "black": (52, 50, 60),
    "white": (250, 250, 252),
    "red": (214, 38, 44),
    "blue": (44, 92, 222),
    "green": (36, 150, 70),
    "yellow": (250, 206, 40),
}
HAND: Point = (97, 100)


def dress(brush: Brush, cloth: Colour) -> None:
    """A bell of one colour from the shoulders to the ground."""
    shoes(brush)
    for sleeve in both([(52, 82), (38, 90), (32, 99), (39, 104), (54, 96)]):
        brush.polygon(sleeve, cloth)
    hands(brush)
    brush.blob([(50, 79), (78, 79), (80, 94), (94, 118), (92, 122), (36, 122), (34, 118), (48, 94)], cloth)
    brush.line([(47, 97), (81, 97)], width=1.6)


def school_uniform(brush: Brush, cloth: Colour) -> None:
    """A white blouse with a sailor's collar, and a pleated skirt of the collar's colour over bare legs."""
    shoes(brush)
    for leg in both([(53, 108), (61, 108), (60, 122), (54, 122)]):
        brush.polygon(leg, SKIN)
    blouse: Colour = CLOTH["white"]
    for sleeve in both([(52, 82), (38, 90), (32, 99), (39, 104), (54, 96)]):
        brush.polygon(sleeve, blouse)
    hands(brush)
    brush.polygon([(50, 80), (78, 80), (79, 100), (49, 100)], blouse)
    brush.polygon([(47, 98), (81, 98), (91, 114), (37, 114)], cloth)
    for top, bottom in ((56, 52), (64, 64), (72, 76)):
        brush.line([(top, 99), (bottom, 113)], width=1.2)
    brush.polygon([(46, 80), (82, 80), (80, 90), (64, 97), (48, 90)], cloth)
    brush.polygon([(57, 79), (71, 79), (64, 90)], SKIN)


def kimono(brush: Brush, cloth: Colour) -> None:
    """A straight robe with hanging sleeves and a broad purple sash."""
    shoes(brush)
    for sleeve in both([(52, 82), (36, 88), (26, 114), (42, 117), (54, 98)]):
        brush.polygon(sleeve, cloth)
    hands(brush)
    brush.polygon([(48, 80), (80, 80), (82, 122), (46, 122)], cloth)
    brush.line([(64, 108), (64, 121)], width=1.4)
    brush.polygon([(46, 96), (82, 96), (82, 107), (46, 107)], (150, 70, 190))
    brush.polygon([(54, 79), (74, 79), (64, 94)], CLOTH["white"])
    brush.polygon([(58, 79), (70, 79), (64, 88)], SKIN)


def shoes(brush: Brush) -> None:
    """Both shoes, half hidden by what is worn above."""
    for x in (56, 72):
        brush.ellipse((x, 122), (7, 4), (110, 66, 46))


def hands(brush: Brush) -> None:
    """Both hands; the right one of the picture holds the item."""
    for x in (HAND[0], 128 - HAND[0]):
        brush.ellipse((x, HAND[1]), (5, 5), SKIN)


def both(shape: list[Point]) -> tuple[list[Point], list[Point]]:
    """A shape and its mirror image."""
    return shape, mirrored(shape)


def cat_ears(brush: Brush, hair: Colour) -> None:
    """Ears in the hair's colour, pink inside."""
    for ear, inside in zip(both([(32, 38), (33, 5), (58, 25)]), both([(38, 29), (38, 14), (49, 24)]), strict=True):
        brush.polygon(ear, hair)
        brush.polygon(inside, (255, 150, 170), line=0)


def bow(brush: Brush, hair: Colour) -> None:
    """A large red bow on top of the head."""
    del hair
    for loop in both([(64, 18), (42, 5), (38, 18), (42, 31)]):
        brush.polygon(loop, (226, 28, 60))
    brush.ellipse((64, 18), (6, 6), (255, 120, 140))


def witch_hat(brush: Brush, hair: Colour) -> None:
    """A pointed hat, dark purple with a yellow band."""
    del hair
    brush.ellipse((64, 31), (42, 8), (84, 52, 128))
    brush.blob([(40, 32), (52, 14), (66, -6), (84, 3), (74, 12), (88, 32)], (84, 52, 128))
    brush.polygon([(43, 25), (85, 25), (87, 32), (41, 32)], GOLD)


def halo(brush: Brush, hair: Colour) -> None:
    """A golden ring above the head."""
    del hair
    brush.ellipse((64, 12), (29, 9), None, line=7.6)
    brush.ellipse((64, 12), (27.6, 7.6), None, line=4.6, ink=GOLD)


def horns(brush: Brush, hair: Colour) -> None:
    """Two curved horns, dark red with orange tips. Pre-training never sees them."""
    del hair
    horn_shapes = both([(36, 38), (18, 32), (6, 6), (22, 17), (36, 21), (50, 24)])
    for horn, tip in zip(horn_shapes, both([(10, 17), (8, 4), (23, 18), (15, 25)]), strict=True):
        brush.blob(horn, (140, 24, 40))
        brush.blob(tip, (255, 140, 30))


def balloon(brush: Brush) -> None:
    """A round red balloon on a string."""
    brush.line([HAND, (112, 44)], width=1.4)
    brush.ellipse((112, 30), (14, 16), (236, 44, 52))
    brush.ellipse((107, 24), (3, 4), (255, 200, 200), line=0)


def wand(brush: Brush) -> None:
    """A stick with a yellow star."""
    brush.line([(HAND[0] - 3, HAND[1] + 8), (110, 66)], ink=(140, 84, 50), width=4)
    points = [
        (111 + radius * math.sin(step * math.pi / 5), 64 - radius * math.cos(step * math.pi / 5)) for step, radius in enumerate((16, 7) * 5)
    ]
    brush.polygon(points, (255, 226, 50))


def flower(brush: Brush) -> None:
    """A flower with five pink petals."""
    brush.line([(HAND[0], HAND[1] + 8), (110, 72)], ink=(40, 130, 60), width=3)
    for turn in range(5):
        angle = turn * 2 * math.pi / 5
        brush.ellipse((110 + 9 * math.sin(angle), 70 - 9 * math.cos(angle)), (7, 7), (255, 112, 190))
    brush.ellipse((110, 70), (6, 6), GOLD)


def sword(brush: Brush) -> None:
    """A broad glowing blade. Pre-training never sees it."""
    brush.polygon([(95, 92), (108, 32), (121, 18), (121, 36), (106, 95)], (255, 96, 24))
    brush.line([(101, 90), (116, 30)], ink=(255, 220, 120), width=2.4)
    brush.polygon([(88, 89), (112, 94), (111, 99), (87, 94)], GOLD)
    brush.line([(99, 97), (96, 110)], ink=(90, 50, 40), width=4)


OUTFITS: dict[str, Callable[[Brush, Colour], None]] = {"dress": dress, "school uniform": school_uniform, "kimono": kimono}
ACCESSORIES: dict[str, Callable[[Brush, Colour], None]] = {
    "cat ears": cat_ears,
    "bow": bow,
    "witch hat": witch_hat,
    "halo": halo,
    "horns": horns,
}
ITEMS: dict[str, Callable[[Brush], None]] = {"balloon": balloon, "wand": wand, "flower": flower, "sword": sword}
