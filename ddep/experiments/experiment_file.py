"""Reads an experiment from a YAML file and checks it; docs/experiments.md describes the format."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from ddep.data.datasets.moving_shapes import generate_moving_shapes
from ddep.data.datasets.shape_shifts import SHIFTS
from ddep.data.datasets.shapes import generate_shapes
from ddep.errors import UserError
from ddep.experiments.experiment import (
    Experiment,
    FineTuning,
    LabelCount,
    Search,
    Stage,
    Start,
)
from ddep.experiments.yaml_section import (
    Section,
    boolean,
    list_of,
    natural,
    one_of,
    positive,
    read_yaml,
    text,
)

_KEYS = (
    "title",
    "output",
    "data",
    "metric",
    "better",
    "threads",
    "keep_weights",
    "pretraining",
    "fine_tuning",
    "starts",
    "baseline",
    "labels",
    "seeds",
    "search",
)
_STAGE_KEYS = (
    "config",
    "options",
    "weights",
    "images",
    "per_seed",
    "num_gpus",
    "pseudo_labels_of",
)
# Keys that the experiment sets itself, and what does so.
_SET_FOR_ALL = {"OUTPUT_DIR": "--output or the key output"}
_SET_FOR_CELLS = {
    "SEED": "seeds",
    "MODEL.WEIGHTS": "weights",
    "MODEL.ADAPTATION.PSEUDO_LABELS": "pseudo_labels",
    "DATASETS.LABEL_SEED": "seeds",
    "DATASETS.LABEL_COUNT": "labels",
    "DATASETS.LABEL_FRACTION": "labels",
    "DATASETS.LABEL_LIST": "labels",
}


_SEEDS = "a list of different whole numbers that are not negative"
_LABELS = "a list of different numbers of images, fractions such as 1/16, or all"


def read_experiment(path: str, output: Path | None = None, images: str | None = None) -> Experiment:
    """Read an experiment file.

    Args:
        path: the file.
        output: replaces the file's ``output``.
        images: replaces ``images`` of all pretrainings that have this key.

    Raises:
        UserError: a mistake in the file; the message names file and key.
    """
    top = Section(read_yaml(path), f"{path}:", _KEYS)
    stages = _read_stages(path, top, images)
    starts = _read_starts(top, stages)
    seeds = top.take("seeds", list_of(natural), _SEEDS)
    labels = top.take("labels", list_of(_label_count), _LABELS)
    search = _read_search(top, seeds, labels) if "search" in top.content else None
    _check_grid(path, search, starts)
    shapes, moving_shapes, shifts = _read_data(top)
    return Experiment(
        file=path,
        title=top.take("title", text, "text", Path(path).stem),
        output=output
        or Path(top.take("output", text, "a folder", f"output/experiments/{Path(path).stem}")),
        shapes=shapes,
        moving_shapes=moving_shapes,
        shifts=shifts,
        metric=top.take("metric", _metric, "task/name, such as sem_seg/mIoU"),
        smaller_is_better=top.take(
            "better", one_of(("larger", "smaller")), "larger or smaller", "larger"
        )
        == "smaller",
        threads=top.take("threads", positive, "a number of threads for each run", 1),
        keep_weights=top.take("keep_weights", boolean, "true or false", True),
        stages=stages,
        fine_tuning=_read_fine_tuning(top),
        starts=starts,
        baseline=top.take("baseline", one_of(starts), f"one of the starts: {', '.join(starts)}"),
        labels=labels,
        seeds=seeds,
        search=search,
    )


def _read_data(top: Section) -> tuple[dict[str, int] | None, dict[str, int] | None, list[str]]:
    """Arguments of ``generate_shapes`` and of ``generate_moving_shapes``, and the looks to generate
    besides the usual one. ``shapes`` are not generated if there are moving ones alone."""
    if "data" not in top.content:
        return None, None, []
    data = top.section("data", ("shapes", "shifts", "moving_shapes"))
    looks = f"a list of different looks, some of {', '.join(SHIFTS)}"
    shifts = data.take("shifts", list_of(one_of(SHIFTS)), looks, [])
    moving = None
    if "moving_shapes" in data.content:
        moving = _arguments(data, "moving_shapes", generate_moving_shapes)
    if moving is not None and not shifts and "shapes" not in data.content:
        return None, moving, shifts
    return _arguments(data, "shapes", generate_shapes), moving, shifts


def _arguments(data: Section, key: str, generate: Callable[..., Any]) -> dict[str, int]:
    """What ``data.<key>`` says of the whole numbers that ``generate`` takes."""
    parameters = inspect.signature(generate).parameters
    section = data.section(key, [name for name in parameters if name not in ("target", "shift")])
    return {name: section.take(name, natural, "a whole number") for name in section.content}


def _read_stages(path: str, top: Section, images: str | None) -> dict[str, Stage]:
    section = top.section("pretraining")
    stages = {name: _read_stage(section, name, images) for name in section.content}
    if images and not any(stage.images for stage in stages.values()):
        raise UserError(
            f"--images {images}: no pretraining in {path} has the key images, whose value "
            "it would replace"
        )
    ordered: dict[str, Stage] = {}

    def add(stage: Stage, before: tuple[str, ...]) -> None:
        if stage.name in before:
            circle = " -> ".join([*before[before.index(stage.name) :], stage.name])
            raise UserError(
                f"{section.where(stage.name)}.weights leads back to it ({circle}, each starts from "
                "the next); expected a stage that does not need this one"
            )
        if stage.weights in stages:
            add(stages[stage.weights], (*before, stage.name))
            if stages[stage.weights].per_seed and not stage.per_seed:
                raise UserError(
                    f"{section.where(stage.name)} is one run for all seeds, but its weights, "
                    f"{stage.weights}, differ by seed; expected per_seed: true in both or in none"
                )
        ordered[stage.name] = stage

    for stage in stages.values():
        add(stage, ())
    return ordered


def _read_stage(section: Section, name: str, images: str | None) -> Stage:
    stage = section.section(name, _STAGE_KEYS)
    set_elsewhere = dict(_SET_FOR_ALL)
    if "weights" in stage.content:
        set_elsewhere["MODEL.WEIGHTS"] = "weights"
    if "images" in stage.content:
        set_elsewhere["DATASETS.TRAIN"] = "images"
    if stage.content.get("per_seed"):
        set_elsewhere["SEED"] = "per_seed"
    own = stage.take("images", text, "a folder of images", None)
    return Stage(
        name=name,
        config=stage.take("config", text, "the path of a config"),
        options=_options(stage, set_elsewhere),
        weights=_weights(stage, section.content),
        images=(images or own) if own else None,
        per_seed=stage.take("per_seed", boolean, "true or false", False),
        num_gpus=_num_gpus(stage),
        pseudo_labels_of=stage.take(
            "pseudo_labels_of", list_of(text), "a list of different data sets", []
        ),
    )


def _read_fine_tuning(top: Section) -> FineTuning:
    section = top.section("fine_tuning", ("config", "options", "num_gpus"))
    return FineTuning(
        config=section.take("config", text, "the path of a config"),
        options=_options(section, _SET_FOR_ALL | _SET_FOR_CELLS),
        num_gpus=_num_gpus(section),
    )


def _read_starts(top: Section, stages: Mapping[str, Stage]) -> dict[str, Start]:
    section = top.section("starts")
    if len(section.content) < 2:
        raise UserError(
            f"{top.where('starts')} has {len(section.content)} of them; expected at least two to "
            "compare"
        )
    starts = {}
    for name in section.content:
        start = section.section(name, ("weights", "options", "config", "pseudo_labels"))
        options = _options(start, _SET_FOR_ALL | _SET_FOR_CELLS)
        config = start.take("config", text, "the path of a config", None)
        starts[name] = Start(
            name, _weights(start, stages), options, config, _pseudo_labels(start, stages)
        )
    return starts


def _pseudo_labels(section: Section, stages: Mapping[str, Stage]) -> str | None:
    """A stage that writes pseudo-labels; None without the key."""
    writing = [name for name, stage in stages.items() if stage.pseudo_labels_of]
    expected = "a pretraining with the key pseudo_labels_of"
    return section.take("pseudo_labels", one_of(writing), expected, None)


def _weights(section: Section, stages: Mapping[str, Any]) -> str | None:
    """A stage or the path of a checkpoint; None without the key."""
    names = f"one of {', '.join(stages)}" if stages else "a pretraining (there is none)"
    return section.take(
        "weights",
        lambda value: value if value in stages or (text(value) and Path(value).is_file()) else None,
        f"{names}, or the path of a checkpoint",
        None,
    )


def _read_search(top: Section, seeds: list[int], labels: list[LabelCount]) -> Search:
    section = top.section("search", ("seeds", "labels", "options"))
    own = section.take("seeds", list_of(natural), _SEEDS)
    shared = [str(seed) for seed in own if seed in seeds]
    if shared:
        raise UserError(
            f"{section.where('seeds')} has {', '.join(shared)}, also in the comparison's seeds; "
            "expected other seeds, or chosen settings would be judged by what they were chosen for"
        )
    texts = [label.text for label in labels]
    searched = section.take("labels", list_of(_label_count), _LABELS, labels)
    for label in searched:
        if label.text not in texts:
            raise UserError(
                f"{section.where('labels')} has {label.text}; expected some of the experiment's "
                f"labels: {', '.join(texts)}"
            )
    options = section.section("options")
    _check_not_set_elsewhere(options, _SET_FOR_ALL | _SET_FOR_CELLS)
    if not options.content:
        raise UserError(f"{section.where('options')} is missing; expected config keys and values")
    grid = {key: options.take(key, list_of(lambda v: v), "a list") for key in options.content}
    return Search(own, searched, grid)


def _check_grid(path: str, search: Search | None, starts: Mapping[str, Start]) -> None:
    for start in starts.values():
        for key in start.options:
            if search and key in search.grid:
                raise UserError(
                    f"{path}: starts.{start.name}.options has {key}, which search.options varies; "
                    "expected it in one of the two"
                )


def _options(section: Section, set_elsewhere: Mapping[str, str]) -> dict[str, Any]:
    options = section.section("options")
    _check_not_set_elsewhere(options, set_elsewhere)
    return dict(options.content)


def _check_not_set_elsewhere(options: Section, set_elsewhere: Mapping[str, str]) -> None:
    for key in options.content:
        if key in set_elsewhere:
            raise UserError(f"{options.where(key)} is not yours to set: {set_elsewhere[key]} does")


def _num_gpus(section: Section) -> int:
    return section.take("num_gpus", positive, "a number of GPUs for each run", 1)


def _label_count(value: Any) -> LabelCount | None:
    if value == "all":
        return LabelCount("all", {})
    if positive(value):
        return LabelCount(str(value), {"DATASETS.LABEL_COUNT": value})
    try:
        fraction = Fraction(value) if isinstance(value, (str, float)) else Fraction(0)
    except (ValueError, ZeroDivisionError):
        return None
    if not 0 < fraction < 1:
        return None
    return LabelCount(str(value), {"DATASETS.LABEL_FRACTION": float(fraction)})


def _metric(value: Any) -> str | None:
    return value if text(value) and len(value.split("/")) > 1 and all(value.split("/")) else None
