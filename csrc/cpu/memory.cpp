// Large results come from a pool. The system clears fresh pages, a few GB a second where a product
// writes ten times that, and the C library returns large blocks to the system as soon as they are free:
// without a pool a third of a training step is spent on zeros that nobody reads.
//
// A block goes back to the pool when its tensor dies. All blocks together are never more than
// has been in use at one time, and one goes that has not been wanted for kPatience requests.
#include "cpu/memory.h"

#include <cstdlib>

#if defined(__linux__)
#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <mutex>
#endif

namespace perception {

#if defined(__linux__)
namespace {

constexpr size_t kLarge = size_t{1} << 20;  // below, the C library keeps blocks itself
constexpr size_t kHugePage = size_t{2} << 20;
constexpr uint64_t kPatience = 4096;

class Pool {
 public:
  // Never destroyed: tensors may outlive everything.
  static Pool& instance() {
    static Pool* pool = [] {
      // A child process must not find the lock held by a thread that it does not have.
      pthread_atfork([] { mutex().lock(); }, [] { mutex().unlock(); }, [] { mutex().unlock(); });
      return new Pool;
    }();
    return *pool;
  }

  void* take(size_t bytes) {
    const size_t size = rounded(bytes);
    {
      const std::lock_guard<std::mutex> lock(mutex());
      ++requests_;
      const auto found = free_.lower_bound(size);
      if (found != free_.end() && found->first <= size + size / 4) {
        void* block = found->second.block;
        in_use_ += found->first;
        free_bytes_ -= found->first;
        most_ = std::max(most_, in_use_);
        sizes_[block] = found->first;
        free_.erase(found);
        return block;
      }
    }
    void* block = map(size);
    if (block == nullptr && release() > 0) block = map(size);
    STD_TORCH_CHECK(block != nullptr, "out of memory: ", size, " bytes for features");
    const std::lock_guard<std::mutex> lock(mutex());
    sizes_[block] = size;
    in_use_ += size;
    most_ = std::max(most_, in_use_);
    return block;
  }

  void give(void* block) {
    const std::lock_guard<std::mutex> lock(mutex());
    const auto found = sizes_.find(block);
    const size_t size = found->second;
    sizes_.erase(found);
    in_use_ -= size;
    free_bytes_ += size;
    free_.insert({size, {block, ++requests_}});
    while (!free_.empty()) {
      const auto oldest = std::min_element(free_.begin(), free_.end(), [](const auto& x, const auto& y) {
        return x.second.since < y.second.since;
      });
      if (oldest->second.since + kPatience > requests_ && free_bytes_ + in_use_ <= most_) break;
      free_bytes_ -= oldest->first;
      munmap(oldest->second.block, oldest->first);
      free_.erase(oldest);
    }
  }

  // Unmaps all that is free and forgets how much was in use; bytes given back.
  size_t release() {
    const std::lock_guard<std::mutex> lock(mutex());
    const size_t released = free_bytes_;
    for (const auto& [size, free] : free_) munmap(free.block, size);
    free_.clear();
    free_bytes_ = 0;
    most_ = in_use_;
    return released;
  }

 private:
  struct Free {
    void* block;
    uint64_t since;
  };

  static std::mutex& mutex() {
    static std::mutex* mutex = new std::mutex;
    return *mutex;
  }

  // Few sizes, so that the next cloud finds the memory of the last, and less than a hundredth too much.
  static size_t rounded(size_t bytes) {
    size_t step = size_t{1} << 14;
    while (step * 256 < bytes) step *= 2;
    return (bytes + step - 1) / step * step;
  }

  // Null where there is no memory. Large pages are cleared ten times as fast; the system decides whether
  // it has any.
  static void* map(size_t size) {
    const size_t room = size + kHugePage;
    void* mapped = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    char* start = static_cast<char*>(mapped);
    const size_t past = reinterpret_cast<uintptr_t>(start) % kHugePage, skip = past ? kHugePage - past : 0;
    if (skip) munmap(start, skip);
    munmap(start + skip + size, room - skip - size);
#if defined(MADV_HUGEPAGE)
    madvise(start + skip, size, MADV_HUGEPAGE);
#endif
    return start + skip;
  }

  std::multimap<size_t, Free> free_;
  std::map<void*, size_t> sizes_;
  size_t in_use_ = 0, free_bytes_ = 0, most_ = 0;
  uint64_t requests_ = 0;
};

// In libtorch from 2.11 on; an older one allocates itself.
using FromBlob = AOTITorchError (*)(void*, int64_t, const int64_t*, const int64_t*, int64_t, int32_t, int32_t, int32_t,
                                    AtenTensorHandle*, int32_t, const uint8_t*, int64_t, void (*)(void*, void*), void*);

}  // namespace

Tensor features(std::initializer_list<int64_t> size, ScalarType dtype) {
  static const auto from_blob = reinterpret_cast<FromBlob>(dlsym(RTLD_DEFAULT, "torch_from_blob"));
  size_t bytes = dtype == ScalarType::Double ? 8 : dtype == ScalarType::Float ? 4 : 2;
  for (const int64_t n : size) bytes *= static_cast<size_t>(n);
  if (bytes < kLarge || from_blob == nullptr) return empty(size, dtype);
  std::vector<int64_t> strides(size.size(), 1);
  for (size_t i = size.size() - 1; i > 0; --i) strides[i - 1] = strides[i] * *(size.begin() + i);
  void* block = Pool::instance().take(bytes);
  AtenTensorHandle handle;
  const auto number = [](auto value) { return torch::stable::detail::to<int32_t>(torch::stable::detail::from(value)); };
  STABLE_TORCH_ERROR_CODE_CHECK(from_blob(block, static_cast<int64_t>(size.size()), size.begin(), strides.data(), 0,
                                          number(dtype), number(torch::headeronly::DeviceType::CPU), -1, &handle,
                                          number(torch::headeronly::Layout::Strided), nullptr, 0,
                                          [](void* data, void*) { Pool::instance().give(data); }, nullptr));
  return Tensor(handle);
}

void* Workspace::bytes(size_t count) {
  pooled_ = count >= kLarge;
  block_ = pooled_ ? Pool::instance().take(count) : std::aligned_alloc(64, (count + 64) / 64 * 64);
  STD_TORCH_CHECK(block_ != nullptr, "out of memory: ", count, " bytes of scratch");
  return block_;
}

Workspace::~Workspace() { pooled_ ? Pool::instance().give(block_) : std::free(block_); }

namespace {
int64_t release_memory() { return static_cast<int64_t>(Pool::instance().release()); }
}  // namespace
#else
void* Workspace::bytes(size_t count) {
  block_ = std::aligned_alloc(64, (count + 64) / 64 * 64);
  STD_TORCH_CHECK(block_ != nullptr, "out of memory: ", count, " bytes of scratch");
  return block_;
}

Workspace::~Workspace() { std::free(block_); }

Tensor features(std::initializer_list<int64_t> size, ScalarType dtype) { return empty(size, dtype); }

namespace {
int64_t release_memory() { return 0; }
}  // namespace
#endif

namespace {
STABLE_TORCH_LIBRARY_IMPL(perception, CompositeExplicitAutograd, m) {
  m.impl("release_memory", TORCH_BOX(&release_memory));
}
}  // namespace

}  // namespace perception
