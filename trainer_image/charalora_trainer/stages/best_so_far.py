"""Tells the best step of a running training, and when it begins to learn its pictures by heart."""

import logging
from dataclasses import dataclass, field

from charalora_trainer.best import overfitting_since
from charalora_trainer.console import Console
from charalora_trainer.history import History
from charalora_trainer.metrics import Metrics

logger = logging.getLogger(__name__)


@dataclass
class BestSoFar:
    """What was told last, so that a beginning is told once.

    Attributes:
        metrics: Where Prometheus reads it, and the operator for `status.best`.
        console: Where a person does.
    """

    metrics: Metrics
    console: Console
    _since: int | None = field(default=None, init=False)

    def tell(self, history: History) -> None:
        """Call it after every save; nothing is told where nothing was held out."""
        if history.best is None:
            return
        (step, loss), since = history.best, overfitting_since(history)
        self.metrics.set("held_out_loss", history.held_out[-1][1])
        self.metrics.set("best_step", step)
        self.metrics.set("best_held_out_loss", loss)
        self.metrics.set("overfitting", float(since is not None))
        if since is not None and since != self._since:
            logger.warning("Overfitting began, the held-out loss rises", extra={"since_step": since, "best_loss": round(loss, 5)})
            self.console.say(f"Since step {since} the pictures are being learned by heart: the held-out loss rises. Training goes on.")
        self._since = since
