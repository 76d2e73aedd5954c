// RoIConv's CUDA kernels of columns: out of a feature map (gather.cuh), the sum transposed (scatter.cuh), and the boxes'
// gradient (grad_boxes.cuh).
//
// A map is a table with one row of channels a cell; columns are (location, tap, channel). One item of work (a
// location and one of its tap rows or tap columns) belongs to the threads with the same threadIdx.y, which share its
// channels, so that neighbouring threads touch neighbouring memory and take the same branches. gather computes a tap's
// cells and weights once for all of them; scatter and grad_boxes, where they weigh little, in every thread.
#include "gather.cuh"
#include "grad_boxes.cuh"
#include "scatter.cuh"

// Every kernel twice: with 16-byte accesses (scatter: 16 bytes of the float32 table), for channels and pointers that
// are multiples of them, and a number at a time for all others.
#define ALIGNCLI_KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define ALIGNCLI_LEVELS const __grid_constant__ aligncli::Levels levels, const __grid_constant__ aligncli::Chunk chunk
using aligncli::Number;
constexpr int WIDE = 16 / sizeof(Number);

template <int WIDTH>
ALIGNCLI_DEVICE void fill_and_gather(const aligncli::Levels& levels, const aligncli::Chunk& chunk, Number* columns,
                                     unsigned num_locations) {
  extern __shared__ uint4 memory[];
  const aligncli::Share share(chunk, num_locations);
  const aligncli::Records records(memory, levels, share);
  aligncli::fill_records(levels, chunk, share, records);
  __syncthreads();
  aligncli::gather<WIDTH>(levels, share, records, columns);
}

ALIGNCLI_KERNEL(512, 2) gather_wide(ALIGNCLI_LEVELS, Number* columns, unsigned num_locations) {
  fill_and_gather<WIDE>(levels, chunk, columns, num_locations);
}

ALIGNCLI_KERNEL(512, 2) gather_narrow(ALIGNCLI_LEVELS, Number* columns, unsigned num_locations) {
  fill_and_gather<1>(levels, chunk, columns, num_locations);
}

ALIGNCLI_KERNEL(128, 6) scatter_wide(ALIGNCLI_LEVELS, const Number* grad_columns) {
  aligncli::scatter<4>(levels, chunk, grad_columns);
}

ALIGNCLI_KERNEL(128, 6) scatter_narrow(ALIGNCLI_LEVELS, const Number* grad_columns) {
  aligncli::scatter<1>(levels, chunk, grad_columns);
}

ALIGNCLI_KERNEL(128, 6) grad_boxes_wide(ALIGNCLI_LEVELS, const Number* grad_columns) {
  aligncli::grad_boxes<WIDE>(levels, chunk, grad_columns);
}

ALIGNCLI_KERNEL(128, 6) grad_boxes_narrow(ALIGNCLI_LEVELS, const Number* grad_columns) {
  aligncli::grad_boxes<1>(levels, chunk, grad_columns);
}
