// What every CUDA source needs: the device and stream of a call, scratch memory, launch checks.
#pragma once

#include "common/tensor.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include <cuda_runtime.h>

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

// Uninitialized memory on the device of `like`, from torch's caching allocator.
inline Tensor empty_like_device(const Tensor& like, std::initializer_list<int64_t> size, ScalarType dtype) {
  return torch::stable::new_empty(like, torch::headeronly::IntHeaderOnlyArrayRef(size.begin(), size.size()), dtype);
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
