// Rows sorted by an integer key, stably, with a pointer to each group. No size depends on the data, so
// nothing is asked of the device: sorted runs, merges (CUB's radix sort for many rows), and one kernel
// that reads the order off the words and searches the beginning of every group in them.
#include "cuda/sort.cuh"

namespace perception {
namespace {

// Rows with key -1 belong to no group and stand behind all groups; so do rows with a key that is not
// allowed, since raising would need a synchronisation.
template <class Key>
struct Keys {
  const Key* keys;
  int64_t groups;
  int row_bits, key_bits;

  __host__ __device__ int begin_bit() const { return row_bits; }
  __host__ __device__ int end_bit() const { return row_bits + key_bits; }
  __device__ bool fits() const { return true; }
  __device__ const Keys& ready() const { return *this; }
  __device__ uint64_t word(int64_t row) const {
    const int64_t key = keys[row];
    const int64_t group = key < 0 || key >= groups ? groups : key;
    return static_cast<uint64_t>(group) << row_bits | static_cast<uint64_t>(row);
  }
};

__global__ void write_groups(const uint64_t* __restrict__ words, int64_t rows, int row_bits, int32_t* order,
                             int64_t* ptr, int64_t groups) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < rows) order[i] = static_cast<int32_t>(words[i] & ((uint64_t{1} << row_bits) - 1));
  if (i > groups) return;
  const uint64_t wanted = static_cast<uint64_t>(i) << row_bits;
  int64_t begin = 0, end = rows;
  while (begin < end) {
    const int64_t middle = (begin + end) / 2;
    if (words[middle] < wanted)
      begin = middle + 1;
    else
      end = middle;
  }
  ptr[i] = begin;
}

template <class Key>
std::tuple<Tensor, Tensor> group(const Tensor& keys, int64_t groups, cudaStream_t stream) {
  using namespace sorting;
  const int64_t rows = keys.size(0);
  Tensor order = empty_like_device(keys, {rows}, ScalarType::Int);
  Tensor ptr = empty_like_device(keys, {groups + 1}, ScalarType::Long);
  Scratch scratch(keys, 2 * Scratch::padded(words_for(rows) * sizeof(uint64_t)));
  uint64_t* words = scratch.take<uint64_t>(words_for(rows));
  uint64_t* other = scratch.take<uint64_t>(words_for(rows));
  const Keys<Key> source{keys.const_data_ptr<Key>(), groups, rows ? bits_for(rows - 1) : 0, bits_for(groups)};
  const uint64_t* sorted = rows ? sort_words(source, words, other, rows, keys, stream) : words;
  constexpr int kThreads = 256;
  write_groups<<<grid_for(std::max(rows, groups + 1), kThreads, INT32_MAX), kThreads, 0, stream>>>(
      sorted, rows, source.row_bits, order.mutable_data_ptr<int32_t>(), ptr.mutable_data_ptr<int64_t>(), groups);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {order, ptr};
}

std::tuple<Tensor, Tensor> group_by(const Tensor& keys, int64_t groups) {
  STD_TORCH_CHECK(keys.dim() == 1, "group_by: keys must be [N]");
  STD_TORCH_CHECK(groups >= 0 && groups <= kMaxRows && keys.size(0) <= kMaxRows, "group_by: too many rows");
  const Device device(keys);
  const Tensor contiguous = as_contiguous(keys);
  if (keys.scalar_type() == ScalarType::Int) return group<int32_t>(contiguous, groups, device.stream());
  STD_TORCH_CHECK(keys.scalar_type() == ScalarType::Long, "group_by: keys must be int32 or int64");
  return group<int64_t>(contiguous, groups, device.stream());
}

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) { m.impl("group_by", TORCH_BOX(&group_by)); }

}  // namespace
}  // namespace perception
