"""*Fleet*: which trainings run, how far and how fast; what failed, and what GPU hours were lost to."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models.common import BigValueColorMode

from charalora_spec.outcome import FINAL, Outcome
from dashboards.looks import BLUE, GREEN, ORANGE, PURPLE, RED, YELLOW, as_gauge, in_colour, shown_as, steps, to_training
from dashboards.panels import at_the_end, bars, board, choice, every, lines, number, over_time, row, rows, stacked

HERE = 'namespace=~"$namespace"'
TRAINING = {"namespace": "Namespace", "resource": "Training"}
FAILED = "|".join(outcome.reason for outcome in FINAL if outcome is not Outcome.SUCCEEDED)
WAITING = "|".join(outcome.reason for outcome in Outcome if outcome not in {*FINAL, Outcome.RUNNING})


def fleet() -> Dashboard:
    """All trainings of some namespaces."""
    made = board("Charalora / Fleet", "fleet", "Which trainings run, how far and how fast; what failed, and what GPU hours were lost to.")
    made.with_variable(every(choice("namespace", "Namespace", "label_values(charalora_trainings, namespace)")))
    for part in (_now, _running, _ends, _hours, _time):
        part(made)
    return made


def _in_states(reasons: str) -> str:
    return f'sum(charalora_trainings{{{HERE}, state=~"{reasons}"}})'


def _now_of(figure: str) -> str:
    return f"max by (namespace, resource, attempt) (charalora_{figure}{{{HERE}}})"


def _last_of(figure: str) -> str:
    return f"max by (namespace, resource) (max_over_time(charalora_{figure}{{{HERE}}}[$__range]))"


def _now(made: Dashboard) -> None:
    made.with_row(row("Now"))
    made.with_panel(
        number("Running", "Trainings whose pods run.", "short", over_time(_in_states(Outcome.RUNNING.reason)))
        .thresholds(steps(GREEN))
        .span(3)
    )
    made.with_panel(
        number(
            "Waiting",
            "Trainings that are checked, wait for quota, nodes, images or Secrets, or are paused.",
            "short",
            over_time(_in_states(WAITING)),
        )
        .thresholds(steps(YELLOW))
        .span(3)
    )
    made.with_panel(
        number(
            "Failed, still there",
            "Trainings that ended without their files and were not deleted yet.",
            "short",
            over_time(_in_states(FAILED)),
        )
        .thresholds(steps(GREEN, {1: RED}))
        .color_mode(BigValueColorMode.BACKGROUND)
        .no_value("0")
        .span(3)
    )
    ended = f"increase(charalora_training_outcomes_total{{{HERE}}}[$__range])"
    good = f'increase(charalora_training_outcomes_total{{{HERE}, reason="Succeeded"}}[$__range])'
    made.with_panel(
        number(
            "Succeeded",
            "Share of the trainings that ended within the time range and whose files are whole.",
            "percentunit",
            at_the_end(f"sum({good}) / (sum({ended}) > 0)"),
        )
        .thresholds(steps(RED, {0.8: ORANGE, 0.95: GREEN}))
        .decimals(0)
        .span(3)
    )
    speed = f"sum(charalora_images_per_second{{{HERE}}})"
    made.with_panel(
        number("Pictures per second", "Pictures that all running trainings learn from.", "short", over_time(speed)).decimals(1).span(3)
    )
    held = f"sum(increase(charalora_gpu_seconds_total{{{HERE}}}[$__range]))"
    made.with_panel(
        number("GPU hours", "GPU hours that attempts held which ended within the time range.", "short", at_the_end(f"{held} / 3600")).span(
            3
        )
    )
    lost = f'sum(increase(charalora_gpu_seconds_total{{{HERE}, outcome="wasted"}}[$__range]))'
    made.with_panel(
        number(
            "Lost", "Share of these GPU hours whose steps were lost and done again.", "percentunit", at_the_end(f"{lost} / ({held} > 0)")
        )
        .thresholds(steps(GREEN, {0.05: ORANGE, 0.15: RED}))
        .color_mode(BigValueColorMode.BACKGROUND)
        .decimals(1)
        .span(3)
    )
    to_step = "sum by (le) (increase(charalora_create_to_first_step_seconds_bucket[$__range]))"
    made.with_panel(
        number(
            "Apply to first step",
            "From a CharacterLora to its first step, half of them within the time range are below; of all namespaces.",
            "s",
            at_the_end(f"histogram_quantile(0.5, {to_step})"),
        )
        .thresholds(steps(GREEN, {600: ORANGE, 3600: RED}))
        .span(3)
    )


def _running(made: Dashboard) -> None:
    columns = {
        "Done": f"{_now_of('step')} / {_now_of('steps')}",
        "Step": _now_of("step"),
        "Of": _now_of("steps"),
        "Pictures/s": _now_of("images_per_second"),
        "Time left": _now_of("eta_seconds"),
        "Loss": _now_of("loss"),
        "Held-out loss": _now_of("held_out_loss"),
        "Saved step": _now_of("last_checkpoint_step"),
    }
    made.with_row(row("Which trainings run, how far, how fast"))
    made.with_panel(
        rows("Trainings that run", "A row for each; its name leads to its own dashboard.", columns, {**TRAINING, "attempt": "Attempt"})
        .override_by_name("Training", to_training())
        .override_by_name("Done", as_gauge())
        .override_by_name("Pictures/s", shown_as("short", 1))
        .override_by_name("Time left", shown_as("s", 0))
        .override_by_name("Loss", shown_as("short", 4))
        .override_by_name("Held-out loss", shown_as("short", 4))
        .height(8)
    )
    states = f"sum by (state) (charalora_trainings{{{HERE}}})"
    made.with_panel(
        stacked(lines("Trainings by state", "What `kubectl get clora` shows as STATE.", "short", over_time(states, "{{state}}")))
        .override_by_name("Running", in_colour(GREEN))
        .override_by_name("Pending", in_colour(YELLOW))
        .override_by_name("Suspended", in_colour(PURPLE))
        .override_by_name("Succeeded", in_colour(BLUE))
        .decimals(0)
    )
    speed = f"topk(10, sum by (namespace, resource) (charalora_images_per_second{{{HERE}}}))"
    made.with_panel(
        stacked(lines("Pictures per second by training", "The ten fastest.", "short", over_time(speed, "{{namespace}}/{{resource}}")))
    )


def _ends(made: Dashboard) -> None:
    ended = f"sort_desc(round(sum by (reason) (increase(charalora_training_outcomes_total{{{HERE}}}[$__range]))) > 0)"
    made.with_row(row("What failed, and why"))
    made.with_panel(
        bars(
            "How trainings ended",
            "Ends within the time range, by reason; docs/reasons has a page for each reason: what it means and what to do.",
            "short",
            at_the_end(ended, "{{reason}}"),
        )
        .override_by_name("Succeeded", in_colour(GREEN))
        .span(7)
    )
    failed = {"Trainings": f'sum by (namespace, state) (charalora_trainings{{{HERE}, state=~"{FAILED}"}})'}
    made.with_panel(
        rows(
            "Failed, still there",
            "Where they are: `kubectl get clora --namespace …` names them and says in a sentence what to do.",
            failed,
            {"namespace": "Namespace", "state": "Reason"},
        )
        .span(6)
        .height(8)
    )
    attempts = f"count by (namespace, resource, attempt) (last_over_time(charalora_stage{{{HERE}}}[$__range]))"
    columns = {
        "Done": f"{_last_of('step')} / {_last_of('steps')}",
        "Attempts": f"count by (namespace, resource) ({attempts})",
        "Saved step": _last_of("last_checkpoint_step"),
        "Skipped": _last_of("nonfinite_steps_total"),
    }
    made.with_panel(
        rows(
            "Trainings of this time range",
            "How far each came whose pods were seen; one that ended below 100 % failed, was paused or waits for its next attempt.",
            columns,
            TRAINING,
        )
        .override_by_name("Training", to_training())
        .override_by_name("Done", as_gauge())
        .override_by_name("Attempts", [*shown_as("short", 0)])
        .span(11)
        .height(8)
    )


def _hours(made: Dashboard) -> None:
    seconds = f"charalora_gpu_seconds_total{{{HERE}%s}}"
    made.with_row(row("What GPU hours were lost to"))
    lost = "sum by (cause) (increase(" + seconds % ', outcome="wasted"' + "[$__range])) / 3600"
    made.with_panel(
        bars(
            "GPU hours lost, by cause",
            "Steps that were done and not saved when an attempt was preempted, failed or was paused.",
            "short",
            at_the_end(f"sort_desc({lost})", "{{cause}}"),
        )
        .override_by_name("failure", in_colour(RED))
        .override_by_name("preemption", in_colour(ORANGE))
        .override_by_name("pause", in_colour(YELLOW))
        .height(6)
    )
    by_place = "sum by (namespace) (increase(" + seconds % ', outcome="%s"' + "[$__range])) / 3600"
    made.with_panel(
        rows(
            "GPU hours by namespace",
            "What the attempts held that ended within the time range, and what of it was lost.",
            {"Useful": by_place % "useful", "Lost": by_place % "wasted"},
            {"namespace": "Namespace"},
        )
        .override_by_name("Useful", shown_as("short", 3))
        .override_by_name("Lost", shown_as("short", 3))
        .span(8)
        .height(6)
    )
    attempts = f"round(sum by (cause) (increase(charalora_attempts_total{{{HERE}}}[$__range])))"
    made.with_panel(
        bars(
            "Attempts, by what came before",
            "Training Jobs that were made: the first of a training, or another after a preemption, a failure or a pause.",
            "short",
            at_the_end(attempts, "{{cause}}"),
        )
        .override_by_name("first", in_colour(BLUE))
        .override_by_name("failure", in_colour(RED))
        .override_by_name("preemption", in_colour(ORANGE))
        .override_by_name("pause", in_colour(YELLOW))
        .height(6)
    )


def _time(made: Dashboard) -> None:
    made.with_row(row("Over time"))
    hours = f"sum by (outcome) (increase(charalora_gpu_seconds_total{{{HERE}}}[1h])) / 3600"
    made.with_panel(
        stacked(
            lines("GPU hours of the hour before", "Useful or lost, counted when an attempt ends.", "short", over_time(hours, "{{outcome}}"))
        )
        .override_by_name("useful", in_colour(GREEN))
        .override_by_name("wasted", in_colour(RED))
    )
    ends = f"sum by (reason) (increase(charalora_training_outcomes_total{{{HERE}}}[1h])) > 0"
    made.with_panel(
        stacked(lines("Ends in the hour before", "Trainings that ended, by reason.", "short", over_time(ends, "{{reason}}")))
        .override_by_name("Succeeded", in_colour(GREEN))
        .decimals(0)
    )
