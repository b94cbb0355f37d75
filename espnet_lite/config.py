"""Configurations: the dataclass is the schema, YAML holds what differs, every fault is shown at once.

YAML is read by the rules of YAML 1.2's core schema, so that `NO` stays text, `1e-3` is a number and
`010` is ten: the loader of PyYAML follows YAML 1.1, where they are False, text and eight.

A field that chooses a member of a family (an encoder, an optimizer) is declared with `choice`; in
YAML it is a mapping with `name:` and the fields of that member's dataclass.
"""

import dataclasses
import difflib
import math
import operator
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path

from espnet_lite.errors import InputError
from espnet_lite.files import read_lines

Family = Mapping[str, tuple[type, object]]

_NUMBER_RULES = (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9]+$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
)


def _yaml_loader():
    """Return PyYAML's safe loader with the core schema of YAML 1.2 and no duplicate keys."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: typing.ClassVar = {}

        def construct_mapping(self, node, deep=False):
            seen = {}
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, (dict, list)):
                    raise yaml.constructor.ConstructorError(
                        None, None, f"a key is {key}, expected text", key_node.start_mark
                    )
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key '{key}' stands twice", key_node.start_mark
                    )
                seen[key] = True
            return super().construct_mapping(node, deep)

    for tag, pattern, first in _NUMBER_RULES:
        Loader.add_implicit_resolver(tag, re.compile(pattern), list(first))
    Loader.add_constructor(
        "tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node), 10)
    )
    Loader.add_constructor(
        "tag:yaml.org,2002:float",
        lambda loader, node: float(re.sub(r"\.(inf|nan)", r"\1", node.value.lower())),
    )
    return Loader


def parse_yaml(text: str, *, where: object = None) -> object:
    """Return the value of a YAML text (core schema of YAML 1.2, safe tags only).

    Raises:
        InputError: not YAML, or a key that stands twice, with file and line.
    """
    import yaml

    try:
        return yaml.load(text, Loader=_yaml_loader())
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"not valid YAML: {error.problem}", where=f"{where}{line}") from error
    except yaml.YAMLError as error:
        raise InputError(f"not valid YAML: {error}", where=where) from error


def read_yaml(path: Path | str) -> dict:
    """Return the mapping a YAML file holds (an empty file is an empty mapping)."""
    value = parse_yaml("\n".join(read_lines(path)), where=path)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"expected a mapping at the top, found {type(value).__name__}", where=path)
    return value


def choice(family: Family, default: str) -> typing.Any:
    """Return a dataclass field whose value is the config of one member of `family`.

    A mapping without `name:` changes fields of the member named `default`.
    """
    return dataclasses.field(
        default_factory=lambda: family[default][0](),
        metadata={"family": family, "default": default},
    )


def optional_choice(family: Family) -> typing.Any:
    """Return a dataclass field like `choice` that is None (`null` in YAML) by default."""
    return dataclasses.field(default=None, metadata={"family": family, "optional": True})


def name_of(family: Family, config: object) -> str:
    """Return the name under which `family` lists the class of `config`."""
    return next(name for name, (schema, _) in family.items() if type(config) is schema)


def check_numbers(
    config: object,
    names: str,
    *,
    at_least: float | int | None = None,
    above: float | int | None = None,
    at_most: float | int | None = None,
    below: float | int | None = None,
) -> None:
    """Raise a ValueError unless each of the fields `names` (or each item of a tuple) is in the range.

    For `__post_init__` of a schema: `from_plain` turns it into a fault of that key. None is left
    alone; a number that is not finite is in no range.
    """
    bounds = (
        ("at least", at_least, operator.ge),
        ("above", above, operator.gt),
        ("at most", at_most, operator.le),
        ("below", below, operator.lt),
    )
    given = [(words, bound, fits) for words, bound, fits in bounds if bound is not None]
    expected = " and ".join(f"{words} {bound}" for words, bound, _ in given)
    for name in names.split():
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is None:
                continue
            if not (math.isfinite(number) and all(fits(number, bound) for _, bound, fits in given)):
                raise ValueError(f"{name} {number} is not {expected}")


def build_class(family: Family, config: object) -> typing.Any:
    """Return the class (or function) that `family` lists beside the class of `config`."""
    return family[name_of(family, config)][1]


class _Faults(list):
    """All that is wrong with one config, gathered before anything is raised."""

    def unknown(self, key: str, known) -> None:
        near = difflib.get_close_matches(key.rpartition(".")[2], list(known), n=1, cutoff=0.6)
        hint = f" (did you mean '{near[0]}'?)" if near else f" (known: {', '.join(known)})"
        self.append(f"unknown key '{key}'{hint}")


def _build(schema: type, value: object, key: str, faults: _Faults) -> object:
    """Return an instance of dataclass `schema` from plain `value`, adding what is wrong to `faults`."""
    if not isinstance(value, dict):
        faults.append(f"{key or 'top'}: expected a mapping, found {_shown(value)}")
        return None
    before = len(faults)
    hints = typing.get_type_hints(schema)
    fields = {field.name: field for field in dataclasses.fields(schema) if field.init}
    built = {}
    for name, given in value.items():
        path = f"{key}.{name}" if key else str(name)
        if name not in fields:
            faults.unknown(path, fields)
        else:
            built[name] = _convert(fields[name], hints[name], given, path, faults)
    for name, field in fields.items():
        no_default = field.default is dataclasses.MISSING
        if name not in value and no_default and field.default_factory is dataclasses.MISSING:
            faults.append(f"missing key '{f'{key}.{name}' if key else name}'")
    if len(faults) > before:
        return None
    try:
        return schema(**built)
    except ValueError as error:  # the schema's own __post_init__ checks
        faults.append(f"{key}: {error}" if key else str(error))
        return None


def _convert(field, hint, value, key: str, faults: _Faults) -> object:
    if "family" in field.metadata:
        return _convert_choice(field.metadata, value, key, faults)
    for option in typing.get_args(hint) if _is_union(hint) else (hint,):
        if dataclasses.is_dataclass(option) and (option is hint or value is not None):
            return _build(option, value, key, faults)
    item = (typing.get_args(hint) or (None,))[0]
    if typing.get_origin(hint) is tuple and dataclasses.is_dataclass(item):
        if not isinstance(value, list):
            faults.append(f"{key}: expected a list, found {_shown(value)}")
            return None
        return tuple(_build(item, part, f"{key}[{i}]", faults) for i, part in enumerate(value))
    value = _plain_to_type(hint, value)
    import typeguard

    try:
        typeguard.check_type(
            value,
            hint,
            collection_check_strategy=typeguard.CollectionCheckStrategy.ALL_ITEMS,
        )
        fits = not _is_bool_for_number(hint, value)
    except typeguard.TypeCheckError:
        fits = False
    if not fits:
        faults.append(f"{key}: expected {_type_name(hint)}, found {_shown(value)}")
    return value


def _convert_choice(metadata, value, key: str, faults: _Faults) -> object:
    family = metadata["family"]
    if value is None and metadata.get("optional"):
        return None
    if isinstance(value, dict) and "name" not in value and "default" in metadata:
        value = {"name": metadata["default"], **value}
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        faults.append(f"{key}: expected a mapping with 'name', one of {', '.join(family)}")
        return None
    if value["name"] not in family:
        near = difflib.get_close_matches(value["name"], list(family), n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        faults.append(f"{key}.name: unknown '{value['name']}'{hint}, one of {', '.join(family)}")
        return None
    rest = {name: item for name, item in value.items() if name != "name"}
    return _build(family[value["name"]][0], rest, key, faults)


def _plain_to_type(hint, value):
    """Return `value` with the two conversions that lose nothing: int to float, list to tuple."""
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    if float in options and type(value) is int and int not in options:
        return float(value)
    for option in options:
        if typing.get_origin(option) is tuple and isinstance(value, list):
            item = (typing.get_args(option) or (object,))[0]
            return tuple(_plain_to_type(item, part) for part in value)
    return value


def _is_bool_for_number(hint, value) -> bool:
    """Return True where a bool, an int in Python, stands for a number."""
    if isinstance(value, tuple):
        item = (typing.get_args(hint) or (object,))[0]
        return any(_is_bool_for_number(item, part) for part in value)
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    return isinstance(value, bool) and bool not in options and bool({int, float} & {*options})


def _is_union(hint) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _type_name(hint) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _shown(value) -> str:
    hint = ""
    if isinstance(value, str) and value.lower() in ("yes", "no", "on", "off"):
        hint = " (write true or false)"
    return f"{type(value).__name__} {value!r}{hint}"


def _override(plain: dict, text: str) -> None:
    """Set `a.b=value` in nested mappings; the value is read as YAML."""
    key, equals, raw = text.partition("=")
    if not equals or not key:
        raise InputError(f"'{text}' is not key=value", where="--set")
    *parents, last = key.split(".")
    node = plain
    for part in parents:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise InputError(f"'{part}' in '{key}' is not a mapping", where="--set")
    node[last] = parse_yaml(raw, where=f"--set {key}")


def from_plain(schema: type, plain: dict, *, where: object = None) -> typing.Any:
    """Return an instance of dataclass `schema` from nested dicts, lists and scalars.

    Raises:
        InputError: all unknown, missing and mistyped keys in one line, with the nearest names.
    """
    faults = _Faults()
    config = _build(schema, plain, "", faults)
    if faults:
        raise InputError("; ".join(faults), where=where)
    return config


def read_overridden(path: Path | str, overrides: list[str] | None = None) -> dict:
    """Return the mapping of a YAML file after `key.sub=value` overrides, unchecked."""
    plain = read_yaml(path)
    for text in overrides or []:
        _override(plain, text)
    return plain


def load_config(path: Path | str, schema: type, overrides: list[str] | None = None) -> typing.Any:
    """Return `schema` filled from a YAML file and then from `key.sub=value` overrides."""
    return from_plain(schema, read_overridden(path, overrides), where=path)


def to_plain(config: object) -> typing.Any:
    """Return nested dicts, lists and scalars that `from_plain` turns into an equal config."""
    if dataclasses.is_dataclass(config):
        plain = {}
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            plain[field.name] = to_plain(value)
            if "family" in field.metadata and value is not None:
                name = name_of(field.metadata["family"], value)
                plain[field.name] = {"name": name, **plain[field.name]}
        return plain
    if isinstance(config, (list, tuple)):
        return [to_plain(item) for item in config]
    return config


def dump_yaml(plain: object) -> str:
    """Return YAML text that this module reads back to an equal value."""
    import yaml

    class Dumper(yaml.SafeDumper):
        # PyYAML quotes by YAML 1.1's rules; with 1.2's, text such as 1e-3 needs the quotes too.
        yaml_implicit_resolvers: typing.ClassVar = {
            first: list(rules) for first, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()
        }

    for tag, pattern, first in _NUMBER_RULES:
        Dumper.add_implicit_resolver(tag, re.compile(pattern), list(first))
    return yaml.dump(plain, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
