// Matrix products in registers: a tile of sums to which a few rows of a left matrix and one panel of a right one add
// their products (Goto, van de Geijn: Anatomy of high-performance matrix multiplication).
//
// Matrices are made of units of four bytes along their depth: one float, or two bfloat16. A right matrix lies in panels
// (columns / panel, depth, panel) of units. A tile's size is that of a kind of machine, and every function is inlined
// into that machine's kernels.
#pragma once

#include <cstdint>
#include <cstring>

#include "vectors.h"

namespace aligncli {

// What of a matrix's depth one multiply-add takes.
template <typename Value>
struct Unit {
  static constexpr int64_t size = 4 / sizeof(Value);
  Value values[size];
};

// Sums that stay in registers: `num_rows` by two vectors, whose columns are a panel's.
template <typename Matrix, int num_bytes, int64_t num_rows>
struct Tile {
  using Value = Matrix;
  static constexpr int vector_bytes = num_bytes;
  static constexpr int64_t panel = 2 * num_bytes / sizeof(float);
  static constexpr int64_t unit = Unit<Value>::size;
  static constexpr int64_t rows = num_rows;
  static constexpr int64_t some_rows = num_rows / 3;  // at a time, where fewer are left

  static ALIGNCLI_INLINE int64_t count_panels(int64_t columns) { return (columns + panel - 1) / panel; }
  static ALIGNCLI_INLINE int64_t count_units(int64_t depth) { return (depth + unit - 1) / unit; }
};
using SmallTile = Tile<float, 32, 6>;     // 12 of 16 registers: AVX2
using LargeTile = Tile<float, 64, 12>;    // 24 of 32: AVX-512
using PairTile = Tile<BFloat16, 64, 12>;  // 24 of 32: AVX-512 with products of bfloat16 (AVX512-BF16)

constexpr int64_t kDepth = 256;  // units of a product at a time: a panel stays in the first-level cache

template <int num_bytes>
using FloatVector = typename VectorOf<float, num_bytes>::Type;

template <int num_bytes>
ALIGNCLI_INLINE FloatVector<num_bytes> add_products(
    const Unit<float>& left, const FloatVector<num_bytes>& right, FloatVector<num_bytes> sums) {
  return left.values[0] * right + sums;
}

#if defined(__x86_64__) && !defined(__clang__)
#define ALIGNCLI_HAS_PAIRS 1
// Not by its intrinsic, which cannot be inlined into a function that is compiled for no machine yet. Clang refuses the
// instruction there too.
template <int num_bytes>
ALIGNCLI_INLINE FloatVector<num_bytes> add_products(
    const Unit<BFloat16>& left, const FloatVector<num_bytes>& right, FloatVector<num_bytes> sums) {
  uint32_t bits;
  std::memcpy(&bits, &left, sizeof(bits));
  const auto lefts = typename VectorOf<uint32_t, num_bytes>::Type{} + bits;
  asm("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(lefts), "v"(right));
  return sums;
}
#else
#define ALIGNCLI_HAS_PAIRS 0
#endif

// A left matrix: unit (r, k) is at[r * row_stride + k * column_stride].
template <typename Value>
struct Left {
  const Unit<Value>* at;
  int64_t row_stride, column_stride;

  Left from(int64_t row, int64_t k) const {
    return {at + row * row_stride + k * column_stride, row_stride, column_stride};
  }
};

template <typename Value>
ALIGNCLI_INLINE const Unit<Value>* units(const Value* values) {
  return reinterpret_cast<const Unit<Value>*>(values);
}

// sums (num_rows, panel), `stride` apart, += left (num_rows, depth) @ panel (depth, panel)
template <typename Tile, int64_t num_rows, typename Value = typename Tile::Value>
ALIGNCLI_INLINE void add_tile(
    const Left<Value>& left, const Unit<Value>* panel, int64_t depth, float* sums, int64_t stride) {
  using Lanes = Block<float, Tile::vector_bytes>;
  typename Lanes::Type low[num_rows], high[num_rows], first, second;
  for (int64_t row = 0; row < num_rows; ++row) {
    low[row] = Lanes::load(sums + row * stride);
    high[row] = Lanes::load(sums + row * stride + Lanes::size);
  }
  const Unit<Value>* at = left.at;
  for (int64_t k = 0; k < depth; ++k, panel += Tile::panel, at += left.column_stride) {
    std::memcpy(&first, panel, sizeof(first));
    std::memcpy(&second, panel + Lanes::size, sizeof(second));
#pragma GCC unroll 12
    for (int64_t row = 0; row < num_rows; ++row) {
      const Unit<Value> value = at[row * left.row_stride];
      low[row] = add_products<Tile::vector_bytes>(value, first, low[row]);
      high[row] = add_products<Tile::vector_bytes>(value, second, high[row]);
    }
  }
  for (int64_t row = 0; row < num_rows; ++row) {
    Lanes::store(low[row], sums + row * stride);
    Lanes::store(high[row], sums + row * stride + Lanes::size);
  }
}

template <typename Tile, typename Value = typename Tile::Value>
ALIGNCLI_INLINE void add_rows(
    const Left<Value>& left, int64_t num_rows, const Unit<Value>* panel, int64_t depth, float* sums, int64_t stride) {
  int64_t row = 0;
  for (; row + Tile::rows <= num_rows; row += Tile::rows)
    add_tile<Tile, Tile::rows>(left.from(row, 0), panel, depth, sums + row * stride, stride);
  for (; row + Tile::some_rows <= num_rows; row += Tile::some_rows)
    add_tile<Tile, Tile::some_rows>(left.from(row, 0), panel, depth, sums + row * stride, stride);
  for (; row < num_rows; ++row) add_tile<Tile, 1>(left.from(row, 0), panel, depth, sums + row * stride, stride);
}

// The same where no more than num_columns of the sums are there.
template <typename Tile, typename Value = typename Tile::Value>
ALIGNCLI_INLINE void add_columns(
    const Left<Value>& left, int64_t num_rows, const Unit<Value>* panel, int64_t depth, float* sums, int64_t stride,
    int64_t num_columns) {
  if (num_columns >= Tile::panel) return add_rows<Tile>(left, num_rows, panel, depth, sums, stride);
  const size_t num_bytes = num_columns * sizeof(float);
  for (int64_t row = 0; row < num_rows; ++row) {
    float whole[Tile::panel] = {};
    std::memcpy(whole, sums + row * stride, num_bytes);
    add_tile<Tile, 1>(left.from(row, 0), panel, depth, whole, Tile::panel);
    std::memcpy(sums + row * stride, whole, num_bytes);
  }
}

}  // namespace aligncli
