// Vectors of the instruction set that a file is compiled for.
#pragma once

#include <cstdint>
#include <cstring>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define STRING_(x) #x
#define STRING(x) STRING_(x)

namespace perception {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

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

// Numbers that come from, and go to, another type than sums are kept in.
inline Vec<float>::type load_wide(const float* p) { return Vec<float>::load(p); }
inline Vec<double>::type load_wide(const double* p) { return Vec<double>::load(p); }
inline void store_narrow(float* p, Vec<float>::type v) { Vec<float>::store(p, v); }
inline void store_narrow(double* p, Vec<double>::type v) { Vec<double>::store(p, v); }

inline Vec<float>::type load_wide(const BFloat16* p) {
  constexpr int W = Vec<float>::width;
  typedef uint16_t narrow __attribute__((vector_size(2 * W)));
  typedef uint32_t wide __attribute__((vector_size(4 * W)));
  narrow bits;
  std::memcpy(&bits, p, sizeof bits);
  const wide shifted = __builtin_convertvector(bits, wide) << 16;
  Vec<float>::type v;
  std::memcpy(&v, &shifted, sizeof v);
  return v;
}

inline void store_narrow(BFloat16* p, Vec<float>::type v) {
  constexpr int W = Vec<float>::width;
  typedef uint16_t narrow __attribute__((vector_size(2 * W)));
  typedef uint32_t wide __attribute__((vector_size(4 * W)));
  wide bits;
  std::memcpy(&bits, &v, sizeof bits);
  const wide rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to the nearest, halves to even
  const wide nan = (wide)((bits & 0x7fffffff) > 0x7f800000);
  const narrow out = __builtin_convertvector((rounded & ~nan) | (nan & 0x7fc0), narrow);
  std::memcpy(static_cast<void*>(p), &out, sizeof out);
}

inline Vec<float>::type load_wide(const Half* p) {
#if defined(__AVX512F__)
  return (Vec<float>::type)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
  return (Vec<float>::type)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  Vec<float>::type v;
  for (int i = 0; i < Vec<float>::width; ++i) v[i] = static_cast<float>(p[i]);
  return v;
#endif
}

inline void store_narrow(Half* p, Vec<float>::type v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < Vec<float>::width; ++i) p[i] = static_cast<Half>(v[i]);
#endif
}

}  // namespace
}  // namespace perception
