"""The diffusion model: loading, LoRA, conditioning."""
