"""What every method inherits: exact resume, several processes, accumulation, the NaN guard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

from ddep.adaptation import METHODS
from ddep.checkpoint import read_checkpoint
from ddep.engine import Trainer, main
from ddep.engine.adaptation import build_adapted_model
from ddep.engine.ema import WeightAverage
from ddep.engine.train_step import TrainStep
from tests.adaptation.kinds import KINDS, adapted_config, adapted_run
from tests.engine.kill_and_resume import differences
from tests.engine.tiny_runs import arguments, one_thread, shapes_root

__all__ = ["one_thread"]

PROCESSES = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("adaptation")
    with shapes_root(path):
        yield path


def test_every_method_is_here() -> None:
    assert {kind.split("-")[0] for kind in KINDS} == METHODS.keys()


@pytest.mark.slow
@pytest.mark.parametrize(("masks", "workers"), [(False, 0), (True, 2)], ids=["pixels", "masks"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_interruption_leads_to_the_same_bits(
    kind: str, masks: bool, workers: int, folder: Path, tmp_path: Path
) -> None:
    config, words = adapted_run(folder, kind, masks=masks)
    words += ["SEED", "-1", "SOLVER.ACCUMULATION_STEPS", "2", "DATALOADER.NUM_WORKERS"]
    words += [str(workers), "SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "1"]
    words += ["DATASETS.TEST", "()"]
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    main(arguments("--config-file", config, *words, "OUTPUT_DIR", whole))
    interrupted.mkdir()
    shutil.copy(whole / "model_0000001.pth", interrupted)
    (interrupted / "last_checkpoint").write_text("model_0000001.pth")
    main(arguments("--config-file", config, "--resume", *words, "OUTPUT_DIR", interrupted))
    found = differences(whole / "model_final.pth", interrupted / "model_final.pth")
    assert found == []
    early = read_checkpoint(str(whole / "model_0000000.pth"))
    late = read_checkpoint(str(whole / "model_final.pth"))
    changed = [n for n, t in early["model"].items() if not torch.equal(t, late["model"][n])]
    assert len(changed) > 20


def do_step(folder: Path, kind: str, parts: int = 1, poison: bool = False) -> dict[str, Any]:
    """One step on this process's share of the first batch, and what came of it."""
    cfg = adapted_config(folder, kind)
    cfg.SOLVER.ACCUMULATION_STEPS = parts
    torch.manual_seed(0)
    model = Trainer.build_model(cfg).double()
    average = WeightAverage(model, cfg.SOLVER.EMA.DECAY)
    with torch.no_grad():  # the teacher is not the student
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    adapted = build_adapted_model(cfg, model, average).double()
    batch = next(iter(Trainer.build_train_loader(cfg)))
    if poison and dist.get_rank() == 1:
        batch[-1] = poisoned(batch[-1])
    trained = [p for p in adapted.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    step = TrainStep(
        DistributedDataParallel(adapted) if dist.is_initialized() else adapted,
        [batch],
        torch.optim.SGD(trained, lr=0.1),
        normalisers=adapted.normalisers,
        parts=parts,
    )
    result = step.run()
    adapted.method.finish_step(result.skipped)
    return {
        "gradients": {n: p.grad for n, p in adapted.named_parameters() if p.grad is not None},
        "buffers": dict(adapted.method.named_buffers()),
        "losses": result.losses,
        "skipped": result.skipped,
        "unchanged": all(torch.equal(a, b) for a, b in zip(before, trained, strict=True)),
    }


def poisoned(sample: dict[str, Any]) -> dict[str, Any]:
    """The sample with an infinite pixel in every image."""

    def poison(value: Any) -> Any:
        if isinstance(value, list):
            return [poison(item) for item in value]
        if isinstance(value, torch.Tensor) and value.dtype == torch.uint8:
            value = value.float()
            value[..., 0] = torch.inf
        return value

    return {key: poison(value) for key, value in sample.items()}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES
    )
    with shapes_root(Path(folder, str(rank))):
        found = {
            (kind, parts, poison): do_step(Path(folder, str(rank)), kind, parts, poison)
            for kind in KINDS
            for parts, poison in ((1, False), (2, False), (1, True))
        }
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[tuple[str, int, bool], Any]]:
    """What each process found, by kind, parts and poison."""
    folder = tmp_path_factory.mktemp("processes")
    spawn(work, args=(str(folder),), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_and_parts_do_what_one_does(
    kind: str, parts: int, folder: Path, found: list[dict[tuple[str, int, bool], Any]]
) -> None:
    expected = do_step(folder, kind)
    assert len(expected["gradients"]) > 20
    for mine in (process[kind, parts, False] for process in found):
        assert mine["losses"] == pytest.approx(expected["losses"], rel=1e-5)
        for name in ("gradients", "buffers"):
            assert mine[name].keys() == expected[name].keys()
            largest = max(
                (value.double().abs().max() for value in expected[name].values()), default=0
            )
            for key, value in expected[name].items():
                torch.testing.assert_close(
                    mine[name][key], value, rtol=1e-6, atol=1e-9 * float(largest), msg=key
                )
        assert not mine["unchanged"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_poison_of_one_process_changes_nothing_in_any(
    kind: str, folder: Path, found: list[dict[tuple[str, int, bool], Any]]
) -> None:
    cfg = adapted_config(folder, kind)
    fresh = build_adapted_model(cfg, Trainer.build_model(cfg), None).method.double()
    for process in found:
        mine = process[kind, 1, True]
        assert mine["skipped"]
        assert mine["unchanged"]
        for name, buffer in fresh.named_buffers():
            assert torch.equal(mine["buffers"][name], buffer), name
