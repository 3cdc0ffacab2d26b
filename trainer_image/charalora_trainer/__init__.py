"""The trainer: from a folder of captioned pictures to an embedding, a LoRA and what the webui reads."""

import os

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # read at its import: it advises programmers of optional packages
