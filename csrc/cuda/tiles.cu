// The tiles of a kernel map that the products run on, see conv.cuh; and tables read the other way.
//
// Rows are sorted so that rows with the same taps stand together, rare taps first: a key of one bit a
// tap (several taps to a bit where there are more than 32), read as a Gray code so that neighbours in
// the order differ in few bits, sorted downwards.
// One launch does all, the transposed table first where tiles of that are wanted: its blocks, one a
// multiprocessor, wait for each other between the steps. A step
// of the sort moves the keys by a digit of up to 9 bits, least first. A block has a range of the rows;
// while it writes its keys to their places it counts them there for the next digit, by range and by
// eight ranges, so that every block has to add up few counts to know where its keys begin.
// Limit: the table is read once or twice and written once, 4 K bytes a row each.
#include "cuda/conv.cuh"
#include "cuda/grid.cuh"
#include "cuda/maps.cuh"

#include <algorithm>

namespace perception {
namespace {

constexpr int kFewTaps = 32;

template <int kTaps>
struct KeyBits {
  uint8_t of[kTaps];
};

template <int kTaps>
KeyBits<kTaps> bits_of(const std::vector<int64_t>& rank, int64_t first, int64_t count) {
  const int64_t taps = static_cast<int64_t>(rank.size());
  KeyBits<kTaps> bits{};
  for (int64_t t = 0; t < count; ++t) {
    const int64_t r = rank[first + t];
    bits.of[t] = static_cast<uint8_t>(taps <= 32 ? r : r * 32 / taps);
  }
  return bits;
}

// -- transposed tables ------------------------------------------------------------------------------

constexpr int kScatterRows = 256, kScatterThreads = 512;

struct ScatterArgs {
  const int32_t* origin;
  int64_t num_out, num_in;
  int taps;
  int32_t* transposed;
};

// All blocks take part, of kBlock threads each.
template <int kBlock>
__device__ void transpose(const ScatterArgs& args) {
  const int64_t words = args.num_in * args.taps, step = static_cast<int64_t>(gridDim.x) * kBlock;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  int4* const quads = reinterpret_cast<int4*>(args.transposed);
  for (int64_t i = begin; i < words / 4; i += step) quads[i] = {-1, -1, -1, -1};
  for (int64_t i = words / 4 * 4 + begin; i < words; i += step) args.transposed[i] = -1;
  wait_for_grid();
  const uint32_t taps = args.taps;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kScatterRows; first < args.num_out;
       first += static_cast<int64_t>(gridDim.x) * kScatterRows) {
    const uint32_t rows = static_cast<uint32_t>(min(static_cast<int64_t>(kScatterRows), args.num_out - first));
    const int32_t* const from = args.origin + first * taps;
#pragma unroll 2
    for (uint32_t i = threadIdx.x; i < rows * taps; i += kBlock) {
      const int32_t to = __ldg(from + i);
      const uint32_t row = i / taps, tap = i - row * taps;
      if (to >= 0) args.transposed[static_cast<int64_t>(to) * taps + tap] = static_cast<int32_t>(first + row);
    }
  }
}

__global__ void __launch_bounds__(kScatterThreads) scatter_kernel(const __grid_constant__ ScatterArgs args) {
  transpose<kScatterThreads>(args);
}

// -- masks ------------------------------------------------------------------------------------------

// An entry of the table, which this very kernel may have written.
template <bool kWritten>
__device__ __forceinline__ int32_t load_entry(const int32_t* from) {
  return kWritten ? *from : __ldg(from);
}

// The taps of 32 rows as bit sets, each lane one row's: lanes read the taps of one row after the other.
template <bool kWritten>
__device__ __forceinline__ uint32_t masks_of_rows(const int32_t* from, int64_t stride, int last, uint32_t bit) {
  const int lane = threadIdx.x % 32;
  uint32_t mask = 0;
#pragma unroll
  for (int half = 0; half < 32; half += 16) {
    int32_t in[16];
#pragma unroll
    for (int r = 0; r < 16; ++r) in[r] = load_entry<kWritten>(from + min(half + r, last) * stride);
#pragma unroll
    for (int r = 0; r < 16; ++r) {
      const uint32_t all = __reduce_or_sync(~0u, in[r] >= 0 ? bit : 0);
      if (lane == half + r) mask = all;
    }
  }
  return mask;
}

constexpr int kMaskThreads = 256, kMaskTaps = 3072;  // kernel parameters hold 4 KiB

struct MaskArgs {
  const int32_t* table;
  int64_t rows;
  int taps, first, count;  // of the table; those whose bits are given
  uint32_t* masks;
};

// For tables of more than 32 taps.
__global__ void __launch_bounds__(kMaskThreads, 3)
    mask_kernel(const __grid_constant__ MaskArgs args, const __grid_constant__ KeyBits<kMaskTaps> bits) {
  const int lane = threadIdx.x % 32;
  const int64_t first_row = (static_cast<int64_t>(blockIdx.x) * kMaskThreads + threadIdx.x) / 32 * 32;
  if (first_row >= args.rows) return;
  const int last = static_cast<int>(min(int64_t{31}, args.rows - 1 - first_row));
  uint32_t mask = args.first > 0 && lane <= last ? args.masks[first_row + lane] : 0;
  for (int begin = 0; begin < args.count; begin += 32) {
    const bool live = begin + lane < args.count;
    const int tap = live ? begin + lane : args.count - 1;
    mask |= masks_of_rows<false>(args.table + first_row * args.taps + args.first + tap, args.taps, last,
                          live ? 1u << bits.of[tap] : 0);
  }
  if (lane <= last) args.masks[first_row + lane] = mask;
}

// -- all steps --------------------------------------------------------------------------------------

constexpr int kThreads = 1024, kWarps = kThreads / 32;
constexpr int kDigitBits = 9, kDigits = 1 << kDigitBits;
constexpr int kSuper = 8;        // ranges that are also counted together
constexpr int kMostBlocks = 256;
constexpr int kLeastRange = 512; // rows, where there are enough multiprocessors
constexpr int kGroup = 128, kGroups = kThreads / kGroup, kGroupWarps = kGroup / 32;  // threads with one granule

struct TileArgs {
  const int32_t* table;
  const uint32_t* masks;  // bit sets of the rows' taps; null: made here
  int64_t num_out;
  int num_taps, words;
  int64_t granules;
  int key_bits, digit_bits, passes;
  uint32_t range;    // rows of a block, a multiple of 32
  uint32_t* counts;  // [passes, supers + blocks, kDigits]
  uint2* pairs;      // [2, num_out] of key and row
  int32_t* rows;
  int32_t* order;
  int32_t* taps;
  int32_t* back;     // the same with another header; null: not wanted
  KeyBits<kFewTaps> bits;
  ScatterArgs scatter;  // where the table is the transposed of another
};

struct SortMemory {
  union {
    uint32_t sums[2][kThreads * 4 / kDigits][kDigits];  // over all ranges, over those before this one
    uint16_t counts[kWarps][kDigits];                   // of each warp's keys; then of those before in its quarter
    uint4 clear[kWarps * kDigits / 8];
  };
  union {
    uint32_t pairs[4][kDigits / 2];
    uint16_t quarters[4][kDigits];  // counts of the warps' quarters
  };
  uint32_t place[kDigits];  // where the next key with this digit goes
  uint32_t first_counts[kDigits];
  uint32_t warp_sums[kDigits / 32];
};

struct GranuleMemory {
  uint32_t present[kGroups][kGroupWarps];
  int32_t tiles[1];  // [kGroups, kGranule, width]
};

constexpr size_t shared_bytes(int taps) {
  const size_t width = std::min(taps, 32) | 1;
  return std::max(sizeof(SortMemory), sizeof(uint32_t) * (kGroups * kGroupWarps + kGroups * kGranule * width));
}

__device__ __forceinline__ uint32_t* counts_of(const TileArgs& args, int pass) {
  const int64_t blocks = gridDim.x, supers = (blocks + kSuper - 1) / kSuper;
  return args.counts + pass * (supers + blocks) * kDigits;
}

__device__ __forceinline__ uint32_t digit_mask(const TileArgs& args, int pass) {
  return (1u << min(args.digit_bits, args.key_bits - pass * args.digit_bits)) - 1;
}

__device__ __forceinline__ int64_t range_end(const TileArgs& args, int64_t begin) {
  return min(begin + args.range, args.num_out);
}

// Makes the keys and counts their first digits; clears the counts of all passes.
template <bool kWritten>
__device__ void begin_sort(const TileArgs& args, SortMemory& memory) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint4* const clear = reinterpret_cast<uint4*>(args.counts);
  const uint32_t quads = static_cast<uint32_t>(counts_of(args, args.passes) - args.counts) / 4;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < quads; i += gridDim.x * kThreads) clear[i] = {0, 0, 0, 0};
  if (threadIdx.x < kDigits) memory.first_counts[threadIdx.x] = 0;
  __syncthreads();

  const uint32_t used = ~0u >> (32 - args.key_bits), digit = digit_mask(args, 0);
  const int tap = min(lane, args.num_taps - 1);
  const uint32_t bit = args.masks == nullptr && lane < args.num_taps ? 1u << args.bits.of[tap] : 0;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * args.range, end = range_end(args, begin);
  for (int64_t first = begin + warp * 32; first < end; first += kThreads) {
    const int64_t row = first + lane;
    const bool live = row < end;
    uint32_t key = 0;
    if (args.masks != nullptr)
      key = live ? __ldg(args.masks + row) : 0;
    else
      key = masks_of_rows<kWritten>(args.table + first * args.num_taps + tap, args.num_taps,
                          static_cast<int>(min(int64_t{31}, end - 1 - first)), bit);
    key ^= key >> 1;
    key ^= key >> 2;
    key ^= key >> 4;
    key ^= key >> 8;
    key ^= key >> 16;
    key ^= used;  // the sort is upwards
    if (live) args.pairs[row] = {key, static_cast<uint32_t>(row)};
    const uint32_t d = live ? key & digit : kDigits;
    const uint32_t peers = __match_any_sync(~0u, d), below = peers & ((1u << lane) - 1);
    if (live && below == 0) atomicAdd(&memory.first_counts[d], static_cast<uint32_t>(__popc(peers)));
  }
}

// Gives out the counts of the first digit, when those of all blocks are cleared.
__device__ void count_first_digits(const TileArgs& args, const SortMemory& memory) {
  if (threadIdx.x >= kDigits) return;
  const uint32_t n = memory.first_counts[threadIdx.x];
  if (n == 0) return;
  const int supers = (gridDim.x + kSuper - 1) / kSuper;
  args.counts[(supers + blockIdx.x) * kDigits + threadIdx.x] = n;
  atomicAdd(args.counts + blockIdx.x / kSuper * kDigits + threadIdx.x, n);
}

__device__ void sort_by_digit(const TileArgs& args, SortMemory& memory, int pass) {
  constexpr int kSlices = kThreads * 4 / kDigits;
  static_assert(sizeof(memory.counts) == sizeof(memory.sums) && sizeof(memory.clear) == sizeof(memory.sums), "unions");
  static_assert(kWarps * kDigits / 8 % kThreads == 0, "every thread clears as much");
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, digit = threadIdx.x;
  const bool last = pass + 1 == args.passes;
  const int shift = pass * args.digit_bits;
  const uint32_t mask = digit_mask(args, pass), next_mask = last ? 0 : digit_mask(args, pass + 1);
  const uint2* const from = args.pairs + pass % 2 * args.num_out;
  uint2* const to = args.pairs + (pass + 1) % 2 * args.num_out;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * args.range, end = range_end(args, begin);
  int64_t at = begin + threadIdx.x;
  uint2 pair = {0, 0};
  if (at < end) pair = __ldcg(from + at);

  // The counts of eight ranges each, then of the ranges of this block's eight before it.
  const int super = blockIdx.x / kSuper, supers = (gridDim.x + kSuper - 1) / kSuper;
  const int counted = supers + blockIdx.x % kSuper;
  const uint4* const counts = reinterpret_cast<const uint4*>(counts_of(args, pass));
  const int slice = threadIdx.x / (kDigits / 4), quad = threadIdx.x % (kDigits / 4);
  uint4 all = {0, 0, 0, 0}, before = {0, 0, 0, 0};
  for (int batch = slice; batch < counted; batch += 4 * kSlices) {  // all loads of a batch at once
    uint4 n[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int c = batch + i * kSlices;
      n[i] = {0, 0, 0, 0};
      if (c < counted) n[i] = __ldcg(counts + (c < supers ? c : c + super * kSuper) * (kDigits / 4) + quad);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int c = batch + i * kSlices;
      const uint32_t in_all = c < supers ? ~0u : 0u, in_before = c < super || c >= supers ? ~0u : 0u;
      all.x += n[i].x & in_all, all.y += n[i].y & in_all, all.z += n[i].z & in_all, all.w += n[i].w & in_all;
      before.x += n[i].x & in_before, before.y += n[i].y & in_before;
      before.z += n[i].z & in_before, before.w += n[i].w & in_before;
    }
  }
  reinterpret_cast<uint4*>(memory.sums[0][slice])[quad] = all;
  reinterpret_cast<uint4*>(memory.sums[1][slice])[quad] = before;
  __syncthreads();
  uint32_t total = 0, earlier = 0, running = 0;
  if (digit < kDigits) {
#pragma unroll
    for (int s = 0; s < kSlices; ++s) {
      total += memory.sums[0][s][digit];
      earlier += memory.sums[1][s][digit];
    }
    running = total;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const uint32_t below = __shfl_up_sync(~0u, running, d);
      if (lane >= d) running += below;
    }
    if (lane == 31) memory.warp_sums[warp] = running;
  }
  __syncthreads();
  if (digit < kDigits) {
    for (int w = 0; w < warp; ++w) running += memory.warp_sums[w];
    memory.place[digit] = running - total + earlier;
  }

  uint32_t* const next_counts = last ? nullptr : counts_of(args, pass + 1);
  for (int64_t first = begin; first < end; first += kThreads) {
    at = first + threadIdx.x;
    const bool live = at < end;
    if (first > begin && live) pair = __ldcg(from + at);
#pragma unroll
    for (int i = 0; i < kWarps * kDigits / 8; i += kThreads) memory.clear[i + threadIdx.x] = {0, 0, 0, 0};
    __syncthreads();
    const uint32_t d = live ? pair.x >> shift & mask : kDigits;
    const uint32_t peers = __match_any_sync(~0u, d), below = __popc(peers & ((1u << lane) - 1));
    if (live && below == 0) memory.counts[warp][d] = static_cast<uint16_t>(__popc(peers));
    __syncthreads();
    {
      const int quarter = threadIdx.x / (kDigits / 2), two = threadIdx.x % (kDigits / 2);
      uint32_t sum = 0;  // of two digits
#pragma unroll
      for (int w = 0; w < kWarps / 4; ++w) {
        uint32_t* const n = reinterpret_cast<uint32_t*>(memory.counts[quarter * (kWarps / 4) + w]) + two;
        const uint32_t here = *n;
        *n = sum;
        sum += here;
      }
      memory.pairs[quarter][two] = sum;
    }
    __syncthreads();
    uint32_t target = ~0u, place = 0;
    if (live) {
      place = memory.place[d] + memory.counts[warp][d] + below;
      for (int q = 0; q < warp / (kWarps / 4); ++q) place += memory.quarters[q][d];
      if (last) {
        args.order[place] = static_cast<int32_t>(pair.y);
      } else {
        to[place] = pair;
        target = place / args.range * kDigits + (pair.x >> (shift + args.digit_bits) & next_mask);
      }
    }
    if (!last) {
      const uint32_t same = __match_any_sync(~0u, target);
      if (live && (same & ((1u << lane) - 1)) == 0) {
        const uint32_t n = __popc(same), range = target / kDigits, next = target % kDigits;
        atomicAdd(next_counts + (supers + range) * kDigits + next, n);
        atomicAdd(next_counts + range / kSuper * kDigits + next, n);
      }
    }
    __syncthreads();
    if (digit < kDigits) {
      memory.place[digit] += memory.quarters[0][digit] + memory.quarters[1][digit] + memory.quarters[2][digit] +
                             memory.quarters[3][digit];
    }
  }
}

// Writes up to 32 taps of a granule at a time, kGroup threads each.
template <bool kWritten>
__device__ void cut_granules(const TileArgs& args, GranuleMemory& memory) {
  const int lane = threadIdx.x % 32, group = threadIdx.x / kGroup, member = threadIdx.x / 32 % kGroupWarps;
  constexpr int kRows = kGranule / kGroupWarps;  // of a warp
  int32_t* const tile = memory.tiles + group * kGranule * (min(args.num_taps, 32) | 1);
  if (blockIdx.x == 0)
    for (int w = threadIdx.x; w < args.words; w += kThreads) {
      args.taps[w] = 0;
      if (args.back != nullptr) args.back[w] = w == 0;
    }
  const int64_t pieces = args.granules * args.words, step = static_cast<int64_t>(gridDim.x) * kGroups;
  for (int64_t piece = static_cast<int64_t>(group) * gridDim.x + blockIdx.x; piece < pieces; piece += step) {
    const int64_t granule = piece / args.words;
    const int word = static_cast<int>(piece - granule * args.words), first = word * 32;
    const int taps = min(32, args.num_taps - first), width = taps | 1;
    int32_t row = -1;
    if (lane < kRows) {
      const int64_t slot = granule * kGranule + member * kRows + lane;
      if (slot < args.num_out)
        row = __ldcg(args.order + slot);
      else if (word == 0)
        args.order[slot] = -1;
    }
    int32_t in[kRows];
    bool any = false;
    const int32_t* const column = args.table + first + lane;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int32_t r = __shfl_sync(~0u, row, i);
      in[i] = r >= 0 && lane < taps ? load_entry<kWritten>(column + static_cast<int64_t>(r) * args.num_taps) : -1;
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) any |= in[i] >= 0;
    const uint32_t mine = __ballot_sync(~0u, any);
    wait_for_threads(1 + group, kGroup);  // the piece before is written
    if (lane < taps) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) tile[(member * kRows + i) * width + lane] = in[i];
    }
    if (lane == 0) memory.present[group][member] = mine;
    wait_for_threads(1 + group, kGroup);
    uint32_t present = 0;
#pragma unroll
    for (int w = 0; w < kGroupWarps; ++w) present |= memory.present[group][w];
    if (member == 0 && lane == 0) {
      args.taps[(1 + granule) * args.words + word] = static_cast<int32_t>(present);
      if (args.back != nullptr) args.back[(1 + granule) * args.words + word] = static_cast<int32_t>(present);
    }
    int32_t* const to = args.rows + (granule * args.num_taps + first) * kGranule + lane;
    for (int t = member; t < taps; t += kGroupWarps) {
      if (!(present >> t & 1)) continue;
      to[t * kGranule] = tile[lane * width + t];
      to[t * kGranule + 32] = tile[(lane + 32) * width + t];
    }
  }
}

template <bool kTransposes>
__global__ void __launch_bounds__(kThreads, 1) tile_kernel(const __grid_constant__ TileArgs args) {
  extern __shared__ uint4 shared[];
  SortMemory& memory = *reinterpret_cast<SortMemory*>(shared);
  if (args.num_out > 0) {
    if (kTransposes) {
      transpose<kThreads>(args.scatter);
      wait_for_grid();
    }
    begin_sort<kTransposes>(args, memory);
    wait_for_grid();
    count_first_digits(args, memory);
    for (int pass = 0; pass < args.passes; ++pass) {
      wait_for_grid();
      sort_by_digit(args, memory, pass);
    }
    wait_for_grid();
  }
  cut_granules<kTransposes>(args, *reinterpret_cast<GranuleMemory*>(shared));
}

// `scatter`: the table is yet to be made, of at most kFewTaps taps.
Tiles tiles_of(const Tensor& table, const Tensor* given, const std::vector<int64_t>& rank, bool mirrored,
               const ScatterArgs* scatter, cudaStream_t stream) {
  const int64_t num_out = table.size(0), taps = table.size(1);
  STD_TORCH_CHECK(taps >= 1, "a kernel map without taps has no tiles");
  const int64_t granules = std::max<int64_t>(ceil_div(num_out, kGranule), 1), words = ceil_div(taps, 32);
  Tiles tiles{empty_like_device(table, {granules, taps, kGranule}, ScalarType::Int),
              empty_like_device(table, {granules * kGranule}, ScalarType::Int),
              empty_like_device(table, {1 + granules, words}, ScalarType::Int), std::nullopt};
  if (mirrored) tiles.back = empty_like_device(table, {1 + granules, words}, ScalarType::Int);

  const int64_t wanted = std::max(ceil_div(num_out, kLeastRange), ceil_div(granules * words, kGroups));
  const int64_t blocks = std::min<int64_t>({wanted, device_facts().multiprocessors, kMostBlocks});

  TileArgs args{};
  args.table = table.const_data_ptr<int32_t>();
  args.num_out = num_out;
  args.num_taps = static_cast<int>(taps);
  args.words = static_cast<int>(words);
  args.granules = granules;
  args.key_bits = static_cast<int>(std::min<int64_t>(taps, 32));
  args.passes = static_cast<int>(ceil_div(args.key_bits, kDigitBits));
  args.digit_bits = static_cast<int>(ceil_div(args.key_bits, args.passes));
  args.range = static_cast<uint32_t>(ceil_div(ceil_div(num_out, blocks), 32) * 32);
  args.rows = tiles.rows.mutable_data_ptr<int32_t>();
  args.order = tiles.order.mutable_data_ptr<int32_t>();
  args.taps = tiles.taps.mutable_data_ptr<int32_t>();
  if (tiles.back) args.back = tiles.back->mutable_data_ptr<int32_t>();

  // Pairs twice, the sort moves between them; counts; masks where the kernel does not make them.
  const int64_t counts = args.passes * (ceil_div(blocks, kSuper) + blocks) * kDigits;
  const int64_t masks = taps > kFewTaps ? num_out : 0;
  Tensor scratch = empty_like_device(table, {counts + 4 * num_out + masks}, ScalarType::Int);
  args.counts = reinterpret_cast<uint32_t*>(scratch.mutable_data_ptr<int32_t>());
  args.pairs = reinterpret_cast<uint2*>(args.counts + counts);
  if (given != nullptr && given->numel() > 0) {
    args.masks = reinterpret_cast<const uint32_t*>(given->const_data_ptr<int32_t>());
  } else if (taps <= kFewTaps) {
    args.bits = bits_of<kFewTaps>(rank, 0, taps);
  } else if (num_out > 0) {
    uint32_t* const made = args.counts + counts + 4 * num_out;
    args.masks = made;
    for (int64_t first = 0; first < taps; first += kMaskTaps) {
      const int64_t count = std::min<int64_t>(kMaskTaps, taps - first);
      mask_kernel<<<grid_for(num_out, kMaskThreads, kMaxRows), kMaskThreads, 0, stream>>>(
          {args.table, num_out, args.num_taps, static_cast<int>(first), static_cast<int>(count), made},
          bits_of<kMaskTaps>(rank, first, count));
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
  }
  const auto launch = [&](auto transposes) {
    constexpr auto kernel = tile_kernel<transposes.value>;
    allow_shared<kernel>(static_cast<int>(shared_bytes(kFewTaps)));
    launch_together(kernel, blocks, kThreads, shared_bytes(args.num_taps), args, stream);
  };
  if (scatter != nullptr) {
    args.scatter = *scatter;
    launch(std::true_type{});
  } else {
    launch(std::false_type{});
  }
  return tiles;
}

Tensor empty_transposed(const Tensor& origin, int64_t num_in, ScatterArgs& scatter) {
  STD_TORCH_CHECK(num_in >= 0 && num_in <= kMaxRows, "plan_transposed: num_in is out of range");
  Tensor table = empty_like_device(origin, {num_in, origin.size(1)}, ScalarType::Int);
  scatter = {origin.const_data_ptr<int32_t>(), origin.size(0), num_in, static_cast<int>(origin.size(1)),
             table.mutable_data_ptr<int32_t>()};
  return table;
}

}  // namespace

Tiles make_tiles(const Tensor& table, const Tensor* masks, const std::vector<int64_t>& rank, bool mirrored,
                 cudaStream_t stream) {
  return tiles_of(table, masks, rank, mirrored, nullptr, stream);
}

Tensor make_transposed(const Tensor& origin, int64_t num_in, cudaStream_t stream) {
  ScatterArgs args;
  Tensor table = empty_transposed(origin, num_in, args);
  const int64_t words = num_in * args.taps;
  if (words == 0) return table;
  const int64_t most =
      int64_t{blocks_a_multiprocessor<scatter_kernel, kScatterThreads>()} * device_facts().multiprocessors;
  const int64_t wanted =
      std::max(ceil_div(words, 4 * kScatterThreads), ceil_div(args.num_out, int64_t{kScatterRows}));
  launch_together(scatter_kernel, std::min(most, wanted), kScatterThreads, 0, args, stream);
  return table;
}

Tiles make_transposed_tiles(const Tensor& origin, int64_t num_in, const std::vector<int64_t>& rank, Tensor& table,
                            cudaStream_t stream) {
  if (origin.size(1) > kFewTaps) {  // bit sets are made from the table before the tiles are
    table = make_transposed(origin, num_in, stream);
    return tiles_of(table, nullptr, rank, false, nullptr, stream);
  }
  ScatterArgs args;
  table = empty_transposed(origin, num_in, args);
  return tiles_of(table, nullptr, rank, false, &args, stream);
}

}  // namespace perception
