"""Who computes RoIConv, and that people are told why."""

from types import SimpleNamespace

import pytest
import torch

from aligncli.errors import DeviceError, RecipeError
from aligncli.ops import RoIConv2d, choose_backend, native_cuda, native_fused, operator, roi_conv
from aligncli.ops import backend as backends
from aligncli_ext.cpu import CpuKernels


@pytest.fixture
def no_kernels(monkeypatch):
    """A machine on which the native library cannot be built."""
    monkeypatch.delenv("ALIGNCLI_ROI_CONV", raising=False)
    monkeypatch.setattr(backends, "load_cpu_kernels", lambda: CpuKernels(None, "there is no C++ compiler"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_auto_is_the_native_backend_where_there_is_a_library(monkeypatch, dtype, tmp_path):
    monkeypatch.delenv("ALIGNCLI_ROI_CONV", raising=False)
    monkeypatch.setattr(backends, "load_cpu_kernels", lambda: CpuKernels(tmp_path, None))
    backend = choose_backend(dtype=dtype)
    assert backend.name == "native"
    assert backend.reason


def test_auto_is_the_portable_backend_where_there_is_none_and_says_why(no_kernels):
    backend = choose_backend()
    assert backend.name == "portable"
    assert "there is no C++ compiler" in backend.reason
    weight = torch.randn(2, 3, 3, 3)
    assert roi_conv(torch.randn(1, 3, 5, 5), torch.rand(1, 4, 4) * 40, weight, stride=8).shape == (1, 4, 2)


def test_asking_for_a_native_backend_that_is_not_to_be_had_is_an_error_with_the_reason(no_kernels, monkeypatch):
    message = r"RoIConv backend native \(it was asked for\) is not to be had: there is no C\+\+ compiler; use auto"
    with pytest.raises(DeviceError, match=message):
        choose_backend("native")
    weight = torch.randn(2, 3, 3, 3)
    with pytest.raises(DeviceError, match=message):
        roi_conv(torch.randn(1, 3, 5, 5), torch.rand(1, 4, 4) * 40, weight, stride=8, backend="native")
    monkeypatch.setenv("ALIGNCLI_ROI_CONV", "native")
    with pytest.raises(DeviceError, match="ALIGNCLI_ROI_CONV is set"):
        choose_backend()


def test_float16_is_portable_on_the_cpu_and_the_reason_says_so():
    backend = choose_backend(dtype=torch.float16)
    assert backend.name == "portable"
    assert "float32, float64 and bfloat16, not float16" in backend.reason


def test_other_devices_are_portable():
    assert choose_backend(device="mps").reason.endswith("there are no kernels for mps devices")


@pytest.mark.parametrize("backend", ["native", "portable", "reference"])
def test_a_backend_can_be_asked_for(monkeypatch, backend):
    monkeypatch.delenv("ALIGNCLI_ROI_CONV", raising=False)
    assert choose_backend(backend).name == backend


def test_the_environment_forces_a_backend_and_the_reason_says_so(monkeypatch):
    monkeypatch.setenv("ALIGNCLI_ROI_CONV", "reference")
    backend = choose_backend("portable")
    assert backend.name == "reference"
    assert "ALIGNCLI_ROI_CONV" in backend.reason


def test_an_unknown_backend_names_the_choices():
    with pytest.raises(
        RecipeError, match="'fastest' is unknown: choose one of auto, native, fused, portable, reference"
    ):
        choose_backend("fastest")


def test_an_unknown_backend_in_the_environment_names_the_variable(monkeypatch):
    monkeypatch.setenv("ALIGNCLI_ROI_CONV", "fastest")
    with pytest.raises(RecipeError, match="ALIGNCLI_ROI_CONV 'fastest' is unknown"):
        choose_backend("portable")


def test_an_unknown_backend_is_refused_when_the_module_is_built():
    with pytest.raises(RecipeError, match="choose one of"):
        RoIConv2d(1, 1, 3, stride=8, backend="fastest")


# ---------------------------------------------------------------- fused, on a GPU that is not there


@pytest.fixture
def gpu(monkeypatch):
    """A device with every kernel."""
    monkeypatch.delenv("ALIGNCLI_ROI_CONV", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(backends.cuda, "unavailable_reason", lambda dtype, index: None)
    monkeypatch.setattr(backends.fused, "unavailable_reason", lambda index: None)


@pytest.mark.usefixtures("gpu")
def test_the_fused_kernel_is_taken_where_there_is_one(monkeypatch):
    assert choose_backend(device="cuda", dtype=torch.bfloat16).name == "fused"
    assert choose_backend(device="cuda", dtype=torch.float32).name == "native"
    monkeypatch.setenv("ALIGNCLI_ROI_CONV", "fused")
    assert choose_backend(device="cuda", dtype=torch.bfloat16).reason == "ALIGNCLI_ROI_CONV is set"
    monkeypatch.delenv("ALIGNCLI_ROI_CONV")
    monkeypatch.setattr(backends.fused, "unavailable_reason", lambda index: "it is no Hopper")
    assert choose_backend(device="cuda", dtype=torch.bfloat16).name == "native"


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ({"dtype": torch.bfloat16, "out_channels": 257}, "257 outputs, only up to 256"),
        ({"dtype": torch.float32, "out_channels": 256}, "float32, only float16 and bfloat16"),
    ],
)
def test_a_layer_that_the_fused_kernel_does_not_serve_is_natives(layer, reason):
    assert choose_backend(device="cuda", **layer).name == "native"
    backend = choose_backend("fused", device="cuda", **layer)
    assert backend.name == "native"
    assert backend.reason == f"fused (it was asked for) does not serve {reason}"


@pytest.mark.usefixtures("gpu")
def test_asking_for_a_fused_kernel_that_a_device_does_not_have_is_an_error(monkeypatch):
    monkeypatch.setattr(backends.fused, "unavailable_reason", lambda index: "it is no Hopper")
    with pytest.raises(DeviceError, match=r"fused \(it was asked for\) is not to be had: it is no Hopper; use auto"):
        choose_backend("fused", device="cuda", dtype=torch.bfloat16)
    with pytest.raises(DeviceError, match="it runs on CUDA devices, not on cpu"):
        choose_backend("fused", device="cpu")


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("backend", "module"), [("native", native_cuda), ("fused", native_fused)])
def test_each_cuda_backend_has_its_implementation(backend, module):
    weight = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float16, shape=(256, 8, 3, 3), is_cuda=True)
    assert operator._implementation(backend, weight) is module


@pytest.mark.parametrize(("backend", "is_custom_op"), [("native", True), ("portable", True), ("reference", False)])
def test_the_backend_asked_for_is_the_one_that_runs(monkeypatch, backend, is_custom_op):
    monkeypatch.delenv("ALIGNCLI_ROI_CONV", raising=False)
    weight = torch.randn(2, 3, 3, 3, requires_grad=True)
    output = roi_conv(torch.randn(1, 3, 5, 5), torch.rand(1, 4, 4) * 40, weight, stride=8, backend=backend)
    graph = str(output.grad_fn.next_functions[0][0])
    assert ("aligncli_roi_conv" in graph) == is_custom_op
