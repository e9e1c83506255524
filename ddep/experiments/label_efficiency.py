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
from ddep.experiments.lock import locked
from ddep.experiments.outcomes import Outcomes, refuse_changed
from ddep.experiments.plan import plan_runs
from ddep.experiments.report import CSV, CURVES, REPORT, SEARCH_CSV, summary, write_report
from ddep.experiments.results import collect_results, search_rows, write_csv
from ddep.experiments.scheduler import Scheduler
from ddep.experiments.train_test_overlap import check_test_images


def run_experiment(
    experiment: Experiment,
    *,
    jobs: int = 1,
    gpus: Sequence[str] | None = None,
    rerun_changed: bool = False,
    report_only: bool = False,
) -> Path:
    """Do the runs that are left, then write results, curves and report.

    Args:
        experiment: from :func:`ddep.experiments.experiment_file.read_experiment`.
        jobs: runs at a time.
        gpus: as CUDA_VISIBLE_DEVICES names them; None: all that are visible.
        rerun_changed: whether runs with other settings than the experiment's are removed and done
            again.
        report_only: run nothing; report on the runs that are done.

    Returns:
        The path of the report.

    Raises:
        UserError: a wrong config or option, runs with other settings; at the end, runs that failed.
        Stopped: a signal stopped the runs; the same call continues.
    """
    if jobs < 1:
        raise UserError(f"--jobs is {jobs}; expected at least 1")
    outcomes = Outcomes(experiment, plan_runs(experiment))
    changed = outcomes.load(only_done=report_only)
    if report_only:
        if not outcomes.done:
            raise UserError(f"{experiment.output}: no run has ended yet; nothing to report")
        with data_sets_of(experiment):
            return _report(outcomes)
    if not rerun_changed:
        refuse_changed(experiment.output, changed)
    all_gpus = Gpus(visible_gpus() if gpus is None else gpus)
    scheduler = Scheduler(outcomes, jobs, all_gpus, rerun_changed=rerun_changed)
    with locked(experiment.output) as lock, data_sets_of(experiment):
        generate_data(experiment)
        check_test_images(experiment, outcomes.runs)
        _write_commands(outcomes)
        try:
            scheduler.run(lock)
        finally:
            _write_commands(outcomes)
        report = _report(outcomes)
    failed = [*outcomes.failed, *outcomes.skipped]
    if failed:
        runs = "run" if len(failed) == 1 else "runs"
        raise UserError(f"{len(failed)} {runs} failed, {failed[0]} first; see {report}")
    return report


def _write_commands(outcomes: Outcomes) -> None:
    """Write the commands that are known: those of runs whose settings are chosen."""
    known = [run for run in outcomes.runs.values() if outcomes.is_settled(run)]
    write_commands(outcomes.experiment, [(run, outcomes.chosen(run)) for run in known])


def _report(outcomes: Outcomes) -> Path:
    experiment, output = outcomes.experiment, outcomes.experiment.output
    results = collect_results(outcomes)
    write_csv(experiment, results.rows, output / CSV)
    if experiment.search:
        write_csv(experiment, search_rows(outcomes), output / SEARCH_CSV)
    draw_label_curves(results, output / CURVES)
    write_report(outcomes, results, output / REPORT)
    if results.rows:
        print(f"\n{summary(results)}")
    print(f"\n{output / REPORT}", flush=True)
    return output / REPORT
