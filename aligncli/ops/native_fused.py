"""RoIConv on Hopper without columns in device memory: one kernel samples and multiplies.

The forward pass only: backward a chunk of columns serves two products, and native_cuda.py does that.
"""

from collections.abc import Sequence

from torch import Tensor

from aligncli.ops import native_cuda
from aligncli_ext import fused
from aligncli_ext.cuda import Pyramid


def forward(
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    strides: Sequence[float],
) -> Tensor:
    """Rows of every level, level-major and image-major within: (sum of N R_l, O), in the features' dtype.

    features: (N, C, H, W) and boxes: (N, R_l, 4) a level; weight: (O, C, kh, kw); bias: (O,). All on one device. A
    layer that the kernel does not serve (`fused.serves`) is native_cuda.py's.
    """
    maps, flat_boxes = native_cuda.lay_out(features, boxes)
    if not (native_cuda.serves(features, boxes, weight) and fused.serves(maps, weight)):
        return native_cuda.forward(features, boxes, weight, bias, strides)
    out_channels = weight.shape[0]
    kernel = fused.load_kernel(weight.dtype, fused.outputs_for(out_channels), weight.device.index)
    pyramid = Pyramid(maps, flat_boxes, strides, native_cuda.kernel_size(weight))
    rows = weight.new_empty(pyramid.num_locations, out_channels)
    with kernel.on_device():
        kernel.multiply(pyramid, weight, None if bias is None else _dense(bias), rows)
    return rows


def _dense(tensor: Tensor) -> Tensor:
    """Contiguous and where the kernel's accesses may begin; itself where it lies so already."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % fused.ACCESS_BYTES == 0 else tensor.clone()


backward = native_cuda.backward
