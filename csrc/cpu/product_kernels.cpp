// Register-blocked micro-kernels in vector extensions; CMake compiles this file for each
// instruction set with KERNEL_ISA = portable, avx2, avx512.
//
// multiply: MR gathered rows times a packed panel of V vectors; MR x V accumulators stay in registers
// over the whole depth, each step is V loads, MR broadcasts and MR x V fused multiply-adds.
// outer: the same with rows as the depth (weight gradient).
// A row's sum runs over its depth in one accumulator in order, whatever rows share its block, so
// neither tiling nor threads change a bit of it.
#include "cpu/product_kernels.h"

#include "cpu/vectors.h"

namespace perception {
namespace {

// Rows a block: as many as leave registers for V operands and a broadcast, eight at most (their
// pointers need registers too).
template <int V>
constexpr int block_rows() {
  constexpr int fit = (kRegisters - V - 1) / V;
  return fit > 8 ? 8 : fit;
}

template <class T>
constexpr int kLine = 64 / sizeof(T);

inline __attribute__((always_inline)) void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }

// ahead: rows to prefetch, one line of each for every line of depth; null for none.
// soon: memory to prefetch, `lines` lines for every line of depth.
template <class T, int R, int V>
inline __attribute__((always_inline)) void multiply_block(const Product<T, T>& p, int64_t at, const T* b, int64_t column,
                                                          const int32_t* ahead, const T* soon, int64_t lines) {
  using vec = typename Vec<T>::type;
  constexpr int W = Vec<T>::width;
  vec acc[R][V] = {};
  const T* row[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) row[r] = p.x + p.in[at + r] * p.x_stride;
  const int64_t depth = p.depth;
  for (int64_t begin = 0; begin < depth; begin += kLine<T>) {
    if (ahead)
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) prefetch(p.x + ahead[r] * p.x_stride + begin);
    for (int64_t i = 0; i < lines; ++i, soon += kLine<T>) prefetch(soon);
    const int64_t end = begin + kLine<T> < depth ? begin + kLine<T> : depth;
    for (int64_t k = begin; k < end; ++k) {
      vec bv[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) bv[v] = Vec<T>::load(b + (k * V + v) * W);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const vec av = row[r][k] - vec{};
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[r][v] += av * bv[v];
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    T* to = p.c + p.out[at + r] * p.c_stride + column;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) Vec<T>::store(to + v * W, Vec<T>::load(to + v * W) + acc[r][v]);
  }
}

template <class T, int V, int R>
void multiply_rest(const Product<T, T>& p, int64_t at, const T* b, int64_t column) {
  if constexpr (R > 0) {
    if (p.rows - at == R)
      multiply_block<T, R, V>(p, at, b, column, nullptr, nullptr, 0);
    else
      multiply_rest<T, V, R - 1>(p, at, b, column);
  }
}

// One panel of columns. The first panel brings the rows of x into the cache, every one the weights
// of the next.
template <class T, int V>
void multiply_panel(const Product<T, T>& p, const T* b, int64_t column) {
  constexpr int R = block_rows<V>();
  static_assert(R <= kAhead);
  const int64_t blocks = p.rows / R, chunks = (p.depth + kLine<T> - 1) / kLine<T>;
  const int64_t panel_lines = p.depth * V * Vec<T>::width / kLine<T>;
  const int64_t lines = blocks ? (panel_lines + blocks * chunks - 1) / (blocks * chunks) : 0;
  const T* soon = b + p.depth * V * Vec<T>::width;
  int64_t at = 0;
  for (; at + R <= p.rows; at += R) {
    const int32_t* ahead = nullptr;
    if (column == 0) {
      if (at + R >= p.rows)
        ahead = p.next;
      else if (at + 2 * R <= p.readable)
        ahead = p.in + at + R;
    }
    multiply_block<T, R, V>(p, at, b, column, ahead, soon, lines);
    soon += lines * chunks * kLine<T>;
  }
  multiply_rest<T, V, R - 1>(p, at, b, column);
}

template <class T>
void multiply(const Product<T, T>& p) {
  const T* b = p.weights;
  int64_t column = 0;
  for (int64_t left = p.vectors; left > 0;) {
    const int vectors = panel_vectors(left);
    switch (vectors) {
      case 1: multiply_panel<T, 1>(p, b, column); break;
      case 2: multiply_panel<T, 2>(p, b, column); break;
      case 3: multiply_panel<T, 3>(p, b, column); break;
      default: multiply_panel<T, 4>(p, b, column);
    }
    left -= vectors;
    column += vectors * Vec<T>::width;
    b += p.depth * vectors * Vec<T>::width;
  }
}

// next, offset: rows of which to prefetch a line each. soon: where in c the next block adds its sums.
template <class T, int M, int V>
inline __attribute__((always_inline)) void outer_block(const Outer<T>& p, int64_t m, int64_t n, const T* const* next,
                                                       int64_t offset, const T* soon) {
  using vec = typename Vec<T>::type;
  constexpr int W = Vec<T>::width;
  vec acc[M][V] = {};
  for (int64_t i = 0; i < p.rows; ++i) {
    const T* ap = p.a[i] + m;
    const T* bp = p.b[i] + n;
    if (next) prefetch(next[i] + offset);
    if (i < M)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) prefetch(soon + i * p.ldc + v * W);
    vec bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = Vec<T>::load(bp + v * W);
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
      const vec av = ap[r] - vec{};
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] += av * bv[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < M; ++r) {
    T* to = p.c + (m + r) * p.ldc + n;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) Vec<T>::store(to + v * W, Vec<T>::load(to + v * W) + acc[r][v]);
  }
}

template <class T, int V, int M>
void outer_rest(const Outer<T>& p, int64_t m, int64_t n) {
  if constexpr (M > 0) {
    if (p.m - m == M)
      outer_block<T, M, V>(p, m, n, nullptr, 0, p.c + m * p.ldc + n);
    else
      outer_rest<T, V, M - 1>(p, m, n);
  }
}

template <class T, int V>
void outer_panel(const Outer<T>& p, int64_t n, int64_t& line) {
  constexpr int M = block_rows<V>();
  const int64_t lines_a = (p.m + kLine<T> - 1) / kLine<T>, lines_b = (p.n + kLine<T> - 1) / kLine<T>;
  int64_t m = 0;
  for (; m + M <= p.m; m += M, ++line) {
    const bool of_a = line < lines_a;
    const bool any = p.next_a && line < lines_a + lines_b;
    outer_block<T, M, V>(p, m, n, any ? (of_a ? p.next_a : p.next_b) : nullptr,
                         (of_a ? line : line - lines_a) * kLine<T>, p.c + (m + 2 * M <= p.m ? m + M : 0) * p.ldc + n);
  }
  outer_rest<T, V, M - 1>(p, m, n);
}

template <class T>
void outer(const Outer<T>& p) {
  constexpr int W = Vec<T>::width;
  int64_t line = 0;
  for (int64_t at = 0; at < p.n;) {
    const int vectors = panel_vectors((p.n - at) / W);
    switch (vectors) {
      case 1: outer_panel<T, 1>(p, at, line); break;
      case 2: outer_panel<T, 2>(p, at, line); break;
      case 3: outer_panel<T, 3>(p, at, line); break;
      default: outer_panel<T, 4>(p, at, line);
    }
    at += vectors * W;
  }
}

template <class T>
constexpr ProductKernels<T> table() {
  return {Vec<T>::width, &multiply<T>, &outer<T>};
}

}  // namespace

const KernelSet& PASTE(kernels_, KERNEL_ISA)() {
  static const KernelSet set{STRING(KERNEL_ISA), table<float>(), table<double>()};
  return set;
}

}  // namespace perception
