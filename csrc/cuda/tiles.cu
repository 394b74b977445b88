// tile_table: the tiles of a kernel map that the products run on; see conv.cuh.
//
// Rows are sorted so that rows with the same taps stand together, rare taps first: a key of one bit a
// tap (several taps to a bit where there are more than 32), read as a Gray code so that neighbours in
// the order differ in few bits, sorted downwards.
// The sort is by digits of up to 9 bits, least first, one launch a digit: a block has a tile of the
// keys, sums the counts of each digit over all tiles and over those before it, and writes its keys to
// their places; there it counts them for the next digit. So one wave of blocks does a scan's keys in
// few microseconds a digit, where a sort made for millions of keys is slow.
// Limit: the table is read twice and written once, 4 K bytes a row each.
#include "cuda/conv.cuh"

#include <algorithm>

namespace perception {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

// -- sort -------------------------------------------------------------------------------------------

constexpr int kSortThreads = 1024, kSortWarps = kSortThreads / 32;
constexpr int kSortStep = 2 * kSortThreads;  // keys of a block at a time
constexpr int kDigitBits = 9, kDigits = 1 << kDigitBits;
constexpr int kMostTiles = 128;

struct SortArgs {
  const uint32_t* keys;
  const int32_t* numbers;  // null: of the rows in order
  int64_t rows;
  int tile_log2, tiles;  // a block's keys; blocks
  int shift;
  uint32_t digit;          // the digit's bits, shifted down
  const uint32_t* counts;  // [tiles, kDigits]
  int32_t* to_numbers;
  uint32_t* to_keys;      // null: this is the last digit
  uint32_t* next_counts;  // zeros
  int next_shift;
  uint32_t next_digit;
};

__global__ void __launch_bounds__(kSortThreads) sort_kernel(const __grid_constant__ SortArgs args) {
  constexpr int kSlices = kSortThreads * 4 / kDigits;
  __shared__ __align__(16) uint32_t sums[2][kSlices][kDigits];  // over all tiles, over those before this one
  __shared__ uint32_t place[kDigits];  // where the next key with this digit goes
  __shared__ uint32_t warp_sums[kDigits / 32];
  // Then each warp's keys with each digit; of the warps before, in the end.
  uint16_t* const counts = reinterpret_cast<uint16_t*>(sums);
  static_assert(sizeof(uint16_t) * kSortWarps * kDigits == sizeof(sums), "counts take the place of sums");
  static_assert(kSortWarps * kDigits / 8 % kSortThreads == 0, "every thread clears as much");
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, digit = threadIdx.x;

  const int64_t begin = static_cast<int64_t>(blockIdx.x) << args.tile_log2;
  const int64_t end = min(begin + (int64_t{1} << args.tile_log2), args.rows);
  uint32_t key[2] = {};
  int32_t number[2] = {};
  const auto fetch = [&](int64_t from) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int64_t at = from + warp * 64 + i * 32 + lane;
      if (at < end) {
        key[i] = args.keys[at];
        number[i] = args.numbers == nullptr ? static_cast<int32_t>(at) : args.numbers[at];
      }
    }
  };
  fetch(begin);

  const int slice = threadIdx.x / (kDigits / 4), quad = threadIdx.x % (kDigits / 4);
  uint4 all = {0, 0, 0, 0}, before = {0, 0, 0, 0};
  for (int batch = slice; batch < args.tiles; batch += 8 * kSlices) {  // all loads of a batch at once
    uint4 n[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int t = batch + i * kSlices;
      n[i] = {0, 0, 0, 0};
      if (t < args.tiles) n[i] = __ldg(reinterpret_cast<const uint4*>(args.counts + t * kDigits) + quad);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t counted = batch + i * kSlices < static_cast<int>(blockIdx.x) ? ~0u : 0u;
      all.x += n[i].x, all.y += n[i].y, all.z += n[i].z, all.w += n[i].w;
      before.x += n[i].x & counted, before.y += n[i].y & counted;
      before.z += n[i].z & counted, before.w += n[i].w & counted;
    }
  }
  reinterpret_cast<uint4*>(sums[0][slice])[quad] = all;
  reinterpret_cast<uint4*>(sums[1][slice])[quad] = before;
  __syncthreads();
  uint32_t total = 0, earlier = 0, running = 0;
  if (digit < kDigits) {
#pragma unroll
    for (int s = 0; s < kSlices; ++s) {
      total += sums[0][s][digit];
      earlier += sums[1][s][digit];
    }
    running = total;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const uint32_t below = __shfl_up_sync(~0u, running, d);
      if (lane >= d) running += below;
    }
    if (lane == 31) warp_sums[warp] = running;
  }
  __syncthreads();
  if (digit < kDigits) {
    for (int w = 0; w < warp; ++w) running += warp_sums[w];
    place[digit] = running - total + earlier;
  }

  for (int64_t from = begin; from < end; from += kSortStep) {
    if (from > begin) fetch(from);
    uint4* const clear = reinterpret_cast<uint4*>(counts);
#pragma unroll
    for (int i = 0; i < kSortWarps * kDigits / 8; i += kSortThreads) clear[i + threadIdx.x] = {0, 0, 0, 0};
    __syncthreads();
    uint16_t* const mine = counts + warp * kDigits;
    uint32_t rank[2];  // among the warp's keys with the same digit
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const bool live = from + warp * 64 + i * 32 + lane < end;
      const uint32_t d = live ? key[i] >> args.shift & args.digit : kDigits;
      const uint32_t peers = __match_any_sync(~0u, d), below = __popc(peers & ((1u << lane) - 1));
      const uint32_t known = live ? mine[d] : 0;
      __syncwarp();
      if (live && below == 0) mine[d] = static_cast<uint16_t>(known + __popc(peers));
      __syncwarp();
      rank[i] = known + below;
    }
    __syncthreads();
    uint32_t step = 0;
    if (digit < kDigits) {
#pragma unroll 8
      for (int w = 0; w < kSortWarps; ++w) {
        const uint32_t n = counts[w * kDigits + digit];
        counts[w * kDigits + digit] = static_cast<uint16_t>(step);
        step += n;
      }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (from + warp * 64 + i * 32 + lane >= end) continue;
      const uint32_t d = key[i] >> args.shift & args.digit, to = place[d] + mine[d] + rank[i];
      args.to_numbers[to] = number[i];
      if (args.to_keys == nullptr) continue;
      args.to_keys[to] = key[i];
      const uint32_t next = key[i] >> args.next_shift & args.next_digit;
      atomicAdd(args.next_counts + (to >> args.tile_log2) * kDigits + next, 1u);
    }
    __syncthreads();
    if (digit < kDigits) place[digit] += step;
  }
}

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
  uint32_t used;     // the bits of the keys
  uint32_t* counts;  // [tiles, kDigits] of the first digit
  int tile_log2;
  uint32_t digit;    // its bits
};

// A warp makes the keys of 32 rows: lanes read the taps of one row after the other.
template <int kTaps>
__global__ void __launch_bounds__(kThreads, 5)
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
#pragma unroll
    for (int half = 0; half < 32; half += 16) {
      int32_t in[16];
#pragma unroll
      for (int r = 0; r < 16; ++r) in[r] = __ldg(from + min(half + r, last) * args.taps);
#pragma unroll
      for (int r = 0; r < 16; ++r) {
        const uint32_t all = __reduce_or_sync(~0u, in[r] >= 0 ? bit : 0);
        if (lane == half + r) key |= all;
      }
    }
  }
  if (row >= args.rows) return;
  if (args.first + args.count == args.taps) {
    key ^= key >> 1;
    key ^= key >> 2;
    key ^= key >> 4;
    key ^= key >> 8;
    key ^= key >> 16;
    key ^= args.used;  // the sort is upwards
    atomicAdd(args.counts + (row >> args.tile_log2) * kDigits + (key & args.digit), 1u);
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

// The row numbers in the order of the tiles.
void sort_rows(const Tensor& table, const std::vector<int64_t>& rank, int32_t* order, cudaStream_t stream) {
  const int64_t rows = table.size(0), taps = table.size(1);
  const int bits = static_cast<int>(std::min<int64_t>(taps, 32));
  const int passes = static_cast<int>(ceil_div(bits, kDigitBits)), width = static_cast<int>(ceil_div(bits, passes));
  int tile_log2 = 11;
  while (ceil_div(rows, int64_t{1} << tile_log2) > kMostTiles) ++tile_log2;
  static_assert(kSortStep == 1 << 11, "a tile is at least what a block does at a time");
  const int tiles = static_cast<int>(ceil_div(rows, int64_t{1} << tile_log2));

  // Counts of every pass, then numbers and keys, twice each: the sort moves between the halves.
  const int64_t places = static_cast<int64_t>(tiles) * kDigits;
  Tensor scratch = empty_like_device(table, {passes * places + 4 * rows}, ScalarType::Int);
  uint32_t* const counts = reinterpret_cast<uint32_t*>(scratch.mutable_data_ptr<int32_t>());
  uint32_t* const keys = counts + passes * places;
  int32_t* const numbers = reinterpret_cast<int32_t*>(keys + 2 * rows);
  STD_CUDA_CHECK(cudaMemsetAsync(counts, 0, sizeof(uint32_t) * passes * places, stream));

  const auto digit_of = [&](int pass) { return (1u << std::min(width, bits - pass * width)) - 1; };
  const KeyArgs key_args{table.const_data_ptr<int32_t>(), rows, static_cast<int>(taps), 0, 0, keys, ~0u >> (32 - bits),
                         counts, tile_log2, digit_of(0)};
  if (taps <= kFewTaps)
    make_keys<kFewTaps>(key_args, rank, stream);
  else
    make_keys<kManyTaps>(key_args, rank, stream);
  for (int pass = 0; pass < passes; ++pass) {
    const bool last = pass + 1 == passes;
    const int64_t from = pass % 2 * rows, to = rows - from;
    uint32_t* const here = counts + pass * places;
    const SortArgs args{keys + from,
                        pass == 0 ? nullptr : numbers + from,
                        rows,
                        tile_log2,
                        tiles,
                        pass * width,
                        digit_of(pass),
                        here,
                        last ? order : numbers + to,
                        last ? nullptr : keys + to,
                        last ? nullptr : here + places,
                        last ? 0 : (pass + 1) * width,
                        last ? 0 : digit_of(pass + 1)};
    sort_kernel<<<tiles, kSortThreads, 0, stream>>>(args);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
}

// -- granules ---------------------------------------------------------------------------------------

constexpr int kGranuleTaps = 128;  // of one block, a multiple of 32

struct GranuleArgs {
  const int32_t* table;
  int64_t num_out;
  int num_taps, words;
  int32_t* rows;
  int32_t* order;  // complete but for the slots behind the last row
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
    const bool used = slot < args.num_out;
    row_of[threadIdx.x] = used ? args.order[slot] : -1;
    if (!used && blockIdx.y == 0) args.order[slot] = -1;
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
  for (const int64_t r : rank) STD_TORCH_CHECK(r >= 0 && r < taps, "tile_table: rank must number the taps");
  const Device device(table);
  const cudaStream_t stream = device.stream();
  const Tensor from = torch::stable::contiguous(table);
  const int64_t granules = std::max<int64_t>(ceil_div(num_out, kGranule), 1), words = ceil_div(taps, 32);
  Tensor rows = empty_like_device(table, {granules, taps, kGranule}, ScalarType::Int);
  Tensor order = empty_like_device(table, {granules * kGranule}, ScalarType::Int);
  Tensor present = empty_like_device(table, {1 + granules, words}, ScalarType::Int);

  if (num_out > 0) sort_rows(from, rank, order.mutable_data_ptr<int32_t>(), stream);
  const GranuleArgs args{from.const_data_ptr<int32_t>(),    num_out,
                         static_cast<int>(taps),            static_cast<int>(words),
                         rows.mutable_data_ptr<int32_t>(),  order.mutable_data_ptr<int32_t>(),
                         present.mutable_data_ptr<int32_t>()};
  const dim3 grid(static_cast<unsigned>(granules), static_cast<unsigned>(ceil_div(taps, kGranuleTaps)));
  const int bytes = kGranule * (static_cast<int>(std::min<int64_t>(taps, kGranuleTaps)) | 1) * 4;
  granule_kernel<<<grid, kThreads, bytes, stream>>>(args);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {rows, order, present};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) { m.impl("tile_table", TORCH_BOX(&tile_table)); }

}  // namespace perception
