"""What S3's ETags tell of content: the MD5 of what was sent in one piece, else the MD5 of the parts' MD5s, and how many there were."""

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path

PART = 8 << 20
"""Bytes of one request for a big object."""

_MOST_PARTS = 10_000  # S3's limit
_MD5 = re.compile(r"[0-9a-f]{32}")


def md5(data: bytes | bytearray) -> str:
    """MD5 in hexadecimal."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def content_md5(data: bytes) -> str:
    """MD5 as the header Content-MD5 has it."""
    return base64.b64encode(bytes.fromhex(md5(data))).decode()


def is_md5(etag: str) -> bool:
    """Whether an ETag can be the MD5 of a whole object."""
    return _MD5.fullmatch(etag) is not None


def bounds(size: int, step: int) -> Sequence[tuple[int, int]]:
    """Where each part of an object begins, and where it has ended."""
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def part_of(size: int) -> int:
    """Bytes of each part of an object that is sent in parts."""
    return max(PART, math.ceil(size / _MOST_PARTS))


def joined(parts: Sequence[str]) -> str:
    """The ETag of an object, from those of the parts that it was sent in."""
    digests = b"".join(bytes.fromhex(part) for part in parts if is_md5(part))
    return f"{md5(digests)}-{len(parts)}"


def of_file(path: Path) -> str:
    """The ETag that a file has when this program has sent it, and nothing encrypts it with a key of its own."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= PART:
            return md5(file.read())
        return joined([md5(file.read(end - start)) for start, end in bounds(size, part_of(size))])
