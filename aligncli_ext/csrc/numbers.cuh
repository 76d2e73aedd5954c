// The element types of the CUDA kernels: loading, storing and adding WIDTH neighbours, which are float32 in between.
//
// float16 and bfloat16 are plain bits here, so that no CUDA header is needed. Conversions round to the nearest even.
#pragma once

namespace aligncli {

struct Float16 {
  static constexpr bool IS_BFLOAT16 = false;
  unsigned short bits;
};

struct BFloat16 {
  static constexpr bool IS_BFLOAT16 = true;
  unsigned short bits;
};

#define ALIGNCLI_DEVICE __device__ __forceinline__

ALIGNCLI_DEVICE float to_float(float value) { return value; }

ALIGNCLI_DEVICE void from_float(float value, float& result) { result = value; }

#ifdef __CUDACC__

ALIGNCLI_DEVICE float to_float(BFloat16 value) { return __uint_as_float(unsigned(value.bits) << 16); }

ALIGNCLI_DEVICE float to_float(Float16 value) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
}

ALIGNCLI_DEVICE void from_float(float value, Float16& result) {
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
}

ALIGNCLI_DEVICE void from_float(float value, BFloat16& result) {
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
#else
  // Half of the last place kept, less one where that place is even; a carry runs into the exponent as it should.
  const unsigned bits = __float_as_uint(value);
  const unsigned rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  result.bits = static_cast<unsigned short>(value == value ? rounded : 0x7fffu);
#endif
}

ALIGNCLI_DEVICE float sum_over_warp(float value) {
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

#endif  // otherwise the tests' emulator has defined the same functions

// One memory access.
template <typename Number, int WIDTH>
struct alignas(sizeof(Number) * WIDTH) Pack {
  Number numbers[WIDTH];
};

// Two neighbours as they lie in memory, the first in the lower half.
template <typename Half>
ALIGNCLI_DEVICE void pair_to(unsigned pair, float& first, float& second) {
#ifdef __CUDACC__
  if constexpr (Half::IS_BFLOAT16) {  // without taking the halves apart
    first = __uint_as_float(pair << 16);
    second = __uint_as_float(pair & 0xffff0000u);
    return;
  }
#endif
  first = to_float(Half{static_cast<unsigned short>(pair & 0xffffu)});
  second = to_float(Half{static_cast<unsigned short>(pair >> 16)});
}

// One conversion where the architecture has one for both.
template <typename Half>
ALIGNCLI_DEVICE unsigned pair_from(float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  unsigned pair;
  if constexpr (Half::IS_BFLOAT16) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  }
  return pair;
#else
  Half low, high;
  from_float(first, low);
  from_float(second, high);
  return unsigned(low.bits) | unsigned(high.bits) << 16;
#endif
}

template <int WIDTH, typename Number>
ALIGNCLI_DEVICE void load(const Number* address, float (&values)[WIDTH]) {
  if constexpr (sizeof(Number) == 2 && WIDTH % 2 == 0) {
    const Pack<unsigned, WIDTH / 2> pack = *reinterpret_cast<const Pack<unsigned, WIDTH / 2>*>(address);
#pragma unroll
    for (int pair = 0; pair < WIDTH / 2; ++pair) {
      pair_to<Number>(pack.numbers[pair], values[2 * pair], values[2 * pair + 1]);
    }
  } else {
    const Pack<Number, WIDTH> pack = *reinterpret_cast<const Pack<Number, WIDTH>*>(address);
#pragma unroll
    for (int lane = 0; lane < WIDTH; ++lane) values[lane] = to_float(pack.numbers[lane]);
  }
}

template <int WIDTH, typename Number>
ALIGNCLI_DEVICE void store(Number* address, const float (&values)[WIDTH]) {
  if constexpr (sizeof(Number) == 2 && WIDTH % 2 == 0) {
    Pack<unsigned, WIDTH / 2> pack;
#pragma unroll
    for (int pair = 0; pair < WIDTH / 2; ++pair) {
      pack.numbers[pair] = pair_from<Number>(values[2 * pair], values[2 * pair + 1]);
    }
    *reinterpret_cast<Pack<unsigned, WIDTH / 2>*>(address) = pack;
  } else {
    Pack<Number, WIDTH> pack;
#pragma unroll
    for (int lane = 0; lane < WIDTH; ++lane) from_float(values[lane], pack.numbers[lane]);
    *reinterpret_cast<Pack<Number, WIDTH>*>(address) = pack;
  }
}

// Adds to memory that other threads add to as well.
ALIGNCLI_DEVICE void add(float* address, const float (&values)[1]) { atomicAdd(address, values[0]); }

ALIGNCLI_DEVICE void add(float* address, const float (&values)[4]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(address)),
               "f"(values[0]), "f"(values[1]), "f"(values[2]), "f"(values[3])
               : "memory");
#else
#pragma unroll
  for (int lane = 0; lane < 4; ++lane) atomicAdd(address + lane, values[lane]);
#endif
}

}  // namespace aligncli
