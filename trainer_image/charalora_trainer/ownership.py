"""One output prefix, one training: `state/run.json` says whose it is."""

import hashlib
import json
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import CharacterLora
from charalora_trainer.storage import KeyMissing, Store

OWNER = "state/run.json"
_TRAINED = {"character", "dataset", "baseModel", "training"}


@dataclass(frozen=True)
class Claim:
    """One start of a training, as it stands in the output store.

    Attributes:
        name: Name of the resource.
        identity: Digest of everything that decides what is learned; another start of the same training has the same.
        attempt: Counts the starts, from 1.
        token: Random; tells two starts apart that took the prefix in the same moment.
        since: When it started, UTC.
        where: Its host, for messages.
        dataset: Digest of the data set that it trains on.
    """

    name: str
    identity: str
    attempt: int
    token: str
    since: str
    where: str
    dataset: str

    def verify(self, store: Store) -> None:
        """Make sure that the prefix is still ours, before anything in it is replaced.

        Raises:
            TrainingError: `OutputOccupied`, naming the start that has taken over.
        """
        owner = _owner(store)
        if owner is not None and owner != self:
            raise TrainingError(
                Outcome.OUTPUT_OCCUPIED,
                f"{store.uri} was taken over by {owner.text} while this was attempt {self.attempt}; "
                "only one training can write there, so this one stops.",
            )

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Claim":
        """As it was written; what another version wrote beside it is let through unread.

        Raises:
            ValueError: It is none.
        """
        found: Claim = _CLAIM.validate_python(content)
        if not found.text.isprintable():
            raise ValueError("a claim is told in one line")
        return found

    @property
    def text(self) -> str:
        """Who it is, for messages."""
        return f"{self.name} (attempt {self.attempt} since {self.since} on {self.where})"


_CLAIM = TypeAdapter(Claim)


def identity_of(run: CharacterLora, global_batch: int) -> str:
    """Digest of what decides the learned weights: character, data set, base model, training and pictures per step.

    Defaults do not count: a version with one more field must go on with what an older one began.
    """
    spec = run.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    trained = {key: value for key, value in spec.items() if key in _TRAINED}
    return hashlib.sha256(json.dumps([trained, global_batch], sort_keys=True).encode()).hexdigest()[:32]


def refuse_foreign(store: Store, identity: str) -> Claim | None:
    """The last start of the same training in this prefix, None where it is free.

    Raises:
        TrainingError: `OutputOccupied` when another training's files lie there.
    """
    owner = _owner(store)
    if owner is not None and owner.identity != identity:
        raise TrainingError(
            Outcome.OUTPUT_OCCUPIED,
            f"{store.uri} belongs to {owner.text}, which trains something else; choose another output.uri or empty that prefix.",
        )
    if owner is None and any(entry.key.startswith(("ckpts/", "civitai/", "manifest.json")) for entry in store.list()):
        raise TrainingError(
            Outcome.OUTPUT_OCCUPIED,
            f"{store.uri} holds files of a training that left no {OWNER}; choose another output.uri or empty that prefix.",
        )
    return owner


def claim(store: Store, name: str, identity: str, dataset: str) -> Claim:
    """Take the output prefix for this start: free, or left by an earlier start of the same training.

    Raises:
        TrainingError: `OutputOccupied` when another training's files lie there, `DatasetChanged` when the earlier start saw other pictures.
    """
    owner = refuse_foreign(store, identity)
    if owner is not None:
        refuse_change(owner.dataset, dataset, f"{owner.text} saw another one")
    ours = replace(unclaimed(name, identity, dataset), attempt=owner.attempt + 1 if owner else 1)
    content = json.dumps(ours.to_json(), indent=1).encode()
    if owner is None and not store.create(OWNER, content):
        return claim(store, name, identity, dataset)  # someone was faster: look again whose it is
    if owner is not None:
        store.write(OWNER, content)
    return ours


def unclaimed(name: str, identity: str, dataset: str) -> Claim:
    """A start that takes no output prefix: on another node than the first, which takes it for all."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Claim(name, identity, 0, uuid4().hex, now, socket.gethostname(), dataset)


def refuse_change(expected: str, found: str, who: str) -> None:
    """Make sure that the data set is the one that was looked at before.

    Raises:
        TrainingError: `DatasetChanged`, with both digests.
    """
    if found != expected:
        raise TrainingError(
            Outcome.DATASET_CHANGED,
            f"The data set changed: {who} ({expected[:12]}, now {found[:12]}); bring the old files back, or train to another output.uri.",
        )


def _owner(store: Store) -> Claim | None:
    try:
        return Claim.from_json(json.loads(store.read(OWNER)))
    except KeyMissing:
        return None
    except (ValueError, RecursionError) as error:
        raise TrainingError(
            Outcome.OUTPUT_OCCUPIED, f"{store.uri}{OWNER} is not readable; choose another output.uri or delete that file."
        ) from error
