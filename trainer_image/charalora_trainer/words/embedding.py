"""The trigger word's embedding: how it begins, and the files that webui, HCP, ComfyUI and diffusers read.

A `.pt` is A1111's dictionary with the rows under `string_to_param["*"]`; a `.safetensors` holds one tensor, `emb_params`. In all of these
programs the word is the file's name without its ending.
"""

import io
import logging
import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.storage.wholefile import whole_file
from charalora_trainer.weights import Word
from charalora_trainer.words.tokenizer import token_ids, word_problem

logger = logging.getLogger(__name__)

SIGMA = 0.017  # the guide's; about the spread of CLIP's own token vectors
LEGACY_KEYS = ("emb_params", "emp_params")
_NUMBERS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
# What torch's safe unpickler was seen to raise on damaged bytes, beside its own error; it never runs what it reads.
DAMAGED = (OSError, EOFError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, struct.error)


def create(name: str, n: int, init_text: str, seed: int, token_table: Tensor, tokenizer: Tokenizer) -> Word:
    """A new word of `n` rows: the first are those of `init_text`'s tokens, the others are random with standard deviation 0.017.

    Args:
        name: The trigger word.
        n: Rows, at least 1.
        init_text: Plain words; empty for random rows alone; `*0.02` for random rows with that standard deviation, as in the guide's tool.
        seed: Makes the random rows; the same seed gives the same word on every device.
        token_table: `[vocabulary, dim]` of the base model's text encoder.
        tokenizer: The base model's.

    Raises:
        TrainingError: `WordTaken` when prompts could not hold the word.
    """
    if problem := word_problem(tokenizer, name):
        raise TrainingError(Outcome.WORD_TAKEN, problem)
    sigma, text = SIGMA, init_text
    if given := re.fullmatch(r"\*\s*([0-9]*\.?[0-9]+)?", init_text.strip()):
        sigma, text = float(given[1] or 1.0), ""
    vectors = sigma * torch.randn(n, token_table.shape[1], generator=torch.Generator().manual_seed(seed))
    ids = token_ids(tokenizer, text)
    if text and len(ids) != n:
        logger.warning("Initial text has another number of tokens than the word has vectors", extra={"tokens": len(ids), "vectors": n})
    vectors[: len(ids)] = token_table[ids[:n]].detach().float().cpu()
    return Word(name, vectors)


def save_pt(word: Word, path: Path, step: int | None = None, base_digest: str | None = None, base_name: str | None = None) -> None:
    """Write the file that the guide publishes, whole or not at all; it opens without running code.

    Args:
        word: What was learned.
        path: Where; the name without `.pt` is the word that webui and HCP will know.
        step: After how many steps; kept with the name as HCP does, `surtr_arknights-100`.
        base_digest: The base model's hash as webui shows it.
        base_name: The base model's name.
    """
    content = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": _plain(word.vectors)},
        "name": word.name if step is None else f"{word.name}-{step}",
        "step": step or 0,
        "sd_checkpoint": base_digest,
        "sd_checkpoint_name": base_name,
    }
    buffer = io.BytesIO()  # written to a path, the archive would hold the draft's name
    torch.save(content, buffer)
    _write(path, buffer.getvalue())


def save_safetensors(word: Word, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the same rows as one tensor, `emb_params`, whole or not at all."""
    _write(path, safetensors.torch.save({"emb_params": _plain(word.vectors)}, metadata=dict(metadata) if metadata else None))


def load(path: Path) -> Word:
    """Read an embedding file of this or another program; the word is the file's name.

    Raises:
        TrainingError: `SpecInvalid` when the file is missing, damaged, needs code to load, or holds anything but one finite `[n, dim]`.
    """
    terms = _terms(_safetensors(path) if path.suffix == ".safetensors" else _pickle(path))
    if len(terms) != 1:
        names = ", ".join(sorted(terms)) or "none"
        raise _refused(path, f"it holds {len(terms)} terms ({names})", "give a file of Stable Diffusion 1.x with exactly one")
    [vectors] = terms.values()
    if not _is_plain(vectors) or vectors.dim() not in {1, 2} or not vectors.numel() or not vectors.isfinite().all():
        raise _refused(path, f"its rows are no finite [n, dim] but {vectors.dtype} {list(vectors.shape)}", "train it again")
    return Word(path.stem, _plain(vectors.reshape(-1, vectors.shape[-1])))


def _safetensors(path: Path) -> Mapping[str, Any]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise _refused(path, f"it cannot be read ({error})", "give an existing, complete file") from error


def _pickle(path: Path) -> Mapping[str, Any]:
    """A `.pt` without running any code that it holds."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, "it is damaged or needs code to be loaded, which could do anything", "convert it to .safetensors") from error
    except DAMAGED as error:
        raise _refused(path, f"it cannot be read ({type(error).__name__})", "give an existing, complete file") from error
    if not isinstance(content, dict):
        raise _refused(path, f"it holds a {type(content).__name__}", "give an embedding as webui or HCP writes it")
    return content


def _terms(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The rows by name, from A1111's dictionary, from older keys, or from a file of tensors alone."""
    inner = content.get("string_to_param")
    known = inner if isinstance(inner, dict) else {key: content[key] for key in LEGACY_KEYS if key in content} or content
    return {str(name): value for name, value in known.items() if isinstance(value, Tensor)}


def _is_plain(vectors: Tensor) -> bool:
    """Whether it is a tensor of numbers that can be computed with, as large as it says: by strides a few bytes could pass for terabytes."""
    if vectors.layout is not torch.strided or vectors.device.type != "cpu" or vectors.dtype not in _NUMBERS:
        return False
    return vectors.numel() * vectors.element_size() <= vectors.untyped_storage().nbytes()


def _plain(vectors: Tensor) -> Tensor:
    """A tensor of its own: no parameter, no view of larger storage, fp32 on the CPU."""
    return vectors.detach().to(device="cpu", dtype=torch.float32, copy=True).contiguous()


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as draft:
        draft.write_bytes(content)


def _refused(path: Path, what: str, advice: str) -> TrainingError:
    return TrainingError(Outcome.SPEC_INVALID, f"The embedding file {path} cannot be used: {what}; {advice}.")
