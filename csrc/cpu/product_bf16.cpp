// The product in bfloat16 by the processor's dot products (AVX512-BF16): product_kernels.cpp's blocks
// with two input channels a step.
#include "cpu/product_kernels.h"
#include "cpu/vectors.h"

namespace perception {
namespace {

constexpr int kWidth = 16;
constexpr int kRows = 6, kVectors = 4;  // as many sums as leave registers for the operands
constexpr int64_t kLine = 32;           // numbers a cache line

using Bf16Product = Product<BFloat16, float>;

inline __attribute__((always_inline)) void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }

template <int R, int V>
inline __attribute__((always_inline)) void block(const Bf16Product& p, int64_t at, const BFloat16* b, int64_t column,
                                                 const int32_t* ahead, const BFloat16* soon, int64_t lines) {
  __m512 acc[R][V];
  const BFloat16* row[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    row[r] = p.x + p.in[at + r] * p.x_stride;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[r][v] = _mm512_setzero_ps();
  }
  for (int64_t begin = 0; begin < p.depth; begin += kLine) {
    if (ahead)
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) prefetch(p.x + ahead[r] * p.x_stride + begin);
    for (int64_t i = 0; i < lines; ++i, soon += kLine) prefetch(soon);
    const int64_t end = begin + kLine < p.depth ? begin + kLine : p.depth;
    for (int64_t k = begin; k < end; k += 2) {
      __m512bh bv[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) bv[v] = (__m512bh)_mm512_loadu_si512(b + (k * V + 2 * v) * kWidth);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        int32_t pair;
        std::memcpy(&pair, row[r] + k, sizeof pair);
        const __m512bh av = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[r][v] = _mm512_dpbf16_ps(acc[r][v], av, bv[v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    float* to = p.c + p.out[at + r] * p.c_stride + column;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      _mm512_storeu_ps(to + v * kWidth, _mm512_add_ps(_mm512_loadu_ps(to + v * kWidth), acc[r][v]));
  }
}

template <int V, int R>
void rest(const Bf16Product& p, int64_t at, const BFloat16* b, int64_t column) {
  if constexpr (R > 0) {
    if (p.rows - at == R)
      block<R, V>(p, at, b, column, nullptr, nullptr, 0);
    else
      rest<V, R - 1>(p, at, b, column);
  }
}

template <int V>
void panel(const Bf16Product& p, const BFloat16* b, int64_t column) {
  constexpr int R = V == kVectors ? kRows : kAhead;
  const int64_t blocks = p.rows / R, chunks = (p.depth + kLine - 1) / kLine;
  const int64_t lines = blocks ? (p.depth * V * kWidth / kLine + blocks * chunks - 1) / (blocks * chunks) : 0;
  const BFloat16* soon = b + p.depth * V * kWidth;
  int64_t at = 0;
  for (; at + R <= p.rows; at += R) {
    const int32_t* ahead = nullptr;
    if (column == 0) {
      if (at + R >= p.rows)
        ahead = p.next;
      else if (at + 2 * R <= p.readable)
        ahead = p.in + at + R;
    }
    block<R, V>(p, at, b, column, ahead, soon, lines);
    soon += lines * chunks * kLine;
  }
  rest<V, R - 1>(p, at, b, column);
}

}  // namespace

void multiply_avx512bf16(const Bf16Product& p) {
  const BFloat16* b = p.weights;
  int64_t column = 0;
  for (int64_t left = p.vectors; left > 0;) {
    const int vectors = panel_vectors(left);
    switch (vectors) {
      case 1: panel<1>(p, b, column); break;
      case 2: panel<2>(p, b, column); break;
      case 3: panel<3>(p, b, column); break;
      default: panel<4>(p, b, column);
    }
    left -= vectors;
    column += vectors * kWidth;
    b += p.depth * vectors * kWidth;
  }
}

}  // namespace perception
