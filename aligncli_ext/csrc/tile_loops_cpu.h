// RoIConv with its matrix products in the loop that samples: a thread samples one tap of some locations, multiplies
// while the samples are in its cache, and goes on to the next tap. No columns, and no thread waits. Every sum has one
// order whatever the number of threads; in bfloat16 it is a sum of float, rounded once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels_cpu.h"
#include "tiles_cpu.h"

namespace aligncli {

constexpr int64_t kMostRows = 48;           // locations that a thread takes; 24 to 126 are as fast
constexpr int64_t kChunkUnits = 1 << 15;    // and what they may take of the second-level cache
constexpr int64_t kChannelsAtOnce = 128;    // of a map, for its gradient and the weight's
constexpr int64_t kApart = 16;              // units, a cache line, between rows: those of 4 KB would share its few sets
constexpr int64_t kBlocksAtOnce = 3;        // of kDepth units, while some of the weight's gradient is in the cache

// Where the locations of a chunk read.
class Places {
 public:
  Places(const Level<float>& level, int64_t most_rows)
      : level_(level), y_(most_rows * (level.row_end - level.row_begin)), x_(most_rows * level.kernel_width) {}

  ALIGNCLI_INLINE void locate(int64_t first, int64_t num_rows) {
    first_ = first;
    for (int64_t row = 0; row < num_rows; ++row)
      aligncli::locate(level_, first + row, y_.data() + row * (level_.row_end - level_.row_begin), x(row));
  }
  AxisTap<float>* x(int64_t row) { return x_.data() + row * level_.kernel_width; }
  const AxisTap<float>& y(int64_t row, int64_t i) const {
    return y_[row * (level_.row_end - level_.row_begin) + i];
  }
  int64_t image_offset(int64_t row) const { return level_.image_offset(first_ + row); }

  // What a tap of a location reads; `features` begins at the channel that is read first.
  template <typename Value>
  ALIGNCLI_INLINE Cells<Value, float> cells(const Value* features, int64_t row, int64_t tap) const {
    const auto& x = x_[row * level_.kernel_width + tap % level_.kernel_width];
    return cells_of(level_, features + image_offset(row), y(row, tap / level_.kernel_width), x);
  }

 private:
  const Level<float>& level_;
  int64_t first_ = 0;
  std::vector<AxisTap<float>> y_, x_;
};

template <typename Tile>
ALIGNCLI_INLINE int64_t chunk_rows(int64_t units_a_row) {
  const int64_t rows = std::min(kChunkUnits / units_a_row, kMostRows);
  return std::max(rows - rows % Tile::rows, Tile::rows);
}

// ---------------------------------------------------------------- forward

// From the bias, or from what earlier kernel rows made.
template <typename Value>
ALIGNCLI_INLINE void start_sums(const float* bias, const Value* earlier, int64_t outputs, float* sums) {
  for (int64_t o = 0; o < outputs; ++o) sums[o] = earlier ? widen(earlier[o]) : bias ? bias[o] : 0.0f;
}

// (locations, outputs) = the bias, or += the columns of the locations [begin, end) @ panels (taps, panels of outputs,
// units of channels, panel). A thread's sums lie by themselves until all taps are in.
template <typename Tile, typename Value = typename Tile::Value>
ALIGNCLI_INLINE void multiply_rows(
    const Level<float>& level, const Value* features, const Value* panels, const float* bias, bool adds,
    int64_t outputs, Value* out, int64_t begin, int64_t end) {
  const int64_t channels = level.channels, depth = Tile::count_units(channels), row_units = depth + kApart;
  const int64_t most_rows = chunk_rows<Tile>(depth), num_panels = Tile::count_panels(outputs);
  const int64_t stride = num_panels * Tile::panel + kApart;
  std::vector<Value> samples(most_rows * row_units * Tile::unit);  // zeros: what an odd channel is paired with
  std::vector<float> sums(most_rows * stride);
  Places places(level, most_rows);
  for (; begin < end; begin += most_rows) {
    const int64_t num_rows = std::min(most_rows, end - begin);
    places.locate(begin, num_rows);
    for (int64_t row = 0; row < num_rows; ++row)
      start_sums(bias, adds ? out + (begin + row) * outputs : nullptr, outputs, sums.data() + row * stride);
    for (int64_t tap = 0; tap < level.num_taps(); ++tap) {
      for (int64_t row = 0; row < num_rows; ++row) {
        Value* to = samples.data() + row * row_units * Tile::unit;
        sample<Tile::vector_bytes>(places.cells(features, row, tap), channels, [to](int64_t c) { return to + c; });
      }
      const Unit<Value>* tap_panels = units(panels) + tap * num_panels * depth * Tile::panel;
      for (int64_t k = 0; k < depth; k += kDepth) {
        const auto left = Left<Value>{units(samples.data()), row_units, 1}.from(0, k);
        for (int64_t panel = 0; panel < num_panels; ++panel)
          add_rows<Tile>(left, num_rows, tap_panels + (panel * depth + k) * Tile::panel, std::min(kDepth, depth - k),
                         sums.data() + panel * Tile::panel, stride);
      }
    }
    for (int64_t row = 0; row < num_rows; ++row)
      for (int64_t o = 0; o < outputs; ++o) narrow(sums[row * stride + o], out[(begin + row) * outputs + o]);
  }
}

// ---------------------------------------------------------------- the map's gradient

// += what the outputs' (locations, outputs) @ panels (taps, panels of channels, units of outputs, panel) scatter, of
// locations [location_begin, location_end) and the channels of panels [begin, end): a thread's own cells.
template <typename Tile, typename Value = typename Tile::Value>
ALIGNCLI_INLINE void spread_panels(
    const Level<float>& level, const Value* grad_rows, int64_t outputs, const Value* panels, float* grad_map,
    int64_t location_begin, int64_t location_end, int64_t begin, int64_t end) {
  constexpr int64_t most_panels = kChannelsAtOnce / Tile::panel;
  const int64_t depth = Tile::count_units(outputs), num_panels = Tile::count_panels(level.channels);
  const int64_t width = std::min(most_panels, end - begin) * Tile::panel, taps_a_row = level.kernel_width;
  const int64_t row_floats = taps_a_row * width, most_rows = chunk_rows<Tile>(row_floats);
  const int64_t row_units = depth + kApart;
  std::vector<Value> grads(most_rows * row_units * Tile::unit);  // zeros: what an odd output is paired with
  std::vector<float> columns(most_rows * row_floats);
  Places places(level, most_rows);
  for (int64_t start = location_begin; start < location_end; start += most_rows) {
    const int64_t num_rows = std::min(most_rows, location_end - start);
    const Left<Value> left = {units(grads.data()), row_units, 1};
    for (int64_t row = 0; row < num_rows; ++row)
      std::copy_n(grad_rows + (start + row) * outputs, outputs, grads.data() + row * row_units * Tile::unit);
    places.locate(start, num_rows);
    for (int64_t first = begin; first < end; first += most_panels) {
      const int64_t last = std::min(first + most_panels, end);
      const int64_t num_channels = std::min(last * Tile::panel, level.channels) - first * Tile::panel;
      for (int i = 0; i < level.row_end - level.row_begin; ++i) {
        std::fill_n(columns.data(), num_rows * row_floats, 0.0f);
        for (int64_t j = 0; j < taps_a_row; ++j) {
          for (int64_t panel = first; panel < last; ++panel) {
            const int64_t tap = i * taps_a_row + j;
            const Unit<Value>* right = units(panels) + (tap * num_panels + panel) * depth * Tile::panel;
            float* sums = columns.data() + j * width + (panel - first) * Tile::panel;
            for (int64_t k = 0; k < depth; k += kDepth)
              add_rows<Tile>(left.from(0, k), num_rows, right + k * Tile::panel, std::min(kDepth, depth - k), sums,
                             row_floats);
          }
        }
        for (int64_t row = 0; row < num_rows; ++row) {
          scatter_row<Tile::vector_bytes>(level, places.y(row, i), places.x(row), columns.data() + row * row_floats,
                                          width, grad_map + places.image_offset(row) + first * Tile::panel,
                                          num_channels);
        }
      }
    }
  }
}

// ---------------------------------------------------------------- the weight's gradient

// A unit of locations' gradients of some outputs as a tile reads them; zeros lie where a location is missing.
template <typename Tile, typename Value = typename Tile::Value>
ALIGNCLI_INLINE void pack_unit(
    const Value* grad_rows, int64_t outputs, int64_t num_locations, int64_t num_outputs, Value* packed) {
  for (int64_t o = 0; o < num_outputs; ++o)
    for (int64_t row = 0; row < Tile::unit; ++row)
      packed[o * Tile::unit + row] = row < num_locations ? grad_rows[row * outputs + o] : Value{};
}

// The gradients of some locations as tiles read them, (outputs / rows, units of locations, rows): in place a tile's
// next values are a row of outputs apart, in few sets of the cache. Whole units of constant size are vectorised.
template <typename Tile, typename Value = typename Tile::Value>
ALIGNCLI_INLINE void pack_outputs(const Value* grad_rows, int64_t outputs, int64_t num_rows, Value* packed) {
  const int64_t depth = Tile::count_units(num_rows);
  for (int64_t k = 0; k < depth; ++k) {
    const Value* from = grad_rows + k * Tile::unit * outputs;
    const int64_t num_locations = std::min(Tile::unit, num_rows - k * Tile::unit);
    for (int64_t o = 0; o < outputs; o += Tile::rows) {
      Value* const to = packed + (o * depth + k * Tile::rows) * Tile::unit;
      if (num_locations == Tile::unit && o + Tile::rows <= outputs)
        pack_unit<Tile>(from + o, outputs, Tile::unit, Tile::rows, to);
      else
        pack_unit<Tile>(from + o, outputs, num_locations, std::min(Tile::rows, outputs - o), to);
    }
  }
}

// A tap of the locations [first, first + num_rows) as a right matrix, (panels of channels, units of locations, panel).
template <typename Tile, typename Value = typename Tile::Value>
ALIGNCLI_INLINE void sample_panels(
    const Places& places, const Value* features, int64_t first, int64_t num_rows, int64_t tap, int64_t num_channels,
    Value* samples) {
  const int64_t depth = Tile::count_units(num_rows);
  for (int64_t row = 0; row < num_rows; row += Tile::unit) {
    Value* const to = samples + row * Tile::panel;
    const auto place = [to, depth](int64_t c) {
      return to + (c / Tile::panel * depth * Tile::panel + c % Tile::panel) * Tile::unit;
    };
    const auto cells = places.cells(features, first + row, tap);
    if constexpr (Tile::unit == 1) {
      sample<Tile::vector_bytes>(cells, num_channels, place);
    } else {
      const bool is_pair = row + 1 < num_rows;
      const auto next = is_pair ? places.cells(features, first + row + 1, tap) : cells;
      sample_pair<Tile::vector_bytes>(cells, next, is_pair, num_channels, place);
    }
  }
}

// (outputs, taps, channels) += the outputs' (locations, outputs) transposed @ the columns, for panels [begin, end) of
// all taps' channels: a thread's own.
template <typename Tile, typename Value = typename Tile::Value>
ALIGNCLI_INLINE void collect_panels(
    const Level<float>& level, const Value* features, const Value* grad_rows, int64_t outputs, float* grad_weight,
    int64_t num_locations, int64_t begin, int64_t end) {
  constexpr int64_t most_panels = kChannelsAtOnce / Tile::panel, block_rows = kDepth * Tile::unit;
  constexpr int64_t most_rows = kBlocksAtOnce * block_rows;
  const int64_t block_values = (outputs + Tile::rows) * block_rows, row_floats = level.num_taps() * level.channels;
  const int64_t panels_a_tap = Tile::count_panels(level.channels);
  std::vector<Value> samples(block_rows * kChannelsAtOnce), packed(kBlocksAtOnce * block_values);
  Places places(level, most_rows);
  for (int64_t start = 0; start < num_locations; start += most_rows) {
    const int64_t stop = std::min(start + most_rows, num_locations);
    places.locate(start, stop - start);
    for (int64_t block = start; block < stop; block += block_rows)
      pack_outputs<Tile>(grad_rows + block * outputs, outputs, std::min(block_rows, stop - block),
                         packed.data() + (block - start) / block_rows * block_values);
    for (int64_t panel = begin, count; panel < end; panel += count) {
      const int64_t tap = panel / panels_a_tap, first = panel % panels_a_tap;
      count = std::min({most_panels, panels_a_tap - first, end - panel});
      const int64_t num_channels = std::min((first + count) * Tile::panel, level.channels) - first * Tile::panel;
      float* sums = grad_weight + tap * level.channels + first * Tile::panel;
      for (int64_t block = start; block < stop; block += block_rows) {
        const int64_t num_rows = std::min(block_rows, stop - block), depth = Tile::count_units(num_rows);
        sample_panels<Tile>(places, features + first * Tile::panel, block - start, num_rows, tap, num_channels,
                            samples.data());
        const auto* left = units(packed.data()) + (block - start) / block_rows * block_values / Tile::unit;
        for (int64_t c = 0; c < num_channels; c += Tile::panel) {
          for (int64_t o = 0; o < outputs; o += Tile::rows) {
            add_columns<Tile>(Left<Value>{left + o * depth, 1, Tile::rows}, std::min(Tile::rows, outputs - o),
                              units(samples.data()) + c * depth, depth, sums + o * row_floats + c, row_floats,
                              num_channels - c);
          }
        }
      }
    }
  }
}

}  // namespace aligncli
