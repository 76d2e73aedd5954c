// RoIConv with its matrix products in the loop that samples: a thread samples one tap of some locations, multiplies
// while the samples are in its cache, and goes on to the next tap. No columns, and no thread waits.
//
// A product is cut into tiles of registers (Goto, van de Geijn: Anatomy of high-performance matrix multiplication). Its
// right matrix (depth, columns) lies in panels (columns / panel, depth, panel). Every sum has one order whatever the
// number of threads. A tile's size is that of a kind of machine, and every function is inlined into its kernels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels_cpu.h"

namespace aligncli {

// Sums that stay in registers: `rows` by two vectors, whose columns are a panel's.
template <int num_bytes, int64_t num_rows>
struct Tile {
  static constexpr int vector_bytes = num_bytes;
  static constexpr int64_t panel = 2 * num_bytes / sizeof(float);
  static constexpr int64_t rows = num_rows;
  static constexpr int64_t some_rows = num_rows / 3;      // at a time, where fewer are left
  static constexpr int64_t panels_at_once = 128 / panel;  // of a map's channels, for its gradient and the weight's
};
using SmallTile = Tile<32, 6>;   // 12 of 16 registers: AVX2
using LargeTile = Tile<64, 12>;  // 24 of 32: AVX-512

constexpr int64_t kDepth = 256;            // of a product at a time: a panel stays in the first-level cache
constexpr int64_t kMostRows = 48;          // locations that a thread takes; 30 to 126 are as fast
constexpr int64_t kChunkFloats = 1 << 15;  // and what they may take of the second-level cache
constexpr int64_t kBlocksAtOnce = 3;       // of kDepth locations, while some of the weight's gradient is in the cache

// A left matrix: element (r, k) is at[r * row_stride + k * column_stride].
struct Left {
  const float* at;
  int64_t row_stride, column_stride;

  Left from(int64_t row, int64_t k) const {
    return {at + row * row_stride + k * column_stride, row_stride, column_stride};
  }
};

// sums (num_rows, panel), `stride` apart, += left (num_rows, depth) @ panel (depth, panel)
template <typename Tile, int64_t num_rows>
ALIGNCLI_INLINE void add_tile(const Left& left, const float* panel, int64_t depth, float* sums, int64_t stride) {
  using Lanes = Block<float, Tile::vector_bytes>;
  typename Lanes::Type low[num_rows], high[num_rows];
  for (int64_t row = 0; row < num_rows; ++row) {
    low[row] = Lanes::load(sums + row * stride);
    high[row] = Lanes::load(sums + row * stride + Lanes::size);
  }
  const float* at = left.at;
  for (int64_t k = 0; k < depth; ++k, panel += Tile::panel, at += left.column_stride) {
    const auto first = Lanes::load(panel), second = Lanes::load(panel + Lanes::size);
#pragma GCC unroll 12
    for (int64_t row = 0; row < num_rows; ++row) {
      const float value = at[row * left.row_stride];
      low[row] = Lanes::scale_add(value, first, low[row]);
      high[row] = Lanes::scale_add(value, second, high[row]);
    }
  }
  for (int64_t row = 0; row < num_rows; ++row) {
    Lanes::store(low[row], sums + row * stride);
    Lanes::store(high[row], sums + row * stride + Lanes::size);
  }
}

template <typename Tile>
ALIGNCLI_INLINE void add_rows(
    Left left, int64_t num_rows, const float* panel, int64_t depth, float* sums, int64_t stride) {
  int64_t row = 0;
  for (; row + Tile::rows <= num_rows; row += Tile::rows)
    add_tile<Tile, Tile::rows>(left.from(row, 0), panel, depth, sums + row * stride, stride);
  for (; row + Tile::some_rows <= num_rows; row += Tile::some_rows)
    add_tile<Tile, Tile::some_rows>(left.from(row, 0), panel, depth, sums + row * stride, stride);
  for (; row < num_rows; ++row) add_tile<Tile, 1>(left.from(row, 0), panel, depth, sums + row * stride, stride);
}

// The same where no more than num_columns of the sums are there.
template <typename Tile>
ALIGNCLI_INLINE void add_columns(
    const Left& left, int64_t num_rows, const float* panel, int64_t depth, float* sums, int64_t stride,
    int64_t num_columns) {
  if (num_columns >= Tile::panel) return add_rows<Tile>(left, num_rows, panel, depth, sums, stride);
  const size_t num_bytes = num_columns * sizeof(float);
  for (int64_t row = 0; row < num_rows; ++row) {
    float whole[Tile::panel] = {};
    std::memcpy(whole, sums + row * stride, num_bytes);
    add_tile<Tile, 1>(left.from(row, 0), panel, depth, whole, Tile::panel);
    std::memcpy(sums + row * stride, whole, num_bytes);
  }
}

// Where the locations of a chunk read.
class Places {
 public:
  Places(const Level<float>& level, int64_t most_rows)
      : level_(level), y_(most_rows * (level.row_end - level.row_begin)), x_(most_rows * level.kernel_width) {}

  ALIGNCLI_INLINE void locate(int64_t first, int64_t num_rows) {
    first_ = first;
    for (int64_t row = 0; row < num_rows; ++row) aligncli::locate(level_, first + row, y(row), x(row));
  }
  AxisTap<float>* y(int64_t row) { return y_.data() + row * (level_.row_end - level_.row_begin); }
  AxisTap<float>* x(int64_t row) { return x_.data() + row * level_.kernel_width; }
  int64_t image_offset(int64_t row) const { return level_.image_offset(first_ + row); }

 private:
  const Level<float>& level_;
  int64_t first_ = 0;
  std::vector<AxisTap<float>> y_, x_;
};

template <typename Tile>
ALIGNCLI_INLINE int64_t chunk_rows(int64_t floats_a_row) {
  const int64_t rows = std::min(kChunkFloats / floats_a_row, kMostRows);
  return std::max(rows - rows % Tile::rows, Tile::rows);
}

// That a matrix lies in.
template <typename Tile>
ALIGNCLI_INLINE int64_t count_panels(int64_t columns) {
  return (columns + Tile::panel - 1) / Tile::panel;
}

// Rows [begin, end) of `out` (locations, outputs) += the columns of those locations @ panels (taps, panels of outputs,
// channels, panel).
template <typename Tile>
ALIGNCLI_INLINE void multiply_rows(
    const Level<float>& level, const float* features, const float* panels, int64_t outputs, float* out, int64_t begin,
    int64_t end) {
  const int64_t channels = level.channels, most_rows = chunk_rows<Tile>(channels);
  const int64_t num_panels = count_panels<Tile>(outputs), num_taps = level.num_taps();
  std::vector<float> samples(most_rows * channels);
  Places places(level, most_rows);
  for (; begin < end; begin += most_rows) {
    const int64_t num_rows = std::min(most_rows, end - begin);
    places.locate(begin, num_rows);
    for (int64_t tap = 0; tap < num_taps; ++tap) {
      for (int64_t row = 0; row < num_rows; ++row) {
        float* to = samples.data() + row * channels;
        sample<Tile::vector_bytes>(
            level, features + places.image_offset(row), places.y(row)[tap / level.kernel_width],
            places.x(row)[tap % level.kernel_width], channels, [to](int64_t c) { return to + c; });
      }
      const float* tap_panels = panels + tap * num_panels * channels * Tile::panel;
      for (int64_t k = 0; k < channels; k += kDepth) {
        const Left left = Left{samples.data(), channels, 1}.from(0, k);
        for (int64_t panel = 0; panel < num_panels; ++panel) {
          const int64_t first = panel * Tile::panel;
          add_columns<Tile>(left, num_rows, tap_panels + (panel * channels + k) * Tile::panel, std::min(kDepth, channels - k),
                      out + begin * outputs + first, outputs, outputs - first);
        }
      }
    }
  }
}

// The map's gradient += what the outputs' (locations, outputs) @ panels (taps, panels of channels, outputs, panel)
// scatter, of locations [location_begin, location_end) and the channels of panels [begin, end): a thread's own cells.
template <typename Tile>
ALIGNCLI_INLINE void spread_panels(
    const Level<float>& level, const float* grad_rows, int64_t outputs, const float* panels, float* grad_map,
    int64_t location_begin, int64_t location_end, int64_t begin, int64_t end) {
  const int64_t width = std::min(Tile::panels_at_once, end - begin) * Tile::panel, taps_a_row = level.kernel_width;
  const int64_t row_floats = taps_a_row * width, most_rows = chunk_rows<Tile>(row_floats);
  std::vector<float> columns(most_rows * row_floats);
  Places places(level, most_rows);
  for (int64_t start = location_begin; start < location_end; start += most_rows) {
    const int64_t num_rows = std::min(most_rows, location_end - start);
    places.locate(start, num_rows);
    for (int64_t first = begin; first < end; first += Tile::panels_at_once) {
      const int64_t last = std::min(first + Tile::panels_at_once, end);
      const int64_t num_channels = std::min(last * Tile::panel, level.channels) - first * Tile::panel;
      for (int i = 0; i < level.row_end - level.row_begin; ++i) {
        std::fill_n(columns.data(), num_rows * row_floats, 0.0f);
        for (int64_t j = 0; j < taps_a_row; ++j) {
          for (int64_t panel = first; panel < last; ++panel) {
            const int64_t tap = i * taps_a_row + j;
            const float* right = panels + (tap * count_panels<Tile>(level.channels) + panel) * outputs * Tile::panel;
            float* sums = columns.data() + j * width + (panel - first) * Tile::panel;
            for (int64_t k = 0; k < outputs; k += kDepth) {
              add_rows<Tile>(Left{grad_rows, outputs, 1}.from(start, k), num_rows, right + k * Tile::panel,
                       std::min(kDepth, outputs - k), sums, row_floats);
            }
          }
        }
        for (int64_t row = 0; row < num_rows; ++row) {
          scatter_row<Tile::vector_bytes>(level, places.y(row)[i], places.x(row), columns.data() + row * row_floats, width,
                                    grad_map + places.image_offset(row) + first * Tile::panel, num_channels);
        }
      }
    }
  }
}

// A block of kDepth locations' gradients as tiles read them, (outputs / rows, locations, rows): in place a tile's next values
// are a row of outputs apart, in few sets of the cache.
template <typename Tile>
ALIGNCLI_INLINE void pack_outputs(const float* grad_rows, int64_t outputs, int64_t num_rows, float* packed) {
  for (int64_t row = 0; row < num_rows; ++row, grad_rows += outputs)
    for (int64_t o = 0; o < outputs; ++o)
      packed[(o / Tile::rows * num_rows + row) * Tile::rows + o % Tile::rows] = grad_rows[o];
}

// The weight's gradient (outputs, taps, channels) += the outputs' (locations, outputs) transposed @ the columns, for
// panels [begin, end) of all taps' channels: a thread's own.
template <typename Tile>
ALIGNCLI_INLINE void collect_panels(
    const Level<float>& level, const float* features, const float* grad_rows, int64_t outputs, float* grad_weight,
    int64_t num_locations, int64_t begin, int64_t end) {
  const int64_t block_floats = (outputs + Tile::rows) * kDepth, row_floats = level.num_taps() * level.channels;
  constexpr int64_t most_rows = kBlocksAtOnce * kDepth;
  std::vector<float> samples(kDepth * Tile::panels_at_once * Tile::panel), packed(kBlocksAtOnce * block_floats);
  Places places(level, most_rows);
  for (int64_t start = 0; start < num_locations; start += most_rows) {
    const int64_t stop = std::min(start + most_rows, num_locations);
    places.locate(start, stop - start);
    for (int64_t block = start; block < stop; block += kDepth)
      pack_outputs<Tile>(grad_rows + block * outputs, outputs, std::min(kDepth, stop - block),
                   packed.data() + (block - start) / kDepth * block_floats);
    for (int64_t panel = begin, count; panel < end; panel += count) {
      const int64_t tap = panel / count_panels<Tile>(level.channels), first = panel % count_panels<Tile>(level.channels);
      count = std::min({Tile::panels_at_once, count_panels<Tile>(level.channels) - first, end - panel});
      const int64_t num_channels = std::min((first + count) * Tile::panel, level.channels) - first * Tile::panel;
      float* sums = grad_weight + tap * level.channels + first * Tile::panel;
      for (int64_t block = start; block < stop; block += kDepth) {
        const int64_t num_rows = std::min(kDepth, stop - block);
        for (int64_t row = 0; row < num_rows; ++row) {
          const int64_t place = block - start + row;
          float* to = samples.data() + row * Tile::panel;
          sample<Tile::vector_bytes>(
              level, features + places.image_offset(place) + first * Tile::panel,
              places.y(place)[tap / level.kernel_width], places.x(place)[tap % level.kernel_width], num_channels,
              [to, num_rows](int64_t c) { return to + c / Tile::panel * num_rows * Tile::panel + c % Tile::panel; });
        }
        const float* left = packed.data() + (block - start) / kDepth * block_floats;
        for (int64_t c = 0; c < num_channels; c += Tile::panel) {
          for (int64_t o = 0; o < outputs; o += Tile::rows) {
            add_columns<Tile>(Left{left + o * num_rows, 1, Tile::rows}, std::min(Tile::rows, outputs - o),
                        samples.data() + c * num_rows, num_rows, sums + o * row_floats + c, row_floats,
                        num_channels - c);
          }
        }
      }
    }
  }
}

}  // namespace aligncli
