// Several neighbouring numbers read or written at once, 16 bytes where shape and alignment allow it.
#pragma once

#include "cuda/cuda.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace perception {

template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  T at[V];

  __device__ void widen(Accumulator<T> (&out)[V]) const {
#pragma unroll
    for (int v = 0; v < V; ++v) out[v] = static_cast<Accumulator<T>>(at[v]);
  }
  __device__ void narrow(const Accumulator<T> (&in)[V]) {
#pragma unroll
    for (int v = 0; v < V; ++v) at[v] = static_cast<T>(in[v]);
  }
};

// Of 16-bit numbers two stay in one register until they are needed.
template <>
struct alignas(16) Pack<Half, 8> {
  uint32_t two[4];

  __device__ void widen(float (&out)[8]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&two[i]));
      out[2 * i] = pair.x;
      out[2 * i + 1] = pair.y;
    }
  }
  __device__ void narrow(const float (&in)[8]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const __half2 pair = __floats2half2_rn(in[2 * i], in[2 * i + 1]);
      two[i] = *reinterpret_cast<const uint32_t*>(&pair);
    }
  }
};

template <>
struct alignas(16) Pack<BFloat16, 8> {
  uint32_t two[4];

  __device__ void widen(float (&out)[8]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&two[i]));
      out[2 * i] = pair.x;
      out[2 * i + 1] = pair.y;
    }
  }
  __device__ void narrow(const float (&in)[8]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(in[2 * i], in[2 * i + 1]);
      two[i] = *reinterpret_cast<const uint32_t*>(&pair);
    }
  }
};

template <class T, int V>
__device__ inline Pack<T, V> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, V>*>(from);
}
template <class T, int V>
__device__ inline void store_pack(T* to, const Pack<T, V>& pack) {
  *reinterpret_cast<Pack<T, V>*>(to) = pack;
}

// Calls f with the numbers of a pack, as an integral_constant.
template <class T, class F>
void with_pack(int64_t channels, std::initializer_list<const void*> pointers, const F& f) {
  constexpr int kPack = 16 / sizeof(T);
  bool aligned = channels % kPack == 0;
  for (const void* p : pointers) aligned &= reinterpret_cast<uintptr_t>(p) % 16 == 0;
  if (aligned)
    f(std::integral_constant<int, kPack>{});
  else
    f(std::integral_constant<int, 1>{});
}

}  // namespace perception
