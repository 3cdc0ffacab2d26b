"""The cluster's programs, built from pinned Go modules: once per machine, about ten minutes, then kept in the cache.

    python devcluster/binaries.py [NAME …]

builds what is missing (without a name: everything) and prints one path a line. Who asks while another builds, waits for it.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from layout import CACHE, ClusterError

MODULE = Path(__file__).resolve().parent
KUBERNETES = "v1.35.4"
_STAMP = "k8s.io/component-base/version"
_KUBERNETES_FLAGS = f"-X {_STAMP}.gitVersion={KUBERNETES} -X {_STAMP}.gitMajor=1 -X {_STAMP}.gitMinor=35"  # unstamped it is v0.0.0


@dataclass(frozen=True)
class Recipe:
    """How a program is made.

    Attributes:
        package: Its main package.
        version: Of a module that `go install` takes; empty for packages that go.mod here pins.
        flags: More flags for the linker.
    """

    package: str
    version: str = ""
    flags: str = ""


RECIPES = {
    "helm": Recipe("helm.sh/helm/v3/cmd/helm", "v3.21.4"),
    "kubectl": Recipe("k8s.io/kubernetes/cmd/kubectl", flags=_KUBERNETES_FLAGS),
    "etcd": Recipe("go.etcd.io/etcd/server/v3"),
    "kube-apiserver": Recipe("k8s.io/kubernetes/cmd/kube-apiserver", flags=_KUBERNETES_FLAGS),
    "kube-controller-manager": Recipe("k8s.io/kubernetes/cmd/kube-controller-manager", flags=_KUBERNETES_FLAGS),
    "kube-scheduler": Recipe("k8s.io/kubernetes/cmd/kube-scheduler", flags=_KUBERNETES_FLAGS),
    "kubelet": Recipe("k8s.io/kubernetes/cmd/kubelet", flags=_KUBERNETES_FLAGS),
    "kube-proxy": Recipe("k8s.io/kubernetes/cmd/kube-proxy", flags=_KUBERNETES_FLAGS),
    "pause": Recipe("./pause"),
    "discovery": Recipe("./discovery"),
    "coredns": Recipe("github.com/coredns/coredns", "v1.15.0"),
    "kwok": Recipe("sigs.k8s.io/kwok/cmd/kwok", "v0.8.0"),
}


def binary(name: str) -> Path:
    """The program of this name, built where it is missing.

    Raises:
        ClusterError: There is no Go, or it could not be built.
    """
    program = _folder(RECIPES[name]) / name
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        with (program.parent / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not program.exists():
                _build(name, program)
    return program


def _folder(recipe: Recipe) -> Path:
    """Where a program lies: others' programs together, in another folder for other versions; ours each by its source."""
    if recipe.package.startswith("./"):
        return CACHE / f"devcluster-{_digest((MODULE / recipe.package / 'main.go').read_bytes())}"
    others = {name: made for name, made in RECIPES.items() if not made.package.startswith("./")}
    return CACHE / f"devcluster-{_digest((MODULE / 'go.mod').read_bytes(), (MODULE / 'go.sum').read_bytes(), repr(others).encode())}"


def _digest(*content: bytes) -> str:
    return hashlib.sha256(b"".join(content)).hexdigest()[:16]


def _build(name: str, program: Path) -> None:
    if not shutil.which("go"):
        raise ClusterError(f"{name} is built from source: install Go 1.25 or newer.")
    print(f"Building {name} (once per machine).", file=sys.stderr, flush=True)
    began = time.monotonic()
    recipe = RECIPES[name]
    draft = program.parent / f".draft-{name}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    flags = ["-p", "2", "-trimpath", "-ldflags", f"-s -w {recipe.flags}".strip()]
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    if recipe.version:
        command = ["install", *flags, f"{recipe.package}@{recipe.version}"]
        environment["GOBIN"] = str(draft)
    else:
        command = ["build", "-mod=readonly", *flags, "-o", str(draft / name), recipe.package]
    done = subprocess.run(["nice", "-n", "5", "go", *command], cwd=MODULE, env=environment, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise ClusterError(f"{name} could not be built: {done.stderr.strip()[-2000:]}")
    (draft / name).rename(program)
    draft.rmdir()
    print(f"Built {name} in {time.monotonic() - began:.0f} s.", file=sys.stderr, flush=True)


def main() -> None:
    """Print the paths of the programs that are asked for."""
    for name in sys.argv[1:] or RECIPES:
        if name not in RECIPES:
            sys.exit(f"There is no program {name!r} here; there are {', '.join(RECIPES)}.")
        try:
            print(binary(name), flush=True)
        except ClusterError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
