"""Training a LoRA and a word the plain way: what the documentation of diffusers, peft and accelerate leads to.

It joins their two examples, text-to-image LoRA and textual inversion: frozen weights cast to the weight dtype, adapters by `add_adapter`,
a token table with new rows that is trained whole and put back row by row, torch's AdamW, a DataLoader, `loss.item()` after each step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPTextModel, CLIPTokenizer

from charalora_spec.spec import Training

UNET_MODULES = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
TEXT_ENCODER_MODULES = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
WEIGHT_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

Example = Mapping[str, Tensor]


@dataclass(frozen=True)
class Pipeline:
    """A Stable Diffusion in parts, as `from_pretrained` gives them."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    scheduler: DDPMScheduler
    tokenizer: CLIPTokenizer


class CaptionedPictures(Dataset[Example]):
    """Pictures as pixels in [-1, 1], `[3, H, W]`, and the token ids of their captions, `[77]`; both are read anew each time."""

    def __init__(self, folder: Path, tokenizer: CLIPTokenizer, word: Sequence[str]) -> None:
        self._pictures = sorted(folder.glob("*.png"))
        self._tokenizer = tokenizer
        self._word = " ".join(word)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Example:
        picture = self._pictures[index]
        caption = picture.with_suffix(".txt").read_text(encoding="utf-8")
        text = f"a photo of {self._word}, {caption}"
        ids = self._tokenizer(text, max_length=77, padding="max_length", truncation=True, return_tensors="pt").input_ids[0]
        pixels = torch.from_numpy(np.asarray(Image.open(picture).convert("RGB"), dtype=np.float32)) / 127.5 - 1.0
        return {"pixel_values": pixels.permute(2, 0, 1).contiguous(), "input_ids": ids}


class CachedLatents(Dataset[Example]):
    """The same with latents `[4, H/8, W/8]` that were encoded once, before the training."""

    def __init__(self, pictures: CaptionedPictures, training: "PlainTraining") -> None:
        self._latents = [training.encode(pictures[index]["pixel_values"][None])[0] for index in range(len(pictures))]
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._latents)

    def __getitem__(self, index: int) -> Example:
        return {"latents": self._latents[index], "input_ids": self._pictures[index]["input_ids"]}


class PlainTraining:
    """The models with adapters and new tokens in them, and the optimizer over both."""

    def __init__(self, pipeline: Pipeline, settings: Training, word: Sequence[str], rows: Tensor, *, cpu: bool) -> None:
        """`word` are the new tokens, `rows` `[tokens, dim]` what they start as; the rates are used as they stand."""
        precision = {"fp32": "no"}.get(settings.precision.value, settings.precision.value)
        self.accelerator = Accelerator(mixed_precision=precision, cpu=cpu)
        self.weight_dtype = WEIGHT_DTYPES[precision]
        self.unet, self.text_encoder, self.vae, self.scheduler = pipeline.unet, pipeline.text_encoder, pipeline.vae, pipeline.scheduler
        self._max_grad_norm = settings.optimizer.max_grad_norm
        self._add_adapters(settings)
        self.table = self._add_tokens(pipeline.tokenizer, word, rows)
        self._kept = torch.ones(len(self.table), dtype=torch.bool)
        self._kept[-len(word) :] = False
        self._before = self.table.detach().clone()

        rates, decays = settings.learning_rate, settings.optimizer
        groups: list[dict[str, Any]] = [
            {"params": _trained(self.unet), "lr": rates.unet, "weight_decay": decays.weight_decay},
            {
                "params": [p for p in _trained(self.text_encoder) if p is not self.table],
                "lr": rates.text_encoder,
                "weight_decay": decays.weight_decay,
            },
            {"params": [self.table], "lr": rates.embedding, "weight_decay": decays.embedding_weight_decay},
        ]
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.optimizer = torch.optim.AdamW(groups)
        self.lr_scheduler = get_scheduler("constant_with_warmup", self.optimizer, num_warmup_steps=rates.warmup_steps)
        self.unet, self.text_encoder, self.optimizer, self.lr_scheduler = self.accelerator.prepare(
            self.unet, self.text_encoder, self.optimizer, self.lr_scheduler
        )

    def loader(self, examples: Dataset[Example], batch: int) -> DataLoader[Example]:
        """Shuffled batches on the device."""
        prepared: DataLoader[Example] = self.accelerator.prepare(DataLoader(examples, batch_size=batch, shuffle=True, drop_last=True))
        return prepared

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Scaled latents `[B, 4, H/8, W/8]` of pixels `[B, 3, H, W]`."""
        sample: Tensor = self.vae.encode(pixels.to(self.accelerator.device, self.weight_dtype)).latent_dist.sample()
        scaling: float = self.vae.config.scaling_factor
        return sample * scaling

    def loss(self, latents: Tensor, noise: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        """The training objective of one batch; `ids` are `[B, 77]`."""
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        conditioning = self.text_encoder(ids)[0].to(self.weight_dtype)
        predicted = self.unet(noisy, timesteps, conditioning).sample
        return functional.mse_loss(predicted.float(), noise.float(), reduction="mean")

    def train(self, batches: DataLoader[Example], steps: int, every: int, checkpoint: Callable[[], None]) -> None:
        """Train for so many steps; `checkpoint` is called after every `every` of them."""
        step = 0
        while step < steps:
            for batch in batches:
                with self.accelerator.accumulate(self.unet):
                    latents = batch["latents"] if "latents" in batch else self.encode(batch["pixel_values"])
                    noise = torch.randn_like(latents)
                    limit = self.scheduler.config.num_train_timesteps
                    timesteps = torch.randint(0, limit, (len(latents),), device=latents.device)
                    loss = self.loss(latents, noise, timesteps, batch["input_ids"])
                    average = self.accelerator.gather(loss.repeat(len(latents))).mean()
                    self.accelerator.backward(loss)
                    self.accelerator.clip_grad_norm_(self.parameters, self._max_grad_norm)
                    self.optimizer.step()
                    self.lr_scheduler.step()
                    self.optimizer.zero_grad()
                    with torch.no_grad():
                        self.table[self._kept] = self._before[self._kept]
                self.accelerator.log({"train_loss": average.item(), "step_loss": loss.detach().item()}, step=step)
                step += 1
                if step % every == 0:
                    checkpoint()
                if step == steps:
                    break

    def _add_adapters(self, settings: Training) -> None:
        lora, device = settings.lora, self.accelerator.device
        for module in (self.unet, self.vae, self.text_encoder):
            module.requires_grad_(requires_grad=False)
            module.to(device)
        self.unet.to(dtype=self.weight_dtype)
        self.vae.to(dtype=self.weight_dtype)
        self.unet.add_adapter(LoraConfig(r=lora.unet_rank, lora_alpha=lora.alpha, target_modules=UNET_MODULES))
        self.text_encoder.add_adapter(LoraConfig(r=lora.text_encoder_rank, lora_alpha=lora.alpha, target_modules=TEXT_ENCODER_MODULES))
        cast_training_params([self.unet, self.text_encoder], dtype=torch.float32)
        self.unet.train()
        self.text_encoder.train()

    def _add_tokens(self, tokenizer: CLIPTokenizer, word: Sequence[str], rows: Tensor) -> torch.nn.Parameter:
        tokenizer.add_tokens(list(word))
        self.text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        table: torch.nn.Parameter = self.text_encoder.get_input_embeddings().weight
        table.data[-len(word) :] = rows.to(table)
        table.requires_grad = True
        return table


def _trained(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
