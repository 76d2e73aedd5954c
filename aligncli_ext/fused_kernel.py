"""RoIConv's forward pass as one Triton kernel: sample a tile of columns, multiply it, and never write it to memory.

Triton, not CUDA C++ through NVRTC: the product is most of the work, and from this one source it becomes mma on sm_80,
wgmma on sm_90 and tcgen05 on sm_100, each with copies that run ahead of it; and the kernel runs on the CPU
(TRITON_INTERPRET=1) and compiles for a GPU that is not there, so that both are tested without one. Importing this
module imports Triton. Points, weights and what lies outside the map are as in csrc/sampling.h.
"""

import triton
import triton.language as tl


@triton.jit
def axis_tap(start, end, tap, num_taps, stride, size):
    """Along one axis, for the boxes' sides (r,): the two cells of tap `tap`, both on the map, and their weights."""
    # Rounded as in sampling.h: far outside the map, where sides of boxes cancel, another order reads another cell.
    bin_size = tl.div_rn(end - start, num_taps * stride)
    position = tl.fma(bin_size, tap + 0.5, tl.div_rn(start, stride)) - 0.5
    position = tl.where(position == position, position, -2.0)  # NaN lies outside
    last = tl.maximum(size - 2, 0)
    low = tl.minimum(tl.maximum(tl.floor(position), 0.0), last.to(tl.float32))
    distance = position - low
    low_weight = tl.maximum(1.0 - tl.abs(distance), 0.0)
    high_weight = tl.where(size > 1, tl.maximum(1.0 - tl.abs(distance - 1.0), 0.0), 0.0)
    cell = low.to(tl.int32)
    return cell, tl.minimum(cell + 1, size - 1), low_weight, high_weight


@triton.jit
def load_channels(cells, channel, num_left, WHOLE_BLOCKS: tl.constexpr):
    """(r, BLOCK_CHANNELS) in float32 behind pointers (r, BLOCK_CHANNELS); zero beyond the map's channels."""
    if WHOLE_BLOCKS:
        return tl.load(cells).to(tl.float32)
    return tl.load(cells, mask=channel[None, :] < num_left, other=0.0).to(tl.float32)


# Not specialised for numbers that vary from image to image: each kind would be compiled anew.
@triton.jit(
    do_not_specialize=["heights", "widths", "num_rois", "strides", "num_locations", "first_rows", "first_programs"]
)
def roi_conv_kernel(
    maps,  # of each level: (N, H, W, C), contiguous
    boxes,  # of each level: (N R, 4) float32, contiguous
    heights,
    widths,
    num_rois,  # of an image of each level
    strides,
    num_locations,  # of each level
    first_rows,  # of each level, in the output
    first_programs,  # of each level
    matrix,  # (O, K C)
    bias,  # (O,), or anything without HAS_BIAS
    rows,  # (locations of all levels, O)
    channels,
    out_channels,
    NUM_LEVELS: tl.constexpr,
    KERNEL_HEIGHT: tl.constexpr,
    KERNEL_WIDTH: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    WHOLE_BLOCKS: tl.constexpr,  # channels are a multiple of BLOCK_CHANNELS
    OFFSET: tl.constexpr,  # int64 where a map has 2^31 numbers or more
    BLOCK_LOCATIONS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,  # all outputs
):
    """A program makes all outputs of BLOCK_LOCATIONS locations of one level."""
    program = tl.program_id(0)
    features, level_boxes, height, width = maps[0], boxes[0], heights[0], widths[0]
    rois, stride, count, first_row, first_program = num_rois[0], strides[0], num_locations[0], first_rows[0], 0
    for level in tl.static_range(1, NUM_LEVELS):  # pyright: ignore[reportGeneralTypeIssues]
        reached = program >= first_programs[level]
        features = tl.where(reached, maps[level], features)
        level_boxes = tl.where(reached, boxes[level], level_boxes)
        height = tl.where(reached, heights[level], height)
        width = tl.where(reached, widths[level], width)
        rois = tl.where(reached, num_rois[level], rois)
        stride = tl.where(reached, strides[level], stride)
        count = tl.where(reached, num_locations[level], count)
        first_row = tl.where(reached, first_rows[level], first_row)
        first_program = tl.where(reached, first_programs[level], first_program)

    location = (program - first_program) * BLOCK_LOCATIONS + tl.arange(0, BLOCK_LOCATIONS)
    exists = location < count
    box = level_boxes + location.to(tl.int64) * 4
    x1 = tl.load(box, mask=exists, other=0.0)
    y1 = tl.load(box + 1, mask=exists, other=0.0)
    x2 = tl.load(box + 2, mask=exists, other=0.0)
    y2 = tl.load(box + 3, mask=exists, other=0.0)
    image = tl.where(exists, location // rois, 0).to(OFFSET)

    channel = tl.arange(0, BLOCK_CHANNELS)
    output = tl.arange(0, BLOCK_OUTPUTS)
    is_output = output < out_channels
    weights = matrix + output[None, :] * (KERNEL_HEIGHT * KERNEL_WIDTH * channels) + channel[:, None]
    sums = tl.zeros((BLOCK_LOCATIONS, BLOCK_OUTPUTS), dtype=tl.float32)
    for i in range(KERNEL_HEIGHT):
        top, bottom, top_weight, bottom_weight = axis_tap(y1, y2, i, KERNEL_HEIGHT, stride, height)
        upper = (image * height + top) * width
        lower = (image * height + bottom) * width
        for j in range(KERNEL_WIDTH):
            left, right, left_weight, right_weight = axis_tap(x1, x2, j, KERNEL_WIDTH, stride, width)
            upper_left = features + ((upper + left) * channels)[:, None] + channel[None, :]
            upper_right = features + ((upper + right) * channels)[:, None] + channel[None, :]
            lower_left = features + ((lower + left) * channels)[:, None] + channel[None, :]
            lower_right = features + ((lower + right) * channels)[:, None] + channel[None, :]
            for first in range(0, channels, BLOCK_CHANNELS):
                num_left = channels - first
                above = left_weight[:, None] * load_channels(upper_left + first, channel, num_left, WHOLE_BLOCKS)
                above += right_weight[:, None] * load_channels(upper_right + first, channel, num_left, WHOLE_BLOCKS)
                below = left_weight[:, None] * load_channels(lower_left + first, channel, num_left, WHOLE_BLOCKS)
                below += right_weight[:, None] * load_channels(lower_right + first, channel, num_left, WHOLE_BLOCKS)
                columns = top_weight[:, None] * above + bottom_weight[:, None] * below
                is_weight = is_output[None, :]
                if not WHOLE_BLOCKS:
                    is_weight = is_weight & (channel[:, None] < num_left)
                tile = tl.load(weights + first, mask=is_weight, other=0.0)  # (BLOCK_CHANNELS, BLOCK_OUTPUTS)
                sums = tl.dot(columns.to(tile.dtype), tile, sums)
            weights += channels

    if HAS_BIAS:
        sums += tl.load(bias + output, mask=is_output, other=0.0).to(tl.float32)[None, :]
    row = (first_row + location).to(tl.int64)
    tl.store(
        rows + row[:, None] * out_channels + output[None, :],
        sums.to(rows.dtype.element_ty),
        mask=exists[:, None] & is_output[None, :],
    )
