// The CUDA kernels as plain C++: every thread of every block, one after the other. Exact, because the only kernel whose
// threads wait for each other, gather, is run in its two steps; a location's box gradient is summed by a warp of one
// thread.
#include <math.h>
#include <string.h>

#define __device__
#define __global__
#define __forceinline__ inline
#define __grid_constant__
#define __shared__
#define __launch_bounds__(...)

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct Index {
  unsigned x, y;
};
static Index threadIdx, blockIdx, blockDim;

static void __syncthreads() {}

static long long num_additions = 0;

static void atomicAdd(float* address, float value) {
  *address += value;
  ++num_additions;
}

#include "numbers.cuh"

namespace aligncli {

static float sum_over_warp(float value) { return value; }

static float to_float(BFloat16 value) {
  const unsigned bits = unsigned(value.bits) << 16;
  float result;
  memcpy(&result, &bits, sizeof result);
  return result;
}

static void from_float(float value, BFloat16& result) {
  unsigned bits;
  memcpy(&bits, &value, sizeof bits);
  const unsigned rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  result.bits = static_cast<unsigned short>(value == value ? rounded : 0x7fffu);
}

static float to_float(Float16 value) {
  _Float16 half;
  memcpy(&half, &value.bits, sizeof half);
  return float(half);
}

static void from_float(float value, Float16& result) {
  const _Float16 half = static_cast<_Float16>(value);
  memcpy(&result.bits, &half, sizeof half);
}

}  // namespace aligncli

#include "roi_conv_cuda.cu"

uint4 memory[1 << 12];  // a block's shared memory

extern "C" long long count_additions() { return num_additions; }

// False for a kernel that there is not.
extern "C" bool launch(const char* name, unsigned num_blocks, unsigned threads_x, unsigned threads_y,
                       const aligncli::Levels* levels, const aligncli::Chunk* chunk, void* columns,
                       unsigned num_locations) {
  const auto is = [&](const char* other) { return strcmp(name, other) == 0; };
  const auto run_block = [&](auto step) {
    for (threadIdx.y = 0; threadIdx.y < threads_y; ++threadIdx.y)
      for (threadIdx.x = 0; threadIdx.x < threads_x; ++threadIdx.x) step();
  };
  const auto run_all = [&](auto... steps) {
    blockDim = {threads_x, threads_y};
    for (blockIdx.x = 0; blockIdx.x < num_blocks; ++blockIdx.x) (run_block(steps), ...);
    return true;
  };
  const auto share = [&] { return aligncli::Share(*chunk, num_locations); };
  const auto records = [&] { return aligncli::Records(memory, *levels, share()); };
  const auto fill = [&] { aligncli::fill_records(*levels, *chunk, share(), records()); };
  Number* output = static_cast<Number*>(columns);
  const Number* input = output;
  if (is("gather_wide")) return run_all(fill, [&] { aligncli::gather<WIDE>(*levels, share(), records(), output); });
  if (is("gather_narrow")) return run_all(fill, [&] { aligncli::gather<1>(*levels, share(), records(), output); });
  if (is("scatter_wide")) return run_all([&] { scatter_wide(*levels, *chunk, input); });
  if (is("scatter_narrow")) return run_all([&] { scatter_narrow(*levels, *chunk, input); });
  if (is("grad_boxes_wide")) return run_all([&] { grad_boxes_wide(*levels, *chunk, input); });
  if (is("grad_boxes_narrow")) return run_all([&] { grad_boxes_narrow(*levels, *chunk, input); });
  return false;
}
