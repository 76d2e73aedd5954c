// What RoIConv's kernels of columns read: the locations of a launch, and where the taps of one lie.
#pragma once

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

}  // namespace aligncli
