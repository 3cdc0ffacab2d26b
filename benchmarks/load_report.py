"""The result of a load as tables for people."""

from collections.abc import Callable, Mapping
from typing import Any

from record import listed

Json = Mapping[str, Any]

_AIMS = "Aims: 50 resources a second, p99 below 2 s at 10 a second, under 150 MiB and a cold start under 30 s at 10,000."


def _memory(one: Json) -> str:
    return f"{one['started']['memory_peak_mib']}, {one['cold_start']['memory_after_mib']} MiB"


_ROWS: tuple[tuple[str, Callable[[Json], str]], ...] = (
    ("resources a second to their first Job, all at once", lambda one: f"{one['burst']['per_second']}"),
    ("a plain client, the same objects a second", lambda one: f"{one['plain']['per_second']}"),
    ("ratio to the plain client", lambda one: f"{ratio(one):.2f} ×"),
    ("creation to Job, all at once: p50, p99", lambda one: _spread(one["burst"]["to_job"])),
    ("the only resource of another namespace, meanwhile", lambda one: f"{one['burst']['lonely_to_job']} s"),
    ("creation to Job, a steady stream: p50, p99", lambda one: _spread(one["stream"]["to_job"])),
    ("API writes a resource", lambda one: f"{one['burst']['writes_each']}"),
    ("API reads a resource", lambda one: f"{one['burst']['reads_each']}"),
    ("requests refused as too many", lambda one: f"{one['burst']['too_many_requests']:.0f}"),
    ("cold start until caught up", lambda one: f"{one['cold_start']['caught_up_seconds']} s"),
    ("cold start until every resource was visited", lambda one: f"{one['cold_start']['visited_seconds']} s"),
    ("writes of a cold start", lambda one: f"{one['cold_start']['writes']:.0f}"),
    ("memory while they come: peak", lambda one: f"{one['working']['memory_peak_mib']} MiB"),
    ("memory of a cold start: peak, afterwards", _memory),
    ("the operator's answer to a probe: p50, p99, longest", lambda one: _spread(one["working"]["probe"], longest=True)),
    ("CPU ms a resource: operator", lambda one: f"{one['burst']['processor_ms_each']['operator']}"),
    ("CPU ms a resource: API server, etcd", lambda one: _server(one["burst"])),
    ("CPU ms a resource: API server, etcd, under the plain client", lambda one: _server(one["plain"])),
)  # fmt: skip


def ratio(one: Json) -> float:
    """How many resources the operator serves for one of the plain client."""
    return float(one["burst"]["per_second"] / one["plain"]["per_second"])


def table(result: Json) -> str:
    """Everything in Markdown."""
    parts = []
    if sizes := result["sizes"]:
        lines = [f"| resources | {' | '.join(f'{int(size):,}' for size in sizes)} |", f"| --- {'| --- ' * len(sizes)}|"]
        lines += [f"| {name} | {' | '.join(value(one) for one in sizes.values())} |" for name, value in _ROWS]
        parts.append("\n".join(lines))
    if running := result["trainings"]:
        seen = running["reporting"]
        rows = {
            "creation to Job, a steady stream: p50, p99": _spread(running["stream"]["to_job"]),
            "from the first creation until all of them run": f"{running['running_after_seconds']} s",
            "a step's age when the status tells it: p50, p99": _spread(seen["status_lag"]),
            "API writes a second": f"{seen['writes_per_second']}",
            "API reads a second": f"{seen['reads_per_second']}",
            "visits a second": f"{seen['visits_per_second']}",
            "the operator's share of a core": f"{100 * seen['processor_share']:.0f} %",
            "the operator's answer to a probe: p50, p99, longest": _spread(seen["probe"], longest=True),
            "memory: peak": f"{running['working']['memory_peak_mib']} MiB",
        }
        lines = [f"| trainings that run and report | {running['trainings']} |", "| --- | --- |"]
        parts.append("\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows.items())]))
    return "\n\n".join(parts)


def page(result: Json) -> str:
    """The result as a page."""
    setting, cores = result["setting"], result["machine"]["cores"]
    how = (
        f"The steady stream: {setting['rate']:g} resources a second for {setting['seconds']:g} s, beside all the others. The plain client "
        f"wrote at most {setting['plain']} resources. API server, etcd, operator and the clients share the cores below."
    )
    limits = [limit(int(size), one, cores) for size, one in result["sizes"].items()]
    return "\n\n".join(["# The operator under load", table(result), _AIMS, *limits, how, listed(result["machine"])]) + "\n"


def limit(size: int, one: Json, cores: int) -> str:
    """What keeps the operator from serving more: a sentence made of the CPU times."""
    spent, plain = one["burst"]["processor_ms_each"], one["plain"]["processor_ms_each"]
    own, servers, plainly = spent["operator"], spent["kube-apiserver"] + spent["etcd"], plain["kube-apiserver"] + plain["etcd"]
    return (
        f"What sets the limit at {size:,}: the cores. A resource costs API server and etcd {servers:.1f} ms of CPU and the operator "
        f"{own:.1f} ms: {cores} cores make {1000 * cores / (servers + own):.0f} a second at most, clients not counted. The plain client's "
        f"objects cost the servers {plainly:.1f} ms: {1000 * cores / plainly:.0f} a second at most, whoever writes them. With a core to "
        f"itself the operator would make {1000 / own:.0f}."
    )


def _spread(values: Json, *, longest: bool = False) -> str:
    return f"{values['p50']}, {values['p99']}{', ' + str(values['max']) if longest else ''} s"


def _server(part: Json) -> str:
    spent = part["processor_ms_each"]
    return f"{spent['kube-apiserver']}, {spent['etcd']}"
