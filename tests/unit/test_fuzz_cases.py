"""Input from outside that once broke a promise, and right input beside it: each is tried again, and so is what hypothesis makes of both."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charalora_trainer.data import picture_file
from faults import Fault
from fuzz.targets import TARGETS, seeds

CORPUS = Path(__file__).resolve().parents[1] / "fuzz" / "corpus"
CASES = [(target, file) for target in TARGETS for file in sorted((CORPUS / target).glob("*"))]
EXAMPLES = 40


@pytest.mark.fault(Fault.HOSTILE_FILES)
@pytest.mark.timeout(300)  # bombs of a few hundred bytes: with the promise broken they take hours or all memory
@pytest.mark.parametrize(("target", "file"), CASES, ids=[f"{target}-{file.name}" for target, file in CASES])
def test_what_was_found_once_stays_mended(target: str, file: Path, tmp_path: Path) -> None:
    """A documented result or a documented error, in moments."""
    TARGETS[target](file.read_bytes(), tmp_path)


@pytest.mark.fault(Fault.HOSTILE_FILES)
@pytest.mark.parametrize("target", TARGETS)
def test_damaged_input_is_read_or_refused(target: str, tmp_path: Path) -> None:
    """The same damages each time; `make fuzz` thinks of others."""
    known = [*seeds(target), *(file.read_bytes() for kind, file in CASES if kind == target)]

    @settings(max_examples=EXAMPLES, derandomize=True, database=None, deadline=None)
    @given(st.sampled_from(known), st.integers(0, 4096), st.integers(0, 64), st.one_of(st.binary(max_size=64), st.text(max_size=32)))
    def tried(data: bytes, place: int, length: int, instead: bytes | str) -> None:
        begin = place % (len(data) + 1)
        middle = instead.encode(errors="surrogatepass") if isinstance(instead, str) else instead
        TARGETS[target](data[:begin] + middle + data[begin + length :], tmp_path)

    tried()


@pytest.mark.fault(Fault.HOSTILE_FILES)
def test_a_picture_of_fill_bytes_is_not_read_to_its_end() -> None:
    """A JPEG may have any number of them before its size; half a gigabyte would take minutes."""
    with pytest.raises(picture_file.PictureRefused, match="in its header"):
        picture_file.read_header(b"\xff\xd8\xff" + b"\xff" * 2_000_000 + b"\xc0\0\x11\x08\0\x09\0\x09", "a.jpg")
