// Kernels whose blocks are all on the device at once and wait for each other: several steps in one launch.
#pragma once

#include "cuda/cuda.cuh"

#include <cooperative_groups.h>

#include <atomic>

namespace perception {

// Every block of the grid gets here before any goes on, and then sees what the others wrote.
__device__ inline void wait_for_grid() { cooperative_groups::this_grid().sync(); }

// The same for `threads` threads of a block, whole warps, that share the number `barrier` (1 to 15).
__device__ inline void wait_for_threads(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Blocks of a kernel without dynamic shared memory that a multiprocessor holds; asked for once a device.
template <auto kernel, int kThreads>
int blocks_a_multiprocessor() {
  static std::atomic<int> known[64];
  int device = 0;
  STD_CUDA_CHECK(cudaGetDevice(&device));
  std::atomic<int>& answer = known[device & 63];
  int blocks = answer.load(std::memory_order_relaxed);
  if (blocks == 0) {
    STD_CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, kThreads, 0));
    answer.store(blocks, std::memory_order_relaxed);
  }
  return blocks;
}

// At most as many blocks as the device holds.
template <class Args>
void launch_together(void (*kernel)(Args), int64_t blocks, int threads, size_t bytes, Args args, cudaStream_t stream) {
  void* parameters[] = {&args};
  STD_CUDA_CHECK(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel),
                                             dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads)),
                                             parameters, bytes, stream));
}

}  // namespace perception
