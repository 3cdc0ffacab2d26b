"""Which files of a diffusers folder are needed, by their names alone."""

from collections.abc import Collection

from charalora_trainer.storage import Store

WEIGHT_NAMES = {
    "unet": ("diffusion_pytorch_model", "diffusion_pytorch_model"),
    "vae": ("diffusion_pytorch_model", "diffusion_pytorch_model"),
    "text_encoder": ("model", "pytorch_model"),
}
"""Names of the weights of each part that is needed, without ending: as safetensors, and as .bin."""

TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
MAX_TOKENIZER_BYTES = 32 * 1024 * 1024  # CLIP's own has 4 MiB in all
INDEX = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"


def weights_of(part: str, keys: Collection[str]) -> str | None:
    """The file with a part's weights: safetensors before .bin, which is a pickle; full precision before fp16; None where there is none."""
    safe, pickled = WEIGHT_NAMES[part]
    choices = (f"{safe}.safetensors", f"{safe}.fp16.safetensors", f"{pickled}.bin", f"{pickled}.fp16.bin")
    return next((f"{part}/{name}" for name in choices if f"{part}/{name}" in keys), None)


def needed(keys: Collection[str]) -> list[str]:
    """Of these keys of a diffusers folder, those that training reads: no safety checker, no second copy of the weights."""
    wanted = {INDEX, SCHEDULER, *(f"tokenizer/{name}" for name in TOKENIZER_FILES)}
    for part in WEIGHT_NAMES:
        wanted |= {f"{part}/config.json", weights_of(part, keys) or ""}
    return sorted(wanted.intersection(keys))


def files_to_fetch(store: Store) -> list[str]:
    """The keys of a diffusers folder that training reads."""
    return needed({entry.key for entry in store.list()})
