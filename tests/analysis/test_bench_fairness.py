"""What is the same for all contenders."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from aligncli.analysis.bench.agreement import TF32_TOLERANCE, TOLERANCES, Referee
from aligncli.analysis.bench.contenders import make_contender
from aligncli.analysis.bench.fairness import equal_settings
from aligncli.analysis.bench.layer import OperatorCase, make_operands
from aligncli.analysis.bench.machine import Machine
from aligncli.analysis.bench.report import Report, Result


@pytest.fixture(params=[True, False])
def outside(request: pytest.FixtureRequest) -> Iterator[bool]:
    """What products have outside of a benchmark."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = request.param
    yield request.param
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("tf32", [True, False])
def test_convolutions_and_products_have_one_precision(outside: bool, tf32: bool) -> None:
    convolutions = torch.backends.cudnn.allow_tf32
    with equal_settings(tf32=tf32):
        assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == tf32
    assert torch.backends.cudnn.allow_tf32 == convolutions
    assert torch.backends.cuda.matmul.allow_tf32 == outside


@pytest.mark.parametrize(("tf32", "error", "agrees"), [(False, 0.1, True), (False, 3.0, False), (True, 3.0, True)])
def test_tf32_is_held_to_what_it_can_keep(tf32: bool, error: float, agrees: bool) -> None:
    """error: in units of what float32 is allowed."""
    case = OperatorCase(size=(64, 64), in_channels=4, out_channels=4, levels=("p3",), tf32=tf32)
    operands = make_operands(case)
    contender = make_contender("conv2d", case, operands)
    assert 3.0 * TOLERANCES[torch.float32] < TF32_TOLERANCE

    def round_off(features: Sequence[Tensor], weight: Tensor, bias: Tensor) -> list[Tensor]:
        maps = contender.apply(features, weight, bias)
        return [level + error * TOLERANCES[torch.float32] * level.detach().abs().max() for level in maps]

    rounded = replace(contender, apply=round_off)
    assert (Referee(case, operands).find_failure(rounded) is None) == agrees


@pytest.mark.parametrize(("tf32", "text"), [(False, "float32"), (True, "float32 with TF32")])
def test_a_report_tells_the_precision(tf32: bool, text: str) -> None:
    machine = Machine("cuda", "processor", 1, 1, "", "", {}, load=None)
    subject = {"dtype": "float32", "tf32": tf32}
    assert Report("op", subject, machine, Result("product", "product", 1), [], peer="").precision == text
