// Reductions over segments; see cpu/segment.cpp. Some lanes of a warp reduce a segment, each its V
// channels, in the order of the list and (sums) in float64, as on the CPU. That is right for the short
// segments of pooling, voxels and interpolation, and would take forever over the rows of a whole
// sample: the list is therefore also cut into tiles, tiles inside a long segment are reduced by a block
// each, and a second launch adds up what belongs to a long segment, in the order of the list.
// Where a segment is cut depends on its place in the list alone: the same bits come out of every run.
//
// What the CPU refuses is made harmless instead, since raising would need a synchronisation: a row
// outside x counts as -1, pointers are held inside the list.
// Limit: bytes of x read once an entry.
#include "cuda/pack.cuh"

#include <algorithm>

namespace perception {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;

struct Segments {
  const int32_t* rows;
  const int64_t* ptr;
  int64_t count, entries, num_rows;
  int channels, slots;
  int lanes;           // of a segment: a power of two up to 32
  int64_t tile, tiles;  // entries of a tile; only whole tiles are numbered

  __device__ int64_t begin(int64_t m) const { return max(int64_t{0}, min(ptr[m], entries)); }
  __device__ int64_t end(int64_t m) const { return max(begin(m), min(ptr[m + 1], entries)); }
  // A long segment holds at least one whole tile. Without tiles there is none.
  __device__ bool is_long(int64_t length) const { return tiles > 0 && length > 2 * tile; }
  __device__ int32_t row(int64_t p) const {
    const int32_t r = rows[p];
    return r < num_rows ? r : -1;
  }
};

// -- what is reduced ------------------------------------------------------------------------------

template <class T_, int V_>
struct Sum {
  using T = T_;
  static constexpr int V = V_;
  struct State {
    double sum[V];
  };
  const T* x;
  const T* weights;  // null: ones
  bool mean;
  T* out;

  __device__ State none() const { return State{}; }
  __device__ double weight(int64_t p) const {
    return weights ? static_cast<double>(static_cast<Accumulator<T>>(weights[p])) : 1.0;
  }
  __device__ void add(State& s, const Pack<T, V>& in, int32_t, double weight) const {
    Accumulator<T> value[V];
    in.widen(value);
#pragma unroll
    for (int v = 0; v < V; ++v) s.sum[v] += weight * static_cast<double>(value[v]);
  }
  // `later` stands behind s in the list.
  __device__ void join(State& s, const State& later) const {
#pragma unroll
    for (int v = 0; v < V; ++v) s.sum[v] += later.sum[v];
  }
  __device__ void write(const State& s, int64_t length, int64_t at) const {
    const double scale = mean ? 1.0 / static_cast<double>(max(length, int64_t{1})) : 1.0;
    Accumulator<T> value[V];
#pragma unroll
    for (int v = 0; v < V; ++v) value[v] = static_cast<Accumulator<T>>(s.sum[v] * scale);
    Pack<T, V> result;
    result.narrow(value);
    store_pack<T, V>(out + at, result);
  }
};

// The row of the largest entry, the first of equal ones, a NaN before any number; -1 where there is none.
template <class T_, int V_>
struct Argmax {
  using T = T_;
  static constexpr int V = V_;
  using A = Accumulator<T>;
  struct State {
    A best[V];
    int32_t row[V];
  };
  const T* x;
  int64_t* out;

  __device__ State none() const {
    State s;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      s.best[v] = 0;
      s.row[v] = -1;
    }
    return s;
  }
  __device__ double weight(int64_t) const { return 1.0; }
  __device__ static void take(State& s, int v, A value, int32_t row) {
    if (row >= 0 && (s.row[v] < 0 || value > s.best[v] || (isnan(value) && !isnan(s.best[v])))) {
      s.best[v] = value;
      s.row[v] = row;
    }
  }
  __device__ void add(State& s, const Pack<T, V>& in, int32_t row, double) const {
    A value[V];
    in.widen(value);
#pragma unroll
    for (int v = 0; v < V; ++v) take(s, v, value[v], row);
  }
  __device__ void join(State& s, const State& later) const {
#pragma unroll
    for (int v = 0; v < V; ++v) take(s, v, later.best[v], later.row[v]);
  }
  __device__ void write(const State& s, int64_t, int64_t at) const {
#pragma unroll
    for (int v = 0; v < V; ++v) out[at + v] = s.row[v];
  }
};

// -- kernels --------------------------------------------------------------------------------------

// Entries begin .. end of the list, one after the other.
template <class Op>
__device__ void add_entries(const Op& op, const Segments& s, int64_t begin, int64_t end, int slot,
                            typename Op::State& state) {
  using T = typename Op::T;
  constexpr int V = Op::V;
  for (int64_t p = begin; p < end; p += kUnroll) {
    int32_t row[kUnroll];
    double weight[kUnroll];
    Pack<T, V> in[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) row[u] = p + u < end ? s.row(p + u) : -1;
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (row[u] >= 0) {
        in[u] = load_pack<T, V>(op.x + int64_t{row[u]} * s.channels + slot * V);
        weight[u] = op.weight(p + u);
      }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (row[u] >= 0) op.add(state, in[u], row[u], weight[u]);
  }
}

// The groups of a block (`lanes` threads each) hold consecutive parts of a list: joins them into group 0.
template <class Op>
__device__ void join_groups(const Op& op, typename Op::State& state, typename Op::State* shared, int lanes) {
  const int group = threadIdx.x / lanes, groups = kThreads / lanes;
  shared[threadIdx.x] = state;
  __syncthreads();
  for (int step = 1; step < groups; step *= 2) {
    if (group % (2 * step) == 0) {  // group + step exists: both are powers of two
      op.join(state, shared[threadIdx.x + step * lanes]);
      shared[threadIdx.x] = state;
    }
    __syncthreads();
  }
}

// The last segment that begins at or before a place of the list, by one warp; `count` behind the last.
__device__ inline int64_t segment_at(const Segments& s, int64_t place) {
  int64_t low = 0, high = s.count + 1;  // ptr[low] <= place, and high does not exist or is beyond it
  while (high - low > 1) {
    const int64_t step = (high - low + 31) / 32, probe = low + (threadIdx.x % 32 + 1) * step;
    const bool before = probe < high && s.ptr[probe] <= place;
    low += __popc(__ballot_sync(0xffffffffu, before)) * step;
    high = min(high, low + step);
  }
  return low;
}

// Blocks 0 .. tiles reduce a tile of a long segment; the others reduce kThreads / lanes segments.
template <class Op>
__global__ void __launch_bounds__(kThreads, 3)
    reduce_segments(Op op, Segments s, typename Op::State* partial, int64_t* long_segment) {
  __shared__ typename Op::State shared[kThreads];
  __shared__ int64_t found;
  const int group = threadIdx.x / s.lanes, lane = threadIdx.x % s.lanes, groups = kThreads / s.lanes;
  if (blockIdx.x >= s.tiles) {
    const int64_t m = (blockIdx.x - s.tiles) * groups + group;
    if (m >= s.count) return;
    const int64_t begin = s.begin(m), end = s.end(m);
    if (s.is_long(end - begin)) return;
    for (int slot = lane; slot < s.slots; slot += s.lanes) {
      typename Op::State state = op.none();
      add_entries(op, s, begin, end, slot, state);
      op.write(state, end - begin, m * s.channels + slot * Op::V);
    }
    return;
  }
  const int64_t tile = blockIdx.x, from = tile * s.tile;
  if (threadIdx.x < 32) {
    const int64_t m = segment_at(s, from);
    if (threadIdx.x == 0) {
      const int64_t begin = m < s.count ? s.begin(m) : 0, end = m < s.count ? s.end(m) : 0;
      const bool inside = s.is_long(end - begin) && begin <= from && from + s.tile <= end;
      // The first tile of the segment sees to the rest.
      long_segment[tile] = inside && from - begin < s.tile ? m : -1;
      found = inside ? m : -1;
    }
  }
  __syncthreads();
  if (found < 0) return;
  const int64_t part = (s.tile + groups - 1) / groups, begin = min(from + group * part, from + s.tile);
  for (int base = 0; base < s.slots; base += s.lanes) {
    const int slot = base + lane;
    typename Op::State state = op.none();
    if (slot < s.slots) add_entries(op, s, begin, min(begin + part, from + s.tile), slot, state);
    join_groups(op, state, shared, s.lanes);
    if (group == 0 && slot < s.slots) partial[tile * s.slots + slot] = state;
    __syncthreads();
  }
}

// A block for every tile that is the first of a long segment: entries before it, tiles, entries behind.
template <class Op>
__global__ void __launch_bounds__(kThreads, 2)
    finish_long_segments(Op op, Segments s, const typename Op::State* partial, const int64_t* long_segment) {
  __shared__ typename Op::State shared[kThreads];
  const int64_t tile = blockIdx.x, m = long_segment[tile];
  if (m < 0) return;
  const int group = threadIdx.x / s.lanes, lane = threadIdx.x % s.lanes, groups = kThreads / s.lanes;
  const int64_t begin = s.begin(m), end = s.end(m);
  const int64_t last_tile = end / s.tile;  // the first one that is not whole
  // Items: `head` entries, `whole` tiles, the rest of the entries. A group takes consecutive ones.
  const int64_t head = tile * s.tile - begin, whole = last_tile - tile, tail = end - last_tile * s.tile;
  const int64_t items = head + whole + tail, part = (items + groups - 1) / groups;
  const int64_t first = min(group * part, items), last = min(first + part, items);
  for (int base = 0; base < s.slots; base += s.lanes) {
    const int slot = base + lane;
    typename Op::State state = op.none();
    if (slot < s.slots) {
      add_entries(op, s, begin + first, begin + min(last, head), slot, state);
      const int64_t to_tile = min(last - head, whole);
#pragma unroll 4
      for (int64_t t = max(first - head, int64_t{0}); t < to_tile; ++t)
        op.join(state, partial[(tile + t) * s.slots + slot]);
      // Item i behind the tiles is entry last_tile * tile + (i - head - whole).
      const int64_t behind = last_tile * s.tile - head - whole;
      add_entries(op, s, behind + max(first, head + whole), behind + last, slot, state);
    }
    join_groups(op, state, shared, s.lanes);
    if (group == 0 && slot < s.slots) op.write(state, end - begin, m * s.channels + slot * Op::V);
    __syncthreads();
  }
}

// -- host -----------------------------------------------------------------------------------------

void check(const Tensor& x, const Tensor& rows, const Tensor& ptr, const char* op) {
  STD_TORCH_CHECK(x.dim() == 2, op, ": x must be [N, C]");
  check_rows(rows, op, "rows");
  check_ptr(ptr, op);
  check_same_device(rows, x, op);
  check_same_device(ptr, x, op);
}

Segments describe(const Tensor& x, const Tensor& rows, const Tensor& ptr, int pack) {
  Segments s{};
  s.rows = rows.const_data_ptr<int32_t>();
  s.ptr = ptr.const_data_ptr<int64_t>();
  s.count = ptr.size(0) - 1;
  s.entries = rows.size(0);
  s.num_rows = x.size(0);
  s.channels = static_cast<int>(x.size(1));
  s.slots = s.channels / pack;
  s.lanes = 1;
  while (s.lanes < s.slots && s.lanes < 32) s.lanes *= 2;
  // Small tiles keep the longest serial sum short, few keep their memory small.
  s.tile = 64;
  while (s.entries / s.tile > 32768) s.tile *= 2;
  s.tiles = s.entries > 2 * s.tile ? s.entries / s.tile : 0;
  return s;
}

template <class Op>
void reduce(const Op& op, const Segments& s, const Tensor& like, cudaStream_t stream) {
  if (s.count == 0 || s.channels == 0) return;
  using State = typename Op::State;
  const int64_t state_bytes = ceil_div(s.tiles * s.slots * static_cast<int64_t>(sizeof(State)), 256) * 256;
  Tensor memory = empty_like_device(like, {state_bytes + s.tiles * static_cast<int64_t>(sizeof(int64_t))}, ScalarType::Byte);
  char* bytes = static_cast<char*>(memory.mutable_data_ptr());
  State* partial = reinterpret_cast<State*>(bytes);
  int64_t* long_segment = reinterpret_cast<int64_t*>(bytes + state_bytes);
  const int64_t blocks = s.tiles + ceil_div(s.count, kThreads / s.lanes);
  STD_TORCH_CHECK(blocks <= std::numeric_limits<int32_t>::max(), "too many segments");
  reduce_segments<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(op, s, partial, long_segment);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  if (s.tiles == 0) return;
  finish_long_segments<<<static_cast<unsigned>(s.tiles), kThreads, 0, stream>>>(op, s, partial, long_segment);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor segment_sum(const Tensor& x_tensor, const Tensor& rows_tensor, const Tensor& ptr_tensor,
                   const std::optional<Tensor>& weights, bool mean) {
  check(x_tensor, rows_tensor, ptr_tensor, "segment_sum");
  const Device device(x_tensor);
  const Tensor x_c = as_contiguous(x_tensor), rows_c = as_contiguous(rows_tensor),
               ptr_c = as_contiguous(ptr_tensor);
  std::optional<Tensor> weights_c;
  if (weights) {
    STD_TORCH_CHECK(weights->scalar_type() == x_c.scalar_type() && weights->numel() == rows_c.numel(),
                    "segment_sum: weights must have the dtype of x and one entry a row");
    check_same_device(*weights, x_tensor, "segment_sum");
    weights_c = as_contiguous(*weights);
  }
  Tensor out_tensor = empty_like_device(x_c, {ptr_c.size(0) - 1, x_c.size(1)}, x_c.scalar_type());
  dispatch_floating(x_c.scalar_type(), "segment_sum", [&](auto tag) {
    using T = decltype(tag);
    const T* x = x_c.const_data_ptr<T>();
    const T* w = weights_c ? weights_c->const_data_ptr<T>() : nullptr;
    T* out = out_tensor.mutable_data_ptr<T>();
    with_pack<T>(x_c.size(1), {x, out}, [&](auto pack) {
      constexpr int V = decltype(pack)::value;
      reduce(Sum<T, V>{x, w, mean, out}, describe(x_c, rows_c, ptr_c, V), x_c, device.stream());
    });
  });
  return out_tensor;
}

Tensor segment_argmax(const Tensor& x_tensor, const Tensor& rows_tensor, const Tensor& ptr_tensor) {
  check(x_tensor, rows_tensor, ptr_tensor, "segment_argmax");
  const Device device(x_tensor);
  const Tensor x_c = as_contiguous(x_tensor), rows_c = as_contiguous(rows_tensor),
               ptr_c = as_contiguous(ptr_tensor);
  Tensor out_tensor = empty_like_device(x_c, {ptr_c.size(0) - 1, x_c.size(1)}, ScalarType::Long);
  int64_t* out = out_tensor.mutable_data_ptr<int64_t>();
  dispatch_floating(x_c.scalar_type(), "segment_argmax", [&](auto tag) {
    using T = decltype(tag);
    const T* x = x_c.const_data_ptr<T>();
    with_pack<T>(x_c.size(1), {x}, [&](auto pack) {
      constexpr int V = decltype(pack)::value;
      reduce(Argmax<T, V>{x, out}, describe(x_c, rows_c, ptr_c, V), x_c, device.stream());
    });
  });
  return out_tensor;
}

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) {
  m.impl("segment_sum", TORCH_BOX(&segment_sum));
  m.impl("segment_argmax", TORCH_BOX(&segment_argmax));
}

}  // namespace
}  // namespace perception
