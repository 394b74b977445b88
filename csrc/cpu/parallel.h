// Threads come from torch's own pool, so that torch.set_num_threads rules here too. No result
// depends on how many there are: work is cut by the data alone.
#pragma once

#include "common/tensor.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>

namespace perception {

// f(task) for every task, taken one by one by whichever thread is free.
template <class F>
void parallel_tasks(int64_t tasks, const F& f) {
  const int64_t threads = std::min<int64_t>(tasks, torch::stable::get_num_threads());
  if (threads <= 1) {
    for (int64_t i = 0; i < tasks; ++i) f(i);
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) f(i);
  });
}

// f(block, begin, end) over blocks of `size` rows.
template <class F>
void parallel_blocks(int64_t rows, int64_t size, const F& f) {
  parallel_tasks((rows + size - 1) / size,
                 [&](int64_t b) { f(b, b * size, std::min(rows, (b + 1) * size)); });
}

// A CPU tensor that `check_ptr` has passed: parts of a list of `entries`, one behind the other.
inline void check_parts(const Tensor& ptr_tensor, int64_t entries, const char* op) {
  const int64_t* ptr = ptr_tensor.const_data_ptr<int64_t>();
  const int64_t count = ptr_tensor.size(0) - 1;
  std::atomic<bool> falls{false};
  parallel_blocks(count, 1 << 16, [&](int64_t, int64_t begin, int64_t end) {
    bool bad = false;
    for (int64_t i = begin; i < end; ++i) bad |= ptr[i] > ptr[i + 1];
    if (bad) falls = true;
  });
  STD_TORCH_CHECK(!falls && ptr[0] == 0 && ptr[count] == entries, op, ": ptr does not rise from 0 to ", entries);
}

// Uninitialized memory on a cache line, kept by its owner and grown when more is asked for.
template <class T>
class Scratch {
 public:
  T* get(int64_t count) {
    if (count > capacity_) {
      capacity_ = 0;  // should there be no memory
      const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
      data_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
      STD_TORCH_CHECK(data_ != nullptr, "out of memory: ", bytes, " bytes of scratch");
      capacity_ = count;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
  int64_t capacity_ = 0;
};

}  // namespace perception
