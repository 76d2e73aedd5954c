// The operators of tile_loops_cpu.h: RoIConv with its own matrix products, forward and backward, in float and bfloat16.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <type_traits>

#include "arguments_cpu.h"
#include "machine_cpu.h"
#include "tile_loops_cpu.h"

namespace aligncli {
namespace {

constexpr int64_t kGrain = 1 << 18;  // multiplications that are worth a thread
constexpr int64_t kPairWidth = PairTile::panel * PairTile::unit;

template <typename Value>
Value* values(const Tensor& tensor, const char* message) {
  STD_TORCH_CHECK(tensor.scalar_type() == kScalarType<Value> && tensor.is_contiguous(), message);
  return static_cast<Value*>(tensor.data_ptr());
}

// ---------------------------------------------------------------- tiles for three kinds of machines

#define ALIGNCLI_KERNELS_WITH(Tile, suffix, target)                                                                   \
  target void multiply_##suffix(const Level<float>& level, const Tile::Value* map, const Tile::Value* panels,         \
                                const float* bias, bool adds, int64_t outputs, Tile::Value* rows, int64_t begin,      \
                                int64_t end) {                                                                        \
    multiply_rows<Tile>(level, map, panels, bias, adds, outputs, rows, begin, end);                                   \
  }                                                                                                                   \
  target void spread_##suffix(const Level<float>& level, const Tile::Value* grad_rows, int64_t outputs,               \
                              const Tile::Value* panels, float* grad_map, int64_t location_begin,                     \
                              int64_t location_end, int64_t begin, int64_t end) {                                     \
    spread_panels<Tile>(level, grad_rows, outputs, panels, grad_map, location_begin, location_end, begin, end);       \
  }                                                                                                                   \
  target void collect_##suffix(const Level<float>& level, const Tile::Value* map, const Tile::Value* grad_rows,       \
                               int64_t outputs, float* grad_weight, int64_t num_locations, int64_t begin,             \
                               int64_t end) {                                                                         \
    collect_panels<Tile>(level, map, grad_rows, outputs, grad_weight, num_locations, begin, end);                     \
  }

ALIGNCLI_KERNELS_WITH(SmallTile, small, ALIGNCLI_AVX2)
ALIGNCLI_KERNELS_WITH(LargeTile, large, ALIGNCLI_AVX512)
#if ALIGNCLI_HAS_PAIRS
ALIGNCLI_KERNELS_WITH(PairTile, pair, ALIGNCLI_AVX512_BF16)
#define ALIGNCLI_RUN_PAIRS(kernel, ...) kernel##_pair(__VA_ARGS__)
#else
#define ALIGNCLI_RUN_PAIRS(kernel, ...) (void)0  // check_width lets none come here
#endif

#define ALIGNCLI_RUN_TILES(Value, width, kernel, ...)                                     \
  if constexpr (std::is_same_v<Value, BFloat16>) ALIGNCLI_RUN_PAIRS(kernel, __VA_ARGS__); \
  else if ((width) == LargeTile::panel) kernel##_large(__VA_ARGS__);                      \
  else kernel##_small(__VA_ARGS__);

// Calls function(Value{}) for the element type of `like`.
template <typename Function>
void with_tiles(const Tensor& like, const Function& function) {
  if (like.scalar_type() == ScalarType::BFloat16) return function(BFloat16{});
  STD_TORCH_CHECK(like.scalar_type() == ScalarType::Float, "aligncli_ext: tiles are of float32 and bfloat16");
  function(float{});
}

// `width` is a panel's, in values that lie together.
template <typename Value>
bool can_run(int64_t width) {
  if (std::is_same_v<Value, BFloat16>) return ALIGNCLI_HAS_PAIRS && has_bfloat16() && width == kPairWidth;
  if (width == LargeTile::panel) return machine() == Machine::avx512;
  return width == SmallTile::panel && runs_small_tiles();
}

template <typename Value>
void check_width(int64_t width) {
  STD_TORCH_CHECK(can_run<Value>(width), "aligncli_ext: no panels of this width, for this type, on this machine");
}

template <typename Value>
const Value* panels_of(const Tensor& panels, const Level<float>& level, int64_t columns, int64_t depth) {
  constexpr const char* shape = "aligncli_ext: panels must be (taps, columns / panel, units of depth, width)";
  STD_TORCH_CHECK(panels.dim() == 4, shape);
  check_width<Value>(panels.size(3));
  constexpr int64_t unit = Unit<Value>::size;
  const int64_t panel = panels.size(3) / unit;
  STD_TORCH_CHECK(
      panels.size(0) == level.num_taps() && panels.size(1) == (columns + panel - 1) / panel &&
          panels.size(2) == (depth + unit - 1) / unit,
      shape);
  return values<Value>(panels, "aligncli_ext: panels must be contiguous, in the type of the matrix");
}

// ---------------------------------------------------------------- the operators

// Of the panels that are the fastest for a type here: 0 where columns are.
int64_t panel_width(const Tensor& like) {
  const auto type = like.scalar_type();
  if (type == ScalarType::BFloat16) return can_run<BFloat16>(kPairWidth) && !has_matrix_products() ? kPairWidth : 0;
  if (type != ScalarType::Float) return 0;
  return machine() == Machine::avx512 ? LargeTile::panel : machine() == Machine::avx2 ? SmallTile::panel : 0;
}

void multiply(
    const Tensor& features, const Tensor& boxes, int64_t kernel_height, int64_t kernel_width, int64_t row_begin,
    int64_t row_end, double stride, const Tensor& panels, std::optional<Tensor> bias, bool adds, Tensor rows) {
  with_tiles(features, [&](auto value) {
    using Value = decltype(value);
    const int64_t num_rows = rows.size(0), outputs = rows.size(1);
    const auto level =
        describe<float>(features, boxes, 0, num_rows, kernel_height, kernel_width, row_begin, row_end, stride);
    const Value* matrix = panels_of<Value>(panels, level, outputs, level.channels);
    const Value* map = values<Value>(features, "aligncli_ext: the map must be contiguous");
    const float* added = bias ? values<float>(*bias, "aligncli_ext: the bias must be contiguous float32") : nullptr;
    STD_TORCH_CHECK(!bias || bias->numel() == outputs, "aligncli_ext: the bias must have a number for each output");
    Value* out = values<Value>(rows, "aligncli_ext: rows must be contiguous, in the type of the features");
    const int64_t grain = std::max(LargeTile::rows, kGrain / (level.num_taps() * level.channels * outputs));
    torch::stable::parallel_for(0, num_rows, grain, [&, width = panels.size(3)](int64_t begin, int64_t end) {
      ALIGNCLI_RUN_TILES(Value, width, multiply, level, map, matrix, added, adds, outputs, out, begin, end);
    });
  });
}

void spread(
    const Tensor& grad_rows, const Tensor& boxes, int64_t kernel_height, int64_t kernel_width, int64_t row_begin,
    int64_t row_end, double stride, const Tensor& panels, Tensor grad_map) {
  with_tiles(grad_rows, [&](auto value) {
    using Value = decltype(value);
    const int64_t num_rows = grad_rows.size(0), outputs = grad_rows.size(1);
    const auto level =
        describe<float>(grad_map, boxes, 0, num_rows, kernel_height, kernel_width, row_begin, row_end, stride);
    STD_TORCH_CHECK(num_rows == boxes.size(0) * boxes.size(1), "aligncli_ext: a row's gradient for each box");
    const Value* matrix = panels_of<Value>(panels, level, level.channels, outputs);
    const Value* grads = values<Value>(grad_rows, "aligncli_ext: the rows' gradient must be contiguous");
    float* map = values<float>(grad_map, "aligncli_ext: the map's gradient must be float32");
    const int64_t num_panels = panels.size(1), num_rois = level.num_rois;
    torch::stable::parallel_for(0, grad_map.size(0) * num_panels, 1, [&, width = panels.size(3)](
                                                                          int64_t begin, int64_t end) {
      for (int64_t unit = begin, count; unit < end; unit += count) {  // an image's panels
        const int64_t image = unit / num_panels, first = unit % num_panels;
        count = std::min(num_panels - first, end - unit);
        ALIGNCLI_RUN_TILES(Value, width, spread, level, grads, outputs, matrix, map, image * num_rois,
                           (image + 1) * num_rois, first, first + count);
      }
    });
  });
}

void collect(
    const Tensor& features, const Tensor& boxes, const Tensor& grad_rows, double stride, int64_t width,
    Tensor grad_weight) {
  with_tiles(features, [&](auto value) {
    using Value = decltype(value);
    const int64_t num_rows = grad_rows.size(0), outputs = grad_rows.size(1);
    check_width<Value>(width);
    STD_TORCH_CHECK(
        grad_weight.dim() == 4 && grad_weight.size(0) == outputs && grad_weight.size(3) == features.size(3),
        "aligncli_ext: the weight's gradient must be (outputs, kernel rows, kernel columns, channels)");
    const int64_t kernel_height = grad_weight.size(1), panel = width / Unit<Value>::size;
    const auto level = describe<float>(
        features, boxes, 0, num_rows, kernel_height, grad_weight.size(2), 0, kernel_height, stride);
    const Value* map = values<Value>(features, "aligncli_ext: the map must be contiguous");
    const Value* grads = values<Value>(
        grad_rows, "aligncli_ext: the rows' gradient must be contiguous, in the type of the features");
    float* sums = values<float>(grad_weight, "aligncli_ext: the weight's gradient must be contiguous float32");
    const int64_t num_panels = (level.channels + panel - 1) / panel;
    torch::stable::parallel_for(0, level.num_taps() * num_panels, 1, [&](int64_t begin, int64_t end) {
      ALIGNCLI_RUN_TILES(Value, width, collect, level, map, grads, outputs, sums, num_rows, begin, end);
    });
  });
}

}  // namespace
}  // namespace aligncli

STABLE_TORCH_LIBRARY_FRAGMENT(aligncli_ext, library) {
  library.def("panel_width(Tensor like) -> int");
  library.def(
      "multiply(Tensor features, Tensor boxes, int kernel_height, int kernel_width, int row_begin, int row_end, "
      "float stride, Tensor panels, Tensor? bias, bool adds, Tensor(a!) rows) -> ()");
  library.def(
      "spread(Tensor grad_rows, Tensor boxes, int kernel_height, int kernel_width, int row_begin, int row_end, "
      "float stride, Tensor panels, Tensor(a!) grad_map) -> ()");
  library.def(
      "collect(Tensor features, Tensor boxes, Tensor grad_rows, float stride, int width, "
      "Tensor(a!) grad_weight) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(aligncli_ext, CPU, library) {
  library.impl("panel_width", TORCH_BOX(&aligncli::panel_width));
  library.impl("multiply", TORCH_BOX(&aligncli::multiply));
  library.impl("spread", TORCH_BOX(&aligncli::spread));
  library.impl("collect", TORCH_BOX(&aligncli::collect));
}
