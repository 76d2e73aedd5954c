// RoIConv's forward pass for Hopper in one kernel: columns are sampled into shared memory, where tensor cores multiply
// them, and are never written to device memory. For float16 and bfloat16 maps of a multiple of 64 channels.
//
// A block makes all outputs of 128 locations (a tile), then of the next. A step is one tap and 64 channels: 256 threads
// blend (128, 64) columns while a bulk copy fetches the weight's (ALIGNCLI_OUTPUTS, 64), and two warpgroups multiply an
// earlier step's. A stage is the shared memory of a step; `full` and `empty` hand it to and fro. Sums take up to 128
// registers of a thread, which is all that 512 threads have each: those that blend give some of theirs away.
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
constexpr int THREADS_A_LOCATION = STEP_CHANNELS / WIDTH;
constexpr int LOCATIONS_AT_ONCE = PRODUCERS / THREADS_A_LOCATION;
constexpr int TURNS = LOCATIONS / LOCATIONS_AT_ONCE;
constexpr int MOST_STAGES = 8;
constexpr int DEPTH = 2;  // turns of which a thread has cells on their way

ALIGNCLI_DEVICE void wait_for_producers() { asm volatile("bar.sync 1, %0;" ::"n"(PRODUCERS) : "memory"); }

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

// (O, C, kh, kw), wherever its numbers lie.
struct Weight {
  const Number* numbers;
  Offset output_stride;  // in numbers, as the others
  Offset channel_stride;
  Offset row_stride;
  Offset column_stride;
  int out_channels;
  int channels;
  int kernel_height;
  int kernel_width;
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

ALIGNCLI_DEVICE int steps_of_tile(const Levels& levels) {
  return levels.channels / STEP_CHANNELS * levels.kernel_height * levels.kernel_width;
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

// What a thread of a warpgroup sums.
using Sums = float[PARTS][PART_OUTPUTS / 2];

// A warpgroup's sums are of 64 locations: a thread has, of rows r and r + 8, the pairs of outputs at 8 n + c.
ALIGNCLI_DEVICE void store_rows(const Levels& levels, const Problem& problem, const Sums& sums, unsigned first,
                                int thread) {
  const int lane = thread % 32;
  const int first_output = lane % 4 * 2;
  Number* rows[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const unsigned order = first + unsigned(thread / 32 * 16 + lane / 4 + half * 8);
    rows[half] = order < problem.num_locations
                     ? problem.rows + Offset(location_in_strips(levels, order)) * problem.out_channels
                     : nullptr;
  }
#pragma unroll
  for (int n = 0; n < OUTPUTS / 8; ++n) {
    const int output = first_output + n * 8;
    if (output >= problem.out_channels) break;
    float bias[2] = {};
    if (problem.bias != nullptr) load(problem.bias + output, bias);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float* pair = &sums[n / (PART_OUTPUTS / 8)][n % (PART_OUTPUTS / 8) * 4 + 2 * half];
      const float values[2] = {pair[0] + bias[0], pair[1] + bias[1]};
      if (rows[half] != nullptr) store(rows[half] + output, values);
    }
  }
}

ALIGNCLI_DEVICE void consume(const Levels& levels, const Problem& problem, const Workspace& space, int thread) {
  const int warpgroup = thread / 128;
  const int num_steps = steps_of_tile(levels);
  Ring ring(problem.num_stages);
  for (unsigned tile = blockIdx.x; tile * LOCATIONS < problem.num_locations; tile += gridDim.x) {
    Sums sums;
    int last = 0;  // the stage of the step before
    for (int step = 0; step < num_steps; ++step) {
      wait(space.full + ring.stage * 8, ring.parity);
      const unsigned long long columns = descriptor(space.columns(ring.stage) + warpgroup * 64 * ROW_BYTES);
      const unsigned long long weight = descriptor(space.weight(ring.stage));
      asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
      for (int k = 0; k < STEP_CHANNELS / 16; ++k) {  // 16 numbers are 32 bytes on
#pragma unroll
        for (int part = 0; part < PARTS; ++part) {
          const unsigned long long outputs = weight + part * (PART_OUTPUTS * ROW_BYTES >> 4);
          multiply_add(sums[part], columns + k * (32 >> 4), outputs + k * (32 >> 4), step + k > 0);
        }
      }
      asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
      asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");  // the step before has been read
      if (step > 0 && thread % 128 == 0) arrive(space.empty + last * 8);
      last = ring.stage;
      ring.advance();
    }
#pragma unroll
    for (int part = 0; part < PARTS; ++part) wait_for_products(sums[part]);
    if (thread % 128 == 0) arrive(space.empty + last * 8);
    store_rows(levels, problem, sums, tile * LOCATIONS + warpgroup * 64, thread % 128);
  }
}

}  // namespace aligncli

// grid: tiles; blocks go on with others.
extern "C" __global__ void __launch_bounds__(aligncli::PRODUCERS + aligncli::CONSUMERS, 1)
    roi_conv_fused(const __grid_constant__ aligncli::Levels levels, const __grid_constant__ aligncli::Problem problem) {
  using namespace aligncli;
  extern __shared__ unsigned char memory[];
  const Workspace space(memory, problem);
  const int thread = int(threadIdx.x);
  if (thread == 0) {
    for (int stage = 0; stage < problem.num_stages; ++stage) {
      init_barrier(space.full + stage * 8, PRODUCERS / 32 + 1);  // a warp each, and the weight's copy
      init_barrier(space.empty + stage * 8, CONSUMERS / 128);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (thread < CONSUMERS) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(CONSUMER_REGISTERS));
    consume(levels, problem, space, thread);
  } else {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(PRODUCER_REGISTERS));
    produce(levels, problem, space, thread - CONSUMERS);
  }
}

// The weight into the order of steps: 64 channels after the other, all taps of each. A thread makes 16 bytes.
extern "C" __global__ void __launch_bounds__(256)
    pack_weight(const __grid_constant__ aligncli::Weight weight, aligncli::Number* __restrict__ packed) {
  using namespace aligncli;
  const int num_taps = weight.kernel_height * weight.kernel_width;
  const int num_pieces = num_taps * weight.channels / WIDTH * OUTPUTS;
  const int item = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (item >= num_pieces) return;
  const int piece = item % 8, output = item / 8 % OUTPUTS, step = item / (8 * OUTPUTS);
  const int tap = step % num_taps, channel = step / num_taps * STEP_CHANNELS + (piece ^ (output & 7)) * WIDTH;
  Pack<Number, WIDTH> numbers = {};
  if (output < weight.out_channels) {
    const Number* from = weight.numbers + output * weight.output_stride + channel * weight.channel_stride +
                         tap / weight.kernel_width * weight.row_stride + tap % weight.kernel_width * weight.column_stride;
#pragma unroll
    for (int lane = 0; lane < WIDTH; ++lane) numbers.numbers[lane] = from[lane * weight.channel_stride];
  }
  reinterpret_cast<Pack<Number, WIDTH>*>(packed)[item] = numbers;
}
