"""What an experiment file says is read, and mistakes are explained in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ddep.errors import UserError
from ddep.experiments.experiment_file import read_experiment
from tests.experiments.small_experiment import small_experiment, write_experiment


def test_everything_is_read(tmp_path: Path) -> None:
    stages = {
        "b": {"config": "b.yaml", "weights": "a", "options": {"SOLVER.BASE_LR": 0.1}},
        "a": {"config": "a.yaml", "per_seed": False, "num_gpus": 2},
    }
    starts = {
        "x": {"weights": "b", "config": "x.yaml"},
        "y": {"options": {"SOLVER.OPTIMIZER": "SGD"}},
    }
    search = {"seeds": [9], "labels": ["all"], "options": {"SOLVER.BASE_LR": [1, 2]}}
    experiment = small_experiment(
        tmp_path,
        pretraining=stages,
        starts=starts,
        baseline="y",
        labels=[5, "1/16", 0.25, "all"],
        search=search,
        better="smaller",
        threads=2,
        data=None,
    )
    assert list(experiment.stages) == ["a", "b"]  # each after the one that it needs
    assert experiment.stages["a"].num_gpus == 2
    assert experiment.stages["b"].weights == "a"
    assert experiment.starts["y"].options == {"SOLVER.OPTIMIZER": "SGD"}
    assert [start.config for start in experiment.starts.values()] == ["x.yaml", None]
    assert [labels.options for labels in experiment.labels] == [
        {"DATASETS.LABEL_COUNT": 5},
        {"DATASETS.LABEL_FRACTION": 0.0625},
        {"DATASETS.LABEL_FRACTION": 0.25},
        {},
    ]
    assert experiment.search.grid == {"SOLVER.BASE_LR": [1, 2]}
    assert [labels.text for labels in experiment.search.labels] == ["all"]
    assert (experiment.smaller_is_better, experiment.threads) == (True, 2)
    assert experiment.shapes is None
    assert experiment.generated is None
    assert experiment.metric_name == "mIoU"


def test_defaults(tmp_path: Path) -> None:
    experiment = small_experiment(tmp_path, title=None, output=None)
    assert experiment.title == "small"
    assert experiment.output == Path("output/experiments/small")
    assert (experiment.smaller_is_better, experiment.threads, experiment.search) == (False, 1, None)


def test_moving_shapes_are_generated_with_or_without_shapes(tmp_path: Path) -> None:
    moving = {"train": 2, "frames": 3}
    alone = read_experiment(write_experiment(tmp_path, data={"moving_shapes": moving}))
    assert alone.shapes is None
    assert alone.generated == {"moving_shapes": moving}
    data = {"shapes": {"train": 4}, "shifts": ["night"], "moving_shapes": moving}
    both = read_experiment(write_experiment(tmp_path, data=data))
    assert both.generated == {"train": 4, "shifts": ["night"], "moving_shapes": moving}


def test_images_replace_those_of_the_stages_that_name_some(tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    assert read_experiment(path, images="mine").stages["denoising"].images == "mine"
    assert read_experiment(path).stages["denoising"].images == "shapes/unlabelled"
    path = write_experiment(tmp_path, pretraining={}, starts={"x": {}, "random": {}})
    with pytest.raises(UserError, match="--images mine: no pretraining in .* has the key images"):
        read_experiment(path, images="mine")


STAGE = {"config": "a.yaml"}
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"labelz": [1]}, r"has the unknown key labelz; did you mean labels\?"),
    ({"metric": None}, r"metric is missing; expected task/name"),
    ({"metric": "mIoU"}, r"metric is 'mIoU'; expected task/name"),
    ({"labels": [5, 5]}, r"labels is \[5, 5\]; expected a list of different numbers"),
    ({"labels": ["1/0"]}, r"labels is \['1/0'\]; expected a list"),
    ({"labels": [1.5]}, r"labels is \[1.5\]; expected a list"),
    ({"seeds": [True]}, r"seeds is \[True\]; expected a list of different whole numbers"),
    ({"seeds": 3}, r"seeds is 3; expected a list"),
    ({"baseline": "rand"}, r"baseline is 'rand'; expected one of the starts: random, denoised"),
    ({"starts": {"random": {}}}, r"starts has 1 of them; expected at least two"),
    ({"starts": {"x": {"weights": "y"}, "z": {}}}, r"starts.x.weights is 'y'; expected one of den"),
    ({"starts": {"x": 3, "z": {}}}, r"starts.x is 3; expected the keys weights, options"),
    ({"starts": {0: {}, 1: {}}}, r"starts has the key 0; expected text"),
    ({"fine_tuning": {}}, r"fine_tuning.config is missing; expected the path of a config"),
    (
        {"fine_tuning": {"config": "a.yaml", "options": {"SEED": 1}}},
        r"fine_tuning.options.SEED is not yours to set: seeds does",
    ),
    (
        {"pretraining": {"a": {**STAGE, "weights": "b"}, "b": {**STAGE, "weights": "a"}}},
        r"pretraining.a.weights leads back to it \(a -> b -> a",
    ),
    (
        {"pretraining": {"a": {**STAGE, "per_seed": True}, "b": {**STAGE, "weights": "a"}}},
        r"pretraining.b is one run for all seeds, but its weights, a, differ by seed",
    ),
    ({"search": {"seeds": [1], "options": {"A": [1]}}}, r"search.seeds has 1, also in the compari"),
    ({"search": {"seeds": [9]}}, r"search.options is missing; expected config keys and values"),
    ({"search": {"seeds": [9], "options": {"A": 1}}}, r"search.options.A is 1; expected a list"),
    (
        {"search": {"seeds": [9], "labels": [4], "options": {"A": [1]}}},
        r"search.labels has 4; expected some of the experiment's labels: 3, all",
    ),
    (
        {
            "search": {"seeds": [9], "options": {"A": [1]}},
            "starts": {"random": {}, "x": {"options": {"A": 2}}},
        },
        r"starts.x.options has A, which search.options varies",
    ),
    ({"data": {"coco": {}}}, r"data has the unknown key coco; expected shapes"),
    ({"data": {"moving_shapes": {"val": "x"}}}, r"data.moving_shapes.val is 'x'; expected a who"),
    ({"data": {"shapes": {"shift": "night"}}}, r"data.shapes has the unknown key shift"),
    ({"data": {"shifts": ["dusk"]}}, r"data.shifts is \['dusk'\]; expected a list of different lo"),
    ({"data": {"shapes": {"train": "x"}}}, r"data.shapes.train is 'x'; expected a whole number"),
    (
        {"starts": {"x": {"pseudo_labels": "denoising"}, "random": {}}},
        r"starts.x.pseudo_labels is 'denoising'; expected a pretraining with the key pseudo",
    ),
    ({"better": "more"}, r"better is 'more'; expected larger or smaller"),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES, ids=[m for _, m in MISTAKES])
def test_mistakes_are_explained(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    starts = {"starts": {"random": {}, "x": {}}} if "pretraining" in change else {}
    with pytest.raises(UserError, match=rf"small\.yaml: {message}"):
        small_experiment(tmp_path, **starts, **change)


def test_files_that_are_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere.yaml cannot be read: No such file"):
        read_experiment(str(tmp_path / "nowhere.yaml"))
    path = tmp_path / "some.yaml"
    for content, message in [
        ("- 1", r"some.yaml: is \[1\]; expected the keys title"),
        ("a: [", "some.yaml: while parsing"),
        ("seeds: [1]\nseeds: [2]", "some.yaml: line 1: the key seeds occurs twice"),
    ]:
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            read_experiment(str(path))
