// What both sides of the fused kernel share (roi_conv_fused.cu): sizes, the problem, a block's memory, and the order of
// locations.
#pragma once

#include "hopper.cuh"
#include "levels.cuh"
#include "wgmma.cuh"  // PART_OUTPUTS and multiply_add; aligncli_ext/fused.py writes it, with a register for each sum

namespace aligncli {

constexpr int OUTPUTS = ALIGNCLI_OUTPUTS;
constexpr int PARTS = OUTPUTS / PART_OUTPUTS;
constexpr int LOCATIONS = 128;
constexpr int STEP_CHANNELS = 64;  // 128 bytes, a row of a swizzled tile
constexpr int PRODUCERS = 256;     // threads
constexpr int CONSUMERS = 256;
constexpr int PRODUCER_REGISTERS = 88;
constexpr int CONSUMER_REGISTERS = 168;
static_assert(PRODUCERS * PRODUCER_REGISTERS + CONSUMERS * CONSUMER_REGISTERS <= 65536);
constexpr int COLUMNS_BYTES = LOCATIONS * ROW_BYTES;
constexpr int WEIGHT_BYTES = OUTPUTS * ROW_BYTES;
constexpr int STAGE_BYTES = COLUMNS_BYTES + WEIGHT_BYTES;
constexpr int WIDTH = 8;  // numbers of a 16-byte access
constexpr int MOST_STAGES = 8;

// Where a ring of stages stands.
struct Ring {
  int num_stages;
  int stage = 0;
  int parity = 0;

  ALIGNCLI_DEVICE explicit Ring(int stages) : num_stages(stages) {}

  ALIGNCLI_DEVICE void advance() {
    if (++stage == num_stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

struct Problem {
  const Number* weight;  // packed: (steps, OUTPUTS, 64), each (OUTPUTS, 64) swizzled; zeros beyond the outputs
  const Number* bias;    // (O,), or null
  Number* rows;          // (locations, O)
  unsigned num_locations;
  int out_channels;
  int num_stages;
};

// A block's shared memory.
struct Workspace {
  Address stages;  // of STAGE_BYTES: columns, then weight
  Address full;    // barriers of 8 bytes
  Address empty;
  AxisRecord* records;           // of each location
  const unsigned char** images;  // each location's image in its table

  ALIGNCLI_DEVICE Workspace(unsigned char* memory, const Problem& problem) {
    memory += (1024 - (shared_address(memory) & 1023)) & 1023;
    stages = shared_address(memory);
    memory += problem.num_stages * STAGE_BYTES;
    full = shared_address(memory);
    empty = full + MOST_STAGES * 8;
    images = reinterpret_cast<const unsigned char**>(memory + 2 * MOST_STAGES * 8);
    records = reinterpret_cast<AxisRecord*>(images + LOCATIONS);
  }

  ALIGNCLI_DEVICE Address columns(int stage) const { return stages + stage * STAGE_BYTES; }
  ALIGNCLI_DEVICE Address weight(int stage) const { return columns(stage) + COLUMNS_BYTES; }
};

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

ALIGNCLI_DEVICE int steps_of_tile(const Levels& levels) {
  return levels.channels / STEP_CHANNELS * levels.kernel_height * levels.kernel_width;
}

}  // namespace aligncli
