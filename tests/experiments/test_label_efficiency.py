"""Runs start when they can, go on where they were stopped, and end in a report.

A stand-in does the runs; test_real_runs.py has real ones.
"""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ddep.errors import UserError
from ddep.experiments.experiment import Experiment
from ddep.experiments.label_efficiency import run_experiment
from tests.experiments.small_experiment import small_experiment

pytestmark = pytest.mark.usefixtures("stand_in_log")
SEARCH = {"seeds": [9], "labels": [3], "options": {"SOLVER.BASE_LR": [0.001, 0.01, 0.1]}}


def events(log: Path, kind: str = "start") -> list[str]:
    """The folders below ``out`` of the runs that started or ended, in order."""
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
    return [folder.split("/out/")[1] for event, folder in lines if event == kind]


def rows(experiment: Experiment) -> list[dict[str, str]]:
    with open(experiment.output / "results.csv") as file:
        return list(csv.DictReader(file))


def test_all_runs_are_done_and_reported(
    tmp_path: Path, stand_in_log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = small_experiment(tmp_path)
    report = run_experiment(experiment, jobs=3).read_text()
    started = events(stand_in_log)
    assert len(started) == len(set(started)) == 9
    assert started[0] == "pretraining/denoising"  # others wait for it
    found = {(row["labels"], row["start"], row["seed"]): row for row in rows(experiment)}
    assert len(found) == 8
    assert found["3", "random", "1"]["sem_seg/mIoU"] == "51.0"
    assert found["3", "denoised decoder", "1"]["sem_seg/mIoU"] == "56.0"
    assert found["3", "random", "0"]["images"] == "3"
    assert found["all", "random", "0"]["images"] == "7"
    assert "| 3 " in report
    assert "| +5.00 (+5.00 to +5.00) | 2 of 2" in report
    assert "| gain " in report
    assert (experiment.output / "curves.png").stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "done comparison/all/denoised-decoder/seed1, sem_seg/mIoU 56.00" in printed
    assert "9 of 9 runs done; ETA 0:00" in printed


def test_every_command_is_written_down(tmp_path: Path) -> None:
    experiment = small_experiment(tmp_path)
    run_experiment(experiment)
    lines = (experiment.output / "commands.sh").read_text().splitlines()[2:]
    assert len(lines) == 9
    root = experiment.output / "datasets"
    start = f"DETECTRON2_DATASETS={root} OMP_NUM_THREADS=1 python train_net.py --config-file "
    assert all(line.startswith(start) for line in lines)


def test_weights_come_before_what_starts_from_them(tmp_path: Path, stand_in_log: Path) -> None:
    run_experiment(small_experiment(tmp_path), jobs=4)
    lines = stand_in_log.read_text().splitlines()
    end = next(i for i, line in enumerate(lines) if line.startswith("end") and "/pre" in line)
    first = next(i for i, line in enumerate(lines) if "denoised-decoder" in line)
    assert end < first


def test_each_start_takes_its_own_best_settings(tmp_path: Path) -> None:
    experiment = small_experiment(tmp_path, search=SEARCH)
    report = run_experiment(experiment, jobs=2).read_text()
    chosen = {row["start"]: row["settings"] for row in rows(experiment)}
    assert chosen == {
        "random": '{"SOLVER.BASE_LR": 0.001}',
        "denoised decoder": '{"SOLVER.BASE_LR": 0.01}',
    }
    assert "| 3        | random           | 0.001 *" in report
    assert "| 3        | denoised decoder | 0.01 " in report
    commands = (experiment.output / "commands.sh").read_text()
    assert commands.count("SOLVER.BASE_LR 0.01 ") == 2 + 4  # trials of both, one start's runs


def test_the_best_settings_may_be_those_of_the_smallest_metric(tmp_path: Path) -> None:
    experiment = small_experiment(tmp_path, search=SEARCH, better="smaller")
    run_experiment(experiment)
    assert {row["settings"] for row in rows(experiment)} == {'{"SOLVER.BASE_LR": 0.1}'}


def test_finished_runs_stay(tmp_path: Path, stand_in_log: Path) -> None:
    experiment = small_experiment(tmp_path, search=SEARCH)
    run_experiment(experiment)
    first = rows(experiment)
    stand_in_log.write_text("")
    run_experiment(small_experiment(tmp_path, search=SEARCH, seeds=[0, 1, 2]))
    assert sorted(events(stand_in_log)) == [
        f"comparison/{labels}/{start}/seed2"
        for labels in ("3", "all")
        for start in ("denoised-decoder", "random")
    ]
    assert [row for row in rows(experiment) if row["seed"] != "2"] == first


def test_a_failed_run_is_named_and_the_rest_goes_on(
    tmp_path: Path,
    stand_in_log: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STAND_IN_FAILS", "comparison/3/random/seed1")
    experiment = small_experiment(tmp_path)
    with pytest.raises(UserError, match=r"1 run failed, comparison/3/random/seed1 first; see .*re"):
        run_experiment(experiment, jobs=2)
    line = "failed comparison/3/random/seed1: error: the loss is infinite (status 1, see "
    assert line in capsys.readouterr().out
    report = (experiment.output / "report.md").read_text()
    assert "**8 of 9 runs are done.**" in report
    assert "| `comparison/3/random/seed1` | failed | error: the loss is infinite" in report
    assert "one seed: no interval" in report
    assert len(rows(experiment)) == 7
    # The same command tries it again, and nothing else.
    monkeypatch.delenv("STAND_IN_FAILS")
    stand_in_log.write_text("")
    run_experiment(experiment)
    assert events(stand_in_log) == ["comparison/3/random/seed1 resumed"]
    assert len(rows(experiment)) == 8


def test_without_its_weights_a_run_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_FAILS", "pretraining")
    experiment = small_experiment(tmp_path)
    with pytest.raises(UserError, match="5 runs failed, pretraining/denoising first"):
        run_experiment(experiment)
    report = (experiment.output / "report.md").read_text()
    skipped = "| `comparison/3/denoised-decoder/seed0`   | skipped | pretraining/denoising, whose"
    assert f"{skipped} weights it needs, failed" in report
    assert {row["start"] for row in rows(experiment)} == {"random"}


def test_settings_whose_trial_failed_are_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_FAILS", "random/SOLVER.BASE_LR=0.001")
    experiment = small_experiment(tmp_path, search=SEARCH)
    with pytest.raises(UserError, match="1 run failed"):
        run_experiment(experiment)
    chosen = {row["settings"] for row in rows(experiment) if row["start"] == "random"}
    assert chosen == {'{"SOLVER.BASE_LR": 0.01}'}


def test_changed_settings_are_refused_or_run_again(tmp_path: Path, stand_in_log: Path) -> None:
    run_experiment(small_experiment(tmp_path))
    stand_in_log.write_text("")
    denoising = small_experiment(tmp_path).stages["denoising"].config
    stages = {"denoising": {"config": denoising, "options": {"SOLVER.MAX_ITER": 7}}}
    changed = small_experiment(tmp_path, pretraining=stages)
    message = (
        r"pretraining/denoising and 4 more, where SOLVER.MAX_ITER was 6 and is 7 now, "
        r"DATASETS.TRAIN was \['images:shapes/unlabelled'\] and is \['images:nowhere'\] now; choose"
    )
    with pytest.raises(UserError, match=message):
        run_experiment(changed)
    assert events(stand_in_log) == []
    stages["denoising"]["images"] = "shapes/unlabelled"
    run_experiment(small_experiment(tmp_path, pretraining=stages), rerun_changed=True)
    # The stage and what starts from it; not the random start's.
    assert len(events(stand_in_log)) == 5
    assert not any("random" in name for name in events(stand_in_log))
    # A config that changed counts as well.
    experiment = small_experiment(tmp_path, pretraining=stages)
    with open(experiment.fine_tuning.config, "a") as file:
        file.write("\nSOLVER: {MAX_ITER: 9}\n")
    with pytest.raises(UserError, match="and 7 more, where SOLVER.MAX_ITER was 6 and is 9 now"):
        run_experiment(experiment)


def test_generated_data_change_with_the_file(tmp_path: Path) -> None:
    experiment = small_experiment(tmp_path)
    run_experiment(experiment)
    images = experiment.output / "datasets" / "shapes" / "unlabelled"
    made = {path.name: path.stat().st_mtime_ns for path in images.iterdir()}
    run_experiment(experiment)
    assert {path.name: path.stat().st_mtime_ns for path in images.iterdir()} == made
    more = {"shapes": {"train": 7, "val": 2, "unlabelled": 4, "size": 48}}
    with pytest.raises(UserError, match="data was .*'unlabelled': 3.* and is .*'unlabelled': 4"):
        run_experiment(small_experiment(tmp_path, data=more))
    run_experiment(small_experiment(tmp_path, data=more), rerun_changed=True)
    assert len(list(images.iterdir())) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "shapes/val"}, "trains on images:shapes/val, which has 2 of the 2 test images"),
        (
            {"options": {"DATASETS.TRAIN": ["shapes_panoptic_val"]}},
            "trains on shapes_panoptic_val, which has 2 of the 2 test images",
        ),
        ({"images": "nowhere"}, "DATASETS.TRAIN: data set images:nowhere: there is no such fol"),
    ],
)
def test_training_on_test_images_is_refused(
    tmp_path: Path, stand_in_log: Path, changes: dict[str, Any], message: str
) -> None:
    config = small_experiment(tmp_path).stages["denoising"].config
    experiment = small_experiment(
        tmp_path, pretraining={"denoising": {"config": config, **changes}}
    )
    with pytest.raises(UserError, match=rf"pretraining/denoising.* {message}"):
        run_experiment(experiment)
    assert events(stand_in_log) == []


def test_a_result_without_the_metric_is_a_failure(tmp_path: Path) -> None:
    run_experiment(small_experiment(tmp_path))
    experiment = small_experiment(tmp_path, metric="panoptic_seg/PQ")  # finished runs lack it
    with pytest.raises(UserError, match="8 runs failed"):
        run_experiment(experiment)
    report = (experiment.output / "report.md").read_text()
    assert "it has no finite result panoptic_seg/PQ, but sem_seg/mIoU" in report
    assert "there are no results" in report


def test_gpus_are_dealt_out_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = small_experiment(tmp_path)
    run_experiment(experiment, jobs=2, gpus=["4", "7"])
    assert {row["sem_seg/GPUs"] for row in rows(experiment)} == {"4", "7"}
    assert "GPU h" in (experiment.output / "report.md").read_text()
    config = experiment.fine_tuning.config
    wants_three = small_experiment(tmp_path, fine_tuning={"config": config, "num_gpus": 3})
    with pytest.raises(UserError, match="num_gpus is 3, but there are 2 GPUs"):
        run_experiment(wants_three, gpus=["4", "7"], rerun_changed=True)


def test_weights_that_nothing_needs_are_removed(tmp_path: Path) -> None:
    experiment = small_experiment(tmp_path, keep_weights=False, search=SEARCH)
    run_experiment(experiment)
    kept = experiment.output.rglob("*.pth")
    assert {str(path.parent.relative_to(experiment.output)) for path in kept} == {
        "pretraining/denoising",
        "comparison/3/random/seed0",
        "comparison/3/denoised-decoder/seed0",
    }


def test_trials_have_a_file_of_their_own(tmp_path: Path) -> None:
    experiment = small_experiment(tmp_path, search=SEARCH)
    run_experiment(experiment)
    with open(experiment.output / "search.csv") as file:
        trials = list(csv.DictReader(file))
    assert [row["settings"] for row in trials] == [
        f'{{"SOLVER.BASE_LR": {rate}}}' for rate in (0.001, 0.01, 0.1) * 2
    ]
    assert {(row["labels"], row["seed"], row["images"]) for row in trials} == {("3", "9", "3")}


def test_a_report_on_what_is_done(
    tmp_path: Path, stand_in_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small_experiment(tmp_path, search=SEARCH)
    with pytest.raises(UserError, match="no run has ended yet; nothing to report"):
        run_experiment(experiment, report_only=True)
    monkeypatch.setenv("STAND_IN_FAILS", "BASE_LR=0.001 all/random")
    with pytest.raises(UserError, match="4 runs failed"):
        run_experiment(experiment)
    stand_in_log.write_text("")
    found = rows(experiment)
    report = run_experiment(experiment, report_only=True).read_text()
    assert events(stand_in_log) == []
    assert rows(experiment) == found
    assert "**11 of 15 runs are done.**" in report


def test_a_comparison_with_data_in_other_looks(tmp_path: Path) -> None:
    common = small_experiment(tmp_path).fine_tuning.config
    own = tmp_path / "oracle.yaml"
    own.write_text(f"_BASE_: {common}\nDATASETS: {{TRAIN: [shapes_fog_panoptic_train]}}\n")
    experiment = small_experiment(
        tmp_path,
        data={"shapes": {"train": 3, "val": 2, "unlabelled": 1, "size": 48}, "shifts": ["fog"]},
        labels=["all"],
        starts={"random": {}, "oracle": {"config": str(own)}},
        pretraining=None,
    )
    report = run_experiment(experiment).read_text()
    shapes = experiment.output / "datasets" / "shapes"
    assert len(list((shapes / "train").iterdir())) == 3
    assert len(list((shapes / "fog" / "train").iterdir())) == 3
    assert "| all (3)           | random  | 50.50 (44.15 to 56.85) | 50.00, 51.00 |" in report
    assert "unlabelled 1, size 48); the same with the look of fog." in report
    assert f"oracle*: random numbers; `{own}`, on `shapes_fog_panoptic_train`, tested on" in report
    assert "Fine-tuning of the other starts: " in report
    assert "- Starts have settings of their own, in their configs" in report


def test_pseudo_labels_come_between_two_trainings(tmp_path: Path, stand_in_log: Path) -> None:
    config = small_experiment(tmp_path).fine_tuning.config
    stages = {
        "source": {"config": config, "per_seed": True},
        "labels": {
            "config": config,
            "weights": "source",
            "pseudo_labels_of": ["shapes_panoptic_train", "images:x"],
            "per_seed": True,
        },
    }
    starts = {
        "source only": {"weights": "source"},
        "taught": {"weights": "source", "pseudo_labels": "labels"},
    }
    changes = {"pretraining": stages, "starts": starts, "baseline": "source only"}
    experiment = small_experiment(tmp_path, **changes, labels=["all"])
    report = run_experiment(experiment, jobs=2).read_text()
    ended = events(stand_in_log, "end")
    for seed in (0, 1):
        names = [
            f"pretraining/source/seed{seed}",
            f"pretraining/labels/seed{seed}/pseudo_labels",
            f"comparison/all/taught/seed{seed}",
        ]
        assert sorted(names, key=ended.index) == names
    out = experiment.output
    commands = (out / "commands.sh").read_text()
    assert (
        f"python tools/pseudo-labels.py --config-file {config} --dataset shapes_panoptic_train "
        f"images:x --output {out}/pretraining/labels/seed1/pseudo_labels SEED 1 MODEL.WEIGHTS "
        f"{out}/pretraining/source/seed1/model_final.pth\n" in commands
    )
    assert (
        f"MODEL.ADAPTATION.PSEUDO_LABELS {out}/pretraining/labels/seed1/pseudo_labels" in commands
    )
    assert "Pseudo-labels *labels*: of `shapes_panoptic_train`, `images:x`, from `source`" in report
    assert "Start *taught*: weights of `source`, pseudo-labels of `labels`." in report
    stand_in_log.write_text("")
    run_experiment(experiment)
    assert events(stand_in_log) == []  # all are done
    stages["source"]["options"] = {"SOLVER.BASE_LR": 0.5}
    with pytest.raises(
        UserError, match="MODEL.ADAPTATION.PSEUDO_LABELS was|MODEL.WEIGHTS was|BASE"
    ):
        run_experiment(small_experiment(tmp_path, **changes, labels=["all"]))


def test_what_needs_pseudo_labels_is_skipped_without_them(
    tmp_path: Path, stand_in_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_experiment(tmp_path).fine_tuning.config
    labels = {"config": config, "pseudo_labels_of": ["shapes_panoptic_train"]}
    experiment = small_experiment(
        tmp_path,
        pretraining={"labels": labels},
        starts={"random": {}, "taught": {"pseudo_labels": "labels"}},
        labels=["all"],
    )
    monkeypatch.setenv("STAND_IN_FAILS", "pretraining/labels")
    with pytest.raises(UserError, match="3 runs failed, pretraining/labels first"):
        run_experiment(experiment)
    report = (experiment.output / "report.md").read_text()
    assert "pretraining/labels, whose pseudo-labels it needs, failed" in report


def test_impossible_data_are_explained(tmp_path: Path) -> None:
    experiment = small_experiment(tmp_path, data={"shapes": {"size": 3}})
    with pytest.raises(UserError, match=r"small.yaml: data.shapes: --size is 3; expected at least"):
        run_experiment(experiment)


def test_jobs_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--jobs is 0; expected at least 1"):
        run_experiment(small_experiment(tmp_path), jobs=0)


PROGRAM = """
import sys
from pathlib import Path
from ddep.endings import errors_as_lines
from ddep.experiments import scheduler
from ddep.experiments.experiment_file import read_experiment
from ddep.experiments.label_efficiency import run_experiment
scheduler._INTERPRETER = (sys.executable, sys.argv[2])
with errors_as_lines():
    run_experiment(read_experiment(sys.argv[1]), jobs=2)
"""


def start_program(experiment: Experiment) -> subprocess.Popen[str]:
    """Run the experiment in a process of its own."""
    stand_in = Path(__file__).parent / "stand_in.py"
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, experiment.file, str(stand_in)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(*paths: Path) -> None:
    for _ in range(600):
        if all(path.exists() for path in paths):
            return
        time.sleep(0.1)
    raise AssertionError(f"{paths} did not appear")


def is_running(folder: Path) -> bool:
    """Whether a stand-in works in ``folder``."""
    found = subprocess.run(["pgrep", "-f", f"stand_in.py.*{folder}"], capture_output=True)
    return found.returncode == 0


@pytest.mark.slow
def test_a_signal_lets_runs_save_and_the_same_command_goes_on(
    tmp_path: Path, stand_in_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small_experiment(tmp_path)
    monkeypatch.setenv("STAND_IN_WAITS", "all/random/seed0 all/random/seed1")
    folders = [experiment.output / f"comparison/all/random/seed{seed}" for seed in (0, 1)]
    program = start_program(experiment)
    wait_for(*(folder / "waiting" for folder in folders))
    with pytest.raises(UserError, match=r"another process works on .*out; wait for its end"):
        run_experiment(experiment)
    program.send_signal(signal.SIGTERM)
    printed, _ = program.communicate(timeout=60)
    assert program.returncode == 143, printed
    waiting = ", ".join(f"comparison/all/random/seed{seed}" for seed in (0, 1))
    assert f"SIGTERM: a second signal kills; waiting until they have saved: {waiting}" in printed
    assert "stopped by SIGTERM, 5 of 9 runs are done; the same command goes on" in printed
    assert all((folder / "saved").exists() for folder in folders)
    monkeypatch.delenv("STAND_IN_WAITS")
    stand_in_log.write_text("")
    run_experiment(experiment)
    assert events(stand_in_log)[:2] == [f"comparison/all/random/seed{i} resumed" for i in (0, 1)]


@pytest.mark.slow
def test_killed_with_its_runs_it_goes_on(
    tmp_path: Path, stand_in_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small_experiment(tmp_path)
    monkeypatch.setenv("STAND_IN_WAITS", "pretraining")
    waiting = experiment.output / "pretraining/denoising"
    program = start_program(experiment)
    # Runs that do not need its weights do not wait for it.
    wait_for(waiting / "waiting", experiment.output / "comparison/all/random/seed1/inference")
    assert not any("denoised-decoder" in name for name in events(stand_in_log))
    program.kill()
    program.communicate()
    for _ in range(100):
        if not is_running(waiting):
            break
        time.sleep(0.1)
    assert not is_running(waiting)  # no run outlives the program
    done = set(events(stand_in_log, "end"))
    monkeypatch.delenv("STAND_IN_WAITS")
    stand_in_log.write_text("")
    run_experiment(experiment)
    repeated = {name.removesuffix(" resumed") for name in events(stand_in_log)} & done
    # At most the one that had ended, but whose record was not written yet.
    assert len(repeated) <= 1
    assert len(rows(experiment)) == 8
