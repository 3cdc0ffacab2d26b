"""Which size each picture is trained in, and how it gets there."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from charalora_spec.spec import Dataset, Sizing
from charalora_trainer.finding import Finding, about_files

MULTIPLE = 8
"""Pixels, each way, that one latent pixel stands for."""

MAX_BUCKETS = 8  # each size of a batch is compiled once
MAX_ASPECT = 3.0  # a longer or wider picture is cut to this
SMALLEST = 64  # Stable Diffusion halves its latents three times
ENLARGED, CUT = 1.5, 1 / 3  # worth a warning: scaled by more, or a greater share cut off
SMALL_AREA = 256 * 256  # below it, steps of 64 pixels leave too few aspect ratios

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Bucket:
    """Pictures that are trained in one size.

    Attributes:
        width: In pixels, a multiple of 8.
        height: In pixels, a multiple of 8.
        members: Numbers of its pictures, ascending.
    """

    width: int
    height: int
    members: tuple[int, ...]


def plan(sizes: Sequence[Size], dataset: Dataset) -> tuple[Bucket, ...]:
    """The buckets of pictures of these sizes, the largest first; every picture is in exactly one.

    Same takes one bucket of the pictures' own size (if they differ: of the commonest, for the report alone). Fit takes one bucket of the
    target size. Bucket takes at most eight, whose sides are multiples of 64 (of 8 for small targets), whose area is at most width · height,
    and whose aspect ratios together are nearest to the pictures'.
    """
    if not sizes:
        return ()
    if dataset.sizing is Sizing.SAME:
        targets = [Counter(sizes).most_common(1)[0][0]] * len(sizes)
    elif dataset.sizing is Sizing.FIT:
        targets = [_target(dataset)] * len(sizes)
    else:
        targets = _nearest(sizes, _chosen(sizes, _candidates(*_target(dataset))))
    members = {size: tuple(number for number, target in enumerate(targets) if target == size) for size in set(targets)}
    ordered = sorted(members, key=lambda size: (-len(members[size]), size))
    return tuple(Bucket(*size, members[size]) for size in ordered)


def fit(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scaled to cover width x height, then cut around its centre. A picture of that size already comes back as it is.

    Nothing is padded: a model that sees borders learns borders.
    """
    if image.size == (width, height):
        return image
    box = covered(image.size, (width, height))
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)


def findings(sizes: Mapping[str, Size], dataset: Dataset) -> list[Finding]:
    """What is wrong with the sizes of these pictures, or will be changed more than their owner may expect."""
    if not sizes:
        return []
    return _not_same(sizes, dataset) if dataset.sizing is Sizing.SAME else _much_changed(sizes, dataset)


def _not_same(sizes: Mapping[str, Size], dataset: Dataset) -> list[Finding]:
    common = Counter(sizes.values()).most_common(1)[0][0]
    asked = (dataset.width or common[0], dataset.height or common[1])
    others = [name for name, size in sizes.items() if size != asked]
    unfit = [name for name, size in sizes.items() if any(side % MULTIPLE or side < SMALLEST for side in size)]
    whose = "as dataset.width and dataset.height say" if common != asked else "as most are"
    found = about_files(others, f"Pictures that are not {asked[0]}x{asked[1]}, {whose}", "give all one size, or set sizing: Bucket")
    return found + about_files(
        unfit, f"Pictures with sides that are no multiple of {MULTIPLE}, or under {SMALLEST}", "scale or cut them, or set sizing: Bucket"
    )


def _much_changed(sizes: Mapping[str, Size], dataset: Dataset) -> list[Finding]:
    names, given = list(sizes), list(sizes.values())
    target = {names[member]: (bucket.width, bucket.height) for bucket in plan(given, dataset) for member in bucket.members}
    enlarged = [name for name in names if scale_to(sizes[name], target[name]) > ENLARGED]
    cut = [name for name in names if _share_cut(sizes[name], target[name]) > CUT]
    found = about_files(
        enlarged,
        f"Pictures that are enlarged more than {ENLARGED:g} times, which blurs",
        "use larger ones, or a smaller target",
        stops=False,
    )
    return found + about_files(
        cut, "Pictures that lose more than a third of their area at the edges", "cut them to the character, or remove them", stops=False
    )


def _share_cut(size: Size, target: Size) -> float:
    return 1 - math.exp(-_difference(size, target))


def covered(size: Size, target: Size) -> tuple[float, float, float, float]:
    """The centred part of a picture that has the target's aspect ratio: left, top, right, bottom."""
    scale = scale_to(size, target)
    width, height = target[0] / scale, target[1] / scale
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return max(0.0, left), max(0.0, top), min(size[0], left + width), min(size[1], top + height)


def scale_to(size: Size, target: Size) -> float:
    """What a picture is scaled by to cover the target; above 1 it is enlarged."""
    return max(target[0] / size[0], target[1] / size[1])


def _target(dataset: Dataset) -> Size:
    if dataset.width is None or dataset.height is None:  # the resource's own rules refuse this
        raise ValueError(f"sizing {dataset.sizing.value} needs width and height")
    return dataset.width, dataset.height


def _candidates(width: int, height: int) -> list[Size]:
    """Sizes of about the target's area: for each width the greatest height that keeps within it."""
    area = width * height
    step = MULTIPLE if area < SMALL_AREA else 8 * MULTIPLE
    longest = int(math.sqrt(area * MAX_ASPECT))
    sides = [(side, area // side // step * step) for side in range(step, longest + 1, step)]
    fitting = {size for side in sides for size in (side, side[::-1]) if 0 < max(size) <= MAX_ASPECT * min(size)}
    return sorted(fitting | {(width, height)})


def _chosen(sizes: Sequence[Size], candidates: list[Size]) -> list[Size]:
    """At most eight of the sizes: those that no picture is nearest to go first, then those that are missed least."""
    chosen = sorted(set(_nearest(sizes, candidates)))
    counted = Counter(sizes)
    while len(chosen) > MAX_BUCKETS:
        chosen.remove(min(chosen, key=lambda size: _misfit(counted, [other for other in chosen if other != size])))
    return chosen


def _nearest(sizes: Sequence[Size], candidates: list[Size]) -> list[Size]:
    nearest = {
        size: min(candidates, key=lambda candidate: (_difference(size, candidate), -candidate[0] * candidate[1])) for size in set(sizes)
    }
    return [nearest[size] for size in sizes]


def _misfit(sizes: Counter[Size], candidates: list[Size]) -> float:
    return sum(count * min(_difference(size, candidate) for candidate in candidates) for size, count in sizes.items())


def _difference(size: Size, candidate: Size) -> float:
    """How far two aspect ratios are apart; the share that is cut off is 1 - exp(-difference)."""
    return round(abs(math.log(size[0] / size[1]) - math.log(candidate[0] / candidate[1])), 9)
