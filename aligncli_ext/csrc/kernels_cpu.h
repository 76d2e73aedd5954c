// RoIConv's loops on the CPU: gather columns out of a channels-last map, scatter their gradients back, box gradients.
//
// A call serves a chunk of locations and a range of kernel rows; location l lies on image l / num_rois. Vectorised over
// channels. Every sum has one order whatever the number of threads, so results repeat bit by bit.
#pragma once

#include <cstdint>

#include "levels_cpu.h"
#include "vectors.h"

namespace aligncli {

// The four cells that a tap reads, from the first of some channels on.
template <typename Value, typename Real>
struct Cells {
  const Value *low_low, *low_high, *high_low, *high_high;  // y then x
  Real w00, w01, w10, w11;
};

template <typename Value, typename Real>
ALIGNCLI_INLINE Cells<Value, Real> cells_of(
    const Level<Real>& level, const Value* map, const AxisTap<Real>& y, const AxisTap<Real>& x) {
  const Corners at = corners(level, y, x);
  return {map + at.low_low, map + at.low_high, map + at.high_low, map + at.high_high,
          y.low_weight * x.low_weight, y.low_weight * x.high_weight,
          y.high_weight * x.low_weight, y.high_weight * x.high_weight};
}

template <typename Value, typename Real>
ALIGNCLI_INLINE Real sample_one(const Cells<Value, Real>& cells, int64_t c) {
  return cells.w00 * widen(cells.low_low[c]) + cells.w01 * widen(cells.low_high[c]) +
         cells.w10 * widen(cells.high_low[c]) + cells.w11 * widen(cells.high_high[c]);
}

// A tap's value of `channels` channels; channel c goes to place(c), and all of a vector's side by side.
template <int num_bytes, typename Value, typename Real, typename Place>
ALIGNCLI_INLINE void sample(const Cells<Value, Real>& cells, int64_t channels, const Place& place) {
  using Lanes = Block<Value, num_bytes>;
  int64_t c = 0;
  for (; c + Lanes::size <= channels; c += Lanes::size) {
    auto sum = Lanes::scale_add(cells.w00, Lanes::load(cells.low_low + c), typename Lanes::Type{});
    sum = Lanes::scale_add(cells.w01, Lanes::load(cells.low_high + c), sum);
    sum = Lanes::scale_add(cells.w10, Lanes::load(cells.high_low + c), sum);
    sum = Lanes::scale_add(cells.w11, Lanes::load(cells.high_high + c), sum);
    Lanes::store(sum, place(c));
  }
  for (; c < channels; ++c) narrow(sample_one(cells, c), *place(c));
}

template <int num_bytes>
ALIGNCLI_INLINE auto sample_wide(const Cells<BFloat16, float>& cells, int64_t c) {
  return cells.w00 * load_wide<num_bytes>(cells.low_low + c) + cells.w01 * load_wide<num_bytes>(cells.low_high + c) +
         cells.w10 * load_wide<num_bytes>(cells.high_low + c) + cells.w11 * load_wide<num_bytes>(cells.high_high + c);
}

// Two taps' values side by side: channel c of both goes to place(c). Without a second one there is a zero beside.
template <int num_bytes, typename Place>
ALIGNCLI_INLINE void sample_pair(
    const Cells<BFloat16, float>& first, const Cells<BFloat16, float>& second, bool has_second, int64_t channels,
    const Place& place) {
  using Lanes = Block<BFloat16, num_bytes>;
  constexpr int64_t size = num_bytes / sizeof(float);
  int64_t c = 0;
  for (; c + size <= channels; c += size) {
    const auto other = has_second ? sample_wide<num_bytes>(second, c) : typename VectorOf<float, num_bytes>::Type{};
    Lanes::store({sample_wide<num_bytes>(first, c), other}, place(c));
  }
  for (; c < channels; ++c) {
    narrow(sample_one(first, c), place(c)[0]);
    narrow(has_second ? sample_one(second, c) : 0.0f, place(c)[1]);
  }
}

template <int num_bytes, typename Value, typename Real>
ALIGNCLI_INLINE void gather_rows(
    const Level<Real>& level, const Value* features, Value* columns, int64_t begin, int64_t end, Taps<Real>& taps) {
  const int64_t channels = level.channels;
  Value* out = columns + begin * level.num_taps() * channels;
  for (int64_t row = begin; row < end; ++row) {
    locate(level, row, taps, false);
    const Value* map = features + level.image_offset(row);
    for (const auto& y : taps.y) {
      for (const auto& x : taps.x) {
        sample<num_bytes>(cells_of(level, map, y, x), channels, [out](int64_t c) { return out + c; });
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
// share cells, so that a cell of the map is touched once. `map` and `in` begin at the first of the channels, and the
// gradients of taps lie `tap_stride` apart.
template <int num_bytes, int num_blocks, typename Value, typename Real>
ALIGNCLI_INLINE void scatter_blocks(
    const Level<Real>& level, const AxisTap<Real>& y, const AxisTap<Real>* x, const Value* in, int64_t tap_stride,
    Real* map) {
  using Lanes = Block<Real, num_bytes>;
  Real* const low_row = map + y.low * level.width * level.channels;
  Real* const high_row = map + y.high * level.width * level.channels;
  typename Lanes::Type low[num_blocks] = {}, high[num_blocks] = {};
  int low_cell = x[0].low, high_cell = x[0].high;
  for (int j = 0; j < level.kernel_width; ++j) {
    const AxisTap<Real>& tap = x[j];
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
    in += tap_stride;
  }
  add<num_blocks, Lanes>(y.low_weight, low, low_row + low_cell * level.channels);
  add<num_blocks, Lanes>(y.high_weight, low, high_row + low_cell * level.channels);
  add<num_blocks, Lanes>(y.low_weight, high, low_row + high_cell * level.channels);
  add<num_blocks, Lanes>(y.high_weight, high, high_row + high_cell * level.channels);
}

// The same for any number of channels.
template <int num_bytes, typename Value, typename Real>
ALIGNCLI_INLINE void scatter_row(
    const Level<Real>& level, const AxisTap<Real>& y, const AxisTap<Real>* x, const Value* in, int64_t tap_stride,
    Real* map, int64_t channels) {
  constexpr int num_blocks = 4;
  constexpr int64_t size = Block<Real, num_bytes>::size;
  int64_t c = 0;
  for (; c + num_blocks * size <= channels; c += num_blocks * size)
    scatter_blocks<num_bytes, num_blocks>(level, y, x, in + c, tap_stride, map + c);
  for (; c + size <= channels; c += size) scatter_blocks<num_bytes, 1>(level, y, x, in + c, tap_stride, map + c);
  for (int j = 0; j < level.kernel_width && c < channels; ++j) {
    const Corners at = corners(level, y, x[j]);
    for (int64_t rest = c; rest < channels; ++rest) {
      const Real value = widen(in[j * tap_stride + rest]);
      map[at.low_low + rest] += y.low_weight * x[j].low_weight * value;
      map[at.low_high + rest] += y.low_weight * x[j].high_weight * value;
      map[at.high_low + rest] += y.high_weight * x[j].low_weight * value;
      map[at.high_high + rest] += y.high_weight * x[j].high_weight * value;
    }
  }
}

// The transpose of gather for channels [channel_begin, channel_end): a thread's own, so that nothing is shared.
template <int num_bytes, typename Value, typename Real>
ALIGNCLI_INLINE void scatter_channels(
    const Level<Real>& level, const Value* columns, Real* grad_map, int64_t num_rows, int64_t channel_begin,
    int64_t channel_end, Taps<Real>& taps) {
  const Value* in = columns + channel_begin;
  for (int64_t row = 0; row < num_rows; ++row) {
    locate(level, row, taps, false);
    Real* const map = grad_map + level.image_offset(row) + channel_begin;
    for (const auto& y : taps.y) {
      scatter_row<num_bytes>(level, y, taps.x.data(), in, level.channels, map, channel_end - channel_begin);
      in += level.kernel_width * level.channels;
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
      const Real y_share = end_share<Real>(i, level.kernel_height);
      for (int j = 0; j < level.kernel_width; ++j, in += channels) {
        const auto& x = taps.x[j];
        const auto& x_slope = taps.x_slope[j];
        const auto dot = dots<num_bytes, Real>(in, map, corners(level, y, x), channels);
        const Real grad_y = y_slope.low * (x.low_weight * dot.low_low + x.high_weight * dot.low_high) +
                            y_slope.high * (x.low_weight * dot.high_low + x.high_weight * dot.high_high);
        const Real grad_x = x_slope.low * (y.low_weight * dot.low_low + y.high_weight * dot.high_low) +
                            x_slope.high * (y.low_weight * dot.low_high + y.high_weight * dot.high_high);
        const Real x_share = end_share<Real>(j, level.kernel_width);
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

}  // namespace aligncli
