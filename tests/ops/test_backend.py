"""Who computes RoIConv, and that people are told why."""

import pytest
import torch

from aligncli.errors import RecipeError
from aligncli.ops import BACKENDS, RoIConv2d, choose_backend, roi_conv


def test_auto_is_the_portable_backend(monkeypatch):
    monkeypatch.delenv("ALIGNCLI_ROI_CONV", raising=False)
    backend = choose_backend()
    assert backend.name == "portable"
    assert backend.reason


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_can_be_asked_for(monkeypatch, name):
    monkeypatch.delenv("ALIGNCLI_ROI_CONV", raising=False)
    assert choose_backend(name).name == name


def test_the_environment_forces_a_backend_and_the_reason_says_so(monkeypatch):
    monkeypatch.setenv("ALIGNCLI_ROI_CONV", "reference")
    backend = choose_backend("portable")
    assert backend.name == "reference"
    assert "ALIGNCLI_ROI_CONV" in backend.reason


def test_an_unknown_backend_names_the_choices():
    with pytest.raises(RecipeError, match="'fastest' is unknown: choose one of auto, portable, reference"):
        choose_backend("fastest")


def test_an_unknown_backend_in_the_environment_names_the_variable(monkeypatch):
    monkeypatch.setenv("ALIGNCLI_ROI_CONV", "fastest")
    with pytest.raises(RecipeError, match="ALIGNCLI_ROI_CONV 'fastest' is unknown"):
        choose_backend("portable")


def test_an_unknown_backend_is_refused_when_the_module_is_built():
    with pytest.raises(RecipeError, match="choose one of"):
        RoIConv2d(1, 1, 3, stride=8, backend="fastest")


@pytest.mark.parametrize(("requested", "is_custom_op"), [("portable", True), ("reference", False)])
def test_the_backend_asked_for_is_the_one_that_runs(monkeypatch, requested, is_custom_op):
    monkeypatch.delenv("ALIGNCLI_ROI_CONV", raising=False)
    weight = torch.randn(2, 3, 3, 3, requires_grad=True)
    output = roi_conv(torch.randn(1, 3, 5, 5), torch.rand(1, 4, 4) * 40, weight, stride=8, backend=requested)
    graph = str(output.grad_fn.next_functions[0][0])
    assert ("aligncli_roi_conv" in graph) == is_custom_op
