"""A base model seen from outside: what it is, what of it is needed, and what keeps it from being trained, before any weight is fetched."""

from charalora_trainer.basemodel.facts import BaseModelFacts, Source
from charalora_trainer.basemodel.inspection import FILE_ENDINGS, inspect, locate
from charalora_trainer.basemodel.layout import MAX_TOKENIZER_BYTES, TOKENIZER_FILES, files_to_fetch, weights_of

__all__ = [
    "FILE_ENDINGS", "MAX_TOKENIZER_BYTES", "TOKENIZER_FILES", "BaseModelFacts", "Source", "files_to_fetch", "inspect", "locate",
    "weights_of",
]  # fmt: skip
