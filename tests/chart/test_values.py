"""What can be set: each value has an effect, and nothing else is accepted."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from charalora_operator.settings import Settings
from helm import CHART, Helm, Render, Values

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


def described(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Everything that can be set, with its schema: what has a default."""
    if "default" in node:
        yield path, node
    else:
        for name, child in node.get("properties", {}).items():
            yield from described(child, f"{path}.{name}".lstrip("."))


LEAVES = dict(described(SCHEMA))

EVERYTHING: Values = {
    "monitoring": {name: {"enabled": True} for name in ("serviceMonitor", "podMonitor", "dashboards", "prometheusRule")},
    "networkPolicy": {"enabled": True, "trainers": {"namespaces": ["artists"]}},
}
"""Whatever is off by default."""

OTHER: dict[str, Any] = {
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
    "images.operator.digest": f"sha256:{'1' * 64}",
    "images.preflight.digest": f"sha256:{'2' * 64}",
    "images.trainer.digest": f"sha256:{'3' * 64}",
    "monitoring.podMonitor.interval": "99s",
    "monitoring.prometheusRule.runbooks": "https://wiki.example.com/charalora/",
    "monitoring.serviceMonitor.interval": "99s",
    "networkPolicy.apiServer.cidrs": ["10.1.2.3/32"],
    "networkPolicy.apiServer.ports": [7443],
    "networkPolicy.trainers.storageCidrs": ["10.9.0.0/16"],
    "networkPolicy.trainers.storagePorts": [9000],
    "resources": {"requests": {"cpu": 3}},
    "settings.log.format": "text",
    "settings.log.level": "debug",
    "settings.nodeCachePath": "/var/cache/charalora",
    "settings.preflight.cpu": "750m",
    "settings.preflight.memory": "5Gi",
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
}
"""Another value than the default, where it does not follow from the type."""


def another(name: str) -> Any:
    """What the value could be instead."""
    node = LEAVES[name]
    if name in OTHER:
        return OTHER[name]
    if "enum" in node:
        return next(choice for choice in node["enum"] if choice != node["default"])
    if node["type"] == "integer":
        return node["default"] + 1
    return {"string": "another", "array": ["another"], "object": {"example.com/another": "another"}}[node["type"]]


def nested(name: str, value: Any) -> Values:
    """The value in its place."""
    for key in reversed(name.split(".")):
        value = {key: value}
    return dict(value)


def together(one: Values, other: Values) -> Values:
    """Both, the other's on top."""
    deeper = {key: together(one[key], value) if isinstance(one.get(key), dict) else value for key, value in other.items()}
    return one | deeper


SWITCHES = [name for name, node in LEAVES.items() if node["type"] == "boolean"]


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_has_an_effect(render: Render, name: str) -> None:
    """A switch that changes nothing is one that nobody should have to read."""
    on, off = (together(EVERYTHING, nested(name, value)) for value in (True, False))

    assert render(on) != render(off)


@pytest.mark.parametrize("name", [name for name in LEAVES if name not in SWITCHES])
def test_what_is_set_is_seen(render: Render, name: str) -> None:
    """Every other value stands somewhere in what is installed, and its default did not."""
    value = another(name)
    words = [str(value)] if isinstance(value, str | int) else re.findall(r"[\w./-]{3,}", json.dumps(value))
    before, after = (str(render(values)) for values in (EVERYTHING, together(EVERYTHING, nested(name, value))))

    assert before != after
    assert [] == [word for word in words if word not in after]


def closed_nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping of the schema whose keys we name."""
    if node.get("type") == "object":
        yield path, node
    for name, child in node.get("properties", {}).items():
        yield from closed_nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from closed_nodes(node["items"], f"{path}[]")


def test_the_schema_is_closed() -> None:
    """But for what is a pod's own, and what belongs to Helm."""
    foreign = (".global", ".affinity.nodeAffinity", ".affinity.podAffinity", ".affinity.podAntiAffinity")
    mappings = {"type": "string"}

    assert {False} == {
        node.get("additionalProperties", True)
        for path, node in closed_nodes(SCHEMA)
        if path not in foreign and node.get("additionalProperties", True) not in (mappings, {"type": ["string", "integer"]})
    }


def test_every_default_stands_in_the_schema() -> None:
    """As values.yaml has it; nothing is in the one that is not in the other."""
    defaults: Values = {}
    for name, node in LEAVES.items():
        defaults = together(defaults, nested(name, node["default"]))

    assert defaults == VALUES


def test_the_settings_are_the_operators_own() -> None:
    """Each with its default; what is missing follows from other values."""
    model = Settings.model_validate({"trainerImage": "t", "preflightImage": "p"}).model_dump(mode="json", by_alias=True)
    for name in ("trainerImage", "preflightImage", "imagePullPolicy", "imagePullSecrets", "http"):
        del model[name]
    for name in ("name", "namespace"):
        del model["lease"][name]

    assert model == VALUES["settings"]


@pytest.mark.parametrize("name", LEAVES)
def test_a_value_has_one_description(name: str) -> None:
    """In the table as in the schema; that of a setting is the operator's."""
    row = next(line for line in (CHART / "README.md").read_text().splitlines() if line.startswith(f"| `{name}` |"))

    assert row.endswith(f"| {LEAVES[name]['description']} |")


@pytest.mark.parametrize(
    ("values", "refusal"),
    [
        ({"replica": 3}, "additional properties 'replica' not allowed"),
        ({"images": {"operator": {"name": "x"}}}, "at '/images/operator': additional properties 'name' not allowed"),
        ({"images": {"operator": {"digest": "sha256:12"}}}, "at '/images/operator/digest': 'sha256:12' does not match pattern"),
        ({"images": {"pullPolicy": "Sometimes"}}, "at '/images/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'"),
        ({"replicas": "two"}, "at '/replicas': got string, want integer"),
        ({"replicas": 0}, "at '/replicas': minimum: got 0, want 1"),
        ({"crds": {"install": "yes"}}, "at '/crds/install': got string, want boolean"),
        ({"crds": None}, "missing property 'crds'"),
        ({"settings": {"workers": 0}}, "at '/settings/workers': minimum: got 0, want 1"),
        ({"settings": {"trainOnCpu": "true"}}, "at '/settings/trainOnCpu': got string, want boolean"),
        ({"settings": {"namespaces": ["Upper"]}}, "at '/settings/namespaces/0': 'Upper' does not match pattern"),
        ({"settings": {"nodeCachePath": "relative"}}, "at '/settings/nodeCachePath': 'relative' does not match pattern"),
        ({"settings": {"preflight": {"memory": "2 GB"}}}, "at '/settings/preflight/memory': '2 GB' does not match pattern"),
        ({"settings": {"trainerImage": "x"}}, "at '/settings': additional properties 'trainerImage' not allowed"),
        ({"settings": {"lease": {"name": "x"}}}, "at '/settings/lease': additional properties 'name' not allowed"),
        ({"settings": {"log": {"level": "loud"}}}, "at '/settings/log/level': value must be one of"),
        ({"tolerations": [{"keys": "gpu"}]}, "at '/tolerations/0': additional properties 'keys' not allowed"),
        ({"resources": {"memory": "1Gi"}}, "at '/resources': additional properties 'memory' not allowed"),
        ({"nodeSelector": {"gpu": True}}, "at '/nodeSelector/gpu': got boolean, want string"),
        ({"networkPolicy": {"apiServer": {"cidrs": []}}}, "at '/networkPolicy/apiServer/cidrs': minItems: got 0, want 1"),
        ({"networkPolicy": {"trainers": {"storagePorts": [70000]}}}, "at '/networkPolicy/trainers/storagePorts/0': maximum: got 70,000"),
        ({"monitoring": {"podMonitor": {"interval": "often"}}}, "at '/monitoring/podMonitor/interval': 'often' does not match pattern"),
    ],
    ids=lambda part: json.dumps(part) if isinstance(part, dict) else "",
)
def test_what_is_wrong_is_refused_by_name(helm: Helm, values: Values, refusal: str) -> None:
    """An unknown value, a wrong type, something out of range: nothing is installed, and the message says where."""
    ended = helm.template(values)

    assert (1, "") == (ended.returncode, ended.stdout)
    assert refusal in ended.stderr
