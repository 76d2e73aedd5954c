// The fused kernel's side that multiplies what is in shared memory, and stores rows.
#pragma once

#include "fused_stages.cuh"

namespace aligncli {

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
