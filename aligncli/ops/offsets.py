"""Sampling geometry of a convolution and of RoIAlign: equations 1 to 4 of the paper.

Boxes are xyxy in pixels of the network input. Points are in cells of a map with stride S, in the paper's
frame: the centre of cell (X, Y) is (X + .5, Y + .5), so a point minus .5 is an index into the array.
The paper writes h and i for x, w and j for y; here kh and i run along y, kw and j along x, as in conv2d.
An even kernel has its extra tap on the low side: conv2d with padding k//2 left and top, k-1-k//2 right
and bottom.
"""

import torch
from torch import Tensor


def kernel_pair(kernel_size: int | tuple[int, int]) -> tuple[int, int]:
    """(kh, kw) of a kernel size given as one side or as both."""
    return (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size


def implicit_rois(
    height: int,
    width: int,
    kernel_size: int | tuple[int, int],
    stride: float,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The box that a plain convolution looks at from each cell (eq. 3).

    Returns (height, width, 4) boxes, xyxy in pixels: cell (X, Y) has x1 = (X - kw//2) S and x2 = x1 + kw S,
    likewise y. RoIConv on these boxes is `conv2d(padding=kernel_size // 2)` for odd kernels.
    """
    kernel_height, kernel_width = kernel_pair(kernel_size)
    top = torch.arange(height, device=device, dtype=dtype) - kernel_height // 2
    left = torch.arange(width, device=device, dtype=dtype) - kernel_width // 2
    y1, x1 = torch.meshgrid(top, left, indexing="ij")
    return torch.stack([x1, y1, x1 + kernel_width, y1 + kernel_height], dim=-1) * stride


def sampling_points(boxes: Tensor, kernel_size: int | tuple[int, int], stride: float) -> tuple[Tensor, Tensor]:
    """Where RoIAlign with sampling ratio 1 reads the map (eq. 2): the centre of each of kh x kw bins.

    boxes: (..., 4) xyxy pixels. Returns y (..., kh) and x (..., kw) in cells, in the boxes' dtype; tap
    (i, j) reads at (x[..., j], y[..., i]), and at ((x S, y S)) in pixels.
    """
    kernel_height, kernel_width = kernel_pair(kernel_size)
    x1, y1, x2, y2 = boxes.unbind(-1)
    return _bin_centers(y1, y2, kernel_height, stride), _bin_centers(x1, x2, kernel_width, stride)


def roi_taps(boxes: Tensor, kernel_size: int | tuple[int, int], stride: float) -> Tensor:
    """The points of `sampling_points`, one by one: (..., kh kw, 2) as (x, y) in pixels, row-major."""
    y, x = sampling_points(boxes, kernel_size, stride)
    grid = (*boxes.shape[:-1], *kernel_pair(kernel_size))
    return torch.stack([x[..., None, :].expand(grid), y[..., :, None].expand(grid)], dim=-1).flatten(-3, -2) * stride


def roi_offsets(boxes: Tensor, kernel_size: int | tuple[int, int], stride: float) -> Tensor:
    """The offsets that make a deformable convolution read inside the boxes (eq. 4).

    boxes: (N, H, W, 4) xyxy pixels, one a cell. Returns (N, 2 kh kw, H, W) in cells, channels (dy, dx) a tap
    with taps row-major: the layout of `torchvision.ops.deform_conv2d(padding=(kh // 2, kw // 2))`. For an
    even kernel pad the map yourself (see the module's note) and call it with padding 0.
    """
    num_images, height, width, _ = boxes.shape
    kernel_height, kernel_width = kernel_pair(kernel_size)
    y, x = sampling_points(boxes, kernel_size, stride)  # (N, H, W, kh) and (N, H, W, kw)
    dy = y - _convolution_points(height, kernel_height, like=boxes)[:, None]
    dx = x - _convolution_points(width, kernel_width, like=boxes)
    grid = (num_images, height, width, kernel_height, kernel_width)
    offsets = torch.stack([dy[..., :, None].expand(grid), dx[..., None, :].expand(grid)], dim=-1)
    return offsets.flatten(3).permute(0, 3, 1, 2)


def deformed_points(offsets: Tensor, kernel_size: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Where a deformable convolution reads the map: eq. 1 plus its offsets.

    offsets: (N, 2 kh kw, H, W) in cells, channels (dy, dx) a tap. Returns y and x, (N, H, W, kh, kw) each, in cells.
    """
    kernel_height, kernel_width = kernel_pair(kernel_size)
    num_images, _, height, width = offsets.shape
    taps = offsets.reshape(num_images, kernel_height, kernel_width, 2, height, width).permute(0, 4, 5, 3, 1, 2)
    y = taps[..., 0, :, :] + _convolution_points(height, kernel_height, like=offsets)[:, None, :, None]
    x = taps[..., 1, :, :] + _convolution_points(width, kernel_width, like=offsets)[:, None, :]
    return y, x


def deformed_taps(offsets: Tensor, kernel_size: int | tuple[int, int], stride: float) -> Tensor:
    """The points of `deformed_points`, one by one: (N, H W, kh kw, 2) as (x, y) in pixels, row-major."""
    y, x = deformed_points(offsets, kernel_size)
    return torch.stack([x, y], dim=-1).flatten(3, 4).flatten(1, 2) * stride


def rois_of_offsets(offsets: Tensor, kernel_size: int | tuple[int, int], stride: float) -> Tensor:
    """The box that a deformable convolution looks at from each cell (Figure 4); undoes `roi_offsets`.

    It is the circumscribed rectangle of the sampling points, taken as the centres of its outermost bins: k points
    a side span k - 1 bins, so the rectangle grows by half a bin on every side. (The caption of Figure 4 names the
    rectangle alone, which for zero offsets would be k - 1 cells wide, not the k of eq. 3.) Where k is 1, a bin
    is one cell. Zero offsets thus give exactly eq. 3, and the offsets of eq. 4 the boxes they were made from.

    offsets: (N, 2 kh kw, H, W) in cells, channels (dy, dx) a tap. Returns (N, H, W, 4), xyxy in pixels.
    """
    y, x = (points.flatten(3) for points in deformed_points(offsets, kernel_size))
    kernel_height, kernel_width = kernel_pair(kernel_size)
    y1, y2 = _span_of_bins(y, kernel_height)
    x1, x2 = _span_of_bins(x, kernel_width)
    return torch.stack([x1, y1, x2, y2], dim=-1) * stride


def _span_of_bins(centers: Tensor, num_bins: int) -> tuple[Tensor, Tensor]:
    """Low and high side of `num_bins` bins in a row, whose outermost centres are the extremes of (..., K)."""
    low, high = centers.amin(-1), centers.amax(-1)
    half_bin = 0.5 * (high - low) / (num_bins - 1) if num_bins > 1 else low.new_tensor(0.5)
    return low - half_bin, high + half_bin


def _bin_centers(start: Tensor, end: Tensor, num_bins: int, stride: float) -> Tensor:
    # Dividing by num_bins first makes the bins of an implicit RoI exactly one cell wide.
    bin_size = (end - start) / (num_bins * stride)
    centers = torch.arange(num_bins, device=start.device, dtype=start.dtype) + 0.5
    return torch.addcmul((start / stride)[..., None], bin_size[..., None], centers)


def _convolution_points(size: int, kernel_size: int, *, like: Tensor) -> Tensor:
    """Eq. 1 along one axis: (size, kernel_size) points in cells."""
    cells = torch.arange(size, device=like.device, dtype=like.dtype)
    taps = torch.arange(kernel_size, device=like.device, dtype=like.dtype)
    return cells[:, None] - kernel_size // 2 + taps + 0.5
