"""An experiment's report in Markdown: what was done, what came out, what it allows to say."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tabulate import tabulate

from ddep.errors import UserError
from ddep.experiments.command import FILE as COMMANDS
from ddep.experiments.command import shown_command
from ddep.experiments.outcomes import Outcomes
from ddep.experiments.pictures import compare_predictions
from ddep.experiments.plan import Run
from ddep.experiments.progress import format_time
from ddep.experiments.report_protocol import describe_protocol
from ddep.experiments.results import Results, Row
from ddep.experiments.statistics import Comparison, Mean
from ddep.experiments.training_loss import FLAT, mean_loss_end
from ddep.files import atomic_write

REPORT, CURVES = "report.md", "curves.png"
CSV, SEARCH_CSV = "results.csv", "search.csv"
_SEGMENTATION = "segmentation.png"


def write_report(outcomes: Outcomes, results: Results, path: Path) -> None:
    """Write the report, and the pictures of predictions and denoised images that it shows.

    Raises:
        UserError: a file cannot be written.
    """
    sections = [
        f"# {outcomes.experiment.title}",
        *_unfinished(outcomes),
        *_result(results),
        *_searched(outcomes, results),
        *_losses(results),
        *_pretrainings(outcomes),
        *_costs(outcomes),
        *_pictures(outcomes, results),
        *describe_protocol(outcomes),
        *_commands(outcomes),
    ]
    with atomic_write(path) as file:
        file.write(("\n\n".join(sections) + "\n").encode())


def summary(results: Results) -> str:
    """What came out, for the console."""
    lines = [
        f"{start} with {labels} labels: {_interval(comparison.mean, sign='+')} "
        f"{results.experiment.metric_name}, better with {comparison.better} of "
        f"{comparison.mean.number} seeds: {comparison.verdict}"
        for (labels, start), comparison in results.comparisons.items()
    ]
    baseline = f"Differences from {results.experiment.baseline}, with 95 % intervals:"
    return "\n".join([_means(results), "", baseline, *lines])


def _unfinished(outcomes: Outcomes) -> Iterator[str]:
    done, all_runs = len(outcomes.done), len(outcomes.runs)
    if done == all_runs:
        return
    yield f"**{done} of {all_runs} runs are done.** What follows is about these alone."
    reasons = {**outcomes.failed, **outcomes.skipped}
    if reasons:
        words = dict.fromkeys(outcomes.failed, "failed")
        rows = [[f"`{name}`", words.get(name, "skipped"), why] for name, why in reasons.items()]
        yield _table(rows, ["run", "", "why"])


def _result(results: Results) -> Iterator[str]:
    experiment = results.experiment
    if not results.rows:
        yield "No fine-tuning of the comparison has ended well: there are no results."
        return
    yield f"![{experiment.metric_name} over labelled images]({CURVES})"
    yield (
        f"`{experiment.metric}` ({'smaller' if experiment.smaller_is_better else 'larger'} is "
        f"better) on the test images: mean over seeds with 95 % intervals (Student's t), each seed "
        f"a dot. [{CSV}]({CSV}) has every number."
    )
    yield _means(results)
    yield f"## Differences from {experiment.baseline}"
    yield (
        "Seed by seed, on the same labelled images in the same order; above 0 is better. Intervals "
        "are those of each comparison alone. The verdict takes all of them together: it is *gain* "
        "or *loss* only if the p of the paired t-test is below 5 % after Holm's correction for the "
        f"{len(results.comparisons)} in this table, and never where the interval holds 0. The sign "
        "test only asks how many seeds are better; with five seeds its p is 6 % or more."
    )
    yield _differences(results)


def _means(results: Results) -> str:
    experiment = results.experiment
    rows = []
    for labels in experiment.labels:
        images = _labels(labels.text, results.images(labels.text))
        for start in experiment.starts:
            values = results.values(labels.text, start)
            seeds = [f"{values[s]:.2f}" if s in values else "-" for s in experiment.seeds]
            mean = _interval(results.mean(labels.text, start))
            rows.append([images, start, mean, ", ".join(seeds)])
    seeds_of_rows = f"seeds {_join(experiment.seeds)}"
    return _table(rows, ["labelled images", "start", "mean", seeds_of_rows])


def _differences(results: Results) -> str:
    rows = [
        [_labels(labels, results.images(labels)), start, *_difference(comparison)]
        for (labels, start), comparison in results.comparisons.items()
    ]
    headers = ["labelled images", "start", "difference", "seeds better", "p, sign test"]
    return _table(rows, [*headers, "p, t-test", "p, Holm", "verdict"])


def _difference(comparison: Comparison) -> list[str]:
    mean = comparison.mean
    return [
        _interval(mean, sign="+"),
        f"{comparison.better} of {mean.number}",
        f"{comparison.sign_p:.3f}",
        *("-" if p is None else f"{p:.3f}" for p in (comparison.t_p, comparison.adjusted_p)),
        comparison.verdict,
    ]


def _interval(mean: Mean | None, sign: str = "") -> str:
    if mean is None:
        return "-"
    if mean.low is None:
        return f"{mean.value:{sign}.2f}"
    return f"{mean.value:{sign}.2f} ({mean.low:{sign}.2f} to {mean.high:{sign}.2f})"


def _labels(text: str, images: int | None) -> str:
    return text if images is None or text == str(images) else f"{text} ({images})"


def _searched(outcomes: Outcomes, results: Results) -> Iterator[str]:
    search = outcomes.experiment.search
    if not search:
        return
    yield "## Settings that each start chose"
    trials = math.prod(map(len, search.grid.values()))
    yield (
        f"By the mean of `{outcomes.experiment.metric}` over the search's own seeds "
        f"({_join(search.seeds)}), among the same {trials} settings for all starts. A value at the "
        "end of its list is marked with *: better ones may lie beyond. "
        f"[{SEARCH_CSV}]({SEARCH_CSV}) has every trial."
    )
    rows = {
        (row.cell.labels, row.cell.start): [
            row.cell.labels,
            row.cell.start,
            *(_chosen(row.settings.get(key, "-"), values) for key, values in search.grid.items()),
        ]
        for row in results.rows
    }
    yield _table(list(rows.values()), ["labels", "start", *search.grid])


def _chosen(value: object, values: Sequence[object]) -> str:
    numbers = [v for v in values if isinstance(v, (int, float))]
    at_end = len(numbers) == len(values) > 1 and value in (min(numbers), max(numbers))
    return f"{value} *" if at_end else str(value)


def _losses(results: Results) -> Iterator[str]:
    experiment = results.experiment
    rows = []
    for labels in experiment.labels:
        for start in experiment.starts:
            ends = [row.loss for row in results.of(labels.text, start)]
            if end := mean_loss_end(ends):
                verdict = "flat" if end.is_flat else "**still falling**"
                cells = [labels.text, start, f"{end.loss:.3g}", f"{100 * end.change:+.0f} %"]
                rows.append([*cells, verdict])
    if rows:
        yield "## Is the training loss flat?"
        yield (
            "If a loss still falls at the end, iterations limit the result and not labels alone. "
            "Mean total loss over the last fifth of fine-tuning, and how it changed from the fifth "
            f"before; flat means that it fell by less than {100 * FLAT:.0f} %. A learning rate "
            "that ends near 0 flattens every loss: whether more iterations help, only a search "
            "over `SOLVER.MAX_ITER` tells."
        )
        yield _table(rows, ["labels", "start", "loss at the end", "change", ""])


def _pretrainings(outcomes: Outcomes) -> Iterator[str]:
    rows = []
    for name, run in outcomes.runs.items():
        if not run.cell and name in outcomes.done:
            record = outcomes.done[name]
            metrics = [
                f"{metric} {value:.4g}"
                for metric, value in record.metrics.items()
                if "-" not in metric  # those of single classes
            ]
            rows.append([f"`{name}`", f"`{run.config}`", ", ".join(metrics)])
    if rows:
        yield "## Pretraining"
        yield _table(rows, ["run", "config", "results on its test images"])


def _costs(outcomes: Outcomes) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for name, run in outcomes.runs.items():
        if name in outcomes.done:
            kind = name.split("/")[0] if run.cell else "/".join(name.split("/")[:2])
            groups.setdefault(kind, []).append(name)
    rows = []
    for kind, names in groups.items():
        records = [outcomes.done[name] for name in names]
        hours = sum(record.processor_hours for record in records)
        seconds = sum(record.seconds for record in records)
        unit = "GPU" if records[0].on_gpu else "core"
        rows.append([kind, len(names), format_time(seconds / len(names)), f"{hours:.3g} {unit} h"])
    if rows:
        yield "## Cost"
        yield _table(rows, ["", "runs", "time of one", "all together"])


def _pictures(outcomes: Outcomes, results: Results) -> Iterator[str]:
    output = outcomes.experiment.output
    for name, run in outcomes.runs.items():
        picture = output / name / "inference" / "denoising.png"
        if not run.cell and name in outcomes.done and picture.exists():
            copy = output / f"{name.replace('/', '_')}.png"
            shutil.copy(picture, copy)
            yield f"![noisy, denoised, clean]({copy.name})"
            yield f"*Noisy, denoised, clean: test images of `{name}`.*"
    if rows := _shown_rows(results):
        first = rows[0].cell
        try:
            compare_predictions(
                {row.cell.start: output / row.run.name for row in rows}, output / _SEGMENTATION
            )
        except UserError as error:
            yield f"There is no picture of predictions: {error}"
            return
        yield f"![image, truth, {', '.join(row.cell.start for row in rows)}]({_SEGMENTATION})"
        yield (
            f"*The first test images, their labels, and what each start finds with {first.labels} "
            f"labels and seed {first.seed}. A few images prove nothing; the tables count.*"
        )


def _shown_rows(results: Results) -> list[Row]:
    """A row of each start, of the first label count and seed with results of the most starts."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in results.rows:
        groups.setdefault((row.cell.labels, row.cell.seed), []).append(row)
    return max(groups.values(), key=len, default=[])


def _commands(outcomes: Outcomes) -> Iterator[str]:
    yield "## Commands"
    yield f"[{COMMANDS}]({COMMANDS}) has all. The pretrainings, and the first run of each start:"
    shown: dict[object, Run] = {}
    for name, run in outcomes.runs.items():
        if name in outcomes.done and not run.is_trial:
            shown.setdefault(run.cell.start if run.cell else name, run)
    lines = [
        shown_command(outcomes.experiment, run, outcomes.chosen(run)) for run in shown.values()
    ]
    yield "\n\n".join(f"    {line}" for line in lines)


def _join(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)
