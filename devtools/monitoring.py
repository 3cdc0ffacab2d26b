"""The pages about what Prometheus is told: docs/metrics.md and docs/alerts.md.

The first is made from the figures as operator/charalora_spec declares them, the second from the rules that the chart installs.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from charalora_spec.metrics import OPERATOR, TRAINING, Figure

ROOT = Path(__file__).resolve().parent.parent
ALERTS = ROOT / "charts" / "charalora" / "files" / "alerts.yaml"
METRICS = """# Metrics
<!-- Made by `make generate` from operator/charalora_spec/metrics.py. -->

Names end with their unit; without one, a figure is a plain number. A histogram has `_bucket`, `_sum` and `_count`.
[install.md](install.md#6-prometheus) says how Prometheus finds them.

## Operators, port 8080

No label grows with the number of resources. The counters of a namespace begin at 0 when its first resource is seen, and those of a
new process as well: what an earlier one has counted is not counted again. An operator that stands by serves nothing of the cluster,
so a sum over all operators is true. In OpenMetrics, exemplars name the CharacterLora of a slow observation. Beside these figures
stand those of the process, such as `process_resident_memory_bytes` and `process_cpu_seconds_total`.

{operator}

## Trainings, port 9400

Served by the pods of an attempt from their first second to their last; what the whole training does is told by the first pod alone.
The series end with the pod. Prometheus adds which training it is by the labels `namespace`, `resource` (its name), `attempt` and `pod`.

{training}
"""
ALERTS_PAGE = """# Alerts
<!-- Made by `make generate` from charts/charalora/files/alerts.yaml. -->

They are rules for Prometheus. With the Prometheus operator the chart installs them (`monitoring.prometheusRule.enabled`); another
Prometheus takes [the file itself](../charts/charalora/files/alerts.yaml) under `rule_files`. They need the figures of operators and
trainings, with the labels that [install.md](install.md#6-prometheus) names. *Critical* means that trainings do not start; *warning* that
somebody should look within the day.

{alerts}

`pytest -rP tests/unit/test_alerts.py` lets promtool show each of them fire, stay quiet and recover. A link to a page is in each alert
(`runbook_url`); `monitoring.prometheusRule.runbooks` says where yours are.
"""


def monitoring_files() -> dict[Path, str]:
    """Every generated page and what must stand in it."""
    return {
        ROOT / "docs" / "metrics.md": METRICS.format(operator="\n".join(_figures(OPERATOR)), training="\n".join(_figures(TRAINING))),
        ROOT / "docs" / "alerts.md": ALERTS_PAGE.format(alerts="\n".join(_alerts())),
    }


def _figures(figures: Iterable[Figure]) -> Iterator[str]:
    yield "| Name | Type | Unit | Labels | What it says |"
    yield "| --- | --- | --- | --- | --- |"
    for figure in figures:
        labels = ", ".join(f"`{label}`" for label in figure.labels)
        yield f"| `{figure.name}` | {figure.kind.value} | {figure.unit} | {labels} | {figure.meaning} |"


def _alerts() -> Iterator[str]:
    yield "| Alert | Severity | After | What it means | What to do |"
    yield "| --- | --- | --- | --- | --- |"
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            name, meaning = rule["alert"], rule["annotations"]["summary"]
            yield f"| `{name}` | {rule['labels']['severity']} | {rule.get('for', 'at once')} | {meaning} | [runbook](runbooks/{name}.md) |"
