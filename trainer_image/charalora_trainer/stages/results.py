"""What a finished training tells its operator, read from the output prefix alone."""

from pathlib import PurePosixPath
from typing import Any

from charalora_spec.spec import CharacterLora
from charalora_trainer import history
from charalora_trainer.best import choose
from charalora_trainer.export.manifest import FILE, Manifest, ManifestFile
from charalora_trainer.storage import KeyMissing, Store


def results(run: CharacterLora, manifest: Manifest, output: Store) -> dict[str, Any]:
    """The files that people use, each with size and digest, and which step is the best, where that was measured, and the published one."""
    try:
        noted = history.parse(output.read(history.FILE).decode())
    except KeyMissing:
        noted = history.History()
    choice = choose(noted, run.spec.output.keep, run.spec.training.steps)
    used = {kind: file for file in manifest.files if (kind := _kind(file.path, choice.step))}
    best = {"best": {"step": noted.best[0], "heldOutLoss": f"{noted.best[1]:.6g}"}} if noted.best else {}
    return {
        "artifacts": [
            *(_artifact(kind, output, used[kind]) for kind in _ORDER if kind in used),
            {"kind": "manifest", "uri": f"{output.uri}{FILE}", "bytes": len(manifest.to_json().encode()), "sha256": manifest.digest},
        ],
        **best,
        "chosen": choice.sentence(run.spec.training.steps),
        "steps": run.spec.training.steps,
        "savedStep": run.spec.training.steps,
    }


_ORDER = ("embedding", "unet", "textEncoder", "webui", "report")


def _artifact(kind: str, output: Store, file: ManifestFile) -> dict[str, Any]:
    return {"kind": kind, "uri": output.uri + file.path, "bytes": file.bytes, "sha256": file.sha256}


def _kind(path: str, step: int) -> str | None:
    """What a file is to a person who takes the result of `step` away; None for all others."""
    match PurePosixPath(path).parts:
        case ("report.html",):
            return "report"
        case ("ckpts", name) if name == f"unet-{step}.safetensors":
            return "unet"
        case ("ckpts", name) if name == f"text_encoder-{step}.safetensors":
            return "textEncoder"
        case ("civitai", name):
            return {".safetensors": "webui", ".pt": "embedding"}.get(PurePosixPath(name).suffix)
    return None
