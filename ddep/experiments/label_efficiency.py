"""Does a pretraining help? Does an experiment's runs, and reports on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddep.errors import UserError
from ddep.experiments.command import write_commands
from ddep.experiments.devices import Gpus, visible_gpus
from ddep.experiments.experiment import Experiment
from ddep.experiments.generated_data import data_sets_of, generate_data
from ddep.experiments.label_curves import draw_label_curves
from ddep.experiments.outcomes import Outcomes, refuse_changed
from ddep.experiments.plan import plan_runs
from ddep.experiments.report import CSV, CURVES, REPORT, summary, write_report
from ddep.experiments.results import collect_results, write_csv
from ddep.experiments.scheduler import Scheduler
from ddep.experiments.train_test_overlap import check_test_images


def run_experiment(
    experiment: Experiment,
    *,
    jobs: int = 1,
    gpus: Sequence[str] | None = None,
    rerun_changed: bool = False,
) -> Path:
    """Do the runs that are left, then write results, curves and report.

    Args:
        experiment: from :func:`ddep.experiments.experiment_file.read_experiment`.
        jobs: runs at a time.
        gpus: as CUDA_VISIBLE_DEVICES names them; None: all that are visible.
        rerun_changed: whether runs with other settings than the experiment's are removed and done
            again.

    Returns:
        The path of the report.

    Raises:
        UserError: a wrong config or option, runs with other settings; at the end, runs that failed.
        Stopped: a signal stopped the runs; the same call continues.
    """
    if jobs < 1:
        raise UserError(f"--jobs is {jobs}; expected at least 1")
    outcomes = Outcomes(experiment, plan_runs(experiment))
    changed = outcomes.load()
    if not rerun_changed:
        refuse_changed(experiment.output, changed)
    scheduler = Scheduler(
        outcomes,
        jobs,
        Gpus(visible_gpus() if gpus is None else gpus),
        rerun_changed=rerun_changed,
    )
    _make_folder(experiment)
    with data_sets_of(experiment):
        generate_data(experiment)
        check_test_images(experiment, outcomes.runs)
        _write_commands(outcomes)
        try:
            scheduler.run()
        finally:
            _write_commands(outcomes)
        report = _report(outcomes)
    failed = [*outcomes.failed, *outcomes.skipped]
    if failed:
        raise UserError(f"{len(failed)} runs failed, {failed[0]} first; {report} names them all")
    return report


def _make_folder(experiment: Experiment) -> None:
    try:
        experiment.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{experiment.output} cannot be made: {error.strerror}; choose another folder with "
            "--output"
        ) from error


def _write_commands(outcomes: Outcomes) -> None:
    """Write the commands that are known: those of runs whose settings are chosen."""
    known = [run for run in outcomes.runs.values() if outcomes.is_settled(run)]
    write_commands(outcomes.experiment, [(run, outcomes.chosen(run)) for run in known])


def _report(outcomes: Outcomes) -> Path:
    output = outcomes.experiment.output
    results = collect_results(outcomes)
    write_csv(results, output / CSV)
    draw_label_curves(results, output / CURVES)
    write_report(outcomes, results, output / REPORT)
    if results.rows:
        print(f"\n{summary(results)}")
    print(f"\n{output / REPORT}", flush=True)
    return output / REPORT
