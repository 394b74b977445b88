// The sparse product without tensor cores: groups of few channels (depthwise), and float64.
#pragma once

#include "cuda/fragment.cuh"

namespace perception {
namespace {

struct PlainConv {
  const void* x;
  const void* weight;
  const void* bias;
  void* out;
  const int32_t* rows;
  const int32_t* order;
  const int32_t* taps;
  int64_t granules;
  int cin, cout, group_in, group_out, num_taps, words;
};

inline PlainConv plain_conv(const ConvArgs& args) {
  return {args.x,    args.weight, args.bias, args.out, args.rows, args.order, args.taps, args.granules,
          args.cin,  args.cout,   args.cin / args.groups, args.cout / args.groups, args.num_taps, args.words};
}

// A thread takes kVector output channels of a slot (more than one only in depthwise products) and walks
// the granule's taps four at a time, so that their loads overlap. Limit: bytes of the gathered rows.
template <class T, int kVector>
__global__ void __launch_bounds__(256) few_channels_kernel(const PlainConv p, int lanes, int blocks_across) {
  using A = std::conditional_t<std::is_same_v<T, double>, double, float>;
  constexpr int kTogether = 4;
  const int64_t granule = blockIdx.x / blocks_across;
  const int64_t column =
      (static_cast<int64_t>(blockIdx.x % blocks_across) * lanes + threadIdx.x % lanes) * kVector;
  if (column >= p.cout) return;
  const T* x = static_cast<const T*>(p.x) + column / p.group_out * p.group_in;
  const T* weight = static_cast<const T*>(p.weight) + column;
  const int32_t* taps = p.taps + (1 + granule) * p.words;
  const int32_t* rows = p.rows + granule * p.num_taps * kGranule;
  const bool mirrored = p.words > 0 && (__ldg(p.taps) & 1);
  for (int slot = threadIdx.x / lanes; slot < kGranule; slot += 256 / lanes) {
    const int64_t to = __ldg(p.order + granule * kGranule + slot);
    if (to < 0) continue;
    A sums[kVector];
#pragma unroll
    for (int v = 0; v < kVector; ++v) sums[v] = p.bias ? as_float(static_cast<const T*>(p.bias)[column + v]) : A(0);
    for (int w = 0; w < p.words; ++w) {
      uint32_t bits = __ldg(taps + w);
      while (bits != 0) {
        int tap[kTogether], from[kTogether];
#pragma unroll
        for (int i = 0; i < kTogether; ++i) {
          tap[i] = bits != 0 ? w * 32 + __ffs(bits) - 1 : -1;
          bits &= bits - 1;
          from[i] = tap[i] >= 0 ? __ldg(rows + static_cast<int64_t>(tap[i]) * kGranule + slot) : -1;
          if (mirrored) tap[i] = p.num_taps - 1 - tap[i];
        }
        if constexpr (kVector > 1) {
          Packed<T, kVector> a[kTogether] = {}, b[kTogether] = {};
#pragma unroll
          for (int i = 0; i < kTogether; ++i)
            if (from[i] >= 0) {
              a[i] = *reinterpret_cast<const Packed<T, kVector>*>(x + static_cast<int64_t>(from[i]) * p.cin);
              b[i] = *reinterpret_cast<const Packed<T, kVector>*>(weight + static_cast<int64_t>(tap[i]) * p.cout);
            }
#pragma unroll
          for (int i = 0; i < kTogether; ++i)
            if (from[i] >= 0)
#pragma unroll
              for (int v = 0; v < kVector; ++v) sums[v] += as_float(a[i].value[v]) * as_float(b[i].value[v]);
        } else {
#pragma unroll
          for (int i = 0; i < kTogether; ++i) {
            if (from[i] < 0) continue;
            const T* a = x + static_cast<int64_t>(from[i]) * p.cin;
            const T* b = weight + static_cast<int64_t>(tap[i]) * p.group_in * p.cout;
            for (int c = 0; c < p.group_in; ++c)
              sums[0] += as_float(__ldg(a + c)) * as_float(__ldg(b + static_cast<int64_t>(c) * p.cout));
          }
        }
      }
    }
    Packed<T, kVector> result;
#pragma unroll
    for (int v = 0; v < kVector; ++v) result.value[v] = from_float<T>(sums[v]);
    *reinterpret_cast<Packed<T, kVector>*>(static_cast<T*>(p.out) + to * p.cout + column) = result;
  }
}

template <class T, int kVector>
void launch_few_channels(const ConvArgs& args) {
  const int vectors = static_cast<int>(ceil_div(args.cout, kVector));
  int lanes = 1;
  while (lanes < vectors && lanes < 256) lanes *= 2;
  const int across = static_cast<int>(ceil_div(vectors, lanes));
  STD_TORCH_CHECK(args.granules * across <= std::numeric_limits<int32_t>::max(),
                  "conv: the problem is too large for one launch");
  launch(&few_channels_kernel<T, kVector>, dim3(static_cast<unsigned>(args.granules * across)), 256, 0, args.stream,
         plain_conv(args), lanes, across);
}

template <class T>
void few_channels(const ConvArgs& args) {
  constexpr int kVector = 16 / sizeof(T);
  const bool depthwise = args.cin == args.groups && args.cout == args.groups;
  const int64_t bytes = int64_t{args.cout} * sizeof(T);
  if (depthwise && copy_width(args.x, bytes, sizeof(T)) == 16 && copy_width(args.weight, bytes, sizeof(T)) == 16 &&
      copy_width(args.out, bytes, sizeof(T)) == 16)
    return launch_few_channels<T, kVector>(args);
  launch_few_channels<T, 1>(args);
}

inline void conv_few_channels(const ConvArgs& args) {
  switch (args.dtype) {
    case ScalarType::Double: return few_channels<double>(args);
    case ScalarType::Float: return few_channels<float>(args);
    case ScalarType::Half: return few_channels<__half>(args);
    case ScalarType::BFloat16: return few_channels<__nv_bfloat16>(args);
    default: STD_TORCH_CHECK(false, "conv: the dtype must be float32, float64, float16 or bfloat16");
  }
}

// float64: a block takes a granule and 32 output channels, a thread 4 slots and 2 channels.
constexpr int kDoubleColumns = 32, kDoubleDepth = 16;

__global__ void __launch_bounds__(256) double_kernel(const PlainConv p, int column_tiles) {
  __shared__ double left[kDoubleDepth][kGranule + 1];
  __shared__ double right[kDoubleDepth][kDoubleColumns];
  const int64_t granule = blockIdx.x / column_tiles;
  const int first_column = blockIdx.x % column_tiles * kDoubleColumns;
  const double* x = static_cast<const double*>(p.x) + static_cast<int64_t>(blockIdx.y) * p.group_in;
  const int64_t group_column = static_cast<int64_t>(blockIdx.y) * p.group_out;
  const double* weight = static_cast<const double*>(p.weight) + group_column + first_column;
  const int32_t* taps = p.taps + (1 + granule) * p.words;
  const int32_t* rows = p.rows + granule * p.num_taps * kGranule;
  const bool mirrored = p.words > 0 && (__ldg(p.taps) & 1);
  const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 2;
  double sums[4][2] = {};
  for (int w = 0; w < p.words; ++w) {
    for (uint32_t bits = __ldg(taps + w); bits != 0; bits &= bits - 1) {
      const int64_t tap = w * 32 + __ffs(bits) - 1;
      const double* from = weight + (mirrored ? p.num_taps - 1 - tap : tap) * p.group_in * p.cout;
      for (int c0 = 0; c0 < p.group_in; c0 += kDoubleDepth) {
        const int depth = min(kDoubleDepth, p.group_in - c0);
        for (int e = threadIdx.x; e < kGranule * kDoubleDepth; e += 256) {
          const int slot = e / kDoubleDepth, c = e % kDoubleDepth;
          const int source = __ldg(rows + tap * kGranule + slot);
          left[c][slot] = source >= 0 && c < depth ? __ldg(x + static_cast<int64_t>(source) * p.cin + c0 + c) : 0.;
        }
        for (int e = threadIdx.x; e < kDoubleDepth * kDoubleColumns; e += 256) {
          const int c = e / kDoubleColumns, n = e % kDoubleColumns;
          right[c][n] = c < depth && first_column + n < p.group_out
                            ? __ldg(from + static_cast<int64_t>(c0 + c) * p.cout + n)
                            : 0.;
        }
        __syncthreads();
        for (int c = 0; c < depth; ++c)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            sums[i][0] += left[c][row + i] * right[c][column];
            sums[i][1] += left[c][row + i] * right[c][column + 1];
          }
        __syncthreads();
      }
    }
  }
  const double* bias = static_cast<const double*>(p.bias);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t to = __ldg(p.order + granule * kGranule + row + i);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int n = first_column + column + j;
      if (to >= 0 && n < p.group_out)
        static_cast<double*>(p.out)[to * p.cout + group_column + n] =
            sums[i][j] + (bias ? bias[group_column + n] : 0.);
    }
  }
}

inline void conv_double(const ConvArgs& args) {
  const int tiles = static_cast<int>(ceil_div(args.cout / args.groups, kDoubleColumns));
  STD_TORCH_CHECK(args.granules * tiles <= std::numeric_limits<int32_t>::max() && args.groups <= 65535,
                  "conv: the problem is too large for one launch");
  launch(&double_kernel, dim3(static_cast<unsigned>(args.granules * tiles), args.groups), 256, 0, args.stream,
         plain_conv(args), tiles);
}

}  // namespace
}  // namespace perception
