"""Reading a config: a YAML file on top of its bases, and KEY VALUE overrides."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from ddep.config import add_ddep_config
from ddep.errors import UserError, one_line

_IMPORTS = "IMPORTS"


def read_config(
    config_file: str,
    overrides: Sequence[str] = (),
    add_keys: Callable[[CfgNode], None] = lambda cfg: None,
) -> CfgNode:
    """Read a YAML config with its bases, then KEY VALUE overrides.

    An integer may stand for a float, and 1e5 for the integer 100000. Also imports the modules that
    IMPORTS names.

    Args:
        config_file: path of the YAML file.
        overrides: KEY, VALUE, KEY, VALUE, ...
        add_keys: adds further keys with their defaults, called after the imports.

    Returns:
        The config, not frozen.

    Raises:
        UserError: a missing or malformed file, an unknown key, a value of the wrong type, a module
            that cannot be imported.
    """
    loaded = read_yaml_with_bases(config_file)
    pairs = _pairs(overrides)
    imports = dict([(_IMPORTS, loaded.get(_IMPORTS)), *pairs])[_IMPORTS]
    _import_all(_decode(imports, []) or [], config_file)
    cfg = get_cfg()
    add_ddep_config(cfg)
    add_keys(cfg)
    if loaded.get("VERSION", cfg.VERSION) != cfg.VERSION:
        raise UserError(f"{config_file}: VERSION is {loaded['VERSION']}; expected {cfg.VERSION}")
    for key, value in flatten(loaded):
        _set(cfg, key, value, config_file)
    override(cfg, overrides)
    return cfg


def override(cfg: CfgNode, overrides: Sequence[str]) -> None:
    """Set KEY, VALUE, KEY, VALUE, ... in ``cfg``, in place.

    Raises:
        UserError: an unknown key, or a value of the wrong type.
    """
    for key, value in _pairs(overrides):
        _set(cfg, key, value, "command line")


def _pairs(overrides: Sequence[str]) -> list[tuple[str, str]]:
    options = [word for word in overrides if word.startswith("--")]
    if options:
        raise UserError(f"command line: {options[0]} must come before the KEY VALUE pairs")
    if len(overrides) % 2:
        raise UserError(
            f"overrides come as KEY VALUE pairs; found {len(overrides)} words: "
            f"{' '.join(overrides)}"
        )
    return list(zip(overrides[::2], overrides[1::2], strict=True))


def _import_all(names: Any, config_file: str) -> None:
    """Import modules and Python files, each once."""
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"{config_file}: IMPORTS is {names!r}; expected a list of module names and .py files"
        )
    for name in names:
        try:
            if name.endswith(".py"):
                _import_file(os.path.abspath(name))
            else:
                importlib.import_module(name)
        except UserError:
            raise
        except Exception as error:  # a user's module may raise anything
            raise UserError(
                f"{config_file}: IMPORTS has {name}, which cannot be imported: "
                f"{type(error).__name__}: {one_line(error)}"
            ) from error


def _import_file(path: str) -> None:
    # Worker processes unpickle objects by the name of their module.
    name = f"ddep_imports.{os.path.splitext(path)[0].replace('.', '_').replace(os.sep, '.')}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


class _ConfigFile(CfgNode):
    """Reads a YAML file and its bases; paths in IMPORTS are relative to the file that has them."""

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        loaded = super().load_yaml_with_base(filename, allow_unsafe=allow_unsafe)
        imports = loaded.get(_IMPORTS)
        if isinstance(imports, (list, tuple)):
            folder = os.path.dirname(os.path.abspath(filename))
            loaded[_IMPORTS] = [
                os.path.join(folder, name) if str(name).endswith(".py") else name
                for name in imports
            ]
        return loaded


def read_yaml_with_bases(config_file: str) -> dict[str, Any]:
    """The YAML file on top of its bases."""
    if os.path.isdir(config_file):
        raise UserError(f"config file {config_file} is a folder; expected a YAML file")
    if not os.path.isfile(config_file):
        raise UserError(f"config file {config_file} does not exist; choose one from configs/")
    keys_expected = f"{config_file}: expected KEY: VALUE lines, there and in every _BASE_ file"
    try:
        loaded = _ConfigFile.load_yaml_with_base(config_file, allow_unsafe=True)
    except OSError as error:
        raise UserError(f"{config_file}: {error.filename}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{config_file}: not UTF-8 text, there or in a _BASE_ file") from error
    except (AssertionError, yaml.YAMLError) as error:
        raise UserError(f"{config_file}: {one_line(error)}") from error
    except RecursionError as error:
        raise UserError(f"{config_file}: a _BASE_ leads back to the file itself") from error
    except (AttributeError, TypeError) as error:  # a file's content is no dict
        raise UserError(keys_expected) from error
    if not isinstance(loaded, dict):
        raise UserError(keys_expected)
    return loaded


def flatten(loaded: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("MODEL.DDEP.NOISE", "scaled") for {"MODEL": {"DDEP": {"NOISE": "scaled"}}}."""
    for key, value in loaded.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _set(cfg: CfgNode, key: str, value: Any, source: str) -> None:
    """Set ``key``, keeping its type; ``source`` is where the value comes from, for errors."""
    *parents, name = key.split(".")
    node = cfg
    for depth, parent in enumerate(parents, start=1):
        node = node.get(parent) if isinstance(node, CfgNode) else None
        if isinstance(node, (list, tuple)):
            where = ".".join(parents[:depth])
            raise UserError(f"{source}: {where} has keys below it; expected a list")
    if not isinstance(node, CfgNode) or name not in node:
        near = difflib.get_close_matches(key, _keys(cfg), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{source}: unknown config key {key}{hint}")
    if isinstance(node[name], CfgNode):
        example = _keys(node[name], f"{key}.")[0]
        raise UserError(f"{source}: {key} is {value!r}; expected keys below it, such as {example}")
    try:
        node[name] = _convert(_decode(value, node[name]), node[name])
    except TypeError as error:
        raise UserError(f"{source}: {key} is {value}; expected {error}") from error


def _decode(value: Any, old: Any) -> Any:
    """Parse a string as a Python value, as yacs does, unless the key takes text."""
    if not isinstance(value, str):
        return value
    try:
        decoded = ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return value
    wants_text = isinstance(old, str) and decoded is not None
    return value if wants_text and not isinstance(decoded, str) else decoded


def _convert(value: Any, old: Any) -> Any:
    """Convert ``value`` to the type of ``old``; None fits every type.

    Raises:
        TypeError: the types do not fit; the message is what was expected.
    """
    if value is None or old is None or type(value) is type(old):
        return value
    if isinstance(old, bool):
        raise TypeError("True or False")
    if isinstance(old, float):
        if type(value) is int:
            return float(value)
        raise TypeError(f"a number such as {old}")
    if isinstance(old, int):
        if isinstance(value, float) and value.is_integer():
            return int(value)
        raise TypeError(f"a whole number such as {old}")
    if isinstance(old, (list, tuple)):
        if isinstance(value, (list, tuple)):
            return type(old)(value)
        raise TypeError(f"a list such as {list(old)}" if old else "a list")
    raise TypeError(f"text such as {old}" if old else "text")


def _keys(cfg: CfgNode, prefix: str = "") -> list[str]:
    keys = []
    for key, value in cfg.items():
        keys += _keys(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else [prefix + key]
    return keys
