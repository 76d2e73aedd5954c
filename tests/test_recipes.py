"""The packaged recipes hold the paper's numbers, and their data never overlaps where it must not."""

from __future__ import annotations

import importlib

import pytest

from aligncli.catalog import load_recipe, recipe_names
from aligncli.config import (
    AlignDetConfig,
    CocoConfig,
    DenseDetectorConfig,
    FPNConfig,
    Recipe,
    RetinaNetHeadConfig,
    SGDConfig,
    ShapesConfig,
    SingleLevelConfig,
    StepDecayConfig,
    parse_recipe,
)

NAMES = recipe_names()
OTHERS = ("photo", "photo_lite0", "retinanet_r50_torchvision", "retinanet_r50_torchvision_v2")  # not the paper's
PAPER_NAMES = [name for name in NAMES if isinstance(load_recipe(name).data, CocoConfig) and name not in OTHERS]


def _aligndet(name: str) -> AlignDetConfig:
    model = load_recipe(name).model
    assert isinstance(model, AlignDetConfig)
    return model


def _retinanet(name: str) -> DenseDetectorConfig:
    model = load_recipe(name).model
    assert isinstance(model, DenseDetectorConfig)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_has_one_name_and_says_what_it_is(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.summary
    assert "\n" not in recipe.summary + recipe.paper


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_survives_json(name: str) -> None:
    recipe = load_recipe(name)
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize("name", PAPER_NAMES)
def test_section_5_1_holds_for_every_paper_recipe(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.weights == "imagenet"
    lr = 0.02 if name.startswith("faster_rcnn") else 0.01  # the FPN paper's, of which Table 1 quotes the figures
    assert recipe.optimizer == SGDConfig(lr=lr, momentum=0.9, weight_decay=1e-4, reference_batch=16)
    assert recipe.schedule.batch_size == 16
    decay = recipe.schedule.decay
    assert isinstance(decay, StepDecayConfig)
    assert decay.warmup_iterations == 500
    assert decay.decay_factor == 0.1
    assert [round(fraction * 90) for fraction in decay.decay_at] == [60, 80]
    assert (recipe.input.max_short_side, recipe.input.long_side) == (800, 1333)
    assert recipe.input.flip_probability == 0.5
    assert recipe.model.backbone.frozen_stages == 2  # up to conv2
    assert recipe.model.backbone.frozen_norm
    assert recipe.model.postprocess.nms_threshold == 0.5
    assert recipe.evaluation.area_bins == (32**2, 96**2)


def test_the_schedule_is_90k_and_half_as_much_again_in_table_7() -> None:
    iterations = {name: load_recipe(name).schedule.iterations for name in PAPER_NAMES}
    jitter = {name: load_recipe(name).input.min_short_side for name in PAPER_NAMES}
    for name in PAPER_NAMES:
        table_7 = name.endswith(("_x101", "_testdev"))
        assert (iterations[name], jitter[name]) == ((135_000, 640) if table_7 else (90_000, 800))


def test_the_dpm_has_one_square_anchor_of_scale_4_and_lower_thresholds() -> None:
    model = _aligndet("aligndet_r50")
    assert model.dpm.anchors.scales == (4.0,)
    assert model.dpm.anchors.ratios == (1.0,)
    assert (model.dpm.matcher.foreground, model.dpm.matcher.background) == (0.4, 0.3)  # Table 5, last row
    assert (model.adm.matcher.foreground, model.adm.matcher.background) == (0.7, 0.7)
    for loss in (model.dpm.loss, model.adm.loss):
        assert (loss.focal_alpha, loss.focal_gamma, loss.weight) == (0.25, 2.0, 1.0)
    assert model.neck == FPNConfig(levels=(3, 4, 5, 6, 7), channels=256)


def test_the_adm_heads_are_those_of_table_6() -> None:
    heads = {
        name: (
            adm.alignment.kernel_size,
            adm.alignment.finest_kernel_size,
            adm.channels,
            adm.num_convs,
            adm.conv_kernel_size,
        )
        for name in (
            *("aligndet_r50", "aligndet_r50_dagger", "aligndet_r50_head4", "aligndet_r50_k3", "aligndet_r50_k5"),
            *("aligndet_r101", "aligndet_x101"),
        )
        for adm in [_aligndet(name).adm]
    }
    assert heads == {
        "aligndet_r50": (7, None, 1024, 1, 1),
        "aligndet_r50_dagger": (7, 3, 1024, 1, 1),
        "aligndet_r50_head4": (3, None, 256, 4, 3),
        "aligndet_r50_k3": (3, None, 1024, 1, 1),
        "aligndet_r50_k5": (5, None, 1024, 1, 1),
        "aligndet_r101": (7, None, 1024, 1, 1),
        "aligndet_x101": (7, None, 1024, 1, 1),
    }


def test_backbones_are_what_the_names_say() -> None:
    names = {"r50": "resnet50", "r101": "resnet101", "x101": "resnext101_32x8d"}
    for name in PAPER_NAMES:
        (backbone,) = [names[word] for word in name.split("_") if word in names]
        assert load_recipe(name).model.backbone.name == backbone


def test_the_baseline_has_three_scales_and_three_aspects() -> None:
    head = _retinanet("retinanet_r50").head
    assert isinstance(head, RetinaNetHeadConfig)
    anchors = head.anchors
    assert [round(scale / 4, 3) for scale in anchors.scales] == [1.0, 1.26, 1.587]
    assert anchors.ratios == (0.5, 1.0, 2.0)


def test_without_its_adm_aligndet_is_retinanet_with_the_dpms_anchor() -> None:
    head, dpm = _retinanet("aligndet_r50_wo_adm").head, _aligndet("aligndet_r50").dpm
    assert isinstance(head, RetinaNetHeadConfig)
    assert (head.anchors, head.matcher, head.tower, head.loss) == (
        dpm.anchors,
        dpm.matcher,
        dpm.tower,
        dpm.loss,
    )


def test_p4_alone_has_the_pyramids_five_anchor_sizes() -> None:
    model = _retinanet("retinanet_r50_p4")
    assert isinstance(model.neck, SingleLevelConfig)
    assert isinstance(model.head, RetinaNetHeadConfig)
    sizes = [scale * 2**model.neck.level for scale in model.head.anchors.scales]
    assert sizes == [4 * 2**level for level in (3, 4, 5, 6, 7)] == [32, 64, 128, 256, 512]
    assert model.head.anchors.ratios == (1.0,)


def test_small_anchors_are_as_wide_as_the_implicit_roi_of_a_3x3_convolution() -> None:
    assert _aligndet("aligndet_small").dpm.anchors.scales == (3.0,)  # eq. 3: 3 strides


def test_the_small_baseline_differs_in_the_model_alone() -> None:
    aligndet, retinanet = load_recipe("aligndet_small"), load_recipe("retinanet_small")
    assert retinanet.model.backbone == aligndet.model.backbone
    assert retinanet.model.neck == aligndet.model.neck
    described = {"name": "", "summary": "", "paper": "", "model": aligndet.model.model_dump()}
    assert retinanet.changed(described) == aligndet.changed(described)


def test_no_recipe_sees_the_images_of_pretraining_or_validates_on_trained_ones() -> None:
    seeds = {
        name: (data.train_seed, data.val_seed)
        for name in NAMES
        for data in [load_recipe(name).data]
        if isinstance(data, ShapesConfig)
    }
    pretraining = set(seeds.pop("pretrain_shapes"))
    training = {train for train, _ in seeds.values()}
    reporting = {val for _, val in seeds.values()}
    base = importlib.import_module("aligncli.recipes.base")
    assert not pretraining & (training | reporting)
    assert not training & reporting
    assert base.CHOOSE_SEED not in pretraining | training | reporting
