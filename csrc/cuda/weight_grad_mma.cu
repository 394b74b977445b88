// The weight gradient on the tensor cores of any sm_80 or later (mma.sync), for every dtype, channel count
// and number of groups: dw[k] = sum over the pairs of tap k of x[in]^T grad[out].
//
// The pairs, contiguous for each tap, are shared out evenly among the blocks (weight_grad.cuh). A block
// makes a tile of up to 128 x 128 elements; rows of x and grad are gathered by asynchronous copies, 16 to
// 64 pairs a step, three steps ahead, their numbers six steps ahead; steps run on from a tap to the next,
// where the sums in registers are written as a part and begin again.
//
// Limits: 2 * pairs * Cin * Cout operations, and the gathered rows out of the L2 cache:
// pairs * (Cin * ceil(Cout / 128) + Cout * ceil(Cin / 128)) elements.
#include "cuda/weight_grad_simt.cuh"

namespace perception {
namespace {

constexpr int kStages = 4;          // steps in shared memory
constexpr int kRing = 2 * kStages;  // steps whose row numbers are in shared memory

template <class Math_, int kSide_, bool kWide_>
struct GradTile {
  using Math = Math_;
  using T = typename Math::T;
  static constexpr int kSide = kSide_;  // rows and columns
  static constexpr bool kWide = kWide_;
  static constexpr int kElement = sizeof(T);
  static constexpr int kPairs = (kSide == 32 ? 128 : 64) / kElement;  // of a step
  static constexpr int kWarps = kSide == 128 ? 8 : 4;
  static constexpr int kThreads = kWarps * 32;
  // Blocks on a multiprocessor, such that the registers suffice.
  static constexpr int kResident = kSide >= 96 ? 2 : kSide == 64 && (Math::kTerms == 3 || !kWide) ? 3 : 4;
  static constexpr int kWarpsAcross = 2;
  static constexpr int kWarpRows = kSide / (kWarps / kWarpsAcross);
  static constexpr int kWarpColumns = kSide / kWarpsAcross;
  static constexpr int kTall = kWarpRows / 16, kAcross = kWarpColumns / 16;
  static constexpr int kStride = padded_row<T>(kSide);
  static constexpr int kStage = 2 * kPairs * kStride;
  static constexpr int kShared = kStages * kStage;
  static_assert(kPairs % 16 == 0 && kStage % 16 == 0, "a tile's shape");
};

// What a step is: its tap (-1 behind the last step), its pairs, and whether the tap's part ends with it.
struct Step {
  int tap, count, last;
};

template <class Tile, int kBytes>
__device__ __forceinline__ void gather_pairs(char* to, const char* from, const int32_t* index, int row_bytes,
                                             int channels) {
  constexpr int kAcross = Tile::kSide * Tile::kElement / kBytes;
  constexpr int kCount = Tile::kPairs * kAcross / Tile::kThreads;
  static_assert(Tile::kPairs * kAcross % Tile::kThreads == 0, "whole rounds");
#pragma unroll(kCount < 4 ? kCount : 4)
  for (int i = 0; i < kCount; ++i) {
    const int v = threadIdx.x + i * Tile::kThreads;
    const int pair = v / kAcross, byte = v % kAcross * kBytes;
    const int row = index[pair];
    const bool valid = row >= 0 && byte / Tile::kElement < channels;
    copy_async<kBytes>(to + pair * Tile::kStride + byte, from + static_cast<int64_t>(row) * row_bytes + byte, valid);
  }
}

template <class Tile>
__device__ __forceinline__ void gather_side(char* to, const char* from, const int32_t* index, int row_bytes,
                                            int channels, int width) {
  if constexpr (Tile::kWide) {
    gather_pairs<Tile, 16>(to, from, index, row_bytes, channels);
  } else {
    switch (width) {
      case 16: gather_pairs<Tile, 16>(to, from, index, row_bytes, channels); break;
      case 8: gather_pairs<Tile, 8>(to, from, index, row_bytes, channels); break;
      case 4: gather_pairs<Tile, 4>(to, from, index, row_bytes, channels); break;
      default:
        if constexpr (Tile::kElement == 2) gather_pairs<Tile, 2>(to, from, index, row_bytes, channels);
    }
  }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kResident) weight_grad_kernel(const GradParams p) {
  using Math = typename Tile::Math;
  using T = typename Tile::T;
  __shared__ __align__(16) int32_t ring[kRing][2 * Tile::kPairs];  // rows of x, rows of grad
  __shared__ Step steps[kRing];
  char* const stages = dynamic_shared();

  const int tiles = p.row_tiles * p.column_tiles;
  const int64_t block = blockIdx.x / tiles;
  const int tile = blockIdx.x % tiles;
  const int m0 = tile / p.column_tiles * Tile::kSide, n0 = tile % p.column_tiles * Tile::kSide;
  const int warp = threadIdx.x / 32, lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3;
  const int warp_row = warp / Tile::kWarpsAcross * Tile::kWarpRows;
  const int warp_column = warp % Tile::kWarpsAcross * Tile::kWarpColumns;
  const char* x = p.x + (static_cast<int64_t>(blockIdx.y) * p.group_in + m0) * Tile::kElement;
  const char* grad = p.grad + (static_cast<int64_t>(blockIdx.y) * p.group_out + n0) * Tile::kElement;

  // The first warp walks over the pairs and fetches row numbers for all.
  TapWalk walk;
  if (warp == 0) walk.begin(p, block);
  const auto fetch = [&](int step) {
    if (warp != 0) return;
    const int at = step & (kRing - 1);
    if (walk.done()) {
      if (lane == 0) steps[at] = {-1, 0, 0};
      return;
    }
    const int count = static_cast<int>(min(int64_t{Tile::kPairs}, walk.tap_end - walk.at));
#pragma unroll
    for (int e = lane; e < 2 * Tile::kPairs; e += 32) {
      const int i = e % Tile::kPairs;
      if (i < count)
        copy_async<4>(&ring[at][e], (e < Tile::kPairs ? p.in_rows : p.out_rows) + walk.at + i, true);
      else
        ring[at][e] = -1;
    }
    if (lane == 0) steps[at] = {walk.tap, count, walk.at + count == walk.tap_end};
    walk.advance(count);
  };
  const auto load = [&](int step) {
    const int at = step & (kRing - 1);
    if (steps[at].tap < 0) return;
    char* to = stages + step % kStages * Tile::kStage;
    gather_side<Tile>(to, x, ring[at], p.cin * Tile::kElement, p.group_in - m0, p.x_width);
    gather_side<Tile>(to + Tile::kPairs * Tile::kStride, grad, ring[at] + Tile::kPairs,
                      p.cout * Tile::kElement, p.group_out - n0, p.grad_width);
  };

  // This lane's addresses. Left, 16 bit: transposed matrices. 32 bit: rows 2g and 2g + 1 of each 16 at once,
  // which go to rows g and g + 8 of the product.
  const int left = warp_row * Tile::kElement + (Tile::kElement == 2
                                                    ? ((lane & 7) + (lane >> 4) * 8) * Tile::kStride + (lane & 8) * 2
                                                    : q * Tile::kStride + g * 8);
  const int right =
      Tile::kPairs * Tile::kStride + right_offset<T, Tile::kStride>(lane) + warp_column * Tile::kElement;
  float sums[Tile::kTall][2 * Tile::kAcross][4] = {};

  for (int s = 0; s < kStages - 1; ++s) fetch(s);
  copy_commit();
  copy_wait<0>();
  __syncthreads();
  for (int s = 0; s < kStages - 1; ++s) {
    load(s);
    fetch(s + kStages - 1);
    copy_commit();
  }

  for (int s = 0;; ++s) {
    // Everything up to step s has arrived, the rows of step s + kStages - 1 too, and every warp has left
    // step s - 1, whose memory is next.
    copy_wait<kStages - 2>();
    __syncthreads();
    const Step step = steps[s & (kRing - 1)];
    if (step.tap < 0) break;
    load(s + kStages - 1);
    fetch(s + 2 * (kStages - 1));
    copy_commit();

    const char* stage = stages + s % kStages * Tile::kStage;
#pragma unroll(Math::kTerms == 3 ? 1 : Tile::kPairs / Math::kDepth)
    for (int k = 0; k < Tile::kPairs; k += Math::kDepth) {
      if (k >= step.count) break;
      uint32_t a[Tile::kTall][4];
#pragma unroll
      for (int m = 0; m < Tile::kTall; ++m) {
        const char* from = stage + left + k * Tile::kStride + m * 16 * Tile::kElement;
        if constexpr (Tile::kElement == 2) {
          load_matrices_transposed(a[m], from);
        } else {
          const uint2 u = *reinterpret_cast<const uint2*>(from);
          const uint2 v = *reinterpret_cast<const uint2*>(from + 4 * Tile::kStride);
          a[m][0] = u.x, a[m][1] = u.y, a[m][2] = v.x, a[m][3] = v.y;
        }
      }
      multiply_step<Math, Tile::kTall, Tile::kAcross, Tile::kStride>(sums, a, stage + right + k * Tile::kStride);
    }
    if (!step.last) continue;

    const int64_t slot = block + step.tap;
    float* const part = static_cast<float*>(p.parts) + slot * p.group_in * p.part_row +
                        static_cast<int64_t>(blockIdx.y) * p.part_group;
#pragma unroll
    for (int m = 0; m < Tile::kTall; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = m0 + warp_row + m * 16 + (Tile::kElement == 2 ? half * 8 + g : 2 * g + half);
        if (row < p.group_in) {
          float* const to = part + static_cast<int64_t>(row) * p.part_row;
#pragma unroll
          for (int n = 0; n < Tile::kAcross; ++n) {
            const int column = n0 + warp_column + n * 16;
            if constexpr (Tile::kElement == 2) {
#pragma unroll
              for (int i = 0; i < 2; ++i)
                if (column + i * 8 + q * 2 < p.part_group)
                  *reinterpret_cast<float2*>(to + column + i * 8 + q * 2) =
                      make_float2(sums[m][2 * n + i][2 * half], sums[m][2 * n + i][2 * half + 1]);
            } else if (column + q * 4 < p.part_group) {
              *reinterpret_cast<float4*>(to + column + q * 4) = column_sums<Tile::kAcross>(sums[m], n, half);
            }
          }
        }
#pragma unroll
        for (int n = 0; n < 2 * Tile::kAcross; ++n) sums[m][n][2 * half] = sums[m][n][2 * half + 1] = 0;
      }
  }
  copy_wait<0>();
}

template <class Tile>
void launch_tile(const WeightGradArgs& args, GradParams p) {
  p.row_tiles = static_cast<int>(ceil_div(p.group_in, Tile::kSide));
  p.column_tiles = static_cast<int>(ceil_div(p.group_out, Tile::kSide));
  p.part_group = static_cast<int>(ceil_div(p.group_out, 4) * 4);  // whole vectors of 16 bytes
  p.part_row = p.part_group * args.groups;
  const int64_t tiles = int64_t{p.row_tiles} * p.column_tiles;
  p.blocks = share_pairs(args, tiles * args.groups, Tile::kResident);
  const Tensor parts = part_memory(args, p, ScalarType::Float);
  STD_TORCH_CHECK(p.blocks * tiles <= std::numeric_limits<int32_t>::max() && args.groups <= 65535,
                  "conv_weight_grad: the problem is too large for one launch");
  launch(&weight_grad_kernel<Tile>, dim3(static_cast<unsigned>(p.blocks * tiles), args.groups), Tile::kThreads,
         Tile::kShared, args.stream, p);
  add_parts<typename Tile::T, float>(args, p);
}

template <class Math>
void launch_math(const WeightGradArgs& args, GradParams p) {
  constexpr int kElement = sizeof(typename Math::T);
  p.x_width = copy_width(p.x, int64_t{p.group_in} * kElement, kElement);
  p.grad_width = copy_width(p.grad, int64_t{p.group_out} * kElement, kElement);
  const bool wide = p.x_width == 16 && p.grad_width == 16;
  // The tile with the least time by tensor cores and gathered bytes together.
  constexpr double kProducts = Math::kDepth == 16 ? 1200 : Math::kTerms == 1 ? 600 : 200;  // a clock of an SM
  constexpr double kBytes = 30;
  int best = 0;
  double least = 0;
  for (const int side : {128, 96, 64, 32}) {
    if (side > (!wide ? 64 : Math::kTerms == 3 ? 96 : 128)) continue;  // three terms need the registers
    const double cost = static_cast<double>(ceil_div(p.group_in, side) * ceil_div(p.group_out, side)) *
                        (side * side / kProducts + 2 * side * kElement / kBytes);
    if (best == 0 || cost < least) {
      best = side;
      least = cost;
    }
  }
  if (!wide) {
    if (best == 64) return launch_tile<GradTile<Math, 64, false>>(args, p);
    return launch_tile<GradTile<Math, 32, false>>(args, p);
  }
  switch (best) {
    case 128:
      if constexpr (Math::kTerms == 1) return launch_tile<GradTile<Math, 128, true>>(args, p);
    case 96: return launch_tile<GradTile<Math, 96, true>>(args, p);
    case 64: return launch_tile<GradTile<Math, 64, true>>(args, p);
    default: return launch_tile<GradTile<Math, 32, true>>(args, p);
  }
}

}  // namespace

void conv_weight_grad_mma(const WeightGradArgs& args) {
  if (args.num_taps == 0 || args.cin == 0 || args.cout == 0) return;
  GradParams p{};
  p.x = static_cast<const char*>(args.x);
  p.grad = static_cast<const char*>(args.grad);
  p.in_rows = args.in_rows;
  p.out_rows = args.out_rows;
  p.tap_ptr = args.tap_ptr;
  p.cin = args.cin;
  p.cout = args.cout;
  p.group_in = args.cin / args.groups;
  p.group_out = args.cout / args.groups;
  p.num_taps = args.num_taps;
  if (args.groups > 1 && p.group_in < 8) return weight_grad_few_channels(args, p);
  switch (args.dtype) {
    case ScalarType::Double: return weight_grad_double(args, p);
    case ScalarType::Half: return launch_math<HalfMath>(args, p);
    case ScalarType::BFloat16: return launch_math<BFloat16Math>(args, p);
    default:
      STD_TORCH_CHECK(args.dtype == ScalarType::Float,
                      "conv_weight_grad: the dtype must be float32, float64, float16 or bfloat16");
      return args.tf32 ? launch_math<Tf32Math>(args, p) : launch_math<FloatMath>(args, p);
  }
}

}  // namespace perception
