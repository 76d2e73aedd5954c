"""RoIConv (section 4.2): a convolution whose taps are read inside a box instead of around a cell.

`roi_conv` checks its input and dispatches; the module is in roi_conv2d.py, the operator itself in operator.py.
Boxes are xyxy in pixels of the network input; the point (x, y) of the input is (x / S, y / S) in cells of a
map with stride S, whose cell (X, Y) has its centre at (X + .5, Y + .5).
"""

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor
from torch.autograd import forward_ad

from aligncli.ops import operator, reference
from aligncli.ops.backend import requested_backend

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@overload
def roi_conv(
    features: Tensor,
    boxes: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: float,
    backend: str = "auto",
) -> Tensor: ...


@overload
def roi_conv(
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sequence[float],
    backend: str = "auto",
) -> list[Tensor]: ...


def roi_conv(
    features: Tensor | Sequence[Tensor],
    boxes: Tensor | Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: float | Sequence[float],
    backend: str = "auto",
) -> Tensor | list[Tensor]:
    """RoIAlign with kh x kw bins and one sample a bin, then a linear layer, for R boxes an image.

    features: (N, C, H, W), float64, float32, bfloat16 or float16; channels_last memory is read in place.
    boxes: (N, R, 4) xyxy pixels, any number and any values; read in float32 (float64 for float64 features).
        Outside the map the features are zero, and a point that is not finite reads zero.
    weight, bias: (O, C, kh, kw) and (O,) as in conv2d, in the features' dtype. stride: pixels a cell.
    Returns (N, R, O). Features, boxes and stride may be equally long sequences, the levels of a pyramid that
    share the weight: then a list with one (N, R_l, O) a level. They are views of one tensor, so autograd
    does not let them be changed in place.

    Gradients reach features, weight, bias and boxes, once: there is no double backward, and no forward-mode derivative.
    Under autocast features, weight and bias are cast, boxes are not. `backend` is auto or a member of BACKENDS (see
    `choose_backend`).
    Raises ValueError for shapes and dtypes that do not fit, RecipeError for an unknown backend, DeviceError for a
    native one that was asked for and is not to be had, RuntimeError under `torch.func.jvp`.
    """
    if isinstance(features, Tensor) and isinstance(boxes, Tensor) and not isinstance(stride, Sequence):
        (output,) = roi_conv_levels([features], [boxes], weight, bias, [stride], backend)
        return output
    if isinstance(features, Tensor) or isinstance(boxes, Tensor) or not isinstance(stride, Sequence):
        raise ValueError("roi_conv: features, boxes and stride must be all single or all sequences")
    return roi_conv_levels(list(features), list(boxes), weight, bias, stride, backend)


def roi_conv_levels(
    features: list[Tensor],
    boxes: list[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[float],
    backend: str,
) -> list[Tensor]:
    """`roi_conv` of levels in lists."""
    if not len(features) == len(boxes) == len(stride) > 0:
        raise ValueError(
            "roi_conv: features, boxes and stride must be equally long and not empty, "
            f"got {len(features)}, {len(boxes)} and {len(stride)}"
        )
    if not all(isinstance(one, Tensor) for one in (*features, *boxes, weight)):
        raise ValueError("roi_conv: features, boxes and weight must be tensors, or features and boxes one a level")
    features, weight, bias = _cast_for_autocast(features, weight, bias)
    strides = [float(one) for one in stride]
    _check_weight(weight, bias)
    for level, level_boxes, level_stride in zip(features, boxes, strides):
        _check_level(level, level_boxes, weight, level_stride)
    backend = requested_backend(backend)
    if backend == "reference":
        rows = reference.forward(features, boxes, weight, bias, strides)
    else:
        _refuse_tangents([*features, *boxes, weight, *([] if bias is None else [bias])])
        rows = operator.roi_conv_rows(features, boxes, weight, bias, strides, backend)
    return _levels_of(rows, [(level.shape[0], level.shape[1]) for level in boxes])


def _refuse_tangents(inputs: Sequence[Tensor]) -> None:
    """Forward-mode derivatives are not implemented, and autograd would take them for zero without a word."""
    if torch.compiler.is_compiling() or getattr(forward_ad, "_current_level", -1) < 0:
        return
    if any(forward_ad.unpack_dual(one).tangent is not None for one in inputs):
        raise RuntimeError(
            "RoIConv has no forward-mode derivative (jvp): take the backend 'reference', or reverse mode"
        )


def _levels_of(rows: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Views (N, R, O) of each level, for `shapes` (N, R); no more of them than must be, as making one takes time."""
    out_channels = rows.shape[1]
    if len(shapes) == 1:
        return [rows.view(*shapes[0], out_channels)]
    if all(num_images == 1 for num_images, _ in shapes):
        return list(rows.unsqueeze(0).split_with_sizes([num_rois for _, num_rois in shapes], 1))
    parts = rows.split_with_sizes([num_images * num_rois for num_images, num_rois in shapes])
    return [part.view(*shape, out_channels) for part, shape in zip(parts, shapes)]


def _cast_for_autocast(
    features: list[Tensor], weight: Tensor, bias: Tensor | None
) -> tuple[list[Tensor], Tensor, Tensor | None]:
    device_type = weight.device.type
    if not operator.autocast_is_on(device_type):
        return features, weight, bias
    # As everywhere, autocast leaves float64 alone, and what is no floating-point number is an error below.
    if not all(x.is_floating_point() and x.dtype != torch.float64 for x in (*features, weight)):
        return features, weight, bias
    dtype = torch.get_autocast_dtype(device_type)
    features = [level.to(dtype) for level in features]
    return features, weight.to(dtype), None if bias is None else bias.to(dtype)


def _check_weight(weight: Tensor, bias: Tensor | None) -> None:
    if weight.dim() != 4 or 0 in weight.shape:
        raise ValueError(f"roi_conv: weight must be (O, C, kh, kw), none of them 0, got {tuple(weight.shape)}")
    if weight.dtype not in DTYPES:
        raise ValueError(f"roi_conv: weight must be float64, float32, bfloat16 or float16, got {weight.dtype}")
    if bias is not None and (bias.shape != weight.shape[:1] or bias.dtype != weight.dtype):
        raise ValueError(
            f"roi_conv: bias must be ({weight.shape[0]},) in weight's {weight.dtype}, "
            f"got {tuple(bias.shape)} in {bias.dtype}"
        )
    if bias is not None and bias.device != weight.device:
        raise ValueError(f"roi_conv: bias is on {bias.device} and weight on {weight.device}; move one of them")


def _check_level(features: Tensor, boxes: Tensor, weight: Tensor, stride: float) -> None:
    shape, box_shape = features.shape, boxes.shape
    if len(shape) != 4 or 0 in shape[1:]:
        raise ValueError(f"roi_conv: features must be (N, C, H, W), only N may be 0, got {tuple(shape)}")
    if shape[1] != weight.shape[1]:
        raise ValueError(f"roi_conv: features have {shape[1]} channels and weight takes {weight.shape[1]}")
    if features.dtype != weight.dtype:
        raise ValueError(f"roi_conv: features are {features.dtype} and weight is {weight.dtype}; cast one of them")
    if len(box_shape) != 3 or box_shape[2] != 4 or box_shape[0] != shape[0]:
        raise ValueError(f"roi_conv: boxes must be ({shape[0]}, R, 4), got {tuple(box_shape)}")
    if not boxes.is_floating_point():
        raise ValueError(f"roi_conv: boxes must be floating point, got {boxes.dtype}")
    if not features.device == boxes.device == weight.device:  # the native kernels would read any address
        raise ValueError(
            f"roi_conv: features are on {features.device}, boxes on {boxes.device} and weight on {weight.device}; "
            "move them to one device"
        )
    if not stride > 0:
        raise ValueError(f"roi_conv: stride must be positive pixels a cell, got {stride}")
