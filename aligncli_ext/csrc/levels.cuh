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

// aligncli_ext/cuda.py has the same two structures.
struct Level {
  const Number* table;
  const float* boxes;
  float* grad_table;  // null where it is not wanted, as grad_boxes
  float* grad_boxes;
  unsigned first;  // of its locations
  unsigned num_rois;  // of an image
  int height;  // of the map, in cells
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

// The location at a place in reading order: where an image has a box a cell (or several, one after the other), strips of
// STRIP_ROWS rows of the map are read column by column. 128 locations are a patch then, whose boxes share more cells than
// those of a line would.
constexpr unsigned STRIP_ROWS = 8;

ALIGNCLI_DEVICE unsigned location_in_strips(const Levels& levels, unsigned place) {
  const Level& level = level_of(levels, place);
  const unsigned width = unsigned(level.width), cells = unsigned(level.height) * width;
  if (level.num_rois % cells != 0) return place;
  const unsigned cell = (place - level.first) % cells;
  const unsigned top = cell / (STRIP_ROWS * width) * STRIP_ROWS, rest = unsigned(level.height) - top;
  const unsigned rows = rest < STRIP_ROWS ? rest : STRIP_ROWS, in_strip = cell - top * width;
  return place - cell + (top + in_strip % rows) * width + in_strip / rows;
}

// One of a location's kernel_height + kernel_width axis taps, rows first, as it is kept in shared memory: `low` and
// `high` count cells, so that a row's plus a column's is a cell of the image.
struct alignas(16) AxisRecord {
  AxisTap<float> tap;
};

ALIGNCLI_DEVICE AxisRecord axis_record(const Levels& levels, const Place& place, int axis_index) {
  const Level& level = place.level;
  const float* box = place.box();
  AxisRecord record;
  if (axis_index < levels.kernel_height) {
    record.tap =
        axis_tap(tap_position(axis_bins(box[1], box[3], level.extent_y, level.stride), axis_index), level.height);
    record.tap.low *= level.width;
    record.tap.high *= level.width;
  } else {
    record.tap = axis_tap(tap_position(axis_bins(box[0], box[2], level.extent_x, level.stride),
                                       axis_index - levels.kernel_height),
                          level.width);
  }
  return record;
}

}  // namespace aligncli
