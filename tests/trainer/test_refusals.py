"""Bad input, tried through the command line: reason, exit code, a line that names the files, and nothing that looks like success."""

import io
import json
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from charalora_spec.outcome import Outcome
from services import S3, Answer, FaultyS3, free_port
from trainings import Ended, TrainingJob, picture, pictures

Files = dict[str, bytes]
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def remote(s3: S3, base_model: Path, tmp_path: Path) -> TrainingJob:
    """A job whose base model lies in the bucket too, and whose data set is still to be uploaded."""
    for file in base_model.rglob("*"):
        if file.is_file():
            s3.put(f"base/{file.relative_to(base_model).as_posix()}", file.read_bytes())
    return TrainingJob(s3, tmp_path, s3.uri("base/"))


def refused(job: TrainingJob, ended: Ended, outcome: Outcome, *says: str) -> None:
    """Assert what is true of every refusal before the training: told in whole, nothing fetched in vain, nothing left behind."""
    assert outcome is ended.outcome, ended.err
    assert ended.told["reason"] == outcome.reason
    assert ended.line.startswith(f"charalora: {outcome.reason}: "), ended.err
    for text in says:
        assert text in ended.told["message"]
        assert text in ended.err
    assert "Traceback" not in ended.err
    assert job.s3.secret_key not in ended.err + ended.out
    assert not (job.folder / "work/models").exists(), "weights of the base model were fetched"
    assert [] == job.output_keys()


def without(*names: str) -> Callable[[Files], Files]:
    return lambda files: {name: data for name, data in files.items() if name not in names}


def with_file(name: str, data: bytes) -> Callable[[Files], Files]:
    return lambda files: files | {name: data}


def huge() -> bytes:
    """A PNG of 67 megapixels in 8 KB."""
    file = io.BytesIO()
    Image.new("1", (8200, 8200)).save(file, "PNG")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG that says it has 4 giga pixels, and has none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 65_000, 65_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


DATASETS: dict[str, tuple[Callable[[Files], Files], tuple[str, ...]]] = {
    "no files": (lambda _: {}, ("The data set has no pictures; put .png, .jpg or .webp files",)),
    "no pictures": (
        lambda files: {name: data for name, data in files.items() if name.endswith("txt")},
        ("has no pictures", "Captions without a picture (6)"),
    ),
    "a picture without caption": (without("00.txt"), ("Pictures without a .txt caption (1)", "[00.png]")),
    "twelve pictures without caption": (
        lambda files: files | {f"a{number:02}.png": picture() for number in range(12)},
        ("Pictures without a .txt caption (12)", "a00.png", "a09.png, and 2 more]"),
    ),
    "an orphan caption": (without("03.png"), ("Captions without a picture (1)", "[03.txt]")),
    "an empty caption": (with_file("02.txt", b" ,\n"), ("Empty captions (1)", "[02.txt]")),
    "a caption that is no text": (with_file("02.txt", b"\xff\xfe1\0"), ("Captions that are no UTF-8 text", "[02.txt]")),
    "pictures of different sizes": (
        with_file("01.png", picture(64, 72)),
        ("Pictures that are not 64x64", "give all one size, or set sizing: Bucket", "[01.png]"),
    ),
    "sizes that are no multiple of 8": (
        lambda files: files | {f"{number:02}.png": picture(68, 68) for number in range(6)},
        ("Pictures with sides that are no multiple of 8", "[00.png, 01.png, 02.png, 03.png, 04.png, 05.png]"),
    ),
    "an undecodable picture": (
        with_file("04.png", b"\x89PNG\r\n\x1a\n" + b"nonsense" * 20),
        ("Damaged or truncated pictures (1)", "[04.png]"),
    ),
    "something else inside": (with_file("04.png", b"<html>404</html>"), ("Files that are no PNG, JPEG or WebP inside", "[04.png]")),
    "a truncated picture": (
        lambda files: files | {"05.png": files["05.png"][:-40]},
        ("Damaged or truncated pictures (1)", "[05.png]"),
    ),
    "an empty picture": (with_file("05.png", b""), ("Empty files (1)", "[05.png]")),
    "a picture of 67 megapixels": (with_file("05.png", huge()), ("Pictures of more than 64 megapixels (1)", "[05.png]")),
    "a decompression bomb": (with_file("05.png", bomb()), ("Pictures of more than 64 megapixels (1)", "[05.png]")),
    "a name with a control character": (with_file("a\x07.png", picture()), (r"'a\x07.png' has a control character",)),
}


@pytest.mark.parametrize("case", DATASETS)
def test_a_data_set_that_cannot_be_trained_on(remote: TrainingJob, case: str) -> None:
    """DatasetInvalid, with the files and how many they are."""
    change, says = DATASETS[case]
    remote.upload_dataset(change(pictures()))

    refused(remote, remote.run(), Outcome.DATASET_INVALID, *says)


def test_everything_that_is_wrong_is_told_at_once(remote: TrainingJob) -> None:
    """A line each, the count last."""
    remote.upload_dataset(pictures() | {"00.txt": b"", "01.png": picture(64, 72), "05.png": b""})

    ended = remote.run()

    refused(remote, ended, Outcome.DATASET_INVALID, "Empty captions (1)", "Pictures that are not 64x64", "Empty files (1)")
    assert 3 <= len([line for line in ended.err.splitlines() if line.startswith("charalora: DatasetInvalid: ")])


@pytest.mark.parametrize("false", ["../.png", "/aa.png", "a\\a.png", "..aa/.."])
def test_keys_that_lead_out_of_their_folder(faulty_s3: FaultyS3, remote: TrainingJob, false: str) -> None:
    """Some services take such names. None becomes a file."""
    true = "a" * len(false)
    job = TrainingJob(faulty_s3, remote.folder, remote.base).upload_dataset(pictures() | {true: picture()})
    faulty_s3.forge(f"dataset/{true}".encode(), f"dataset/{false}".encode(), times=1000)

    refused(job, job.run(), Outcome.DATASET_INVALID, repr(false))
    assert not list(job.folder.rglob("*aa*"))


def test_a_trigger_word_that_means_something_already(remote: TrainingJob) -> None:
    """The base model's own vocabulary wins, so the word would never reach what is learned."""
    job = remote.with_fields(character__name="sword").upload_dataset()

    refused(
        job, job.run(), Outcome.WORD_TAKEN, "'sword' is already a word of the base model", "choose a rarer one, such as sword_character"
    )


def test_a_resource_with_wrong_fields(remote: TrainingJob) -> None:
    """Every problem at once, each with its path as it stands in the file; nothing is asked of the bucket."""
    job = remote.with_fields(training__steps=-1, dataset__sizing="Stretch", training__colour=1, **{"preview.width": 65})

    ended = job.run()

    paths = ("spec.training.steps", "spec.dataset.sizing", "spec.training.colour", "spec.preview.width")
    refused(job, ended, Outcome.SPEC_INVALID, *paths)


def test_a_bucket_that_does_not_exist(remote: TrainingJob) -> None:
    """Bucket and endpoint are named."""
    job = remote.with_fields(dataset__uri="s3://no-such-bucket/x/")

    refused(job, job.run(), Outcome.BUCKET_NOT_FOUND, f"The bucket no-such-bucket does not exist at {job.s3.endpoint}")


def test_credentials_that_may_only_read(remote: TrainingJob) -> None:
    """The data set is read and the base model fetched, but the output prefix cannot be taken: nothing is trained."""
    job = remote.with_environment(
        AWS_ACCESS_KEY_ID=remote.s3.reader_access_key, AWS_SECRET_ACCESS_KEY=remote.s3.reader_secret_key
    ).upload_dataset()

    ended = job.run()

    assert Outcome.STORAGE_ACCESS_DENIED is ended.outcome, ended.err
    assert f"refuses writing {job.s3.uri('output/state/run.json')}: the credentials may not do this" in ended.line
    assert "load base model" not in ended.err
    assert [] == job.output_keys()


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "the secret key does not fit the access key"),
        ({"AWS_ACCESS_KEY_ID": "NOBODYSKEY"}, "the access key is unknown there"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "set AWS_ACCESS_KEY_ID"),
    ],
)
def test_credentials_that_are_wrong(remote: TrainingJob, variables: dict[str, str], says: str) -> None:
    """Which part of them, and never the key itself."""
    job = remote.with_environment(**variables)

    refused(job, job.run(), Outcome.STORAGE_ACCESS_DENIED, says)


def test_an_endpoint_where_nothing_listens(remote: TrainingJob) -> None:
    """Tried again for as long as the environment says, then given up."""
    endpoint = f"http://127.0.0.1:{free_port()}"
    job = remote.with_fields(storage__endpoint=endpoint).with_environment(CHARALORA_STORAGE_TIMEOUT="1")

    refused(job, job.run(), Outcome.STORAGE_UNREACHABLE, f"{endpoint} refuses the connection; check storage.endpoint")


def test_a_bucket_of_another_region(faulty_s3: FaultyS3, remote: TrainingJob) -> None:
    """The service says which one, and so do we."""
    faulty_s3.answer(Answer(301, "PermanentRedirect", (("x-amz-bucket-region", "eu-west-1"),)), times=100)
    job = TrainingJob(faulty_s3, remote.folder, remote.base)

    refused(job, job.run(), Outcome.STORAGE_UNREACHABLE, "is not in region us-east-1 but in eu-west-1; correct storage.region")


def test_a_certificate_that_nobody_vouches_for(remote: TrainingJob) -> None:
    """At once, for trying again would not help."""
    job = remote.with_fields(storage__endpoint=remote.s3.tls_endpoint)

    refused(job, job.run(), Outcome.STORAGE_UNREACHABLE, f"the certificate of {job.s3.tls_endpoint} is not trusted", "storage.caSecretName")


def test_a_data_set_that_changed_after_its_check(remote: TrainingJob) -> None:
    """`charalora check` gives a digest, `charalora run --expect-dataset` takes no other."""
    remote.upload_dataset()
    checked = remote.start_command(*remote.arguments("--json", command="check")).wait()
    assert Outcome.SUCCEEDED is checked.outcome, checked.err
    digest = json.loads(checked.out)["dataset"]["digest"]
    remote.s3.put("dataset/00.txt", b"1girl, changed")

    refused(remote, remote.run("--expect-dataset", digest), Outcome.DATASET_CHANGED, "The data set changed: the check saw another one")


class RunsCode:
    """A pickle that leaves a file where it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.marker,)


def missing(job: TrainingJob) -> None:
    keys = job.s3.keys()
    for key in keys:
        job.s3.client.delete_object(Bucket=job.s3.bucket, Key=key)


def incomplete(job: TrainingJob) -> None:
    job.s3.client.delete_object(Bucket=job.s3.bucket, Key=f"base/{UNET}")


def truncated(job: TrainingJob) -> None:
    job.s3.put(f"base/{UNET}", job.s3.get(f"base/{UNET}")[:-1000])


def with_code(job: TrainingJob) -> None:
    file = io.BytesIO()
    torch.save({"conv_in.weight": RunsCode(job.folder / "marker")}, file, pickle_protocol=pickle.DEFAULT_PROTOCOL)
    incomplete(job)
    job.s3.put("base/unet/diffusion_pytorch_model.bin", file.getvalue())


def of_another_kind(job: TrainingJob) -> None:
    config = json.loads(job.s3.get("base/unet/config.json"))
    job.s3.put("base/unet/config.json", json.dumps(config | {"in_channels": 9}).encode())


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (missing, "There is no base model at s3://"),
        (incomplete, "/base/ has no weights of its unet; give a complete diffusers folder"),
        (truncated, f"/base/{UNET} is no whole safetensors file (its header promises"),
        (with_code, "/base/unet/diffusion_pytorch_model.bin runs code when it is opened"),
        (of_another_kind, "/base/ has a UNet of 9 channels for latents of 4, so it is an inpainting model"),
    ],
)
def test_a_base_model_that_cannot_be_trained(remote: TrainingJob, spoil: Callable[[TrainingJob], None], says: str) -> None:
    """BaseModelInvalid from its headers alone; a pickle that would run code is never run."""
    spoil(remote)
    remote.upload_dataset()

    refused(remote, remote.run(), Outcome.BASE_MODEL_INVALID, says)
    assert not (remote.folder / "marker").exists()


def test_a_base_model_of_nans_diverges(job: TrainingJob, base_model: Path) -> None:
    """Its loss is no number from the first step on, and a training of few steps does not end before that is told."""
    spoilt = job.folder / "base"
    for file in base_model.rglob("*"):
        if file.is_file():
            (spoilt / file.relative_to(base_model)).parent.mkdir(parents=True, exist_ok=True)
            (spoilt / file.relative_to(base_model)).write_bytes(file.read_bytes())
    weights = load_file(spoilt / UNET)
    save_file({name: torch.full_like(tensor, torch.nan) for name, tensor in weights.items()}, spoilt / UNET)

    diverged(job.with_fields(baseModel__uri=spoilt.as_uri()))


def test_rates_beyond_all_measure_diverge_in_fp16(job: TrainingJob) -> None:
    """The loss scale falls as far as it can, and then it is over."""
    rates = {"unet": "1", "textEncoder": "1", "embedding": "1", "warmupSteps": 0}
    fields = {"training__precision": "fp16", "training__steps": 60, "training__save_every": 60, "training__learning_rate": rates}

    diverged(job.with_fields(**fields, training__lora__alpha=1024.0))


def diverged(job: TrainingJob) -> None:
    ended = job.run()

    assert Outcome.LOSS_DIVERGED is ended.outcome, ended.err
    assert "The loss was not finite in " in ended.line
    assert "lower training.learningRate or use bf16 or fp32" in ended.line
    assert not {"manifest.json", "report.html"} & set(job.output_keys())
    assert not [key for key in job.output_keys() if key.startswith("civitai/")]
