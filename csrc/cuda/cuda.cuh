// What every CUDA source needs: the device and stream of a call, scratch memory, launch checks.
#pragma once

#include "common/tensor.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include <cuda_runtime.h>

#include <atomic>
#include <mutex>

namespace perception {

// Makes the device of a tensor current for the life of the object and knows torch's stream there.
class Device {
 public:
  explicit Device(const Tensor& tensor) : guard_(tensor.get_device_index()) {
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }
  cudaStream_t stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

// Uninitialized memory on the device of `like`, from torch's caching allocator; without the
// dispatcher, which costs more than the allocation.
inline Tensor empty_like_device(const Tensor& like, std::initializer_list<int64_t> size, ScalarType dtype) {
  int64_t strides[4], step = 1;
  STD_TORCH_CHECK(size.size() <= 4, "empty_like_device: at most four axes");
  for (int i = static_cast<int>(size.size()) - 1; i >= 0; --i) {
    strides[i] = step;
    step *= size.begin()[i] > 0 ? size.begin()[i] : 1;
  }
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<int64_t>(size.size()), size.begin(), strides,
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)), aoti_torch_device_type_cuda(),
      like.get_device_index(), &handle));
  return Tensor(handle);
}

// The tensor itself where it is contiguous: asking the dispatcher for that costs microseconds.
inline Tensor as_contiguous(const Tensor& tensor) { return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor); }

// Facts of the current device, asked for once.
struct DeviceFacts {
  int multiprocessors = 0, major = 0;
};
inline const DeviceFacts& device_facts() {
  constexpr int kMostDevices = 64;
  static DeviceFacts facts[kMostDevices];
  static std::once_flag known[kMostDevices];
  int device = 0;
  STD_CUDA_CHECK(cudaGetDevice(&device));
  STD_TORCH_CHECK(device < kMostDevices, "more than 64 GPUs");
  std::call_once(known[device], [&] {
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&facts[device].multiprocessors, cudaDevAttrMultiProcessorCount, device));
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&facts[device].major, cudaDevAttrComputeCapabilityMajor, device));
  });
  return facts[device];
}

// Lets a kernel take more than 48 KB of shared memory; remembers on which devices it may. One flag
// set a kernel: `template <auto kernel>`.
template <auto kernel>
void allow_shared(int bytes) {
  static std::atomic<uint64_t> allowed{0};
  int device = 0;
  STD_CUDA_CHECK(cudaGetDevice(&device));
  const uint64_t bit = uint64_t{1} << (device & 63);
  if (allowed.load(std::memory_order_relaxed) & bit) return;
  STD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  allowed.fetch_or(bit, std::memory_order_relaxed);
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Blocks for a grid-stride loop over `work` items.
inline unsigned grid_for(int64_t work, int threads, int64_t most = int64_t{1} << 20) {
  const int64_t blocks = ceil_div(work, threads);
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks > most ? most : blocks);
}

inline void check_same_device(const Tensor& a, const Tensor& b, const char* op) {
  STD_TORCH_CHECK(a.is_cuda() && b.is_cuda() && a.get_device_index() == b.get_device_index(), op,
                  ": the tensors are on different devices");
}

}  // namespace perception
