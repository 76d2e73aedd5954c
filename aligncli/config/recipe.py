"""A whole experiment as data, and how it is changed and read: dotted keys, nearest names, one-line errors."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from typing import Any, TypeGuard, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from aligncli.config.base import Config, Seed
from aligncli.config.model import AlignDetConfig, Model
from aligncli.config.run import (
    Data,
    EvaluationConfig,
    InputConfig,
    OpsConfig,
    Optimizer,
    ScheduleConfig,
    SGDConfig,
    ShapesConfig,
)
from aligncli.errors import RecipeError

# How large a part is, not what it is: kept when another kind is chosen for its place and has it too.
SIZES = ("backbone", "neck", "postprocess", "tower", "channels", "kernel_size", "min_side")

# What other projects call a key
OTHER_NAMES = {
    "learning_rate": "optimizer.lr",
    "base_lr": "optimizer.lr",
    "epochs": "schedule.iterations",
    "steps": "schedule.iterations",
    "max_iter": "schedule.iterations",
    "ims_per_batch": "schedule.batch_size",
    "image_size": "input.max_short_side",
    "num_workers": "input.workers",
}
MAX_NEAR = 3


class Recipe(Config):
    """One experiment. `weights` starts the model: nothing, a packaged file, ImageNet, or a path."""

    name: str
    summary: str
    paper: str = ""  # the section or table that it reproduces
    seed: Seed = 0
    model: Model = AlignDetConfig()
    weights: str = "none"  # none | shapes | imagenet | path of a file (docs/weights.md)
    data: Data = ShapesConfig()
    input: InputConfig = InputConfig()
    optimizer: Optimizer = SGDConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    ops: OpsConfig = OpsConfig()

    def changed(self, changes: Mapping[str, object]) -> Recipe:
        """A copy with dotted keys replaced, for example `{"model.backbone.name": "resnet101"}`.

        A union member is chosen by its kind alone: `{"optimizer": "sgd"}` takes SGD's defaults, and
        `{"model.dpm": "fcos"}` FCOS's, except for its SIZES, which stay as they were.
        Raises RecipeError for an unknown key, naming the nearest one, or a value that is not allowed.
        """
        values = self.model_dump()
        for key, value in changes.items():
            _replace(values, key, value)
        return parse_recipe(values)


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """Validate plain data (a recipe's JSON) into a Recipe. Raises RecipeError."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_explain(error, values)) from error


def recipe_keys(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Every dotted key of a dumped recipe, leaves and sections."""
    keys = []
    for name, value in values.items():
        keys.append(prefix + name)
        if isinstance(value, dict):
            keys.extend(recipe_keys(value, f"{prefix}{name}."))
    return keys


def _replace(values: dict[str, Any], key: str, value: object) -> None:
    section = values
    *parents, leaf = key.split(".")
    for name in parents:
        if not isinstance(section.get(name), dict):
            raise _unknown_key(values, key)
        section = section[name]
    if leaf not in section:
        raise _unknown_key(values, key)
    if value == "none" and not isinstance(section[leaf], str):
        value = None  # "none" is a word of some keys (weights, amp) and nothing at all for the others
    if isinstance(section[leaf], dict) and isinstance(value, str):
        value = _chosen(value, [*parents, leaf], values, old=section[leaf])
    section[leaf] = value


def _chosen(kind: str, path: list[str], values: Mapping[str, Any], *, old: Mapping[str, Any]) -> dict[str, Any]:
    """The union member called `kind`: its defaults, and the sizes of the `old` one where they fit it."""
    fields = _fields_of(kind, path, values)
    defaults = {
        name: field.get_default(call_default_factory=True) for name, field in fields.items() if not field.is_required()
    }
    dumped = {name: value.model_dump() if isinstance(value, Config) else value for name, value in defaults.items()}
    kept = {size: old[size] for size in SIZES if size in old and size in fields}
    fitting = {size: value for size, value in kept.items() if _may_hold(_members(fields[size].annotation), value)}
    return dumped | {"kind": kind} | fitting


def _fields_of(kind: str, path: list[str], values: Mapping[str, Any]) -> dict[str, FieldInfo]:
    """Fields of the union member called `kind` at `path`; empty where there is none."""
    members: list[type[Config]] = [Recipe]
    section: Any = values
    for name in path:
        owner = next((member for member in members if _kind(member) in (None, section.get("kind"))), None)
        if owner is None:  # inside the free-form settings of a user's own part
            return {}
        members = _members(owner.model_fields[name].annotation)
        section = section[name]
    chosen = [member for member in members if _kind(member) == kind]
    return {name: field for member in chosen for name, field in member.model_fields.items()}


def _members(annotation: object) -> list[type[Config]]:
    """The sections that a field may hold: those of a union, or the one."""
    return [member for member in get_args(annotation) or (annotation,) if _is_config(member)]


def _may_hold(members: list[type[Config]], value: object) -> bool:
    """Whether a value of another section fits: one that is no section always does."""
    return not isinstance(value, Mapping) or value.get("kind") in [_kind(member) for member in members]


def _is_config(annotation: object) -> TypeGuard[type[Config]]:
    return isinstance(annotation, type) and issubclass(annotation, Config)


def _kind(member: type[Config]) -> str | None:
    field = member.model_fields.get("kind")
    return None if field is None else field.default


def _unknown_key(values: Mapping[str, Any], key: str) -> RecipeError:
    """With the nearest keys, by the whole or by the last part alone: "lr" finds "optimizer.lr"."""
    asked = key.rpartition(".")[2]

    def nearness(known: str) -> tuple[float, float]:
        last = known.rpartition(".")[2]
        whole = difflib.SequenceMatcher(None, key, known).ratio()
        alike = difflib.SequenceMatcher(None, asked, last).ratio()
        return max(whole, alike, 0.9 if asked in last.split("_") else 0.0), whole

    known = recipe_keys(values)
    ranked = sorted(((*nearness(name), name) for name in known), reverse=True)
    best, best_whole, _ = ranked[0]
    near = [name for close, whole, name in ranked if close >= max(0.6, best - 0.05) and whole >= best_whole - 0.3]
    near = [OTHER_NAMES[asked]] if OTHER_NAMES.get(asked) in known else near[:MAX_NEAR]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"top-level keys are {', '.join(values)}"
    return RecipeError(f"unknown recipe key {key!r}: {hint}")


def _explain(error: ValidationError, values: Mapping[str, Any]) -> str:
    """The first fault of a validation error in one line: key, value, what was expected."""
    fault = error.errors(include_url=False)[0]
    key = _dotted_key(fault["loc"], values) or "recipe"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if fault["type"] in ("model_type", "model_attributes_type"):
        return f"recipe key {key!r} is a section, not a value: {_what_it_takes(key)}{more}"
    if fault["type"] == "value_error":  # a check of ours, which says what it got
        return f"recipe key {key!r}: {fault['msg'].removeprefix('Value error, ')}{more}"
    return f"recipe key {key!r}: {fault['msg']}, got {reprlib.repr(fault.get('input'))}{more}"


def _what_it_takes(section: str) -> str:
    """In words, from what recipes have there by default."""
    default: Any = Recipe(name="", summary="").model_dump()
    for name in section.split("."):
        default = default.get(name) if isinstance(default, Mapping) else None
    if not isinstance(default, Mapping):
        return "set its keys one by one"
    if "kind" in default:
        return f"expected its kind, such as {default['kind']}"
    return f"set one of {', '.join(f'{section}.{name}' for name in default)}"


def _dotted_key(location: tuple[int | str, ...], values: Mapping[str, Any]) -> str:
    """A fault's location as the user writes it: without the union tags that pydantic puts into it."""
    parts: list[str] = []
    section: Any = values
    for part in location:
        inside = isinstance(section, Mapping)
        if inside and part not in section and part == section.get("kind"):
            continue
        parts.append(str(part))
        section = section.get(part) if inside else None
    return ".".join(parts)
