// Unique sites in lexicographic order, by a stable radix sort of packed keys (one to five words).
// Limit: each radix pass streams 12 bytes a row in and 12 out; a LiDAR scan needs three passes.
#include "cpu/sites.h"

namespace perception {

namespace {

constexpr int kDigit = 11;
constexpr int64_t kBuckets = int64_t{1} << kDigit;

}  // namespace

void radix_sort(std::vector<uint64_t>& keys, std::vector<int32_t>& order, int bits) {
  const int64_t rows = static_cast<int64_t>(keys.size());
  if (rows < 2 || bits == 0) return;
  const int64_t chunks = std::max<int64_t>(1, std::min<int64_t>(torch::stable::get_num_threads(), rows >> 14));
  const int64_t step = (rows + chunks - 1) / chunks;
  std::vector<uint64_t> other_keys(rows);
  std::vector<int32_t> other_order(rows);
  std::vector<int64_t> counts(chunks * kBuckets);
  for (int low = 0; low < bits; low += kDigit) {
    parallel_blocks(rows, step, [&](int64_t chunk, int64_t begin, int64_t end) {
      int64_t* count = counts.data() + chunk * kBuckets;
      std::fill(count, count + kBuckets, 0);
      for (int64_t i = begin; i < end; ++i) ++count[(keys[i] >> low) & (kBuckets - 1)];
    });
    int64_t total = 0;
    for (int64_t d = 0; d < kBuckets; ++d)
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t n = counts[chunk * kBuckets + d];
        counts[chunk * kBuckets + d] = total;
        total += n;
      }
    parallel_blocks(rows, step, [&](int64_t chunk, int64_t begin, int64_t end) {
      int64_t* at = counts.data() + chunk * kBuckets;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t to = at[(keys[i] >> low) & (kBuckets - 1)]++;
        other_keys[to] = keys[i];
        other_order[to] = order[i];
      }
    });
    keys.swap(other_keys);
    order.swap(other_order);
  }
}

bool strictly_sorted(const int32_t* sites, int64_t rows, int columns) {
  std::atomic<bool> sorted{true};
  parallel_blocks(rows, 1 << 15, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = std::max<int64_t>(begin, 1); i < end; ++i) {
      const int32_t* row = sites + i * columns;
      if (!std::lexicographical_compare(row - columns, row, row, row + columns)) {
        sorted.store(false, std::memory_order_relaxed);
        return;
      }
    }
  });
  return sorted;
}

namespace {

// Rows in lexicographic order, equal ones in the order they came.
std::vector<int32_t> sorted_order(const int32_t* sites, int64_t rows, int columns) {
  std::vector<int32_t> order(rows);
  for (int64_t i = 0; i < rows; ++i) order[i] = static_cast<int32_t>(i);
  const Packing packing(site_bounds(sites, rows, columns), columns);
  std::vector<uint64_t> keys(rows);
  // Words of whole columns, least significant first.
  for (int last = columns; last > 0;) {
    int first = last - 1, bits = packing.width[first];
    while (first > 0 && bits + packing.width[first - 1] <= 64) bits += packing.width[--first];
    parallel_blocks(rows, 1 << 15, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int32_t* site = sites + int64_t{order[i]} * columns;
        uint64_t key = 0;
        for (int c = first; c < last; ++c)
          key = (packing.width[c] < 64 ? key << packing.width[c] : 0) |
                static_cast<uint64_t>(site[c] - packing.lo[c]);
        keys[i] = key;
      }
    });
    radix_sort(keys, order, bits);
    last = first;
  }
  return order;
}

}  // namespace

Unique unique(const int32_t* sites, int64_t rows, int columns) {
  Tensor order_tensor = empty({rows}, ScalarType::Int);
  Tensor inverse_tensor = empty({rows}, ScalarType::Long);
  int32_t* order = order_tensor.mutable_data_ptr<int32_t>();
  int64_t* inverse = inverse_tensor.mutable_data_ptr<int64_t>();
  if (strictly_sorted(sites, rows, columns)) {
    for (int64_t i = 0; i < rows; ++i) order[i] = static_cast<int32_t>(i);
  } else {
    const std::vector<int32_t> sorted = sorted_order(sites, rows, columns);
    std::copy(sorted.begin(), sorted.end(), order);
  }
  const auto starts_group = [&](int64_t i) {
    if (i == 0) return true;
    const int32_t* a = sites + int64_t{order[i - 1]} * columns;
    const int32_t* b = sites + int64_t{order[i]} * columns;
    for (int c = 0; c < columns; ++c)
      if (a[c] != b[c]) return true;
    return false;
  };
  constexpr int64_t kBlock = 1 << 14;
  const int64_t blocks = (rows + kBlock - 1) / kBlock;
  std::vector<int64_t> first_group(blocks + 1, 0);
  parallel_blocks(rows, kBlock, [&](int64_t b, int64_t begin, int64_t end) {
    int64_t n = 0;
    for (int64_t i = begin; i < end; ++i) n += starts_group(i);
    first_group[b + 1] = n;
  });
  for (int64_t b = 0; b < blocks; ++b) first_group[b + 1] += first_group[b];
  const int64_t groups = first_group[blocks];
  Tensor unique_tensor = empty({groups, columns}, ScalarType::Int);
  Tensor ptr_tensor = empty({groups + 1}, ScalarType::Long);
  int32_t* out = unique_tensor.mutable_data_ptr<int32_t>();
  int64_t* ptr = ptr_tensor.mutable_data_ptr<int64_t>();
  parallel_blocks(rows, kBlock, [&](int64_t b, int64_t begin, int64_t end) {
    int64_t group = first_group[b] - 1;
    for (int64_t i = begin; i < end; ++i) {
      if (starts_group(i)) {
        ++group;
        ptr[group] = i;
        std::copy_n(sites + int64_t{order[i]} * columns, columns, out + group * columns);
      }
      inverse[order[i]] = group;
    }
  });
  ptr[groups] = rows;
  return {unique_tensor, inverse_tensor, order_tensor, ptr_tensor};
}

namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> unique_sites(const Tensor& sites) {
  check_sites(sites, "unique_sites", "sites");
  const Tensor contiguous = torch::stable::contiguous(sites);
  Unique u = unique(contiguous.const_data_ptr<int32_t>(), sites.size(0), static_cast<int>(sites.size(1)));
  return {u.sites, u.inverse, u.order, u.ptr};
}

STABLE_TORCH_LIBRARY_IMPL(perception, CPU, m) { m.impl("unique_sites", TORCH_BOX(&unique_sites)); }

}  // namespace

}  // namespace perception
