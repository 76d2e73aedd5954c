"""Recipes as data: changes by dotted key, one-line errors in the user's own words, JSON and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncli.catalog import load_recipe
from aligncli.config import AdamWConfig, Recipe, SGDConfig, parse_recipe, recipe_keys
from aligncli.config.recipe import OTHER_NAMES
from aligncli.errors import RecipeError

RECIPE = Recipe(name="test", summary="for tests")
KEYS = recipe_keys(RECIPE.model_dump())


def test_a_change_replaces_one_number_and_leaves_the_recipe_alone() -> None:
    changed = RECIPE.changed({"schedule.iterations": 7})
    assert changed.schedule.iterations == 7
    assert RECIPE.schedule.iterations == 90_000
    assert changed.changed({"schedule.iterations": 90_000}) == RECIPE


def test_a_union_member_is_chosen_by_its_kind() -> None:
    assert RECIPE.changed({"optimizer": "adamw"}).optimizer == AdamWConfig()
    assert RECIPE.changed({"optimizer": {"kind": "sgd", "lr": 0.5}}).optimizer == SGDConfig(lr=0.5)


def test_none_is_nothing_except_where_it_is_a_word() -> None:
    clipped = RECIPE.changed({"schedule.clip_norm": 10, "weights": "imagenet"})
    changed = clipped.changed({"schedule.clip_norm": "none", "weights": "none", "schedule.amp": "none"})
    assert changed.schedule.clip_norm is None
    assert changed.weights == "none"
    assert changed.schedule.amp == "none"


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("schedule.iters", "schedule.iterations"),
        ("lr", "optimizer.lr"),
        ("schedule.lr", "optimizer.lr"),
        ("batch", "schedule.batch_size"),
        ("learning_rate", "optimizer.lr"),
        ("epochs", "schedule.iterations"),
        ("model.kernel", "model.adm.conv_kernel_size"),
        ("model.backbones.name", "model.backbone.name"),
        ("sed", "seed"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_one(key: str, nearest: str) -> None:
    with pytest.raises(RecipeError, match="unknown recipe key") as caught:
        RECIPE.changed({key: 1})
    assert str(caught.value).startswith(f"unknown recipe key {key!r}: did you mean {nearest!r}")
    assert str(caught.value).count(" or ") < 3


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("schedule", "set one of schedule.iterations, schedule.batch_size, "),
        ("model.dpm.loss", "set one of model.dpm.loss.focal_alpha, "),
        ("model.neck", "expected its kind, such as fpn"),
        ("optimizer", "expected its kind, such as sgd"),
    ],
)
def test_a_section_is_no_value(key: str, says: str) -> None:
    with pytest.raises(RecipeError, match=f"recipe key '{key}' is a section, not a value: {says}"):
        RECIPE.changed({key: 3})


def test_what_other_projects_call_a_key_is_a_key() -> None:
    assert set(OTHER_NAMES.values()) <= set(recipe_keys(RECIPE.model_dump()))


def test_a_key_like_no_other_is_answered_with_the_top_level() -> None:
    with pytest.raises(RecipeError, match="top-level keys are name, summary, paper, seed, model"):
        RECIPE.changed({"zzzz": 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schedule.iterations", 0),
        ("schedule.iterations", 1.5),
        ("model.adm.channels", "many"),
        ("model.adm.alignment.kernel_size", -3),
        ("optimizer.momentum", 2.0),
        ("optimizer.lr", float("nan")),
        ("schedule.amp", "int8"),
    ],
)
def test_a_wrong_value_is_reported_under_the_key_that_was_typed(key: str, value: object) -> None:
    with pytest.raises(RecipeError) as caught:
        RECIPE.changed({key: value})
    assert str(caught.value).startswith(f"recipe key {key!r}: ")
    assert repr(value) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_of_a_recipe_file_is_reported_by_its_dotted_name() -> None:
    values = RECIPE.model_dump(mode="json")
    values["model"]["adm"]["chanels"] = 3
    with pytest.raises(RecipeError, match=r"recipe key 'model\.adm\.chanels'"):
        parse_recipe(values)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(RecipeError) as caught:
        RECIPE.changed({"data": {"kind": "coco", "root": list(range(10_000))}})
    assert len(str(caught.value)) < 300


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)


@given(st.sampled_from(KEYS), SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(), SCALARS))
def test_any_value_for_any_key_gives_a_recipe_or_a_recipe_error(key: str, value: object) -> None:
    try:
        changed = RECIPE.changed({key: value})
    except RecipeError as error:
        assert "\n" not in str(error)  # noqa: PT017  (most values are refused, some are not)
    else:
        assert parse_recipe(changed.model_dump(mode="json")) == changed


def test_after_a_kind_is_chosen_its_own_keys_can_be_set() -> None:
    changed = RECIPE.changed({"model.dpm": "fcos", "model.dpm.reach": 3.0, "optimizer": "adamw", "optimizer.lr": 0.1})
    assert changed.model.dpm.kind == "fcos"
    assert changed.model.dpm.reach == 3.0
    assert changed.optimizer == AdamWConfig(lr=0.1)


def test_sizes_survive_a_change_of_kind_and_nothing_else_does() -> None:
    small = RECIPE.changed(
        {"model.dpm.tower.num_convs": 1, "model.dpm.matcher.foreground": 0.9, "model.neck.channels": 8}
    )
    fcos = small.changed({"model.dpm": "fcos", "model.neck": "single_level"})
    assert fcos.model.dpm.tower.num_convs == 1
    assert fcos.model.neck.channels == 8
    assert fcos.changed({"model.dpm": "retinanet"}).model.dpm.matcher.foreground == 0.4


def test_area_bins_grow():
    """Else the fault would come after the training, with its evaluation."""
    with pytest.raises(RecipeError, match="area_bins is 5, 1: expected two growing areas"):
        load_recipe("quickstart").changed({"evaluation.area_bins": [5, 1]})


def test_a_warm_up_starts_above_zero() -> None:
    """torch refuses it when the schedule is built; zero iterations of warm-up are allowed."""
    recipe = load_recipe("retinanet_r50")
    with pytest.raises(RecipeError, match=r"'schedule\.decay\.warmup_factor': Input should be greater than 0, got 0"):
        recipe.changed({"schedule.decay.warmup_factor": 0})
    assert recipe.changed({"schedule.decay.warmup_factor": 1.0}).schedule.decay.warmup_factor == 1.0


@pytest.mark.parametrize(
    ("name", "anchors"),
    [
        ("retinanet_small", "model.head.anchors"),
        ("aligndet_small", "model.dpm.anchors"),
        ("aligndet_small_ssd", "model.dpm.anchors"),
        ("fsaf_small", "model.head.anchors"),
        ("guided_anchoring_small", "model.head.sampled_shapes"),
        ("refinedet_small", "model.anchors"),
        ("faster_rcnn_small_fpn", "model.rpn.anchors"),
    ],
)
@pytest.mark.parametrize("emptied", ["scales", "ratios"])
def test_a_cell_without_anchors_is_refused_for_every_head(name: str, anchors: str, emptied: str) -> None:
    recipe = load_recipe(name).changed({f"{anchors}.square_scales": []})
    with pytest.raises(RecipeError, match=rf"'{anchors}': .*{emptied} \(\).* make no anchor: expected a scale and a"):
        recipe.changed({f"{anchors}.{emptied}": []})
    recipe.changed({f"{anchors}.{emptied}": [], f"{anchors}.square_scales": [4.0]})


def test_p6_from_p5_needs_a_p6() -> None:
    """Else the choice would change nothing. Faster R-CNN's pooled P5 is its default, and stays."""
    recipe = load_recipe("fcos_r50")
    with pytest.raises(
        RecipeError, match=r"'model\.neck': p6_from is p5, and levels \(3, 4, 5\) hold no P6: add it, or"
    ):
        recipe.changed({"model.neck.levels": [3, 4, 5]})
    assert recipe.changed({"model.neck.levels": [3, 4, 5], "model.neck.p6_from": "c5"}).model.neck.p6_from == "c5"
