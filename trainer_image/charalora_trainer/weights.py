"""What a training learns, as plain values: LoRA matrices by module path, and words.

Module paths are the ones that files use, whatever a library's version calls them: `down_blocks.0…attn1.to_q` for the UNet,
`text_model.encoder.layers.0.mlp.fc1` for the text encoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LoraModule:
    """One low-rank update: W + (alpha / rank) · up · down.

    Attributes:
        down: `[rank, in]`, or `[rank, in, kh, kw]` of a convolution.
        up: `[out, rank]`, or `[out, rank, 1, 1]` of a convolution.
        alpha: The strength before division by the rank, as webui and kohya write it.
    """

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """Width of the update."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """What the product up · down is multiplied with."""
        return self.alpha / self.rank

    def delta(self) -> Tensor:
        """The update itself in fp32, `[out, in]` or `[out, in, kh, kw]`."""
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return self.scale * product.reshape(self.up.shape[0], *self.down.shape[1:])


@dataclass(frozen=True)
class Adapter:
    """All LoRA modules of one training, by module path."""

    unet: Mapping[str, LoraModule]
    text_encoder: Mapping[str, LoraModule]


@dataclass(frozen=True)
class Word:
    """A learned trigger word.

    Attributes:
        name: The word as it is typed in a prompt.
        vectors: `[n, dim]` fp32, one row for each position that the word takes.
    """

    name: str
    vectors: Tensor
