// RoIConv on the CPU: the operators that PyTorch calls, and which machine's kernels they run (kernels_cpu.h).
//
// The matrix products stay in PyTorch (aligncli/ops/native_columns.py), and the threads are its own.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdint>

#include "arguments_cpu.h"
#include "kernels_cpu.h"
#include "machine_cpu.h"

namespace aligncli {
namespace {

constexpr int64_t kSliceChannels = 16;  // a cache line of float32, so that threads never share one
constexpr int64_t kGrain = 1 << 13;     // elements of columns that are worth a thread

// ---------------------------------------------------------------- one library for every machine

// A kernel, compiled for one kind of machine; the type of values picks the overload. Not `target_clones`: each kind
// has its own size of vectors.
#define ALIGNCLI_KERNELS_FOR(suffix, target, num_bytes, Value, Real)                                                 \
  target void gather_##suffix(const Level<Real>& level, const Value* features, Value* columns, int64_t begin,        \
                              int64_t end, Taps<Real>& taps) {                                                       \
    gather_rows<num_bytes>(level, features, columns, begin, end, taps);                                              \
  }                                                                                                                  \
  target void scatter_##suffix(const Level<Real>& level, const Value* columns, Real* grad_map, int64_t num_rows,     \
                               int64_t channel_begin, int64_t channel_end, Taps<Real>& taps) {                       \
    scatter_channels<num_bytes>(level, columns, grad_map, num_rows, channel_begin, channel_end, taps);               \
  }                                                                                                                  \
  target void boxes_##suffix(const Level<Real>& level, const Value* columns, const Value* features,                  \
                             Real* grad_boxes, int64_t begin, int64_t end, Taps<Real>& taps) {                       \
    box_rows<num_bytes>(level, columns, features, grad_boxes, begin, end, taps);                                     \
  }

#if defined(__x86_64__)
#define ALIGNCLI_KERNELS(Value, Real)                                                                                \
  ALIGNCLI_KERNELS_FOR(avx512, ALIGNCLI_AVX512, 64, Value, Real)                                                     \
  ALIGNCLI_KERNELS_FOR(avx2, ALIGNCLI_AVX2, 32, Value, Real)                                                         \
  ALIGNCLI_KERNELS_FOR(plain, , 16, Value, Real)

#define ALIGNCLI_RUN(kernel, ...)                                  \
  switch (machine()) {                                             \
    case Machine::avx512: kernel##_avx512(__VA_ARGS__); break;     \
    case Machine::avx2: kernel##_avx2(__VA_ARGS__); break;         \
    case Machine::plain: kernel##_plain(__VA_ARGS__); break;       \
  }
#else
#define ALIGNCLI_KERNELS(Value, Real) ALIGNCLI_KERNELS_FOR(plain, , 16, Value, Real)
#define ALIGNCLI_RUN(kernel, ...) kernel##_plain(__VA_ARGS__)
#endif

ALIGNCLI_KERNELS(float, float)
ALIGNCLI_KERNELS(double, double)
ALIGNCLI_KERNELS(BFloat16, float)

// ---------------------------------------------------------------- the operators

template <typename Real>
int64_t grain(const Level<Real>& level) {
  return std::max<int64_t>(1, kGrain / (level.num_taps() * level.channels));
}

void gather(
    const Tensor& features, const Tensor& boxes, int64_t first, int64_t kernel_height, int64_t kernel_width,
    int64_t row_begin, int64_t row_end, double stride, Tensor columns) {
  with_types(features, [&](auto value, auto real) {
    using Value = decltype(value);
    using Real = decltype(real);
    const int64_t num_rows = columns.size(0);
    const auto level =
        describe<Real>(features, boxes, first, num_rows, kernel_height, kernel_width, row_begin, row_end, stride);
    check_columns<Value>(columns, level);
    const auto* map = static_cast<const Value*>(features.data_ptr());
    auto* out = static_cast<Value*>(columns.data_ptr());
    torch::stable::parallel_for(0, num_rows, grain(level), [&](int64_t begin, int64_t end) {
      Taps<Real> taps(level);
      ALIGNCLI_RUN(gather, level, map, out, begin, end, taps);
    });
  });
}

void scatter(
    const Tensor& columns, const Tensor& boxes, int64_t first, int64_t kernel_height, int64_t kernel_width,
    int64_t row_begin, int64_t row_end, double stride, Tensor grad_map) {
  with_types(columns, [&](auto value, auto real) {
    using Value = decltype(value);
    using Real = decltype(real);
    const int64_t num_rows = columns.size(0);
    const auto level =
        describe<Real>(grad_map, boxes, first, num_rows, kernel_height, kernel_width, row_begin, row_end, stride);
    check_columns<Value>(columns, level);
    STD_TORCH_CHECK(
        grad_map.scalar_type() == kScalarType<Real>,
        "aligncli_ext: the gradient is summed in float64 for float64 and in float32 otherwise");
    const auto* in = static_cast<const Value*>(columns.data_ptr());
    auto* map = static_cast<Real*>(grad_map.data_ptr());
    const int64_t num_slices = (level.channels + kSliceChannels - 1) / kSliceChannels;
    torch::stable::parallel_for(0, num_slices, 1, [&](int64_t begin, int64_t end) {
      Taps<Real> taps(level);
      const int64_t channel_end = std::min(end * kSliceChannels, level.channels);
      ALIGNCLI_RUN(scatter, level, in, map, num_rows, begin * kSliceChannels, channel_end, taps);
    });
  });
}

void grad_boxes(
    const Tensor& columns, const Tensor& features, const Tensor& boxes, int64_t first, int64_t kernel_height,
    int64_t kernel_width, int64_t row_begin, int64_t row_end, double stride, Tensor grad) {
  with_types(features, [&](auto value, auto real) {
    using Value = decltype(value);
    using Real = decltype(real);
    const int64_t num_rows = columns.size(0);
    const auto level =
        describe<Real>(features, boxes, first, num_rows, kernel_height, kernel_width, row_begin, row_end, stride);
    check_columns<Value>(columns, level);
    STD_TORCH_CHECK(
        grad.scalar_type() == kScalarType<Real> && grad.is_contiguous() && grad.numel() == boxes.numel(),
        "aligncli_ext: the gradient of boxes must be like them");
    const auto* in = static_cast<const Value*>(columns.data_ptr());
    const auto* map = static_cast<const Value*>(features.data_ptr());
    auto* out = static_cast<Real*>(grad.data_ptr());
    torch::stable::parallel_for(0, num_rows, grain(level), [&](int64_t begin, int64_t end) {
      Taps<Real> taps(level);
      ALIGNCLI_RUN(boxes, level, in, map, out, begin, end, taps);
    });
  });
}

}  // namespace
}  // namespace aligncli

STABLE_TORCH_LIBRARY(aligncli_ext, library) {
  library.def(
      "gather(Tensor features, Tensor boxes, int first, int kernel_height, int kernel_width, int row_begin, "
      "int row_end, float stride, Tensor(a!) columns) -> ()");
  library.def(
      "scatter(Tensor columns, Tensor boxes, int first, int kernel_height, int kernel_width, int row_begin, "
      "int row_end, float stride, Tensor(a!) grad_map) -> ()");
  library.def(
      "grad_boxes(Tensor columns, Tensor features, Tensor boxes, int first, int kernel_height, int kernel_width, "
      "int row_begin, int row_end, float stride, Tensor(a!) grad) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(aligncli_ext, CPU, library) {
  library.impl("gather", TORCH_BOX(&aligncli::gather));
  library.impl("scatter", TORCH_BOX(&aligncli::scatter));
  library.impl("grad_boxes", TORCH_BOX(&aligncli::grad_boxes));
}
