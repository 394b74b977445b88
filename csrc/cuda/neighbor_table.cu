// Kernel maps as tables: row o of a table [num_out, K] holds, for every tap k, the input row whose site
// is stride * out_site + offset[k], or -1.
//
// A thread has an output and walks runs of taps that differ on the last axis only; a run costs one slot
// of the index, two where it leaves a group of 32 keys, and the slots of three runs are fetched together.
// A block's part of the table is put together in shared memory and written in one stream; the sort of
// the tiles gets each row's taps as a bit set along with it. A map that is symmetric is probed whole too:
// writing mirrored entries to scattered rows would cost more than the probes that it saves.
// Limit: the table is written once, 4 K bytes an output.
#include "cuda/index.cuh"
#include "cuda/maps.cuh"

#include <algorithm>

namespace perception {
namespace {

constexpr int kProbeRows = 128;
constexpr int kProbeTaps = 63;   // of one block; odd, so that lanes write to different banks
constexpr int kProbeBatch = 3;   // runs whose slots are fetched together
constexpr int kProbeSplit = 3;   // threads an output, where outputs are few
constexpr int kMaskTaps = 32;    // a table of more taps comes without bit sets

struct Steps {
  int64_t by[kMaxColumns];  // the batch has 1
};

struct ProbeArgs {
  const int64_t* index;
  int log2;
  const int32_t* in_sites;
  const int32_t* out_sites;
  int64_t num_out;
  const int32_t* offsets;
  int taps, chunk;  // of the table, of a block
  Steps steps;
  int32_t* table;
  uint32_t* masks;  // null where there are more than kMaskTaps
  uint8_t bit_of[kProbeTaps + 1];
};

// Taps that differ on the last axis only, with steps there that rise by less than 32.
struct alignas(16) Run {
  unsigned long long delta;  // of the key of the first tap
  int32_t begin, end;
  int32_t first;             // step of the first tap
  uint32_t span;             // from there to the last one's
  int32_t other[kMaxColumns - 2];  // displacements on the other axes
};

// In bits of a run's members, counted from its first tap.
struct alignas(16) TapBits {
  uint32_t at, before;
  uint32_t in_mask;
};

// In shared memory: runs, tap bits and deltas [chunk], tile [kProbeRows, width], offsets [chunk, D],
// starts of the runs [chunk + 1].
constexpr int64_t probe_shared_bytes(int chunk, int dim) {
  return chunk * (sizeof(Run) + sizeof(TapBits)) + (chunk + 1) / 2 * 16 +
         (static_cast<int64_t>(kProbeRows) * (chunk | 1) + chunk * dim + chunk + 1) * 4;
}

// Bit d: place + d is between 0 and range.
__device__ __forceinline__ uint32_t window(int64_t place, uint32_t range) {
  if (place < -31 || place > range) return 0;
  const int64_t room = range - place;
  const uint32_t above = room >= 31 ? ~0u : (2u << room) - 1;
  return above & ~0u << (place < 0 ? static_cast<int>(-place) : 0);
}

template <int C, int kSplit>
__global__ void __launch_bounds__(kProbeRows * kSplit, (C <= 4 ? 8 : 4) / kSplit)
    probe_kernel(const __grid_constant__ ProbeArgs args) {
  constexpr int D = C - 1, kThreads = kProbeRows * kSplit;
  using View = IndexView<C>;
  extern __shared__ uint4 shared[];
  __shared__ int num_runs;
  __shared__ uint32_t mask_of[kProbeRows];
  const int chunk = args.chunk, width = chunk | 1;
  Run* const runs = reinterpret_cast<Run*>(shared);
  TapBits* const tap_bits = reinterpret_cast<TapBits*>(runs + chunk);
  unsigned long long* const deltas = reinterpret_cast<unsigned long long*>(tap_bits + chunk);
  int32_t* const tile = reinterpret_cast<int32_t*>(deltas + (chunk + 1) / 2 * 2);
  int32_t* const offsets = tile + kProbeRows * width;
  int32_t* const starts_at = offsets + chunk * D;

  const View view(args.index, args.log2, args.in_sites);
  const int64_t first_tap = static_cast<int64_t>(blockIdx.y) * chunk;
  const int taps = static_cast<int>(min(static_cast<int64_t>(chunk), args.taps - first_tap));
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kProbeRows;
  const int rows = static_cast<int>(min(static_cast<int64_t>(kProbeRows), args.num_out - first_row));
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

  // The key of the output's place at displacement zero, summed modulo 2^64: with an offset's it is right
  // whenever all columns are inside.
  const int row = threadIdx.x % kProbeRows, split = threadIdx.x / kProbeRows;
  const int32_t* const site = args.out_sites + (first_row + row) * C;
  int64_t place[C];
  unsigned long long home = 0;
#pragma unroll
  for (int c = 0; c < C; ++c) {
    place[c] = (row < rows ? __ldg(site + c) : 0) * args.steps.by[c] - view.lo[c];
    home += static_cast<unsigned long long>(place[c]) << view.shift[c];
  }
  const bool near = row < rows && within(place[0], view.range[0]);
#pragma unroll 1
  for (int t = threadIdx.x; t < taps; t += kThreads) {
    unsigned long long delta = 0;
#pragma unroll
    for (int d = 0; d < D; ++d) {
      const int32_t v = __ldg(args.offsets + (first_tap + t) * D + d);
      offsets[t * D + d] = v;
      delta += static_cast<unsigned long long>(static_cast<int64_t>(v)) << view.shift[d + 1];
    }
    deltas[t] = delta;
  }
  if (kSplit > 1 && split == 0) mask_of[row] = 0;
  __syncthreads();
  if (warp == 0) {
    int found = 0;
    for (int begin = 0; begin < taps; begin += 32) {
      const int t = begin + lane;
      bool starts = t == 0;
      if (t > 0 && t < taps) {
        const int32_t *now = offsets + t * D, *before = now - D;
        // Rising, and within one of the windows of 32 that have zero in a middle: keys of at most two groups.
        starts = now[D - 1] <= before[D - 1] || (now[D - 1] + int64_t{16}) >> 5 != (before[D - 1] + int64_t{16}) >> 5;
#pragma unroll
        for (int d = 0; d < D - 1; ++d) starts |= now[d] != before[d];
      }
      const uint32_t all = __ballot_sync(~0u, starts);
      if (starts) starts_at[found + __popc(all & ((1u << lane) - 1))] = t;
      found += __popc(all);
    }
    if (lane == 0) {
      starts_at[found] = taps;
      num_runs = found;
    }
  }
  __syncthreads();

  const int total = num_runs;
  const int32_t* const last_axis = offsets + D - 1;
  for (int r = threadIdx.x; r < total; r += kThreads) {
    const int begin = starts_at[r], end = starts_at[r + 1];
    const int32_t first = last_axis[begin * D];
    Run& run = runs[r];
    run.delta = deltas[begin];
    run.begin = begin;
    run.end = end;
    run.first = first;
    run.span = last_axis[(end - 1) * D] - first;
#pragma unroll
    for (int d = 0; d < D - 1; ++d) run.other[d] = offsets[begin * D + d];
    for (int t = begin; t < end; ++t) {
      const uint32_t at = 1u << (last_axis[t * D] - first);
      tap_bits[t] = {at, at - 1, 1u << args.bit_of[t]};
    }
  }
  __syncthreads();

  int32_t* const to_tile = tile + row * width;
  // Whether an output is inside at the taps of a run on all axes but the last.
  const auto inside = [&](const Run& run) {
    bool all = near;
#pragma unroll
    for (int d = 0; d < D - 1; ++d) all &= within(place[d + 1] + run.other[d], view.range[d + 1]);
    return all;
  };
  uint32_t mask = 0;
  if (view.kind == View::kGroups) {
    int32_t first = total > 0 ? runs[0].first : 0;
    uint32_t reach = window(place[D] + first, view.range[D]);  // the taps that are inside on the last axis
#pragma unroll 1
    for (int base = split; base < total; base += kProbeBatch * kSplit) {
      unsigned long long key[kProbeBatch];
      Slot slot[kProbeBatch];
      uint32_t valid[kProbeBatch];
#pragma unroll
      for (int j = 0; j < kProbeBatch; ++j) {
        valid[j] = 0;
        if (base + j * kSplit >= total) continue;
        const Run& run = runs[base + j * kSplit];
        if (run.first != first) {
          first = run.first;
          reach = window(place[D] + first, view.range[D]);
        }
        key[j] = home + run.delta;
        valid[j] = inside(run) ? reach : 0;
        if (valid[j]) slot[j] = view.load_inside(view.home_of_group(key[j] >> 5));
      }
#pragma unroll
      for (int j = 0; j < kProbeBatch; ++j) {
        if (base + j * kSplit >= total) continue;
        const Run& run = runs[base + j * kSplit];
        // The members from the first tap on, and the row of the next of them: rows follow each other.
        uint32_t members = 0;
        int32_t next = 0;
        if (valid[j]) {
          const unsigned long long found = view.follow(slot[j], key[j] >> 5);
          const uint32_t group = ~static_cast<uint32_t>(found), bit = static_cast<uint32_t>(key[j]) & 31;
          members = group >> bit;
          next = static_cast<int32_t>(found >> 32) + __popc(group & ((1u << bit) - 1));
          if (bit + run.span > 31) {
            const unsigned long long behind = view.find_group((key[j] + run.span) >> 5);
            members |= ~static_cast<uint32_t>(behind) << (32 - bit);
            if (group == 0) next = static_cast<int32_t>(behind >> 32);
          }
        }
        const uint32_t present = members & valid[j];
        const int end = run.end;
#pragma unroll 1
        for (int t = run.begin; t < end; ++t) {
          const TapBits tap = tap_bits[t];
          const bool here = present & tap.at;
          to_tile[t] = here ? next + __popc(members & tap.before) : -1;
          if (here) mask |= tap.in_mask;
        }
      }
    }
  } else {
#pragma unroll 1
    for (int run = split; run < total; run += kSplit) {
      const int begin = starts_at[run], end = starts_at[run + 1];
      const bool all = inside(runs[run]);
#pragma unroll 1
      for (int t = begin; t < end; ++t) {
        int32_t from = -1;
        if (all && within(place[D] + last_axis[t * D], view.range[D])) {
          if (view.kind == View::kKeys) {
            from = view.find_key(home + deltas[t]);
          } else {
            int32_t wanted[C];
            wanted[0] = __ldg(site);
#pragma unroll
            for (int c = 1; c < C; ++c)
              wanted[c] = static_cast<int32_t>(__ldg(site + c) * args.steps.by[c] + offsets[t * D + c - 1]);
            from = view.find_row(wanted);
          }
        }
        to_tile[t] = from;
        if (from >= 0) mask |= 1u << args.bit_of[t];
      }
    }
  }
  if (kSplit > 1 && args.masks != nullptr) atomicOr(mask_of + row, mask);
  __syncthreads();

  if (args.masks != nullptr && split == 0 && row < rows)
    args.masks[first_row + row] = kSplit > 1 ? mask_of[row] : mask;
  int32_t* const to = args.table + first_row * args.taps + first_tap;
  const int words = rows * taps;
  if (width == args.taps) {  // the tile is a piece of the table, of whole sectors but for the last
    const uint4* const from = reinterpret_cast<const uint4*>(tile);
    for (int i = threadIdx.x; i < words / 4; i += kThreads) reinterpret_cast<uint4*>(to)[i] = from[i];
    for (int i = words / 4 * 4 + threadIdx.x; i < words; i += kThreads) to[i] = tile[i];
  } else if (taps == args.taps) {
    const uint32_t inverse = (1u << 20) / taps + 1;  // exact for i * taps < 2^20
    for (int i = threadIdx.x; i < words; i += kThreads) to[i] = tile[i + static_cast<int>(i * inverse >> 20)];
  } else {
    for (int r = warp; r < rows; r += kThreads / 32)
      for (int t = lane; t < taps; t += 32) to[static_cast<int64_t>(r) * args.taps + t] = tile[r * width + t];
  }
}

}  // namespace

void check_map(const Tensor& in_sites, const Tensor& out_sites, const Tensor& offsets,
               const std::vector<int64_t>& stride, const char* op) {
  check_sites(in_sites, op, "in_sites");
  check_sites(out_sites, op, "out_sites");
  const int64_t dim = in_sites.size(1) - 1;
  STD_TORCH_CHECK(offsets.dim() == 2 && offsets.size(1) == dim && out_sites.size(1) == dim + 1 &&
                      static_cast<int64_t>(stride.size()) == dim,
                  op, ": sites, offsets and stride have different numbers of axes");
  STD_TORCH_CHECK(offsets.scalar_type() == ScalarType::Int, op, ": offsets must be int32");
  STD_TORCH_CHECK(offsets.size(0) <= 1 << 20, op, ": more than 2^20 taps");
  check_same_device(in_sites, out_sites, op);
  check_same_device(in_sites, offsets, op);
}

Table make_table(const Tensor& index, const Tensor& in_sites, const Tensor& out_sites, const Tensor& offsets,
                 const std::vector<int64_t>& stride, const std::vector<int64_t>& rank, cudaStream_t stream) {
  const int64_t taps = offsets.size(0), columns = in_sites.size(1), num_out = out_sites.size(0);
  const bool wants_masks = !rank.empty() && taps <= kMaskTaps;
  Tensor table = empty_like_device(out_sites, {num_out, taps}, ScalarType::Int);
  Tensor masks = empty_like_device(out_sites, {wants_masks ? num_out : 0}, ScalarType::Int);
  if (num_out == 0 || taps == 0) return {table, masks};
  const int64_t chunks = ceil_div(taps, kProbeTaps);
  const int chunk = static_cast<int>(chunks == 1 ? taps : ceil_div(taps, chunks) | 1);
  ProbeArgs args{};
  args.index = index.const_data_ptr<int64_t>();
  args.log2 = index_log2(index, "plan_table");
  args.in_sites = in_sites.const_data_ptr<int32_t>();
  args.out_sites = out_sites.const_data_ptr<int32_t>();
  args.num_out = num_out;
  args.offsets = offsets.const_data_ptr<int32_t>();
  args.taps = static_cast<int>(taps);
  args.chunk = chunk;
  args.table = table.mutable_data_ptr<int32_t>();
  if (wants_masks) {
    args.masks = reinterpret_cast<uint32_t*>(masks.mutable_data_ptr<int32_t>());
    for (int64_t t = 0; t < taps; ++t) args.bit_of[t] = static_cast<uint8_t>(rank[t]);
  }
  args.steps.by[0] = 1;
  for (int64_t c = 1; c < columns; ++c) args.steps.by[c] = stride[c - 1];
  const dim3 grid(static_cast<unsigned>(ceil_div(num_out, kProbeRows)), static_cast<unsigned>(ceil_div(taps, chunk)));
  const bool split = taps > 9 && int64_t{grid.x} * grid.y < 5 * device_facts().multiprocessors;
  dispatch_columns(columns, [&](auto constant) {
    constexpr int C = constant.value;
    static_assert(probe_shared_bytes(kProbeTaps, C - 1) <= 47 << 10, "more shared memory than a block has by default");
    const int64_t bytes = probe_shared_bytes(chunk, C - 1);
    if (split)
      probe_kernel<C, kProbeSplit><<<grid, kProbeRows * kProbeSplit, bytes, stream>>>(args);
    else
      probe_kernel<C, 1><<<grid, kProbeRows, bytes, stream>>>(args);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {table, masks};
}

}  // namespace perception
