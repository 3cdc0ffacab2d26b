"""What the pods are given to read, and what tells one such content from another."""

import json
from functools import lru_cache

from charalora_operator import names
from charalora_spec.spec import CharacterLora

FILE = "run.json"

_NOT_THE_PODS = {"run", "scheduling"}
"""What concerns the cluster alone. It may change in mid-run, and no pod is to be checked again for it."""


def run_document(run: CharacterLora) -> str:
    """What the pods read: the resource with every default filled in, as JSON."""
    content = run.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"spec": _NOT_THE_PODS})
    content["metadata"] = {"name": run.metadata.name, "namespace": run.metadata.namespace}
    return json.dumps(content, sort_keys=True, ensure_ascii=False, indent=1)


def run_digest(run: CharacterLora) -> str:
    """Tells what the pods are given, and which try of it this is; a new one is checked anew.

    Defaults do not count: a field that a newer version adds must not make every resource another one.
    """
    asked = run.model_dump_json(by_alias=True, exclude_defaults=True, exclude={"spec": _NOT_THE_PODS, "metadata": True})
    return _digest(run.metadata.namespace, run.metadata.name, asked, run.metadata.annotations.get(names.RETRY, ""))


@lru_cache(maxsize=64)
def _digest(namespace: str, name: str, asked: str, retry: str) -> str:
    """One visit to a resource asks for it many times."""
    return names.digest(json.dumps([namespace, name, json.loads(asked)], sort_keys=True), retry)
