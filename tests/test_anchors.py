"""Anchors sit on the centres of their cells, where the convolution that predicts them looks."""

import pytest
import torch

from aligncli.anchors import AnchorGenerator
from aligncli.boxes import box_areas
from aligncli.ops import implicit_rois


def test_first_anchor_is_centred_on_the_first_cell():
    anchors = AnchorGenerator(scales=(4.0,), ratios=(1.0,))(2, 3, 8)
    assert anchors[0].tolist() == [4 - 16, 4 - 16, 4 + 16, 4 + 16]
    assert anchors.shape == (6, 4)


@pytest.mark.parametrize("stride", [8, 16, 128])
def test_an_anchor_of_scale_three_is_the_implicit_roi_of_a_3x3_convolution(stride):
    anchors = AnchorGenerator(scales=(3.0,), ratios=(1.0,))(5, 4, stride)
    assert torch.equal(anchors, implicit_rois(5, 4, 3, stride).reshape(-1, 4))


def test_order_is_cells_row_major_then_scales_then_ratios():
    generator = AnchorGenerator(scales=(1.0, 2.0), ratios=(0.5, 1.0, 2.0))
    anchors = generator(2, 2, 8).reshape(2, 2, 6, 4)
    centers = (anchors[..., :2] + anchors[..., 2:]) / 2
    assert torch.allclose(centers[0, 1], torch.tensor([12.0, 4.0]).expand(6, 2))
    assert torch.allclose(box_areas(anchors[0, 0]), torch.tensor([64.0] * 3 + [256.0] * 3))
    sides = anchors[0, 0, :, 2:] - anchors[0, 0, :, :2]
    assert torch.allclose(sides[:, 1] / sides[:, 0], torch.tensor([0.5, 1.0, 2.0] * 2))


def test_single_scale_retinanet_has_the_paper_s_five_sizes_on_p4():
    anchors = AnchorGenerator(scales=(2, 4, 8, 16, 32), ratios=(1.0,))(1, 1, 16)
    assert (anchors[:, 2] - anchors[:, 0]).tolist() == [32, 64, 128, 256, 512]  # section 3.1
