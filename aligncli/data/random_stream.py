"""Random numbers that are the same on every machine and numpy version.

numpy keeps the raw bits of a bit generator and of SeedSequence stable for ever, but neither the methods of
`Generator` nor the last bit of libm. So everything is made from raw bits with exact or snapped arithmetic.
"""

from __future__ import annotations

import numpy as np

_BYTE_SUM_MEAN = 4 * 255 / 2
_BYTE_SUM_DEVIATION = (4 * (256**2 - 1) / 12) ** 0.5


class RandomStream:
    """The stream that belongs to a tuple of non-negative integers, for example (seed, index)."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def unit(self) -> float:
        """Uniform in [0, 1), a multiple of 2**-53."""
        return (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def uniform(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self.unit()

    def log_uniform(self, low: float, high: float) -> float:
        """Uniform in the logarithm. The last bits may differ between machines: snap before comparing."""
        return low * (high / low) ** self.unit()

    def below(self, count: int) -> int:
        """Uniform integer in 0..count-1."""
        return int(self.unit() * count)

    def bytes(self, *shape: int) -> np.ndarray:
        """Uniform integers 0..255, uint8 of the given shape."""
        count = int(np.prod(shape))
        words = self._bits.random_raw(-(-count // 8)).astype("<u8")
        return words.view(np.uint8)[:count].reshape(shape)

    def bell(self, *shape: int) -> np.ndarray:
        """Mean 0, deviation 1, close to normal within +-3.45: the sum of four bytes. float32."""
        count = int(np.prod(shape))
        first, second = self._bits.random_raw(2 * -(-count // 4)).astype("<u8").reshape(2, -1)
        lanes = np.uint64(0x00FF00FF00FF00FF)  # 16-bit lanes: four sums advance in one addition
        eight = np.uint64(8)
        total = (first & lanes) + ((first >> eight) & lanes) + (second & lanes) + ((second >> eight) & lanes)
        sums = total.view("<u2")[:count].reshape(shape).astype(np.float32)
        return (sums - np.float32(_BYTE_SUM_MEAN)) * np.float32(1 / _BYTE_SUM_DEVIATION)

    def permutation(self, count: int) -> np.ndarray:
        """A random order of 0..count-1, int64. Equal keys (once in 2**64 pairs) keep their order."""
        return np.argsort(self._bits.random_raw(count), kind="stable")
