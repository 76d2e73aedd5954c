"""The fused kernel compiles, without a GPU, for every architecture that it may run on, and stays in its registers."""

import re
import subprocess

import pytest
import torch

pytest.importorskip("triton", reason="Triton comes with CUDA builds of PyTorch for Linux")

from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource, compile

from aligncli_ext import fused
from aligncli_ext.fused_kernel import roi_conv_kernel

TRITON_TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
# A block may have that much of a multiprocessor's shared memory; 99 KB on sm_86 and sm_89, which run sm_80's code.
SHARED_KILOBYTES = {80: 99, 90: 227, 100: 227}
TENSOR_CORES = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}


def compile_kernel(architecture, *, dtype=torch.bfloat16, channels=256, out_channels=256, num_levels=5):
    """What PyTorch would launch for a pyramid, by Triton's own rules of what it is specialised for."""
    levels = [
        fused.FusedLevel(
            torch.empty(1, 100 >> level, 168 >> level, channels, dtype=dtype, device="meta"),
            torch.empty(16800 >> 2 * level, 4, device="meta"),
            num_rois=16800 >> 2 * level,
            stride=8.0 * 2**level,
        )
        for level in range(num_levels)
    ]
    matrix = torch.empty(out_channels, 9 * channels, dtype=dtype, device="meta")
    rows = torch.empty(sum(len(level.boxes) for level in levels), out_channels, dtype=dtype, device="meta")
    arguments, _ = fused._arguments(levels, matrix, matrix[:, 0], (3, 3), rows)
    assert list(arguments) == roi_conv_kernel.arg_names
    signature, constants, attributes = {}, {}, {}
    for parameter, (name, value) in zip(roi_conv_kernel.params, arguments.items(), strict=True):
        path = (parameter.num,)
        if parameter.is_constexpr:
            signature[name], constants[path] = "constexpr", value
            continue
        signature[name] = tuple(map(triton_type, value)) if isinstance(value, tuple) else triton_type(value)
        if not parameter.do_not_specialize and type(value) is int and value == 1:
            signature[name], constants[path] = "constexpr", 1
            continue
        values = {(*path, index): one for index, one in enumerate(value)} if isinstance(value, tuple) else {path: value}
        for place, one in values.items():
            if not parameter.do_not_specialize and (isinstance(one, torch.Tensor) or one % 16 == 0):
                attributes[place] = [["tt.divisibility", 16]]
    options = {"num_warps": fused.TILE.num_warps, "num_stages": fused.TILE.num_stages}
    source = ASTSource(roi_conv_kernel, signature, constants, attributes)
    return compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def triton_type(value):
    match value:
        case torch.Tensor():
            return f"*{TRITON_TYPES[value.dtype]}"
        case float():
            return "fp32"
        case _:
            return "i32"


def assembler_report(ptx, architecture, folder):
    """What the assembler says about registers and spills."""
    (folder / "kernel.ptx").write_text(ptx)
    (target,) = re.findall(r"^\.target (\w+)", ptx, re.MULTILINE)
    command = [get_ptxas(architecture).path, "-v", f"-arch={target}", "kernel.ptx", "-o", "kernel.cubin"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stderr


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        (80, {}),
        (90, {}),
        (100, {}),
        (90, {"dtype": torch.float16, "channels": 45, "out_channels": 20, "num_levels": 1}),
        (80, {"channels": 1, "out_channels": 1, "num_levels": 2}),
    ],
)
def test_the_kernel_compiles_for_tensor_cores_without_spills_and_fits_shared_memory(architecture, changes, tmp_path):
    compiled = compile_kernel(architecture, **changes)
    ptx = compiled.asm["ptx"]
    assert TENSOR_CORES[architecture] in ptx
    assert compiled.metadata.shared <= SHARED_KILOBYTES[architecture] << 10
    report = assembler_report(ptx, architecture, tmp_path)
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report, report
    if not changes:
        # All four corners and the weight are copied 16 bytes at a time, ahead of the product.
        copies = re.findall(r"cp\.async\.\w+\.shared\.global [^,]*,[^,]*, (\w+), ", ptx)
        assert len(copies) >= 5
        assert set(copies) == {"0x10"}
