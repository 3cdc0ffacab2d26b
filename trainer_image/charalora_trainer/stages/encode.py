"""Pictures to latents, once: each process encodes a share, all keep all of them on their device.

A character's whole data set is small (32 KiB a picture at 512 x 512), so there is no loader in the training loop.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from torch import Tensor

from charalora_trainer.data import pictures, sizing
from charalora_trainer.data.dataset import DatasetPlan
from charalora_trainer.feed import Latents
from charalora_trainer.job import Job
from charalora_trainer.processes import Processes
from charalora_trainer.storage.wholefile import whole_file


def encode(vae: AutoencoderKL, job: Job, cache: Path, processes: Processes, on_picture: Callable[[], None]) -> Latents:
    """Encode the data set in fp32, or read what an earlier start of the same run encoded; every process gets all of it.

    Args:
        vae: The base model's VAE, on the device that encodes.
        job: Which pictures, and whether mirrored ones too.
        cache: A folder for what this process encodes; others of this node may share it.
        processes: Who encodes which share.
        on_picture: Called after each picture of this process.
    """
    plan, flip = job.plan, job.run.spec.dataset.flip
    folder = cache / _key(vae, plan, flip=flip)
    folder.mkdir(parents=True, exist_ok=True)
    todo = [(number, bucket) for bucket in plan.buckets for number in bucket.members]
    share: dict[int, Tensor] = {}
    for number, bucket in todo[processes.rank :: processes.count]:
        file, pair = folder / f"{number}.safetensors", plan.pairs[number]
        if not file.exists():
            image = sizing.fit(pictures.decode(job.dataset / pair.picture, pair.picture), bucket.width, bucket.height)
            with whole_file(file) as draft:
                save_file({"latents": _encode_picture(vae, image, pair.sha256, flip=flip).contiguous()}, draft)
        share[number] = load_file(file)["latents"]
        on_picture()
    every = {number: latents for part in processes.gather(share) for number, latents in part.items()}
    device = next(vae.parameters()).device
    tensors = [torch.stack([every[number] for number in bucket.members]) for bucket in plan.buckets]
    rows = {number: (index, row) for index, bucket in enumerate(plan.buckets) for row, number in enumerate(bucket.members)}
    return Latents(tuple(tensor.to(device) for tensor in tensors), tuple(rows[number] for number in range(len(plan.pairs))))


@torch.inference_mode()
def _encode_picture(vae: AutoencoderKL, image: Image.Image, sha256: str, *, flip: bool) -> Tensor:
    """`[flips, C, H, W]` on the CPU. One picture at a time, so that the result depends on no other; one sample, seeded by its content."""
    device = next(vae.parameters()).device
    variants = [image, ImageOps.mirror(image)] if flip else [image]
    latents = []
    for number, variant in enumerate(variants):
        pixels = torch.from_numpy(np.asarray(variant, dtype=np.float32)) / 127.5 - 1.0
        posterior = vae.encode(pixels.permute(2, 0, 1)[None].to(device)).latent_dist
        generator = torch.Generator().manual_seed(int(sha256[:15], 16) + number)
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        latents.append((posterior.mean + posterior.std * noise) * vae.config.scaling_factor)
    return torch.cat(latents).cpu()


def _key(vae: AutoencoderKL, plan: DatasetPlan, *, flip: bool) -> str:
    """Name of the cache folder: the pictures, how they are cut, and the encoder's own weights."""
    digest = hashlib.sha256(f"{plan.digest} {plan.buckets} {flip}".encode())
    for parameter in vae.encoder.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]
