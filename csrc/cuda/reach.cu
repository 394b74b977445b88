// Every site that some tap reaches from some site, sorted and unique; see cpu/reach.cpp. Candidates are
// counted, which also tells their ranges and whether one is outside int32 (first synchronisation), then
// written as packed keys in any order, sorted, and their heads counted (second synchronisation).
// A division is made once a site and once a tap: with s = q S + r and o = p S + t, tap o of site s is at
// q - p if r = t, and nowhere otherwise.
// Limit: the sort of the candidates.
#include "cuda/sort.cuh"

namespace perception {
namespace {

using namespace sorting;

constexpr int kMaxAxes = kMaxColumns - 1;
constexpr int kTaps = 32;  // held in shared memory at a time

struct Reach {
  const int32_t* sites;
  const int32_t* offsets;
  int64_t rows, taps;
  int dim;
  bool transposed, bounded;
  int64_t stride[kMaxAxes], lo[kMaxAxes], hi[kMaxAxes];
};

__host__ __device__ inline int64_t floor_div(int64_t a, int64_t b) {  // b > 0
  const int64_t q = a / b;
  return q - (a % b < 0);
}

// The part of a site or of an offset that a reached coordinate is made of, and the rest that must agree.
__device__ inline void split(int32_t v, int64_t stride, bool transposed, int64_t& quotient, int64_t& rest) {
  quotient = transposed ? int64_t{v} : floor_div(v, stride);
  rest = transposed ? 0 : v - quotient * stride;
}

// Calls f(batch, reached) for every candidate of the thread's site; all threads of the block take part.
// Returns whether a candidate was outside.
template <class F>
__device__ bool for_each_candidate(const Reach& r, int64_t row, const F& f) {
  __shared__ int64_t tap_quotient[kTaps][kMaxAxes], tap_rest[kTaps][kMaxAxes];
  int64_t quotient[kMaxAxes], rest[kMaxAxes];
  const bool active = row < r.rows;
  int32_t batch = 0;
  if (active) batch = r.sites[row * (r.dim + 1)];
#pragma unroll
  for (int d = 0; d < kMaxAxes; ++d) {
    quotient[d] = rest[d] = 0;
    if (active && d < r.dim) {
      split(r.sites[row * (r.dim + 1) + 1 + d], r.stride[d], r.transposed, quotient[d], rest[d]);
      if (r.transposed) quotient[d] *= r.stride[d];
    }
  }
  bool outside = false;
  for (int64_t first = 0; first < r.taps; first += kTaps) {
    const int count = static_cast<int>(r.taps - first < kTaps ? r.taps - first : kTaps);
    __syncthreads();
    for (int e = threadIdx.x; e < count * r.dim; e += blockDim.x) {
      const int k = e / r.dim, d = e % r.dim;
      int64_t q, t;
      split(r.offsets[first * r.dim + e], r.stride[d], r.transposed, q, t);
      tap_quotient[k][d] = r.transposed ? -q : q;
      tap_rest[k][d] = t;
    }
    __syncthreads();
    if (!active) continue;
    for (int k = 0; k < count; ++k) {
      int64_t reached[kMaxAxes];
      bool inside = true;
#pragma unroll
      for (int d = 0; d < kMaxAxes; ++d) {
        reached[d] = 0;
        if (d < r.dim && inside) {
          reached[d] = quotient[d] - tap_quotient[k][d];
          inside = rest[d] == tap_rest[k][d];
          if (inside && (reached[d] < r.lo[d] || reached[d] > r.hi[d])) {
            inside = false;
            outside = true;
          }
        }
      }
      if (inside) f(batch, reached);
    }
  }
  return outside;
}

// The packing of all that can be reached, by one block: ranges of sites and offsets, one from the other.
__device__ SiteCode reachable(const Reach& r, const Ranges& ranges) {
  __shared__ int32_t edge[2 * kMaxColumns];
  __shared__ int32_t tap_lo[kMaxAxes], tap_hi[kMaxAxes];
  if (threadIdx.x < kMaxAxes) {
    tap_lo[threadIdx.x] = INT32_MAX;
    tap_hi[threadIdx.x] = INT32_MIN;
  }
  reduce_ranges(ranges, edge);
  for (int64_t e = threadIdx.x; e < r.taps * r.dim; e += blockDim.x) {
    atomicMin(&tap_lo[e % r.dim], r.offsets[e]);
    atomicMax(&tap_hi[e % r.dim], r.offsets[e]);
  }
  __syncthreads();
  int32_t lo[kMaxColumns], hi[kMaxColumns];
  lo[0] = edge[0];
  hi[0] = edge[kMaxColumns];
#pragma unroll
  for (int d = 0; d < kMaxAxes; ++d) {
    lo[d + 1] = hi[d + 1] = 0;
    if (d < r.dim) {
      const int64_t least = edge[d + 1], most = edge[kMaxColumns + d + 1];
      const int64_t from = r.transposed ? least * r.stride[d] + tap_lo[d] : floor_div(least - tap_hi[d], r.stride[d]);
      const int64_t to = r.transposed ? most * r.stride[d] + tap_hi[d] : floor_div(most - tap_lo[d], r.stride[d]);
      const int64_t low = min(max(from, r.lo[d]), r.hi[d]);
      lo[d + 1] = static_cast<int32_t>(low);
      hi[d + 1] = static_cast<int32_t>(max(min(to, r.hi[d]), low));
    }
  }
  return make_code(lo, hi, r.dim + 1);
}

__global__ void __launch_bounds__(kWide) count_candidates(Reach r, Ranges ranges, Counters* counters, Answer* told) {
  __shared__ int count_of_warp[kWide / 32];
  __shared__ bool last;
  int count = 0;
  const bool outside = for_each_candidate(r, int64_t{blockIdx.x} * kWide + threadIdx.x,
                                          [&](int32_t, const int64_t*) { ++count; });
  if (outside && !r.bounded) counters->overflow = 1;
  count = __reduce_add_sync(0xffffffffu, count);
  if (threadIdx.x % 32 == 0) count_of_warp[threadIdx.x / 32] = count;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned long long all = 0;
    for (int w = 0; w < kWide / 32; ++w) all += static_cast<unsigned>(count_of_warp[w]);
    atomicAdd(&counters->candidates, all);
    __threadfence();
    last = atomicAdd(&counters->done, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  const SiteCode code = reachable(r, ranges);
  if (threadIdx.x == 0) {
    told->code = code;
    told->candidates = static_cast<int64_t>(atomicAdd(&counters->candidates, 0ull));
    told->overflow = atomicAdd(&counters->overflow, 0);
    counters->done = 0;
  }
}

// Writes every candidate, in an order that does not matter: as a key, or as a row where keys are too long.
template <bool kPacked>
__global__ void __launch_bounds__(kWide)
    write_candidates(Reach r, SiteCode code, Counters* counters, uint64_t* keys, int32_t* candidate_rows) {
  using Scan = cub::BlockScan<int, kWide>;
  __shared__ typename Scan::TempStorage storage;
  __shared__ unsigned long long base;
  const int64_t row = int64_t{blockIdx.x} * kWide + threadIdx.x;
  int count = 0, before, all;
  for_each_candidate(r, row, [&](int32_t, const int64_t*) { ++count; });
  Scan(storage).ExclusiveSum(count, before, all);
  if (threadIdx.x == 0) base = atomicAdd(&counters->cursor, static_cast<unsigned long long>(all));
  __syncthreads();
  unsigned long long at = base + before;
  for_each_candidate(r, row, [&](int32_t batch, const int64_t* reached) {
    if constexpr (kPacked) {
      uint64_t key = static_cast<uint64_t>(static_cast<uint32_t>(batch) - static_cast<uint32_t>(code.lo[0])) << code.shift[0];
#pragma unroll
      for (int d = 0; d < kMaxAxes; ++d)
        if (d < r.dim) key |= static_cast<uint64_t>(reached[d] - code.lo[d + 1]) << code.shift[d + 1];
      keys[at++] = key;
    } else {
      int32_t* out = candidate_rows + at++ * (r.dim + 1);
      out[0] = batch;
#pragma unroll
      for (int d = 0; d < kMaxAxes; ++d)
        if (d < r.dim) out[d + 1] = static_cast<int32_t>(reached[d]);
    }
  });
}

// Words without a row number: equal ones need no telling apart.
struct Candidates {
  const uint64_t* keys;
  int bits;

  __device__ int begin_bit() const { return 0; }
  __device__ int end_bit() const { return bits; }
  __device__ bool fits() const { return true; }
  __device__ const Candidates& ready() const { return *this; }
  __device__ uint64_t word(int64_t i) const { return keys[i]; }
};

struct PackedSites {
  static constexpr bool kHasRows = false;
  const uint64_t* words;
  SiteCode code;

  __device__ int columns() const { return code.columns; }
  __device__ bool head(int64_t i) const { return i == 0 || words[i] != words[i - 1]; }
  __device__ void read_site(int64_t i, int32_t (&out)[kMaxColumns]) const {
    const uint64_t word = words[i];
#pragma unroll
    for (int c = 0; c < kMaxColumns; ++c)
      if (c < code.columns) {
        const uint32_t v = static_cast<uint32_t>(word >> code.shift[c] & ((uint64_t{1} << code.width[c]) - 1));
        out[c] = static_cast<int32_t>(static_cast<uint32_t>(code.lo[c]) + v);
      }
  }
};

Tensor reach_sites(const Tensor& sites_tensor, const Tensor& offsets_tensor, std::vector<int64_t> stride,
                   bool transposed, std::vector<int64_t> bounds) {
  check_sites(sites_tensor, "reach_sites", "sites");
  const int64_t rows = sites_tensor.size(0), columns = sites_tensor.size(1), dim = columns - 1;
  STD_TORCH_CHECK(offsets_tensor.dim() == 2 && offsets_tensor.size(1) == dim &&
                      offsets_tensor.scalar_type() == ScalarType::Int &&
                      static_cast<int64_t>(stride.size()) == dim,
                  "reach_sites: offsets must be int32 [K, D] and stride [D]");
  STD_TORCH_CHECK(bounds.empty() || static_cast<int64_t>(bounds.size()) == 2 * dim,
                  "reach_sites: bounds must hold D minima and D maxima");
  check_same_device(sites_tensor, offsets_tensor, "reach_sites");
  const Device device(sites_tensor);
  const cudaStream_t stream = device.stream();
  const Tensor sites = as_contiguous(sites_tensor), offsets = as_contiguous(offsets_tensor);
  if (rows == 0 || offsets.size(0) == 0) return empty_like_device(sites, {0, columns}, ScalarType::Int);

  Reach reach{};
  reach.sites = sites.const_data_ptr<int32_t>();
  reach.offsets = offsets.const_data_ptr<int32_t>();
  reach.rows = rows;
  reach.taps = offsets.size(0);
  reach.dim = static_cast<int>(dim);
  reach.transposed = transposed;
  reach.bounded = !bounds.empty();
  for (int64_t d = 0; d < dim; ++d) {
    STD_TORCH_CHECK(stride[d] > 0, "reach_sites: the stride must be positive");
    reach.stride[d] = stride[d];
    reach.lo[d] = std::numeric_limits<int32_t>::min();
    reach.hi[d] = std::numeric_limits<int32_t>::max();
    if (reach.bounded) {
      reach.lo[d] = std::max(reach.lo[d], bounds[d]);
      reach.hi[d] = std::min(reach.hi[d], bounds[dim + d]);
    }
    // Bounds outside int32, or minima above maxima: no site is inside.
    if (reach.lo[d] > reach.hi[d]) return empty_like_device(sites, {0, columns}, ScalarType::Int);
  }
  const unsigned blocks = static_cast<unsigned>(ceil_div(rows, kWide));
  Scratch scratch(sites, Scratch::padded(kRangesBytes) + Scratch::padded(sizeof(Counters)));
  const Ranges ranges{scratch.take<int32_t>(kRangesBytes / sizeof(int32_t))};
  Counters* counters = scratch.take<Counters>(1);
  Answer* told = answer();
  survey(reach.sites, rows, static_cast<int>(columns), ranges, counters, stream);
  count_candidates<<<blocks, kWide, 0, stream>>>(reach, ranges, counters, told);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  STD_CUDA_CHECK(cudaStreamSynchronize(stream));
  const int64_t total = told->candidates;
  const SiteCode code = told->code;
  STD_TORCH_CHECK(told->overflow == 0, "a tap reaches a site outside int32; shift the coordinates or give bounds");
  STD_TORCH_CHECK(total <= kMaxRows,
                  "reach_sites: more than 2^31 - 1 candidate sites; give bounds or a smaller kernel");
  if (total == 0) return empty_like_device(sites, {0, columns}, ScalarType::Int);

  if (code.bits > kWordBits) {
    Tensor candidates = empty_like_device(sites, {total, columns}, ScalarType::Int);
    write_candidates<false><<<blocks, kWide, 0, stream>>>(reach, code, counters, nullptr,
                                                          candidates.mutable_data_ptr<int32_t>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    return unique(sites, candidates.const_data_ptr<int32_t>(), total, static_cast<int>(columns), stream).sites;
  }
  const int64_t tiles = ceil_div(total, kHeadTile);
  Scratch lists(sites, Scratch::padded(tiles * sizeof(int32_t)) + 2 * Scratch::padded(words_for(total) * sizeof(uint64_t)));
  int32_t* before = lists.take<int32_t>(tiles);
  uint64_t* keys = lists.take<uint64_t>(words_for(total));
  uint64_t* words = lists.take<uint64_t>(words_for(total));
  write_candidates<true><<<blocks, kWide, 0, stream>>>(reach, code, counters, keys, nullptr);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  const uint64_t* sorted = total <= kMergeMost
                               ? sort_by_merging(Candidates{keys, code.bits}, words, keys, total, stream)
                               : radix_sort(keys, words, total, 0, code.bits, sites, stream);
  const PackedSites found{sorted, code};
  start_counting(found, total, before, counters, stream);
  STD_CUDA_CHECK(cudaStreamSynchronize(stream));
  Tensor out = empty_like_device(sites, {told->found, columns}, ScalarType::Int);
  start_emitting(found, total, before, {out.mutable_data_ptr<int32_t>(), nullptr, nullptr, nullptr}, stream);
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) { m.impl("reach_sites", TORCH_BOX(&reach_sites)); }

}  // namespace
}  // namespace perception
