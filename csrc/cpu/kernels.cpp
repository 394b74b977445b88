// Which kernels: by what the processor has, or by PERCEPTION_ISA.
#include "cpu/kernels.h"

#include <cstdlib>
#include <cstring>

namespace perception {
namespace {

struct Choice {
  const KernelSet& product;
  const RowKernelSet& rows;
};

Choice choose() {
  const char* wanted = std::getenv("PERCEPTION_ISA");
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (wanted ? (std::strcmp(wanted, "avx512") == 0 && avx512) : avx512) return {kernels_avx512(), row_kernels_avx512()};
  if (wanted ? (std::strcmp(wanted, "avx2") == 0 && avx2) : avx2) return {kernels_avx2(), row_kernels_avx2()};
#endif
  STD_TORCH_CHECK(!wanted || std::strcmp(wanted, "portable") == 0, "PERCEPTION_ISA=", wanted,
                  " is not available on this processor; use avx512, avx2 or portable, or unset it");
  return {kernels_portable(), row_kernels_portable()};
}

const Choice& choice() {
  static const Choice chosen = choose();
  return chosen;
}

int64_t instruction_set() { return product_kernels().f32.width; }

STABLE_TORCH_LIBRARY_IMPL(perception, CompositeExplicitAutograd, m) {
  m.impl("instruction_set", TORCH_BOX(&instruction_set));
}

}  // namespace

const KernelSet& product_kernels() { return choice().product; }
const RowKernelSet& row_kernels() { return choice().rows; }

}  // namespace perception
