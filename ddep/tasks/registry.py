"""Which task is responsible for which meta-architecture."""

from __future__ import annotations

import difflib

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from ddep.errors import UserError
from ddep.tasks.task import Task

_TASKS: dict[str, Task] = {}


def register_task(task: type[Task]) -> type[Task]:
    """Register a task for its meta-architectures; a class decorator.

    If another task served a meta-architecture, ``task`` takes over.
    """
    instance = task()
    _TASKS.update(dict.fromkeys(task.meta_architectures, instance))
    return task


def registered_tasks() -> list[Task]:
    """All tasks, in the order in which they were registered."""
    return list(dict.fromkeys(_TASKS.values()))


def find_task(cfg: CfgNode) -> Task | None:
    """The task that serves MODEL.META_ARCHITECTURE, None if there is none."""
    return _TASKS.get(cfg.MODEL.META_ARCHITECTURE)


def task_of(cfg: CfgNode) -> Task:
    """The task that serves MODEL.META_ARCHITECTURE.

    Raises:
        UserError: there is no such meta-architecture, or no task for it.
    """
    task = find_task(cfg)
    if task is not None:
        return task
    name = cfg.MODEL.META_ARCHITECTURE
    if name in META_ARCH_REGISTRY:
        raise UserError(
            f"MODEL.META_ARCHITECTURE is {name!r}, which no task serves; declare one in a file "
            "that IMPORTS names, as examples/ shows"
        )
    near = difflib.get_close_matches(name, _TASKS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(
        f"MODEL.META_ARCHITECTURE is {name!r}; {hint}expected one of {', '.join(_TASKS)}, or one "
        "that a file in IMPORTS registers"
    )
