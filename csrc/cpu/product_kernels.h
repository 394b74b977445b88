// The arithmetic of the sparse product on CPU, compiled once for each instruction set.
#pragma once

#include <cstdint>

namespace perception {

template <class T>
struct ProductKernels {
  int width;  // numbers a vector
  // c[p] + column += a[p][0 .. depth) * b  for `rows` rows p, b [depth, vectors * width], vectors 1..4
  void (*gemm)(const T* const* a, int64_t rows, int64_t depth, const T* b, int vectors, T* const* c, int64_t column);
  // c[m, n] += sum over rows p of a[p][m] * b[p][n], n a multiple of width, c of row stride ldc
  void (*outer)(const T* const* a, const T* const* b, int64_t rows, int64_t m, int64_t n, T* c, int64_t ldc);
};

// How many of `left` vectors of columns the next panel takes: one to four, and never three and one
// or four and one, for a panel of one vector runs at a fraction of the speed.
constexpr int panel_vectors(int64_t left) {
  if (left == 5 || left == 6) return 3;
  return left < 4 ? static_cast<int>(left) : 4;
}

struct KernelSet {
  const char* name;
  ProductKernels<float> f32;
  ProductKernels<double> f64;
};

const KernelSet& kernels_portable();
const KernelSet& kernels_avx2();
const KernelSet& kernels_avx512();

}  // namespace perception
