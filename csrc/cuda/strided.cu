// strided_sites: floor(site / stride), each once and in lexicographic order.
//
// Sites become keys whose order is theirs (sort.cuh), and keys become bits of a set, which holds each
// once and in order: nothing is sorted. The set has two levels, a bit a page of consecutive keys and,
// for the pages that hold a site, one after the other, a bit a key; the more rows there are, the more
// pages the keys are cut into. One launch makes it, whose blocks wait for each other between the steps:
// extremes of the columns; pages marked; pages numbered and cleared; keys marked. Whoever sets a bit
// that was clear counts it for its slice of the set, so that a block adds up the counts of the slices
// before its own. Then the host is told how many sites there are, and a launch writes them.
// Keys that are far apart, or many, go through the sort of unique_sites.
// Limit: the latency of the steps; the sites are read three times.
#include "cuda/grid.cuh"
#include "cuda/index.cuh"
#include "cuda/sort.cuh"

#include <algorithm>

namespace perception {
namespace {

using sorting::Answer;
using sorting::SiteCode;

constexpr int kThreads = 1024, kWarps = kThreads / 32;
constexpr int kMostBlocks = 256;
constexpr int64_t kMostRows = int64_t{1} << 21;
constexpr int kPagesARow = 5;    // log2
constexpr int kWordsARow = 24;   // of the keys of all pages
constexpr int kMostPageBits = 16;

struct StrideArgs {
  const int32_t* sites;
  int rows;
  uint32_t stride[kMaxColumns];  // of the batch: 1
  int page_count_bits;           // log2 of the pages that there is room for
  uint32_t room;                 // for words of keys, a multiple of 4
  uint32_t* least;               // [2 * columns, blocks]: of v ^ 2^31, and of its complement
  uint32_t* counts;              // [2, kMostBlocks]: pages, then keys, of each slice; then the blocks that are done
  uint32_t* marked;              // [pages / 32], the bit set of the pages
  uint32_t* before;              // [pages / 32], marked pages before each word
  uint32_t* page_of;             // [rows], the marked pages in order
  uint32_t* keys;                // [marked pages, keys of a page / 32]
  Answer* told;                  // code; candidates: marked pages; found; overflow: keys are too far apart
};

constexpr int kDone = 2 * kMostBlocks;

// log2 of the keys of a page.
__host__ __device__ inline int page_bits_for(int code_bits, int page_count_bits) {
  return code_bits > page_count_bits + 5 ? code_bits - page_count_bits : 5;
}

// Pages of a slice: whole 16 bytes of keys.
__host__ __device__ inline uint32_t pages_a_slice(uint32_t pages, uint32_t slices) {
  return ((pages + slices - 1) / slices + 3) / 4 * 4;
}

__device__ __forceinline__ int32_t floor_divide(int32_t v, uint32_t by) {
  const uint32_t flip = v < 0 ? ~0u : 0u;
  return static_cast<int32_t>((static_cast<uint32_t>(v) ^ flip) / by ^ flip);
}

template <int C>
__device__ __forceinline__ uint64_t key_of(const StrideArgs& args, const SiteCode& code, int row) {
  uint64_t key = 0;
#pragma unroll
  for (int c = 0; c < C; ++c) {
    const int32_t v = floor_divide(__ldg(args.sites + static_cast<int64_t>(row) * C + c), args.stride[c]);
    key |= static_cast<uint64_t>(static_cast<uint32_t>(v) - static_cast<uint32_t>(code.lo[c])) << code.shift[c];
  }
  return key;
}

template <int C>
__device__ void find_extremes(const StrideArgs& args, uint32_t* least) {
  if (threadIdx.x < 2 * C) least[threadIdx.x] = ~0u;
  __syncthreads();
  uint32_t mine[2 * C];
#pragma unroll
  for (int c = 0; c < 2 * C; ++c) mine[c] = ~0u;
  const int step = static_cast<int>(gridDim.x) * kThreads;
  for (int i = static_cast<int>(blockIdx.x) * kThreads + threadIdx.x; i < args.rows; i += step) {
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const uint32_t v = static_cast<uint32_t>(__ldg(args.sites + static_cast<int64_t>(i) * C + c)) ^ 0x80000000u;
      mine[2 * c] = min(mine[2 * c], v);
      mine[2 * c + 1] = min(mine[2 * c + 1], ~v);
    }
  }
#pragma unroll
  for (int c = 0; c < 2 * C; ++c) {
    const uint32_t warp = __reduce_min_sync(~0u, mine[c]);
    if (threadIdx.x % 32 == 0) atomicMin(least + c, warp);
  }
  __syncthreads();
  if (threadIdx.x < 2 * C) args.least[threadIdx.x * gridDim.x + blockIdx.x] = least[threadIdx.x];
}

// The packing of the divided sites, from the extremes that the blocks found.
template <int C>
__device__ void agree_on_code(const StrideArgs& args, uint32_t* least, SiteCode* code) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (warp < 2 * C) {
    uint32_t all = ~0u;
    for (int b = lane; b < static_cast<int>(gridDim.x); b += 32)
      all = min(all, __ldcg(args.least + warp * gridDim.x + b));
    all = __reduce_min_sync(~0u, all);
    if (lane == 0) least[warp] = all;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t lo[C], hi[C];
#pragma unroll
    for (int c = 0; c < C; ++c) {
      lo[c] = floor_divide(static_cast<int32_t>(least[2 * c] ^ 0x80000000u), args.stride[c]);
      hi[c] = floor_divide(static_cast<int32_t>(~least[2 * c + 1] ^ 0x80000000u), args.stride[c]);
    }
    *code = sorting::make_code(lo, hi, C);
  }
  __syncthreads();
}

// Of the threads before this one and, in `all`, of all; `sums` has room for every warp.
__device__ uint32_t sum_before(uint32_t value, uint32_t* sums, uint32_t& all) {
  static_assert(kWarps == 32, "a lane a warp");
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint32_t running = value;
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const uint32_t below = __shfl_up_sync(~0u, running, d);
    if (lane >= d) running += below;
  }
  if (lane == 31) sums[warp] = running;
  __syncthreads();
  const uint32_t other = sums[lane];
  all = __reduce_add_sync(~0u, other);
  const uint32_t earlier = __reduce_add_sync(~0u, lane < warp ? other : 0);
  __syncthreads();  // the next call writes there
  return earlier + running - value;
}

// The counts of the slices before this block's and, in `all`, of all.
__device__ uint32_t slices_before(const uint32_t* counts, uint32_t* sums, uint32_t& all) {
  static_assert(kMostBlocks <= kThreads, "a thread a slice");
  const uint32_t count = threadIdx.x < gridDim.x ? __ldcg(counts + threadIdx.x) : 0;
  const uint32_t before = sum_before(count, sums, all);
  if (threadIdx.x == blockIdx.x) sums[0] = before;
  __syncthreads();
  const uint32_t mine = sums[0];
  __syncthreads();
  return mine;
}

// Whether this thread set the bit.
__device__ __forceinline__ bool set_bit(uint32_t* word, uint32_t bit) {
  return !(__ldcg(word) & bit) && !(atomicOr(word, bit) & bit);
}

// Calls f(row, lane) with all lanes of a warp, on consecutive rows; `fresh` counts for the slices.
template <class F>
__device__ void mark_rows(const StrideArgs& args, uint32_t* fresh, uint32_t* counts, const F& f) {
  if (threadIdx.x < kMostBlocks) fresh[threadIdx.x] = 0;
  __syncthreads();
  const int lane = threadIdx.x % 32, step = static_cast<int>(gridDim.x) * kThreads;
  for (int base = static_cast<int>(blockIdx.x) * kThreads + threadIdx.x - lane; base < args.rows; base += step)
    f(base + lane, lane);
  __syncthreads();
  if (threadIdx.x < gridDim.x && fresh[threadIdx.x]) atomicAdd(counts + threadIdx.x, fresh[threadIdx.x]);
}

template <int C>
__global__ void __launch_bounds__(kThreads, 1) mark_kernel(const __grid_constant__ StrideArgs args) {
  __shared__ uint32_t least[2 * kMaxColumns], sums[kWarps], fresh[kMostBlocks];
  __shared__ SiteCode code;
  __shared__ bool last;
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x, threads = gridDim.x * kThreads;

  const uint32_t most_words = 1u << (args.page_count_bits - 5);
  for (uint32_t i = thread; i < most_words / 4; i += threads) reinterpret_cast<uint4*>(args.marked)[i] = {0, 0, 0, 0};
  for (uint32_t i = thread; i <= kDone; i += threads) args.counts[i] = 0;
  find_extremes<C>(args, least);
  wait_for_grid();

  agree_on_code<C>(args, least, &code);
  const int page_bits = page_bits_for(code.bits, args.page_count_bits);
  const bool first_thread = thread == 0;
  if (first_thread) {
    args.told->code = code;
    args.told->overflow = page_bits > kMostPageBits;
  }
  if (page_bits > kMostPageBits) return;
  const uint32_t words = 1u << max(code.bits - page_bits - 5, 0);
  const uint32_t words_a_slice = (words + gridDim.x - 1) / gridDim.x;
  mark_rows(args, fresh, args.counts, [&](int row, int lane) {
    const uint32_t page = row < args.rows ? static_cast<uint32_t>(key_of<C>(args, code, row) >> page_bits) : ~0u;
    const uint32_t neighbor = __shfl_up_sync(~0u, page, 1);
    if (row >= args.rows || (lane > 0 && page == neighbor)) return;
    const uint32_t word = page / 32;
    if (set_bit(args.marked + word, 1u << page % 32)) atomicAdd(fresh + word / words_a_slice, 1u);
  });
  wait_for_grid();

  uint32_t pages;
  uint32_t number = slices_before(args.counts, sums, pages);
  const int word_bits = page_bits - 5;
  if (static_cast<uint64_t>(pages) << word_bits > args.room) {
    if (first_thread) args.told->overflow = 1;
    return;
  }
  const uint32_t quads = ((pages << word_bits) + 3) / 4;
  for (uint32_t i = thread; i < quads; i += threads) reinterpret_cast<uint4*>(args.keys)[i] = {0, 0, 0, 0};
  const uint32_t begin = blockIdx.x * words_a_slice, end = min(begin + words_a_slice, words);
  for (uint32_t base = begin; base < end; base += kThreads) {
    const uint32_t w = base + threadIdx.x;
    uint32_t bits = w < end ? __ldcg(args.marked + w) : 0, all;
    uint32_t at = number + sum_before(__popc(bits), sums, all);
    if (w < end) args.before[w] = at;
    for (; bits; bits &= bits - 1) args.page_of[at++] = w * 32 + __ffs(static_cast<int>(bits)) - 1;
    number += all;
  }
  wait_for_grid();

  const uint32_t slice = pages_a_slice(pages, gridDim.x);
  mark_rows(args, fresh, args.counts + kMostBlocks, [&](int row, int lane) {
    const uint64_t key = row < args.rows ? key_of<C>(args, code, row) : ~uint64_t{0};
    const uint64_t neighbor = __shfl_up_sync(~0u, static_cast<unsigned long long>(key), 1);
    if (row >= args.rows || (lane > 0 && key == neighbor)) return;
    const uint32_t page = static_cast<uint32_t>(key >> page_bits), word = page / 32;
    const uint32_t below = __ldcg(args.marked + word) & ((1u << page % 32) - 1);
    const uint32_t place = __ldcg(args.before + word) + __popc(below);
    const uint32_t inside = static_cast<uint32_t>(key) & ((1u << page_bits) - 1);
    if (set_bit(args.keys + (place << word_bits) + inside / 32, 1u << inside % 32)) atomicAdd(fresh + place / slice, 1u);
  });

  // The last block to be done tells the host.
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(args.counts + kDone, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  uint32_t found;
  slices_before(args.counts + kMostBlocks, sums, found);
  if (threadIdx.x == 0) {
    args.told->candidates = pages;
    args.told->found = found;
  }
}

struct WriteArgs {
  SiteCode code;
  const uint32_t* counts;
  const uint32_t* page_of;
  const uint32_t* keys;
  uint32_t pages;
  int page_bits;
  int32_t* out;
};

// A block a slice of the pages; as many blocks as marked them.
template <int C>
__global__ void __launch_bounds__(kThreads, 1) write_kernel(const __grid_constant__ WriteArgs args) {
  __shared__ uint32_t sums[kWarps];
  uint32_t all;
  uint32_t number = slices_before(args.counts, sums, all);
  const int word_bits = args.page_bits - 5;
  const uint32_t slice = pages_a_slice(args.pages, gridDim.x);
  const uint32_t begin = min(blockIdx.x * slice, args.pages) << word_bits;
  const uint32_t end = min((blockIdx.x + 1) * slice, args.pages) << word_bits;
  for (uint32_t base = begin; base < end; base += 4 * kThreads) {
    const uint32_t first = base + 4 * threadIdx.x;
    uint4 quad = {0, 0, 0, 0};
    if (first < end) quad = __ldg(reinterpret_cast<const uint4*>(args.keys + first));
    const uint32_t words[4] = {quad.x, quad.y, quad.z, quad.w};
    uint32_t at = number + sum_before(__popc(quad.x) + __popc(quad.y) + __popc(quad.z) + __popc(quad.w), sums, all);
    number += all;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (words[j] == 0) continue;
      const uint32_t word = first + j;
      const uint64_t high = static_cast<uint64_t>(__ldg(args.page_of + (word >> word_bits))) << args.page_bits |
                            (word & ((1u << word_bits) - 1)) * 32;
      for (uint32_t bits = words[j]; bits; bits &= bits - 1) {
        const uint64_t key = high | (__ffs(static_cast<int>(bits)) - 1);
        int32_t* const site = args.out + static_cast<int64_t>(at++) * C;
#pragma unroll
        for (int c = 0; c < C; ++c) {
          const uint64_t place = key >> args.code.shift[c] & ((uint64_t{1} << args.code.width[c]) - 1);
          site[c] = static_cast<int32_t>(static_cast<uint32_t>(args.code.lo[c]) + static_cast<uint32_t>(place));
        }
      }
    }
  }
}

// Nothing where the keys are too far apart.
std::optional<Tensor> by_bit_sets(const Tensor& sites, const uint32_t (&stride)[kMaxColumns], cudaStream_t stream) {
  const int64_t rows = sites.size(0), columns = sites.size(1);
  const int64_t blocks =
      std::min<int64_t>({ceil_div(rows, kThreads), device_facts().multiprocessors, int64_t{kMostBlocks}});
  const int page_count_bits = std::max(sorting::bits_for(static_cast<uint64_t>(rows - 1)) + kPagesARow, 7);
  const int64_t words = (int64_t{1} << page_count_bits) / 32, room = kWordsARow * rows / 4 * 4;
  using sorting::Scratch;
  const auto bytes = [](int64_t count) { return Scratch::padded(count * int64_t{sizeof(uint32_t)}); };
  Scratch scratch(sites, bytes(2 * columns * blocks) + bytes(kDone + 1) + 2 * bytes(words) + bytes(rows) + bytes(room));
  StrideArgs args{};
  args.sites = sites.const_data_ptr<int32_t>();
  args.rows = static_cast<int>(rows);
  std::copy_n(stride, kMaxColumns, args.stride);
  args.page_count_bits = page_count_bits;
  args.room = static_cast<uint32_t>(room);
  args.least = scratch.take<uint32_t>(2 * columns * blocks);
  args.counts = scratch.take<uint32_t>(kDone + 1);
  args.marked = scratch.take<uint32_t>(words);
  args.before = scratch.take<uint32_t>(words);
  args.page_of = scratch.take<uint32_t>(rows);
  args.keys = scratch.take<uint32_t>(room);
  args.told = sorting::answer();
  std::optional<Tensor> out;
  dispatch_columns(columns, [&](auto constant) {
    constexpr int C = constant.value;
    launch_together(mark_kernel<C>, blocks, kThreads, 0, args, stream);
    STD_CUDA_CHECK(cudaStreamSynchronize(stream));
    const Answer& told = *args.told;
    if (told.overflow) return;
    out = empty_like_device(sites, {told.found, columns}, ScalarType::Int);
    const WriteArgs write{told.code,
                          args.counts + kMostBlocks,
                          args.page_of,
                          args.keys,
                          static_cast<uint32_t>(told.candidates),
                          page_bits_for(told.code.bits, page_count_bits),
                          out->mutable_data_ptr<int32_t>()};
    write_kernel<C><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(write);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

constexpr int kDivideThreads = 256;

struct DivideArgs {
  const int32_t* sites;
  int64_t numbers;
  int columns;
  uint32_t stride[kMaxColumns];
  int32_t* out;
};

__global__ void __launch_bounds__(kDivideThreads) divide_kernel(const __grid_constant__ DivideArgs args) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kDivideThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kDivideThreads + threadIdx.x; i < args.numbers; i += step)
    args.out[i] = floor_divide(args.sites[i], args.stride[i % args.columns]);
}

Tensor strided_sites(const Tensor& given, std::vector<int64_t> steps) {
  check_sites(given, "strided_sites", "sites");
  const int64_t rows = given.size(0), columns = given.size(1);
  STD_TORCH_CHECK(static_cast<int64_t>(steps.size()) == columns - 1, "strided_sites: stride must have one step an axis");
  uint32_t stride[kMaxColumns] = {1, 1, 1, 1, 1, 1, 1, 1};
  for (int64_t c = 1; c < columns; ++c) {
    STD_TORCH_CHECK(steps[c - 1] > 0, "strided_sites: the stride must be positive");
    stride[c] = static_cast<uint32_t>(std::min(steps[c - 1], int64_t{1} << 31));  // further: 0 or -1, as here
  }
  const Device device(given);
  const Tensor sites = as_contiguous(given);
  if (rows == 0) return empty_like_device(sites, {0, columns}, ScalarType::Int);
  if (rows <= kMostRows) {
    const std::optional<Tensor> out = by_bit_sets(sites, stride, device.stream());
    if (out) return *out;
  }
  Tensor divided = empty_like_device(sites, {rows, columns}, ScalarType::Int);
  DivideArgs args{sites.const_data_ptr<int32_t>(), rows * columns, static_cast<int>(columns), {},
                  divided.mutable_data_ptr<int32_t>()};
  std::copy_n(stride, kMaxColumns, args.stride);
  divide_kernel<<<grid_for(args.numbers, kDivideThreads), kDivideThreads, 0, device.stream()>>>(args);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return sorting::unique(divided, divided.const_data_ptr<int32_t>(), rows, static_cast<int>(columns), device.stream())
      .sites;
}

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) { m.impl("strided_sites", TORCH_BOX(&strided_sites)); }

}  // namespace
}  // namespace perception
