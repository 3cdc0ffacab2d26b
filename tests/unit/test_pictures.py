"""Pictures: every kind that crawlers save, and every kind that is refused."""

import io
import pickle
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms

from charalora_trainer.data.picture_file import Header, PictureRefused, Refusal, read_header
from charalora_trainer.data.pictures import decode
from faults import Fault

RED, WHITE = (255, 0, 0), (255, 255, 255)
SIZE = (24, 16)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def picture() -> Image.Image:
    """Noise, so that no two pixels, rows or channels can be exchanged unseen."""
    generator = random.Random(7)
    return Image.frombytes("RGB", SIZE, generator.randbytes(3 * SIZE[0] * SIZE[1]))


def corner(image: Image.Image) -> object:
    return image.getpixel((0, 0))


def refusal(data: bytes) -> Refusal:
    with pytest.raises(PictureRefused) as refused:
        decode(data, "a.png")
    return refused.value.refusal


def with_corner(colour: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    image = Image.new(mode, SIZE)
    image.putpixel((0, 0), colour)
    return image


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_an_ordinary_picture_comes_out_as_it_is(kind: str, options: dict[str, bool]) -> None:
    """Lossless in, every pixel out."""
    assert picture().tobytes() == decode(saved(picture(), kind, **options)).tobytes()


def test_a_jpeg_comes_out_as_pillow_decodes_it() -> None:
    """Lossy, but no further loss."""
    data = saved(picture(), "JPEG", quality=90)

    assert Image.open(io.BytesIO(data)).tobytes() == decode(data).tobytes()


def test_a_file_is_decoded_as_its_content(tmp_path: Path) -> None:
    """A path and its bytes give the same picture."""
    file = tmp_path / "a.png"
    file.write_bytes(saved(picture()))

    assert decode(file.read_bytes()).tobytes() == decode(file).tobytes()


def test_transparency_lies_on_white() -> None:
    """A transparent pixel is white, whatever colour hides below."""
    assert WHITE == corner(decode(saved(with_corner((255, 0, 0, 0), "RGBA"))))


def test_half_transparency_is_half_white() -> None:
    """Red at 128 of 255 on white."""
    assert (255, 127, 127) == corner(decode(saved(with_corner((255, 0, 0, 128), "RGBA"))))


def test_transparent_grey_lies_on_white() -> None:
    """Grey with alpha (LA)."""
    assert WHITE == corner(decode(saved(with_corner((0, 0), "LA"))))


def test_a_transparent_palette_entry_lies_on_white() -> None:
    """A palette with one transparent entry."""
    image = with_corner(RED).quantize(4)
    index = image.getpixel((0, 0))

    assert WHITE == corner(decode(saved(image, transparency=index)))


def test_a_transparent_colour_lies_on_white() -> None:
    """RGB without alpha, but with a colour that stands for transparent (tRNS)."""
    assert WHITE == corner(decode(saved(with_corner(RED), transparency=RED)))


def test_a_transparent_webp_lies_on_white() -> None:
    """WebP has alpha too."""
    assert WHITE == corner(decode(saved(with_corner((255, 0, 0, 0), "RGBA"), "WEBP", lossless=True)))


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_other_modes_become_rgb(mode: str) -> None:
    """Black and white, grey and palette pictures show what they showed."""
    image = picture().convert(mode)

    assert image.convert("RGB").tobytes() == decode(saved(image)).tobytes()


def test_16_bit_grey_is_scaled() -> None:
    """Pillow's own conversion would clip everything above 255 to white."""
    image = Image.new("I;16", (3, 1))
    for place, value in enumerate((0, 0x8080, 0xFFFF)):
        image.putpixel((place, 0), value)

    assert bytes([0, 0, 0, 128, 128, 128, 255, 255, 255]) == decode(saved(image)).tobytes()


def test_16_bit_colour_is_scaled() -> None:
    """Pillow cannot write it, so the file is made by hand: one pixel of (0xFFFF, 0x8080, 0)."""
    row = b"\0" + struct.pack(">HHH", 0xFFFF, 0x8080, 0)
    data = png(struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0), row)

    assert (255, 128, 0) == corner(decode(data))


def test_cmyk_becomes_rgb() -> None:
    """Full cyan ink takes red away; Adobe's JPEGs store ink inverted, which Pillow writes and reads."""
    cyan = Image.new("CMYK", SIZE, (255, 0, 0, 0))
    red, green, blue = (channel.tobytes() for channel in decode(saved(cyan, "JPEG", quality=100)).split())

    assert max(red) < 10
    assert min(green + blue) > 245


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(orientation: int) -> None:
    """A camera held in any of eight ways gives an upright picture: Pillow's own turning is the reference."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(picture(), exif=exif.tobytes())
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))

    assert (expected.size, expected.tobytes()) == ((turned := decode(data)).size, turned.tobytes())


def test_damaged_exif_turns_nothing() -> None:
    """Viewers show such pictures as they are stored, and so do we."""
    assert picture().tobytes() == decode(saved(picture(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")).tobytes()


def test_an_icc_profile_is_converted_to_srgb() -> None:
    """Linear light: mid grey of the file is a bright grey on a screen (0.5 -> 188 of 255)."""
    data = saved(Image.new("RGB", SIZE, (128, 128, 128)), icc_profile=linear_profile())

    assert all(186 <= value <= 190 for value in decode(data).tobytes())


def test_transparency_and_profile_go_together() -> None:
    """The profile is for the colours; the white below is our own."""
    image = Image.new("RGBA", SIZE, (128, 128, 128, 0))

    assert WHITE == corner(decode(saved(image, icc_profile=linear_profile())))


def test_an_srgb_profile_changes_nothing() -> None:
    """Converting sRGB to sRGB would move values by one through rounding."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    assert picture().tobytes() == decode(saved(picture(), icc_profile=profile)).tobytes()


@pytest.mark.parametrize("profile", [b"no profile at all", b"\0" * 200])
def test_a_damaged_profile_is_passed_over(profile: bytes) -> None:
    """Viewers pass over it too."""
    assert picture().tobytes() == decode(saved(picture(), icc_profile=profile)).tobytes()


def test_a_profile_for_other_colours_is_passed_over() -> None:
    """A profile of RGB in a grey picture means nothing."""
    grey = picture().convert("L")

    assert grey.convert("RGB").tobytes() == decode(saved(grey, icc_profile=linear_profile())).tobytes()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_refused(kind: str) -> None:
    """Nobody can say which frame was meant."""
    frames = [picture(), picture().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]

    assert Refusal.ANIMATED is refusal(saved(frames[0], kind, save_all=True, append_images=frames[1:]))


def test_a_camera_s_jpeg_with_a_second_copy_is_no_animation() -> None:
    """MPO is a JPEG with another JPEG behind it; the first is the picture."""
    data = saved(picture(), "MPO", save_all=True, append_images=[picture().resize((8, 8))])

    assert SIZE == decode(data).size


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_truncated_picture_is_refused(kind: str, part: float) -> None:
    """Half an upload is not a picture with a grey rest."""
    data = saved(picture(), kind)

    assert Refusal.DAMAGED is refusal(data[: int(len(data) * part)])


def test_an_empty_file_is_refused() -> None:
    """Zero bytes."""
    assert Refusal.EMPTY is refusal(b"")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "AVIF"])
def test_another_format_is_refused_whatever_its_name_says(kind: str) -> None:
    """Only PNG, JPEG and WebP have a decoder here."""
    assert Refusal.FOREIGN is refusal(saved(picture(), kind))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "web page"),
        (b"\0\0\0\x18ftypmp42", "video"),
    ],
)
def test_a_foreign_file_is_called_by_its_name(data: bytes, what: str) -> None:
    """The message says what was found instead."""
    with pytest.raises(PictureRefused, match=what):
        decode(data, "a.png")


def test_the_refusal_names_the_file_and_what_to_do() -> None:
    """One line that a person can act on."""
    with pytest.raises(PictureRefused, match=r"^a\.png is refused \(Empty files\): upload the pictures again\.$"):
        decode(b"", "a.png")


def test_a_refusal_survives_pickling() -> None:
    """Worker processes hand it to their parent."""
    refused = PictureRefused("a.png", Refusal.DAMAGED, "no pixels")
    copy = pickle.loads(pickle.dumps(refused))  # noqa: S301  # our own bytes

    assert (refused.message, refused.refusal) == (copy.message, copy.refusal)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(lambda width, height: png(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b""), id="PNG"),
        pytest.param(lambda width, height: b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", height, width) + b"\3" + bytes(9), id="JPEG"),
        pytest.param(lambda width, height: webp(b"VP8X", bytes(4) + int24(width - 1) + int24(height - 1)), id="WebP extended"),
        pytest.param(
            lambda width, height: webp(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14)), id="WebP lossless"
        ),
        pytest.param(lambda width, height: webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)), id="WebP lossy"),
    ],
)
def test_more_than_64_megapixels_are_refused_by_the_header_alone(header: object) -> None:
    """These files have no pixels at all: a decoder that was asked would call them damaged, or take gigabytes first."""
    assert callable(header)

    assert Refusal.TOO_LARGE is refusal(header(8001, 8000))
    assert Refusal.DAMAGED is refusal(header(8000, 8000))


def test_a_jpeg_cannot_hide_its_size_behind_a_second_header() -> None:
    """Pillow takes the last frame header before the pixels, so that one counts too."""
    small, large = (b"\xff\xc0\0\x0b\x08" + struct.pack(">HH", side, side) + b"\1\1\x11\0" for side in (8, 60000))
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0"

    assert Refusal.TOO_LARGE is refusal(b"\xff\xd8" + small + large + scan)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0"}),
    ],
)
def test_the_header_says_what_the_decoder_says(kind: str, options: dict[str, object]) -> None:
    """Our own reading of the first bytes agrees with Pillow's."""
    assert Header(kind, *SIZE) == read_header(saved(picture(), kind, **options))


@pytest.mark.fault(Fault.HOSTILE_FILES)
def test_whatever_is_damaged_is_decoded_or_refused() -> None:
    """Fuzzing: no damage to a picture raises anything else, takes long or gives another mode."""
    generator = random.Random(20)
    originals = fuzzing_seeds()
    for _ in range(4000):
        data = damaged(generator.choice(originals), generator)
        try:
            assert "RGB" == decode(data, "a").mode
        except PictureRefused:
            continue


def fuzzing_seeds() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = picture()
    everything: dict[str, Any] = {"exif": exif.tobytes(), "icc_profile": linear_profile()}
    return [
        saved(image, **everything),
        saved(image, "JPEG", **everything),
        saved(image, "JPEG", progressive=True),
        saved(image, "WEBP", **everything),
        saved(image, "WEBP", lossless=True),
        saved(image.convert("RGBA"), "WEBP"),
        saved(image.convert("P"), transparency=3),
        saved(image.convert("LA")),
        saved(image.convert("CMYK"), "JPEG"),
        saved(image, save_all=True, append_images=[image.rotate(180)]),
    ]


def damaged(data: bytes, generator: random.Random) -> bytes:
    """Some bytes changed, removed or inserted, mostly near the beginning, where the structure is."""
    result = bytearray(data)
    for _ in range(generator.choice([1, 2, 5, 20])):
        place = generator.randrange(min(len(result), generator.choice([120, len(result)])))
        match generator.choice(["change", "change", "remove", "insert"]):
            case "change":
                result[place] = generator.randrange(256)
            case "remove":
                del result[place : place + generator.randrange(1, 9)]
            case "insert":
                result[place:place] = generator.randbytes(4)
    return with_checksums(bytes(result)) if generator.random() < 0.7 else bytes(result)


def with_checksums(data: bytes) -> bytes:
    """A PNG whose checksums are right, so that its parser goes deeper; anything else as it is."""
    if not data.startswith(b"\x89PNG"):
        return data
    result, place = data[:8], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        body = data[place + 4 : place + 8 + length]
        result += data[place : place + 8 + length] + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return result


def png(header: bytes, rows: bytes) -> bytes:
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def webp(chunk: bytes, body: bytes) -> bytes:
    inner = b"WEBP" + chunk + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(inner)) + inner


def int24(value: int) -> bytes:
    return value.to_bytes(3, "little")


def linear_profile() -> bytes:
    """SRGB's primaries with linear light: an ICC profile in which every curve is the identity."""
    tags = {
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.4361, 0.2225, 0.0139),
        b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
        b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
        b"rTRC": b"curv" + bytes(8),
        b"gTRC": b"curv" + bytes(8),
        b"bTRC": b"curv" + bytes(8),
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 7) + b"linear\0" + bytes(79),
    }
    place = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += name + struct.pack(">II", place + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    size = place + len(data)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    return header + bytes(28) + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D) + bytes(48) + table + data


def xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(value * 65536)) for value in values)
