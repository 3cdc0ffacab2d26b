"""The proof that a file is what training computed: it is opened again and compared, key by key and weight by weight.

Programs drop what they cannot name without a word, so a file that loads proves nothing; the number of modules and the merged weights do.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from charalora_trainer.export import hcp, peft, tensorfile, webui
from charalora_trainer.export.matrices import Deviation, deviation, invalid
from charalora_trainer.weights import Adapter, LoraModule, Word
from charalora_trainer.words import embedding


@dataclass(frozen=True)
class Proof:
    """What was compared, and how close it is.

    Attributes:
        file: The file's name.
        modules: LoRA modules that were found where training had them.
        largest: The largest difference of one entry between a merged weight and what training computed.
    """

    file: str
    modules: int
    largest: float


def prove_hcp(folder: Path, step: int, adapter: Adapter) -> tuple[Proof, ...]:
    """Prove the files that `hcp.write` wrote: every bit of the matrices, and the strength.

    Raises:
        TrainingError: `ExportInvalid`, naming the file and the module. So do all functions here.
    """
    sides = ((hcp.unet_file(step), adapter.unet), (hcp.text_encoder_file(step), adapter.text_encoder))
    return tuple(prove_hcp_file(folder / name, modules) for name, modules in sides if modules)


def prove_hcp_file(path: Path, modules: Mapping[str, LoraModule]) -> Proof:
    """Prove one of HCP's files."""
    _prove_keys(path, hcp.tensors(modules))
    return _proof(path, [(modules, hcp.read(path))], torch.float32)


def prove_webui(path: Path, adapter: Adapter, dtype: torch.dtype = torch.float32) -> Proof:
    """Prove the file that `webui.write` wrote in this precision."""
    _prove_keys(path, webui.tensors(adapter, dtype))
    read = webui.read(path)
    return _proof(path, [(adapter.unet, read.unet), (adapter.text_encoder, read.text_encoder)], dtype)


def prove_peft(path: Path, adapter: Adapter) -> Proof:
    """Prove the file that `peft.write` wrote."""
    _prove_keys(path, peft.tensors(adapter))
    read = peft.read(path)
    return _proof(path, [(adapter.unet, read.unet), (adapter.text_encoder, read.text_encoder)], torch.float32)


def prove_word(path: Path, word: Word) -> None:
    """Prove an embedding file: the rows are the trained ones, bit for bit."""
    rows = embedding.load(path).vectors
    if not torch.equal(rows, word.vectors.detach().float().cpu()):
        raise invalid(f"{path.name} holds rows of shape {list(rows.shape)} that are not those of the trained word {word.name}.")


def agreed(found: Deviation, dtype: torch.dtype, where: str) -> float:
    """The largest difference, if a file of this precision may differ so much from what was trained.

    Raises:
        TrainingError: `ExportInvalid`, saying where and how much.
    """
    if not found.within(dtype):
        raise invalid(f"{where} differs from the trained update by up to {found.largest:.3g}, {found.relative:.2%} of its size.")
    return found.largest


def _prove_keys(path: Path, expected: Iterable[str]) -> None:
    found, wanted = set(tensorfile.read(path).tensors), set(expected)
    for what, keys in (("lacks", wanted - found), ("holds in excess", found - wanted)):
        if keys:
            raise invalid(f"{path.name} {what} {len(keys)} tensors, the first is {min(keys)}; it should hold {len(wanted)}.")


def _proof(path: Path, sides: Iterable[tuple[Mapping[str, LoraModule], Mapping[str, LoraModule]]], dtype: torch.dtype) -> Proof:
    largest, count = 0.0, 0
    for trained, read in sides:
        for module, expected in trained.items():
            actual = read[module]
            if (expected.down.shape, expected.up.shape) != (actual.down.shape, actual.up.shape):
                raise invalid(f"{module} in {path.name} has down {list(actual.down.shape)}, but {list(expected.down.shape)} was trained.")
            largest = max(largest, agreed(deviation(expected, actual), dtype, f"{module} in {path.name}"))
            count += 1
    return Proof(path.name, count, largest)
