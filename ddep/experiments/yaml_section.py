"""Reads a mapping of a YAML file key by key; errors name the file and the key."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ddep.errors import UserError, one_line

Value = TypeVar("Value")
_REQUIRED: Any = object()


class _Loader(yaml.SafeLoader):
    """Refuses a key that occurs twice, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if names.count(key.value) > 1:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: the key {key.value} occurs twice")
        return super().construct_mapping(node, deep)


def read_yaml(path: str) -> Any:
    """The content of a YAML file, which cannot run code.

    Raises:
        UserError: it cannot be read, is not YAML, or has a key twice.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; expected a YAML file") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {one_line(error)}") from error


class Section:
    """A mapping, of which each key is taken once.

    Args:
        content: what the file has.
        where: the file and the key that leads here, for errors.
        known: all keys that may occur; None allows any.

    Raises:
        UserError: ``content`` is no mapping, or has another key.
    """

    def __init__(self, content: Any, where: str, known: Sequence[str] | None = None) -> None:
        if not isinstance(content, Mapping):
            expected = f"the keys {', '.join(known)}" if known else "names with keys below them"
            raise UserError(f"{where} is {content!r}; expected {expected}")
        for key in content:
            if not isinstance(key, str):
                raise UserError(f"{where} has the key {key!r}; expected text; put it in quotes")
            if known is not None and key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; expected {', '.join(known)}"
                raise UserError(f"{where} has the unknown key {key}{hint}")
        self.content: Mapping[str, Any] = content
        self._where = where

    def where(self, key: str) -> str:
        """The place of ``key``, for errors."""
        colon = "" if self._where.endswith(":") else "."
        return f"{self._where}{colon or ' '}{key}"

    def take(
        self,
        key: str,
        check: Callable[[Any], Value | None],
        expected: str,
        default: Any = _REQUIRED,
    ) -> Value:
        """The value of ``key``.

        Args:
            key: of the mapping.
            check: makes what is returned from the value; returns None if it does not fit.
            expected: describes what fits.
            default: what is returned without the key; without it, the key must be there.

        Raises:
            UserError: the key is missing, or its value does not fit.
        """
        if key not in self.content:
            if default is _REQUIRED:
                raise UserError(f"{self.where(key)} is missing; expected {expected}")
            return default
        value = check(self.content[key])
        if value is None:
            raise UserError(f"{self.where(key)} is {self.content[key]!r}; expected {expected}")
        return value

    def section(self, key: str, known: Sequence[str] | None = None) -> Section:
        """The mapping below ``key``, empty if the key is missing or has nothing below it."""
        return Section(self.content.get(key) or {}, self.where(key), known)


def text(value: Any) -> str | None:
    """Non-empty text."""
    return value if isinstance(value, str) and value else None


def boolean(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def natural(value: Any) -> int | None:
    """A whole number that is not negative."""
    return value if type(value) is int and value >= 0 else None


def positive(value: Any) -> int | None:
    """A whole number above 0."""
    return natural(value) or None


def one_of(choices: Collection[str]) -> Callable[[Any], str | None]:
    """One of some texts."""
    return lambda value: value if isinstance(value, str) and value in choices else None


def list_of(check: Callable[[Any], Value | None]) -> Callable[[Any], list[Value] | None]:
    """A list, not empty and without repetition, whose items ``check`` takes."""

    def checked(value: Any) -> list[Value] | None:
        if not isinstance(value, list) or not value:
            return None
        items = [check(item) for item in value]
        is_good = None not in items and all(item not in items[:i] for i, item in enumerate(items))
        return items if is_good else None

    return checked
