// RoIConv's forward pass for Hopper in one kernel: columns are sampled into shared memory, where tensor cores multiply
// them, and are never written to device memory. For float16 and bfloat16 maps of a multiple of 64 channels.
//
// A block makes ALIGNCLI_OUTPUTS outputs of 128 locations (a tile), then of the next. Each of its two warpgroups has 64
// of the locations, and nothing but the weight in common with the other. A step is one tap and 64 channels: a warpgroup
// blends the (64, 64) columns of a step while its tensor cores multiply the step before, and has the cells of the next
// one on their way. The weight's (ALIGNCLI_OUTPUTS, 64) of some steps are in shared memory, each in a stage; whichever
// warpgroup is the last to have multiplied with one has its stage filled again. All registers are taken: a third
// warpgroup or warp, for the weight alone, would leave 168 for a thread, and half of the sums would be spilled.
#include "levels.cuh"
#include "wgmma.cuh"  // multiply_add, which aligncli_ext/fused.py writes: it lists a register for each sum

namespace aligncli {

constexpr int OUTPUTS = ALIGNCLI_OUTPUTS;
constexpr int WARPGROUPS = 2;
constexpr int GROUP_THREADS = 128;
constexpr int GROUP_LOCATIONS = 64;
constexpr int LOCATIONS = WARPGROUPS * GROUP_LOCATIONS;
constexpr int THREADS = WARPGROUPS * GROUP_THREADS;
constexpr int STEP_CHANNELS = 64;  // 128 bytes, a row of a swizzled tile
constexpr int ROW_BYTES = 128;
constexpr int COLUMNS_BYTES = GROUP_LOCATIONS * ROW_BYTES;
constexpr int STAGE_BYTES = OUTPUTS * ROW_BYTES;
constexpr int WIDTH = 8;  // numbers of a 16-byte access
constexpr int THREADS_A_LOCATION = STEP_CHANNELS / WIDTH;
constexpr int LOCATIONS_AT_ONCE = GROUP_THREADS / THREADS_A_LOCATION;
constexpr int TURNS = GROUP_LOCATIONS / LOCATIONS_AT_ONCE;
constexpr int MOST_STAGES = 8;

using Address = unsigned;  // in shared memory

ALIGNCLI_DEVICE Address shared_address(const void* pointer) {
  return static_cast<Address>(__cvta_generic_to_shared(pointer));
}

// A 16-byte piece of a row, where the 128-byte swizzle puts it: rows are 128 bytes apart and the tile starts at a
// multiple of 1,024.
ALIGNCLI_DEVICE int swizzled(int row, int piece) { return row * ROW_BYTES + (piece ^ (row & 7)) * 16; }

// What wgmma is told of such a tile: its address, and 1,024 bytes between groups of eight rows.
ALIGNCLI_DEVICE unsigned long long descriptor(Address tile) {
  constexpr unsigned long long swizzle_128 = 1ull << 62, group_stride = (1024ull >> 4) << 32, unused = 1ull << 16;
  return swizzle_128 | group_stride | unused | ((tile & 0x3ffffu) >> 4);
}

ALIGNCLI_DEVICE void init_barrier(Address barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

ALIGNCLI_DEVICE void arrive_and_expect(Address barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

ALIGNCLI_DEVICE void wait(Address barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra.uni finished;\n"
      "bra.uni again;\n"
      "finished:\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

ALIGNCLI_DEVICE void copy_in_bulk(Address to, const void* from, int bytes, Address barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
      "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(barrier)
      : "memory");
}

// What a thread wrote to shared memory is seen by the tensor cores.
ALIGNCLI_DEVICE void show_to_tensor_cores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Adds one, and says what it was; what the last to add one did comes before what the next one does.
ALIGNCLI_DEVICE unsigned count(Address counter) {
  unsigned before;
  asm volatile("atom.acq_rel.cta.shared::cta.add.u32 %0, [%1], 1;" : "=r"(before) : "r"(counter) : "memory");
  return before;
}

ALIGNCLI_DEVICE void wait_for_group(int group) {
  asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"(GROUP_THREADS) : "memory");
}

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
  const Number* weight;  // packed: (output blocks, steps, OUTPUTS, 64), each (OUTPUTS, 64) swizzled
  const Number* bias;    // (O,), or null
  Number* rows;          // (locations, O)
  unsigned num_locations;
  int out_channels;
  int num_stages;
};

// A block's shared memory, as a warpgroup sees it.
struct Workspace {
  Address columns;  // two of COLUMNS_BYTES
  Address stages;   // of STAGE_BYTES
  Address full;     // of each stage, a barrier of 8 bytes
  Address used;     // of each stage, how many warpgroups have multiplied with it: 4 bytes
  AxisRecord* records;           // of each location
  const unsigned char** images;  // each location's image in its table

  ALIGNCLI_DEVICE Workspace(unsigned char* memory, const Levels& levels, int num_stages, int group) {
    memory += (1024 - (shared_address(memory) & 1023)) & 1023;
    columns = shared_address(memory) + group * 2 * COLUMNS_BYTES;
    stages = shared_address(memory) + WARPGROUPS * 2 * COLUMNS_BYTES;
    memory += WARPGROUPS * 2 * COLUMNS_BYTES + num_stages * STAGE_BYTES;
    full = shared_address(memory);
    used = full + MOST_STAGES * 8;
    images = reinterpret_cast<const unsigned char**>(memory + MOST_STAGES * 16);
    records = reinterpret_cast<AxisRecord*>(images + LOCATIONS);
    images += group * GROUP_LOCATIONS;
    records += group * GROUP_LOCATIONS * (levels.kernel_height + levels.kernel_width);
  }
};

// Two threads see to a location, one to its rows and one to its columns. Locations beyond the last are the last one
// again; what becomes of them is not stored.
ALIGNCLI_DEVICE void fill_records(const Levels& levels, const Problem& problem, const Workspace& space, unsigned first,
                                  int thread) {
  const int index = thread % GROUP_LOCATIONS, is_column = thread / GROUP_LOCATIONS;
  const int num_records = levels.kernel_height + levels.kernel_width;
  const unsigned cell_bytes = unsigned(levels.channels) * unsigned(sizeof(Number));
  const unsigned order = first + unsigned(index), last = problem.num_locations - 1;
  const Place place = place_of(levels, location_in_strips(levels, order < last ? order : last));
  if (is_column == 0) {
    space.images[index] = reinterpret_cast<const unsigned char*>(place.level.table) +
                          place.first_cell * Offset(cell_bytes);
  }
  const int end = is_column ? num_records : levels.kernel_height;
  for (int axis = is_column ? levels.kernel_height : 0; axis < end; ++axis) {
    space.records[index * num_records + axis] = axis_record(levels, place, axis, cell_bytes);
  }
}

ALIGNCLI_DEVICE AxisRecord record_at(const AxisRecord* address) {
  const uint4 words = *reinterpret_cast<const uint4*>(address);
  return {words.x, words.y, __uint_as_float(words.z), __uint_as_float(words.w)};
}

// A step: its tap, and its channels in bytes.
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

// How a warpgroup makes columns. Eight threads see to a location, whose 64 channels they share, and go through TURNS
// locations a step.
class Sampler {
 public:
  ALIGNCLI_DEVICE Sampler(const Levels& levels, const Workspace& space, int thread)
      : levels_(levels), space_(space), piece_(thread % THREADS_A_LOCATION), row_(thread / THREADS_A_LOCATION) {}

  ALIGNCLI_DEVICE Step first_step() const { return Step(piece_); }

  // Ask for the four cells of every location's tap. Offsets are in bytes; an image takes less than 4 GB.
  ALIGNCLI_DEVICE void read(const Step& step) {
#pragma unroll
    for (int turn = 0; turn < TURNS; ++turn) {
      const AxisRecord row = row_record(step, turn), column = column_record(step, turn);
      const unsigned char* image = space_.images[location(turn)] + step.channel_bytes;
      const unsigned cells[4] = {row.low + column.low, row.low + column.high, row.high + column.low,
                                 row.high + column.high};
#pragma unroll
      for (int corner = 0; corner < 4; ++corner) {
        unsigned(&pairs)[WIDTH / 2] = pairs_[turn][corner];
        // Volatile, so that they are on their way before the products are waited for.
        asm volatile("ld.global.nc.v4.b32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
                     : "l"(image + cells[corner]));
      }
    }
  }

  // Write the columns of the step that was read.
  ALIGNCLI_DEVICE void write(const Step& step, Address columns) const {
#pragma unroll
    for (int turn = 0; turn < TURNS; ++turn) {
      const AxisRecord row = row_record(step, turn), column = column_record(step, turn);
      const float weights[4] = {row.low_weight * column.low_weight, row.low_weight * column.high_weight,
                                row.high_weight * column.low_weight, row.high_weight * column.high_weight};
      unsigned blended[WIDTH / 2];
#pragma unroll
      for (int pair = 0; pair < WIDTH / 2; ++pair) {
        float values[2] = {};
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          float first, second;
          pair_to<Number>(pairs_[turn][corner][pair], first, second);
          values[0] = fma(weights[corner], first, values[0]);
          values[1] = fma(weights[corner], second, values[1]);
        }
        blended[pair] = pair_from<Number>(values[0], values[1]);
      }
      // Not said to change memory, so that later records are read before; show_to_tensor_cores comes after all.
      asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(columns + swizzled(location(turn), piece_)),
                   "r"(blended[0]), "r"(blended[1]), "r"(blended[2]), "r"(blended[3]));
    }
  }

 private:
  ALIGNCLI_DEVICE int location(int turn) const { return row_ + turn * LOCATIONS_AT_ONCE; }

  ALIGNCLI_DEVICE AxisRecord row_record(const Step& step, int turn) const { return record(turn, step.i); }

  ALIGNCLI_DEVICE AxisRecord column_record(const Step& step, int turn) const {
    return record(turn, levels_.kernel_height + step.j);
  }

  ALIGNCLI_DEVICE AxisRecord record(int turn, int axis) const {
    return record_at(space_.records + location(turn) * (levels_.kernel_height + levels_.kernel_width) + axis);
  }

  const Levels& levels_;
  const Workspace& space_;
  int piece_;
  int row_;
  unsigned pairs_[TURNS][4][WIDTH / 2];
};

// A warpgroup's sums are of 64 locations: a thread has, of rows r and r + 8, the pairs of outputs at 8 n + c.
ALIGNCLI_DEVICE void store_rows(const Levels& levels, const Problem& problem, const float (&sums)[OUTPUTS / 2],
                                unsigned first, int thread) {
  const int lane = thread % 32;
  const int first_output = int(blockIdx.y) * OUTPUTS + lane % 4 * 2;
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
      const float values[2] = {sums[4 * n + 2 * half] + bias[0], sums[4 * n + 2 * half + 1] + bias[1]};
      if (rows[half] != nullptr) store(rows[half] + output, values);
    }
  }
}

// The weight's way into shared memory. A block takes the same steps for every one of its tiles.
class Weight {
 public:
  ALIGNCLI_DEVICE Weight(const Levels& levels, const Problem& problem, const Workspace& space)
      : space_(space), num_stages_(problem.num_stages) {
    const unsigned num_tiles = (problem.num_locations + LOCATIONS - 1) / LOCATIONS;
    steps_ = levels.channels / STEP_CHANNELS * levels.kernel_height * levels.kernel_width;
    left_ = int((num_tiles - blockIdx.x + gridDim.x - 1) / gridDim.x) * steps_;
    from_ = reinterpret_cast<const unsigned char*>(problem.weight) + Offset(blockIdx.y) * steps_ * STAGE_BYTES;
  }

  ALIGNCLI_DEVICE int steps() const { return steps_; }

  ALIGNCLI_DEVICE Address stage(int stage) const { return space_.stages + stage * STAGE_BYTES; }

  // One thread of the block begins.
  ALIGNCLI_DEVICE void fill_all() const {
    for (int step = 0; step < num_stages_ && step < left_; ++step) fill(step, step % steps_);
  }

  // One thread of each warpgroup tells, in the order of steps, that it has multiplied with a step's stage.
  ALIGNCLI_DEVICE void was_used(int stage) {
    if (count(space_.used + stage * 4) % WARPGROUPS == WARPGROUPS - 1 && done_ + num_stages_ < left_) {
      fill(stage, (done_ + num_stages_) % steps_);
    }
    ++done_;
  }

 private:
  ALIGNCLI_DEVICE void fill(int stage, int step) const {
    const Address full = space_.full + stage * 8;
    arrive_and_expect(full, STAGE_BYTES);
    copy_in_bulk(this->stage(stage), from_ + Offset(step) * STAGE_BYTES, STAGE_BYTES, full);
  }

  const Workspace& space_;
  int num_stages_;
  int steps_;
  int left_;  // steps of all tiles
  int done_ = 0;
  const unsigned char* from_;
};

ALIGNCLI_DEVICE void multiply_step(float (&sums)[OUTPUTS / 2], Address columns, Address weight, bool is_first) {
  const unsigned long long left = descriptor(columns), right = descriptor(weight);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
  for (int k = 0; k < STEP_CHANNELS / 16; ++k) {  // 16 numbers are 32 bytes on
    multiply_add(sums, left + k * (32 >> 4), right + k * (32 >> 4), !is_first || k > 0);
  }
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

ALIGNCLI_DEVICE void compute(const Levels& levels, const Problem& problem, const Workspace& space, Weight& weight,
                             int group, int thread) {
  Sampler sampler(levels, space, thread);
  Ring ring(problem.num_stages), used(problem.num_stages);
  for (unsigned tile = blockIdx.x; tile * LOCATIONS < problem.num_locations; tile += gridDim.x) {
    const unsigned first = tile * LOCATIONS + unsigned(group) * GROUP_LOCATIONS;
    wait_for_group(group);  // all are done with the last tile's records
    fill_records(levels, problem, space, first, thread);
    wait_for_group(group);
    float sums[OUTPUTS / 2];
    Step step = sampler.first_step();
    sampler.read(step);
    for (int index = 0; index < weight.steps(); ++index) {
      // The products before the last ones are done: their columns may be overwritten, and their weight.
      asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
      if (index >= 2) {
        if (thread == 0) weight.was_used(used.stage);
        used.advance();
      }
      const Address columns = space.columns + index % 2 * COLUMNS_BYTES;
      sampler.write(step, columns);
      if (index + 1 < weight.steps()) {
        step.advance(levels);
        sampler.read(step);
      }
      show_to_tensor_cores();
      wait_for_group(group);
      wait(space.full + ring.stage * 8, ring.parity);
      multiply_step(sums, columns, weight.stage(ring.stage), index == 0);
      ring.advance();
    }
    wait_for_products(sums);
    for (int index = weight.steps() < 2 ? 0 : weight.steps() - 2; index < weight.steps(); ++index) {
      if (thread == 0) weight.was_used(used.stage);
      used.advance();
    }
    store_rows(levels, problem, sums, first, thread);
  }
}

}  // namespace aligncli

// grid: tiles (blocks go on with others), and blocks of outputs.
extern "C" __global__ void __launch_bounds__(aligncli::THREADS, 1)
    roi_conv_fused(const __grid_constant__ aligncli::Levels levels, const __grid_constant__ aligncli::Problem problem) {
  using namespace aligncli;
  extern __shared__ unsigned char memory[];
  const int thread = int(threadIdx.x), group = thread / GROUP_THREADS;
  const Workspace space(memory, levels, problem.num_stages, group);
  Weight weight(levels, problem, space);
  if (thread == 0) {
    for (int stage = 0; stage < problem.num_stages; ++stage) {
      init_barrier(space.full + stage * 8, 1);
      asm volatile("st.shared::cta.u32 [%0], 0;" ::"r"(space.used + stage * 4) : "memory");
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    weight.fill_all();
  }
  __syncthreads();
  compute(levels, problem, space, weight, group, thread % GROUP_THREADS);
}

// weight (O, taps, C) into the order of steps: 64 channels after the other, all taps of each. A thread moves 16 bytes.
extern "C" __global__ void __launch_bounds__(256)
    pack_weight(const aligncli::Number* __restrict__ weight, aligncli::Number* __restrict__ packed, int out_channels,
                int num_taps, int channels, int num_pieces) {
  using namespace aligncli;
  const int item = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (item >= num_pieces) return;
  const int piece = item % 8, row = item / 8 % OUTPUTS;
  const int step_of_all = item / (8 * OUTPUTS), num_steps = channels / STEP_CHANNELS * num_taps;
  const int step = step_of_all % num_steps, output = step_of_all / num_steps * OUTPUTS + row;
  const int tap = step % num_taps, channel = step / num_taps * STEP_CHANNELS + (piece ^ (row & 7)) * WIDTH;
  Pack<Number, WIDTH> numbers = {};
  if (output < out_channels) {
    numbers = *reinterpret_cast<const Pack<Number, WIDTH>*>(weight + (Offset(output) * num_taps + tap) * channels + channel);
  }
  reinterpret_cast<Pack<Number, WIDTH>*>(packed)[item] = numbers;
}
