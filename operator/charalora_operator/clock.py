"""The API server's time. Everything that is compared was stamped by the cluster, so this machine's own clock is not asked."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_SECOND = timedelta(seconds=1)
_EPOCH = datetime.fromtimestamp(0, UTC)


class ClusterClock:
    """Tells what the API server's clock shows: by the date of its answers, and between them by a clock that nobody can set."""

    def __init__(self, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._began = _EPOCH  # what the cluster's clock showed when the steady one showed 0
        self._heard = False

    def asked(self) -> float:
        """The moment of a question, for `hear`."""
        return self._steady()

    def hear(self, date: str, asked: float) -> None:
        """Take in the date of an answer, which leaves out fractions of a second, and says nothing of how long the answer travelled."""
        try:
            told = parsedate_to_datetime(date)
        except ValueError:  # something between us and the API server left it out
            return
        earliest = told - timedelta(seconds=self._steady())
        latest = told + _SECOND - timedelta(seconds=asked)
        self._began = min(max(self._began, earliest), latest)
        self._heard = True

    def now(self) -> datetime:
        """What the API server's clock shows; before it answered, this machine's."""
        return self._began + timedelta(seconds=self._steady()) if self._heard else datetime.now(UTC)
