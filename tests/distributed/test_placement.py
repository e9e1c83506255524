from __future__ import annotations

import argparse

import pytest

from ddep.distributed.placement import (
    Placement,
    first_host,
    meeting_point,
    placement_by_agent,
    placement_from_environment,
)
from ddep.errors import UserError

TORCHRUN = {
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "GROUP_RANK": "2",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}
# In a batch script that is not started by srun, the first two are set too.
SLURM = {
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_STEP_NODELIST": "gpu[07-10]",
    "SLURM_JOB_ID": "24001",
}


def arguments(**options: object) -> argparse.Namespace:
    usual = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "tcp://h:1"}
    return argparse.Namespace(**{**usual, **options})


def test_torchrun_places_a_process() -> None:
    assert placement_from_environment(arguments(), TORCHRUN) == Placement(
        5, 8, 1, machine=2, host="node1", port=29500, by_agent=True
    )


def test_a_machines_own_agent_places_its_processes_among_those_of_all() -> None:
    environment = TORCHRUN | {"RANK": "1", "WORLD_SIZE": "2", "GROUP_RANK": "0"}
    second = arguments(num_gpus=2, num_machines=3, machine_rank=1, dist_url="tcp://node0:7")
    assert placement_by_agent(second, environment) == Placement(
        3, 6, 1, machine=1, host="node0", port=7
    )
    first = arguments(num_gpus=2, num_machines=3, dist_url="tcp://node0:7")
    placement = placement_by_agent(first, environment | {"RANK": "0", "LOCAL_RANK": "0"})
    assert (placement.rank, placement.makes_store) == (0, True)


def test_srun_places_a_process() -> None:
    assert placement_from_environment(arguments(), SLURM) == Placement(
        5, 8, 1, machine=2, host="gpu07", port=20001
    )
    first = placement_from_environment(arguments(), SLURM | {"SLURM_PROCID": "0"})
    assert (first.rank, first.makes_store) == (0, True)
    address = {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "1234"}
    told = placement_from_environment(arguments(), SLURM | address)
    assert (told.host, told.port) == ("10.0.0.7", 1234)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        # What a cluster may set on each machine for a program that starts the processes.
        {name: value for name, value in TORCHRUN.items() if name != "LOCAL_RANK"},
        {name: SLURM[name] for name in ("SLURM_NTASKS", "SLURM_PROCID")},
        SLURM | {"SLURM_STEP_NUM_TASKS": "1"},
    ],
)
def test_a_process_that_nobody_placed_starts_others_itself(environment: dict[str, str]) -> None:
    assert placement_from_environment(arguments(num_gpus=4), environment) is None


def test_srun_may_start_one_task_on_each_machine_that_starts_processes() -> None:
    several = arguments(num_gpus=4, num_machines=8, machine_rank=5)
    assert placement_from_environment(several, SLURM) is None


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        ({"num_gpus": 2}, TORCHRUN, "--num-gpus asks for several.*torchrun.*leave --num-gpus out"),
        ({"num_machines": 2}, TORCHRUN, "--num-machines asks for several processes, but torchrun"),
        ({"num_gpus": 2}, SLURM, "--num-gpus asks for several processes, but srun"),
    ],
)
def test_processes_must_not_be_requested_twice(
    options: dict[str, int], environment: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        placement_from_environment(arguments(**options), environment)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("gpu[07-10]", "gpu07"),
        ("gpu[3,07-10],big1", "gpu3"),
        ("rack[2-3]-node[010-012].cluster,x", "rack2-node010.cluster"),
    ],
)
def test_the_first_host_of_a_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_where_machines_meet() -> None:
    two = {"num_machines": 2, "machine_rank": 1}
    assert meeting_point(arguments(dist_url="tcp://node1:29500", **two)) == ("node1", 29500)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dist_url": "auto"}, "--dist-url is auto; expected tcp://HOST:PORT"),
        ({"dist_url": "file:///tmp/x"}, "--dist-url is file:///tmp/x"),
        ({"dist_url": "tcp://h"}, "--dist-url is tcp://h;"),
        ({"machine_rank": 2}, "--machine-rank is 2; expected 0 to 1"),
        ({"machine_rank": -1}, "--machine-rank is -1"),
    ],
)
def test_where_machines_cannot_meet(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        meeting_point(arguments(**{"num_machines": 2, **options}))
