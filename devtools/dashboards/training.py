"""*One training*: how far it is, whether it learns, how fast, what it waits for, and where its files go."""

from grafana_foundation_sdk.builders import common
from grafana_foundation_sdk.builders.dashboard import Dashboard, TextBoxVariable
from grafana_foundation_sdk.models.common import ScaleDistribution
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue

from dashboards.looks import BLUE, GREEN, ORANGE, PURPLE, RED, TRAINING_UID, YELLOW, dashed, in_colour, steps
from dashboards.panels import at_the_end, bars, board, choice, lines, number, over_time, row, rows, spans

ONE = 'namespace="$namespace", resource="$resource"'


def training() -> Dashboard:
    """One training, with all its attempts."""
    made = board(
        "Charalora / One training", TRAINING_UID.removeprefix("charalora-"), "How far one training is, whether it learns, and how fast."
    )
    made.with_variable(choice("namespace", "Namespace", "label_values(charalora_stage, namespace)"))
    made.with_variable(choice("resource", "Training", 'label_values(charalora_stage{namespace="$namespace"}, resource)'))
    made.with_variable(
        TextBoxVariable("files")
        .label("Files at")
        .description("Where a browser reads the buckets, for the link to the report; a bucket follows it.")
        .default_value("https://s3.example.org")
    )
    for part in (_how_far, _learning, _speed, _keeping):
        part(made)
    return made


def newest(name: str, by: str = "") -> str:
    """A figure of whichever attempt runs; of several pods the first one's."""
    return f"max{f' by ({by})' if by else ''} (charalora_{name}{{{ONE}}})"


def _how_far(made: Dashboard) -> None:
    made.with_row(row("How far"))
    done = f"{newest('step')} / {newest('steps')}"
    made.with_panel(
        number("Done", "Steps done, of all.", "percentunit", over_time(done)).thresholds(steps(BLUE, {1: GREEN})).decimals(0).span(2)
    )
    made.with_panel(
        number(
            "Steps",
            "The last that is done, and how many there are.",
            "short",
            over_time(newest("step"), "done"),
            over_time(newest("steps"), "of"),
        ).span(3)
    )
    made.with_panel(
        number("Time left", "To the last step, at the speed of this attempt.", "s", over_time(newest("eta_seconds"))).decimals(0).span(3)
    )
    speed = number("Pictures per second", "All GPUs together.", "short", over_time(newest("images_per_second")))
    made.with_panel(speed.decimals(1).span(3))
    made.with_panel(number("Loss", "Mean of the newest 20 steps.", "short", over_time(newest("loss"))).decimals(4).span(3))
    made.with_panel(
        number("Best step", "The save with the lowest held-out loss so far.", "short", over_time(newest("best_step")))
        .thresholds(steps(GREEN))
        .span(2)
    )
    over = number(
        "Overfitting",
        "1 when held-out loss has risen above the best step's by more than chance.",
        "short",
        over_time(newest("overfitting")),
    )
    made.with_panel(over.thresholds(steps(GREEN, {1: ORANGE})).span(2))
    attempt = f"count(count by (attempt) (last_over_time(charalora_stage{{{ONE}}}[$__range])))"
    made.with_panel(
        number("Attempts", "How often its pods were started within the time range.", "short", at_the_end(attempt))
        .thresholds(steps(GREEN, {2: YELLOW, 4: RED}))
        .span(2)
    )
    saved = number("Saved step", "An interruption goes on from here.", "short", over_time(newest("last_checkpoint_step")))
    made.with_panel(saved.thresholds(steps(GREEN)).span(2))
    first = number("First step after", "From the start of the attempt's command.", "s", over_time(newest("time_to_first_step_seconds")))
    made.with_panel(first.span(2))
    labels = {"word": "Trigger word", "base_model": "Base model", "dataset": "Data set", "output": "Output", "place": "Bucket and prefix"}
    info = f"max by ({', '.join(key for key in labels if key != 'place')}) (last_over_time(charalora_training_info{{{ONE}}}[$__range]))"
    report = {"title": "Open the report", "url": "${files}/${__data.fields.place}report.html", "targetBlank": True}
    made.with_panel(
        rows(
            "What it is, and where its files go",
            "The last column leads to report.html below “Files at”. Of a bucket that browsers cannot read, fetch it: "
            "aws s3 cp <Output>report.html . (it is one file and needs no network).",
            {"Seen": f'label_replace({info}, "place", "$1", "output", "s3://(.*)")'},
            labels,
        )
        .override_by_name("Bucket and prefix", [DynamicConfigValue(id_val="links", value=[report])])
        .override_by_name("Seen", [DynamicConfigValue(id_val="custom.hidden", value=True)])
        .height(4)
    )


def _learning(made: Dashboard) -> None:
    made.with_row(row("Does it learn"))
    made.with_panel(
        lines(
            "Loss",
            "Of what it trains on, and of pictures that it never sees. Held-out loss that rises while the other falls is overfitting: "
            "take the best step. Compare their courses, not their heights: held out is a geometric mean, in which each noise level counts "
            "the same.",
            "short",
            over_time(newest("loss"), "training"),
            over_time(newest("held_out_loss"), "held out"),
            over_time(newest("best_held_out_loss"), "best held out"),
        )
        .override_by_name("training", in_colour(BLUE))
        .override_by_name("held out", in_colour(ORANGE))
        .override_by_name("best held out", dashed(GREEN))
        .height(9)
    )
    made.with_panel(
        lines(
            "Steps",
            "Done, saved and in all. An attempt that begins goes on at the saved step.",
            "short",
            over_time(newest("step"), "done"),
            over_time(newest("last_checkpoint_step"), "saved"),
            over_time(newest("steps"), "of"),
        )
        .override_by_name("done", in_colour(BLUE))
        .override_by_name("saved", in_colour(GREEN))
        .override_by_name("of", dashed(PURPLE))
        .min(0)
        .height(9)
    )
    log = common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10)
    rate = lines(
        "Learning rate", "Of the UNet, the text encoder and the embedding.", "sci", over_time(newest("learning_rate", "group"), "{{group}}")
    )
    made.with_panel(rate.scale_distribution(log).span(6))
    made.with_panel(
        lines("Gradient norm", "Before clipping; single peaks are harmless.", "short", over_time(newest("gradient_norm"))).span(6)
    )
    norm = over_time(newest("embedding_norm", "word"), "{{word}}")
    made.with_panel(
        lines("Embedding norm", "Mean length of the word's vectors; one that keeps growing drowns the other words.", "short", norm).span(6)
    )
    skipped = lines(
        "Steps skipped", "Their gradients were not finite; many end in LossDiverged.", "short", over_time(newest("nonfinite_steps_total"))
    )
    made.with_panel(skipped.min(0).decimals(0).thresholds(steps(GREEN, {1: ORANGE})).span(6))


def _speed(made: Dashboard) -> None:
    made.with_row(row("How fast"))
    made.with_panel(
        lines("Speed", "Pictures per second, all GPUs together.", "short", over_time(newest("images_per_second"), "now")).min(0).span(8)
    )
    buckets = f"sum by (le) (rate(charalora_step_seconds_bucket{{{ONE}}}[$__rate_interval]))"
    spent, done = (f"sum(rate(charalora_step_seconds_{part}{{{ONE}}}[$__rate_interval]))" for part in ("sum", "count"))
    made.with_panel(
        lines(
            "Time of a step",
            "Mean, and what 95 of 100 steps stay below.",
            "s",
            over_time(f"{spent} / {done}", "mean"),
            over_time(f"histogram_quantile(0.95, {buckets})", "95 of 100"),
        )
        .min(0)
        .span(8)
    )
    stages = f"sort_desc(sum by (stage) (last_over_time(charalora_stage_seconds{{{ONE}}}[$__range])))"
    made.with_panel(bars("Time by stage", "All attempts together; stages overlap.", "s", at_the_end(stages, "{{stage}}")))
    running = f"max by (attempt, stage) (charalora_stage{{{ONE}}} == 1)"
    made.with_panel(
        spans(
            "Stages of each attempt",
            "When each stage ran; a gap is time between two attempts.",
            over_time(running, "{{attempt}} · {{stage}}"),
        )
    )
    flops = lines(
        "Model FLOPs utilization", "Share of the GPUs' peak.", "percentunit", over_time(newest("model_flops_utilization"), "reached")
    )
    made.with_panel(flops.min(0).max(1).span(6))
    memory = over_time(newest("gpu_memory_bytes", "gpu"), "GPU {{gpu}}")
    made.with_panel(lines("GPU memory", "Held by this training.", "bytes", memory).min(0).span(6))


def _keeping(made: Dashboard) -> None:
    made.with_row(row("What is kept"))
    age = f"time() - {newest('last_checkpoint_timestamp_seconds')}"
    made.with_panel(
        lines("Age of the saved state", "What an interruption now would cost.", "s", over_time(age, "age"))
        .min(0)
        .thresholds(steps(GREEN, {1800: ORANGE}))
        .span(6)
    )
    kept = over_time(newest("checkpoint_seconds"), "newest")
    made.with_panel(lines("Time to keep a state", "From a step's end until its state is whole in the store.", "s", kept).min(0).span(6))
    sent = f"sum(rate(charalora_upload_bytes_total{{{ONE}}}[$__rate_interval]))"
    made.with_panel(lines("Uploads", "What is sent to the output store.", "Bps", over_time(sent, "sent")).min(0).span(6))
    failed = over_time(f"sum(charalora_upload_failures_total{{{ONE}}})", "failed")
    made.with_panel(
        lines("Failed uploads", "Also those that succeeded later.", "short", failed)
        .min(0)
        .decimals(0)
        .thresholds(steps(GREEN, {1: RED}))
        .span(6)
    )
