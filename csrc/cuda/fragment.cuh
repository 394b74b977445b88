// Arithmetic of the product kernels on top of the instructions in mma.cuh: the kinds of products, one
// step of a warp's product, and conversions of elements.
#pragma once

#include "cuda/mma.cuh"

namespace perception {

// A kind of product: T is what is stored, a step contracts kDepth numbers.
struct HalfMath {
  using T = __half;
  static constexpr int kDepth = 16, kTerms = 1;
  __device__ static void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mma_half(c, a, b0, b1);
  }
};
struct BFloat16Math {
  using T = __nv_bfloat16;
  static constexpr int kDepth = 16, kTerms = 1;
  __device__ static void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mma_bfloat16(c, a, b0, b1);
  }
};
struct Tf32Math {
  using T = float;
  static constexpr int kDepth = 8, kTerms = 1;
};
// float32 by three tf32 products of halves, a = hi + lo (Ootomo and Yokota 2022). Tensor cores add by
// truncation, so each step starts from zero and is added to the sum by the ordinary, rounding units.
struct FloatMath {
  using T = float;
  static constexpr int kDepth = 8, kTerms = 3;
};

__device__ __forceinline__ float as_float(float value) { return value; }
__device__ __forceinline__ float as_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float as_float(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ __forceinline__ double as_float(double value) { return value; }
template <class T, class A>
__device__ __forceinline__ T from_float(A value) {
  if constexpr (std::is_same_v<T, __half>)
    return __float2half_rn(value);
  else if constexpr (std::is_same_v<T, __nv_bfloat16>)
    return __float2bfloat16_rn(value);
  else
    return value;
}

// kCount elements as a unit of memory traffic.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Packed {
  T value[kCount];
};

// value = high + low and about 2^-22 of it. The low half is rounded by an addition to its bits: tensor cores
// leave out the last 13. (Where value is infinite, low is a number instead of NaN.)
__device__ __forceinline__ void split_tf32(float value, uint32_t& high, uint32_t& low) {
  high = __float_as_uint(value) & ~0x1fffu;
  low = __float_as_uint(value - __uint_as_float(high)) + 0x1000u;
}

// Bytes from a row to the next of a tile of `columns` numbers: no bank conflicts for the reads below.
template <class T>
constexpr int padded_row(int columns) {
  return columns * static_cast<int>(sizeof(T)) + (sizeof(T) == 2 ? 16 : 32);
}

// Where a lane reads the right factor, stored [depth][column] with kStride bytes a row, from the first
// row and column of the warp's part.
// 16 bit: transposed matrices. 32 bit: two neighbouring columns 2g, 2g + 1 of each 16 at once, which go
// to column g of two products; so the sums of a lane are columns 4q .. 4q + 3 of the 16, see column_sums.
template <class T, int kStride>
__device__ __forceinline__ int right_offset(int lane) {
  if constexpr (sizeof(T) == 2)
    return (lane & 15) * kStride + (lane >> 4) * 16;
  else
    return (lane & 3) * kStride + (lane >> 2) * 8;
}

// sums += a b for one step; b is the lane's address of the step's first row.
template <class Math, int kTall, int kWide, int kStride>
__device__ __forceinline__ void multiply_step(float (&sums)[kTall][2 * kWide][4], const uint32_t (&a)[kTall][4],
                                              const char* b) {
  if constexpr (Math::kDepth == 16) {
#pragma unroll
    for (int n = 0; n < kWide; ++n) {
      uint32_t f[4];
      load_matrices_transposed(f, b + n * 32);
#pragma unroll
      for (int m = 0; m < kTall; ++m) {
        Math::mma(sums[m][2 * n], a[m], f[0], f[1]);
        Math::mma(sums[m][2 * n + 1], a[m], f[2], f[3]);
      }
    }
  } else if constexpr (Math::kTerms == 1) {
    uint32_t h[kTall][4];
#pragma unroll
    for (int m = 0; m < kTall; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i) h[m][i] = to_tf32(__uint_as_float(a[m][i]));
#pragma unroll
    for (int n = 0; n < kWide; ++n) {
      const float2 u = *reinterpret_cast<const float2*>(b + n * 64);
      const float2 v = *reinterpret_cast<const float2*>(b + n * 64 + 4 * kStride);
      const uint32_t b0 = to_tf32(u.x), b1 = to_tf32(v.x), b2 = to_tf32(u.y), b3 = to_tf32(v.y);
#pragma unroll
      for (int m = 0; m < kTall; ++m) {
        mma_tf32(sums[m][2 * n], h[m], b0, b1);
        mma_tf32(sums[m][2 * n + 1], h[m], b2, b3);
      }
    }
  } else {
    uint32_t high[kTall][4], low[kTall][4];
#pragma unroll
    for (int m = 0; m < kTall; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i) split_tf32(__uint_as_float(a[m][i]), high[m][i], low[m][i]);
#pragma unroll
    for (int n = 0; n < kWide; ++n) {
      const float2 u = *reinterpret_cast<const float2*>(b + n * 64);
      const float2 v = *reinterpret_cast<const float2*>(b + n * 64 + 4 * kStride);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        uint32_t h0, l0, h1, l1;
        split_tf32(i == 0 ? u.x : u.y, h0, l0);
        split_tf32(i == 0 ? v.x : v.y, h1, l1);
        float part[kTall][4] = {};
#pragma unroll
        for (int m = 0; m < kTall; ++m) mma_tf32(part[m], low[m], h0, h1);
#pragma unroll
        for (int m = 0; m < kTall; ++m) mma_tf32(part[m], high[m], l0, l1);
#pragma unroll
        for (int m = 0; m < kTall; ++m) mma_tf32(part[m], high[m], h0, h1);
#pragma unroll
        for (int m = 0; m < kTall; ++m)
#pragma unroll
          for (int j = 0; j < 4; ++j) sums[m][2 * n + i][j] += part[m][j];
      }
    }
  }
}

// 32 bit: the sums of columns 4q .. 4q + 3 of the n-th 16 columns, from row g (half 0) or g + 8 (half 1).
template <int kWide>
__device__ __forceinline__ float4 column_sums(const float (&sums)[2 * kWide][4], int n, int half) {
  return {sums[2 * n][2 * half], sums[2 * n + 1][2 * half], sums[2 * n][2 * half + 1],
          sums[2 * n + 1][2 * half + 1]};
}

// The widest copy, in bytes, that fits rows of `length` bytes from `base`.
inline int copy_width(const void* base, int64_t length, int element) {
  int width = 16;
  while (width > element && (length % width != 0 || reinterpret_cast<uintptr_t>(base) % width != 0)) width /= 2;
  return width;
}

}  // namespace perception
