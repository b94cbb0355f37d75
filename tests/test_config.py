"""Configs: YAML without surprises, every fault at once, round trips."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_lite.config import (
    build_class,
    check_numbers,
    choice,
    dump_yaml,
    from_plain,
    load_config,
    name_of,
    optional_choice,
    parse_yaml,
    read_yaml,
    to_plain,
)
from espnet_lite.errors import InputError


@dataclass(frozen=True)
class Square:
    side: float = 1.0


@dataclass(frozen=True)
class Circle:
    radius: float = 1.0
    center: tuple[float, ...] = (0.0, 0.0)

    def __post_init__(self):
        if self.radius < 0:
            raise ValueError(f"radius {self.radius} is negative")


SHAPES = {"square": (Square, "draw a square"), "circle": (Circle, "draw a circle")}


@dataclass(frozen=True)
class Inner:
    count: int = 1
    rate: float = 0.5
    on: bool = False
    label: str = "x"
    limit: int | None = None
    layers: tuple[int, ...] = ()

    def __post_init__(self):
        if self.count < 0:
            raise ValueError(f"count {self.count} is negative")


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    other: Inner = field(default_factory=Inner)
    shape: object = choice(SHAPES, "square")
    hole: object = optional_choice(SHAPES)


@dataclass(frozen=True)
class Required:
    size: int


def fault(plain: dict, schema: type = Outer) -> str:
    with pytest.raises(InputError) as raised:
        from_plain(schema, plain, where="c.yaml")
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NO", "NO"),
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("1e-3", 1e-3),
        ("1.0e-3", 1e-3),
        ("-1E+2", -100.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("-.inf", float("-inf")),
        ("010", 10),
        ("-007", -7),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2024-01-02", "2024-01-02"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1e-3'", "1e-3"),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    parsed = parse_yaml(f"a: {text}")["a"]
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "c.yaml:3: not valid YAML: key 'a' stands twice"),
        ("x:\n  a: 1\n  a: 1\n", "c.yaml:3: not valid YAML: key 'a' stands twice"),
        ("a: [1\n", "c.yaml:2: not valid YAML"),
        ("a: 1\n\tb: 2\n", "c.yaml:2: not valid YAML"),
        ("a: !!python/name:os.system\n", "c.yaml:1: not valid YAML"),
        ("[1, 2]: 3\n", "c.yaml:1: not valid YAML"),
    ],
)
def test_faults_of_yaml_have_their_line(text, message):
    with pytest.raises(InputError) as raised:
        parse_yaml(text, where="c.yaml")
    assert message in str(raised.value)


def test_a_file_is_a_mapping_and_an_empty_one_too(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("# only a comment\n")
    assert read_yaml(path) == {}
    path.write_text("- 1\n")
    with pytest.raises(InputError, match=r"c\.yaml: expected a mapping at the top, found list"):
        read_yaml(path)
    with pytest.raises(InputError, match="no such file"):
        read_yaml(tmp_path / "none.yaml")


def test_unknown_keys_say_what_was_meant():
    assert fault({"inner": {"cuont": 1}}) == (
        "c.yaml: unknown key 'inner.cuont' (did you mean 'count'?)"
    )
    assert "unknown key 'inner.zzz' (known: count, rate, on" in fault({"inner": {"zzz": 1}})
    assert "unknown key '7'" in fault({7: 1})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("count", "3", "expected int, found str '3'"),
        ("count", 3.0, "expected int, found float 3.0"),
        ("count", True, "expected int, found bool True"),
        ("rate", False, "expected float, found bool False"),
        ("rate", "1_000", "expected float, found str '1_000'"),
        ("on", "NO", "expected bool, found str 'NO' (write true or false)"),
        ("on", 1, "expected bool, found int 1"),
        ("label", 10, "expected str, found int 10"),
        ("limit", True, "expected int | None, found bool True"),
        ("layers", 3, "found int 3"),
        ("layers", [1, "a"], "found tuple (1, 'a')"),
        ("layers", [1, True], "found tuple (1, True)"),
        ("count", None, "expected int, found NoneType None"),
    ],
)
def test_a_wrong_type_names_key_type_and_value(key, value, message):
    text = fault({"inner": {key: value}})
    assert text.startswith(f"c.yaml: inner.{key}: expected ") and message in text


def test_int_becomes_float_and_list_becomes_tuple():
    config = from_plain(
        Outer, {"inner": {"rate": 1, "layers": [3, 6]}, "shape": {"name": "circle", "center": [1]}}
    )
    assert type(config.inner.rate) is float and config.inner.layers == (3, 6)
    assert config.shape.center == (1.0,) and type(config.shape.center[0]) is float


def test_all_faults_come_at_once():
    text = fault(
        {
            "inner": {"count": "x", "rtae": 1},
            "other": {"count": -2},
            "shape": {"name": "circel"},
            "hole": {"name": "circle", "radius": -1.0},
            "colour": "red",
        }
    )
    for part in (
        "inner.count: expected int, found str 'x'",
        "unknown key 'inner.rtae' (did you mean 'rate'?)",
        "other: count -2 is negative",
        "shape.name: unknown 'circel' (did you mean 'circle'?), one of square, circle",
        "hole: radius -1.0 is negative",
        "unknown key 'colour'",
    ):
        assert part in text
    assert "\n" not in text


@dataclass(frozen=True)
class Framed:
    frame: Square | None = None


def test_a_section_may_be_absent():
    assert from_plain(Framed, {}) == from_plain(Framed, {"frame": None}) == Framed()
    framed = from_plain(Framed, {"frame": {"side": 2}})
    assert framed == Framed(Square(2.0)) == from_plain(Framed, to_plain(framed))
    with pytest.raises(InputError, match=r"unknown key 'frame\.sid'"):
        from_plain(Framed, {"frame": {"sid": 2}})


def test_missing_keys_and_sections_that_are_no_mappings():
    assert fault({}, Required) == "c.yaml: missing key 'size'"
    assert "inner: expected a mapping, found int 3" in fault({"inner": 3})
    assert "hole: expected a mapping with 'name', one of square, circle" in fault(
        {"hole": {"side": 1.0}}
    )
    assert "shape: expected a mapping with 'name'" in fault({"shape": None})


def test_choices_carry_their_class():
    config = from_plain(Outer, {"shape": {"name": "circle", "radius": 2}, "hole": None})
    assert config.shape == Circle(radius=2.0) and config.hole is None
    assert name_of(SHAPES, config.shape) == "circle"
    assert build_class(SHAPES, config.shape) == "draw a circle"


def test_a_choice_without_a_name_is_the_default_one():
    assert from_plain(Outer, {"shape": {"side": 2.0}}).shape == Square(side=2.0)
    assert "unknown key 'shape.radius'" in fault({"shape": {"radius": 2.0}})


def test_overrides_win_over_the_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("inner:\n  count: 2\n  rate: 0.1\n")
    config = load_config(
        path, Outer, ["inner.count=010", "shape.name=circle", "shape.radius=1e-3", "inner.label=NO"]
    )
    assert config.inner == Inner(count=10, rate=0.1, label="NO")
    assert config.shape == Circle(radius=1e-3)
    for text, message in [
        ("inner.count", "--set: 'inner.count' is not key=value"),
        ("=3", "--set: '=3' is not key=value"),
        ("inner.count.x=3", "'count' in 'inner.count.x' is not a mapping"),
        ("inner.cuont=3", "unknown key 'inner.cuont' (did you mean 'count'?)"),
        ("inner.layers=[1", "--set inner.layers"),
    ]:
        with pytest.raises(InputError) as raised:
            load_config(path, Outer, [text])
        assert message in str(raised.value)


inner_configs = st.builds(
    Inner,
    count=st.integers(0, 10**12),
    rate=st.floats(allow_nan=False),
    on=st.booleans(),
    label=st.text(st.characters(exclude_categories=("Cs",)))
    | st.sampled_from(["NO", "1e-3", "010", "null", "~", "", " a ", "a: b", "# c", "1.", "on"]),
    limit=st.none() | st.integers(),
    layers=st.lists(st.integers(), max_size=3).map(tuple),
)
shapes = st.builds(Square, side=st.floats(allow_nan=False)) | st.builds(
    Circle, radius=st.floats(0, 1e300), center=st.lists(st.floats(0, 1), max_size=2).map(tuple)
)


@given(st.builds(Outer, inner=inner_configs, shape=shapes, hole=st.none() | shapes))
def test_every_config_comes_back_from_its_yaml(config):
    assert from_plain(Outer, parse_yaml(dump_yaml(to_plain(config)))) == config


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (0, {"at_least": 0}, None),
        (-1, {"at_least": 0}, "limit -1 is not at least 0"),
        (0, {"above": 0, "at_most": 1}, "limit 0 is not above 0 and at most 1"),
        (1, {"above": 0, "at_most": 1}, None),
        (2, {"above": 0, "at_most": 1}, "limit 2 is not above 0 and at most 1"),
        (1, {"at_least": 0, "below": 1}, "limit 1 is not at least 0 and below 1"),
        (float("nan"), {"at_least": 0}, "limit nan is not at least 0"),
        (float("inf"), {"at_least": 0}, "limit inf is not at least 0"),
        (None, {"at_least": 0}, None),
        ((), {"at_least": 0}, None),
        ((3, -4), {"at_least": 0}, "limit -4 is not at least 0"),
    ],
)
def test_numbers_are_within_their_bounds(value, bounds, message):
    config = Inner(limit=value)
    if message is None:
        check_numbers(config, "limit", **bounds)
    else:
        with pytest.raises(ValueError) as raised:
            check_numbers(config, "limit", **bounds)
        assert str(raised.value) == message
