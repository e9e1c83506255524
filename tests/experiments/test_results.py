"""Made-up results are compared seed by seed, as SciPy does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ddep.experiments.experiment import Experiment
from ddep.experiments.outcomes import Outcomes
from ddep.experiments.plan import plan_runs
from ddep.experiments.report import summary
from ddep.experiments.results import Results, collect_results
from ddep.experiments.run_record import RunRecord
from tests.experiments.small_experiment import small_experiment

LABELS = (2, 3)
SEEDS = (0, 1, 2, 3, 4)
STARTS = ("base", "other", "third")
Values = Mapping[tuple[int, str, int], float]  # labels, start, seed


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """Three starts, two label counts, five seeds."""
    starts = {name: {} for name in STARTS}
    changes = {"starts": starts, "baseline": "base", "labels": list(LABELS), "seeds": list(SEEDS)}
    experiment = small_experiment(tmp_path, pretraining={}, **changes)
    for name, run in plan_runs(experiment).items():
        folder = experiment.output / name
        folder.mkdir(parents=True)
        lines = ["[set]", *(f"{i}.png" for i in range(int(run.cell.labels)))]
        (folder / "labelled_images.txt").write_text("\n".join(lines))
    return experiment


def results_of(experiment: Experiment, values: Values) -> Results:
    outcomes = Outcomes(experiment, plan_runs(experiment))
    for name, run in outcomes.runs.items():
        key = int(run.cell.labels), run.cell.start, run.cell.seed
        if key in values:
            outcomes.done[name] = RunRecord({}, metrics={experiment.metric: values[key]})
    return collect_results(outcomes)


def draw(numbers: np.random.Generator, gain: float = 0.0) -> dict[tuple[int, str, int], float]:
    """Values that depend on the seed for all starts alike, and on chance."""
    values = {}
    for labels in LABELS:
        shared = dict(zip(SEEDS, numbers.normal(40, 6, len(SEEDS)), strict=True))
        for start in STARTS:
            for seed in SEEDS:
                ahead = gain if start == "third" else 0.0
                values[labels, start, seed] = shared[seed] + numbers.normal(ahead, 1.0)
    return values


@pytest.mark.parametrize("smaller_is_better", [False, True])
def test_comparisons_are_those_of_scipy(experiment: Experiment, smaller_is_better: bool) -> None:
    experiment = replace(experiment, smaller_is_better=smaller_is_better)
    values = draw(np.random.default_rng(0), gain=3.0)
    del values[2, "third", 4], values[2, "base", 0]  # failed runs: three pairs are left
    results = results_of(experiment, values)
    p_values = []
    for labels in LABELS:
        for start in ("other", "third"):
            seeds = [s for s in SEEDS if {(labels, start, s), (labels, "base", s)} <= values.keys()]
            ours = np.array([values[labels, start, seed] for seed in seeds])
            base = np.array([values[labels, "base", seed] for seed in seeds])
            better = ours < base if smaller_is_better else ours > base
            test = stats.ttest_rel(*((base, ours) if smaller_is_better else (ours, base)))
            interval = test.confidence_interval(0.95)
            found = results.comparisons[str(labels), start]
            assert (found.mean.low, found.mean.high) == pytest.approx((interval.low, interval.high))
            assert found.mean.number == len(seeds)
            assert found.better == better.sum()
            assert found.sign_p == pytest.approx(stats.binomtest(better.sum(), len(seeds)).pvalue)
            assert found.t_p == pytest.approx(test.pvalue)
            p_values.append(test.pvalue)
    # Holm: a comparison is significant together with those that have smaller p-values.
    for index, found in enumerate(results.comparisons.values()):
        smaller = [p for p in p_values if p <= p_values[index]]
        expected = max(min(1.0, p * sum(other >= p for other in p_values)) for p in smaller)
        assert found.adjusted_p == pytest.approx(expected)
    mean = results.mean("3", "base")
    column = [values[3, "base", seed] for seed in SEEDS]
    interval = stats.t.interval(0.95, 4, np.mean(column), stats.sem(column))
    assert (mean.low, mean.high) == pytest.approx(interval)
    assert (results.images("2"), results.images("3")) == (2, 3)


def test_equal_starts_show_no_difference(experiment: Experiment) -> None:
    numbers = np.random.default_rng(0)
    draws = [results_of(experiment, draw(numbers)) for _ in range(20)]
    verdicts = [{found.verdict for found in result.comparisons.values()} for result in draws]
    assert sum(found == {"no difference shown"} for found in verdicts) >= 18


def test_what_is_printed(experiment: Experiment) -> None:
    values = {
        (labels, start, seed): 40 + seed + (5 + 0.1 * seed) * (start == "third")
        for labels in LABELS
        for start in STARTS
        for seed in SEEDS
    }
    printed = summary(results_of(experiment, values))
    each = "40.00, 41.00, 42.00, 43.00, 44.00"
    assert f"| 2                 | other   | 42.00 (40.04 to 43.96) | {each} |" in printed
    assert (
        "third with 2 labels: +5.20 (+5.00 to +5.40) mIoU, better with 5 of 5 seeds: gain"
    ) in printed
    assert (
        "other with 3 labels: +0.00 (+0.00 to +0.00) mIoU, better with 0 of 5 seeds: "
        "no difference shown"
    ) in printed
