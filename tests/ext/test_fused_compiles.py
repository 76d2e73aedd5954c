"""The fused kernel compiles for Hopper, without a GPU, and stays in its registers; what it serves fits its memory."""

import pytest
import torch

from aligncli_ext import fused, nvrtc
from aligncli_ext.nvrtc import CudaUnavailable, compile_kernels
from tests.ext.test_cuda_compiles import register_usage


@pytest.fixture
def hopper() -> None:
    try:
        if 90 not in nvrtc.supported_architectures():
            pytest.skip("this NVRTC does not compile for sm_90")
    except CudaUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("element_type", ["float16", "bfloat16"])
@pytest.mark.parametrize("outputs", fused.OUTPUTS)
def test_the_kernel_compiles_without_spills_in_a_blocks_registers(element_type, outputs):
    usage = register_usage(compile_kernels(fused.fused_program(element_type, outputs)).report)
    assert usage.keys() == {"roi_conv_fused", "pack_weight"}
    registers, memory = usage["roi_conv_fused"]
    assert registers * 512 <= 65_536
    assert memory == [0, 0, 0], "stack frame, spill stores and spill loads"


def test_a_block_makes_as_few_outputs_as_hold_all():
    found = {count: fused.outputs_for(count) for count in (8, 64, 72, 128, 136, 256)}
    assert found == {8: 64, 64: 64, 72: 128, 128: 128, 136: 256, 256: 256}


@pytest.mark.parametrize("outputs", fused.OUTPUTS)
@pytest.mark.parametrize("sides", [2, 6, 10, 14, 24, 40, 60, 110])
def test_stages_fit_shared_memory_or_the_layer_is_not_served(sides, outputs):
    stages = fused.most_stages(sides, outputs)
    assert 0 <= stages <= 3
    if stages:
        assert fused._shared_bytes(sides, outputs, stages) <= 227 << 10
    if stages < 3:
        assert fused._shared_bytes(sides, outputs, stages + 1) > 227 << 10


def layer(out_channels=256, channels=256, kernel_size=(3, 3), dtype=torch.bfloat16, offset=0):
    memory = torch.empty(channels * 4 + offset, dtype=dtype)[offset:]
    maps = [memory.view(1, 2, 2, channels).permute(0, 3, 1, 2)]
    return maps, torch.empty(out_channels, channels, *kernel_size, dtype=dtype, device="meta")


def test_it_serves_whole_steps_of_channels_and_whole_accesses():
    assert fused.serves(*layer())
    assert fused.serves(*layer(out_channels=8, channels=64, kernel_size=(7, 7), dtype=torch.float16))
    assert not fused.serves(*layer(dtype=torch.float32))
    assert not fused.serves(*layer(channels=96))
    assert not fused.serves(*layer(out_channels=12))
    assert not fused.serves(*layer(out_channels=264))
    assert not fused.serves(*layer(kernel_size=(60, 60)))
    assert not fused.serves(*layer(offset=4))
    maps, weight = layer()
    assert not fused.serves([torch.empty(1, 256, 2**12, 2**11, dtype=torch.bfloat16, device="meta"), *maps], weight)


def test_the_instruction_names_a_register_for_each_sum():
    header = fused._wgmma_header("bfloat16", 64)
    assert "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16" in header
    assert header.count('"+f"(sums[31])') == 2  # multiply_add and wait_for_products
    assert "sums[32]" not in header
    assert "m64n256k16.f32.f16.f16" in fused._wgmma_header("float16", 256)
