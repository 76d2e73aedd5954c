// The boxes' gradient out of that of columns.
#pragma once

#include "grid.cuh"

namespace aligncli {

// An item is a location, and its threads are one warp. The four sums over taps and channels need no memory in
// between, so they come out alike in every run.
template <int WIDTH>
ALIGNCLI_DEVICE void grad_boxes(const Levels& levels, const Chunk& chunk, const Number* grad_columns) {
  const unsigned index = blockIdx.x * blockDim.y + threadIdx.y;
  if (index >= chunk.count) return;
  const Place place = place_of(levels, chunk.first + index);
  const Level& level = place.level;
  if (level.grad_boxes == nullptr) return;

  const int channels = levels.channels, kernel_height = levels.kernel_height, kernel_width = levels.kernel_width;
  const Number* table = level.table;
  const Grid grid(levels, place);
  grad_columns += columns_offset(levels, index);
  float sides[4] = {};  // x1, y1, x2, y2
  for (int i = 0; i < kernel_height; ++i) {
    const AxisTap<float> row = grid.row(i);
    const AxisSlope<float> row_slope = axis_slope(grid.y(i), row, level.height);
    for (int j = 0; j < kernel_width; ++j) {
      const AxisTap<float> column = grid.column(j);
      const AxisSlope<float> column_slope = axis_slope(grid.x(j), column, level.width);
      const Number* corners[4] = {
          table + grid.offset(row.low, column.low), table + grid.offset(row.low, column.high),
          table + grid.offset(row.high, column.low), table + grid.offset(row.high, column.high)};
      const Number* grad_tap = grad_columns + Offset(i * kernel_width + j) * channels;
      float along_y = 0.0f, along_x = 0.0f;
      for (int channel = int(threadIdx.x) * WIDTH; channel < channels; channel += int(blockDim.x) * WIDTH) {
        float grad[WIDTH], values[4][WIDTH];
        load(grad_tap + channel, grad);
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) load(corners[corner] + channel, values[corner]);
#pragma unroll
        for (int lane = 0; lane < WIDTH; ++lane) {
          const float upper = fma(column.low_weight, values[0][lane], column.high_weight * values[1][lane]);
          const float lower = fma(column.low_weight, values[2][lane], column.high_weight * values[3][lane]);
          along_y = fma(grad[lane], fma(row_slope.low, upper, row_slope.high * lower), along_y);
          const float left = fma(row.low_weight, values[0][lane], row.high_weight * values[2][lane]);
          const float right = fma(row.low_weight, values[1][lane], row.high_weight * values[3][lane]);
          along_x = fma(grad[lane], fma(column_slope.low, left, column_slope.high * right), along_x);
        }
      }
      // end_share and its rest, in taps: the division waits until all are summed.
      const float down = float(i) + 0.5f, across = float(j) + 0.5f;
      sides[0] = fma(float(kernel_width) - across, along_x, sides[0]);
      sides[1] = fma(float(kernel_height) - down, along_y, sides[1]);
      sides[2] = fma(across, along_x, sides[2]);
      sides[3] = fma(down, along_y, sides[3]);
    }
  }
#pragma unroll
  for (int side = 0; side < 4; ++side) {
    const float sum = sum_over_warp(sides[side]);
    if (threadIdx.x == 0) level.grad_boxes[Offset(place.roi) * 4 + side] = sum / (side % 2 == 0 ? level.extent_x : level.extent_y);
  }
}

}  // namespace aligncli
