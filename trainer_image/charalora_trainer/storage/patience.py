"""How often and how long a request that failed is tried again."""

import random
import time
from collections.abc import Callable

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_LEAST_ATTEMPTS = 3


class Patience:
    """Pauses between the attempts of one operation: doubling, jittered, until a time without progress has passed.

    At least three attempts are made, so that one slow transfer that breaks off at its end does not use up everything.

    Args:
        seconds: How long to go on without any progress.
        clock: Seconds that only grow.
        sleep: Waits for seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self._seconds = seconds
        self._clock = clock
        self._sleep = sleep
        self.renew()

    def renew(self) -> None:
        """There was progress: begin anew."""
        self._deadline = self._clock() + self._seconds
        self._pause = _FIRST_PAUSE
        self._failures = 0

    def pause(self) -> bool:
        """Wait before the next attempt; False, at once, when it is time to give up."""
        self._failures += 1
        pause = self._pause * random.uniform(0.5, 1.0)
        if self._failures >= _LEAST_ATTEMPTS and self._clock() + pause > self._deadline:
            return False
        self._sleep(min(pause, self._seconds))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return True
