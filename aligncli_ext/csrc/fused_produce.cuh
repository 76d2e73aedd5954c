// The fused kernel's side that samples columns into shared memory.
#pragma once

#include "fused_stages.cuh"

namespace aligncli {

constexpr int THREADS_A_LOCATION = STEP_CHANNELS / WIDTH;
constexpr int LOCATIONS_AT_ONCE = PRODUCERS / THREADS_A_LOCATION;
constexpr int TURNS = LOCATIONS / LOCATIONS_AT_ONCE;
constexpr int DEPTH = 2;  // turns of which a thread has cells on their way

ALIGNCLI_DEVICE void wait_for_producers() { asm volatile("bar.sync 1, %0;" ::"n"(PRODUCERS) : "memory"); }

// PRODUCERS / LOCATIONS threads see to a location of the tile. Those beyond the last are the last one again; what becomes
// of them is not stored.
ALIGNCLI_DEVICE void fill_records(const Levels& levels, const Problem& problem, const Workspace& space, unsigned first,
                                  int thread) {
  static_assert(PRODUCERS % LOCATIONS == 0);
  const int num_records = levels.kernel_height + levels.kernel_width;
  const unsigned cell_bytes = unsigned(levels.channels) * unsigned(sizeof(Number));
  const int location = thread % LOCATIONS;
  const unsigned order = first + unsigned(location), last = problem.num_locations - 1;
  const Place place = place_of(levels, location_in_strips(levels, order < last ? order : last));
  space.images[location] = reinterpret_cast<const unsigned char*>(place.level.table) +
                           place.first_cell * Offset(cell_bytes);
  for (int axis = thread / LOCATIONS; axis < num_records; axis += PRODUCERS / LOCATIONS) {
    space.records[location * num_records + axis] = axis_record(levels, place, axis, cell_bytes);
  }
}

ALIGNCLI_DEVICE AxisRecord record_at(const AxisRecord* address) {
  const uint4 words = *reinterpret_cast<const uint4*>(address);
  return {words.x, words.y, __uint_as_float(words.z), __uint_as_float(words.w)};
}

// The four cells of a tap, 16 bytes of channels of each, and their weights.
struct Corners {
  unsigned pairs[4][WIDTH / 2];
  float weights[4];
};

// Offsets are in bytes; an image takes less than 4 GB.
ALIGNCLI_DEVICE void read_corners(const unsigned char* image, const AxisRecord& row, const AxisRecord& column,
                                  Corners& corners) {
  const unsigned cells[4] = {row.low + column.low, row.low + column.high, row.high + column.low,
                             row.high + column.high};
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
    unsigned(&pairs)[WIDTH / 2] = corners.pairs[corner];
    asm("ld.global.nc.v4.b32 {%0, %1, %2, %3}, [%4];"
        : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
        : "l"(image + cells[corner]));
  }
  corners.weights[0] = row.low_weight * column.low_weight;
  corners.weights[1] = row.low_weight * column.high_weight;
  corners.weights[2] = row.high_weight * column.low_weight;
  corners.weights[3] = row.high_weight * column.high_weight;
}

ALIGNCLI_DEVICE void write_columns(const Corners& corners, Address to) {
  unsigned pairs[WIDTH / 2];
#pragma unroll
  for (int pair = 0; pair < WIDTH / 2; ++pair) {
    float values[2] = {};
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      float first, second;
      pair_to<Number>(corners.pairs[corner][pair], first, second);
      values[0] = fma(corners.weights[corner], first, values[0]);
      values[1] = fma(corners.weights[corner], second, values[1]);
    }
    pairs[pair] = pair_from<Number>(values[0], values[1]);
  }
  // Not said to change memory, so that later records are read before; show_to_tensor_cores comes after all.
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(pairs[0]), "r"(pairs[1]), "r"(pairs[2]),
               "r"(pairs[3]));
}

// A step of a producer: its tap, and its channels in bytes.
struct Step {
  int channel_bytes;
  int i = 0;
  int j = 0;

  ALIGNCLI_DEVICE explicit Step(int piece) : channel_bytes(piece * 16) {}

  ALIGNCLI_DEVICE void advance(const Levels& levels) {
    if (++j < levels.kernel_width) return;
    j = 0;
    if (++i < levels.kernel_height) return;
    i = 0;
    channel_bytes += ROW_BYTES;
  }
};

// Eight threads see to a location, whose 64 channels they share, and go through TURNS locations a step. Cells are asked
// for DEPTH - 1 turns before they are blended, so at the end of a step the next one's.
ALIGNCLI_DEVICE void produce(const Levels& levels, const Problem& problem, const Workspace& space, int thread) {
  const int num_records = levels.kernel_height + levels.kernel_width;
  const int num_steps = steps_of_tile(levels);
  const int piece = thread % THREADS_A_LOCATION, first_location = thread / THREADS_A_LOCATION;
  const unsigned char* weight = reinterpret_cast<const unsigned char*>(problem.weight);
  Corners corners[DEPTH];
  const auto read = [&](const Step& step, int turn) {
    const int location = first_location + turn * LOCATIONS_AT_ONCE;
    const AxisRecord* records = space.records + location * num_records;
    read_corners(space.images[location] + step.channel_bytes, record_at(records + step.i),
                 record_at(records + levels.kernel_height + step.j), corners[turn % DEPTH]);
  };
  Ring ring(problem.num_stages);
  for (unsigned tile = blockIdx.x; tile * LOCATIONS < problem.num_locations; tile += gridDim.x) {
    wait_for_producers();  // all are done with the last tile's records
    fill_records(levels, problem, space, tile * LOCATIONS, thread);
    wait_for_producers();
    Step now(piece);
#pragma unroll
    for (int turn = 0; turn < DEPTH - 1; ++turn) read(now, turn);
    for (int step = 0; step < num_steps; ++step) {
      Step next = now;
      if (step + 1 < num_steps) next.advance(levels);  // else what was read is read again, for nothing
      wait(space.empty + ring.stage * 8, ring.parity ^ 1);
      if (thread == 0) {
        const Address full = space.full + ring.stage * 8;
        arrive_and_expect(full, WEIGHT_BYTES);
        copy_in_bulk(space.weight(ring.stage), weight + Offset(step) * WEIGHT_BYTES, WEIGHT_BYTES, full);
      }
      const Address columns = space.columns(ring.stage);
#pragma unroll
      for (int turn = 0; turn < TURNS; ++turn) {
        const int ahead = turn + DEPTH - 1;
        read(ahead < TURNS ? now : next, ahead % TURNS);
        write_columns(corners[turn % DEPTH], columns + swizzled(first_location + turn * LOCATIONS_AT_ONCE, piece));
      }
      show_to_tensor_cores();
      __syncwarp();
      if (thread % 32 == 0) arrive(space.full + ring.stage * 8);
      ring.advance();
      now = next;
    }
  }
}

}  // namespace aligncli
