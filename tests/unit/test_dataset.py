"""Data set folders: what training will see, and everything that keeps it from training."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tokenizers import Tokenizer

from builders import character_lora
from charalora_spec.outcome import Outcome
from charalora_trainer.data.dataset import DatasetPlan, read_dataset
from charalora_trainer.data.pairing import pair
from charalora_trainer.finding import NAMED_FILES, Finding
from charalora_trainer.storage.staging import INDEX
from charalora_trainer.words.tokenizer import load_tokenizer

TOKENIZER: Tokenizer = load_tokenizer()
SIZE = (64, 96)


def picture(folder: Path, name: str, size: tuple[int, int] = SIZE, seed: int | None = None) -> Path:
    """Noise; another one for every name unless a seed is given."""
    generator = random.Random(repr(name) if seed is None else seed)
    kind = {"jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}.get(name.rpartition(".")[2].lower(), "PNG")
    Image.frombytes("RGB", size, generator.randbytes(3 * size[0] * size[1])).save(folder / name, kind)
    return folder / name


def add(folder: Path, stem: str, caption: str = "1girl, solo", size: tuple[int, int] = SIZE) -> None:
    """A picture with its caption."""
    picture(folder, f"{stem}.png", size)
    (folder / f"{stem}.txt").write_text(caption, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good pairs."""
    add(tmp_path, "a")
    add(tmp_path, "b")
    return tmp_path


def read(folder: Path, **overrides: Any) -> tuple[DatasetPlan | None, list[Finding]]:
    spec = character_lora(**overrides).spec
    return read_dataset(folder, spec.dataset, spec.character, TOKENIZER)


def plan_of(folder: Path, **overrides: Any) -> DatasetPlan:
    plan, found = read(folder, **overrides)
    assert plan is not None, found
    return plan


def errors(folder: Path, **overrides: Any) -> list[tuple[str, tuple[str, ...]]]:
    """The first two words of every error, and its files."""
    return found(folder, stops=True, **overrides)


def warnings(folder: Path, **overrides: Any) -> list[tuple[str, tuple[str, ...]]]:
    return found(folder, stops=False, **overrides)


def found(folder: Path, *, stops: bool, **overrides: Any) -> list[tuple[str, tuple[str, ...]]]:
    _, findings = read(folder, **overrides)
    return [(" ".join(finding.message.split()[:2]), finding.files) for finding in findings if finding.stops is stops]


# What is paired.


def test_a_good_folder_gives_a_plan_and_no_finding(folder: Path) -> None:
    """Two pairs, one bucket."""
    plan, findings = read(folder)

    assert [] == findings
    assert plan is not None
    assert [("a", "a.png", "a.txt", "1girl, solo"), ("b", "b.png", "b.txt", "1girl, solo")] == [
        (pair.stem, pair.picture, pair.caption_file, pair.caption) for pair in plan.pairs
    ]
    assert [(64, 96, (0, 1))] == [(bucket.width, bucket.height, bucket.members) for bucket in plan.buckets]


@pytest.mark.parametrize("name", ["c.png", "c.PNG", "c.jpg", "c.JPEG", "c.Jpg", "c.webp"])
def test_pictures_are_known_by_their_ending(folder: Path, name: str) -> None:
    """In any case."""
    picture(folder, name)
    (folder / "c.txt").write_text("1girl")

    assert name in [pair.picture for pair in plan_of(folder).pairs]


def test_a_stem_ends_at_the_last_dot() -> None:
    """`a.b.png` and `a.c.png` are two pictures; HCP cut at the first dot and mixed their captions up."""
    assert {"a.b": ("a.b.png", "a.b.txt"), "a.c": ("a.c.png", "a.c.txt")} == pair(["a.b.png", "a.b.txt", "a.c.png", "a.c.txt"], "txt").pairs


@pytest.mark.parametrize("extension", ["caption", ".caption", "CAPTION"])
def test_captions_may_have_another_ending(extension: str) -> None:
    """With or without its dot."""
    assert {"a": ("a.png", "a.caption")} == pair(["a.png", "a.caption"], extension).pairs


def test_a_caption_s_ending_may_be_in_capitals() -> None:
    """As some systems write it."""
    assert {"a": ("a.png", "a.TXT")} == pair(["a.png", "a.TXT"], "txt").pairs


def test_stems_differ_in_case() -> None:
    """A caption of another case is another file's."""
    assert ("a.txt",) == pair(["A.png", "a.txt"], "txt").orphans


def test_pairs_are_sorted_whatever_the_file_system_says() -> None:
    """The number of a picture is the same on every machine."""
    assert ["a", "b", "c"] == list(pair(["c.png", "a.png", "b.png"], "txt").pairs)


# What is wrong.


def test_no_pictures(tmp_path: Path) -> None:
    """An empty folder, or a wrong prefix."""
    assert [("The data", ())] == errors(tmp_path)


def test_a_picture_without_caption(folder: Path) -> None:
    """Nothing is trained on an empty text by accident."""
    picture(folder, "c.png")

    assert [("Pictures without", ("c.png",))] == errors(folder)


def test_captions_of_another_ending_are_pointed_out(folder: Path) -> None:
    """`captions.extension` is the usual mistake; it has cost people days."""
    picture(folder, "c.png")
    (folder / "c.caption").write_text("1girl")
    _, findings = read(folder)

    assert "1 of them have a .caption file, so perhaps captions.extension should be caption" in findings[0].message


def test_a_picture_without_caption_may_be_skipped(folder: Path) -> None:
    """onMissing: Skip leaves it out and says so."""
    picture(folder, "c.png")
    skip = {"dataset.captions.onMissing": "Skip"}

    assert ["a", "b"] == [pair.stem for pair in plan_of(folder, **skip).pairs]
    assert [("Pictures without", ("c.png",))] == warnings(folder, **skip)


def test_a_picture_without_caption_may_be_trained_with_the_word(folder: Path) -> None:
    """onMissing: WordOnly keeps it and says so."""
    picture(folder, "c.png")
    word_only = {"dataset.captions.onMissing": "WordOnly"}

    assert [("c", None, "")] == [(pair.stem, pair.caption_file, pair.caption) for pair in plan_of(folder, **word_only).pairs[2:]]
    assert [("Pictures without", ("c.png",))] == warnings(folder, **word_only)


def test_a_caption_without_picture(folder: Path) -> None:
    """An upload that is not complete, or a name with a slip."""
    (folder / "c.txt").write_text("1girl")

    assert [("Captions without", ("c.txt",))] == errors(folder)


@pytest.mark.parametrize("text", ["", "  \n", ", ,", "\ufeff"])
def test_an_empty_caption(folder: Path, text: str) -> None:
    """A file without a single tag."""
    add(folder, "c", text)

    assert [("Empty captions", ("c.txt",))] == errors(folder)


def test_an_empty_caption_may_be_skipped(folder: Path) -> None:
    """Like a missing one."""
    add(folder, "c", "")

    assert ["a", "b"] == [pair.stem for pair in plan_of(folder, **{"dataset.captions.onMissing": "Skip"}).pairs]


def test_skipping_must_leave_a_picture(tmp_path: Path) -> None:
    """All captions missing is no data set."""
    picture(tmp_path, "a.png")

    assert [("No picture", ())] == errors(tmp_path, **{"dataset.captions.onMissing": "Skip"})


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("1girl".encode("utf-16"), id="UTF-16"),
        pytest.param("1girl".encode("utf-16-le"), id="UTF-16 without a mark"),
        pytest.param("少女".encode("gbk"), id="GBK"),
        pytest.param(b"a" * 70_000, id="70 KB"),
    ],
)
def test_a_caption_that_is_no_utf8_text(folder: Path, data: bytes) -> None:
    """Reported once, and not as empty as well."""
    (folder / "a.txt").write_bytes(data)

    assert [("Captions that", ("a.txt",))] == errors(folder)


def test_a_byte_order_mark_is_taken_away(folder: Path) -> None:
    """Windows' editor writes it."""
    (folder / "a.txt").write_bytes(b"\xef\xbb\xbf1girl")

    assert "1girl" == plan_of(folder).pairs[0].caption


def test_captions_in_any_language(folder: Path) -> None:
    """UTF-8 is UTF-8."""
    (folder / "a.txt").write_text("史尔特尔, 1girl", encoding="utf-8")

    assert "史尔特尔, 1girl" == plan_of(folder).pairs[0].caption


def test_two_pictures_of_one_stem(folder: Path) -> None:
    """Nobody can say whose caption it is."""
    picture(folder, "a.jpg")

    assert [("Files that", ("a.jpg", "a.png"))] == errors(folder)


def test_two_captions_of_one_stem(folder: Path) -> None:
    """Nor which caption is meant."""
    (folder / "a.TXT").write_text("1girl")

    assert [("Files that", ("a.TXT", "a.txt"))] == errors(folder)


def test_pictures_of_different_sizes(folder: Path) -> None:
    """The guide asks for one."""
    add(folder, "c", size=(64, 64))

    assert [("Pictures that", ("c.png",))] == errors(folder)


def test_pictures_of_different_sizes_are_fine_with_buckets(folder: Path) -> None:
    """Each shape is a bucket."""
    add(folder, "c", size=(96, 64))
    plan = plan_of(folder, dataset__sizing="Bucket", dataset__width=96, dataset__height=96)

    assert 2 == len(plan.buckets)


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "Empty files"), (b"GIF89a", "Files that"), (b"\x89PNG\r\n\x1a\n", "Damaged or")],
    ids=["empty", "GIF", "damaged"],
)
def test_a_picture_that_is_refused(folder: Path, data: bytes, words: str) -> None:
    """Each kind of refusal is a finding of its own."""
    (folder / "a.png").write_bytes(data)

    assert [(words, ("a.png",))] == errors(folder)


def test_all_findings_come_at_once(folder: Path) -> None:
    """One look, one list."""
    picture(folder, "c.png")
    (folder / "d.txt").write_text("1girl")
    (folder / "a.png").write_bytes(b"")
    (folder / "b.txt").write_text("")

    assert {"Pictures without", "Captions without", "Empty files", "Empty captions"} == {words for words, _ in errors(folder)}


def test_ten_files_are_named_and_all_are_counted(tmp_path: Path) -> None:
    """A thousand names would help nobody."""
    for number in range(23):
        (tmp_path / f"{number:02}.txt").write_text("1girl")
    finding = next(finding for finding in read(tmp_path)[1] if finding.files)

    assert (NAMED_FILES, 23) == (len(finding.files), finding.count)
    assert finding.text.endswith("08.txt, 09.txt, and 13 more]")


@pytest.mark.parametrize("name", ["a\nb.png", "a\x1b[31m.png", "a\\b.png", "a\udcff.png"])
def test_a_hostile_name(folder: Path, name: str) -> None:
    """Control characters, backslashes, bytes that are no text: refused, and shown so that a terminal and JSON can take it."""
    picture(folder, name)
    ((words, (shown,)),) = errors(folder)

    assert "File names" == words
    assert shown.isprintable()
    json.dumps(shown).encode()


def test_every_finding_is_about_the_data_set(folder: Path) -> None:
    """The reason that the user sees."""
    picture(folder, "c.png")

    assert {Outcome.DATASET_INVALID} == {finding.outcome for finding in read(folder)[1]}


def test_a_caption_that_is_too_long(folder: Path) -> None:
    """More than three times 75 tokens."""
    add(folder, "c", ", ".join(f"red hair {number}" for number in range(80)))

    assert [("Captions of", ("c.txt",))] == errors(folder)


# What is worth knowing.


def test_other_files_are_named_as_ignored(folder: Path) -> None:
    """Nothing is passed over in silence: not folders, not hidden files, not what macOS leaves."""
    (folder / "notes.md").write_text("x")
    (folder / ".a_meta.json").write_text("{}")
    (folder / "._a.png").write_bytes(b"x")
    (folder / "more").mkdir()

    assert [("Other files", ("._a.png", ".a_meta.json", "more/", "notes.md"))] == warnings(folder)


def test_what_staging_notes_for_itself_is_no_file_of_the_data_set(folder: Path) -> None:
    """It is ours, not the user's."""
    (folder / INDEX).write_text("{}")

    assert [] == warnings(folder)


def test_identical_pictures_are_a_warning(folder: Path) -> None:
    """By their content, whatever their names."""
    picture(folder, "a.png", seed=1)
    picture(folder, "b.png", seed=1)

    assert [("Pictures that", ("a.png", "b.png"))] == warnings(folder)
    assert 2 == len(plan_of(folder).pairs)


def test_a_wrong_ending_is_a_warning(folder: Path) -> None:
    """A JPEG that is called .png is read as a JPEG."""
    picture(folder, "c.jpg").rename(folder / "a.png")

    assert [("Pictures of", ("a.png",))] == warnings(folder)
    assert 2 == len(plan_of(folder).pairs)


# The plan.


def test_the_plan_survives_json(folder: Path) -> None:
    """It is written once and read by every process."""
    plan = plan_of(folder)

    assert plan == DatasetPlan.from_json(json.loads(json.dumps(plan.to_json())))


@pytest.mark.parametrize(("tags", "chunks"), [(10, 1), (40, 2), (60, 3)])
def test_chunks_are_what_the_longest_text_needs(folder: Path, tags: int, chunks: int) -> None:
    """75 positions each; a tag of two words and its comma takes three, word and sentence about ten."""
    add(folder, "c", ", ".join(f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in THINGS[: -(-tags // 3)]))

    assert chunks == plan_of(folder).chunks


THINGS = (
    *("hair", "eyes", "dress", "hat", "shoes", "gloves", "coat", "skirt", "shirt", "ribbon"),
    *("bow", "belt", "bag", "ring", "mask", "cape", "flower", "sky", "sea", "star"),
)


def test_the_word_counts_for_its_vectors(folder: Path) -> None:
    """Eight vectors take four positions more than four."""
    assert 4 == plan_of(folder, character__vectors=8).tokens - plan_of(folder, character__vectors=4).tokens


def test_a_word_inside_the_tags_counts_too(folder: Path) -> None:
    """Wherever the word stands it takes its vectors."""
    add(folder, "c", "xqz and xqz")

    assert plan_of(folder, character__name="xqz", character__vectors=20).tokens >= 60


def test_the_digest_stays_the_same(folder: Path) -> None:
    """The same files give the same digest."""
    assert plan_of(folder).digest == plan_of(folder).digest


def test_the_digest_ignores_what_training_ignores(folder: Path) -> None:
    """A note beside the pictures is no change of the data set."""
    before = plan_of(folder).digest
    (folder / "notes.md").write_text("x")

    assert before == plan_of(folder).digest


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda folder: picture(folder, "a.png", seed=99), id="a picture"),
        pytest.param(lambda folder: (folder / "a.txt").write_text("1girl"), id="a caption"),
        pytest.param(lambda folder: add(folder, "c"), id="one more"),
        pytest.param(lambda folder: [(folder / f"a.{kind}").rename(folder / f"z.{kind}") for kind in ("png", "txt")], id="a name"),
    ],
)
def test_the_digest_tells_every_change(folder: Path, change: Any) -> None:
    """Of pictures, captions and names."""
    before = plan_of(folder).digest
    change(folder)

    assert before != plan_of(folder).digest


def test_the_size_is_that_of_the_upright_picture(folder: Path) -> None:
    """A camera held sideways stores 96x64 and means 64x96."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (96, 64)).save(folder / "a.png", exif=exif.tobytes())

    assert (64, 96) == ((pair := plan_of(folder).pairs[0]).width, pair.height)


def test_a_link_to_a_picture_is_a_picture(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """People keep their pictures elsewhere."""
    elsewhere = picture(tmp_path_factory.mktemp("elsewhere"), "c.png")
    (folder / "c.png").symlink_to(elsewhere)
    (folder / "c.txt").write_text("1girl")

    assert 3 == len(plan_of(folder).pairs)
