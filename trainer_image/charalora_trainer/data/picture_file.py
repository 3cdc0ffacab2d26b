"""What a picture file is, from its first bytes: its format and size, or why it is refused before any decoder sees it."""

import struct
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from charalora_spec.outcome import Outcome, TrainingError

EXTENSIONS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""File name endings of pictures, and the format that each promises."""

MAX_PIXELS = 64_000_000
MAX_BYTES = 512 * 1024 * 1024  # 64 megapixels of 16-bit RGBA, not compressed at all

_MOST_SEGMENTS = 10_000  # of a JPEG before its size; a large colour profile takes some hundred, fill bytes would take minutes

_OTHER_FORMATS = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"8BPS", "a Photoshop file"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file that it points to"),
    (b"<", "a web page or an SVG"),
)


class Refusal(Enum):
    """Why a file is no picture for training, and what to do; pictures of one refusal are reported together."""

    EMPTY = ("Empty files", "upload the pictures again")
    DAMAGED = ("Damaged or truncated pictures", "save or upload them again")
    FOREIGN = ("Files that are no PNG, JPEG or WebP inside, whatever their name says", "save them as one of these")
    TOO_LARGE = (f"Pictures of more than {MAX_PIXELS // 1_000_000} megapixels", "make them smaller")
    ANIMATED = ("Animated pictures", "save the frame that you want as PNG")

    def __init__(self, what: str, remedy: str) -> None:
        self.what = what
        self.remedy = remedy


class PictureRefused(TrainingError):  # noqa: N818  # says what happened to it
    """A file that training cannot take as a picture, with what is known of the cause."""

    def __init__(self, name: str, refusal: Refusal, detail: str = "") -> None:
        cause = f"{refusal.what}, {detail}" if detail else refusal.what
        super().__init__(Outcome.DATASET_INVALID, f"{name} is refused ({cause}): {refusal.remedy}.")
        self.name = name
        self.refusal = refusal
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as it is made."""
        return PictureRefused, (self.name, self.refusal, self.detail)


@dataclass(frozen=True)
class Header:
    """What the first bytes of a picture say: PNG, JPEG or WEBP, and its size in pixels as stored."""

    format: str
    width: int
    height: int


def read(file: Path, name: str = "") -> bytes:
    """The content of a picture file.

    Raises:
        PictureRefused: It is larger than any picture that would be accepted.
    """
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise PictureRefused(name or file.name, Refusal.TOO_LARGE, f"{size >> 20} MiB")
    return file.read_bytes()


def read_header(data: bytes, name: str = "") -> Header:
    """Format and size, without decoding anything.

    Raises:
        PictureRefused: As `decode`, for whatever shows in the header.
    """
    if not data:
        raise PictureRefused(name, Refusal.EMPTY)
    try:
        header = _header(data)
    except (struct.error, IndexError) as error:
        raise PictureRefused(name, Refusal.DAMAGED, "in its header") from error
    if header is None:
        raise PictureRefused(name, Refusal.FOREIGN, _what_it_is(data))
    refuse_size(header.width, header.height, name)
    return header


def _header(data: bytes) -> Header | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        if data[12:16] != b"IHDR":  # without it the next bytes are no size
            raise IndexError(12)
        return Header("PNG", *struct.unpack_from(">II", data, 16))
    if data.startswith(b"\xff\xd8\xff"):
        return Header("JPEG", *_jpeg_size(data))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Header("WEBP", *_webp_size(data))
    return None


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Size in the frame header, which is behind any number of other segments (ITU T.81, B.2)."""
    place = 2
    for _ in range(_MOST_SEGMENTS):
        if data[place] != 0xFF:
            raise IndexError(place)
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        place += 2 if marker == 0x01 or 0xD0 <= marker <= 0xD8 else 2 + struct.unpack_from(">H", data, place + 2)[0]
    raise IndexError(place)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Size in the first chunk: lossy, lossless or extended (RFC 9649)."""
    match data[12:16]:
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            low, high = struct.unpack_from("<IH", data, 24)
            return (low & 0xFFFFFF) + 1, (low >> 24 | high << 8) + 1
    raise IndexError(12)


def _what_it_is(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return {b"avif": "an AVIF", b"heic": "a HEIC", b"mif1": "a HEIC"}.get(data[8:12], "a video")
    return next((what for start, what in _OTHER_FORMATS if data.lstrip().startswith(start)), "an unknown format")


def refuse_size(width: int, height: int, name: str) -> None:
    """Make sure that the picture has pixels, and not too many.

    Raises:
        PictureRefused: It has none, or more than 64 million.
    """
    if width * height > MAX_PIXELS:
        raise PictureRefused(name, Refusal.TOO_LARGE, f"{width}x{height}")
    if not width or not height:
        raise PictureRefused(name, Refusal.DAMAGED, "no pixels")
