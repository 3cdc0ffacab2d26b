"""Pictures of a training in progress are for looking at: nothing that goes wrong with them costs the training."""

import re
import shutil
from pathlib import Path

import pytest

from charalora_spec.outcome import Outcome
from trainings import TrainingJob, differences


@pytest.mark.parametrize("spoil", ["truncated", "removed"])
def test_a_preview_model_that_is_gone_after_the_check(job: TrainingJob, base_model: Path, spoil: str) -> None:
    """A network share that went away, say: each save says so in a line, and the training succeeds without pictures."""
    other = job.folder / "preview-base"
    shutil.copytree(base_model, other)
    weights = other / "unet/diffusion_pytorch_model.safetensors"
    running = job.with_fields(preview__base_model=other.as_uri()).start()
    running.until(r"load base model .*took")  # the preview's own is loaded at the first save
    if spoil == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    else:
        weights.unlink()
    ended = running.wait()

    assert Outcome.SUCCEEDED is ended.outcome, ended.err
    assert 2 == len(re.findall(r"^Previews of step [48] failed \(.*\); training goes on\.$", ended.err, re.MULTILINE))
    assert "Traceback" not in ended.err
    names = job.output_keys()
    assert {"manifest.json", "report.html", "ckpts/lora-8.safetensors", "civitai/README.md"} <= set(names)
    assert [] == [name for name in names if name.startswith("previews/")]


def test_pictures_do_not_change_what_is_learned(job: TrainingJob, base_model: Path) -> None:
    """With previews on another model, on the training's own, or failed: the same bits."""
    dropout = job.with_fields(training__lora__dropout=0.2)
    assert Outcome.SUCCEEDED is dropout.run().outcome
    expected = dropout.output()
    keys = job.s3.keys()
    for key in keys:
        if key.startswith("output/"):
            job.s3.client.delete_object(Bucket=job.s3.bucket, Key=key)

    other = dropout.with_fields(preview__base_model=base_model.as_uri(), preview__num=2, preview__seed=5).run(work="other")

    assert Outcome.SUCCEEDED is other.outcome, other.err
    differing = [name for name in differences(expected, job.output()) if not name.startswith(("previews/", "civitai/"))]
    assert [] == differing
