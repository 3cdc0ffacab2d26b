import pytest

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.storage.keys import collisions, problem_of, refuse_hostile, refuse_hostile_keys


@pytest.mark.parametrize(
    "key", ["a.png", "sub/a.png", "ステラ/01.png", "a b (1).txt", "..a", "a..", ".hidden", "a" * 255, "/".join(["d" * 100] * 10)]
)
def test_an_ordinary_key_is_taken(key: str) -> None:
    """Spaces, dots, other alphabets and folders are nothing bad."""
    assert problem_of(key) is None


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("", "is empty"),
        ("..", "has a part '.' or '..'"),
        ("../a", "has a part '.' or '..'"),
        ("a/../../b", "has a part '.' or '..'"),
        ("a/./b", "has a part '.' or '..'"),
        ("/etc/passwd", "is an absolute path"),
        ("a\\b", "has a backslash"),
        ("..\\a", "has a backslash"),
        ("a//b", "has an empty part"),
        ("a/", "has an empty part"),
        ("a\nb", "has a control character"),
        ("a\x00b", "has a control character"),
        ("a\x7fb", "has a control character"),
        ("a\x9bb", "has a control character"),
        ("a\udcffb", "has a control character"),
        ("/".join(["d" * 100] * 11), "is longer than 1024 bytes"),
        ("ü/" + "あ" * 86, "has a part of more than 255 bytes"),
    ],
)
def test_a_key_that_could_leave_its_folder_or_cannot_be_a_file_is_refused(key: str, problem: str) -> None:
    """A key becomes a file name below one folder, or nothing."""
    assert problem == problem_of(key)


def test_the_refusal_names_the_key_with_its_control_characters_escaped() -> None:
    """A message is one line, whatever the key holds."""
    with pytest.raises(TrainingError) as refused:
        refuse_hostile("a\n\x1b[31mb")

    assert Outcome.DATASET_INVALID is refused.value.outcome
    assert r"'a\n\x1b[31mb'" in refused.value.message
    assert "\n" not in refused.value.message


def test_a_refusal_of_many_names_ten_and_says_how_many() -> None:
    """All are reported at once, but a message stays readable."""
    with pytest.raises(TrainingError) as refused:
        refuse_hostile_keys(f"../{number:02}.png" for number in range(25))

    assert "(25)" in refused.value.message
    assert "'../09.png'" in refused.value.message
    assert "'../10.png'" not in refused.value.message
    assert "and 15 more" in refused.value.message


def test_ordinary_keys_together_are_taken() -> None:
    """Equal names in different folders do not collide."""
    refuse_hostile_keys(["a.png", "a.txt", "b/a.png", "b/a.txt", "ab/a.png"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Girl.png", "girl.png"),
        ("caf\u00e9.png", "cafe\u0301.png"),
        ("STRASSE.png", "straße.png"),
        ("Sub/a.png", "sub/a.png"),
        ("\u212bngstrom", "\u00e5ngstrom"),
    ],
)
def test_keys_that_are_one_file_elsewhere_are_refused(one: str, other: str) -> None:
    """A data set that is valid on one machine is valid on all, also where names ignore case."""
    with pytest.raises(TrainingError, match="differ only in case"):
        refuse_hostile_keys([one, other])


def test_a_file_and_a_folder_of_one_name_are_refused() -> None:
    """A bucket can hold both `a` and `a/b`; a disk cannot."""
    assert ["'a' is a file, and 'a/b.png' needs a folder of that name"] == list(collisions(["a", "a/b.png", "c.png"]))
