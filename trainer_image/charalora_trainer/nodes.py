"""This machine among those that train together."""

import socket
import time
from dataclasses import dataclass

from charalora_spec.outcome import Outcome, TrainingError

SECONDS_TO_MEET = 900
"""How long a node waits for the others: one of them may still fetch a base model that the others have."""

_PAUSE = 0.5


@dataclass(frozen=True)
class Node:
    """Which of the nodes this one is, and where they meet.

    Attributes:
        count: How many nodes train together.
        rank: The number of this one; 0 owns the output prefix and hosts the meeting.
        host: A name or address of node 0 that every node can resolve.
        port: Where node 0 listens.
        run_id: Names this start of the training, so that a late process of another one is not let in.
    """

    count: int = 1
    rank: int = 0
    host: str = ""
    port: int = 0
    run_id: str = ""

    @property
    def is_first(self) -> bool:
        """Whether this node writes what all share."""
        return self.rank == 0

    def wait_for_host(self, seconds: float = SECONDS_TO_MEET) -> None:
        """Return when node 0 listens; its name may not be known yet, and it may still be fetching.

        Raises:
            TrainingError: `InternalError` after too long; another start may help.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                socket.create_connection((self.host, self.port), timeout=_PAUSE * 10).close()
            except OSError as error:
                if time.monotonic() > deadline:
                    raise TrainingError(
                        Outcome.INTERNAL_ERROR,
                        f"Node 0 did not answer at {self.host}:{self.port} in {seconds:.0f} seconds ({error}); see why it did not start.",
                    ) from error
                time.sleep(_PAUSE)
            else:
                return


ALONE = Node()
