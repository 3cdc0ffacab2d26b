"""The pages about what Prometheus is told: docs/metrics.md, from the figures as operator/charalora_spec declares them."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from charalora_spec.metrics import OPERATOR, TRAINING, Figure

ROOT = Path(__file__).resolve().parent.parent
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


def monitoring_files() -> dict[Path, str]:
    """Every generated page and what must stand in it."""
    return {ROOT / "docs" / "metrics.md": METRICS.format(operator=_table(OPERATOR), training=_table(TRAINING))}


def _table(figures: Iterable[Figure]) -> str:
    return "\n".join(_rows(figures))


def _rows(figures: Iterable[Figure]) -> Iterator[str]:
    yield "| Name | Type | Unit | Labels | What it says |"
    yield "| --- | --- | --- | --- | --- |"
    for figure in figures:
        labels = ", ".join(f"`{label}`" for label in figure.labels)
        yield f"| `{figure.name}` | {figure.kind.value} | {figure.unit} | {labels} | {figure.meaning} |"
