"""Which size pictures are trained in."""

import random

import pytest
from PIL import Image, ImageChops

from builders import character_lora
from charalora_spec.spec import Dataset
from charalora_trainer.data.sizing import Bucket, Size, findings, fit, plan

GUIDE: Size = (512, 704)


def dataset(sizing: str = "Same", width: int | None = None, height: int | None = None) -> Dataset:
    return character_lora(dataset__sizing=sizing, dataset__width=width, dataset__height=height).spec.dataset


def messages(sizes: list[Size], rules: Dataset) -> list[tuple[str, tuple[str, ...], bool]]:
    """The first words of each finding, the files, and whether it stops the run."""
    found = findings({f"{number}.png": size for number, size in enumerate(sizes)}, rules)
    return [(" ".join(finding.message.split()[:4]), finding.files, finding.stops) for finding in found]


def stripes(width: int, height: int, across: int) -> Image.Image:
    """Black, white in the middle third: what is cut off is told from what is kept."""
    image = Image.new("L", (width, height))
    image.paste(255, (width // 3, 0, width - width // 3, height) if across else (0, height // 3, width, height - height // 3))
    return image.convert("RGB")


def test_pictures_of_one_size_are_one_bucket() -> None:
    """The guide's case: every picture has one size already."""
    assert (Bucket(512, 704, (0, 1, 2)),) == plan([GUIDE] * 3, dataset())


def test_no_pictures_are_no_buckets() -> None:
    """Nothing to plan."""
    assert () == plan([], dataset())


def test_fit_is_one_bucket_of_the_target() -> None:
    """Whatever sizes come in."""
    assert (Bucket(512, 768, (0, 1)),) == plan([(100, 900), (3000, 2000)], dataset("Fit", 512, 768))


def test_every_picture_is_in_one_bucket() -> None:
    """Nothing is lost, nothing comes twice."""
    sizes = random_sizes(300)

    assert list(range(300)) == sorted(member for bucket in plan(sizes, dataset("Bucket", 512, 704)) for member in bucket.members)


def test_there_are_at_most_eight_buckets() -> None:
    """Each size is compiled once, so many aspect ratios share eight."""
    assert 8 == len(plan(random_sizes(300), dataset("Bucket", 512, 704)))


def test_buckets_keep_within_the_target_s_area() -> None:
    """No bucket needs more memory than the size that was asked for."""
    assert all(bucket.width * bucket.height <= 512 * 704 for bucket in plan(random_sizes(300), dataset("Bucket", 512, 704)))


@pytest.mark.parametrize(("width", "height", "step"), [(512, 704, 64), (768, 768, 64), (128, 128, 8)])
def test_sides_of_buckets_are_multiples(width: int, height: int, step: int) -> None:
    """64 pixels; 8 where 64 would leave too few shapes."""
    assert all(bucket.width % step == 0 == bucket.height % step for bucket in plan(random_sizes(100), dataset("Bucket", width, height)))


def test_pictures_of_the_target_s_shape_get_the_target() -> None:
    """Even where it is no multiple of 64."""
    assert (Bucket(520, 712, (0,)),) == plan([(1040, 1424)], dataset("Bucket", 520, 712))


def test_a_picture_gets_the_bucket_nearest_in_shape() -> None:
    """Tall to tall, wide to wide."""
    buckets = plan([(600, 900), (900, 600), (800, 800)], dataset("Bucket", 512, 512))

    assert {0: (384, 640), 1: (640, 384), 2: (512, 512)} == {member: (b.width, b.height) for b in buckets for member in b.members}


def test_a_very_long_picture_gets_the_longest_bucket() -> None:
    """3 to 1 at most."""
    (bucket,) = plan([(100, 2000)], dataset("Bucket", 512, 704))

    assert bucket.height / bucket.width <= 3


def test_the_fullest_bucket_comes_first() -> None:
    """Its shape is compiled first, for most steps need it."""
    buckets = plan([(600, 900), (900, 600), (900, 600)], dataset("Bucket", 512, 512))

    assert [(1, 2), (0,)] == [bucket.members for bucket in buckets]


def test_the_plan_does_not_depend_on_the_order_of_pictures() -> None:
    """The same pictures under other names get the same sizes."""
    sizes = random_sizes(200)
    shapes = [{(b.width, b.height): len(b.members) for b in plan(some, dataset("Bucket", 512, 704))} for some in (sizes, sizes[::-1])]

    assert shapes[0] == shapes[1]


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    """Not one pixel changes."""
    image = stripes(64, 96, across=True)

    assert image is fit(image, 64, 96)


@pytest.mark.parametrize(("size", "across"), [((300, 100), True), ((100, 300), False)])
def test_a_picture_is_cut_around_its_centre(size: Size, across: bool) -> None:  # noqa: FBT001
    """Of three stripes the middle one remains, whole and alone."""
    values = fit(stripes(*size, across), 64, 64).convert("L").tobytes()

    assert min(values) >= 250 - 40
    assert sum(values) / len(values) > 250


def test_a_picture_is_scaled_before_it_is_cut() -> None:
    """As much as possible of it stays: a picture of the same shape loses nothing."""
    gradient = Image.linear_gradient("L").resize((200, 300))
    small = fit(gradient.convert("RGB"), 100, 150).convert("L")
    differences = ImageChops.difference(small, gradient.resize((100, 150)))

    assert max(differences.tobytes()) <= 2


@pytest.mark.parametrize("size", [(1, 1), (5000, 3), (3, 5000), (63, 65)])
def test_any_picture_can_be_fitted(size: Size) -> None:
    """However small or long."""
    assert (64, 96) == fit(Image.new("RGB", size), 64, 96).size


def test_same_sizes_need_nothing() -> None:
    """No finding where all is as the guide wants it."""
    assert [] == messages([GUIDE] * 3, dataset())


def test_the_pictures_that_differ_are_named() -> None:
    """Those of another size than most have."""
    assert [("Pictures that are not", ("1.png",), True)] == messages([GUIDE, (512, 768), GUIDE], dataset())


def test_a_given_size_is_what_all_must_have() -> None:
    """With width and height even pictures of one size may be wrong."""
    assert [("Pictures that are not", ("0.png", "1.png"), True)] == messages([GUIDE] * 2, dataset(width=512, height=768))


def test_a_given_width_alone_is_checked() -> None:
    """The height is taken from the pictures."""
    assert [("Pictures that are not", ("0.png",), True)] == messages([GUIDE], dataset(width=576))


@pytest.mark.parametrize("size", [(512, 700), (516, 704), (56, 704)])
def test_sides_must_be_multiples_of_8(size: Size) -> None:
    """Or the VAE would cut them; under 64 pixels the UNet has nothing left to halve."""
    assert [("Pictures with sides that", ("0.png",), True)] == messages([size], dataset())


@pytest.mark.parametrize("sizing", ["Bucket", "Fit"])
def test_any_size_can_be_brought_to_a_target(sizing: str) -> None:
    """What is Same's error is nothing here."""
    assert [] == messages([(511, 703), (600, 800)], dataset(sizing, 512, 704))


def test_much_enlarged_pictures_are_a_warning() -> None:
    """Half the size becomes blur."""
    assert [("Pictures that are enlarged", ("0.png",), False)] == messages([(256, 352), GUIDE], dataset("Bucket", 512, 704))


def test_much_cut_pictures_are_a_warning() -> None:
    """A wide picture in a tall target loses more than half."""
    assert [("Pictures that lose more", ("0.png",), False)] == messages([(1408, 1024), GUIDE], dataset("Fit", 512, 704))


def random_sizes(count: int) -> list[Size]:
    generator = random.Random(5)
    return [(generator.randint(300, 3000), generator.randint(300, 3000)) for _ in range(count)]
