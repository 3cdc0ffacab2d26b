"""What a LoRA file says about its training: kohya's `ss_*`, Stability's `modelspec.*` and the hashes that sites identify files by.

Without `ss_*` webui shows the version "Unknown"; without `modelspec.architecture` Forge does. Keys and forms: kohya sd-scripts 48d368f
(train_network.py, library/sai_model_spec.py). Every value is text; times are arguments, so the same training gives the same file.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from charalora_trainer.weights import Adapter

_LEGACY_START, _LEGACY_BYTES = 0x100000, 0x10000


@dataclass(frozen=True)
class BucketFacts:
    """How many pictures were trained at one size."""

    width: int
    height: int
    count: int


@dataclass(frozen=True)
class TrainedBase:
    """The model that the LoRA was trained on.

    Attributes:
        name: As people know it.
        sha256: Of its checkpoint file, 64 hexadecimal digits; none for a folder of several files.
        prediction: `epsilon` or `v_prediction`.
        clip_skip: HCP counting, 1 where webui says 2.
    """

    name: str
    sha256: str | None = None
    prediction: str = "epsilon"
    clip_skip: int = 1


@dataclass(frozen=True)
class DatasetFacts:
    """What was trained on.

    Attributes:
        name: The folder's name.
        pictures: How many.
        buckets: Sizes, at least one.
        tag_frequency: How often each tag stands in the captions.
    """

    name: str
    pictures: int
    buckets: tuple[BucketFacts, ...]
    tag_frequency: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingFacts:
    """Everything that a LoRA file tells about its training. Nothing else is looked up.

    Attributes:
        name: The trigger word; files are named after it.
        step: The step that this file holds.
        steps: Steps of the whole training.
        rates: Effective learning rates by `unet`, `text_encoder` and `embedding`, after scaling with the batch.
        total_batch: Pictures of one step, over all processes and accumulation.
        options: Further settings as text, under kohya's names without `ss_` (`mixed_precision`, `noise_offset`, …).
        started: When the training began, with a time zone.
        saved: When this step was saved, with a time zone.
    """

    name: str
    step: int
    steps: int
    seed: int
    rates: Mapping[str, float]
    batch: int
    total_batch: int
    base_model: TrainedBase
    dataset: DatasetFacts
    started: datetime
    saved: datetime
    strength: float = 0.85
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FileHashes:
    """How sites and programs name a LoRA file.

    Attributes:
        sha256: Of the whole file.
        model_hash: Of the tensors alone (`sshs_model_hash`): the same after somebody edits the metadata.
    """

    sha256: str
    model_hash: str

    @property
    def auto_v2(self) -> str:
        """Civitai's AutoV2."""
        return self.sha256[:10].upper()

    @property
    def auto_v3(self) -> str:
        """Civitai's AutoV3, which webui writes into pictures as "Lora hashes"."""
        return self.model_hash[:12].upper()


def file_hashes(path: Path) -> FileHashes:
    """Hashes of a safetensors file as it stands."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    return FileHashes(hashlib.sha256(data).hexdigest(), hashlib.sha256(data[start:]).hexdigest())


def webui_metadata(
    adapter: Adapter, facts: TrainingFacts | None, data: bytes, header: Callable[[Mapping[str, str]], bytes]
) -> dict[str, str]:
    """All metadata of a webui LoRA.

    Args:
        adapter: What the file holds.
        facts: About the training; without them only what readers need to recognise the file is written.
        data: The file's tensors as bytes.
        header: Makes the file's header from metadata. `sshs_legacy_hash` is defined over the file with the `ss_*` keys alone.
    """
    kohya = _network(adapter) | (_kohya(facts) if facts else {})
    model_hash = hashlib.sha256(data).hexdigest()
    plain = header(kohya) + data
    legacy = hashlib.sha256(plain[_LEGACY_START : _LEGACY_START + _LEGACY_BYTES]).hexdigest()[:8]
    spec = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
    }
    spec |= _modelspec(facts) if facts else {}
    return kohya | spec | {"modelspec.hash_sha256": f"0x{model_hash}", "sshs_model_hash": model_hash, "sshs_legacy_hash": legacy}


def _network(adapter: Adapter) -> dict[str, str]:
    """What kohya keeps in every file. Its one rank and alpha are the UNet's; the text encoder's stand in the arguments."""
    main, other = (adapter.unet, adapter.text_encoder) if adapter.unet else (adapter.text_encoder, {})
    arguments = {
        "text_encoder_dim": _of_all(m.rank for m in other.values()),
        "text_encoder_alpha": _of_all(m.alpha for m in other.values()),
    }
    return {
        "ss_v2": "False",
        "ss_base_model_version": "sd_v1",
        "ss_network_module": "networks.lora",
        "ss_network_dim": _of_all(module.rank for module in main.values()),
        "ss_network_alpha": _of_all(module.alpha for module in main.values()),
        "ss_network_args": json.dumps(arguments if other else {}, sort_keys=True),
    }


def _of_all(values: Iterable[float]) -> str:
    """The value that all modules share; kohya says "Dynamic" where they differ."""
    distinct = set(values)
    return f"{distinct.pop():g}" if len(distinct) == 1 else "Dynamic"


def _kohya(facts: TrainingFacts) -> dict[str, str]:
    data, base = facts.dataset, facts.base_model
    batches = math.ceil(data.pictures / facts.total_batch)
    known = {f"ss_{name}": value for name, value in facts.options.items()}
    if base.sha256 is not None:
        known["ss_new_sd_model_hash"] = base.sha256
    return known | {
        "ss_output_name": facts.name,
        "ss_session_id": _session(facts),
        "ss_training_started_at": str(facts.started.timestamp()),
        "ss_training_finished_at": str(facts.saved.timestamp()),
        "ss_training_comment": f"LoRA of Charalora; use it with the embedding {facts.name}",
        "ss_seed": str(facts.seed),
        "ss_steps": str(facts.step),
        "ss_max_train_steps": str(facts.steps),
        "ss_epoch": str(math.ceil(facts.step / batches)),
        "ss_num_epochs": str(math.ceil(facts.steps / batches)),
        "ss_learning_rate": str(facts.rates["unet"]),
        "ss_unet_lr": str(facts.rates["unet"]),
        "ss_text_encoder_lr": str(facts.rates["text_encoder"]),
        "ss_sd_model_name": base.name,
        "ss_clip_skip": str(base.clip_skip + 1),
        "ss_num_train_images": str(data.pictures),
        "ss_num_reg_images": "0",
        "ss_num_batches_per_epoch": str(batches),
        "ss_batch_size_per_device": str(facts.batch),
        "ss_total_batch_size": str(facts.total_batch),
        "ss_resolution": "({}, {})".format(*_resolution(data)),
        "ss_bucket_info": json.dumps(_bucket_info(data)),
        "ss_dataset_dirs": json.dumps({data.name: {"n_repeats": 1, "img_count": data.pictures}}),
        "ss_tag_frequency": json.dumps({data.name: dict(_by_count(data.tag_frequency))}, ensure_ascii=False),
    }


def _modelspec(facts: TrainingFacts) -> dict[str, str]:
    base = facts.base_model
    width, height = _resolution(facts.dataset)
    return {
        "modelspec.title": facts.name,
        "modelspec.description": f"Step {facts.step} of {facts.steps}, {facts.dataset.pictures} pictures, trained on {base.name}",
        "modelspec.date": facts.saved.astimezone(UTC).isoformat(timespec="seconds"),
        "modelspec.resolution": f"{width}x{height}",
        "modelspec.prediction_type": "v" if base.prediction == "v_prediction" else "epsilon",
        "modelspec.encoder_layer": str(base.clip_skip + 1),
        "modelspec.trigger_phrase": facts.name,
        "modelspec.usage_hint": f"Needs the embedding {facts.name}. Prompt: {facts.name}, <lora:{facts.name}:{facts.strength:g}>",
        "modelspec.tags": ", ".join(tag for tag, _ in _by_count(facts.dataset.tag_frequency)[:10]),
    }


def _session(facts: TrainingFacts) -> str:
    """A number below 2^32 that all files of one training share."""
    name = f"{facts.name}/{facts.seed}/{facts.started.timestamp()}"
    return str(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))


def _resolution(dataset: DatasetFacts) -> tuple[int, int]:
    """The size of most pictures."""
    most = max(dataset.buckets, key=lambda bucket: (bucket.count, bucket.width, bucket.height))
    return most.width, most.height


def _bucket_info(dataset: DatasetFacts) -> dict[str, object]:
    buckets = {str(n): {"resolution": [bucket.width, bucket.height], "count": bucket.count} for n, bucket in enumerate(dataset.buckets)}
    return {"buckets": buckets, "mean_img_ar_error": 0.0}


def _by_count(frequency: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(frequency.items(), key=lambda item: (-item[1], item[0]))
