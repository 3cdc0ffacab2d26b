"""The trainer: from a folder of captioned pictures to an embedding, a LoRA and what the webui reads."""
