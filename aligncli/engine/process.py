"""What commands set for their whole process before they train or detect. The library by itself sets nothing."""

import torch

from aligncli.engine.memory import keep_freed_memory


def prepare_process() -> None:
    """Keep freed memory, and give matrix products the precision of convolutions."""
    keep_freed_memory()
    multiply_as_convolutions_do()


def multiply_as_convolutions_do() -> None:
    """On CUDA in float32, matrix products in TF32 if cuDNN's convolutions are: PyTorch's default for these alone.

    RoIConv is a convolution made of matrix products. In full float32 beside a RetinaNet in TF32 its time would say
    more about the two settings than about the two detectors (docs/results/pipeline.md, H200).
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
