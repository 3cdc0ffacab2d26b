"""The main job on this machine: `make demo`.

A real S3 service gets the toy base model and 24 captioned pictures of a new character; `charalora run examples/surtr.yaml` trains her as a
user would; the files that it leaves in the bucket are fetched to build/demo.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import seaweedfs
from seaweedfs import SeaweedFS

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "build" / "demo"
RESOURCE = Path("examples/surtr.yaml")
INPUTS = {"models": ("toy", ROOT / "examples/toyworld/base"), "datasets": ("surtr_arknights", ROOT / "examples/toyworld/surtr_arknights")}
OUTPUT = ("loras", "surtr")


def main() -> int:
    """Run the demo; the exit code is the training's."""
    began = time.monotonic()
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    say("Starting SeaweedFS, an S3 service, on free ports of this machine.")
    with s3_service() as service:
        say(f"It listens at {service.endpoint}. Uploading the toy base model and the data set.")
        for bucket, (prefix, folder) in INPUTS.items():
            upload(service, bucket, prefix, folder)
        seaweedfs.client(service).create_bucket(Bucket=OUTPUT[0])
        code = train(service)
        if code != 0:
            return code
        say("Fetching the files from the bucket.")
        files = download(service)
    minutes = (time.monotonic() - began) / 60
    say(f"Done in {minutes:.1f} minutes: {len(files)} files in {shown(PLACE / OUTPUT[1])}. Open this one in a browser:")
    print(f"\n    {shown(PLACE / OUTPUT[1] / 'report.html')}\n")
    return 0


def say(sentence: str) -> None:
    """What happens now."""
    print(f"demo: {sentence}", flush=True)


def shown(path: Path) -> str:
    """A path as short as it can be typed here."""
    return os.path.relpath(path)


@contextmanager
def s3_service() -> Iterator[SeaweedFS]:
    """A running S3 service with its files in the demo's folder."""
    service = seaweedfs.start(PLACE / "s3")
    try:
        yield service
    finally:
        seaweedfs.stop(service)


def upload(service: SeaweedFS, bucket: str, prefix: str, folder: Path) -> None:
    """A folder into a new bucket."""
    s3 = seaweedfs.client(service)
    s3.create_bucket(Bucket=bucket)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        s3.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")


def train(service: SeaweedFS) -> int:
    """What a user types, with the keys in the environment and the address of this service."""
    command = ["charalora", "run", str(RESOURCE), "--override", f"spec.storage.endpoint={service.endpoint}"]
    command += ["--work", str(PLACE.relative_to(ROOT) / "work")]
    say(f"Training; this is what you would type:\n\n    {' '.join(command)}\n")
    environment = os.environ | {"AWS_ACCESS_KEY_ID": service.access_key, "AWS_SECRET_ACCESS_KEY": service.secret_key}
    program = Path(sys.executable).with_name("charalora")
    return subprocess.run([str(program), *command[1:]], cwd=ROOT, env=environment, check=False).returncode


def download(service: SeaweedFS) -> list[Path]:
    """The output prefix, but for the training states, into the demo's folder."""
    s3 = seaweedfs.client(service)
    bucket, prefix = OUTPUT
    written = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
        for item in page.get("Contents", []):
            if not item["Key"].startswith(f"{prefix}/state/"):
                path = PLACE / item["Key"]
                path.parent.mkdir(parents=True, exist_ok=True)
                s3.download_file(bucket, item["Key"], str(path))
                written.append(path)
    return written


if __name__ == "__main__":
    sys.exit(main())
