"""The layer that is benchmarked, its contenders, and the referee that lets no wrong one through."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from aligncli.analysis.bench.agreement import Referee
from aligncli.analysis.bench.contenders import OURS, PEERS, build_call, make_contender
from aligncli.analysis.bench.layer import DIRECTIONS, OperatorCase, make_operands

CASE = OperatorCase(size=(96, 140), in_channels=12, out_channels=10, levels=("p3", "p4", "p5"))
CONTENDERS = (*PEERS, f"{OURS}portable", f"{OURS}reference")


def test_a_detectors_pyramid_has_these_maps():
    assert OperatorCase().shapes == [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]
    assert OperatorCase().strides == [8, 16, 32, 64, 128]
    assert OperatorCase(batch=2).num_rows == 2 * (16800 + 4200 + 1050 + 273 + 77)


def test_flops_are_those_of_the_matrix_product():
    case = OperatorCase(kernel_size=7, out_channels=1024)
    assert case.flops("forward") == 2 * 22400 * 49 * 256 * 1024
    assert case.flops("forward+backward") == 3 * case.flops("forward")


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", ["conv2d", f"{OURS}portable"])
def test_torchs_counter_agrees_on_the_flops(name, direction):
    case = replace(CASE, size=(64, 96), batch=2)
    call = build_call(name, direction, case)
    with FlopCounterMode(display=False) as counter:
        call()
    assert counter.get_total_flops() == case.flops(direction)


def test_operands_repeat_and_lie_channels_last():
    first, second = make_operands(CASE), make_operands(CASE)
    for one, other in zip(
        first.features + first.boxes + [first.weight], second.features + second.boxes + [second.weight]
    ):
        assert torch.equal(one, other)
    assert all(level.is_contiguous(memory_format=torch.channels_last) for level in [*first.features, first.weight])


def test_refined_anchors_lie_in_the_image_and_around_their_cells():
    case = replace(CASE, size=(800, 1333), levels=("p4",), in_channels=1, out_channels=1)
    [boxes] = make_operands(case).boxes
    assert boxes.shape == (1, 50, 84, 4)
    x1, y1, x2, y2 = boxes.unbind(-1)
    assert float(x1.min()) >= 0
    assert float(y1.min()) >= 0
    assert float(x2.max()) <= 1333
    assert float(y2.max()) <= 800
    inner = (slice(None), slice(10, 40), slice(10, 70))
    centre = (torch.arange(84) + 0.5) * 16
    assert float(((x1 + x2) / 2 - centre)[inner].mean()) == pytest.approx(0, abs=1)  # pixels
    assert float((x2 - x1)[inner].median()) == pytest.approx(4 * 16, rel=0.05)


@pytest.mark.parametrize("boxes", ["refined", "implicit"])
@pytest.mark.parametrize(("kernel_size", "batch"), [(1, 1), (3, 2), (5, 1)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_all_contenders_agree_with_the_reference(dtype, kernel_size, batch, boxes):
    case = replace(CASE, dtype=dtype, kernel_size=kernel_size, batch=batch, boxes=boxes)
    operands = make_operands(case)
    referee = Referee(case, operands)
    assert {name: referee.find_failure(make_contender(name, case, operands)) for name in CONTENDERS} == dict.fromkeys(
        CONTENDERS
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["conv2d", f"{OURS}portable"])
def test_half_types_are_held_to_what_they_can_keep(name, dtype):
    case = replace(CASE, dtype=dtype)
    operands = make_operands(case)
    assert Referee(case, operands).find_failure(make_contender(name, case, operands)) is None


def test_on_implicit_boxes_every_contender_is_the_convolution():
    case = replace(CASE, boxes="implicit", dtype="float64")
    operands = make_operands(case)
    contenders = {name: make_contender(name, case, operands) for name in CONTENDERS}
    outputs = {name: contender.forward() for name, contender in contenders.items()}
    for level, convolved in enumerate(outputs["conv2d"]):
        height, width = convolved.shape[2:]
        inner = torch.zeros(height, width, dtype=torch.bool)
        inner[1:-1, 1:-1] = True  # RoIAlign repeats the border
        for name in CONTENDERS[1:]:
            rows = contenders[name].rows(outputs[name][level])
            where = inner.flatten() if name == "roi_align" else slice(None)
            torch.testing.assert_close(rows[:, where], convolved.flatten(2).mT[:, where])


@pytest.mark.parametrize("name", CONTENDERS)
def test_a_call_returns_what_was_learned_of_each_input(name):
    outputs = build_call(name, "forward", CASE)()
    assert [output.requires_grad for output in outputs] == [False] * 3
    *same, p3, p4, p5, weight, bias = build_call(name, "forward+backward", CASE)()
    assert [level.shape for level in same] == [level.shape for level in outputs]
    assert [level.shape[2:] for level in (p3, p4, p5)] == [(12, 20), (6, 10), (3, 5)]
    assert (weight.shape, bias.shape) == ((10, 12, 3, 3), (10,))


WRONGS = {
    "its output": lambda apply, x, w, b: [level + 0.5 for level in apply(x, w, b)],
    "its output under autograd": lambda apply, x, w, b: [
        level + 0.5 * torch.is_grad_enabled() for level in apply(x, w, b)
    ],
    "its gradient to the features": lambda apply, x, w, b: apply([level.detach() + 0 * level for level in x], w, b),
    "its gradient to the weight": lambda apply, x, w, b: apply(x, 2 * w - w.detach(), b),
    "its gradient to the bias": lambda apply, x, w, b: apply(x, w, b.detach() + 0 * b),
}


@pytest.mark.parametrize("what", WRONGS)
@pytest.mark.parametrize("name", ["conv2d", "roi_align", f"{OURS}portable"])
def test_a_wrong_contender_is_found_out(name, what):
    operands = make_operands(CASE)
    right = make_contender(name, CASE, operands)
    wrong = replace(right, apply=lambda x, w, b: WRONGS[what](right.apply, x, w, b))
    failure = Referee(CASE, operands).find_failure(wrong)
    assert failure is not None
    assert failure.is_wrong
    assert failure.reason.startswith(f"{what} is wrong by ")


def test_a_single_wrong_location_at_the_border_is_found_out():
    operands = make_operands(CASE)
    right = make_contender(f"{OURS}portable", CASE, operands)

    def apply(features, weight, bias):
        outputs = right.apply(features, weight, bias)
        return [*outputs[:-1], torch.cat([outputs[-1][:, :-1], outputs[-1][:, -1:] * 1.01], dim=1)]

    assert "its output is wrong" in str(Referee(CASE, operands).find_failure(replace(right, apply=apply)))


def test_not_a_number_is_wrong():
    operands = make_operands(CASE)
    right = make_contender("conv2d", CASE, operands)
    wrong = replace(right, apply=lambda x, w, b: [level * float("nan") for level in right.apply(x, w, b)])
    assert "its output is wrong by nan" in str(Referee(CASE, operands).find_failure(wrong))


def test_roi_align_without_a_location_inside_is_not_taken_for_right():
    case = replace(CASE, size=(32, 32), levels=("p5",), boxes="implicit")  # one cell
    operands = make_operands(case)
    referee = Referee(case, operands)
    failure = referee.find_failure(make_contender("roi_align", case, operands))
    assert failure is not None
    assert failure.reason.startswith("not checked")
    assert not failure.is_wrong
    assert referee.find_failure(make_contender("deform_conv2d", case, operands)) is None
