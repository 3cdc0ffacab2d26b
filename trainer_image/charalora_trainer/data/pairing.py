"""Which picture belongs to which caption, by their names alone."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from charalora_spec.outcome import Outcome
from charalora_spec.spec import OnMissing
from charalora_trainer.data.picture_file import EXTENSIONS
from charalora_trainer.finding import Finding, about_files

_NO_CAPTION = {
    OnMissing.FAIL: "write the tags of each into a file of its name",
    OnMissing.SKIP: "they are left out, as captions.onMissing says",
    OnMissing.WORD_ONLY: "they are trained with the trigger word alone, as captions.onMissing says",
}
_NO_PICTURES = "The data set has no pictures; put .png, .jpg or .webp files and their captions into dataset.uri, without subfolders."


@dataclass(frozen=True)
class Pairing:
    """The files of a data set folder, sorted out.

    Attributes:
        pairs: Stem to (picture, caption file or None). A stem is the name up to its last dot, so `a.b.png` has the stem `a.b`.
        doubled: Files that share both their stem and their kind with another one; none of these stems is in `pairs`.
        orphans: Caption files without a picture.
        ignored: All other files, and hidden ones.
    """

    pairs: dict[str, tuple[str, str | None]]
    doubled: tuple[str, ...]
    orphans: tuple[str, ...]
    ignored: tuple[str, ...]


def pair(names: Iterable[str], extension: str) -> Pairing:
    """Sort out the names; endings in any case, the caption's with or without its dot."""
    pictures: dict[str, list[str]] = {}
    captions: dict[str, list[str]] = {}
    ignored = []
    for name in sorted(names):
        stem, dot, ending = name.rpartition(".")
        kind = pictures if f".{ending.lower()}" in EXTENSIONS else captions if ending.lower() == extension.lower().lstrip(".") else None
        if kind is None or not dot or name.startswith("."):  # macOS writes ._a.png beside a.png
            ignored.append(name)
        else:
            kind.setdefault(stem, []).append(name)
    doubled = {stem for kind in (pictures, captions) for stem, files in kind.items() if len(files) > 1}
    return Pairing(
        pairs={stem: (files[0], captions.get(stem, [None])[0]) for stem, files in sorted(pictures.items()) if stem not in doubled},
        doubled=tuple(name for kind in (pictures, captions) for files in kind.values() if len(files) > 1 for name in files),
        orphans=tuple(files[0] for stem, files in captions.items() if stem not in pictures and stem not in doubled),
        ignored=tuple(ignored),
    )


def findings(pairing: Pairing, extension: str, on_missing: OnMissing) -> list[Finding]:
    """What is wrong with the names."""
    uncaptioned = {stem: picture for stem, (picture, caption) in pairing.pairs.items() if caption is None}
    found = [] if pairing.pairs or pairing.doubled else [Finding(Outcome.DATASET_INVALID, _NO_PICTURES)]
    found += about_files(
        uncaptioned.values(),
        f"Pictures without a .{extension} caption",
        _NO_CAPTION[on_missing] + _hint(uncaptioned, pairing.ignored),
        stops=on_missing is OnMissing.FAIL,
    )
    found += about_files(pairing.orphans, "Captions without a picture", "add the pictures, or remove these files")
    found += about_files(
        pairing.doubled, "Files that differ in their ending alone", "rename or remove them, so that it is clear which caption is whose"
    )
    found += about_files(
        pairing.ignored, "Other files", "neither pictures nor captions, or hidden, or folders; training does not use them", stops=False
    )
    return found


def _hint(uncaptioned: dict[str, str], ignored: tuple[str, ...]) -> str:
    """What the captions may be instead: files of the same stem with another ending."""
    endings = Counter(name.rpartition(".")[2] for name in ignored if name.rpartition(".")[0] in uncaptioned)
    if not endings:
        return ""
    ending, count = endings.most_common(1)[0]
    return f"; {count} of them have a .{ending} file, so perhaps captions.extension should be {ending}"
