"""What all benchmarks have in common: clocks, equal settings, and the matrix product that runs among the contenders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch

from aligncli.analysis.bench.machine import product_flops, square_products
from aligncli.analysis.bench.report import Result
from aligncli.analysis.bench.timing import Sample, Timer

Progress = Callable[[str, int, int], None]  # stage, done, total
PRODUCT_SIDES = {"cpu": 2048, "cuda": 8192}  # 17 GFLOP, and 1.1 TFLOP
PRODUCT_TRIALS = 3  # of each way to the product: one slower than the fastest by the margin takes no part
PRODUCT_MARGIN = 1.3
COPIED = 256 << 20  # bytes
SHORTEST_SAMPLE = {"cpu": 0.0, "cuda": 0.01}  # seconds


def make_timer(device: str) -> Timer:
    """Clocks for calls on a device."""
    if torch.device(device).type == "cuda":
        return Timer(partial(torch.cuda.synchronize, device), shortest=SHORTEST_SAMPLE["cuda"])
    return Timer(shortest=SHORTEST_SAMPLE["cpu"])


def product_side(device: str) -> int:
    """Of the square product that tells a device's rate: large enough to reach it, small enough to be repeated."""
    return PRODUCT_SIDES[torch.device(device).type]


def fast_products(side: int, dtype: torch.dtype, device: str, timer: Timer) -> dict[str, Callable[[], object]]:
    """The ways to the square product that may be the fastest one, warm."""
    products = square_products(side, dtype, device)
    seconds = {
        name: min(timer.sample(product).wall for _ in range(PRODUCT_TRIALS)) for name, product in products.items()
    }
    limit = PRODUCT_MARGIN * min(seconds.values())
    return {f"{name} {side}^3": product for name, product in products.items() if seconds[name] <= limit}


def fastest_product(side: int, samples: Mapping[str, list[Sample]]) -> Result:
    """The machine's limit, from the samples of each way to the square product."""
    timed = [Result(name, "product", product_flops(side), taken) for name, taken in samples.items()]
    return min(timed, key=lambda product: product.seconds.median)


def copy_bandwidth(device: str, timer: Timer) -> float:
    """Bytes a second that a device reads and writes together, copying more than its caches hold; the best of a few."""
    source = torch.ones(COPIED // 4, device=device)
    target = torch.empty_like(source)
    copy = partial(target.copy_, source)
    return 2 * COPIED / min(timer.sample(copy).wall for _ in range(1 + PRODUCT_TRIALS))


@contextmanager
def equal_settings(*, tf32: bool) -> Iterator[None]:
    """cuDNN's fastest algorithm; on CUDA, float32 that is float32 everywhere, or TF32 in convolutions and products."""
    products = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=tf32):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = products
