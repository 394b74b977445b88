// Sorted sets on CUDA: sites as packed keys, a stable sort that moves one word a row, and the heads
// of groups of equal keys. unique_sites, reach_sites and group_by are made of these.
//
// A word holds a key above its row number. Words are therefore distinct, their order is the stable
// order of the keys, and no second array is moved. Up to kMergeMost words are sorted by blocks of
// kRun in shared memory and merged kFan runs at a time, every word searching its place in the other
// runs: three or four launches, no histogram, no waiting for a neighbour. More words are worth the
// eleven or more launches of CUB's radix sort, whose passes then run at the speed of memory.
#pragma once

#include "cuda/cuda.cuh"

#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_scan.cuh>

#include <algorithm>

namespace perception::sorting {

// -- keys -----------------------------------------------------------------------------------------

// How a site becomes a number whose order is the lexicographic order of sites: every column relative
// to its smallest value, with as many bits as its range needs.
struct SiteCode {
  int columns;
  int bits;  // of all columns; the number is only made where they fit
  int32_t lo[kMaxColumns];
  int32_t width[kMaxColumns], shift[kMaxColumns];
};

__host__ __device__ inline int bits_for(uint64_t range) {
#ifdef __CUDA_ARCH__
  return 64 - __clzll(static_cast<long long>(range));
#else
  int bits = 0;
  while (bits < 64 && (range >> bits) > 0) ++bits;
  return bits;
#endif
}

__host__ __device__ inline SiteCode make_code(const int32_t* lo, const int32_t* hi, int columns) {
  SiteCode code;
  code.columns = columns;
  code.bits = 0;
  for (int c = kMaxColumns - 1; c >= 0; --c) {
    const bool used = c < columns;
    code.lo[c] = used ? lo[c] : 0;
    code.width[c] = used && hi[c] > lo[c] ? bits_for(static_cast<uint32_t>(hi[c]) - static_cast<uint32_t>(lo[c])) : 0;
    code.shift[c] = code.bits;
    code.bits += code.width[c];
  }
  return code;
}

// A word stays below 2^63, so that a word plus one is a word.
constexpr int kWordBits = 63;

// -- what the host is told ------------------------------------------------------------------------

// Written by kernels straight into pinned host memory and read after one synchronisation.
struct Answer {
  SiteCode code;
  int64_t found;       // heads counted
  int64_t candidates;  // of reach_sites
  int overflow;
};

inline Answer* answer() {
  thread_local Answer* pinned = nullptr;
  if (!pinned) {
    void* memory = nullptr;
    STD_CUDA_CHECK(cudaHostAlloc(&memory, sizeof(Answer), cudaHostAllocPortable | cudaHostAllocMapped));
    pinned = static_cast<Answer*>(memory);
  }
  return pinned;
}

// Counters on the device; `survey` sets them to zero.
struct Counters {
  unsigned long long candidates, cursor;
  unsigned done;
  int overflow;
};

// -- column ranges --------------------------------------------------------------------------------

constexpr int kSurveyBlocks = 128;
constexpr int kWide = 512;  // threads of a block that surveys or sorts: a warp for each edge of each column
static_assert(kWide / 32 == 2 * kMaxColumns);

// The smallest (edge c) and largest (edge kMaxColumns + c) value of every column, a number a block.
struct Ranges {
  int32_t* edge;  // [2 * kMaxColumns, kSurveyBlocks]
};
constexpr int64_t kRangesBytes = int64_t{2} * kMaxColumns * kSurveyBlocks * sizeof(int32_t);

// Called by a whole block of kWide threads: reduces the survey into edge[2 * kMaxColumns].
__device__ inline void reduce_ranges(const Ranges& ranges, int32_t* edge) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int32_t* from = ranges.edge + warp * kSurveyBlocks;
  int32_t value = from[lane];
  for (int i = lane + 32; i < kSurveyBlocks; i += 32)
    value = warp < kMaxColumns ? min(value, from[i]) : max(value, from[i]);
  value = warp < kMaxColumns ? __reduce_min_sync(0xffffffffu, value) : __reduce_max_sync(0xffffffffu, value);
  if (lane == 0) edge[warp] = value;
  __syncthreads();
}

// -- sorting --------------------------------------------------------------------------------------

constexpr int kRunItems = 4;
constexpr int kRun = kWide * kRunItems;
constexpr int kFan = 8;
constexpr int64_t kMergeMost = int64_t{1} << 18;

// A source of words. `ready` is called by all threads of a block of kWide; what it returns has
// `word(row)` and says which bits the words are to be sorted by (they come sorted by those below).
// The last run is filled up with words larger than any.
template <class Source>
__global__ void __launch_bounds__(kWide) sort_runs(Source source, uint64_t* out, int n) {
  using Sort = cub::BlockRadixSort<uint64_t, kWide, kRunItems>;
  __shared__ typename Sort::TempStorage storage;
  const auto ready = source.ready();
  if (!ready.fits()) return;
  const int begin = blockIdx.x * kRun, count = min(n - begin, kRun);
  uint64_t words[kRunItems];
#pragma unroll
  for (int j = 0; j < kRunItems; ++j) {
    const int i = threadIdx.x * kRunItems + j;
    words[j] = ready.word(begin + min(i, count - 1));  // no branch: the loads of all items set out together
    if (i >= count) words[j] = ~uint64_t{0};           // stands last: the sort is stable
  }
  Sort(storage).SortBlockedToStriped(words, ready.begin_bit(), max(ready.end_bit(), ready.begin_bit() + 1));
#pragma unroll
  for (int j = 0; j < kRunItems; ++j) out[begin + j * kWide + threadIdx.x] = words[j];
}

template <class Source>
__global__ void __launch_bounds__(kWide) fill_words(Source source, uint64_t* out, int64_t n) {
  const auto ready = source.ready();
  const int64_t i = int64_t{blockIdx.x} * kWide + threadIdx.x;
  if (i < n) out[i] = ready.word(i);
}

// All in unique.cu. An array for n words has room for words_for(n); what is returned is the one of the
// two arrays that holds the sorted words.
int64_t words_for(int64_t n);
uint64_t* merge_runs(uint64_t* words, uint64_t* other, int64_t n, cudaStream_t stream);
uint64_t* radix_sort(uint64_t* words, uint64_t* other, int64_t n, int begin_bit, int end_bit, const Tensor& like,
                     cudaStream_t stream);

// Sorts 0 < n <= kMergeMost words. A source may read `other`.
template <class Source>
uint64_t* sort_by_merging(const Source& source, uint64_t* words, uint64_t* other, int64_t n, cudaStream_t stream) {
  sort_runs<<<static_cast<unsigned>(ceil_div(n, kRun)), kWide, 0, stream>>>(source, words, static_cast<int>(n));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return merge_runs(words, other, n, stream);
}

// Sorts the n > 0 words of a source that knows its bits on the host.
template <class Source>
uint64_t* sort_words(const Source& source, uint64_t* words, uint64_t* other, int64_t n, const Tensor& like,
                     cudaStream_t stream) {
  if (n <= kMergeMost) return sort_by_merging(source, words, other, n, stream);
  fill_words<<<static_cast<unsigned>(ceil_div(n, kWide)), kWide, 0, stream>>>(source, words, n);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return radix_sort(words, other, n, source.begin_bit(), source.end_bit(), like, stream);
}

// -- groups of equal keys -------------------------------------------------------------------------

constexpr int kHeadThreads = 256;
constexpr int kHeadItems = 4;
constexpr int kHeadTile = kHeadThreads * kHeadItems;

// before[tile] = heads in the tiles before it; the number of all heads goes to the host. `done` is
// zero before and after.
template <class Entries>
__global__ void __launch_bounds__(kHeadThreads)
    count_heads(Entries entries, int64_t n, int32_t* before, unsigned* done, int64_t* found) {
  using Scan = cub::BlockScan<int, kHeadThreads>;
  __shared__ typename Scan::TempStorage storage;
  __shared__ int heads_of_warp[kHeadThreads / 32];
  __shared__ bool last;
  const int64_t begin = int64_t{blockIdx.x} * kHeadTile + threadIdx.x * kHeadItems;
  int heads = 0;
#pragma unroll
  for (int j = 0; j < kHeadItems; ++j)
    if (begin + j < n) heads += entries.head(begin + j);
  heads = __reduce_add_sync(0xffffffffu, heads);
  if (threadIdx.x % 32 == 0) heads_of_warp[threadIdx.x / 32] = heads;
  __syncthreads();
  if (threadIdx.x == 0) {
    int all = 0;
    for (int w = 0; w < kHeadThreads / 32; ++w) all += heads_of_warp[w];
    before[blockIdx.x] = all;
    __threadfence();
    last = atomicAdd(done, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  // The last block to finish scans the tiles.
  __threadfence();
  const int tiles = gridDim.x;
  int running = 0;
  for (int base = 0; base < tiles; base += kHeadThreads) {
    const int tile = base + threadIdx.x;
    int mine = tile < tiles ? __ldcg(before + tile) : 0, total;
    Scan(storage).ExclusiveSum(mine, mine, total);
    if (tile < tiles) before[tile] = running + mine;
    running += total;
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    *done = 0;
    *found = running;
  }
}

// What unique_sites gives back; reach_sites wants the sites only.
struct Groups {
  int32_t* sites;    // [groups, columns]
  int64_t* inverse;  // [n], group of a row
  int32_t* order;    // [n], row of an entry
  int64_t* ptr;      // [groups + 1]
};

template <class Entries>
__global__ void __launch_bounds__(kHeadThreads)
    emit_groups(Entries entries, int64_t n, const int32_t* before, Groups out) {
  using Scan = cub::BlockScan<int, kHeadThreads>;
  __shared__ typename Scan::TempStorage storage;
  const int64_t begin = int64_t{blockIdx.x} * kHeadTile + threadIdx.x * kHeadItems;
  const int columns = entries.columns();
  bool head[kHeadItems];
  int32_t site[kHeadItems][kMaxColumns];
  [[maybe_unused]] int32_t row[kHeadItems];
  int group = 0;
#pragma unroll
  for (int j = 0; j < kHeadItems; ++j) {
    head[j] = begin + j < n && entries.head(begin + j);
    group += head[j];
    if constexpr (Entries::kHasRows)
      if (begin + j < n) row[j] = entries.row(begin + j);
  }
#pragma unroll
  for (int j = 0; j < kHeadItems; ++j)
    if (head[j]) entries.read_site(begin + j, site[j]);
  Scan(storage).ExclusiveSum(group, group);
  group += before[blockIdx.x] - 1;
#pragma unroll
  for (int j = 0; j < kHeadItems; ++j) {
    const int64_t i = begin + j;
    if (i >= n) break;
    group += head[j];
    if (head[j]) {
#pragma unroll
      for (int c = 0; c < kMaxColumns; ++c)
        if (c < columns) out.sites[int64_t{group} * columns + c] = site[j][c];
    }
    if constexpr (Entries::kHasRows) {
      out.order[i] = row[j];
      out.inverse[row[j]] = group;
      if (head[j]) out.ptr[group] = i;
      if (i == n - 1) out.ptr[group + 1] = n;
    }
  }
}

// Launches count_heads on n > 0 entries.
template <class Entries>
void start_counting(const Entries& entries, int64_t n, int32_t* before, Counters* counters, cudaStream_t stream) {
  count_heads<<<static_cast<unsigned>(ceil_div(n, kHeadTile)), kHeadThreads, 0, stream>>>(
      entries, n, before, &counters->done, &answer()->found);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <class Entries>
void start_emitting(const Entries& entries, int64_t n, const int32_t* before, const Groups& out, cudaStream_t stream) {
  emit_groups<<<static_cast<unsigned>(ceil_div(n, kHeadTile)), kHeadThreads, 0, stream>>>(entries, n, before, out);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

// -- scratch memory -------------------------------------------------------------------------------

// Hands out parts of one tensor. Ask for `bytes` first, then take the same parts in the same order.
class Scratch {
 public:
  static int64_t padded(int64_t bytes) { return ceil_div(bytes, 256) * 256; }
  Scratch(const Tensor& like, int64_t bytes)
      : tensor_(empty_like_device(like, {bytes}, ScalarType::Byte)),
        at_(static_cast<char*>(tensor_.mutable_data_ptr())), end_(at_ + bytes) {}
  template <class T>
  T* take(int64_t count) {
    T* part = reinterpret_cast<T*>(at_);
    at_ += padded(count * static_cast<int64_t>(sizeof(T)));
    STD_TORCH_CHECK(at_ <= end_, "scratch memory was measured too small");
    return part;
  }

 private:
  Tensor tensor_;
  char *at_, *end_;
};

// -- used by several operators, all in unique.cu --------------------------------------------------

// Column ranges of n > 0 rows, and the counters set to zero.
void survey(const int32_t* sites, int64_t n, int columns, const Ranges& ranges, Counters* counters,
            cudaStream_t stream);

// unique_sites of rows in memory on the device of `like`.
struct Unique {
  Tensor sites, inverse, order, ptr;
};
Unique unique(const Tensor& like, const int32_t* sites, int64_t n, int columns, cudaStream_t stream);

}  // namespace perception::sorting
