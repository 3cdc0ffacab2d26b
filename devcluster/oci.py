"""Images as files: made from single programs, kept in one folder by digest, and brought to a node without what it has already."""

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from layout import CACHE, ClusterError, Node

LAYOUT = CACHE / "images"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def linked(program: Path) -> dict[str, Path]:
    """A program at /bin, with the libraries that it is linked to where it looks for them."""
    files = {f"bin/{program.name}": program}
    done = subprocess.run(["ldd", program], check=False, capture_output=True, text=True)
    if done.returncode == 0:  # a static program has none
        words = done.stdout.split()
        files |= {word.lstrip("/"): Path(word).resolve() for word in words if word.startswith("/")}
    return files


def program_image(program: Path) -> str:
    """An image with this one program, which is its entry point; the digest of its manifest."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, file in sorted(linked(program).items()):
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = 0o755, file.stat().st_size
            with file.open("rb") as stream:
                tar.addfile(entry, stream)
        for folder in ("tmp", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
    layer = _blob(content.getvalue(), "application/vnd.oci.image.layer.v1.tar")
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": [f"/bin/{program.name}"], "Env": ["PATH=/bin"], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    described = _blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": described, "layers": [layer]}
    return str(_blob(json.dumps(manifest).encode(), _MANIFEST)["digest"])


def bring(node: Node, reference: str, digest: str) -> int:
    """Import an image of the folder into a node, with the blobs that it lacks; how many bytes those were."""
    present = set(_ctr(node, "content", "ls", "-q").split())
    manifest = json.loads(_file(digest).read_bytes())
    blobs = [digest, *(part["digest"] for part in (manifest["config"], *manifest["layers"]))]
    lacking = [blob for blob in dict.fromkeys(blobs) if blob not in present]
    entry = {
        "mediaType": manifest.get("mediaType", _MANIFEST),
        "digest": digest,
        "size": _file(digest).stat().st_size,
        "annotations": {"io.containerd.image.name": reference},
    }
    command = [*_command(node), "images", "import", "-"]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as importing,
        tarfile.open(fileobj=importing.stdin, mode="w|") as tar,
    ):
        _add(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        _add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
        for blob in lacking:
            tar.add(_file(blob), f"blobs/{blob.replace(':', '/')}")
    if importing.returncode:
        raise ClusterError(f"{node.name} did not take {reference}; see {node.folder / 'logs/containerd.log'}.")
    return sum(_file(blob).stat().st_size for blob in lacking)


def images_of(node: Node) -> set[str]:
    """References of the images that a node has."""
    return set(_ctr(node, "images", "ls", "-q").split())


def size(digest: str) -> int:
    """Bytes of an image's layers."""
    return sum(int(layer["size"]) for layer in json.loads(_file(digest).read_bytes())["layers"])


def adopt(folder: Path, name: str) -> str:
    """Take over an image from a folder of its own, with a file for each blob; the digest of its manifest, which `name` finds again."""
    content = (folder / "manifest.json").read_bytes()
    manifest = json.loads(content)
    for part in (manifest["config"], *manifest["layers"]):
        kept = _file(part["digest"])
        kept.parent.mkdir(parents=True, exist_ok=True)
        (folder / part["digest"].removeprefix("sha256:")).rename(kept)
    digest = str(_blob(content, _MANIFEST)["digest"])
    (LAYOUT / "names").mkdir(exist_ok=True)
    (LAYOUT / "names" / name).write_text(digest)
    return digest


def named(name: str) -> str | None:
    """Digest of the image that was taken over under this name."""
    file = LAYOUT / "names" / name
    return file.read_text() if file.exists() else None


def _command(node: Node) -> list[str | Path]:
    return ["ctr", "--address", node.socket, "--namespace", "k8s.io"]


def _ctr(node: Node, *arguments: str) -> str:
    return subprocess.run([*_command(node), *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def _file(digest: str) -> Path:
    return LAYOUT / "blobs" / digest.replace(":", "/")


def _blob(content: bytes, media_type: str) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    file = _file(digest)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".draft")
        draft.write_bytes(content)
        draft.rename(file)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
