// Vectors of channels on the CPU, of the size of its registers: float, double, and bfloat16 computed in float.
//
// Of GCC and Clang, without an intrinsic: one text serves AVX-512, AVX2, SSE2 and Neon. Nothing here is compiled by
// itself: every function is inlined into a kernel, which is compiled for one kind of machine.
#pragma once

#include <cstdint>
#include <cstring>

#define ALIGNCLI_INLINE inline __attribute__((always_inline))

namespace aligncli {

// bfloat16 as its bits: <torch/headeronly/util/BFloat16.h> does not vectorise.
struct BFloat16 {
  uint16_t bits;
};

// GCC cuts vectors that are larger than a register through memory.
template <typename Lane, int num_bytes>
struct VectorOf {
  typedef Lane Type __attribute__((vector_size(num_bytes)));
};

// What holds a vector's width of Value, to compute with; it has `size` of them. Here for float and double.
template <typename Value, int num_bytes>
struct Block {
  using Type = typename VectorOf<Value, num_bytes>::Type;
  static constexpr int64_t size = num_bytes / sizeof(Value);

  static ALIGNCLI_INLINE Type load(const Value* from) {
    Type value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  static ALIGNCLI_INLINE void store(const Type& value, Value* to) { std::memcpy(to, &value, sizeof(value)); }
  static ALIGNCLI_INLINE Type multiply_add(const Type& a, const Type& b, const Type& c) { return a * b + c; }
  static ALIGNCLI_INLINE Type scale_add(Value a, const Type& b, const Type& c) { return a * b + c; }
  static ALIGNCLI_INLINE Value sum(const Type& value) {
    Value total = 0;
    for (int64_t lane = 0; lane < size; ++lane) total += value[lane];
    return total;
  }
};

// Of each 32 bits the low half (even channels) and the high half (odd ones) in a vector of float, so that nothing has
// to be moved across a vector.
template <int num_bytes>
struct FloatPairs {
  typename VectorOf<float, num_bytes>::Type even, odd;
};

template <int num_bytes>
struct Block<BFloat16, num_bytes> {
  using Type = FloatPairs<num_bytes>;
  using Floats = typename VectorOf<float, num_bytes>::Type;
  using Bits = typename VectorOf<uint32_t, num_bytes>::Type;
  static constexpr int64_t size = num_bytes / 2;

  static ALIGNCLI_INLINE Type load(const BFloat16* from) {
    Bits pairs;
    std::memcpy(&pairs, from, sizeof(pairs));
    const Bits even = pairs << 16, odd = pairs & 0xffff0000u;
    Type value;
    std::memcpy(&value.even, &even, sizeof(even));
    std::memcpy(&value.odd, &odd, sizeof(odd));
    return value;
  }
  static ALIGNCLI_INLINE void store(const Type& value, BFloat16* to) {
    const Bits pairs = (round(value.even) >> 16) | round(value.odd);
    std::memcpy(to, &pairs, sizeof(pairs));
  }
  // To the nearest (even) bfloat16, in the upper half. A NaN that comes from bfloat16 stays one: its lower half is
  // zero, so nothing carries.
  static ALIGNCLI_INLINE Bits round(const Floats& value) {
    Bits bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  }
  static ALIGNCLI_INLINE Type multiply_add(const Type& a, const Type& b, const Type& c) {
    return {a.even * b.even + c.even, a.odd * b.odd + c.odd};
  }
  static ALIGNCLI_INLINE Type scale_add(float a, const Type& b, const Type& c) {
    return {a * b.even + c.even, a * b.odd + c.odd};
  }
  static ALIGNCLI_INLINE float sum(const Type& value) {
    return Block<float, num_bytes>::sum(value.even + value.odd);
  }
};

// A vector of sums' worth of channels, in order.
template <int num_bytes, typename Real>
ALIGNCLI_INLINE auto load_wide(const Real* from) {
  return Block<Real, num_bytes>::load(from);
}
template <int num_bytes>
ALIGNCLI_INLINE auto load_wide(const BFloat16* from) {
  typename VectorOf<uint16_t, num_bytes / 2>::Type halves;
  std::memcpy(&halves, from, sizeof(halves));
  const auto bits = __builtin_convertvector(halves, typename VectorOf<uint32_t, num_bytes>::Type) << 16;
  typename VectorOf<float, num_bytes>::Type value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

ALIGNCLI_INLINE float widen(float value) { return value; }
ALIGNCLI_INLINE double widen(double value) { return value; }
ALIGNCLI_INLINE float widen(BFloat16 value) {
  const uint32_t bits = uint32_t(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}
ALIGNCLI_INLINE void narrow(float value, float& to) { to = value; }
ALIGNCLI_INLINE void narrow(double value, double& to) { to = value; }
ALIGNCLI_INLINE void narrow(float value, BFloat16& to) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  to.bits = uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace aligncli
