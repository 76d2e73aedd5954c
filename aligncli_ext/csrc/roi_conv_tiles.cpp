// The operators of tiles_cpu.h: RoIConv in float32 with its matrix products, forward and backward.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <optional>

#include "arguments_cpu.h"
#include "machine_cpu.h"
#include "tiles_cpu.h"

namespace aligncli {
namespace {

constexpr int64_t kGrain = 1 << 18;  // multiplications that are worth a thread

float* floats(const Tensor& tensor, const char* message) {
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float && tensor.is_contiguous(), message);
  return static_cast<float*>(tensor.data_ptr());
}

// ---------------------------------------------------------------- tiles for two kinds of machines

#define ALIGNCLI_KERNELS_WITH(Tile, suffix, target)                                                                  \
  target void multiply_##suffix(const Level<float>& level, const float* map, const float* panels, int64_t outputs,   \
                                float* rows, int64_t begin, int64_t end) {                                           \
    multiply_rows<Tile>(level, map, panels, outputs, rows, begin, end);                                              \
  }                                                                                                                  \
  target void spread_##suffix(const Level<float>& level, const float* grad_rows, int64_t outputs,                    \
                              const float* panels, float* grad_map, int64_t location_begin, int64_t location_end,    \
                              int64_t begin, int64_t end) {                                                          \
    spread_panels<Tile>(level, grad_rows, outputs, panels, grad_map, location_begin, location_end, begin, end);      \
  }                                                                                                                  \
  target void collect_##suffix(const Level<float>& level, const float* map, const float* grad_rows, int64_t outputs, \
                               float* grad_weight, int64_t num_locations, int64_t begin, int64_t end) {              \
    collect_panels<Tile>(level, map, grad_rows, outputs, grad_weight, num_locations, begin, end);                    \
  }

ALIGNCLI_KERNELS_WITH(SmallTile, small, ALIGNCLI_AVX2)
ALIGNCLI_KERNELS_WITH(LargeTile, large, ALIGNCLI_AVX512)

#define ALIGNCLI_RUN_WITH(panel, kernel, ...) \
  ((panel) == LargeTile::panel ? kernel##_large(__VA_ARGS__) : kernel##_small(__VA_ARGS__))

void check_panel(int64_t panel) {
  STD_TORCH_CHECK(
      (panel == SmallTile::panel && (machine() != Machine::plain || !kHasMachines)) ||
          (panel == LargeTile::panel && machine() == Machine::avx512),
      "aligncli_ext: no panels of this width on this machine: 16 with AVX2, 32 with AVX-512");
}

void check_panels(const Tensor& panels, const Level<float>& level, int64_t columns, int64_t depth) {
  STD_TORCH_CHECK(panels.dim() == 4, "aligncli_ext: panels must be (taps, columns / panel, depth, panel)");
  const int64_t panel = panels.size(3);
  check_panel(panel);
  STD_TORCH_CHECK(
      panels.size(0) == level.num_taps() && panels.size(1) == (columns + panel - 1) / panel && panels.size(2) == depth,
      "aligncli_ext: panels must be (taps, columns / panel, depth, panel)");
}

// ---------------------------------------------------------------- the operators

void multiply(
    const Tensor& features, const Tensor& boxes, int64_t kernel_height, int64_t kernel_width, int64_t row_begin,
    int64_t row_end, double stride, const Tensor& panels, std::optional<Tensor> bias, bool adds, Tensor rows) {
  const int64_t num_rows = rows.size(0), outputs = rows.size(1);
  const auto level =
      describe<float>(features, boxes, 0, num_rows, kernel_height, kernel_width, row_begin, row_end, stride);
  check_panels(panels, level, outputs, level.channels);
  const float* map = floats(features, "aligncli_ext: the map must be float32");
  const float* matrix = floats(panels, "aligncli_ext: panels must be contiguous float32");
  const float* added = bias ? floats(*bias, "aligncli_ext: the bias must be contiguous float32") : nullptr;
  STD_TORCH_CHECK(!bias || bias->numel() == outputs, "aligncli_ext: the bias must have a number for each output");
  float* out = floats(rows, "aligncli_ext: rows must be contiguous float32");
  const int64_t panel = panels.size(3);
  const int64_t grain = std::max(LargeTile::rows, kGrain / (level.num_taps() * level.channels * outputs));
  torch::stable::parallel_for(0, num_rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end && !adds; ++row) {
      if (added) std::copy_n(added, outputs, out + row * outputs);
      else std::fill_n(out + row * outputs, outputs, 0.0f);
    }
    ALIGNCLI_RUN_WITH(panel, multiply, level, map, matrix, outputs, out, begin, end);
  });
}

void spread(
    const Tensor& grad_rows, const Tensor& boxes, int64_t kernel_height, int64_t kernel_width, int64_t row_begin,
    int64_t row_end, double stride, const Tensor& panels, Tensor grad_map) {
  const int64_t num_rows = grad_rows.size(0), outputs = grad_rows.size(1);
  const auto level =
      describe<float>(grad_map, boxes, 0, num_rows, kernel_height, kernel_width, row_begin, row_end, stride);
  STD_TORCH_CHECK(num_rows == boxes.size(0) * boxes.size(1), "aligncli_ext: a row's gradient for each box");
  check_panels(panels, level, level.channels, outputs);
  const float* grads = floats(grad_rows, "aligncli_ext: the rows' gradient must be contiguous float32");
  const float* matrix = floats(panels, "aligncli_ext: panels must be contiguous float32");
  float* map = floats(grad_map, "aligncli_ext: the map's gradient must be float32");
  const int64_t panel = panels.size(3), num_panels = panels.size(1), num_rois = level.num_rois;
  torch::stable::parallel_for(0, grad_map.size(0) * num_panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin, count; unit < end; unit += count) {  // an image's panels
      const int64_t image = unit / num_panels, first = unit % num_panels;
      count = std::min(num_panels - first, end - unit);
      ALIGNCLI_RUN_WITH(panel, spread, level, grads, outputs, matrix, map, image * num_rois, (image + 1) * num_rois,
                        first, first + count);
    }
  });
}

void collect(
    const Tensor& features, const Tensor& boxes, const Tensor& grad_rows, double stride, int64_t panel,
    Tensor grad_weight) {
  const int64_t num_rows = grad_rows.size(0), outputs = grad_rows.size(1);
  check_panel(panel);
  STD_TORCH_CHECK(
      grad_weight.dim() == 4 && grad_weight.size(0) == outputs && grad_weight.size(3) == features.size(3),
      "aligncli_ext: the weight's gradient must be (outputs, kernel rows, kernel columns, channels)");
  const int64_t kernel_height = grad_weight.size(1);
  const auto level = describe<float>(
      features, boxes, 0, num_rows, kernel_height, grad_weight.size(2), 0, kernel_height, stride);
  const float* map = floats(features, "aligncli_ext: the map must be float32");
  const float* grads = floats(grad_rows, "aligncli_ext: the rows' gradient must be contiguous float32");
  float* sums = floats(grad_weight, "aligncli_ext: the weight's gradient must be contiguous float32");
  const int64_t num_panels = (level.channels + panel - 1) / panel;
  torch::stable::parallel_for(0, level.num_taps() * num_panels, 1, [&](int64_t begin, int64_t end) {
    ALIGNCLI_RUN_WITH(panel, collect, level, map, grads, outputs, sums, num_rows, begin, end);
  });
}

}  // namespace
}  // namespace aligncli

STABLE_TORCH_LIBRARY_FRAGMENT(aligncli_ext, library) {
  library.def(
      "multiply(Tensor features, Tensor boxes, int kernel_height, int kernel_width, int row_begin, int row_end, "
      "float stride, Tensor panels, Tensor? bias, bool adds, Tensor(a!) rows) -> ()");
  library.def(
      "spread(Tensor grad_rows, Tensor boxes, int kernel_height, int kernel_width, int row_begin, int row_end, "
      "float stride, Tensor panels, Tensor(a!) grad_map) -> ()");
  library.def(
      "collect(Tensor features, Tensor boxes, Tensor grad_rows, float stride, int panel, Tensor(a!) grad_weight) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(aligncli_ext, CPU, library) {
  library.impl("multiply", TORCH_BOX(&aligncli::multiply));
  library.impl("spread", TORCH_BOX(&aligncli::spread));
  library.impl("collect", TORCH_BOX(&aligncli::collect));
}
