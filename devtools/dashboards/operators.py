"""*Operator*: is it there, does one work, does it keep up, what fails, what it costs."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models.common import BigValueColorMode

from dashboards.looks import GREEN, ORANGE, RED, in_colour, steps
from dashboards.panels import at_the_end, bars, board, lines, number, over_time, row, spans, stacked

RATE = "[$__rate_interval]"


def operators() -> Dashboard:
    """The operators of a cluster."""
    made = board("Charalora / Operator", "operator", "Whether an operator works, keeps up, and what fails.")
    for part in (_health, _keeping_up, _work, _cost):
        part(made)
    return made


def _health(made: Dashboard) -> None:
    made.with_row(row("Is it healthy"))
    made.with_panel(
        number("Leaders", "Operators that work: exactly one is right.", "short", at_the_end("sum(charalora_leader)"))
        .thresholds(steps(RED, {1: GREEN, 2: RED}))
        .color_mode(BigValueColorMode.BACKGROUND)
        .span(3)
    )
    made.with_panel(
        number("Operators", "Those that Prometheus reaches.", "short", at_the_end("count(charalora_leader)"))
        .thresholds(steps(RED, {1: ORANGE, 2: GREEN}))
        .span(3)
    )
    made.with_panel(
        number(
            "Oldest wait",
            "How long the resource has waited that is due the longest.",
            "s",
            at_the_end("max(charalora_queue_oldest_seconds)"),
        )
        .thresholds(steps(GREEN, {30: ORANGE, 120: RED}))
        .decimals(1)
        .span(3)
    )
    made.with_panel(
        number("Oldest watch", "Since a watch was last known to have told everything.", "s", at_the_end("max(charalora_watch_age_seconds)"))
        .thresholds(steps(GREEN, {300: ORANGE, 900: RED}))
        .decimals(1)
        .span(3)
    )
    visits = "sum(increase(charalora_reconcile_seconds_count[$__range]))"
    failed = 'sum(increase(charalora_reconcile_seconds_count{result="error"}[$__range]))'
    made.with_panel(
        number(
            "Failed visits",
            "Share of the visits to resources that failed and were repeated.",
            "percentunit",
            at_the_end(f"{failed} / ({visits} > 0)"),
        )
        .thresholds(steps(GREEN, {0.01: ORANGE, 0.05: RED}))
        .decimals(1)
        .span(3)
    )
    buckets = "sum by (le) (increase(charalora_create_to_job_seconds_bucket[$__range]))"
    made.with_panel(
        number(
            "Apply to training Job",
            "Half of them are below; the check lies between.",
            "s",
            at_the_end(f"histogram_quantile(0.5, {buckets})"),
        )
        .decimals(1)
        .span(3)
    )
    made.with_panel(number("Resources", "CharacterLoras that it knows.", "short", at_the_end("sum(charalora_trainings)")).span(3))
    memory = "max(process_resident_memory_bytes and on (instance) charalora_leader)"
    made.with_panel(number("Memory", "Of the operator that holds the most.", "bytes", at_the_end(memory)).span(3))


def _keeping_up(made: Dashboard) -> None:
    made.with_row(row("Does it keep up"))
    leads = over_time("max by (pod) (charalora_leader) == 1", "{{pod}}")
    made.with_panel(spans("Who works", "When each operator held the Lease; in a gap none did, or it was not heard.", leads).span(8))
    made.with_panel(
        lines(
            "Queue",
            "Resources that are due. A queue that does not empty is too much work or an API server that does not answer.",
            "short",
            over_time("sum(charalora_queue_depth)", "due"),
        )
        .min(0)
        .span(8)
    )
    ages = over_time("max by (resource) (charalora_watch_age_seconds)", "{{resource}}")
    made.with_panel(lines("Age of the watches", "A watch that stays silent is read anew.", "s", ages).min(0).span(8))


def _work(made: Dashboard) -> None:
    made.with_row(row("What it does, and what fails"))
    rate = over_time(f"sum by (result) (rate(charalora_reconcile_seconds_count{RATE}))", "{{result}}")
    made.with_panel(
        stacked(lines("Visits per second", "Visits to resources, by result.", "short", rate))
        .override_by_name("ok", in_colour(GREEN))
        .override_by_name("error", in_colour(RED))
    )
    buckets = f"sum by (le) (rate(charalora_reconcile_seconds_bucket{RATE}))"
    shares = {"half": 0.5, "95 of 100": 0.95, "99 of 100": 0.99}
    quantiles = [over_time(f"histogram_quantile({share}, {buckets})", name) for name, share in shares.items()]
    made.with_panel(lines("Time of a visit", "What that share of the visits stays below.", "s", *quantiles).min(0))
    codes = over_time(f"sum by (verb, code) (rate(charalora_api_requests_total{RATE})) > 0", "{{verb}} {{code}}")
    made.with_panel(stacked(lines("Requests to the API server", "Per second, by verb and status code.", "short", codes)))
    kinds = "round(sum by (kind) (increase(charalora_reconcile_errors_total[$__range])))"
    kinds = f'sort_desc({kinds} or on () label_replace(vector(0), "kind", "none", "", ""))'
    made.with_panel(
        bars("Failed visits, by what failed", "Within the time range; each was repeated.", "short", at_the_end(kinds, "{{kind}}")).span(12)
    )


def _cost(made: Dashboard) -> None:
    made.with_row(row("What it takes"))
    ours = "and on (instance) charalora_leader"
    cpu = over_time(f"rate(process_cpu_seconds_total{RATE}) {ours}", "{{pod}}")
    made.with_panel(lines("CPU", "Cores.", "short", cpu).min(0))
    memory = over_time(f"process_resident_memory_bytes {ours}", "{{pod}}")
    made.with_panel(lines("Memory", "Resident.", "bytes", memory).min(0))
