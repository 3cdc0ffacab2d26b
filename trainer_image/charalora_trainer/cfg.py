"""cfg.yaml: the resource that ran, every default included, as a file that runs again and that `kubectl apply` takes."""

import re

import yaml

from charalora_spec.spec import CharacterLora

FILE = "cfg.yaml"


class _Dumper(yaml.SafeDumper):
    """Writes text such as 1e-4 in quotes: PyYAML reads it as text without them, Kubernetes' tools and our own reader as a number."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))


def text(run: CharacterLora) -> str:
    """The resource as YAML; reading it gives the same resource."""
    wire = run.model_dump(mode="json", by_alias=True)
    return yaml.dump(wire, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
