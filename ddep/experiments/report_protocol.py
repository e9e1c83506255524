"""The part of the report that says which data and which rules the numbers come from."""

from __future__ import annotations

from collections.abc import Iterator

from ddep.experiments.experiment import Experiment, FineTuning, Options, Stage, Start
from ddep.experiments.outcomes import Outcomes
from ddep.experiments.plan import words_of
from ddep.tasks import load_config


def describe_protocol(outcomes: Outcomes) -> Iterator[str]:
    """Yield the section's paragraphs."""
    experiment = outcomes.experiment
    yield "## Data and protocol"
    lines = [*_data(experiment), *_starts(experiment), *_rules(experiment)]
    yield "\n".join(f"- {line}" for line in lines)


def _data(experiment: Experiment) -> Iterator[str]:
    if experiment.shapes is not None:
        numbers = ", ".join(f"{key} {value}" for key, value in experiment.shapes.items())
        shifts = "".join(f"; the same with the look of {shift}" for shift in experiment.shifts)
        yield f"Data: generated shapes ({numbers or 'the default numbers of images'}){shifts}."
    if experiment.moving_shapes is not None:
        numbers = ", ".join(f"{key} {value}" for key, value in experiment.moving_shapes.items())
        yield f"Data: generated moving shapes ({numbers or 'the default numbers of videos'})."
    for stage in experiment.stages.values():
        images = f"`images:{stage.images}`" if stage.images else _sets(stage, "TRAIN")
        source = f", from `{stage.weights}`" if stage.weights else ""
        runs = "one run for each seed" if stage.per_seed else "one run for all seeds"
        if stage.pseudo_labels_of:
            sets = ", ".join(f"`{name}`" for name in stage.pseudo_labels_of)
            yield f"Pseudo-labels *{stage.name}*: of {sets}{source}; {runs}."
            continue
        yield (
            f"Pretraining *{stage.name}*: `{stage.config}`{_options(stage.options)}{source}, on "
            f"{images}; {runs}."
        )
    fine_tuning = experiment.fine_tuning
    without_own = [start for start in experiment.starts.values() if not start.config]
    if without_own:
        of = "all starts" if len(without_own) == len(experiment.starts) else "the other starts"
        yield (
            f"Fine-tuning of {of}: `{fine_tuning.config}`{_options(fine_tuning.options)}, on "
            f"{_sets(fine_tuning, 'TRAIN')}; tested on {_sets(fine_tuning, 'TEST')}."
        )


def _starts(experiment: Experiment) -> Iterator[str]:
    for start in experiment.starts.values():
        source = f"weights of `{start.weights}`" if start.weights else "random numbers"
        baseline = " (the baseline)" if start.name == experiment.baseline else ""
        own = f", pseudo-labels of `{start.pseudo_labels}`" if start.pseudo_labels else ""
        if start.config:
            sets = f"on {_sets(start, 'TRAIN')}, tested on {_sets(start, 'TEST')}"
            own += f"; `{start.config}`, {sets}"
        yield f"Start *{start.name}*{baseline}: {source}{own}{_options(start.options)}."


def _rules(experiment: Experiment) -> Iterator[str]:
    seeds = ", ".join(map(str, experiment.seeds))
    yield (
        f"Seeds {seeds}: with one seed, all starts have the same labelled images, order of images "
        "and random numbers."
    )
    if experiment.search:
        yield (
            "Each start has the settings that are best for it, from the same grid, with as many "
            "trials, on seeds that the comparison does not use. The test images also "
            "judged the trials, for all starts alike."
        )
    elif any(start.config for start in experiment.starts.values()):
        yield (
            "Starts have settings of their own, in their configs, which need not be the best ones "
            "for each."
        )
    else:
        yield (
            "All starts have the same settings, which need not be the best ones for each; a search "
            "would give each its own."
        )
    threads = "one thread" if experiment.threads == 1 else f"{experiment.threads} threads"
    yield f"Each run has {threads}; another number adds up in another order, as another seed does."


def _sets(trained: Stage | FineTuning | Start, key: str) -> str:
    cfg = load_config(trained.config, words_of(trained.options))
    return ", ".join(f"`{name}`" for name in cfg.DATASETS[key])


def _options(options: Options) -> str:
    if not options:
        return ""
    return " with " + ", ".join(f"`{key} {value}`" for key, value in options.items())
