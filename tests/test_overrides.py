"""`--set key=value`: whatever is typed is either a value or one clear RecipeError."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncli.errors import RecipeError
from aligncli.overrides import parse_assignments

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("1e-3", 1e-3),
        ("true", True),
        ("null", None),
        ("none", "none"),  # a word of some keys; Recipe.changed knows which
        ("resnet101", "resnet101"),
        ("8,16,32", [8, 16, 32]),
        ("[8, 16]", [8, 16]),
        ("0.5, 1, 2", [0.5, 1, 2]),
        ("3,", [3]),
        ("a,b", ["a", "b"]),
        ('"8"', "8"),
        ('{"kind": "sgd"}', {"kind": "sgd"}),
        ("/data/my photos", "/data/my photos"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_a_value_is_json_a_list_or_a_word(text: str, value: object) -> None:
    assert parse_assignments([f"some.key={text}"]) == {"some.key": value}


@pytest.mark.parametrize("assignment", ["", "optimizer.lr", "=3", "  =3"])
def test_what_is_no_assignment_is_refused_by_name(assignment: str) -> None:
    with pytest.raises(RecipeError, match="expected key=value") as caught:
        parse_assignments([assignment])
    assert repr(assignment) in str(caught.value)


def test_a_key_given_twice_keeps_its_last_value() -> None:
    assert parse_assignments(["a=1", "b=2", "a=3"]) == {"b": 2, "a": 3}


@given(st.lists(st.text(), max_size=4))
def test_any_arguments_give_values_or_a_recipe_error(assignments: list[str]) -> None:
    try:
        changes = parse_assignments(assignments)
    except RecipeError:
        assert any(not text.partition("=")[1] or not text.partition("=")[0].strip() for text in assignments)
    else:
        assert set(changes) == {text.partition("=")[0].strip() for text in assignments}


@given(JSON_VALUES)
def test_any_json_value_arrives_as_it_is(value: object) -> None:
    assert parse_assignments(["key=" + json.dumps(value)]) == {"key": value}


def test_a_bottomless_value_is_a_word_and_not_a_crash() -> None:
    bottomless = "[" * 100_000
    assert parse_assignments(["key=" + bottomless]) == {"key": bottomless}
