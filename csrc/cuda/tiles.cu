// tile_table: the tiles of a kernel map that the products run on; see conv.cuh.
//
// Rows are sorted so that rows with the same taps stand together, rare taps first: a key of one bit a
// tap (several taps to a bit where there are more than 32), read as a Gray code so that neighbours in
// the order differ in few bits, sorted downwards.
// Limit: the table is read twice and written once, 4 K bytes a row each, besides the sort of the keys.
#include "cuda/conv.cuh"

#include <cub/device/device_radix_sort.cuh>

#include <algorithm>

namespace perception {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

// -- keys -------------------------------------------------------------------------------------------

constexpr int kFewTaps = 32, kManyTaps = 3072;  // kernel parameters hold 4 KiB

template <int kTaps>
struct KeyBits {
  uint8_t of[kTaps];
};

struct KeyArgs {
  const int32_t* table;
  int64_t rows;
  int taps, first, count;  // of the table; those whose bits are given
  uint32_t* keys;
  int32_t* numbers;
};

// A warp makes the keys of 32 rows: lanes read the taps of one row after the other.
template <int kTaps>
__global__ void __launch_bounds__(kThreads)
    key_kernel(const __grid_constant__ KeyArgs args, const __grid_constant__ KeyBits<kTaps> bits) {
  const int lane = threadIdx.x % 32;
  const int64_t first_row = (static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32) * 32, row = first_row + lane;
  if (first_row >= args.rows) return;
  const int last = static_cast<int>(min(int64_t{31}, args.rows - 1 - first_row));
  uint32_t key = args.first > 0 && row < args.rows ? args.keys[row] : 0;
  for (int begin = 0; begin < args.count; begin += 32) {
    const bool live = begin + lane < args.count;
    const int tap = live ? begin + lane : args.count - 1;
    const uint32_t bit = live ? 1u << bits.of[tap] : 0;
    const int32_t* const from = args.table + first_row * args.taps + args.first + tap;
#pragma unroll 16
    for (int r = 0; r < 32; ++r) {
      const int32_t in = __ldg(from + static_cast<int64_t>(min(r, last)) * args.taps);
      const uint32_t all = __reduce_or_sync(~0u, in >= 0 ? bit : 0);
      if (lane == r) key |= all;
    }
  }
  if (row >= args.rows) return;
  if (args.first + args.count == args.taps) {
    key ^= key >> 1;
    key ^= key >> 2;
    key ^= key >> 4;
    key ^= key >> 8;
    key ^= key >> 16;
    args.numbers[row] = static_cast<int32_t>(row);
  }
  args.keys[row] = key;
}

template <int kTaps>
void make_keys(KeyArgs args, const std::vector<int64_t>& rank, cudaStream_t stream) {
  const int64_t taps = args.taps;
  for (args.first = 0; args.first < taps; args.first += kTaps) {
    args.count = static_cast<int>(std::min<int64_t>(kTaps, taps - args.first));
    KeyBits<kTaps> bits{};
    for (int t = 0; t < args.count; ++t) {
      const int64_t r = rank[args.first + t];
      bits.of[t] = static_cast<uint8_t>(taps <= 32 ? r : r * 32 / taps);
    }
    key_kernel<kTaps><<<grid_for(args.rows, kThreads, kMaxRows), kThreads, 0, stream>>>(args, bits);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
}

// -- granules ---------------------------------------------------------------------------------------

constexpr int kGranuleTaps = 128;  // of one block, a multiple of 32

struct GranuleArgs {
  const int32_t* table;
  const int32_t* numbers;  // row numbers in the new order
  int64_t num_out;
  int num_taps, words;
  int32_t* rows;
  int32_t* order;
  int32_t* taps;
};

__global__ void __launch_bounds__(kThreads) granule_kernel(const __grid_constant__ GranuleArgs args) {
  extern __shared__ int32_t tile[];  // [kGranule, width]
  __shared__ int32_t row_of[kGranule];
  __shared__ uint32_t present[kGranuleTaps / 32];
  const int64_t granule = blockIdx.x;
  const int first = static_cast<int>(blockIdx.y) * kGranuleTaps;
  const int taps = min(kGranuleTaps, args.num_taps - first), width = taps | 1, words = (taps + 31) / 32;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (threadIdx.x < kGranule) {
    const int64_t slot = granule * kGranule + threadIdx.x;
    const int32_t row = slot < args.num_out ? args.numbers[slot] : -1;
    row_of[threadIdx.x] = row;
    if (blockIdx.y == 0) args.order[slot] = row;
  }
  if (threadIdx.x < words) {
    present[threadIdx.x] = 0;
    if (granule == 0) args.taps[first / 32 + threadIdx.x] = 0;
  }
  __syncthreads();
  for (int t = lane; t < taps; t += 32) {
    int32_t in[kGranule / kWarps];
#pragma unroll
    for (int i = 0; i < kGranule / kWarps; ++i) {
      const int32_t row = row_of[warp + i * kWarps];
      in[i] = row < 0 ? -1 : __ldg(args.table + static_cast<int64_t>(row) * args.num_taps + first + t);
    }
#pragma unroll
    for (int i = 0; i < kGranule / kWarps; ++i) tile[(warp + i * kWarps) * width + t] = in[i];
  }
  __syncthreads();
  for (int t = warp; t < taps; t += kWarps) {
    const int32_t low = tile[lane * width + t], high = tile[(lane + 32) * width + t];
    if (!__any_sync(~0u, low >= 0 || high >= 0)) continue;
    int32_t* const to = args.rows + (granule * args.num_taps + first + t) * kGranule;
    to[lane] = low;
    to[lane + 32] = high;
    if (lane == 0) atomicOr(&present[t / 32], 1u << (t % 32));
  }
  __syncthreads();
  if (threadIdx.x < words)
    args.taps[(1 + granule) * args.words + first / 32 + threadIdx.x] = static_cast<int32_t>(present[threadIdx.x]);
}

std::tuple<Tensor, Tensor, Tensor> tile_table(const Tensor& table, std::vector<int64_t> rank) {
  STD_TORCH_CHECK(table.dim() == 2 && table.scalar_type() == ScalarType::Int,
                  "tile_table: table must be int32 [num_out, K]");
  const int64_t num_out = table.size(0), taps = table.size(1);
  STD_TORCH_CHECK(num_out <= kMaxRows && taps >= 1 && taps <= 1 << 20, "tile_table: table is too large, or has no tap");
  STD_TORCH_CHECK(static_cast<int64_t>(rank.size()) == taps, "tile_table: rank must have one entry a tap");
  for (const int64_t r : rank) STD_TORCH_CHECK(r >= 0 && r < taps, "tile_table: rank must be a permutation of the taps");
  const Device device(table);
  const cudaStream_t stream = device.stream();
  const Tensor from = torch::stable::contiguous(table);
  const int64_t granules = std::max<int64_t>(ceil_div(num_out, kGranule), 1), words = ceil_div(taps, 32);
  Tensor rows = empty_like_device(table, {granules, taps, kGranule}, ScalarType::Int);
  Tensor order = empty_like_device(table, {granules * kGranule}, ScalarType::Int);
  Tensor present = empty_like_device(table, {1 + granules, words}, ScalarType::Int);

  // Keys and numbers, twice each: the sort moves between the halves.
  Tensor sorted = empty_like_device(table, {4, num_out}, ScalarType::Int), scratch = sorted;
  int32_t* const at = sorted.mutable_data_ptr<int32_t>();
  uint32_t* const keys = reinterpret_cast<uint32_t*>(at);
  cub::DoubleBuffer<uint32_t> by(keys, keys + num_out);
  cub::DoubleBuffer<int32_t> numbers(at + 2 * num_out, at + 3 * num_out);
  if (num_out > 0) {
    const KeyArgs args{from.const_data_ptr<int32_t>(), num_out, static_cast<int>(taps), 0, 0, keys, numbers.Current()};
    if (taps <= kFewTaps)
      make_keys<kFewTaps>(args, rank, stream);
    else
      make_keys<kManyTaps>(args, rank, stream);
    const int bits = static_cast<int>(std::min<int64_t>(taps, 32)), count = static_cast<int>(num_out);
    size_t bytes = 0;
    STD_CUDA_CHECK(cub::DeviceRadixSort::SortPairsDescending(nullptr, bytes, by, numbers, count, 0, bits, stream));
    scratch = empty_like_device(table, {static_cast<int64_t>(bytes)}, ScalarType::Byte);
    STD_CUDA_CHECK(cub::DeviceRadixSort::SortPairsDescending(scratch.mutable_data_ptr(), bytes, by, numbers, count, 0,
                                                             bits, stream));
  }
  const GranuleArgs args{from.const_data_ptr<int32_t>(),     numbers.Current(),
                         num_out,                            static_cast<int>(taps),
                         static_cast<int>(words),            rows.mutable_data_ptr<int32_t>(),
                         order.mutable_data_ptr<int32_t>(),  present.mutable_data_ptr<int32_t>()};
  const dim3 grid(static_cast<unsigned>(granules), static_cast<unsigned>(ceil_div(taps, kGranuleTaps)));
  const int bytes = kGranule * (static_cast<int>(std::min<int64_t>(taps, kGranuleTaps)) | 1) * 4;
  granule_kernel<<<grid, kThreads, bytes, stream>>>(args);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {rows, order, present};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) { m.impl("tile_table", TORCH_BOX(&tile_table)); }

}  // namespace perception
