"""Pictures of looks: a girl with a large head before a background. A picture is a function of its look and a seed."""

import random

from PIL import Image

from toyworld.brush import Brush, Colour
from toyworld.looks import Look
from toyworld.wardrobe import ACCESSORIES, CLOTH, ITEMS, OUTFITS, SKIN, both

SIZE = 128

HAIR_COLOURS: dict[str, Colour] = {
    "black": (54, 50, 62),
    "white": (244, 244, 250),
    "blonde": (252, 214, 84),
    "pink": (255, 150, 196),
    "blue": (70, 130, 240),
    "green": (70, 180, 90),
    "red": (206, 44, 40),
}
EYE_COLOURS: dict[str, Colour] = {
    "red": (232, 24, 36),
    "blue": (30, 110, 255),
    "green": (20, 170, 60),
    "yellow": (255, 200, 0),
    "purple": (170, 50, 230),
}


def draw(look: Look, seed: int) -> Image.Image:
    """A picture of `look`; the seed moves the figure by a pixel or two and arranges the background."""
    rng = random.Random(seed)
    brush = Brush(SIZE)
    BACKGROUNDS[look.background](brush, rng)
    brush.shift = (rng.uniform(-2, 2), rng.uniform(-1, 1))
    figure(brush, look)
    return brush.picture()


def figure(brush: Brush, look: Look) -> None:
    """The girl, from what is farthest to what is nearest."""
    hair = HAIR_COLOURS[look.hair]
    hair_behind(brush, look.style, hair)
    OUTFITS[look.outfit](brush, CLOTH[look.colour])
    face(brush, look)
    fringe(brush, hair)
    if look.accessory != "none":
        ACCESSORIES[look.accessory](brush, hair)
    if look.item != "none":
        ITEMS[look.item](brush)


def hair_behind(brush: Brush, style: str, hair: Colour) -> None:
    """The part of the hair that hangs behind the head: it makes the style."""
    match style:
        case "long hair":
            brush.blob([(30, 22), (98, 22), (102, 60), (110, 116), (92, 119), (64, 112), (36, 119), (18, 116), (26, 60)], hair)
        case "short hair":
            brush.blob([(30, 22), (98, 22), (104, 60), (102, 83), (80, 86), (48, 86), (26, 83), (24, 60)], hair)
        case "twintails":
            for tail in both([(38, 34), (20, 26), (4, 50), (3, 108), (16, 112), (28, 84), (34, 60)]):
                brush.blob(tail, hair)
            for x in (31, 97):
                brush.ellipse((x, 40), (5, 5), (240, 70, 90))
        case "ponytail":
            brush.blob([(56, 12), (28, 4), (4, 30), (2, 96), (14, 104), (24, 70), (30, 44), (50, 36)], hair)


def face(brush: Brush, look: Look) -> None:
    """Skin, two very large eyes, cheeks and a mouth."""
    brush.ellipse((64, 54), (32, 28), SKIN)
    iris = EYE_COLOURS[look.eyes]
    for x in (50, 78):
        brush.ellipse((x, 58), (10, 12), (255, 255, 255), line=2)
        brush.ellipse((x, 59), (8.4, 10.4), iris, line=0)
        brush.ellipse((x, 60), (3, 4.5), (24, 14, 24), line=0)
        brush.ellipse((x - 3.6, 53.6), (3, 3.4), (255, 255, 255), line=0)
        brush.arc((x, 58), (11, 12.6), (190, 350), width=3)
    for x in (39, 89):
        brush.ellipse((x, 71), (4, 2.4), (255, 176, 170), line=0)
    if look.expression == "smile":
        brush.arc((64, 71), (6, 4.5), (20, 160), width=1.8)
    else:
        brush.ellipse((64, 74), (5, 4.5), (200, 50, 60), line=1.4)


def fringe(brush: Brush, hair: Colour) -> None:
    """The crown of the hair, jagged over the forehead, and a lock on either side of the face."""
    crown = [(28, 66), (27, 44), (36, 26), (52, 19), (64, 18), (76, 19), (92, 26), (101, 44), (100, 66)]
    jags = [(95, 46), (88, 50), (82, 41), (75, 48), (69, 38), (63, 48), (56, 38), (50, 48), (44, 41), (38, 50), (33, 46)]
    brush.polygon([*crown, *jags], hair)
    for lock in both([(27, 44), (34, 44), (33, 78), (27, 70)]):
        brush.polygon(lock, hair)
    brush.arc((64, 46), (28, 20), (215, 325), ink=lighter(hair), width=2.4)


def lighter(colour: Colour) -> Colour:
    """Halfway to white."""
    red, green, blue = colour
    return ((red + 255) // 2, (green + 255) // 2, (blue + 255) // 2)


def simple_background(brush: Brush, rng: random.Random) -> None:
    """One pale shade."""
    shade = rng.randrange(196, 216)
    brush.polygon([(0, 0), (SIZE, 0), (SIZE, SIZE), (0, SIZE)], (shade, shade, shade + 10), line=0)


def outdoors(brush: Brush, rng: random.Random) -> None:
    """Blue sky with a cloud, and a meadow."""
    brush.polygon([(0, 0), (SIZE, 0), (SIZE, 100), (0, 100)], (140, 204, 248), line=0)
    x, y = rng.uniform(8, 28), rng.uniform(10, 18)
    for offset, radius in ((-8, 7), (2, 10), (12, 7)):
        brush.ellipse((x + offset, y), (radius, radius * 0.8), (255, 255, 255), line=0)
    horizon = rng.uniform(92, 98)
    brush.polygon([(0, horizon), (SIZE, horizon), (SIZE, SIZE), (0, SIZE)], (130, 200, 90), line=0)


def night(brush: Brush, rng: random.Random) -> None:
    """A dark blue sky with a moon and some stars."""
    brush.polygon([(0, 0), (SIZE, 0), (SIZE, SIZE), (0, SIZE)], (30, 38, 104), line=0)
    brush.ellipse((rng.uniform(12, 20), rng.uniform(13, 19)), (10, 10), (252, 240, 180), line=0)
    for _ in range(8):
        brush.ellipse((rng.uniform(2, 126), rng.uniform(2, 90)), (1.4, 1.4), (255, 255, 230), line=0)


def indoors(brush: Brush, rng: random.Random) -> None:
    """A beige wall with a window, and a wooden floor."""
    brush.polygon([(0, 0), (SIZE, 0), (SIZE, 104), (0, 104)], (244, 222, 180), line=0)
    x, y = rng.uniform(2, 8), rng.uniform(6, 12)
    brush.polygon([(x, y), (x + 24, y), (x + 24, y + 30), (x, y + 30)], (160, 214, 246), line=2.4)
    brush.line([(x + 12, y), (x + 12, y + 30)], width=1.6)
    brush.line([(x, y + 15), (x + 24, y + 15)], width=1.6)
    floor = rng.uniform(98, 104)
    brush.polygon([(0, floor), (SIZE, floor), (SIZE, SIZE), (0, SIZE)], (172, 118, 78), line=0)


BACKGROUNDS = {"simple background": simple_background, "outdoors": outdoors, "night": night, "indoors": indoors}
