"""The project's images, built by buildah from its Dockerfile when their content changed."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import oci
from layout import CACHE, ROOT, ClusterError

_BASE = "localhost/debian:bookworm-slim"
_BASE_ARCHIVE = CACHE / "debian-bookworm.tar"
SOURCES = {
    "operator": ("operator/charalora_spec", "operator/charalora_operator"),
    "preflight": ("operator/charalora_spec", "trainer_image/charalora_trainer"),
    "trainer": ("operator/charalora_spec", "trainer_image/charalora_trainer"),
}
_WHEELS = CACHE / "wheels"
_UNPACK = ROOT / os.environ.get("CHARALORA_WHEELS", "../shared/wheels") / "unpack"


def build(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Reference and digest of these images, built where their content has none yet."""
    oci.LAYOUT.mkdir(parents=True, exist_ok=True)
    with (oci.LAYOUT / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # who asks while another builds, finds it built
        torch = _torch()
        return {name: _image(name, torch) for name in names}


def _image(name: str, torch: str) -> tuple[str, str]:
    key = _content(name, torch)
    reference = f"docker.io/charalora/{name}:{key}"
    digest = oci.named(f"{name}-{key}")
    if digest is None:
        began = time.monotonic()
        _say(f"Building the {name} image (minutes the first time).")
        _build(name, reference, torch)
        digest = _export(reference, f"{name}-{key}")
        _say(f"Built {reference}: {oci.size(digest) / 1e6:.0f} MB in {time.monotonic() - began:.0f} s.")
    return reference, digest


def _content(name: str, torch: str) -> str:
    """Digest of everything that goes into an image."""
    digest = hashlib.sha256(torch.encode() if name == "trainer" else b"")
    requirements = [f"requirements/{name}.txt", *(["requirements/cuda.txt"] if name == "trainer" and torch == "cuda" else [])]
    files = [ROOT / file for file in ("Dockerfile", "pyproject.toml", *requirements)]
    for folder in SOURCES[name]:
        files += sorted(file for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    for file in files:
        digest.update(f"{file.relative_to(ROOT)}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:12]


def _torch() -> str:
    """`cpu` where a wheel of the CPU build is at hand, as in devtools/venv.sh; else `cuda`, the registry's own."""
    if not os.access(_UNPACK, os.X_OK):
        return "cuda"
    subprocess.run([_UNPACK, _WHEELS], check=True, stdout=subprocess.DEVNULL)
    return "cpu"


def _build(name: str, reference: str, torch: str) -> None:
    _base()
    # The machine's own certificates and pip settings hold during the build and are no part of the image.
    mounts = [f"{path}:{path}:ro" for path in ("/etc/ssl/certs", "/etc/pip.conf") if Path(path).exists()]
    wheels = _WHEELS if torch == "cpu" else oci.LAYOUT / "no-wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    command = ["build", "--isolation=chroot", "--pull=never", "--layers", "--quiet", f"--target={name}", f"--tag={reference}"]
    command += [f"--volume={mount}" for mount in mounts]
    command += [f"--build-arg=BASE={_BASE}", f"--build-arg=TORCH={torch}", f"--build-context=wheels={wheels}"]
    _buildah(*command, f"--file={ROOT / 'Dockerfile'}", str(ROOT))


def _export(reference: str, name: str) -> str:
    """Take an image over from buildah's store; its layers stay unpacked, which is faster here than to pack and unpack them."""
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".draft-image-") as folder:
        _buildah("push", "--quiet", "--disable-compression", reference, f"dir:{folder}")
        return oci.adopt(Path(folder), name)


def _base() -> None:
    """Debian as its own image has it, made by debootstrap: buildah's store may be the first to need it, or the machine."""
    if subprocess.run([*_command(), "inspect", "--type=image", _BASE], check=False, capture_output=True).returncode == 0:
        return
    if not _BASE_ARCHIVE.exists():
        _say("Making a Debian base image by debootstrap (a minute, once per machine).")
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=".draft-debian-") as folder:
            _run("debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", folder)
            for waste in (
                "var/cache/apt/archives",
                "var/lib/apt/lists",
                "usr/share/doc",
                "usr/share/man",
                "usr/share/locale",
                "usr/share/info",
            ):
                for entry in Path(folder, waste).iterdir():
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            draft = _BASE_ARCHIVE.with_suffix(".draft")
            _run("tar", "--create", f"--file={draft}", f"--directory={folder}", "--one-file-system", "--numeric-owner", ".")
            draft.rename(_BASE_ARCHIVE)
    container = _buildah("from", "scratch").strip()
    try:
        _buildah("add", "--quiet", container, str(_BASE_ARCHIVE), "/")
        _buildah("config", "--cmd", "bash", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
        _buildah("commit", "--quiet", container, _BASE)
    finally:
        _buildah("rm", container)


def _command() -> list[str]:
    """Buildah with a store of its own, never the machine's."""
    return ["buildah", "--root", str(CACHE / "buildah"), "--runroot", "/run/charalora-buildah"]


def _buildah(*arguments: str) -> str:
    return _run(*_command(), *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)} failed: {(done.stderr + done.stdout).strip()[-3000:]}")
    return done.stdout


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
