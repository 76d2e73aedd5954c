"""What is named is where a value that is not finite first came up."""

import pytest
import torch
from torch import nn

from aligncli.engine.first_broken import tensors_in, watching
from aligncli.models.postprocess import Candidates


class Chain(nn.Module):
    """Two linear maps, with a function between them and one behind."""

    def __init__(self, between, behind):
        super().__init__()
        self.first, self.relu, self.second = nn.Linear(2, 2), nn.ReLU(inplace=True), nn.Linear(2, 2)
        self.between, self.behind = between, behind

    def forward(self, x):
        return self.behind(self.second(self.relu(self.between(self.first(x)))))


def culprit(model: nn.Module) -> str:
    torch.manual_seed(0)
    with watching(model) as found:
        model(torch.ones(1, 2)).sum().backward()
    return found.describe()


def same(x):
    return x


def root_of_nothing(x):
    """0, with an infinite slope that becomes NaN times zero."""
    return x + ((x - x) ** 2).sqrt()


@pytest.mark.parametrize(
    ("between", "behind", "expected"),
    [
        (same, same, "every module's output and every gradient is finite"),
        (lambda x: x / 0, same, "first output that is not finite: relu (ReLU)"),
        (same, lambda x: x * torch.nan, "first gradient that is not: of the output of second (Linear)"),
        (root_of_nothing, same, "first gradient that is not: of the output of first (Linear)"),
    ],
)
def test_the_first_output_or_gradient_that_is_not_finite_is_named(between, behind, expected):
    assert culprit(Chain(between, behind)).endswith(expected)


def test_a_weight_that_was_broken_before_comes_first():
    model = Chain(same, same)
    with torch.no_grad():
        model.second.bias[0] = torch.inf
    assert culprit(model) == "weight second.bias is not finite before the step"


def test_the_hooks_are_gone_afterwards():
    model = Chain(same, same)
    culprit(model)
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(parameter._backward_hooks for parameter in model.parameters())


def test_tensors_are_found_in_all_that_modules_return():
    a, b, c = (torch.ones(()) for _ in range(3))
    assert [id(x) for x in tensors_in({"a": [a, (b,)], "c": c, "d": 3})] == [id(x) for x in (a, b, c)]
    assert len(list(tensors_in(Candidates(logits=a, values=b, references=c, decode=torch.add)))) == 3
