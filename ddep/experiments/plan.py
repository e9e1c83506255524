"""The runs of an experiment, in an order in which they can be done."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import fmean
from typing import Any

from detectron2.config import CfgNode

from ddep.config_files import flatten, read_yaml_with_bases
from ddep.data.labels import limits_labels
from ddep.errors import UserError, one_line
from ddep.experiments.experiment import Experiment, LabelCount, Options, Stage, Start
from ddep.tasks import load_config

_SEARCH = "search/"
_SEEDS = ("SEED", "DATASETS.LABEL_SEED")


@dataclass(frozen=True)
class Cell:
    """A fine-tuning of the comparison or the search."""

    labels: str
    start: str
    seed: int


@dataclass(frozen=True)
class Trial:
    """Settings of the search, and the names of their runs, one for each of its seeds."""

    settings: Options
    runs: Sequence[str]


@dataclass(frozen=True)
class Run:
    """One ``train_net.py`` command, or one of ``tools/pseudo-labels.py``.

    Attributes:
        name: its folder below the experiment's.
        config: path of a config.
        options: config keys on top of it, without those that depend on other runs.
        weights: the run whose weights it starts from, None if it needs no run.
        pseudo_labels: the run that writes those that it trains on, None if it needs none.
        pseudo_labels_of: data sets, if it writes the pseudo-labels of its model and trains nothing.
        trials: those of which it takes the best settings on top of its options; often none.
        num_gpus: its processes.
        cell: what a fine-tuning compares; None for a pretraining.
        on_gpu: whether it wants GPUs.
        iterations: SOLVER.MAX_ITER, of the trials the mean.
    """

    name: str
    config: str
    options: Options
    weights: str | None
    num_gpus: int
    on_gpu: bool
    iterations: float
    cell: Cell | None = None
    trials: Sequence[Trial] = field(default=())
    pseudo_labels: str | None = None
    pseudo_labels_of: Sequence[str] = ()

    @property
    def is_trial(self) -> bool:
        """Whether it belongs to the search."""
        return self.name.startswith(_SEARCH)

    @property
    def needs(self) -> set[str]:
        """The names of the runs that must end before this one starts."""
        return {name for trial in self.trials for name in trial.runs} | set(self.sources.values())

    @property
    def sources(self) -> dict[str, str]:
        """The runs whose files it takes, by the config key that says so."""
        named = {
            "MODEL.WEIGHTS": self.weights,
            "MODEL.ADAPTATION.PSEUDO_LABELS": self.pseudo_labels,
        }
        return {key: name for key, name in named.items() if name}


def plan_runs(experiment: Experiment) -> dict[str, Run]:
    """All runs by name: pretrainings, then trials of the search, then the comparison.

    Raises:
        UserError: a config, or an option on top of it, is wrong.
    """
    _load.cache_clear()
    keys_of_file.cache_clear()
    runs: dict[str, Run] = {}
    for run in (*_pretrainings(experiment), *_fine_tunings(experiment)):
        if run.name in runs:
            raise UserError(
                f"{experiment.file}: two runs would have the folder {run.name}; expected names and "
                "values that differ in letters and digits"
            )
        runs[run.name] = run
    return runs


def _pretrainings(experiment: Experiment) -> Iterator[Run]:
    search_seeds = experiment.search.seeds if experiment.search else ()
    for stage in experiment.stages.values():
        where = f"{experiment.file}: pretraining.{stage.name}"
        for seed in (*search_seeds, *experiment.seeds) if stage.per_seed else (None,):
            options: dict[str, Any] = {"SEED": seed or 0, **stage.options}
            if stage.images:
                options["DATASETS.TRAIN"] = [f"images:{stage.images}"]
            run, checkpoint = _weights(experiment, stage.weights, seed)
            if checkpoint:
                options["MODEL.WEIGHTS"] = checkpoint
            cfg = _checked_config(where, stage.config, options)
            yield Run(
                name=_stage_run(stage, seed),
                config=stage.config,
                options=options,
                weights=run,
                num_gpus=stage.num_gpus,
                on_gpu=cfg.MODEL.DEVICE == "cuda",
                iterations=cfg.SOLVER.MAX_ITER,
                pseudo_labels_of=stage.pseudo_labels_of,
            )


def _fine_tunings(experiment: Experiment) -> Iterator[Run]:
    trials: dict[tuple[str, str], list[Trial]] = {}
    if search := experiment.search:
        for labels, start in itertools.product(search.labels, experiment.starts.values()):
            of_pair = trials[labels.text, start.name] = []
            for settings in _grid(search.grid):
                trial = "_".join(f"{key}={value}" for key, value in settings.items())
                folder = f"{_SEARCH}{_part(labels.text)}/{_part(start.name)}/{_part(trial)}"
                runs = [
                    _fine_tuning(experiment, labels, start, seed, folder, settings)
                    for seed in search.seeds
                ]
                of_pair.append(Trial(settings, [run.name for run in runs]))
                yield from runs
    for labels, start in itertools.product(experiment.labels, experiment.starts.values()):
        searched = _searched(experiment, labels)
        folder = f"comparison/{_part(labels.text)}/{_part(start.name)}"
        for seed in experiment.seeds:
            of_pair = trials[searched.text, start.name] if searched else []
            yield _fine_tuning(experiment, labels, start, seed, folder, {}, of_pair)


def _fine_tuning(
    experiment: Experiment,
    labels: LabelCount,
    start: Start,
    seed: int,
    folder: str,
    settings: Options,
    trials: Sequence[Trial] = (),
) -> Run:
    fine_tuning = experiment.fine_tuning
    config = start.config or fine_tuning.config
    run, checkpoint = _weights(experiment, start.weights, seed)
    options = {
        **fine_tuning.options,
        **start.options,
        **settings,
        **labels.options,
        "SEED": seed,
        "DATASETS.LABEL_SEED": seed,
    }
    if not run:  # the config may name weights that the start does not have
        options["MODEL.WEIGHTS"] = checkpoint or ""
    labels_run, _ = _weights(experiment, start.pseudo_labels, seed)
    where = f"{experiment.file}: starts.{start.name}"
    cfg = _checked_config(where, config, options)
    if limits_labels(_checked_config(where, config, {})):
        key = f"starts.{start.name}" if start.config else "fine_tuning"
        raise UserError(
            f"{experiment.file}: {key}.config {config} sets DATASETS.LABEL_*; expected a config "
            "without it: labels says how many there are"
        )
    length = cfg.SOLVER.MAX_ITER
    lengths = [float(trial.settings.get("SOLVER.MAX_ITER", length)) for trial in trials]
    return Run(
        name=f"{folder}/seed{seed}",
        config=config,
        options=options,
        weights=run,
        num_gpus=fine_tuning.num_gpus,
        on_gpu=cfg.MODEL.DEVICE == "cuda",
        iterations=fmean(lengths or [length]),
        cell=Cell(labels.text, start.name, seed),
        trials=tuple(trials),
        pseudo_labels=labels_run,
    )


def _grid(grid: Mapping[str, Sequence[Any]]) -> Iterator[Options]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _searched(experiment: Experiment, labels: LabelCount) -> LabelCount | None:
    """The label count whose settings ``labels`` takes: the nearest in the experiment's order."""
    if not experiment.search:
        return None
    order = [count.text for count in experiment.labels]
    place = order.index(labels.text)
    return min(experiment.search.labels, key=lambda count: abs(order.index(count.text) - place))


def _weights(
    experiment: Experiment, weights: str | None, seed: int | None
) -> tuple[str | None, str | None]:
    """The name of the run, or else the path of the checkpoint, that ``weights`` means."""
    if weights in experiment.stages:
        return _stage_run(experiment.stages[weights], seed), None
    return None, weights


def _stage_run(stage: Stage, seed: int | None) -> str:
    name = f"pretraining/{_part(stage.name)}"
    return f"{name}/seed{seed}" if stage.per_seed else name


def _part(text: str) -> str:
    """``text`` as a part of a path that needs no quotes in a shell."""
    return re.sub(r"[^\w.=+-]+", "-", text).lstrip(".") or "-"


def _checked_config(where: str, config: str, options: Options) -> CfgNode:
    checked = {key: value for key, value in options.items() if key not in _SEEDS}
    try:
        return _load(config, tuple(words_of(checked)))
    except UserError as error:
        raise UserError(f"{where}: {one_line(error)}") from error


@cache
def _load(config: str, overrides: tuple[str, ...]) -> CfgNode:
    return load_config(config, overrides)


def words_of(options: Options) -> list[str]:
    """KEY, VALUE, KEY, VALUE, ... as ``train_net.py`` takes them."""
    return [word for key, value in options.items() for word in (key, _word(value))]


def _word(value: Any) -> str:
    """The text that a config reads as ``value``; lists of texts have no single quotes."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


@cache
def keys_of_file(config: str) -> dict[str, Any]:
    """All keys that a config file and its bases set, such as ``SOLVER.MAX_ITER``."""
    return dict(flatten(read_yaml_with_bases(config)))
