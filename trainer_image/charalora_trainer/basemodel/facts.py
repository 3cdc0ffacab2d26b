"""What is known of a base model before it is fetched."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from charalora_spec.outcome import Outcome
from charalora_trainer.finding import Finding
from charalora_trainer.storage import Entry, Store


@dataclass(frozen=True)
class Source:
    """Where a base model lies.

    Attributes:
        store: A diffusers folder, or the folder of the file.
        file: The key of a single-file model there.
    """

    store: Store
    file: str | None = None

    @property
    def where(self) -> str:
        """Its uri."""
        return f"{self.store.uri}{self.file or ''}"


@dataclass(frozen=True)
class BaseModelFacts:
    """A base model that can be trained.

    Attributes:
        uri: Where it lies.
        layout: "diffusers" or "single file".
        files: What has to be fetched.
        weights: By part, the key of its weights; of a single file, that file for each.
        text_width: Numbers in one row of the word's embedding.
        vocabulary: Rows of the token table.
        latent_channels: Channels of a latent picture.
        dtype: Of the UNet's weights: F32, F16 or BF16; None where a pickle holds them.
        prediction: What the scheduler's config says that the UNet predicts; None where it says nothing.
    """

    uri: str
    layout: str
    files: tuple[Entry, ...]
    weights: Mapping[str, str]
    text_width: int
    vocabulary: int
    latent_channels: int
    dtype: str | None
    prediction: str | None

    @property
    def bytes(self) -> int:
        """What has to be fetched in all."""
        return sum(entry.size for entry in self.files)

    def to_json(self) -> dict[str, Any]:
        """The facts as a JSON object."""
        return {**asdict(self), "weights": dict(self.weights), "bytes": self.bytes}


def invalid(message: str) -> Finding:
    """A base model that cannot be trained."""
    return Finding(Outcome.BASE_MODEL_INVALID, message)
