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

#define ALIGNCLI_INLINE inline __attribute__((always_inline))

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kSliceChannels = 16;  // a cache line of float32, so that threads never share one
constexpr int64_t kGrain = 1 << 13;     // elements of columns that are worth a thread

// bfloat16 as its bits: <torch/headeronly/util/BFloat16.h> does not vectorise.
struct BFloat16 {
  uint16_t bits;
};

// Vectors of GCC and Clang. Their size is that of the machine's registers: GCC cuts larger ones through memory.
template <int num_bytes>
struct Vectors {
  typedef float Floats __attribute__((vector_size(num_bytes)));
  typedef double Doubles __attribute__((vector_size(num_bytes)));
  typedef uint32_t Bits __attribute__((vector_size(num_bytes)));
  typedef uint16_t HalfBits __attribute__((vector_size(num_bytes / 2)));

  // Twice as many bfloat16: of each 32 bits the low half (even channels) and the high half (odd ones), so that
  // nothing has to be moved across a vector.
  struct FloatPairs {
    Floats even, odd;
  };
};

// What holds a vector's width of Value, to compute with; it has `size` of them.
template <typename Value, int num_bytes>
struct Block;
template <int num_bytes>
struct Block<float, num_bytes> {
  using Type = typename Vectors<num_bytes>::Floats;
  static constexpr int64_t size = num_bytes / 4;

  static ALIGNCLI_INLINE Type load(const float* from) {
    Type value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  static ALIGNCLI_INLINE void store(const Type& value, float* to) { std::memcpy(to, &value, sizeof(value)); }
  static ALIGNCLI_INLINE Type multiply_add(const Type& a, const Type& b, const Type& c) { return a * b + c; }
  static ALIGNCLI_INLINE Type scale_add(float a, const Type& b, const Type& c) { return a * b + c; }
  static ALIGNCLI_INLINE float sum(const Type& value) {
    float total = 0;
    for (int64_t lane = 0; lane < size; ++lane) total += value[lane];
    return total;
  }
};
template <int num_bytes>
struct Block<double, num_bytes> {
  using Type = typename Vectors<num_bytes>::Doubles;
  static constexpr int64_t size = num_bytes / 8;

  static ALIGNCLI_INLINE Type load(const double* from) {
    Type value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  static ALIGNCLI_INLINE void store(const Type& value, double* to) { std::memcpy(to, &value, sizeof(value)); }
  static ALIGNCLI_INLINE Type multiply_add(const Type& a, const Type& b, const Type& c) { return a * b + c; }
  static ALIGNCLI_INLINE Type scale_add(double a, const Type& b, const Type& c) { return a * b + c; }
  static ALIGNCLI_INLINE double sum(const Type& value) {
    double total = 0;
    for (int64_t lane = 0; lane < size; ++lane) total += value[lane];
    return total;
  }
};
template <int num_bytes>
struct Block<BFloat16, num_bytes> {
  using Type = typename Vectors<num_bytes>::FloatPairs;
  using Floats = typename Vectors<num_bytes>::Floats;
  using Bits = typename Vectors<num_bytes>::Bits;
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
template <int num_bytes>
ALIGNCLI_INLINE typename Vectors<num_bytes>::Floats load_wide(const float* from) {
  return Block<float, num_bytes>::load(from);
}
template <int num_bytes>
ALIGNCLI_INLINE typename Vectors<num_bytes>::Doubles load_wide(const double* from) {
  return Block<double, num_bytes>::load(from);
}
template <int num_bytes>
ALIGNCLI_INLINE typename Vectors<num_bytes>::Floats load_wide(const BFloat16* from) {
  typename Vectors<num_bytes>::HalfBits halves;
  std::memcpy(&halves, from, sizeof(halves));
  const auto bits = __builtin_convertvector(halves, typename Vectors<num_bytes>::Bits) << 16;
  typename Vectors<num_bytes>::Floats value;
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

template <int num_bytes, typename Value, typename Real>
ALIGNCLI_INLINE void gather_rows(
    const Level<Real>& level, const Value* features, Value* columns, int64_t begin, int64_t end, Taps<Real>& taps) {
  using Lanes = Block<Value, num_bytes>;
  const int64_t channels = level.channels;
  Value* out = columns + begin * level.num_taps() * channels;
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
        for (; c + Lanes::size <= channels; c += Lanes::size) {
          auto sum = Lanes::scale_add(w00, Lanes::load(low_low + c), typename Lanes::Type{});
          sum = Lanes::scale_add(w01, Lanes::load(low_high + c), sum);
          sum = Lanes::scale_add(w10, Lanes::load(high_low + c), sum);
          sum = Lanes::scale_add(w11, Lanes::load(high_high + c), sum);
          Lanes::store(sum, out + c);
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

// to[0 .. num_blocks * Lanes::size) += weight * sums
template <int num_blocks, typename Lanes, typename Real>
ALIGNCLI_INLINE void add(Real weight, const typename Lanes::Type* sums, Real* to) {
  if (weight == 0) return;
  for (int block = 0; block < num_blocks; ++block, to += Lanes::size)
    Lanes::store(Lanes::scale_add(weight, sums[block], Lanes::load(to)), to);
}

// One kernel row of one location, num_blocks vectors of channels, which stay in registers along x: neighbouring taps
// share cells, so that a cell of the map is touched once. `map` and `in` begin at the first of the channels.
template <int num_bytes, int num_blocks, typename Value, typename Real>
ALIGNCLI_INLINE void scatter_row(
    const Level<Real>& level, const aligncli::AxisTap<Real>& y, const std::vector<aligncli::AxisTap<Real>>& x,
    const Value* in, Real* map) {
  using Lanes = Block<Real, num_bytes>;
  Real* const low_row = map + y.low * level.width * level.channels;
  Real* const high_row = map + y.high * level.width * level.channels;
  typename Lanes::Type low[num_blocks] = {}, high[num_blocks] = {};
  int low_cell = x[0].low, high_cell = x[0].high;
  for (const auto& tap : x) {
    if (tap.low != low_cell) {
      add<num_blocks, Lanes>(y.low_weight, low, low_row + low_cell * level.channels);
      add<num_blocks, Lanes>(y.high_weight, low, high_row + low_cell * level.channels);
      const bool adjoins = tap.low == high_cell;
      if (!adjoins) {
        add<num_blocks, Lanes>(y.low_weight, high, low_row + high_cell * level.channels);
        add<num_blocks, Lanes>(y.high_weight, high, high_row + high_cell * level.channels);
      }
      for (int block = 0; block < num_blocks; ++block) {
        low[block] = adjoins ? high[block] : typename Lanes::Type{};
        high[block] = typename Lanes::Type{};
      }
      low_cell = tap.low;
      high_cell = tap.high;
    }
    for (int block = 0; block < num_blocks; ++block) {
      const auto value = load_wide<num_bytes>(in + block * Lanes::size);
      low[block] = Lanes::scale_add(tap.low_weight, value, low[block]);
      high[block] = Lanes::scale_add(tap.high_weight, value, high[block]);
    }
    in += level.channels;
  }
  add<num_blocks, Lanes>(y.low_weight, low, low_row + low_cell * level.channels);
  add<num_blocks, Lanes>(y.high_weight, low, high_row + low_cell * level.channels);
  add<num_blocks, Lanes>(y.low_weight, high, low_row + high_cell * level.channels);
  add<num_blocks, Lanes>(y.high_weight, high, high_row + high_cell * level.channels);
}

// The transpose for channels [channel_begin, channel_end): a thread's own, so that nothing is shared.
template <int num_bytes, typename Value, typename Real>
ALIGNCLI_INLINE void scatter_channels(
    const Level<Real>& level, const Value* columns, Real* grad_map, int64_t num_rows, int64_t channel_begin,
    int64_t channel_end, Taps<Real>& taps) {
  constexpr int num_blocks = 4;
  constexpr int64_t size = Block<Real, num_bytes>::size;
  for (int64_t row = 0; row < num_rows; ++row) {
    locate(level, row, taps, false);
    Real* const map = grad_map + level.image_offset(row);
    const Value* in = columns + row * level.num_taps() * level.channels;
    for (const auto& y : taps.y) {
      int64_t c = channel_begin;
      for (; c + num_blocks * size <= channel_end; c += num_blocks * size)
        scatter_row<num_bytes, num_blocks>(level, y, taps.x, in + c, map + c);
      for (; c + size <= channel_end; c += size) scatter_row<num_bytes, 1>(level, y, taps.x, in + c, map + c);
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

// Of one tap's gradient with its four cells.
template <typename Real>
struct Dots {
  Real low_low, low_high, high_low, high_high;
};

template <int num_bytes, typename Real, typename Value>
ALIGNCLI_INLINE Dots<Real> dots(const Value* grad, const Value* map, const Corners& at, int64_t size) {
  using Lanes = Block<Value, num_bytes>;
  typename Lanes::Type s00 = {}, s01 = {}, s10 = {}, s11 = {};
  int64_t c = 0;
  for (; c + Lanes::size <= size; c += Lanes::size) {
    const auto value = Lanes::load(grad + c);
    s00 = Lanes::multiply_add(value, Lanes::load(map + at.low_low + c), s00);
    s01 = Lanes::multiply_add(value, Lanes::load(map + at.low_high + c), s01);
    s10 = Lanes::multiply_add(value, Lanes::load(map + at.high_low + c), s10);
    s11 = Lanes::multiply_add(value, Lanes::load(map + at.high_high + c), s11);
  }
  Dots<Real> result = {Lanes::sum(s00), Lanes::sum(s01), Lanes::sum(s10), Lanes::sum(s11)};
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
template <int num_bytes, typename Value, typename Real>
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
        const auto dot = dots<num_bytes, Real>(in, map, corners(level, y, x), channels);
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
  ALIGNCLI_KERNELS_FOR(avx512, __attribute__((target("avx512f"))), 64, Value, Real)                                  \
  ALIGNCLI_KERNELS_FOR(avx2, __attribute__((target("avx2,fma"))), 32, Value, Real)                                   \
  ALIGNCLI_KERNELS_FOR(plain, , 16, Value, Real)

enum class Machine { plain, avx2, avx512 };

Machine machine() {
  static const Machine found = __builtin_cpu_supports("avx512f")                                   ? Machine::avx512
                               : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")   ? Machine::avx2
                                                                                                   : Machine::plain;
  return found;
}

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
