"""A small Stable Diffusion world: drawings of girls, a base model trained on them, and a judge. See README.md."""
