// The weight gradient without tensor cores: groups of few channels (depthwise), and float64.
#pragma once

#include "cuda/weight_grad.cuh"

namespace perception {
namespace {

// A thread takes kVector elements of dw[k] (more than one only in depthwise products) and every
// (256 / lanes)-th pair; the threads of an element are added in order.
template <class T, int kVector>
__global__ void __launch_bounds__(256) few_channels_grad_kernel(const GradParams p, int lanes, int blocks_across) {
  using A = std::conditional_t<std::is_same_v<T, double>, double, float>;
  constexpr int kTogether = 4;
  __shared__ A shared[256][kVector];
  const int64_t block = blockIdx.x / blocks_across;
  const int64_t element = (static_cast<int64_t>(blockIdx.x % blocks_across) * lanes + threadIdx.x % lanes) * kVector;
  const int first = threadIdx.x / lanes, others = 256 / lanes;
  const bool mine = element < static_cast<int64_t>(p.group_in) * p.cout;
  const int column = mine ? static_cast<int>(element % p.cout) : 0;
  const int row = mine ? static_cast<int>(element / p.cout) : 0;
  const T* x = reinterpret_cast<const T*>(p.x) + column / p.group_out * p.group_in + row;
  const T* grad = reinterpret_cast<const T*>(p.grad) + column;

  TapWalk walk;
  walk.begin(p, block);
  while (!walk.done()) {
    A sums[kVector];
#pragma unroll
    for (int v = 0; v < kVector; ++v) sums[v] = 0;
    if (mine)
      for (int64_t at = walk.at + first; at < walk.tap_end; at += kTogether * others) {
        int64_t from[kTogether], to[kTogether];
#pragma unroll
        for (int i = 0; i < kTogether; ++i) {
          const bool there = at + i * others < walk.tap_end;
          from[i] = there ? __ldg(p.in_rows + at + i * others) : -1;
          to[i] = there ? __ldg(p.out_rows + at + i * others) : 0;
        }
        Packed<T, kVector> a[kTogether] = {}, b[kTogether] = {};
#pragma unroll
        for (int i = 0; i < kTogether; ++i)
          if (from[i] >= 0) {
            a[i] = *reinterpret_cast<const Packed<T, kVector>*>(x + from[i] * p.cin);
            b[i] = *reinterpret_cast<const Packed<T, kVector>*>(grad + to[i] * p.cout);
          }
#pragma unroll
        for (int i = 0; i < kTogether; ++i)
          if (from[i] >= 0)
#pragma unroll
            for (int v = 0; v < kVector; ++v) sums[v] += as_float(a[i].value[v]) * as_float(b[i].value[v]);
      }
#pragma unroll
    for (int v = 0; v < kVector; ++v) shared[threadIdx.x][v] = sums[v];
    __syncthreads();
    if (first == 0 && mine) {
      A* part = static_cast<A*>(p.parts) + (block + walk.tap) * (static_cast<int64_t>(p.group_in) * p.part_row) + element;
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        A sum = sums[v];
        for (int i = 1; i < others; ++i) sum += shared[threadIdx.x + i * lanes][v];
        part[v] = sum;
      }
    }
    __syncthreads();
    walk.advance(walk.tap_end - walk.at);
  }
}

template <class T, int kVector>
void launch_few_channels_grad(const WeightGradArgs& args, GradParams p) {
  using A = std::conditional_t<std::is_same_v<T, double>, double, float>;
  const int64_t vectors = int64_t{p.group_in} * p.cout / kVector;
  int lanes = 1;
  while (lanes < vectors && lanes < 256) lanes *= 2;
  const int64_t across = ceil_div(vectors, lanes);
  p.part_group = p.group_out;
  p.part_row = p.cout;
  p.blocks = share_pairs(args, across, 6);
  const Tensor parts = part_memory(args, p, scalar_type<A>());
  STD_TORCH_CHECK(p.blocks * across <= std::numeric_limits<int32_t>::max(),
                  "conv_weight_grad: the problem is too large for one launch");
  launch(&few_channels_grad_kernel<T, kVector>, dim3(static_cast<unsigned>(p.blocks * across)), 256, 0, args.stream, p,
         lanes, static_cast<int>(across));
  add_parts<T, A>(args, p);
}

template <class T>
void few_channels_grad(const WeightGradArgs& args, const GradParams& p) {
  constexpr int kVector = 4;
  constexpr bool kCanPack = sizeof(T) < 8;
  if constexpr (kCanPack) {
    const int64_t bytes = int64_t{args.cout} * sizeof(T);
    const int need = kVector * sizeof(T);
    if (p.group_in == 1 && p.group_out == 1 && copy_width(args.x, bytes, sizeof(T)) >= need &&
        copy_width(args.grad, bytes, sizeof(T)) >= need)
      return launch_few_channels_grad<T, kVector>(args, p);
  }
  launch_few_channels_grad<T, 1>(args, p);
}

inline void weight_grad_few_channels(const WeightGradArgs& args, const GradParams& p) {
  switch (args.dtype) {
    case ScalarType::Double: return few_channels_grad<double>(args, p);
    case ScalarType::Float: return few_channels_grad<float>(args, p);
    case ScalarType::Half: return few_channels_grad<__half>(args, p);
    case ScalarType::BFloat16: return few_channels_grad<__nv_bfloat16>(args, p);
    default: STD_TORCH_CHECK(false, "conv_weight_grad: the dtype must be float32, float64, float16 or bfloat16");
  }
}

// float64: a block makes 32 x 32 elements, a thread 2 x 2, from 16 pairs at a time.
constexpr int kDoubleSide = 32, kDoublePairs = 16;

__global__ void __launch_bounds__(256) double_grad_kernel(const GradParams p) {
  __shared__ double left[kDoublePairs][kDoubleSide], right[kDoublePairs][kDoubleSide];
  const int tiles = p.row_tiles * p.column_tiles;
  const int64_t block = blockIdx.x / tiles;
  const int tile = blockIdx.x % tiles;
  const int m0 = tile / p.column_tiles * kDoubleSide, n0 = tile % p.column_tiles * kDoubleSide;
  const double* x = reinterpret_cast<const double*>(p.x) + static_cast<int64_t>(blockIdx.y) * p.group_in + m0;
  const double* grad = reinterpret_cast<const double*>(p.grad) + static_cast<int64_t>(blockIdx.y) * p.group_out + n0;
  const int row = threadIdx.x / 16 * 2, column = threadIdx.x % 16 * 2;
  TapWalk walk;
  walk.begin(p, block);
  while (!walk.done()) {
    double sums[2][2] = {};
    for (int64_t at = walk.at; at < walk.tap_end; at += kDoublePairs) {
      const int count = static_cast<int>(min(int64_t{kDoublePairs}, walk.tap_end - at));
      for (int e = threadIdx.x; e < kDoublePairs * kDoubleSide; e += 256) {
        const int i = e / kDoubleSide, c = e % kDoubleSide;
        const bool there = i < count;
        left[i][c] = there && m0 + c < p.group_in
                         ? __ldg(x + static_cast<int64_t>(__ldg(p.in_rows + at + i)) * p.cin + c)
                         : 0.;
        right[i][c] = there && n0 + c < p.group_out
                          ? __ldg(grad + static_cast<int64_t>(__ldg(p.out_rows + at + i)) * p.cout + c)
                          : 0.;
      }
      __syncthreads();
      for (int i = 0; i < count; ++i) {
        sums[0][0] += left[i][row] * right[i][column];
        sums[0][1] += left[i][row] * right[i][column + 1];
        sums[1][0] += left[i][row + 1] * right[i][column];
        sums[1][1] += left[i][row + 1] * right[i][column + 1];
      }
      __syncthreads();
    }
    double* part = static_cast<double*>(p.parts) + (block + walk.tap) * (static_cast<int64_t>(p.group_in) * p.part_row) +
                   static_cast<int64_t>(blockIdx.y) * p.part_group;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int j = 0; j < 2; ++j)
        if (m0 + row + i < p.group_in && n0 + column + j < p.group_out)
          part[static_cast<int64_t>(m0 + row + i) * p.part_row + n0 + column + j] = sums[i][j];
    walk.advance(walk.tap_end - walk.at);
  }
}

inline void weight_grad_double(const WeightGradArgs& args, GradParams p) {
  p.row_tiles = static_cast<int>(ceil_div(p.group_in, kDoubleSide));
  p.column_tiles = static_cast<int>(ceil_div(p.group_out, kDoubleSide));
  p.part_group = p.group_out;
  p.part_row = p.cout;
  const int64_t tiles = int64_t{p.row_tiles} * p.column_tiles;
  p.blocks = share_pairs(args, tiles * args.groups, 4);
  const Tensor parts = part_memory(args, p, ScalarType::Double);
  STD_TORCH_CHECK(p.blocks * tiles <= std::numeric_limits<int32_t>::max() && args.groups <= 65535,
                  "conv_weight_grad: the problem is too large for one launch");
  launch(&double_grad_kernel, dim3(static_cast<unsigned>(p.blocks * tiles), args.groups), 256, 0, args.stream, p);
  add_parts<double, double>(args, p);
}

}  // namespace
}  // namespace perception
