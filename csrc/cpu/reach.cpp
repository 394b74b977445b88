// Every site that some tap reaches from some site, sorted and unique.
//   forward:    out with stride * out + offset == in        (a convolution's outputs)
//   transposed: out == stride * in + offset                 (a transposed convolution's outputs)
#include "cpu/sites.h"

namespace perception {
namespace {

Tensor reach_sites(const Tensor& sites_tensor, const Tensor& offsets_tensor, std::vector<int64_t> stride,
                   bool transposed, std::vector<int64_t> bounds) {
  check_sites(sites_tensor, "reach_sites", "sites");
  const int64_t rows = sites_tensor.size(0), columns = sites_tensor.size(1), dim = columns - 1;
  STD_TORCH_CHECK(offsets_tensor.dim() == 2 && offsets_tensor.size(1) == dim &&
                      offsets_tensor.scalar_type() == ScalarType::Int &&
                      static_cast<int64_t>(stride.size()) == dim,
                  "reach_sites: offsets must be int32 [K, D] and stride [D]");
  check_strides(stride, "reach_sites");
  STD_TORCH_CHECK(bounds.empty() || static_cast<int64_t>(bounds.size()) == 2 * dim,
                  "reach_sites: bounds must hold D minima and D maxima");
  const Tensor sites_c = torch::stable::contiguous(sites_tensor);
  const Tensor offsets_c = torch::stable::contiguous(offsets_tensor);
  const int32_t* sites = sites_c.const_data_ptr<int32_t>();
  const int32_t* offsets = offsets_c.const_data_ptr<int32_t>();
  const int64_t taps = offsets_c.size(0);

  std::vector<int64_t> lo(dim, std::numeric_limits<int32_t>::min()), hi(dim, std::numeric_limits<int32_t>::max());
  for (size_t d = 0; d < bounds.size() / 2; ++d) {
    lo[d] = std::max(lo[d], bounds[d]);
    hi[d] = std::min(hi[d], bounds[dim + d]);
  }
  // Without bounds a site outside int32 is the caller's to know about; with them it is just outside.
  const bool bounded = !bounds.empty();
  constexpr int64_t kBlock = 4096;
  std::vector<std::vector<int32_t>> found((rows + kBlock - 1) / kBlock);
  std::atomic<bool> overflow{false};
  parallel_blocks(rows, kBlock, [&](int64_t b, int64_t begin, int64_t end) {
    std::vector<int32_t>& out = found[b];
    int32_t reached[kMaxColumns];
    for (int64_t i = begin; i < end; ++i) {
      const int32_t* site = sites + i * columns;
      reached[0] = site[0];
      for (int64_t k = 0; k < taps; ++k) {
        bool inside = true;
        for (int64_t d = 0; d < dim && inside; ++d) {
          int64_t v;
          if (transposed) {
            v = site[d + 1] * stride[d] + offsets[k * dim + d];
          } else {
            v = int64_t{site[d + 1]} - offsets[k * dim + d];
            inside = v % stride[d] == 0;
            v /= stride[d];
          }
          if (inside && (v < lo[d] || v > hi[d])) {
            inside = false;
            if (!bounded) overflow.store(true, std::memory_order_relaxed);
          }
          reached[d + 1] = static_cast<int32_t>(v);
        }
        if (inside) out.insert(out.end(), reached, reached + columns);
      }
    }
  });
  STD_TORCH_CHECK(!overflow, "a tap reaches a site outside int32; shift the coordinates or give bounds");
  std::vector<int32_t> all;
  size_t total = 0;
  for (const auto& part : found) total += part.size();
  all.reserve(total);
  for (auto& part : found) {
    all.insert(all.end(), part.begin(), part.end());
    part = {};
  }
  STD_TORCH_CHECK(static_cast<int64_t>(total) / columns <= kMaxRows,
                  "reach_sites: more than 2^31 - 1 candidate sites; give bounds or a smaller kernel");
  return unique(all.data(), static_cast<int64_t>(total) / columns, static_cast<int>(columns)).sites;
}

STABLE_TORCH_LIBRARY_IMPL(perception, CPU, m) { m.impl("reach_sites", TORCH_BOX(&reach_sites)); }

}  // namespace
}  // namespace perception
