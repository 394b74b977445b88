// How the weight gradient is shared out: every block of a fixed number takes an equal range of the pairs
// and leaves its part of each tap that it meets in scratch memory, slot block + tap; a second kernel adds
// a tap's parts in order. Slots do not collide: from one part to the next either the block or the tap is
// the next one.
#pragma once

#include "cuda/fragment.cuh"

namespace perception {
namespace {

struct GradParams {
  const char* x;
  const char* grad;
  void* parts;  // [slots, group_in, part_row] in float32 (float64 for float64)
  const int32_t* in_rows;
  const int32_t* out_rows;
  const int64_t* tap_ptr;
  int cin, cout, group_in, group_out, num_taps;
  int blocks;      // that share the pairs
  int part_group;  // columns of a group in a part
  int part_row;    // columns of a part
  int row_tiles, column_tiles;
  int x_width, grad_width;  // bytes of a copy where rows are not made of 16 bytes
};

constexpr int kShare = 64;  // ranges are multiples of this many pairs

// Pairs of each block but the last ones.
__device__ __forceinline__ int64_t pairs_of_block(int64_t pairs, int blocks) {
  const int64_t each = (pairs + blocks - 1) / blocks;
  return max((each + kShare - 1) / kShare * kShare, int64_t{kShare});
}

// The walk of a block over the pairs of its range, a tap at a time.
struct TapWalk {
  const int64_t* tap_ptr;
  int64_t at = 0, end = 0;  // of the range
  int64_t tap_end = 0;      // of the tap, or of the range
  int tap = 0;

  __device__ __forceinline__ void begin(const GradParams& p, int64_t block) {
    tap_ptr = p.tap_ptr;
    const int64_t pairs = __ldg(tap_ptr + p.num_taps);
    const int64_t each = pairs_of_block(pairs, p.blocks);
    at = min(block * each, pairs);
    end = min(at + each, pairs);
    if (at >= end) return;
    int low = 0, high = p.num_taps;  // the tap with tap_ptr[tap] <= at < tap_ptr[tap + 1]
    while (high - low > 1) {
      const int middle = low + (high - low) / 2;
      if (__ldg(tap_ptr + middle) <= at)
        low = middle;
      else
        high = middle;
    }
    tap = low;
    tap_end = min(__ldg(tap_ptr + tap + 1), end);
  }
  __device__ __forceinline__ bool done() const { return at >= end; }
  // Goes on by `count` pairs of the tap.
  __device__ __forceinline__ void advance(int64_t count) {
    at += count;
    if (at < tap_end || at >= end) return;
    int64_t next;
    do next = __ldg(tap_ptr + ++tap + 1);
    while (next <= at);
    tap_end = min(next, end);
  }
};

constexpr int kAddElements = 32, kAddParts = 8;

// dw = sum of the parts, as T; each of kAddParts threads adds every kAddParts-th part.
template <class T, class A>
__global__ void __launch_bounds__(kAddElements* kAddParts) add_parts_kernel(const GradParams p, T* dw, int across) {
  __shared__ A sums[kAddParts][kAddElements];
  const int tap = blockIdx.x / across;
  const int lane = threadIdx.x % kAddElements, share = threadIdx.x / kAddElements;
  const int64_t elements = static_cast<int64_t>(p.group_in) * p.cout;
  const int64_t e = static_cast<int64_t>(blockIdx.x % across) * kAddElements + lane;
  A sum = 0;
  const int64_t begin = __ldg(p.tap_ptr + tap), end = __ldg(p.tap_ptr + tap + 1);
  if (e < elements && begin < end) {
    const int64_t each = pairs_of_block(__ldg(p.tap_ptr + p.num_taps), p.blocks);
    const int64_t first = begin / each, last = (end - 1) / each;
    const int64_t row = e / p.cout;
    const int column = static_cast<int>(e % p.cout);
    const int64_t size = static_cast<int64_t>(p.group_in) * p.part_row;
    const A* part = static_cast<const A*>(p.parts) + tap * size + row * p.part_row +
                    column / p.group_out * p.part_group + column % p.group_out;
#pragma unroll 4
    for (int64_t block = first + share; block <= last; block += kAddParts) sum += part[block * size];
  }
  sums[share][lane] = sum;
  __syncthreads();
  if (share == 0 && e < elements) {
#pragma unroll
    for (int i = 1; i < kAddParts; ++i) sum += sums[i][lane];
    dw[tap * elements + e] = from_float<T>(sum);
  }
}

// The parts' memory: the slots that the blocks can touch.
inline Tensor part_memory(const WeightGradArgs& args, GradParams& p, ScalarType dtype) {
  Tensor memory = empty_like_device(*args.like, {int64_t{p.blocks} + p.num_taps, int64_t{p.group_in} * p.part_row}, dtype);
  p.parts = memory.mutable_data_ptr();
  return memory;
}

template <class T, class A>
void add_parts(const WeightGradArgs& args, const GradParams& p) {
  if constexpr (!std::is_same_v<T, A>) {
    if (args.wide) return add_parts<A, A>(args, p);
  }
  const int64_t across = ceil_div(int64_t{p.group_in} * p.cout, kAddElements);
  STD_TORCH_CHECK(across * p.num_taps <= std::numeric_limits<int32_t>::max(),
                  "conv_weight_grad: the weight is too large for one launch");
  launch(&add_parts_kernel<T, A>, dim3(static_cast<unsigned>(across * p.num_taps)), kAddElements * kAddParts, 0,
         args.stream, p, static_cast<T*>(args.dw), static_cast<int>(across));
}

// How many blocks share the pairs: up to `resident` a multiprocessor, over `tiles` that each of them makes
// of every pair, with enough pairs each that the parts are small beside what is gathered.
inline int share_pairs(const WeightGradArgs& args, int64_t tiles, int resident) {
  const int64_t by_device = int64_t{multiprocessors()} * resident / tiles;
  const int64_t by_pairs = ceil_div(args.most_pairs, 512);
  const int64_t blocks = by_device < by_pairs ? by_device : by_pairs;
  return static_cast<int>(blocks < 1 ? 1 : blocks);
}

}  // namespace
}  // namespace perception
