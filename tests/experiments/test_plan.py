"""Which runs an experiment has, and what their commands say."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path
from typing import Any

import pytest

from ddep.errors import UserError
from ddep.experiments.command import command_of, shown_command
from ddep.experiments.experiment_file import read_experiment
from ddep.experiments.plan import plan_runs, words_of
from ddep.tasks import load_config
from tests.experiments.small_experiment import small_experiment


def test_runs_of_a_comparison(tmp_path: Path) -> None:
    experiment = small_experiment(tmp_path)
    runs = plan_runs(experiment)
    assert list(runs) == [
        "pretraining/denoising",
        *(
            f"comparison/{labels}/{start}/seed{seed}"
            for labels in ("3", "all")
            for start in ("random", "denoised-decoder")
            for seed in (0, 1)
        ),
    ]
    run = runs["comparison/3/denoised-decoder/seed1"]
    assert run.needs == {"pretraining/denoising"}
    assert not runs["comparison/3/random/seed1"].needs
    words = command_of(experiment, run, {"SOLVER.BASE_LR": 0.5})
    out = tmp_path / "out"
    assert words[:2] == ["train_net.py", "--config-file"]
    assert dict(zip(words[3::2], words[4::2], strict=True)) == {
        "OUTPUT_DIR": str(out / run.name),
        "DATASETS.LABEL_COUNT": "3",
        "SEED": "1",
        "DATASETS.LABEL_SEED": "1",
        "SOLVER.BASE_LR": "0.5",
        "MODEL.WEIGHTS": str(out / "pretraining/denoising/model_final.pth"),
    }
    assert "MODEL.WEIGHTS ''" in shown_command(experiment, runs["comparison/3/random/seed1"], {})


def test_equal_seeds_have_equal_labels_and_lengths_for_all_starts(tmp_path: Path) -> None:
    runs = plan_runs(small_experiment(tmp_path))
    ours, others = (
        dict(runs[f"comparison/3/{start}/seed1"].options)
        for start in ("random", "denoised-decoder")
    )
    assert ours.pop("MODEL.WEIGHTS") == ""
    assert ours == others


def test_a_start_may_have_a_config_of_its_own(tmp_path: Path) -> None:
    common = small_experiment(tmp_path).fine_tuning.config
    own = tmp_path / "own.yaml"
    own.write_text(f"_BASE_: {common}\nSOLVER: {{MAX_ITER: 9}}\n")
    starts = {"random": {}, "x": {"config": str(own), "weights": "denoising"}}
    runs = plan_runs(small_experiment(tmp_path, starts=starts))
    ours, others = runs["comparison/3/x/seed0"], runs["comparison/3/random/seed0"]
    assert (ours.config, ours.iterations) == (str(own), 9)
    assert (others.config, others.iterations) == (common, 6)


def test_a_search_gives_each_start_the_same_trials(tmp_path: Path) -> None:
    search = {
        "seeds": [8, 9],
        "labels": ["all"],
        "options": {"SOLVER.BASE_LR": [0.1, 0.2], "SOLVER.MAX_ITER": [10, 30]},
    }
    runs = plan_runs(small_experiment(tmp_path, search=search))
    trials = [name for name in runs if name.startswith("search/")]
    assert len(trials) == 2 * 2 * 4  # starts, seeds, settings
    name = "search/all/random/SOLVER.BASE_LR=0.1_SOLVER.MAX_ITER=30/seed9"
    assert runs[name].options["DATASETS.LABEL_SEED"] == 9
    for labels in ("3", "all"):  # 3 takes the settings that were found with all
        run = runs[f"comparison/{labels}/random/seed0"]
        assert run.needs == {name for name in trials if "/random/" in name}
        assert run.iterations == 20  # the mean of the trials'


def test_pretraining_with_each_seed(tmp_path: Path) -> None:
    config = small_experiment(tmp_path).stages["denoising"].config
    stages = {
        "one": {"config": config},
        "each": {"config": config, "weights": "one", "per_seed": True},
    }
    runs = plan_runs(
        small_experiment(
            tmp_path,
            pretraining=stages,
            starts={"random": {}, "x": {"weights": "each"}},
            search={"seeds": [9], "options": {"SOLVER.BASE_LR": [0.1]}},
        )
    )
    assert runs["pretraining/each/seed9"].weights == "pretraining/one"
    assert runs["pretraining/each/seed1"].options["SEED"] == 1
    assert runs["pretraining/one"].options["SEED"] == 0
    assert runs["comparison/3/x/seed1"].weights == "pretraining/each/seed1"


VALUES: dict[str, Any] = {
    "DATASETS.TRAIN": ["images:a b", "it's", 'say "x"', "grün"],
    "INPUT.CROP.SIZE": [64, 96],
    "INPUT.CROP.ENABLED": True,
    "SOLVER.BASE_LR": 1e-5,
    "WANDB.NAME": "a 'name' with = and $",
    "MODEL.DDEP.SIGMA": [0.3, 2.0],
    "DATASETS.CUSTOM": [{"name": "x", "kind": "images", "images": "/a"}],
}


def test_values_reach_the_config_unchanged(tmp_path: Path) -> None:
    config = small_experiment(tmp_path).fine_tuning.config
    words = shlex.split(shlex.join(words_of(VALUES)))
    cfg = load_config(config, words)
    for key, value in VALUES.items():
        found = cfg
        for part in key.split("."):
            found = found[part]
        assert (list(found) if isinstance(value, list) else found) == value, key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"starts": {"a b": {}, "a-b": {}}, "baseline": "a b"}, "two runs would have the folder"),
        (
            {"starts": {"random": {}, "x": {"options": {"SOLVER.BASE_LRR": 1}}}},
            r"starts\.x: command line: unknown config key SOLVER\.BASE_LRR; did you mean SOLVER.BA",
        ),
        ({"fine_tuning": {"config": "no.yaml"}}, r"starts\.random: config file no.yaml does not"),
        (
            {"pretraining": {"denoising": {"config": "no.yaml"}}},
            r"pretraining\.denoising: config file no.yaml does not exist",
        ),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"small\.yaml: {message}"):
        plan_runs(small_experiment(tmp_path, **changes))


def test_the_fine_tuning_config_does_not_choose_labels(tmp_path: Path) -> None:
    experiment = small_experiment(tmp_path)
    with open(experiment.fine_tuning.config, "a") as file:
        file.write("\nDATASETS: {LABEL_COUNT: 3, TRAIN: [shapes_panoptic_train]}\n")
    with pytest.raises(UserError, match=r"sets DATASETS.LABEL_\*; expected a config without"):
        plan_runs(experiment)


@pytest.mark.parametrize("path", sorted(Path("experiments").glob("*.yaml")), ids=str)
def test_the_experiments_of_the_project_can_run(path: Path) -> None:
    assert plan_runs(read_experiment(str(path)))


def test_the_example_in_the_documents_can_run(tmp_path: Path) -> None:
    page = Path("docs/experiments.md").read_text()
    block = page.split("## The file\n\n")[1].split("\n\n")[0]
    path = tmp_path / "example.yaml"
    path.write_text(textwrap.dedent(block))
    runs = plan_runs(read_experiment(str(path)))
    assert len(runs) == 2 + 3 * 3 * 4 * 2 + 3 * 3 * 5  # stages, trials, comparison
