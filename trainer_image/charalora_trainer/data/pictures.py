"""Pictures as training takes them: whatever a crawler saves in, 8-bit sRGB on white out, or a reason why not."""

import io
import struct
import zlib
from pathlib import Path

from PIL import Image, ImageCms, UnidentifiedImageError

from charalora_trainer.data.picture_file import PictureRefused, Refusal, read, read_header, refuse_size

_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_GREY = {"1", "L", "LA", "La"}
# What Pillow's parsers raise on damaged files, found by fuzzing them.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def decode(source: bytes | Path, name: str = "") -> Image.Image:
    """The picture in RGB, upright, on white.

    Transparency lies on white. 16 bits are scaled to 8. Colours come out in sRGB where the file has an ICC profile; a damaged profile is
    passed over, as viewers do. CMYK is taken as Pillow reads it, Adobe's inverted JPEG included. The EXIF orientation is applied.

    Args:
        source: The file's content, or where it lies.
        name: What a refusal calls it; the file's own name where there is one.

    Raises:
        PictureRefused: The content is no PNG, JPEG or WebP, is damaged, truncated or animated, or has more than 64 megapixels.
    """
    if isinstance(source, Path):
        name, source = name or source.name, read(source, name)
    header = read_header(source, name)
    try:
        with Image.open(io.BytesIO(source), formats=[header.format]) as image:
            refuse_size(image.width, image.height, name)  # again: a JPEG may have several frame headers
            _refuse_animation(image, name)
            image.load()
            return _upright(_flat(image), image)
    except Image.DecompressionBombError as error:
        raise PictureRefused(name, Refusal.TOO_LARGE) from error
    except _DAMAGE as error:
        if isinstance(error, PictureRefused):
            raise
        raise PictureRefused(name, Refusal.DAMAGED, _detail(error)) from error


def _refuse_animation(image: Image.Image, name: str) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a camera's JPEG with a second, smaller copy behind it
        raise PictureRefused(name, Refusal.ANIMATED, f"{frames} frames")


def _detail(error: Exception) -> str:
    """Pillow's own words, but for those that name a place in memory."""
    return "not even its header can be read" if isinstance(error, UnidentifiedImageError) else str(error)


def _flat(image: Image.Image) -> Image.Image:
    """The picture in sRGB on white."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        return _srgb(_eight_bits(image), profile)
    if not image.has_transparency_data:
        return _srgb(image, profile)
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    colours = rgba.convert("RGB").convert("L") if image.mode in _GREY else rgba.convert("RGB")
    flat = Image.new("RGB", image.size, "white")
    flat.paste(_srgb(colours, profile), mask=rgba.getchannel("A"))
    return flat


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits, where Pillow's own conversion would clip. A transparent grey value, if any, is shown."""
    return image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB by the profile, or as Pillow converts where there is none that fits."""
    mode = "L" if image.mode in _GREY else "CMYK" if image.mode == "CMYK" else "RGB"
    if not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if {"L": "GRAY"}.get(mode, mode) != source.profile.xcolor_space.strip() or _is_srgb(source):
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(image.convert(mode), source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (OSError, ImageCms.PyCMSError):
        return image.convert("RGB")
    return converted or image.convert("RGB")


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Whether nothing is to be converted; converting all the same would move values by one through rounding."""
    return ImageCms.getProfileDescription(profile).startswith("sRGB")


def _upright(flat: Image.Image, original: Image.Image) -> Image.Image:
    """Turned as the camera says; damaged EXIF says nothing."""
    try:
        orientation = original.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:
        return flat
    return flat.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else flat
