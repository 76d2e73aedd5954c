"""The neck equals torchvision's pyramid where both define it, and can be cut down to one level."""

import pytest
import torch
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from aligncli.errors import RecipeError
from aligncli.models.branches import group_norm
from aligncli.models.fpn import BackboneStage, FeaturePyramid

CHANNELS = {2: 8, 3: 12, 4: 16, 5: 20}


def backbone_maps(height=64, width=96):
    return {level: torch.randn(2, c, height // 2**level, width // 2**level) for level, c in CHANNELS.items()}


def test_p3_to_p7_equal_torchvision_s_with_the_same_weights():
    theirs = FeaturePyramidNetwork([12, 16, 20], 6, extra_blocks=LastLevelP6P7(20, 6))
    ours = FeaturePyramid(CHANNELS, channels=6, levels=(3, 4, 5, 6, 7))
    for i, level in enumerate(("3", "4", "5")):
        ours.laterals[level].load_state_dict(theirs.inner_blocks[i][0].state_dict())
        ours.outputs[level].load_state_dict(theirs.layer_blocks[i][0].state_dict())
    ours.extras["6"].load_state_dict(theirs.extra_blocks.p6.state_dict())
    ours.extras["7"].load_state_dict(theirs.extra_blocks.p7.state_dict())
    maps = backbone_maps()
    wanted = theirs({str(level): maps[level] for level in (3, 4, 5)})
    found = ours(maps)
    assert len(found) == len(wanted) == 5
    for ours_level, theirs_level in zip(found, wanted.values(), strict=True):
        assert torch.allclose(ours_level, theirs_level, atol=1e-6)


def test_levels_have_the_strides_that_they_say():
    neck = FeaturePyramid(CHANNELS, channels=4, levels=(3, 4, 5, 6, 7))
    assert neck.strides == (8, 16, 32, 64, 128)
    shapes = [tuple(x.shape[-2:]) for x in neck(backbone_maps(256, 384))]
    assert shapes == [(256 // s, 384 // s) for s in neck.strides]


@pytest.mark.parametrize("level", [2, 3, 4, 5])
def test_a_single_level_with_top_down_equals_that_level_of_the_pyramid(level):
    pyramid = FeaturePyramid(CHANNELS, channels=6, levels=(2, 3, 4, 5))
    single = FeaturePyramid(CHANNELS, channels=6, levels=(level,))
    single.load_state_dict({k: v for k, v in pyramid.state_dict().items() if k in single.state_dict()})
    maps = backbone_maps()
    (found,) = single(maps)
    assert torch.equal(found, pyramid(maps)[level - 2])


def test_without_top_down_coarser_stages_do_not_reach_the_level():
    neck = FeaturePyramid(CHANNELS, channels=6, levels=(3,), top_down=False)
    maps = backbone_maps()
    before = neck(maps)[0]
    maps[4], maps[5] = maps[4] + 1, maps[5] + 1
    assert torch.equal(neck(maps)[0], before)
    assert set(neck.laterals) == {"3"}


def test_gaps_between_levels_are_refused():
    with pytest.raises(ValueError, match="contiguous"):
        FeaturePyramid(CHANNELS, channels=6, levels=(3, 5))


def test_pooled_p6_equals_torchvision_s_and_has_no_weights():
    theirs = FeaturePyramidNetwork([8, 12, 16, 20], 6, extra_blocks=LastLevelMaxPool())
    ours = FeaturePyramid(CHANNELS, channels=6, levels=(2, 3, 4, 5, 6), p6_from="pooled_p5")
    for i, level in enumerate(("2", "3", "4", "5")):
        ours.laterals[level].load_state_dict(theirs.inner_blocks[i][0].state_dict())
        ours.outputs[level].load_state_dict(theirs.layer_blocks[i][0].state_dict())
    maps = backbone_maps(160, 224)  # P5 is 5 x 7: P6 has its last row and column too
    wanted = list(theirs({str(level): x for level, x in maps.items()}).values())
    found = ours(maps)
    assert ours.strides == (4, 8, 16, 32, 64)
    assert found[-1].shape[-2:] == (3, 4)
    assert torch.allclose(found[-1], wanted[-1], atol=1e-6)
    assert list(ours.extras["6"].parameters()) == []


def test_pooling_ends_with_p6():
    with pytest.raises(ValueError, match="no level beyond P6"):
        FeaturePyramid(CHANNELS, channels=6, levels=(3, 4, 5, 6, 7), p6_from="pooled_p5")
    with pytest.raises(ValueError, match="P5 is not among"):
        FeaturePyramid(CHANNELS, channels=6, levels=(2, 3, 4), p6_from="pooled_p5")


def test_one_stage_without_a_neck_is_that_stage():
    maps = backbone_maps()
    neck = BackboneStage(CHANNELS, level=4)
    assert neck(maps) == [maps[4]]
    assert (neck.strides, neck.channels) == ((16,), 16)


def test_norms_make_maps_of_unit_size_whatever_the_backbone_s_are():
    """torchvision's pyramid with a norm layer, which is the same up to P5; P6 and P7 have norms here too."""
    theirs = FeaturePyramidNetwork([12, 16, 20], 16, norm_layer=group_norm)
    ours = FeaturePyramid(CHANNELS, channels=16, levels=(3, 4, 5, 6, 7), norm="group")
    for i, level in enumerate(("3", "4", "5")):
        ours.laterals[level].load_state_dict(theirs.inner_blocks[i].state_dict())
        ours.outputs[level].load_state_dict(theirs.layer_blocks[i].state_dict())
    maps = {level: 50 * x for level, x in backbone_maps(128, 192).items()}
    found = ours(maps)
    for ours_level, theirs_level in zip(
        found, theirs({str(level): maps[level] for level in (3, 4, 5)}).values(), strict=False
    ):
        assert torch.allclose(ours_level, theirs_level, atol=1e-5)
    for level in found:
        assert 0.9 < float(level.detach().std()) < 1.1


def test_a_single_level_can_be_normed():
    neck = FeaturePyramid(CHANNELS, channels=16, levels=(2,), norm="group")
    assert sum(isinstance(module, torch.nn.GroupNorm) for module in neck.modules()) == 5  # four laterals, one output
    assert not any(isinstance(module, torch.nn.Conv2d) and module.bias is not None for module in neck.modules())


def test_it_names_the_coarsest_map_that_it_reads():
    for options, coarsest in (
        ({"levels": (3, 4, 5, 6, 7)}, 5),
        ({"levels": (2,)}, 5),
        ({"levels": (2,), "top_down": False}, 2),
        ({"levels": (3, 4), "top_down": False}, 4),
        ({"levels": (3, 4, 5, 6), "top_down": False}, 5),
        ({"levels": (3, 4, 5, 6), "top_down": False, "p6_from": "p5"}, 5),
    ):
        neck = FeaturePyramid(CHANNELS, channels=8, **options)
        assert neck.coarsest_input == coarsest
        neck({level: x for level, x in backbone_maps().items() if level <= coarsest})
    assert BackboneStage(CHANNELS, level=4).coarsest_input == 4


def test_channels_that_cannot_be_grouped_are_refused():
    with pytest.raises(RecipeError, match="a group norm on 28 channels: expected a multiple of 8"):
        FeaturePyramid(CHANNELS, channels=28, levels=(3, 4, 5), norm="group")
    assert group_norm(4).num_groups == 1
