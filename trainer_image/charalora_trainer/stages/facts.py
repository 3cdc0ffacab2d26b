"""What the files of a training tell about it, gathered from the job."""

from collections import Counter
from datetime import datetime
from functools import cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from charalora_trainer.basemodel import FILE_ENDINGS
from charalora_trainer.data import captions
from charalora_trainer.export.metadata import BucketFacts, DatasetFacts, TrainedBase, TrainingFacts
from charalora_trainer.job import Job
from charalora_trainer.rates import effective_rates
from charalora_trainer.storage.wholefile import sha256_of


def training_facts(job: Job, step: int, saved: datetime) -> TrainingFacts:
    """For the metadata of the LoRA that holds `step`, saved at that moment."""
    spec = job.run.spec
    training = spec.training
    return TrainingFacts(
        name=spec.character.name,
        step=step,
        steps=training.steps,
        seed=training.seed,
        rates=effective_rates(training, job.processes)._asdict(),
        batch=training.batch_size,
        total_batch=training.batch_size * job.processes * training.gradient_accumulation,
        base_model=TrainedBase(
            last_part(spec.base_model.uri), checkpoint_digest(job.base_model), spec.base_model.prediction.value, training.clip_skip
        ),
        dataset=_dataset_facts(job),
        started=datetime.fromisoformat(job.claim.since),
        saved=saved,
        strength=spec.preview.lora_scale,
        options={
            "mixed_precision": training.precision.value,
            "noise_offset": f"{training.loss.noise_offset:g}",
            "min_snr_gamma": "None" if training.loss.min_snr_gamma is None else f"{training.loss.min_snr_gamma:g}",
            "lr_scheduler": training.learning_rate.schedule.value,
            "lr_warmup_steps": str(training.learning_rate.warmup_steps),
            "optimizer": "torch.optim.adamw.AdamW",
            "max_grad_norm": f"{training.optimizer.max_grad_norm:g}",
            "gradient_accumulation_steps": str(training.gradient_accumulation),
        },
    )


@cache
def checkpoint_digest(base_model: Path) -> str | None:
    """SHA-256 of a base model that is one file, by which sites know it; none of a folder. Gigabytes are read once."""
    return None if base_model.is_dir() else sha256_of(base_model)


def _dataset_facts(job: Job) -> DatasetFacts:
    tags = Counter(tag for pair in job.plan.pairs for tag in captions.parse(pair.caption))
    buckets = tuple(BucketFacts(bucket.width, bucket.height, len(bucket.members)) for bucket in job.plan.buckets)
    return DatasetFacts(last_part(job.run.spec.dataset.uri), len(job.plan.pairs), buckets, dict(tags))


def last_part(uri: str) -> str:
    """A name for people: the last part of a uri's path, never a whole path of somebody's machine."""
    name = PurePosixPath(urlsplit(uri).path).name
    return (unquote(name) if uri.startswith("file://") else name) or urlsplit(uri).netloc


def model_name(uri: str) -> str:
    """A base model as webui lists it: a file without its ending."""
    name = last_part(uri)
    return PurePosixPath(name).stem if name.endswith(FILE_ENDINGS) else name
