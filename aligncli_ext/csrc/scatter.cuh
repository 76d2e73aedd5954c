// The gradient of columns summed into the map's: gather, transposed.
#pragma once

#include "grid.cuh"

namespace aligncli {

ALIGNCLI_DEVICE bool touches(const AxisTap<float>& tap, int cell) { return tap.low == cell || tap.high == cell; }

// axis_tap's weight on a cell, without looking for the cells; 0 for NaN as there.
ALIGNCLI_DEVICE float weight_on(float position, int cell) {
  const float weight = 1.0f - fabs(position - float(cell));
  return weight > 0.0f ? weight : 0.0f;
}

// A column of the map, and the consecutive tap columns that touch it.
struct Run {
  int cell;
  int begin;
  int end;
};

// The run on tap column `begin`'s low (side 0) or high cell; empty unless it begins there, or without weight.
// Positions rise or fall along the whole axis, so a cell that an earlier tap touched is touched by the previous tap.
ALIGNCLI_DEVICE Run run_from(const Grid& grid, int begin, int side, int num_taps) {
  const AxisTap<float> first = grid.column(begin);
  const int cell = side == 0 ? first.low : first.high;
  Run run = {cell, begin, begin};
  if (side == 1 && first.high == first.low) return run;  // a map of one column
  if (begin > 0 && touches(grid.column(begin - 1), cell)) return run;
  float total = 0.0f;
  int end = begin;
  do {
    total += weight_on(grid.x(end), cell);
    ++end;
  } while (end < num_taps && touches(grid.column(end), cell));
  if (total > 0.0f) run.end = end;
  return run;
}

// What taps add to one cell, until no further tap does.
template <int WIDTH>
struct CellSum {
  float weight;  // 0: no tap did
  float values[WIDTH];

  ALIGNCLI_DEVICE void accumulate(float tap_weight, const float (&grad)[WIDTH]) {
    weight += tap_weight;
#pragma unroll
    for (int lane = 0; lane < WIDTH; ++lane) values[lane] = fma(tap_weight, grad[lane], values[lane]);
  }

  ALIGNCLI_DEVICE void add_to(float* cell) const {
    if (weight > 0.0f) add(cell, values);
  }
};

// An item is a location and a tap column, which sees to the columns of the map that no earlier tap column touches.
// Its taps are visited from top to bottom; the sums of the two cells that the last tap lay between stay in registers.
// So all that a location adds to a cell is added to memory once: (kh + 1) (kw + 1) additions where bins are a cell
// wide and fewer where they are narrower, instead of 4 kh kw.
template <int WIDTH>
ALIGNCLI_DEVICE void scatter(const Levels& levels, const Chunk& chunk, const Number* grad_columns) {
  const unsigned item = blockIdx.x * blockDim.y + threadIdx.y;
  const unsigned index = item / unsigned(levels.kernel_width);
  if (index >= chunk.count) return;
  const int j = int(item - index * unsigned(levels.kernel_width));
  const Place place = place_of(levels, chunk.first + index);
  if (place.level.grad_table == nullptr) return;

  const int channels = levels.channels, kernel_height = levels.kernel_height, kernel_width = levels.kernel_width;
  const Grid grid(levels, place);
  grad_columns += columns_offset(levels, index);
  const Offset next_row = Offset(place.level.width) * channels;
  for (int side = 0; side < 2; ++side) {
    const Run run = run_from(grid, j, side, kernel_width);
    if (run.begin == run.end) continue;
    for (int channel = int(threadIdx.x) * WIDTH; channel < channels; channel += int(blockDim.x) * WIDTH) {
      float* top = place.level.grad_table + grid.offset(0, run.cell) + channel;
      CellSum<WIDTH> upper = {}, lower = {};
      int held = 0;  // upper is of this row of the map, lower of the next
      for (int i = 0; i < kernel_height; ++i) {
        const AxisTap<float> row = grid.row(i);
        if (row.low != held) {
          if (row.low == held + 1) {
            upper.add_to(top + held * next_row);
            upper = lower;
            lower = {};
          } else if (row.low == held - 1) {  // a box upside down
            lower.add_to(top + (held + 1) * next_row);
            lower = upper;
            upper = {};
          } else {
            upper.add_to(top + held * next_row);
            lower.add_to(top + (held + 1) * next_row);
            upper = lower = {};
          }
          held = row.low;
        }
        float sum[WIDTH] = {};
        for (int tap = run.begin; tap < run.end; ++tap) {
          const float weight = weight_on(grid.x(tap), run.cell);
          float grad[WIDTH];
          load(grad_columns + Offset(i * kernel_width + tap) * channels + channel, grad);
#pragma unroll
          for (int lane = 0; lane < WIDTH; ++lane) sum[lane] = fma(weight, grad[lane], sum[lane]);
        }
        upper.accumulate(row.low_weight, sum);
        lower.accumulate(row.high_weight, sum);
      }
      upper.add_to(top + held * next_row);
      lower.add_to(top + (held + 1) * next_row);
    }
  }
}

}  // namespace aligncli
