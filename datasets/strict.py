"""YAML and `key=value` into frozen pydantic models, where an unknown key is an error that suggests the nearest one.

Used by every room's configuration; knows nothing about any of them.
"""

import difflib
import re
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

Model = TypeVar("Model", bound=BaseModel)


class SettingError(ValueError):
    """A configuration file or a `key=value` argument that cannot be used; the message names the file and the key."""


class StrictModel(BaseModel):
    """Base of all settings: immutable, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars (`no` is a word, `1e-3` a number) and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (str, int)):
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
                seen.add(key)
        return super().construct_mapping(node, deep)


_BOOL, _FLOAT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:float"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_BOOL, _FLOAT)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"^[-+]?(?:(?:\d[\d_]*)?\.\d+(?:[eE][-+]?\d+)?|\d[\d_]*\.(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+)$"),
    list("-+0123456789."),
)


def load_yaml(path: str | Path, model: type[Model], overrides: Sequence[str] = ()) -> Model:
    """Read a YAML file into `model`; `overrides` are `a.b=value` strings, their values read as YAML.

    Raises:
        SettingError: no such file, bad YAML, unknown key (with the nearest known one), value of the wrong type.
    """
    return parse(merge_overrides(read_yaml(path), overrides, model), model, str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, unchecked.

    Raises:
        SettingError: no such file, bad YAML, or not a mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=1)
        hint = f" (did you mean {path.parent / near[0]}?)" if near else ""
        raise SettingError(f"{path}: no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path}: cannot be read: {error}") from None
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise SettingError(f"{path}: {_one_line(error)}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise SettingError(f"{path}: expected 'key: value' lines, found a {type(data).__name__}")
    return data


def merge_overrides(data: dict[str, Any], overrides: Sequence[str], model: type[BaseModel]) -> dict[str, Any]:
    """A copy of `data` with each `a.b=value` set; unknown keys are errors already here, so that a typo names itself.

    Raises:
        SettingError: no `=`, or a key that `model` does not know.
    """
    merged = _copy(data)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise SettingError(f"{override!r} is not of the form key=value")
        parts = key.strip().split(".")
        unknown = _unknown_in_path(parts, model)
        if unknown:
            raise SettingError(f"{key} is not a setting{_suggest(key, model)}")
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as error:
            raise SettingError(f"{override!r}: {_one_line(error)}") from None
        place = merged
        for part in parts[:-1]:
            child = place.get(part)
            if not isinstance(child, dict):
                child = place[part] = {}
            place = child
        place[parts[-1]] = value
    return merged


def parse(data: dict[str, Any], model: type[Model], where: str) -> Model:
    """Validate plain data; `where` (usually the file) opens every message.

    Raises:
        SettingError: one line with every culprit.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_describe(item, model) for item in error.errors()]
        raise SettingError(f"{where}: " + "; ".join(lines)) from None


def setting_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All dotted names of settings, sections included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for child in _models_in(field.annotation):
            yield from setting_names(child, f"{prefix}{name}.")


def _describe(item: Any, model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{key} is not a setting{_suggest(key, model)}"
    if item["type"] == "missing":
        return f"{key} is missing"
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if item["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key} is {_short(item['input'])}, should be {message[0].lower()}{message[1:]}"


def _suggest(key: str, model: type[BaseModel]) -> str:
    names = list(setting_names(model))
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    if not near:  # right word in the wrong section
        last = key.rsplit(".", 1)[-1]
        near = [name for name in names if name.rsplit(".", 1)[-1] == last]
    if near:
        return f" (did you mean {near[0]}?)"
    section = key.rpartition(".")[0]
    known = [n.rsplit(".", 1)[-1] for n in names if n.rpartition(".")[0] == section]
    return f" (known: {', '.join(known)})" if known else ""


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        return [model for part in get_args(annotation) for model in _models_in(part)]
    return []


def _unknown_in_path(parts: list[str], model: type[BaseModel]) -> bool:
    models = [model]
    for position, part in enumerate(parts):
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        if not fields:
            return True
        models = [child for field in fields for child in _models_in(field.annotation)]
        if not models:  # a plain value or a dict: what lies below is for validation to judge
            below = position < len(parts) - 1
            return below and not any("dict" in str(field.annotation).lower() for field in fields)
    return False


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).split("\n")[0]
    return f"line {mark.line + 1}: {problem}" if mark else problem
