// Kernel maps as tables, and what is made of them, step by step; plan.cu makes operators of the steps.
// Sites, offsets and tables are contiguous here. Nothing waits for the device.
#pragma once

#include "cuda/cuda.cuh"

namespace perception {

void check_map(const Tensor& in_sites, const Tensor& out_sites, const Tensor& offsets,
               const std::vector<int64_t>& stride, const char* op);

inline void check_table(const Tensor& table, const char* op) {
  STD_TORCH_CHECK(table.dim() == 2 && table.scalar_type() == ScalarType::Int, op, ": table must be int32 [num_out, K]");
  STD_TORCH_CHECK(table.size(0) <= kMaxRows && table.size(1) <= 1 << 20, op, ": table is too large");
}

inline void check_rank(const std::vector<int64_t>& rank, int64_t taps, const char* op) {
  STD_TORCH_CHECK(static_cast<int64_t>(rank.size()) == taps, op, ": rank must have one entry a tap");
  for (const int64_t r : rank) STD_TORCH_CHECK(r >= 0 && r < taps, op, ": rank must number the taps");
}

// The table [num_out, K] of a map, and the taps of each row as a bit set: bit rank[k] for tap k. Without
// a rank, or with more than 32 taps, there are no bit sets.
struct Table {
  Tensor rows, masks;
};
Table make_table(const Tensor& index, const Tensor& in_sites, const Tensor& out_sites, const Tensor& offsets,
                 const std::vector<int64_t>& stride, const std::vector<int64_t>& rank, cudaStream_t stream);

// table[i][k] = o where origin[o][k] = i, -1 elsewhere.
Tensor make_transposed(const Tensor& origin, int64_t num_in, cudaStream_t stream);

// As conv.cuh describes them. `back`: the taps with the header of the map read backwards.
struct Tiles {
  Tensor rows, order, taps;
  std::optional<Tensor> back;
};
// `masks`: as make_table made them for this rank, or none.
Tiles make_tiles(const Tensor& table, const Tensor* masks, const std::vector<int64_t>& rank, bool mirrored,
                 cudaStream_t stream);
// make_transposed and make_tiles.
Tiles make_transposed_tiles(const Tensor& origin, int64_t num_in, const std::vector<int64_t>& rank, Tensor& table,
                            cudaStream_t stream);

// All pairs, tap after tap, by output row within a tap; undefined behind entry tap_ptr[K].
struct Pairs {
  Tensor in_rows, out_rows;  // [num_out * K]
  Tensor tap_ptr;            // [K + 1]
};
Pairs make_pairs(const Tensor& table, cudaStream_t stream);

}  // namespace perception
