"""Make the base model, stage by stage: `python -m toyworld.pretrain vae|latents|decoder|unet|export [--steps N] [--threads N]`.

Each stage goes on where it was interrupted. README.md tells the settings and the times.
"""

import argparse
import os
from pathlib import Path

import torch

from toyworld.architecture import Components, scheduler, unet
from toyworld.autoencoder import polish_decoder, train_vae, trained_vae
from toyworld.diffusion import encode_pictures, train_unet
from toyworld.reading import text_encoder
from toyworld.tokenizer import write_tokenizer

BASE = Path(__file__).with_name("base")
STEPS = {"vae": 3000, "decoder": 3000, "unet": 6000}


def work_folder() -> Path:
    """Where training keeps its state: toyworld/ in $CHARALORA_CACHE or in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = Path(os.environ.get("CHARALORA_CACHE", cache / "charalora")) / "toyworld"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def export(work: Path, folder: Path) -> None:
    """Write the averaged weights of the last checkpoints as a pipeline folder in fp16."""
    tokenizer = write_tokenizer(folder / "tokenizer")
    denoiser = unet()
    denoiser.load_state_dict(torch.load(work / "unet.pt", weights_only=True)["average"])
    autoencoder = trained_vae(work)
    autoencoder.register_to_config(scaling_factor=torch.load(work / "latents.pt", weights_only=True)["scale"])
    Components(autoencoder, text_encoder(tokenizer), denoiser, tokenizer, scheduler()).save(folder)


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description="Make the toy world's base model, stage by stage.")
    parser.add_argument("stage", choices=("vae", "latents", "decoder", "unet", "export"))
    parser.add_argument("--steps", type=int, help="how long to train; a stage that has come that far does nothing")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=BASE, help="where export writes the base model")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    work = work_folder()
    match asked.stage:
        case "vae":
            train_vae(work, asked.steps or STEPS["vae"])
        case "latents":
            encode_pictures(work, trained_vae(work))
        case "decoder":
            polish_decoder(work, asked.steps or STEPS["decoder"])
        case "unet":
            train_unet(work, asked.steps or STEPS["unet"])
        case "export":
            export(work, asked.output)


if __name__ == "__main__":
    main()
