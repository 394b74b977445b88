// The pairs of a table: kernel maps as lists, tap after tap.
//
// One launch: a block counts the pairs of its rows at each tap, waits for the others, adds up the
// counts that stand before its own and writes. Its rows stay in shared memory meanwhile where they fit.
// Limit: the table is read once and the pairs are written once.
#include "cuda/grid.cuh"
#include "cuda/index.cuh"
#include "cuda/maps.cuh"

#include <cub/device/device_radix_sort.cuh>

#include <algorithm>

namespace perception {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32;
constexpr int kChunk = 64;  // taps that are in shared memory together
constexpr int kTapsAWarp = kChunk / kWarps;
constexpr int kLeastRange = 128;  // rows of a block, where there are enough multiprocessors

struct PairArgs {
  const int32_t* table;
  int64_t rows;
  int taps;
  int64_t range;     // rows of a block
  int tile;          // rows that fit into shared memory
  uint32_t* counts;  // [K, blocks]
  int32_t* in_rows;
  int32_t* out_rows;
  int64_t* tap_ptr;
};

// `rows` rows of the table from `from` on, their first `taps` taps, to rows of odd length.
__device__ void load_tile(const int32_t* from, int rows, int taps, int stride, int32_t* tile) {
  const int width = taps | 1, words = rows * taps;
  if (taps < stride) {
    const int lane = threadIdx.x % 32;
    for (int r = threadIdx.x / 32; r < rows; r += kWarps)
      for (int t = lane; t < taps; t += 32) tile[r * width + t] = __ldg(from + static_cast<int64_t>(r) * stride + t);
  } else if (width > taps) {
    for (int i = threadIdx.x; i < words; i += kThreads) tile[i + i / taps] = __ldg(from + i);
  } else {
    const uint4* const quads = reinterpret_cast<const uint4*>(from);
    const int whole = reinterpret_cast<uintptr_t>(from) % 16 == 0 ? words / 4 : 0;  // 0: a table cut off another
    for (int i = threadIdx.x; i < whole; i += kThreads) reinterpret_cast<uint4*>(tile)[i] = __ldg(quads + i);
    for (int i = whole * 4 + threadIdx.x; i < words; i += kThreads) tile[i] = __ldg(from + i);
  }
}

__global__ void __launch_bounds__(kThreads, 1) pair_kernel(const __grid_constant__ PairArgs args) {
  extern __shared__ uint4 shared[];
  __shared__ uint32_t totals[kChunk], before[kChunk];
  int32_t* const tile = reinterpret_cast<int32_t*>(shared);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * args.range, end = min(begin + args.range, args.rows);
  const bool stays = args.taps <= kChunk && end - begin <= args.tile;
  const auto load = [&](int64_t first, int rows, int first_tap, int taps) {
    __syncthreads();
    load_tile(args.table + first * args.taps + first_tap, rows, taps, args.taps, tile);
    __syncthreads();
  };

  for (int first_tap = 0; first_tap < args.taps; first_tap += kChunk) {
    const int taps = min(kChunk, args.taps - first_tap), width = taps | 1;
    uint32_t count[kTapsAWarp] = {};
    for (int64_t first = begin; first < end; first += args.tile) {
      const int rows = static_cast<int>(min(static_cast<int64_t>(args.tile), end - first));
      load(first, rows, first_tap, taps);
#pragma unroll
      for (int j = 0; j < kTapsAWarp; ++j) {
        const int t = warp + j * kWarps;
        if (t >= taps) break;
#pragma unroll 4
        for (int r = lane; r < rows; r += 32) count[j] += tile[r * width + t] >= 0;
      }
    }
#pragma unroll
    for (int j = 0; j < kTapsAWarp; ++j) {
      const int t = warp + j * kWarps;
      const uint32_t all = __reduce_add_sync(~0u, count[j]);
      if (t < taps && lane == 0) args.counts[static_cast<int64_t>(first_tap + t) * gridDim.x + blockIdx.x] = all;
    }
  }
  wait_for_grid();

  int64_t sum = 0;  // of the taps so far
  for (int first_tap = 0; first_tap < args.taps; first_tap += kChunk) {
    const int taps = min(kChunk, args.taps - first_tap), width = taps | 1;
    __syncthreads();
    for (int t = warp; t < taps; t += kWarps) {
      uint32_t total = 0, earlier = 0;
      for (int b = lane; b < static_cast<int>(gridDim.x); b += 32) {
        const uint32_t n = __ldcg(args.counts + static_cast<int64_t>(first_tap + t) * gridDim.x + b);
        total += n;
        if (b < static_cast<int>(blockIdx.x)) earlier += n;
      }
      total = __reduce_add_sync(~0u, total);
      earlier = __reduce_add_sync(~0u, earlier);
      if (lane == 0) {
        totals[t] = total;
        before[t] = earlier;
      }
    }
    __syncthreads();
    int64_t at[kTapsAWarp];
#pragma unroll
    for (int j = 0; j < kTapsAWarp; ++j) at[j] = 0;
    for (int t = 0; t < taps; ++t) {
#pragma unroll
      for (int j = 0; j < kTapsAWarp; ++j)
        if (t == warp + j * kWarps) at[j] = sum + before[t];
      sum += totals[t];
    }
#pragma unroll
    for (int j = 0; j < kTapsAWarp; ++j)
      if (blockIdx.x == 0 && lane == 0 && warp + j * kWarps < taps) args.tap_ptr[first_tap + warp + j * kWarps] = at[j];
    for (int64_t first = begin; first < end; first += args.tile) {
      const int rows = static_cast<int>(min(static_cast<int64_t>(args.tile), end - first));
      if (!stays) load(first, rows, first_tap, taps);
#pragma unroll
      for (int j = 0; j < kTapsAWarp; ++j) {
        const int t = warp + j * kWarps;
        if (t >= taps) break;
#pragma unroll 1
        for (int base = 0; base < rows; base += 32) {
          const int r = base + lane;
          const int32_t in = r < rows ? tile[r * width + t] : -1;
          const uint32_t all = __ballot_sync(~0u, in >= 0);
          if (in >= 0) {
            const int64_t to = at[j] + __popc(all & ((1u << lane) - 1));
            args.in_rows[to] = in;
            args.out_rows[to] = static_cast<int32_t>(first + r);
          }
          at[j] += __popc(all);
        }
      }
    }
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) args.tap_ptr[args.taps] = sum;
}

constexpr int kKeyThreads = 256;

// tap * num_in + in_row; pairs behind the last tap get the largest key.
__global__ void __launch_bounds__(kKeyThreads)
    transposed_keys_kernel(const int32_t* in_rows, int64_t pairs, const int64_t* tap_ptr, int64_t taps, int64_t num_in,
                           uint64_t* keys) {
  const int64_t p = static_cast<int64_t>(blockIdx.x) * kKeyThreads + threadIdx.x;
  if (p >= pairs) return;
  int64_t low = 0, high = taps;  // the first tap that ends behind p
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (__ldg(tap_ptr + middle + 1) > p)
      high = middle;
    else
      low = middle + 1;
  }
  keys[p] = static_cast<uint64_t>(low * num_in + (low < taps ? in_rows[p] : 0));
}

__global__ void __launch_bounds__(kKeyThreads)
    transposed_rows_kernel(const uint64_t* keys, int64_t pairs, int64_t num_in, int32_t* out_rows) {
  const int64_t p = static_cast<int64_t>(blockIdx.x) * kKeyThreads + threadIdx.x;
  if (p < pairs) out_rows[p] = static_cast<int32_t>(keys[p] % static_cast<uint64_t>(num_in));
}

using Map = std::tuple<Tensor, Tensor, Tensor>;

Map kernel_map(const std::optional<Tensor>& given_index, const Tensor& in_sites, const Tensor& out_sites,
               const Tensor& offsets, std::vector<int64_t> stride, bool /*symmetric*/) {
  check_map(in_sites, out_sites, offsets, stride, "kernel_map");
  if (given_index) check_same_device(*given_index, in_sites, "kernel_map");
  const Device device(in_sites);
  const cudaStream_t stream = device.stream();
  const Tensor in_c = as_contiguous(in_sites);
  const Tensor index = given_index ? *given_index : std::get<0>(make_index(in_c));
  const Table table = make_table(index, in_c, as_contiguous(out_sites), as_contiguous(offsets), stride, {}, stream);
  const Pairs all = make_pairs(table.rows, stream);
  int64_t pairs = 0;
  STD_CUDA_CHECK(cudaMemcpyAsync(&pairs, all.tap_ptr.const_data_ptr<int64_t>() + offsets.size(0), sizeof(pairs),
                                 cudaMemcpyDeviceToHost, stream));
  STD_CUDA_CHECK(cudaStreamSynchronize(stream));
  const auto cut = [&](const Tensor& rows) {
    Tensor out = empty_like_device(rows, {pairs}, ScalarType::Int);
    if (pairs > 0)
      STD_CUDA_CHECK(cudaMemcpyAsync(out.mutable_data_ptr<int32_t>(), rows.const_data_ptr<int32_t>(),
                                     pairs * sizeof(int32_t), cudaMemcpyDeviceToDevice, stream));
    return out;
  };
  return {cut(all.in_rows), cut(all.out_rows), all.tap_ptr};
}

// The same pairs with input and output exchanged, sorted by the new output within each tap.
Map transpose_map(const Tensor& in_rows, const Tensor& out_rows, const Tensor& tap_ptr, int64_t num_in) {
  check_rows(in_rows, "transpose_map", "in_rows");
  check_rows(out_rows, "transpose_map", "out_rows");
  check_ptr(tap_ptr, "transpose_map");
  STD_TORCH_CHECK(in_rows.size(0) == out_rows.size(0), "transpose_map: in_rows and out_rows have different lengths");
  STD_TORCH_CHECK(num_in >= 0 && num_in <= kMaxRows, "transpose_map: num_in is out of range");
  check_same_device(in_rows, out_rows, "transpose_map");
  check_same_device(in_rows, tap_ptr, "transpose_map");
  const Device device(in_rows);
  const cudaStream_t stream = device.stream();
  const Tensor in_c = as_contiguous(in_rows), out_c = as_contiguous(out_rows);
  const Tensor ptr_c = as_contiguous(tap_ptr);
  const int64_t pairs = in_rows.size(0), taps = tap_ptr.size(0) - 1;
  Tensor new_in = empty_like_device(in_rows, {pairs}, ScalarType::Int);
  Tensor new_out = empty_like_device(in_rows, {pairs}, ScalarType::Int);
  if (pairs == 0 || num_in == 0) return {new_in, new_out, torch::stable::clone(ptr_c)};
  Tensor keys = empty_like_device(in_rows, {pairs}, ScalarType::Long);
  Tensor sorted = empty_like_device(in_rows, {pairs}, ScalarType::Long);
  uint64_t* keys_at = reinterpret_cast<uint64_t*>(keys.mutable_data_ptr<int64_t>());
  uint64_t* sorted_at = reinterpret_cast<uint64_t*>(sorted.mutable_data_ptr<int64_t>());
  const int32_t* values = out_c.const_data_ptr<int32_t>();
  int32_t* to_in = new_in.mutable_data_ptr<int32_t>();
  int bits = 1;
  while ((taps * num_in) >> bits) ++bits;
  const unsigned blocks = static_cast<unsigned>(ceil_div(pairs, kKeyThreads));
  transposed_keys_kernel<<<blocks, kKeyThreads, 0, stream>>>(in_c.const_data_ptr<int32_t>(), pairs,
                                                             ptr_c.const_data_ptr<int64_t>(), taps, num_in, keys_at);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  size_t bytes = 0;
  STD_CUDA_CHECK(
      cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys_at, sorted_at, values, to_in, pairs, 0, bits, stream));
  Tensor scratch = empty_like_device(in_rows, {static_cast<int64_t>(bytes)}, ScalarType::Byte);
  STD_CUDA_CHECK(cub::DeviceRadixSort::SortPairs(scratch.mutable_data_ptr(), bytes, keys_at, sorted_at, values, to_in,
                                                 pairs, 0, bits, stream));
  int32_t* to_out = new_out.mutable_data_ptr<int32_t>();
  transposed_rows_kernel<<<blocks, kKeyThreads, 0, stream>>>(sorted_at, pairs, num_in, to_out);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {new_in, new_out, torch::stable::clone(ptr_c)};
}

}  // namespace

Pairs make_pairs(const Tensor& table, cudaStream_t stream) {
  const int64_t rows = table.size(0), taps = table.size(1);
  Pairs pairs{empty_like_device(table, {rows * taps}, ScalarType::Int),
              empty_like_device(table, {rows * taps}, ScalarType::Int),
              empty_like_device(table, {taps + 1}, ScalarType::Long)};
  // What a block of every such architecture may have.
  const int major = device_facts().major, most_bytes = (major == 9 || major == 10 ? 200 : 96) << 10;
  const int64_t blocks =
      std::min<int64_t>(std::max<int64_t>(ceil_div(rows, kLeastRange), 1), device_facts().multiprocessors);
  Tensor counts = empty_like_device(table, {taps * blocks}, ScalarType::Int);
  PairArgs args{};
  args.table = table.const_data_ptr<int32_t>();
  args.rows = rows;
  args.taps = static_cast<int>(taps);
  args.range = ceil_div(ceil_div(rows, blocks), 32) * 32;
  const int64_t row_bytes = (std::min<int64_t>(taps, kChunk) | 1) * int64_t{sizeof(int32_t)};
  args.tile = static_cast<int>(std::max<int64_t>(std::min(args.range, most_bytes / row_bytes / 32 * 32), 32));
  args.counts = reinterpret_cast<uint32_t*>(counts.mutable_data_ptr<int32_t>());
  args.in_rows = pairs.in_rows.mutable_data_ptr<int32_t>();
  args.out_rows = pairs.out_rows.mutable_data_ptr<int32_t>();
  args.tap_ptr = pairs.tap_ptr.mutable_data_ptr<int64_t>();
  allow_shared<pair_kernel>(most_bytes);
  launch_together(pair_kernel, blocks, kThreads, args.tile * row_bytes, args, stream);
  return pairs;
}

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) {
  m.impl("kernel_map", TORCH_BOX(&kernel_map));
  m.impl("transpose_map", TORCH_BOX(&transpose_map));
}

}  // namespace perception
