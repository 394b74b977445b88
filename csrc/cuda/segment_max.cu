// The gradient of the largest entries of segments; see cpu/segment.cpp. A thread sums one channel of one
// row in the order of its list: no atomics, the same bits every time.
// Limit: bytes, every listed segment's gradient and argument read once.
#include "cuda/cuda.cuh"

namespace perception {
namespace {

template <class T>
__global__ void __launch_bounds__(256)
    max_grad_kernel(const T* grad, const int64_t* arg, const int32_t* segments, const int64_t* ptr, T* out, int64_t rows,
                    int64_t channels, int64_t num_segments) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < rows * channels; i += step) {
    const int64_t row = i / channels, c = i - row * channels;
    double sum = 0;
    for (int64_t p = ptr[row]; p < ptr[row + 1]; ++p) {
      const int64_t segment = segments[p];
      if (segment < 0 || segment >= num_segments) continue;
      const int64_t at = segment * channels + c;
      if (arg[at] == row) sum += static_cast<double>(static_cast<Accumulator<T>>(grad[at]));
    }
    out[i] = static_cast<T>(static_cast<Accumulator<T>>(sum));
  }
}

Tensor segment_max_grad(const Tensor& grad, const Tensor& arg, const Tensor& segments, const Tensor& ptr) {
  STD_TORCH_CHECK(grad.dim() == 2 && arg.dim() == 2 && arg.scalar_type() == ScalarType::Long && arg.size(0) == grad.size(0) &&
                      arg.size(1) == grad.size(1),
                  "segment_max_grad: arg must be int64 [M, C] as grad");
  check_rows(segments, "segment_max_grad", "segments");
  check_ptr(ptr, "segment_max_grad");
  for (const Tensor* t : {&arg, &segments, &ptr}) check_same_device(grad, *t, "segment_max_grad");
  const Device device(grad);
  const Tensor grad_c = as_contiguous(grad), arg_c = as_contiguous(arg), segments_c = as_contiguous(segments),
               ptr_c = as_contiguous(ptr);
  const int64_t rows = ptr.size(0) - 1, channels = grad.size(1);
  Tensor out = empty_like_device(grad, {rows, channels}, grad.scalar_type());
  if (out.numel() == 0) return out;
  dispatch_floating(grad.scalar_type(), "segment_max_grad", [&](auto tag) {
    using T = decltype(tag);
    max_grad_kernel<T><<<grid_for(rows * channels, 256), 256, 0, device.stream()>>>(
        static_cast<const T*>(grad_c.data_ptr()), arg_c.const_data_ptr<int64_t>(), segments_c.const_data_ptr<int32_t>(),
        ptr_c.const_data_ptr<int64_t>(), static_cast<T*>(out.data_ptr()), rows, channels, grad.size(0));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) { m.impl("segment_max_grad", TORCH_BOX(&segment_max_grad)); }

}  // namespace
}  // namespace perception
