"""``python -m tests.checkpoint.mutate FOLDER N``: read N damaged checkpoints, one by one.

Prints a line of JSON for each. It is a separate process, so that a crash or a hang ends only it,
and its memory can be limited.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import random
import resource
import sys
from pathlib import Path

import torch

from ddep.checkpoint import Checkpointer, read_checkpoint
from ddep.errors import UserError
from ddep.export import convert_file
from tests.checkpoint.small_checkpoints import SMALL, State, small_resnet, small_swin, write

LIMIT_S = 20
ROOM_BYTES = 1_000_000_000


def flip(data: bytearray, rng: random.Random) -> None:
    """Change up to eight bits, mostly near the ends, where names and sizes are."""
    ends = min(len(data), 4000)
    for _ in range(rng.choice([1, 2, 8])):
        place = rng.choice(
            [rng.randrange(len(data)), rng.randrange(ends), len(data) - 1 - rng.randrange(ends)]
        )
        data[place] ^= 1 << rng.randrange(8)


def truncate(data: bytearray, rng: random.Random) -> None:
    """Keep the beginning, or all but the last bytes."""
    del data[rng.choice([rng.randrange(len(data)), len(data) - rng.randrange(1, 200)]) :]


def rename(state: State, rng: random.Random) -> State:
    """Give a few weights another name, swapped or damaged; some get lost."""
    names = list(state)
    changed = {}
    for name in rng.sample(names, rng.choice([1, 1, 3, len(names) // 2])):
        parts = name.split(".")
        place = rng.randrange(len(parts))
        changed[name] = rng.choice(
            [
                ".".join(parts[:place] + parts[place + 1 :]),
                ".".join([*parts[:place], "7", *parts[place:]]),
                name.replace("0", "1"),
                f"module.{name}",
                rng.choice(names),
                name[: rng.randrange(len(name))],
                name.upper(),
            ]
        )
    return {changed.get(name, name): tensor for name, tensor in state.items()}


def reshape(state: State, rng: random.Random) -> State:
    """Give a few weights another shape or type."""
    state = dict(state)
    for name in rng.sample(list(state), rng.choice([1, 1, 3, len(state) // 2])):
        tensor = state[name]
        state[name] = rng.choice(
            [
                lambda t: t[None],
                lambda t: t.flatten(),
                lambda t: t.flatten()[0] if t.numel() else t,
                lambda t: t[:0] if t.ndim else t,
                lambda t: t[:-1] if t.ndim else t,
                lambda t: torch.cat([t, t]) if t.ndim else t,
                lambda t: t.T if t.ndim == 2 else t.mT if t.ndim > 2 else t,
                lambda t: t.to(rng.choice([torch.float16, torch.int64, torch.bool])),
            ]
        )(tensor).clone()
    return state


def damage(path: Path, state: State, kind: int, rng: random.Random) -> None:
    if kind < 2:
        write(path, state)
        data = bytearray(path.read_bytes())
        (flip, truncate)[kind](data, rng)
        path.write_bytes(data)
    else:
        write(path, (rename, reshape)[kind - 2](state, rng))


def outcome(source: Path, target: Path) -> str:
    """Convert, and return "loaded" or the error's line. Anything else raises."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            convert_file(str(source), str(target))
    except UserError as error:
        assert "\n" not in str(error), error
        assert os.listdir(target.parent) == [], "half a file"
        return str(error)
    assert os.listdir(target.parent) == [target.name]
    assert read_checkpoint(str(target))["model"]
    target.unlink()
    return "loaded"


def load(source: Path, backbone: torch.nn.Module) -> None:
    """Load what fits, as training does; only a ``UserError`` may occur."""
    model = torch.nn.ModuleDict({"backbone": backbone})
    with contextlib.suppress(UserError):
        Checkpointer(model).load(str(source), checkpointables=[])


def main(folder: Path, number: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    states = [(name, make()) for (_, name), make in SMALL.items()]
    swin, resnet = small_swin(), small_resnet()
    (folder / "out").mkdir()
    # The memory mapped now, much of it by torch's libraries, and room for a few models.
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM_BYTES,) * 2)
    for index in range(number):
        rng = random.Random(index)
        name, state = states[index % len(states)]
        kind = index // len(states) % 4
        faulthandler.dump_traceback_later(LIMIT_S, exit=True)
        damage(folder / name, state, kind, rng)
        load(folder / name, resnet if name in ("R-50.pkl", "caffe2.pkl") else swin)
        found = outcome(folder / name, folder / "out" / "model.pth")
        print(json.dumps({"file": name, "kind": kind, "outcome": found}), flush=True)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
