// The CUDA kernels as plain C++: every thread of every block, one after the other. Exact, because no kernel has its
// threads wait for each other; a location's box gradient is summed by a warp of one thread.
#include <math.h>
#include <string.h>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct Index {
  unsigned x, y;
};
static Index threadIdx, blockIdx, blockDim;

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

extern "C" long long count_additions() { return num_additions; }

// tensors: what the kernel takes after the chunk. False for a kernel that there is not.
extern "C" bool launch(const char* name, unsigned num_blocks, unsigned threads_x, unsigned threads_y,
                       const Chunk* chunk, void* const* tensors) {
  const auto is = [&](const char* other) { return strcmp(name, other) == 0; };
  const Number* first = static_cast<const Number*>(tensors[0]);
  const float* boxes = static_cast<const float*>(tensors[1]);
  const auto run_all = [&](auto kernel) {
    blockDim = {threads_x, threads_y};
    for (blockIdx.x = 0; blockIdx.x < num_blocks; ++blockIdx.x)
      for (threadIdx.y = 0; threadIdx.y < threads_y; ++threadIdx.y)
        for (threadIdx.x = 0; threadIdx.x < threads_x; ++threadIdx.x) kernel();
    return true;
  };
  const auto gather = [&](auto kernel) {
    return run_all([&] { kernel(*chunk, first, boxes, static_cast<Number*>(tensors[2])); });
  };
  const auto scatter = [&](auto kernel) {
    return run_all([&] { kernel(*chunk, first, boxes, static_cast<float*>(tensors[2])); });
  };
  const auto grad_boxes = [&](auto kernel) {
    const Number* table = static_cast<const Number*>(tensors[1]);
    const float* third = static_cast<const float*>(tensors[2]);
    return run_all([&] { kernel(*chunk, first, table, third, static_cast<float*>(tensors[3])); });
  };
  if (is("gather_wide")) return gather(gather_wide);
  if (is("gather_narrow")) return gather(gather_narrow);
  if (is("scatter_wide")) return scatter(scatter_wide);
  if (is("scatter_narrow")) return scatter(scatter_narrow);
  if (is("grad_boxes_wide")) return grad_boxes(grad_boxes_wide);
  if (is("grad_boxes_narrow")) return grad_boxes(grad_boxes_narrow);
  return false;
}
