// Columns out of a feature map. What a tap reads is computed once for all threads of a block.
#pragma once

#include "grid.cuh"

namespace aligncli {

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

}  // namespace aligncli
