// RoIConv on the CPU: gather columns out of a channels-last map, scatter their gradients back, box gradients.
//
// The matrix products stay in PyTorch (aligncli/ops/native.py). A call serves a chunk of locations and a range
// of kernel rows; location l lies on image l / num_rois. Vectorised over channels, threads are PyTorch's own.
// Every sum has one order whatever the number of threads, so results repeat bit by bit.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "sampling.h"

// One library for every x86 machine: the loader picks the clone. Elsewhere the compiler's default it is.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define ALIGNCLI_CLONES __attribute__((target_clones("avx512f", "arch=haswell", "default")))
#else
#define ALIGNCLI_CLONES
#endif
#if defined(_MSC_VER)
#define ALIGNCLI_INLINE __forceinline
#define ALIGNCLI_RESTRICT __restrict
#else
#define ALIGNCLI_INLINE inline __attribute__((always_inline))
#define ALIGNCLI_RESTRICT __restrict__
#endif

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kLane = 16;             // channels: a cache line of float32, so that threads never share one
constexpr int64_t kGrainTaps = 1 << 13;   // elements of columns that are worth a thread

// bfloat16 as its bits: <torch/headeronly/util/BFloat16.h> does not vectorise.
struct BFloat16 {
  uint16_t bits;
};

// Channels at once, in the vectors of GCC and Clang, which cut them to what a clone's machine has.
typedef float Floats __attribute__((vector_size(kLane * sizeof(float))));
typedef double Doubles __attribute__((vector_size(kLane * sizeof(double))));
typedef uint32_t Bits __attribute__((vector_size(kLane * sizeof(uint32_t))));

// Twice as many bfloat16: of each 32 bits the low half (even channels) and the high half (odd ones), so that
// nothing has to be moved across a vector.
struct FloatPairs {
  Floats even, odd;
};
ALIGNCLI_INLINE FloatPairs operator*(float weight, const FloatPairs& value) {
  return {weight * value.even, weight * value.odd};
}
ALIGNCLI_INLINE FloatPairs operator*(const FloatPairs& a, const FloatPairs& b) {
  return {a.even * b.even, a.odd * b.odd};
}
ALIGNCLI_INLINE FloatPairs operator+(const FloatPairs& a, const FloatPairs& b) {
  return {a.even + b.even, a.odd + b.odd};
}

template <typename Value>
struct Block;
template <>
struct Block<float> {
  using Type = Floats;
  static constexpr int64_t size = kLane;
};
template <>
struct Block<double> {
  using Type = Doubles;
  static constexpr int64_t size = kLane;
};
template <>
struct Block<BFloat16> {
  using Type = FloatPairs;
  static constexpr int64_t size = 2 * kLane;
};

ALIGNCLI_INLINE void load(const float* from, Floats& to) { std::memcpy(&to, from, sizeof(to)); }
ALIGNCLI_INLINE void load(const double* from, Doubles& to) { std::memcpy(&to, from, sizeof(to)); }
ALIGNCLI_INLINE void load(const BFloat16* from, FloatPairs& to) {
  Bits pairs;
  std::memcpy(&pairs, from, sizeof(pairs));
  const Bits even = pairs << 16, odd = pairs & 0xffff0000u;
  std::memcpy(&to.even, &even, sizeof(even));
  std::memcpy(&to.odd, &odd, sizeof(odd));
}

// The bits of a float32 rounded to the nearest (even) bfloat16, in the upper half. A NaN that comes from bfloat16
// stays one: its lower half is zero, so nothing carries.
ALIGNCLI_INLINE Bits round_bits(const Floats& value) {
  Bits bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
}
ALIGNCLI_INLINE void store(const Floats& from, float* to) { std::memcpy(to, &from, sizeof(from)); }
ALIGNCLI_INLINE void store(const Doubles& from, double* to) { std::memcpy(to, &from, sizeof(from)); }
ALIGNCLI_INLINE void store(const FloatPairs& from, BFloat16* to) {
  const Bits pairs = (round_bits(from.even) >> 16) | round_bits(from.odd);
  std::memcpy(to, &pairs, sizeof(pairs));
}

// kLane channels in order, in the type of sums.
ALIGNCLI_INLINE void load_wide(const float* from, Floats& to) { load(from, to); }
ALIGNCLI_INLINE void load_wide(const double* from, Doubles& to) { load(from, to); }
ALIGNCLI_INLINE void load_wide(const BFloat16* from, Floats& to) {
  typedef uint16_t HalfBits __attribute__((vector_size(kLane * sizeof(uint16_t))));
  HalfBits bits;
  std::memcpy(&bits, from, sizeof(bits));
  const Bits wide = __builtin_convertvector(bits, Bits) << 16;
  std::memcpy(&to, &wide, sizeof(to));
}

// to[0 .. num_blocks * kLane) += weight * sums
template <typename Lanes, typename Real>
ALIGNCLI_INLINE void add(Real weight, const Lanes* sums, Real* to, int num_blocks) {
  for (int block = 0; block < num_blocks; ++block) {
    Lanes value;
    load(to + block * kLane, value);
    value += weight * sums[block];
    store(value, to + block * kLane);
  }
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

// What all three kernels know of a level and of the part of it that is asked for.
template <typename Real>
struct Level {
  const Real* boxes;  // (locations of the level, 4)
  int64_t first;      // location of the chunk's first row
  int64_t num_rois;
  int64_t height, width, channels;
  int kernel_height, kernel_width;
  int row_begin, row_end;  // kernel rows
  Real stride;
  Real bin_extent_y, bin_extent_x;

  int64_t num_taps() const { return int64_t(row_end - row_begin) * kernel_width; }
  int64_t image_offset(int64_t row) const { return (first + row) / num_rois * height * width * channels; }
};

// The taps of one location: kernel rows [row_begin, row_end) and all kernel columns.
template <typename Real>
struct Taps {
  std::vector<aligncli::AxisTap<Real>> y, x;
  std::vector<aligncli::AxisSlope<Real>> y_slope, x_slope;

  explicit Taps(const Level<Real>& level)
      : y(level.row_end - level.row_begin), x(level.kernel_width), y_slope(y.size()), x_slope(x.size()) {}
};

template <typename Real>
ALIGNCLI_INLINE void locate(const Level<Real>& level, int64_t row, Taps<Real>& taps, bool slopes) {
  const Real* box = level.boxes + (level.first + row) * 4;
  for (int i = level.row_begin; i < level.row_end; ++i) {
    const Real y = aligncli::tap_position(box[1], box[3], i, level.bin_extent_y, level.stride);
    const auto tap = aligncli::axis_tap(y, int(level.height));
    taps.y[i - level.row_begin] = tap;
    if (slopes) taps.y_slope[i - level.row_begin] = aligncli::axis_slope(y, tap, int(level.height));
  }
  for (int j = 0; j < level.kernel_width; ++j) {
    const Real x = aligncli::tap_position(box[0], box[2], j, level.bin_extent_x, level.stride);
    const auto tap = aligncli::axis_tap(x, int(level.width));
    taps.x[j] = tap;
    if (slopes) taps.x_slope[j] = aligncli::axis_slope(x, tap, int(level.width));
  }
}

// Offsets of the four cells of a tap within its image's map.
struct Corners {
  int64_t low_low, low_high, high_low, high_high;  // y then x
};

template <typename Real>
ALIGNCLI_INLINE Corners corners(
    const Level<Real>& level, const aligncli::AxisTap<Real>& y, const aligncli::AxisTap<Real>& x) {
  const int64_t low = y.low * level.width, high = y.high * level.width;
  return {(low + x.low) * level.channels, (low + x.high) * level.channels,
          (high + x.low) * level.channels, (high + x.high) * level.channels};
}

template <typename Value, typename Real>
ALIGNCLI_INLINE void gather_rows(
    const Level<Real>& level, const Value* features, Value* columns, int64_t begin, int64_t end, Taps<Real>& taps) {
  const int64_t channels = level.channels;
  Value* ALIGNCLI_RESTRICT out = columns + begin * level.num_taps() * channels;
  for (int64_t row = begin; row < end; ++row) {
    locate(level, row, taps, false);
    const Value* map = features + level.image_offset(row);
    for (const auto& y : taps.y) {
      for (const auto& x : taps.x) {
        const Corners at = corners(level, y, x);
        const Value* low_low = map + at.low_low;
        const Value* low_high = map + at.low_high;
        const Value* high_low = map + at.high_low;
        const Value* high_high = map + at.high_high;
        const Real w00 = y.low_weight * x.low_weight, w01 = y.low_weight * x.high_weight;
        const Real w10 = y.high_weight * x.low_weight, w11 = y.high_weight * x.high_weight;
        int64_t c = 0;
        for (; c + Block<Value>::size <= channels; c += Block<Value>::size) {
          typename Block<Value>::Type v00, v01, v10, v11;
          load(low_low + c, v00);
          load(low_high + c, v01);
          load(high_low + c, v10);
          load(high_high + c, v11);
          store(w00 * v00 + w01 * v01 + w10 * v10 + w11 * v11, out + c);
        }
        for (; c < channels; ++c) {
          narrow(w00 * widen(low_low[c]) + w01 * widen(low_high[c]) + w10 * widen(high_low[c]) +
                 w11 * widen(high_high[c]), out[c]);
        }
        out += channels;
      }
    }
  }
}

// One kernel row of one location, num_blocks * kLane channels, which stay in registers along x: neighbouring taps
// share cells, so that a cell of the map is touched once. `map` and `in` begin at the first of the channels.
template <int num_blocks, typename Value, typename Real>
ALIGNCLI_INLINE void scatter_row(
    const Level<Real>& level, const aligncli::AxisTap<Real>& y, const std::vector<aligncli::AxisTap<Real>>& x,
    const Value* in, Real* map) {
  using Lanes = typename Block<Real>::Type;
  Real* const low_row = map + y.low * level.width * level.channels;
  Real* const high_row = map + y.high * level.width * level.channels;
  Lanes low[num_blocks] = {}, high[num_blocks] = {};
  int low_cell = x[0].low, high_cell = x[0].high;
  const auto flush = [&](const Lanes* sums, int cell) __attribute__((always_inline)) {
    if (y.low_weight != 0) add(y.low_weight, sums, low_row + cell * level.channels, num_blocks);
    if (y.high_weight != 0) add(y.high_weight, sums, high_row + cell * level.channels, num_blocks);
  };
  for (const auto& tap : x) {
    if (tap.low != low_cell) {
      flush(low, low_cell);
      const bool adjoins = tap.low == high_cell;
      if (!adjoins) flush(high, high_cell);
      for (int block = 0; block < num_blocks; ++block) {
        low[block] = adjoins ? high[block] : Lanes{};
        high[block] = Lanes{};
      }
      low_cell = tap.low;
      high_cell = tap.high;
    }
    for (int block = 0; block < num_blocks; ++block) {
      Lanes value;
      load_wide(in + block * kLane, value);
      low[block] += tap.low_weight * value;
      high[block] += tap.high_weight * value;
    }
    in += level.channels;
  }
  flush(low, low_cell);
  flush(high, high_cell);
}

// The transpose for channels [channel_begin, channel_end): a thread's own, so that nothing is shared.
template <typename Value, typename Real>
ALIGNCLI_INLINE void scatter_channels(
    const Level<Real>& level, const Value* columns, Real* grad_map, int64_t num_rows, int64_t channel_begin,
    int64_t channel_end, Taps<Real>& taps) {
  constexpr int num_blocks = 4;
  for (int64_t row = 0; row < num_rows; ++row) {
    locate(level, row, taps, false);
    Real* const map = grad_map + level.image_offset(row);
    const Value* in = columns + row * level.num_taps() * level.channels;
    for (const auto& y : taps.y) {
      int64_t c = channel_begin;
      for (; c + num_blocks * kLane <= channel_end; c += num_blocks * kLane)
        scatter_row<num_blocks>(level, y, taps.x, in + c, map + c);
      for (; c + kLane <= channel_end; c += kLane) scatter_row<1>(level, y, taps.x, in + c, map + c);
      for (const auto& x : taps.x) {
        const Corners at = corners(level, y, x);
        for (int64_t rest = c; rest < channel_end; ++rest) {
          const Real value = widen(in[rest]);
          map[at.low_low + rest] += y.low_weight * x.low_weight * value;
          map[at.low_high + rest] += y.low_weight * x.high_weight * value;
          map[at.high_low + rest] += y.high_weight * x.low_weight * value;
          map[at.high_high + rest] += y.high_weight * x.high_weight * value;
        }
        in += level.channels;
      }
    }
  }
}

ALIGNCLI_INLINE float sum(const Floats& lanes) {
  float total = 0;
  for (int64_t lane = 0; lane < kLane; ++lane) total += lanes[lane];
  return total;
}
ALIGNCLI_INLINE double sum(const Doubles& lanes) {
  double total = 0;
  for (int64_t lane = 0; lane < kLane; ++lane) total += lanes[lane];
  return total;
}
ALIGNCLI_INLINE float sum(const FloatPairs& lanes) { return sum(lanes.even + lanes.odd); }

// Of one tap's gradient with its four cells.
template <typename Real>
struct Dots {
  Real low_low, low_high, high_low, high_high;
};

template <typename Value, typename Real>
ALIGNCLI_INLINE Dots<Real> dots(const Value* grad, const Value* map, const Corners& at, int64_t size) {
  typename Block<Value>::Type g, v, s00 = {}, s01 = {}, s10 = {}, s11 = {};
  int64_t c = 0;
  for (; c + Block<Value>::size <= size; c += Block<Value>::size) {
    load(grad + c, g);
    load(map + at.low_low + c, v);
    s00 = s00 + g * v;
    load(map + at.low_high + c, v);
    s01 = s01 + g * v;
    load(map + at.high_low + c, v);
    s10 = s10 + g * v;
    load(map + at.high_high + c, v);
    s11 = s11 + g * v;
  }
  Dots<Real> result = {sum(s00), sum(s01), sum(s10), sum(s11)};
  for (; c < size; ++c) {
    const Real value = widen(grad[c]);
    result.low_low += value * widen(map[at.low_low + c]);
    result.low_high += value * widen(map[at.low_high + c]);
    result.high_low += value * widen(map[at.high_low + c]);
    result.high_high += value * widen(map[at.high_high + c]);
  }
  return result;
}

// Adds to grad_boxes (locations of the level, 4): from columns to points to the sides of the box, by eq. 2.
template <typename Value, typename Real>
ALIGNCLI_INLINE void box_rows(
    const Level<Real>& level, const Value* columns, const Value* features, Real* grad_boxes, int64_t begin,
    int64_t end, Taps<Real>& taps) {
  const int64_t channels = level.channels;
  const Value* in = columns + begin * level.num_taps() * channels;
  for (int64_t row = begin; row < end; ++row) {
    locate(level, row, taps, true);
    const Value* map = features + level.image_offset(row);
    Real sides[4] = {};
    for (int i = level.row_begin; i < level.row_end; ++i) {
      const auto& y = taps.y[i - level.row_begin];
      const auto& y_slope = taps.y_slope[i - level.row_begin];
      const Real y_share = aligncli::end_share<Real>(i, level.kernel_height);
      for (int j = 0; j < level.kernel_width; ++j, in += channels) {
        const auto& x = taps.x[j];
        const auto& x_slope = taps.x_slope[j];
        const auto dot = dots<Value, Real>(in, map, corners(level, y, x), channels);
        const Real grad_y = y_slope.low * (x.low_weight * dot.low_low + x.high_weight * dot.low_high) +
                            y_slope.high * (x.low_weight * dot.high_low + x.high_weight * dot.high_high);
        const Real grad_x = x_slope.low * (y.low_weight * dot.low_low + y.high_weight * dot.high_low) +
                            x_slope.high * (y.low_weight * dot.low_high + y.high_weight * dot.high_high);
        const Real x_share = aligncli::end_share<Real>(j, level.kernel_width);
        sides[0] += grad_x * (1 - x_share);
        sides[1] += grad_y * (1 - y_share);
        sides[2] += grad_x * x_share;
        sides[3] += grad_y * y_share;
      }
    }
    Real* out = grad_boxes + (level.first + row) * 4;
    for (int side = 0; side < 4; ++side) out[side] += sides[side] / level.stride;
  }
}

// Clones need functions that are no templates: one of each kind a type, found by overloading.
#define ALIGNCLI_KERNELS(Value, Real)                                                                               \
  ALIGNCLI_CLONES void run_gather(const Level<Real>& level, const Value* features, Value* columns, int64_t begin,   \
                                  int64_t end, Taps<Real>& taps) {                                                  \
    gather_rows(level, features, columns, begin, end, taps);                                                        \
  }                                                                                                                 \
  ALIGNCLI_CLONES void run_scatter(const Level<Real>& level, const Value* columns, Real* grad_map, int64_t num_rows, \
                                   int64_t channel_begin, int64_t channel_end, Taps<Real>& taps) {                  \
    scatter_channels(level, columns, grad_map, num_rows, channel_begin, channel_end, taps);                         \
  }                                                                                                                 \
  ALIGNCLI_CLONES void run_boxes(const Level<Real>& level, const Value* columns, const Value* features,             \
                                 Real* grad_boxes, int64_t begin, int64_t end, Taps<Real>& taps) {                  \
    box_rows(level, columns, features, grad_boxes, begin, end, taps);                                               \
  }

ALIGNCLI_KERNELS(float, float)
ALIGNCLI_KERNELS(double, double)
ALIGNCLI_KERNELS(BFloat16, float)

// ---------------------------------------------------------------- the operators, and what they take

template <typename Value>
constexpr ScalarType kScalarType = ScalarType::BFloat16;
template <>
constexpr ScalarType kScalarType<float> = ScalarType::Float;
template <>
constexpr ScalarType kScalarType<double> = ScalarType::Double;

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
  STD_TORCH_CHECK(0 <= row_begin && row_begin < row_end && row_end <= kernel_height, "aligncli_ext: no such kernel rows");
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

template <typename Real>
int64_t grain(const Level<Real>& level) {
  return std::max<int64_t>(1, kGrainTaps / (level.num_taps() * level.channels));
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
      run_gather(level, map, out, begin, end, taps);
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
    const int64_t num_lanes = (level.channels + kLane - 1) / kLane;
    torch::stable::parallel_for(0, num_lanes, 1, [&](int64_t begin, int64_t end) {
      Taps<Real> taps(level);
      run_scatter(level, in, map, num_rows, begin * kLane, std::min(end * kLane, level.channels), taps);
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
      run_boxes(level, in, map, out, begin, end, taps);
    });
  });
}

}  // namespace

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
  library.impl("gather", TORCH_BOX(&gather));
  library.impl("scatter", TORCH_BOX(&scatter));
  library.impl("grad_boxes", TORCH_BOX(&grad_boxes));
}
