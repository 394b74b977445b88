// Hopper's own instructions as functions: mbarriers, the bulk tensor copy, wgmma.
// Sources: PTX ISA 8.0 and later, sections "mbarrier", "cp.async.bulk.tensor" and "wgmma.mma_async".
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

// The code of these kernels exists for sm_90a only; for other architectures their bodies are empty
// and the host never launches them.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PERCEPTION_HOPPER 1
#endif

namespace perception::hopper {

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

#if defined(PERCEPTION_HOPPER)

__device__ inline void barrier_init(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
// Makes initialized barriers visible to the copy engine.
__device__ inline void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async;" ::: "memory");
}
__device__ inline void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void barrier_arrive_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ inline void barrier_wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "WAIT:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra DONE;\n"
      "bra WAIT;\n"
      "DONE:\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// 16 bytes to shared memory; zeros, and `from` is not read, where `absent` is not 0.
__device__ inline void copy16(uint32_t to, const void* from, uint32_t absent) {
  asm volatile(
      "{\n"
      ".reg .pred absent;\n"
      "setp.ne.u32 absent, %2, 0;\n"
      "cp.async.cg.shared.global [%0], [%1], 16, absent;\n"
      "}" ::"r"(to),
      "l"(from), "r"(absent)
      : "memory");
}
// The barrier counts one arrival of this thread when all of its copies so far have landed.
__device__ inline void copies_arrive(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void copy_tile(uint32_t to, const CUtensorMap* map, int column, int row, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}
// Ordinary writes to shared memory that this thread knows of are seen by the tensor cores after it.
__device__ inline void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

template <int kRegisters>
__device__ inline void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Descriptor of an operand in shared memory, swizzled by 128 bytes. `leading`: bytes from one block of
// 64 elements to the next where the contraction is not contiguous (unused otherwise); `stride`: bytes
// from one group of 8 rows of 128 bytes to the next.
__device__ inline uint64_t operand(uint32_t address, uint32_t leading, uint32_t stride) {
  return static_cast<uint64_t>((address & 0x3FFFF) >> 4) | (static_cast<uint64_t>(leading >> 4) << 16) |
         (static_cast<uint64_t>(stride >> 4) << 32) | (uint64_t{1} << 62);
}

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving accumulators across asynchronous instructions.
template <int kCount>
__device__ inline void pin(float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(values[i])::"memory");
}

// acc[64 x N] += A[64 x 16] B[16 x N], float32 sums. Where kTranspose is 1 an operand is stored
// with its rows (A) or columns (B) contiguous, where it is 0 with the contraction contiguous.
template <class T, int N, int kTransposeA, int kTransposeB>
struct Wgmma;

// `NAME`: the element types; `...`: the registers of the sums, as constraints.
#define PERCEPTION_WGMMA(T, NAME, N, SUMS, A, B, TRANSPOSE_A, TRANSPOSE_B, ...)                       \
  template <int kTransposeA, int kTransposeB>                                                        \
  struct Wgmma<T, N, kTransposeA, kTransposeB> {                                                     \
    __device__ static void run(float (&d)[N / 2], uint64_t a, uint64_t b) {                          \
      asm volatile("{\n.reg .pred on;\nsetp.ne.b32 on, 1, 0;\n"                                     \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME " {" SUMS "}, " A ", " B     \
                   ", on, 1, 1, " TRANSPOSE_A ", " TRANSPOSE_B ";\n}"                                \
                   : __VA_ARGS__                                                                     \
                   : "l"(a), "l"(b), "n"(kTransposeA), "n"(kTransposeB));                            \
    }                                                                                                \
  };
#define PERCEPTION_SUMS_32 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define PERCEPTION_REGISTERS_32 "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
  "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
PERCEPTION_WGMMA(__nv_bfloat16, "bf16.bf16", 32, PERCEPTION_SUMS_32, "%16", "%17", "%18", "%19", PERCEPTION_REGISTERS_32)
PERCEPTION_WGMMA(__half, "f16.f16", 32, PERCEPTION_SUMS_32, "%16", "%17", "%18", "%19", PERCEPTION_REGISTERS_32)
#define PERCEPTION_SUMS_64 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define PERCEPTION_REGISTERS_64 "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
  "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), \
  "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), \
  "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), \
  "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
PERCEPTION_WGMMA(__nv_bfloat16, "bf16.bf16", 64, PERCEPTION_SUMS_64, "%32", "%33", "%34", "%35", PERCEPTION_REGISTERS_64)
PERCEPTION_WGMMA(__half, "f16.f16", 64, PERCEPTION_SUMS_64, "%32", "%33", "%34", "%35", PERCEPTION_REGISTERS_64)
#define PERCEPTION_SUMS_96 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, " \
  "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define PERCEPTION_REGISTERS_96 "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
  "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), \
  "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), \
  "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), \
  "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), \
  "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), \
  "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47])
PERCEPTION_WGMMA(__nv_bfloat16, "bf16.bf16", 96, PERCEPTION_SUMS_96, "%48", "%49", "%50", "%51", PERCEPTION_REGISTERS_96)
PERCEPTION_WGMMA(__half, "f16.f16", 96, PERCEPTION_SUMS_96, "%48", "%49", "%50", "%51", PERCEPTION_REGISTERS_96)
#define PERCEPTION_SUMS_128 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, " \
  "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, " \
  "%56, %57, %58, %59, %60, %61, %62, %63"
#define PERCEPTION_REGISTERS_128 "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
  "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), \
  "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), \
  "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), \
  "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), \
  "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), \
  "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]), \
  "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), \
  "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
PERCEPTION_WGMMA(__nv_bfloat16, "bf16.bf16", 128, PERCEPTION_SUMS_128, "%64", "%65", "%66", "%67", PERCEPTION_REGISTERS_128)
PERCEPTION_WGMMA(__half, "f16.f16", 128, PERCEPTION_SUMS_128, "%64", "%65", "%66", "%67", PERCEPTION_REGISTERS_128)

#endif  // PERCEPTION_HOPPER

// Describes a matrix [rows, columns] of 2-byte elements, contiguous, of which boxes of 64 columns and
// `box_rows` rows are copied into shared memory swizzled by 128 bytes; zeros outside the matrix.
CUtensorMap describe_matrix(const void* data, bool bfloat16, int64_t rows, int64_t columns, int box_rows);

// Whether the kernels exist for the current device.
bool available();

}  // namespace perception::hopper
