"""What an experiment is: pretrainings, starts, label counts and seeds that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Options = Mapping[str, Any]  # config key -> value


@dataclass(frozen=True)
class Stage:
    """A pretraining, or the pseudo-labels of a model: one run for all seeds, or one for each.

    Attributes:
        name: in the file.
        config: path of a config.
        options: config keys on top of it.
        weights: the stage that it starts from, or a checkpoint; None leaves that to the config.
        images: folder of images to train on; None leaves that to the config.
        per_seed: whether each seed has its own run.
        num_gpus: processes of the run, one for each GPU; on the CPU, as many processes.
        pseudo_labels_of: data sets; if there are any, nothing is trained: the model's pseudo-labels
            of them are written.
    """

    name: str
    config: str
    options: Options
    weights: str | None = None
    images: str | None = None
    per_seed: bool = False
    num_gpus: int = 1
    pseudo_labels_of: Sequence[str] = ()


@dataclass(frozen=True)
class FineTuning:
    """What all starts have in common; attributes as in :class:`Stage`."""

    config: str
    options: Options
    num_gpus: int = 1


@dataclass(frozen=True)
class Start:
    """What one line of the comparison starts from, and how it differs from the others.

    Attributes:
        name: in the file.
        weights: a stage, a checkpoint, or None for random numbers.
        options: config keys on top of those of fine-tuning.
        config: path of a config in place of fine-tuning's; None: fine-tuning's.
        pseudo_labels: a stage that writes those that it trains on.
    """

    name: str
    weights: str | None
    options: Options
    config: str | None = None
    pseudo_labels: str | None = None


@dataclass(frozen=True)
class LabelCount:
    """How many labels fine-tuning may use.

    Attributes:
        text: as in the file: ``5``, ``1/16`` or ``all``.
        options: the config key that says so.
    """

    text: str
    options: Options


@dataclass(frozen=True)
class Search:
    """A grid of settings that each start chooses from.

    Attributes:
        seeds: those of the trials, none of which the comparison uses.
        labels: the label counts at which settings are chosen.
        grid: config key -> values.
    """

    seeds: Sequence[int]
    labels: Sequence[LabelCount]
    grid: Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Experiment:
    """Everything that an experiment file says.

    Attributes:
        file: its path.
        title: of the report.
        output: folder for everything that is made.
        shapes: arguments of ``generate_shapes``; None: they are not generated.
        moving_shapes: arguments of ``generate_moving_shapes``, or None. If nothing is generated,
            data sets are those in $DETECTRON2_DATASETS.
        shifts: looks in which the scenes are generated as well, with the same arguments.
        metric: path of a number in ``inference/results.json``, such as ``sem_seg/mIoU``.
        smaller_is_better: whether a smaller number is better.
        threads: OMP_NUM_THREADS of each run.
        keep_weights: whether all fine-tunings keep their checkpoints; else only those that the
            report draws.
        stages: by name, each after the one that it starts from.
        baseline: the start that others are compared with.
    """

    file: str
    title: str
    output: Path
    shapes: Mapping[str, int] | None
    moving_shapes: Mapping[str, int] | None
    shifts: Sequence[str]
    metric: str
    smaller_is_better: bool
    threads: int
    keep_weights: bool
    stages: Mapping[str, Stage]
    fine_tuning: FineTuning
    starts: Mapping[str, Start]
    baseline: str
    labels: Sequence[LabelCount]
    seeds: Sequence[int]
    search: Search | None

    @property
    def generated(self) -> dict[str, Any] | None:
        """What the data sets are generated from, as JSON can write it; None if they are not."""
        if self.shapes is None and self.moving_shapes is None:
            return None
        shifts = {"shifts": list(self.shifts)} if self.shifts else {}
        videos = {} if self.moving_shapes is None else {"moving_shapes": dict(self.moving_shapes)}
        return {**(self.shapes or {}), **shifts, **videos}

    @property
    def metric_name(self) -> str:
        """The last part of the metric's path, such as ``mIoU``."""
        return self.metric.rsplit("/", 1)[-1]
