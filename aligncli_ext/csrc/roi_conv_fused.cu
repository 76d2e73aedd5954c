// RoIConv's forward pass for Hopper in one kernel: columns are sampled into shared memory, where tensor cores multiply
// them, and are never written to device memory. For float16 and bfloat16 maps of a multiple of 64 channels.
//
// A block makes all outputs of 128 locations (a tile), then of the next. A step is one tap and 64 channels: 256 threads
// blend (128, 64) columns while a bulk copy fetches the weight's (ALIGNCLI_OUTPUTS, 64), and two warpgroups multiply an
// earlier step's. A stage is the shared memory of a step; `full` and `empty` hand it to and fro. Sums take up to 128
// registers of a thread, which is all that 512 threads have each: those that blend give some of theirs away.
#include "fused_produce.cuh"
#include "fused_consume.cuh"

namespace aligncli {

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
