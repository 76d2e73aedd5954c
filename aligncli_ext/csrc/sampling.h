// Where RoIConv reads a feature map: the arithmetic that the CPU kernels and the CUDA kernels share.
//
// Along one axis a box [start, end) in pixels is cut into k bins, and tap j reads the middle of bin j (eq. 2).
// Positions are array indices in cells: the centre of cell X is position X. Outside the map the value is zero.
// No include and no std:: under NVRTC, which compiles this text as it stands.
#pragma once

#ifdef __CUDACC__
#define ALIGNCLI_SHARED __device__ __forceinline__
#else
#include <math.h>
#define ALIGNCLI_SHARED inline
#endif

namespace aligncli {

// The two neighbouring cells that a point lies between, and how much of each it takes. Both indices are always
// on the map; a weight and a slope are zero where there is no cell.
template <typename Real>
struct AxisTap {
  int low;
  int high;
  Real low_weight;
  Real high_weight;
};

// d weight / d position of the two cells of an AxisTap.
template <typename Real>
struct AxisSlope {
  Real low;
  Real high;
};

// The bins of one axis, in cells.
template <typename Real>
struct AxisBins {
  Real origin;
  Real size;
};

// `bin_extent` is num_bins * stride, multiplied before rounding to Real. Dividing by it first, and rounding a tap's
// position once (fma), is what PyTorch's path does: far outside the map, where sides of boxes cancel, another order
// would read another cell.
template <typename Real>
ALIGNCLI_SHARED AxisBins<Real> axis_bins(Real start, Real end, Real bin_extent, Real stride) {
  return {start / stride, (end - start) / bin_extent};
}

template <typename Real>
ALIGNCLI_SHARED Real tap_position(const AxisBins<Real>& bins, int bin) {
  return fma(bins.size, Real(bin) + Real(0.5), bins.origin) - Real(0.5);
}

template <typename Real>
ALIGNCLI_SHARED Real tap_position(Real start, Real end, int bin, Real bin_extent, Real stride) {
  return tap_position(axis_bins(start, end, bin_extent, stride), bin);
}

// NaN lies outside the map.
template <typename Real>
ALIGNCLI_SHARED Real usable_position(Real position) {
  return position == position ? position : Real(-2);
}

// The pair of cells is clamped to the map and a cell's weight is max(0, 1 - distance): right beyond the border
// too, where the inner cell keeps its share, and zero for both further out.
template <typename Real>
ALIGNCLI_SHARED AxisTap<Real> axis_tap(Real position, int size) {
  position = usable_position(position);
  const Real last = Real(size > 1 ? size - 2 : 0);
  Real low = floor(position);
  low = low > Real(0) ? low : Real(0);
  low = low < last ? low : last;
  const Real distance = position - low;
  const Real low_weight = Real(1) - fabs(distance);
  const Real high_weight = Real(1) - fabs(distance - Real(1));
  AxisTap<Real> tap;
  tap.low = int(low);
  tap.high = size > 1 ? tap.low + 1 : tap.low;
  tap.low_weight = low_weight > Real(0) ? low_weight : Real(0);
  tap.high_weight = size > 1 && high_weight > Real(0) ? high_weight : Real(0);
  return tap;
}

// On a cell's centre, where the slope jumps, it is that of the side of the larger index.
template <typename Real>
ALIGNCLI_SHARED AxisSlope<Real> axis_slope(Real position, const AxisTap<Real>& tap, int size) {
  const Real distance = usable_position(position) - Real(tap.low);
  AxisSlope<Real> slope = {Real(0), Real(0)};
  if (distance >= Real(-1) && distance < Real(0)) {
    slope.low = Real(1);
  } else if (distance >= Real(0) && distance < Real(1)) {
    slope.low = Real(-1);
    slope.high = Real(1);
  } else if (distance >= Real(1) && distance < Real(2)) {
    slope.high = Real(-1);
  }
  if (size == 1) slope.high = Real(0);
  return slope;
}

// d position / d end of the box, in cells a pixel; d position / d start is the same with 1 - share.
template <typename Real>
ALIGNCLI_SHARED Real end_share(int bin, int num_bins) {
  return (Real(bin) + Real(0.5)) / Real(num_bins);
}

}  // namespace aligncli
