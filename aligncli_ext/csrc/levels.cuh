// What every CUDA kernel is told about the pyramid, and where a location reads it.
//
// Locations are counted level-major and image-major within, the order of the operator's rows; a launch works on
// consecutive ones, of any levels. A map is a table with one row of channels a cell. ALIGNCLI_NUMBER is the type of the
// features: float, Float16 or BFloat16.
#pragma once

#include "numbers.cuh"
#include "sampling.h"

namespace aligncli {

using Number = ALIGNCLI_NUMBER;
using Offset = long long;  // maps and boxes may hold more than 2^31 numbers

constexpr int MOST_LEVELS = 32;

// aligncli_ext/cuda.py packs the same two structures.
struct Level {
  const Number* table;
  const float* boxes;
  float* grad_table;  // null where it is not wanted, as grad_boxes
  float* grad_boxes;
  unsigned first;     // of its locations
  unsigned num_rois;  // of an image
  int height;         // of the map, in cells
  int width;
  float stride;    // pixels a cell
  float extent_y;  // kernel_height * stride
  float extent_x;
};

struct Levels {
  Level level[MOST_LEVELS];
  int num_levels;
  int channels;
  int kernel_height;
  int kernel_width;
};

// A location: its level, its box and the first row of its image in the level's table.
struct Place {
  const Level& level;
  unsigned roi;  // in the level's boxes
  Offset first_cell;

  ALIGNCLI_DEVICE const float* box() const { return level.boxes + Offset(roi) * 4; }
};

ALIGNCLI_DEVICE const Level& level_of(const Levels& levels, unsigned location) {
  int index = 0;
  while (index + 1 < levels.num_levels && location >= levels.level[index + 1].first) ++index;
  return levels.level[index];
}

ALIGNCLI_DEVICE Place place_of(const Levels& levels, unsigned location) {
  const Level& level = level_of(levels, location);
  const unsigned roi = location - level.first;
  return {level, roi, Offset(roi / level.num_rois) * level.height * level.width};
}

// Along one axis two neighbouring cells of a location's image, as offsets in units that the caller counts cells in, and
// their weights. Kept in shared memory, 16 bytes that are read at once.
struct alignas(16) AxisRecord {
  unsigned low;
  unsigned high;
  float low_weight;
  float high_weight;
};

// The axis taps of a location, kernel_height rows first, then kernel_width columns: a row's offset plus a column's is a
// cell's.
ALIGNCLI_DEVICE AxisRecord axis_record(const Levels& levels, const Place& place, int axis, unsigned cell_size) {
  const Level& level = place.level;
  const float* box = place.box();
  const bool is_row = axis < levels.kernel_height;
  const AxisBins<float> bins = is_row ? axis_bins(box[1], box[3], level.extent_y, level.stride)
                                      : axis_bins(box[0], box[2], level.extent_x, level.stride);
  const int bin = is_row ? axis : axis - levels.kernel_height;
  const AxisTap<float> tap = axis_tap(tap_position(bins, bin), is_row ? level.height : level.width);
  const unsigned unit = is_row ? unsigned(level.width) * cell_size : cell_size;
  return {unsigned(tap.low) * unit, unsigned(tap.high) * unit, tap.low_weight, tap.high_weight};
}

}  // namespace aligncli
