"""RoIConv on CUDA without columns in memory: one kernel samples and multiplies; for at most 256 outputs.

The forward pass only: backward a chunk of columns serves two products, and native_cuda.py does that.
"""

from collections.abc import Sequence

from torch import Tensor

from aligncli.ops import native_cuda, portable
from aligncli_ext.fused import FusedLevel, multiply


def forward(
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    strides: Sequence[float],
) -> Tensor:
    """Rows of every level, level-major and image-major within: (sum of N R_l, O), in the features' dtype.

    features: (N, C, H, W) and boxes: (N, R_l, 4) a level; weight: (O, C, kh, kw); bias: (O,). All on one device, in
    float16 or bfloat16 but for the boxes.
    """
    levels = [
        FusedLevel(
            map=level.detach().permute(0, 2, 3, 1).contiguous(),
            boxes=level_boxes.detach().reshape(-1, 4).float().contiguous(),
            num_rois=level_boxes.shape[1],
            stride=stride,
        )
        for level, level_boxes, stride in zip(features, boxes, strides, strict=True)
    ]
    rows = weight.new_empty(sum(len(level.boxes) for level in levels), weight.shape[0])
    matrix = portable._matrix(weight.detach()).contiguous()
    dense_bias = None if bias is None else bias.detach().contiguous()
    multiply(levels, matrix, dense_bias, (weight.shape[2], weight.shape[3]), rows)
    return rows


backward = native_cuda.backward
