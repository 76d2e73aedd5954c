"""RoIConv as an alignment module."""

import torch
import torch.nn.functional as F

from aligncli.models.align import RoIConvAlignment
from aligncli.ops import implicit_rois


def alignment(kernel_size=3):
    torch.manual_seed(0)
    return RoIConvAlignment(4, 6, kernel_size=kernel_size, bias=True, backend="auto")


def test_on_implicit_rois_the_alignment_is_a_plain_convolution_at_every_level():
    module = alignment()
    strides = (8, 16)
    features = [torch.randn(2, 4, 10, 12), torch.randn(2, 4, 5, 6)]
    boxes = [
        implicit_rois(*x.shape[-2:], 3, stride).reshape(1, -1, 4).expand(2, -1, -1)
        for x, stride in zip(features, strides, strict=True)
    ]
    for found, x in zip(module(features, boxes, strides), features, strict=True):
        assert torch.allclose(found, F.conv2d(x, module.weight, module.bias, padding=1), atol=1e-6)


def test_output_is_channels_last_and_of_the_map_s_shape():
    (out,) = alignment(5)([torch.randn(1, 4, 3, 7)], [torch.rand(1, 21, 4).cumsum(-1) * 20], (8,))
    assert out.shape == (1, 6, 3, 7)
    assert out.is_contiguous(memory_format=torch.channels_last)
