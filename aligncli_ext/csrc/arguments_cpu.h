// What the CPU operators are given: tensors, which are checked here and nowhere else, and a level made of them.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>

#include "levels_cpu.h"

namespace aligncli {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename Value>
inline constexpr ScalarType kScalarType = ScalarType::BFloat16;
template <>
inline constexpr ScalarType kScalarType<float> = ScalarType::Float;
template <>
inline constexpr ScalarType kScalarType<double> = ScalarType::Double;

template <typename Real>
Level<Real> describe(
    const Tensor& map, const Tensor& boxes, int64_t first, int64_t num_rows, int64_t kernel_height,
    int64_t kernel_width, int64_t row_begin, int64_t row_end, double stride) {
  STD_TORCH_CHECK(map.dim() == 4 && map.is_contiguous(), "aligncli_ext: the map must be a contiguous (N, H, W, C)");
  STD_TORCH_CHECK(
      boxes.dim() == 3 && boxes.size(2) == 4 && boxes.is_contiguous() && boxes.scalar_type() == kScalarType<Real>,
      "aligncli_ext: boxes must be a contiguous (N, R, 4), float64 for float64 and float32 otherwise");
  STD_TORCH_CHECK(first >= 0 && first + num_rows <= boxes.size(0) * boxes.size(1), "aligncli_ext: no such locations");
  STD_TORCH_CHECK(boxes.size(0) == map.size(0), "aligncli_ext: boxes and map must have as many images");
  STD_TORCH_CHECK(
      0 <= row_begin && row_begin < row_end && row_end <= kernel_height, "aligncli_ext: no such kernel rows");
  return {static_cast<const Real*>(boxes.data_ptr()),
          first,
          boxes.size(1),
          map.size(1),
          map.size(2),
          map.size(3),
          int(kernel_height),
          int(kernel_width),
          int(row_begin),
          int(row_end),
          Real(stride),
          Real(stride * double(kernel_height)),
          Real(stride * double(kernel_width))};
}

template <typename Value, typename Real>
void check_columns(const Tensor& columns, const Level<Real>& level) {
  STD_TORCH_CHECK(
      columns.dim() == 2 && columns.is_contiguous() && columns.size(1) == level.num_taps() * level.channels &&
          columns.scalar_type() == kScalarType<Value>,
      "aligncli_ext: columns must be a contiguous (locations, taps x channels) in the type of the features");
}

// Calls function(Value{}, Real{}) for the element type of `like`.
template <typename Function>
void with_types(const Tensor& like, const Function& function) {
  switch (like.scalar_type()) {
    case ScalarType::Float:
      return function(float{}, float{});
    case ScalarType::Double:
      return function(double{}, double{});
    case ScalarType::BFloat16:
      return function(BFloat16{}, float{});
    default:
      STD_TORCH_CHECK(false, "aligncli_ext: float32, float64 and bfloat16 only");
  }
}

}  // namespace aligncli
