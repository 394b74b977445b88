// Which kernels: by what the processor has, or by PERCEPTION_ISA.
#include "cpu/kernels.h"

#include <cstdlib>
#include <cstring>

namespace perception {
namespace {

struct Choice {
  const KernelSet& product;
  const RowKernelSet& rows;
  const MapKernels& maps;
  MultiplyBf16 bf16;
};

Choice choose() {
  const char* wanted = std::getenv("PERCEPTION_ISA");
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  // (What has AVX2 has F16C, which older compilers cannot ask for.)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const auto take = [&](const char* name, bool there) { return there && (!wanted || std::strcmp(wanted, name) == 0); };
#if defined(PERCEPTION_AVX512BF16)
  if (take("avx512bf16", avx2 && avx512 && __builtin_cpu_supports("avx512bf16")))
    return {kernels_avx512(), row_kernels_avx512(), map_kernels_avx2(), multiply_avx512bf16};
#endif
  if (take("avx512", avx2 && avx512)) return {kernels_avx512(), row_kernels_avx512(), map_kernels_avx2(), nullptr};
  if (take("avx2", avx2)) return {kernels_avx2(), row_kernels_avx2(), map_kernels_avx2(), nullptr};
#endif
  STD_TORCH_CHECK(!wanted || std::strcmp(wanted, "portable") == 0, "PERCEPTION_ISA=", wanted,
                  " is not available on this processor; use avx512bf16, avx512, avx2 or portable, or unset it");
  return {kernels_portable(), row_kernels_portable(), map_kernels_portable(), nullptr};
}

const Choice& choice() {
  static const Choice chosen = choose();
  return chosen;
}

// The widest vector of numbers that a multiplication takes: 32 of bfloat16, or 16, 8, 4 of float32.
int64_t instruction_set() { return multiply_bf16() ? 32 : product_kernels().f32.width; }

STABLE_TORCH_LIBRARY_IMPL(perception, CompositeExplicitAutograd, m) {
  m.impl("instruction_set", TORCH_BOX(&instruction_set));
}

}  // namespace

const KernelSet& product_kernels() { return choice().product; }
const RowKernelSet& row_kernels() { return choice().rows; }
const MapKernels& map_kernels() { return choice().maps; }
MultiplyBf16 multiply_bf16() { return choice().bf16; }

}  // namespace perception
