"""What a finished training tells its operator: the files that people use, and the best step."""

from pathlib import Path

import pytest

from builders import character_lora
from charalora_spec.status import Artifact, Best
from charalora_trainer import history
from charalora_trainer.export.manifest import Manifest, ManifestFile
from charalora_trainer.stages.results import results
from charalora_trainer.storage.local import LocalStore

NAMES = (
    "cfg.yaml", "ckpts/lora-10.safetensors", "ckpts/surtr_arknights-10.pt", "ckpts/text_encoder-10.safetensors",
    "ckpts/text_encoder-5.safetensors", "ckpts/unet-10.safetensors", "ckpts/unet-5.safetensors", "civitai/README.md",
    "civitai/surtr_arknights.pt", "civitai/surtr_arknights.safetensors", "previews/10/0-0.png", "report.html",
)  # fmt: skip
MANIFEST = Manifest("digest", tuple(ManifestFile(name, 7, "ab") for name in NAMES))


@pytest.mark.parametrize(("keep", "step"), [("All", 5), ("Last", 10), ("Best", 5)])
def test_the_files_of_the_chosen_step_are_told_by_kind(tmp_path: Path, keep: str, step: int) -> None:
    """Those of the step with the lowest held-out loss, but for `keep: Last`; every entry fits the status."""
    (tmp_path / history.FILE).write_text(history.line(5, held_out_loss=0.25) + history.line(10, held_out_loss=0.5))
    run = character_lora(training__steps=10, training__save_every=5, training__loss__held_out=1, output__keep=keep)
    output = LocalStore(tmp_path)

    told = results(run, MANIFEST, output)

    assert [
        ("embedding", "civitai/surtr_arknights.pt"),
        ("unet", f"ckpts/unet-{step}.safetensors"),
        ("textEncoder", f"ckpts/text_encoder-{step}.safetensors"),
        ("webui", "civitai/surtr_arknights.safetensors"),
        ("report", "report.html"),
        ("manifest", "manifest.json"),
    ] == [(artifact["kind"], artifact["uri"].removeprefix(output.uri)) for artifact in told["artifacts"]]
    assert all(Artifact.model_validate(artifact) for artifact in told["artifacts"])
    assert (5, "0.25") == ((best := Best.model_validate(told["best"])).step, str(best.held_out_loss))
    assert (10, 10) == (told["steps"], told["savedStep"])
    assert told["chosen"].startswith(f"step {step} of 10: ")


def test_without_held_out_pictures_no_step_is_the_best(tmp_path: Path) -> None:
    """Nothing was measured, so nothing is said."""
    assert "best" not in results(character_lora(training__steps=10, training__save_every=5), MANIFEST, LocalStore(tmp_path))


def test_the_manifests_own_digest_is_that_of_the_file(tmp_path: Path) -> None:
    """Who fetches it can compare."""
    told = results(character_lora(training__steps=10, training__save_every=5), MANIFEST, LocalStore(tmp_path))

    assert {"kind": "manifest", "bytes": len(MANIFEST.to_json().encode()), "sha256": MANIFEST.digest}.items() <= told["artifacts"][
        -1
    ].items()
