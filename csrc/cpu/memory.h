// Memory for features.
#pragma once

#include "common/tensor.h"

namespace perception {

// An uninitialized tensor, from memory that earlier results have left where it is large.
Tensor features(std::initializer_list<int64_t> size, ScalarType dtype);

// Uninitialized memory for the time of an operator, from the same pool.
class Workspace {
 public:
  Workspace() = default;
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace();

  template <class T>
  T* get(int64_t count) {
    return static_cast<T*>(bytes(static_cast<size_t>(count) * sizeof(T)));
  }

 private:
  void* bytes(size_t count);
  void* block_ = nullptr;
  bool pooled_ = false;
};

inline Tensor features_like(const Tensor& x) { return features({x.size(0), x.size(1)}, x.scalar_type()); }

}  // namespace perception
