// What RoIConv's loops on the CPU know of a level: its boxes and map, and where a location's taps read.
#pragma once

#include <cstdint>
#include <vector>

#include "sampling.h"
#include "vectors.h"

namespace aligncli {

// What every kernel knows of a level and of the part of it that is asked for.
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
  std::vector<AxisTap<Real>> y, x;
  std::vector<AxisSlope<Real>> y_slope, x_slope;

  explicit Taps(const Level<Real>& level)
      : y(level.row_end - level.row_begin), x(level.kernel_width), y_slope(y.size()), x_slope(x.size()) {}
};

// Where a location reads along each axis, and how that slopes where it is asked for.
template <typename Real>
ALIGNCLI_INLINE void locate(
    const Level<Real>& level, int64_t row, AxisTap<Real>* y, AxisTap<Real>* x, AxisSlope<Real>* y_slope = nullptr,
    AxisSlope<Real>* x_slope = nullptr) {
  const Real* box = level.boxes + (level.first + row) * 4;
  for (int i = level.row_begin; i < level.row_end; ++i, ++y) {
    const Real position = tap_position(box[1], box[3], i, level.bin_extent_y, level.stride);
    *y = axis_tap(position, int(level.height));
    if (y_slope) *y_slope++ = axis_slope(position, *y, int(level.height));
  }
  for (int j = 0; j < level.kernel_width; ++j, ++x) {
    const Real position = tap_position(box[0], box[2], j, level.bin_extent_x, level.stride);
    *x = axis_tap(position, int(level.width));
    if (x_slope) *x_slope++ = axis_slope(position, *x, int(level.width));
  }
}

template <typename Real>
ALIGNCLI_INLINE void locate(const Level<Real>& level, int64_t row, Taps<Real>& taps, bool slopes) {
  locate(level, row, taps.y.data(), taps.x.data(), slopes ? taps.y_slope.data() : nullptr,
         slopes ? taps.x_slope.data() : nullptr);
}

// Offsets of the four cells of a tap within its image's map.
struct Corners {
  int64_t low_low, low_high, high_low, high_high;  // y then x
};

template <typename Real>
ALIGNCLI_INLINE Corners corners(
    const Level<Real>& level, const AxisTap<Real>& y, const AxisTap<Real>& x) {
  const int64_t low = y.low * level.width, high = y.high * level.width;
  return {(low + x.low) * level.channels, (low + x.high) * level.channels,
          (high + x.low) * level.channels, (high + x.high) * level.channels};
}

}  // namespace aligncli
