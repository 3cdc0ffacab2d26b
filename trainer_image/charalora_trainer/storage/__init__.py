"""Where data sets, base models and output lie: S3 and local folders behind one small interface.

`open_store` gives the store of a uri; `staging.stage` mirrors one into a local folder; `uploads.Uploads` sends files in the background.
Errors are translated here, once: a store raises `KeyMissing` for a key that is not there and `TrainingError` for everything else.
"""

from charalora_trainer.storage.opening import open_store
from charalora_trainer.storage.store import Entry, KeyMissing, Store

__all__ = ["Entry", "KeyMissing", "Store", "open_store"]
