// RoIConv's CUDA kernels: columns out of a feature map (gather), the sum transposed (scatter), and the boxes'
// gradient.
//
// A map is a table with one row of channels a cell; columns are (location, tap, channel). One item of work (a
// location and one of its tap rows or tap columns) belongs to the threads with the same threadIdx.y, which share its
// channels, so that neighbouring threads touch neighbouring memory and take the same branches. gather computes a tap's
// cells and weights once for all of them; scatter and grad_boxes, where they weigh little, in every thread.
#include "levels.cuh"

namespace aligncli {

// The consecutive locations of one launch.
struct Chunk {
  unsigned first;
  unsigned count;
};

// Where a location reads: the taps of a box on the map of its image.
class Grid {
 public:
  ALIGNCLI_DEVICE Grid(const Levels& levels, const Place& place)
      : level_(place.level), channels_(levels.channels), first_cell_(place.first_cell) {
    const float* box = place.box();
    x_bins_ = axis_bins(box[0], box[2], level_.extent_x, level_.stride);
    y_bins_ = axis_bins(box[1], box[3], level_.extent_y, level_.stride);
  }

  ALIGNCLI_DEVICE float y(int i) const { return tap_position(y_bins_, i); }
  ALIGNCLI_DEVICE float x(int j) const { return tap_position(x_bins_, j); }
  ALIGNCLI_DEVICE AxisTap<float> row(int i) const { return axis_tap(y(i), level_.height); }
  ALIGNCLI_DEVICE AxisTap<float> column(int j) const { return axis_tap(x(j), level_.width); }

  // Of a cell's first channel in the table.
  ALIGNCLI_DEVICE Offset offset(int cell_y, int cell_x) const {
    return (first_cell_ + Offset(cell_y) * level_.width + cell_x) * channels_;
  }

 private:
  const Level& level_;
  int channels_;
  Offset first_cell_;
  AxisBins<float> x_bins_, y_bins_;
};

// Of tap (0, 0) and channel 0 of a location in the columns.
ALIGNCLI_DEVICE Offset columns_offset(const Levels& levels, unsigned index) {
  return Offset(index) * levels.kernel_height * levels.kernel_width * levels.channels;
}

// The consecutive locations of a block of gather, whose boxes share cells: it reads those from a multiprocessor's own
// cache. As many for every block.
struct Share {
  unsigned begin;  // in the chunk
  unsigned end;

  ALIGNCLI_DEVICE Share(const Chunk& chunk, unsigned num_locations) : begin(blockIdx.x * num_locations) {
    end = begin + num_locations < chunk.count ? begin + num_locations : chunk.count;
  }

  ALIGNCLI_DEVICE unsigned num_locations() const { return end - begin; }
};

// An item of gather: two neighbouring rows of the map that a tap row of a location lies between.
struct alignas(16) RowRecord {
  const Number* upper;
  const Number* lower;
  float upper_weight;
  float lower_weight;
  unsigned columns;  // where the records of the location's columns begin
};

// The records of a block's share, in shared memory: all rows', then all columns', which are offsets of channel 0 in a row
// of the map. Computed once for all threads.
struct Records {
  RowRecord* rows;
  AxisRecord* columns;

  ALIGNCLI_DEVICE Records(void* memory, const Levels& levels, const Share& share) {
    rows = static_cast<RowRecord*>(memory);
    columns = reinterpret_cast<AxisRecord*>(rows + share.num_locations() * unsigned(levels.kernel_height));
  }
};

ALIGNCLI_DEVICE void fill_records(const Levels& levels, const Chunk& chunk, const Share& share,
                                  const Records& records) {
  const unsigned num_rows = unsigned(levels.kernel_height), num_columns = unsigned(levels.kernel_width);
  const unsigned num_records = num_rows + num_columns;
  const unsigned total = share.num_locations() * num_records;
  for (unsigned item = threadIdx.y * blockDim.x + threadIdx.x; item < total; item += blockDim.x * blockDim.y) {
    const unsigned in_block = item / num_records, axis = item - in_block * num_records;
    const unsigned index = share.begin + in_block;
    const Place place = place_of(levels, chunk.first + index);
    if (axis < num_rows) {
      const Grid grid(levels, place);
      const AxisTap<float> tap = grid.row(int(axis));
      records.rows[in_block * num_rows + axis] = {place.level.table + grid.offset(tap.low, 0),
                                                  place.level.table + grid.offset(tap.high, 0),
                                                  tap.low_weight,
                                                  tap.high_weight,
                                                  in_block * num_columns};
    } else {
      records.columns[in_block * num_columns + axis - num_rows] =
          axis_record(levels, place, int(axis), unsigned(levels.channels));
    }
  }
}

// WIDTH channels of two cells, one below the other.
template <int WIDTH>
ALIGNCLI_DEVICE void blend(const Number* upper, const Number* lower, const RowRecord& row, float (&values)[WIDTH]) {
  float above[WIDTH], below[WIDTH];
  load(upper, above);
  load(lower, below);
#pragma unroll
  for (int lane = 0; lane < WIDTH; ++lane) {
    values[lane] = fma(row.upper_weight, above[lane], row.lower_weight * below[lane]);
  }
}

// Taps of an item are visited from left to right; the map's two columns that the last tap lay between stay in
// registers, blended vertically.
template <int WIDTH>
ALIGNCLI_DEVICE void gather(const Levels& levels, const Share& share, const Records& records, Number* columns) {
  const unsigned channels = unsigned(levels.channels), num_columns = unsigned(levels.kernel_width);
  const unsigned num_rows = unsigned(levels.kernel_height), num_items = share.num_locations() * num_rows;
  for (unsigned item = threadIdx.y; item < num_items; item += blockDim.y) {
    const RowRecord row = records.rows[item];
    const AxisRecord* of_row = records.columns + row.columns;
    // Items are rows of consecutive locations, and so are the columns.
    Number* out = columns + (Offset(share.begin) * num_rows + item) * (num_columns * channels);
    for (unsigned channel = threadIdx.x * WIDTH; channel < channels; channel += blockDim.x * WIDTH) {
      float left[WIDTH] = {}, right[WIDTH] = {};
      unsigned held_low = ~0u, held_high = ~0u;  // left holds this column of the map, right the next
      for (unsigned j = 0; j < num_columns; ++j) {
        const AxisRecord column = of_row[j];
        if (column.low != held_low) {
          if (column.low == held_high) {
#pragma unroll
            for (int lane = 0; lane < WIDTH; ++lane) left[lane] = right[lane];
          } else {
            blend(row.upper + column.low + channel, row.lower + column.low + channel, row, left);
          }
          blend(row.upper + column.high + channel, row.lower + column.high + channel, row, right);
          held_low = column.low;
          held_high = column.high;
        }
        float values[WIDTH];
#pragma unroll
        for (int lane = 0; lane < WIDTH; ++lane) {
          values[lane] = fma(column.low_weight, left[lane], column.high_weight * right[lane]);
        }
        store(out + j * channels + channel, values);
      }
    }
  }
}

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

// Every kernel twice: with 16-byte accesses (scatter: 16 bytes of the float32 table), for channels and pointers that
// are multiples of them, and a number at a time for all others.
#define ALIGNCLI_KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define ALIGNCLI_LEVELS const __grid_constant__ aligncli::Levels levels, const __grid_constant__ aligncli::Chunk chunk
using aligncli::Number;
constexpr int WIDE = 16 / sizeof(Number);

template <int WIDTH>
ALIGNCLI_DEVICE void fill_and_gather(const aligncli::Levels& levels, const aligncli::Chunk& chunk, Number* columns,
                                     unsigned num_locations) {
  extern __shared__ uint4 memory[];
  const aligncli::Share share(chunk, num_locations);
  const aligncli::Records records(memory, levels, share);
  aligncli::fill_records(levels, chunk, share, records);
  __syncthreads();
  aligncli::gather<WIDTH>(levels, share, records, columns);
}

ALIGNCLI_KERNEL(512, 2) gather_wide(ALIGNCLI_LEVELS, Number* columns, unsigned num_locations) {
  fill_and_gather<WIDE>(levels, chunk, columns, num_locations);
}

ALIGNCLI_KERNEL(512, 2) gather_narrow(ALIGNCLI_LEVELS, Number* columns, unsigned num_locations) {
  fill_and_gather<1>(levels, chunk, columns, num_locations);
}

ALIGNCLI_KERNEL(128, 6) scatter_wide(ALIGNCLI_LEVELS, const Number* grad_columns) {
  aligncli::scatter<4>(levels, chunk, grad_columns);
}

ALIGNCLI_KERNEL(128, 6) scatter_narrow(ALIGNCLI_LEVELS, const Number* grad_columns) {
  aligncli::scatter<1>(levels, chunk, grad_columns);
}

ALIGNCLI_KERNEL(128, 6) grad_boxes_wide(ALIGNCLI_LEVELS, const Number* grad_columns) {
  aligncli::grad_boxes<WIDE>(levels, chunk, grad_columns);
}

ALIGNCLI_KERNEL(128, 6) grad_boxes_narrow(ALIGNCLI_LEVELS, const Number* grad_columns) {
  aligncli::grad_boxes<1>(levels, chunk, grad_columns);
}
