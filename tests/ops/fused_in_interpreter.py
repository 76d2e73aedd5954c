"""The fused kernel on the CPU, in Triton's interpreter, against the reference: run by test_native_fused.py.

Not collected by itself: TRITON_INTERPRET has to be set before the kernel is imported. bfloat16 is left to the GPU: the
interpreter multiplies its bits as integers (triton 3.8). The arithmetic is the same in float32, which shows more of it.
"""

import pytest
import torch
from hypothesis import given, settings

from aligncli.ops import native_fused, reference
from aligncli_ext import fused
from tests.ops.test_portable import problems


def assert_is_the_reference(features, boxes, weight, bias, strides, tolerance):
    rows = native_fused.forward(features, boxes, weight, bias, strides)
    exact = reference.forward(
        [level.float() for level in features], boxes, weight.float(), None if bias is None else bias.float(), strides
    )
    assert rows.shape == exact.shape
    assert rows.dtype == weight.dtype
    assert rows.isfinite().all()
    scale = max(exact.abs().max().item(), 1.0) if exact.numel() else 1.0
    torch.testing.assert_close(rows.float(), exact, rtol=0, atol=tolerance * scale)


@settings(max_examples=10, deadline=None)
@given(problem=problems(dtype=torch.float32))
def test_values_are_the_references_for_wild_problems(problem):
    features, boxes, weight, bias, stride = problem
    # At 40 cells from the corner a coordinate is rounded by 40 / 2^24, which the slopes of noise multiply.
    assert_is_the_reference([features], [boxes], weight, bias, [float(stride)], 2e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float16, 2e-3)])
@pytest.mark.parametrize("channels", [1, 31, 32, 64, 80])  # blocks of 32, whole and not
@pytest.mark.parametrize("kernel_size", [(3, 3), (2, 5)])
def test_every_type_and_width_is_as_precise_as_its_numbers(dtype, tolerance, channels, kernel_size, random_boxes):
    features = torch.randn(2, channels, 5, 6).to(dtype).to(memory_format=torch.channels_last)
    boxes = random_boxes(2, 5, 6, 8).flatten(1, 2).float()
    weight = (torch.randn(21, channels, *kernel_size) / 17).to(dtype)
    assert_is_the_reference([features], [boxes], weight, torch.randn(21).to(dtype), [8.0], tolerance)


@pytest.mark.parametrize("tile", [fused.TILE, fused.Tile(locations=16, channels=16)])
def test_levels_of_any_size_go_through_one_launch(tile, monkeypatch, random_boxes):
    monkeypatch.setattr(fused, "TILE", tile)
    sizes, strides = [(9, 8), (4, 5), (1, 1), (2, 1)], [8.0, 16.0, 32.0, 64.0]
    features = [torch.randn(3, 20, *size) for size in sizes]
    boxes = [random_boxes(3, *size, stride).flatten(1, 2).float() for size, stride in zip(sizes, strides)]
    boxes[2] = boxes[2][:, :0]  # no box on a level
    assert_is_the_reference(features, boxes, torch.randn(40, 20, 3, 3), torch.randn(40), strides, 2e-6)


def test_a_large_map_is_addressed_in_64_bits(monkeypatch, random_boxes):
    arguments = fused._arguments

    def with_wide_offsets(*given):
        import triton.language as tl

        values, num_programs = arguments(*given)
        assert values["OFFSET"] == tl.int32
        return {**values, "OFFSET": tl.int64}, num_programs

    monkeypatch.setattr(fused, "_arguments", with_wide_offsets)
    boxes = random_boxes(2, 5, 6, 8).flatten(1, 2).float()
    assert_is_the_reference([torch.randn(2, 8, 5, 6)], [boxes], torch.randn(4, 8, 3, 3), None, [8.0], 2e-6)
