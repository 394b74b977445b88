// build_index and lookup. One launch a build, whose blocks wait for each other once: they clear the table
// and find extremes and order, then they insert.
// Limit: the table is written once (16 bytes a slot, 2 to 4 slots a site); one atomic a group of sorted
// sites, or a site, on a random line.
#include "cuda/grid.cuh"
#include "cuda/index.cuh"

#include <algorithm>

namespace perception {
namespace {

constexpr int kBuildThreads = 512, kThreads = 256;

template <int C>
__device__ void load_site(const int32_t* sites, int64_t row, int32_t (&site)[C]) {
#pragma unroll
  for (int c = 0; c < C; ++c) site[c] = __ldg(sites + row * C + c);
}

// The extremes of the rows, and whether they are in strict order, as IndexView::write_header takes them.
template <int C>
__device__ void find_extremes(const int32_t* sites, int64_t rows, uint32_t* least) {
  if (threadIdx.x <= 2 * C) least[threadIdx.x] = ~0u;
  __syncthreads();
  uint32_t mine[2 * C];
#pragma unroll
  for (int c = 0; c < 2 * C; ++c) mine[c] = ~0u;
  bool in_order = true;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kBuildThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kBuildThreads + threadIdx.x; i < rows; i += step) {
    int32_t site[C], before[C];
    load_site<C>(sites, i, site);
    load_site<C>(sites, i > 0 ? i - 1 : 0, before);
    bool less = i == 0;
#pragma unroll
    for (int c = C - 1; c >= 0; --c) {
      const uint32_t v = static_cast<uint32_t>(site[c]) ^ 0x80000000u;
      mine[2 * c] = min(mine[2 * c], v);
      mine[2 * c + 1] = min(mine[2 * c + 1], ~v);
      less = before[c] < site[c] || (before[c] == site[c] && less);
    }
    in_order &= less;
  }
#pragma unroll
  for (int c = 0; c < 2 * C; ++c) {
    const uint32_t warp = __reduce_min_sync(~0u, mine[c]);
    if (threadIdx.x % 32 == 0) atomicMin(least + c, warp);
  }
  if (!in_order) least[2 * C] = 0;
  __syncthreads();
}

// The slot of a key, found or taken; `taken` says which.
__device__ Slot* claim(Slot* slots, unsigned long long mask, unsigned long long home, unsigned long long key,
                       bool& taken) {
  for (unsigned long long s = home;;) {
    Slot* slot = slots + (s & mask);
    Slot* const next = slots + ((s + 1) & mask);
    unsigned long long seen = __ldcg(&slot->key);
    const unsigned long long next_seen = __ldcg(&next->key);
    if (seen != kEmptySlot && seen != key) {
      slot = next;
      seen = next_seen;
      if (seen != kEmptySlot && seen != key) {
        s += 2;
        continue;
      }
    }
    if (seen == kEmptySlot) seen = atomicCAS(&slot->key, kEmptySlot, key);
    taken = seen == kEmptySlot;
    if (taken || seen == key) return slot;  // else somebody was faster: look again
  }
}

// Enters the 32 rows of a warp and returns how many were there already.
template <int C>
__device__ uint32_t insert_rows(const IndexView<C>& view, Slot* slots, int64_t first_row, int64_t rows) {
  const int lane = threadIdx.x % 32;
  const int64_t row = first_row + lane;
  const bool live = row < rows;
  int32_t site[C] = {};
  if (live) load_site<C>(view.sites, row, site);
  bool repeated = false;

  if (view.kind == IndexView<C>::kGroups) {
    // The rows of a group stand together: the first lane of each in this warp enters them all.
    unsigned long long before = ~0ull;
    if (lane == 0 && row > 0) {
      int32_t last[C];
      load_site<C>(view.sites, row - 1, last);
      before = view.key(last) >> 5;
    }
    const unsigned long long key = live ? view.key(site) : ~0ull, group = key >> 5;
    const unsigned long long neighbor = __shfl_up_sync(~0u, group, 1);
    if (lane > 0) before = neighbor;
    const bool first = lane == 0 || before != group;
    const uint32_t behind = __ballot_sync(~0u, first) & ~((2u << lane) - 1);
    const int end = behind ? __ffs(static_cast<int>(behind)) - 1 : 32;
    uint32_t members = 1u << (key & 31);
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const uint32_t other = __shfl_down_sync(~0u, members, d);
      if (lane + d < end) members |= other;
    }
    if (live && first) {
      bool taken;
      Slot* slot = claim(slots, view.mask(), view.home_of_group(group), group, taken);
      uint32_t* halves = reinterpret_cast<uint32_t*>(&slot->value);
      atomicAnd(halves, ~members);
      if (before != group) halves[1] = static_cast<uint32_t>(row);
    }
  } else if (view.kind == IndexView<C>::kKeys) {
    if (live) {
      const unsigned long long key = view.key(site);
      bool taken;
      Slot* slot = claim(slots, view.mask(), view.home_of_key(key), key, taken);
      if (taken) slot->value = static_cast<unsigned long long>(row);
      repeated = !taken;
    }
  } else if (live) {
    const unsigned long long hash = view.hash(site), entry = view.tagged(hash, row);
    for (unsigned long long s = hash;; ++s) {
      const unsigned long long seen = atomicCAS(&slots[s & view.mask()].key, kEmptySlot, entry);
      if (seen == kEmptySlot) break;
      if (view.same_tag(seen, hash) && view.is_row(seen, site)) {
        repeated = true;
        break;
      }
    }
  }
  __syncwarp();
  return __popc(__ballot_sync(~0u, repeated));
}

struct BuildArgs {
  const int32_t* sites;
  int64_t rows;
  int64_t* index;
  int log2;
  int64_t* info;
};

template <int C>
__global__ void __launch_bounds__(kBuildThreads, 2) build_kernel(const __grid_constant__ BuildArgs args) {
  constexpr int kFacts = 2 * C + 1;
  __shared__ uint32_t least[kFacts];
  __shared__ __align__(16) uint32_t header[4 * kMaxColumns];
  Slot* const slots = reinterpret_cast<Slot*>(args.index + kIndexHeader);
  uint32_t* const told = reinterpret_cast<uint32_t*>(args.index + 32);  // [kFacts, kIndexBlocks]
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kBuildThreads;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kBuildThreads;

  ulonglong2* const clear = reinterpret_cast<ulonglong2*>(slots);
  for (int64_t s = first + threadIdx.x; s < int64_t{1} << args.log2; s += step) clear[s] = {kEmptySlot, kEmptySlot};
  find_extremes<C>(args.sites, args.rows, least);
  if (threadIdx.x < kFacts) told[threadIdx.x * kIndexBlocks + blockIdx.x] = least[threadIdx.x];
  if (blockIdx.x == 0 && threadIdx.x == 0) args.info[0] = 0;
  wait_for_grid();

  for (int f = warp; f < kFacts; f += kBuildThreads / 32) {
    uint32_t all = ~0u;
#pragma unroll 4
    for (int b = lane; b < static_cast<int>(gridDim.x); b += 32) all = min(all, __ldcg(told + f * kIndexBlocks + b));
    all = __reduce_min_sync(~0u, all);
    if (lane == 0) least[f] = all;
  }
  __syncthreads();
  if (threadIdx.x == 0) IndexView<C>::write_header(least, header);
  __syncthreads();
  if (blockIdx.x == 0 && threadIdx.x < 4 * kMaxColumns)
    reinterpret_cast<uint32_t*>(args.index)[threadIdx.x] = header[threadIdx.x];
  if (blockIdx.x == 0 && threadIdx.x == 0) args.info[1] = header[IndexView<C>::kInOrder];

  const IndexView<C> view(args.index, header, args.log2, args.sites);
  uint32_t duplicates = 0;
  for (int64_t row = first + warp * 32; row < args.rows; row += step)
    duplicates += insert_rows<C>(view, slots, row, args.rows);
  if (lane == 0 && duplicates)
    atomicAdd(reinterpret_cast<unsigned long long*>(args.info), static_cast<unsigned long long>(duplicates));
}

template <int C>
__global__ void __launch_bounds__(kThreads) lookup_kernel(const int64_t* index, int log2, const int32_t* sites,
                                                          const int32_t* queries, int64_t rows, int32_t* found) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= rows) return;
  const IndexView<C> view(index, log2, sites);
  int32_t query[C];
  load_site<C>(queries, row, query);
  found[row] = view.find(query);
}

// Always makes the table: whether the sites are sorted is known on the device only.
std::tuple<Tensor, Tensor> build_index(const Tensor& sites, bool /*even_if_sorted*/) {
  check_sites(sites, "build_index", "sites");
  const Device device(sites);
  return make_index(as_contiguous(sites));
}

Tensor lookup(const Tensor& index, const Tensor& sites, const Tensor& queries) {
  check_sites(sites, "lookup", "sites");
  check_sites(queries, "lookup", "queries");
  STD_TORCH_CHECK(sites.size(1) == queries.size(1), "lookup: sites have ", sites.size(1) - 1, " axes and queries ",
                  queries.size(1) - 1);
  check_same_device(index, sites, "lookup");
  check_same_device(index, queries, "lookup");
  const Device device(sites);
  const int log2 = index_log2(index, "lookup");
  const Tensor sites_c = as_contiguous(sites), queries_c = as_contiguous(queries);
  const int64_t rows = queries.size(0);
  Tensor found = empty_like_device(queries, {rows}, ScalarType::Int);
  if (rows == 0) return found;
  dispatch_columns(sites.size(1), [&](auto columns) {
    lookup_kernel<columns.value><<<grid_for(rows, kThreads, kMaxRows), kThreads, 0, device.stream()>>>(
        index.const_data_ptr<int64_t>(), log2, sites_c.const_data_ptr<int32_t>(), queries_c.const_data_ptr<int32_t>(),
        rows, found.mutable_data_ptr<int32_t>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return found;
}

}  // namespace

std::tuple<Tensor, Tensor> make_index(const Tensor& sites) {
  const Device device(sites);
  const int64_t rows = sites.size(0);
  int log2 = 4;
  while ((int64_t{1} << log2) < 2 * rows) ++log2;
  const int64_t words = kIndexHeader + (int64_t{2} << log2);
  Tensor index = empty_like_device(sites, {words}, ScalarType::Long);
  Tensor info = empty_like_device(sites, {2}, ScalarType::Long);
  int64_t* data = index.mutable_data_ptr<int64_t>();
  int64_t* facts = info.mutable_data_ptr<int64_t>();
  const int32_t* from = sites.const_data_ptr<int32_t>();
  dispatch_columns(sites.size(1), [&](auto columns) {
    constexpr auto kernel = build_kernel<columns.value>;
    const int64_t most = int64_t{blocks_a_multiprocessor<kernel, kBuildThreads>()} * device_facts().multiprocessors;
    const int64_t blocks = std::min({std::max<int64_t>(ceil_div(rows, kBuildThreads), 1), most, int64_t{kIndexBlocks}});
    launch_together(kernel, blocks, kBuildThreads, 0, BuildArgs{from, rows, data, log2, facts}, device.stream());
  });
  return {index, info};
}

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) {
  m.impl("build_index", TORCH_BOX(&build_index));
  m.impl("lookup", TORCH_BOX(&lookup));
}

}  // namespace perception
