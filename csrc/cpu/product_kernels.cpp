// Register-blocked micro-kernels in vector extensions; CMake compiles this file for each
// instruction set with KERNEL_ISA = portable, avx2, avx512.
//
// gemm: MR gathered rows times a packed panel of V vectors; MR x V accumulators stay in registers
// over the whole depth, each step is V loads, MR broadcasts and MR x V fused multiply-adds.
// outer: the same with rows as the depth (weight gradient).
// A row's sum runs over its depth in one accumulator in order, whatever rows share its block, so
// neither tiling nor threads change a bit of it.
#include "cpu/product_kernels.h"

#include <cstring>

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)

namespace perception {
namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64, kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kBytes = 32, kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kBytes = 16, kRegisters = 32;
#else
constexpr int kBytes = 16, kRegisters = 16;
#endif

template <class T>
struct Vec {
  typedef T type __attribute__((vector_size(kBytes)));
  static constexpr int width = kBytes / sizeof(T);
  static type load(const T* p) {
    type v;
    std::memcpy(&v, p, kBytes);
    return v;
  }
  static void store(T* p, type v) { std::memcpy(p, &v, kBytes); }
};

// Rows a block: as many as leave registers for V operands and a broadcast, eight at most (their
// pointers need registers too).
template <int V>
constexpr int block_rows() {
  constexpr int fit = (kRegisters - V - 1) / V;
  return fit > 8 ? 8 : fit;
}

template <class T, int R, int V>
inline __attribute__((always_inline)) void gemm_block(const T* const* a, int64_t depth, const T* b, T* const* c,
                                                      int64_t column) {
  using vec = typename Vec<T>::type;
  constexpr int W = Vec<T>::width;
  vec acc[R][V] = {};
  const T* row[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) row[r] = a[r];
  for (int64_t k = 0; k < depth; ++k) {
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
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    T* to = c[r] + column;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) Vec<T>::store(to + v * W, Vec<T>::load(to + v * W) + acc[r][v]);
  }
}

template <class T, int V, int R>
void gemm_rest(const T* const* a, int64_t rows, int64_t depth, const T* b, T* const* c, int64_t column) {
  if constexpr (R > 0) {
    if (rows == R)
      gemm_block<T, R, V>(a, depth, b, c, column);
    else
      gemm_rest<T, V, R - 1>(a, rows, depth, b, c, column);
  }
}

template <class T, int V>
void gemm_panel(const T* const* a, int64_t rows, int64_t depth, const T* b, T* const* c, int64_t column) {
  constexpr int R = block_rows<V>();
  int64_t p = 0;
  for (; p + R <= rows; p += R) gemm_block<T, R, V>(a + p, depth, b, c + p, column);
  gemm_rest<T, V, R - 1>(a + p, rows - p, depth, b, c + p, column);
}

template <class T>
void gemm(const T* const* a, int64_t rows, int64_t depth, const T* b, int vectors, T* const* c, int64_t column) {
  switch (vectors) {
    case 1: return gemm_panel<T, 1>(a, rows, depth, b, c, column);
    case 2: return gemm_panel<T, 2>(a, rows, depth, b, c, column);
    case 3: return gemm_panel<T, 3>(a, rows, depth, b, c, column);
    default: return gemm_panel<T, 4>(a, rows, depth, b, c, column);
  }
}

template <class T, int M, int V>
inline __attribute__((always_inline)) void outer_block(const T* const* a, const T* const* b, int64_t rows, int64_t m,
                                                       int64_t n, T* c, int64_t ldc) {
  using vec = typename Vec<T>::type;
  constexpr int W = Vec<T>::width;
  vec acc[M][V] = {};
  for (int64_t p = 0; p < rows; ++p) {
    const T* ap = a[p] + m;
    const T* bp = b[p] + n;
    vec bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = Vec<T>::load(bp + v * W);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const vec av = ap[i] - vec{};
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[i][v] += av * bv[v];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    T* to = c + (m + i) * ldc + n;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) Vec<T>::store(to + v * W, Vec<T>::load(to + v * W) + acc[i][v]);
  }
}

template <class T, int V, int M>
void outer_rest(const T* const* a, const T* const* b, int64_t rows, int64_t rest, int64_t m, int64_t n, T* c,
                int64_t ldc) {
  if constexpr (M > 0) {
    if (rest == M)
      outer_block<T, M, V>(a, b, rows, m, n, c, ldc);
    else
      outer_rest<T, V, M - 1>(a, b, rows, rest, m, n, c, ldc);
  }
}

template <class T, int V>
void outer_panel(const T* const* a, const T* const* b, int64_t rows, int64_t m, int64_t n, T* c, int64_t ldc) {
  constexpr int M = block_rows<V>();
  int64_t i = 0;
  for (; i + M <= m; i += M) outer_block<T, M, V>(a, b, rows, i, n, c, ldc);
  outer_rest<T, V, M - 1>(a, b, rows, m - i, i, n, c, ldc);
}

template <class T>
void outer(const T* const* a, const T* const* b, int64_t rows, int64_t m, int64_t n, T* c, int64_t ldc) {
  constexpr int W = Vec<T>::width;
  for (int64_t at = 0; at < n;) {
    const int vectors = panel_vectors((n - at) / W);
    switch (vectors) {
      case 1: outer_panel<T, 1>(a, b, rows, m, at, c, ldc); break;
      case 2: outer_panel<T, 2>(a, b, rows, m, at, c, ldc); break;
      case 3: outer_panel<T, 3>(a, b, rows, m, at, c, ldc); break;
      default: outer_panel<T, 4>(a, b, rows, m, at, c, ldc);
    }
    at += vectors * W;
  }
}

template <class T>
constexpr ProductKernels<T> table() {
  return {Vec<T>::width, &gemm<T>, &outer<T>};
}

}  // namespace

#define STRING_(x) #x
#define STRING(x) STRING_(x)

const KernelSet& PASTE(kernels_, KERNEL_ISA)() {
  static const KernelSet set{STRING(KERNEL_ISA), table<float>(), table<double>()};
  return set;
}

}  // namespace perception
