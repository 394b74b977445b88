// Unique sites in lexicographic order, by a stable radix sort. A site and its row mostly fit into one
// word of 64 bits (a LiDAR scan: 34 + 17); it is then sorted by itself and says everything that follows.
// Otherwise keys of one to five words are sorted with their rows beside them.
// Limit: each radix pass streams 8 bytes a row in twice and out once; a LiDAR scan needs three passes.
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
std::vector<int32_t> sorted_order(const int32_t* sites, int64_t rows, int columns, const Packing& packing) {
  std::vector<int32_t> order(rows);
  for (int64_t i = 0; i < rows; ++i) order[i] = static_cast<int32_t>(i);
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

// Sorts words by their bits low .. low + bits, stably, in passes between two buffers.
// Returns whether the result is in `spare`.
bool sort_words(uint64_t* words, uint64_t* spare, int64_t rows, int low, int bits) {
  const int passes = (bits + 11) / 12;
  if (rows < 2 || passes == 0) return false;
  const int digit = (bits + passes - 1) / passes;
  const uint64_t mask = (uint64_t{1} << digit) - 1;
  const int64_t buckets = int64_t{1} << digit;
  const int64_t chunks = std::max<int64_t>(1, std::min<int64_t>(torch::stable::get_num_threads(), rows >> 14));
  const int64_t step = (rows + chunks - 1) / chunks;
  std::vector<int32_t> counts(chunks * buckets);
  for (int pass = 0; pass < passes; ++pass, low += digit) {
    parallel_blocks(rows, step, [&](int64_t chunk, int64_t begin, int64_t end) {
      int32_t* count = counts.data() + chunk * buckets;
      std::fill(count, count + buckets, 0);
      for (int64_t i = begin; i < end; ++i) ++count[words[i] >> low & mask];
    });
    int32_t total = 0;
    for (int64_t d = 0; d < buckets; ++d)
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int32_t n = counts[chunk * buckets + d];
        counts[chunk * buckets + d] = total;
        total += n;
      }
    parallel_blocks(rows, step, [&](int64_t chunk, int64_t begin, int64_t end) {
      int32_t* at = counts.data() + chunk * buckets;
      for (int64_t i = begin; i < end; ++i) spare[at[words[i] >> low & mask]++] = words[i];
    });
    std::swap(words, spare);
  }
  return passes % 2 == 1;
}

// Tells the passes over groups what stands where in the sorted order.
struct BySites {
  const int32_t* sites;
  const int32_t* order;
  int columns;

  int32_t row(int64_t i) const { return order[i]; }
  bool starts_group(int64_t i) const {
    const int32_t* a = sites + int64_t{order[i - 1]} * columns;
    const int32_t* b = sites + int64_t{order[i]} * columns;
    for (int c = 0; c < columns; ++c)
      if (a[c] != b[c]) return true;
    return false;
  }
  void site(int64_t i, int32_t* out) const { std::copy_n(sites + int64_t{order[i]} * columns, columns, out); }
};

struct ByWords {
  const uint64_t* words;
  const Packing& packing;
  int row_bits;

  int32_t row(int64_t i) const { return static_cast<int32_t>(words[i] & ((uint64_t{1} << row_bits) - 1)); }
  bool starts_group(int64_t i) const { return (words[i] ^ words[i - 1]) >> row_bits != 0; }
  void site(int64_t i, int32_t* out) const {
    const uint64_t key = words[i] >> row_bits;
    for (int c = 0; c < packing.columns; ++c) {
      const uint64_t mask = (uint64_t{1} << packing.width[c]) - 1;
      out[c] = static_cast<int32_t>(packing.lo[c] + static_cast<int64_t>(key >> packing.shift[c] & mask));
    }
  }
};

// Groups of equal sites. `order` is written where it is not what `sorted` reads.
template <class Sorted>
Unique group(const Sorted& sorted, Tensor order_tensor, bool write_order, int64_t rows, int columns) {
  Tensor inverse_tensor = empty({rows}, ScalarType::Long);
  int64_t* inverse = inverse_tensor.mutable_data_ptr<int64_t>();
  int32_t* order = order_tensor.mutable_data_ptr<int32_t>();
  constexpr int64_t kBlock = 1 << 14;
  const int64_t blocks = (rows + kBlock - 1) / kBlock;
  std::vector<int64_t> first_group(blocks + 1, 0);
  parallel_blocks(rows, kBlock, [&](int64_t b, int64_t begin, int64_t end) {
    int64_t n = begin == 0;
    for (int64_t i = std::max<int64_t>(begin, 1); i < end; ++i) n += sorted.starts_group(i);
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
      if (i == 0 || sorted.starts_group(i)) {
        ++group;
        ptr[group] = i;
        sorted.site(i, out + group * columns);
      }
      const int32_t row = sorted.row(i);
      if (write_order) order[i] = row;
      inverse[row] = group;
    }
  });
  ptr[groups] = rows;
  return {unique_tensor, inverse_tensor, order_tensor, ptr_tensor};
}

}  // namespace

Unique unique(const int32_t* sites, int64_t rows, int columns) {
  Tensor order_tensor = empty({rows}, ScalarType::Int);
  int32_t* order = order_tensor.mutable_data_ptr<int32_t>();
  if (strictly_sorted(sites, rows, columns)) {
    for (int64_t i = 0; i < rows; ++i) order[i] = static_cast<int32_t>(i);
    return group(BySites{sites, order, columns}, order_tensor, false, rows, columns);
  }
  const Packing packing(site_bounds(sites, rows, columns), columns);
  const int row_bits = bits_for(rows - 1);
  if (packing.bits + row_bits <= 64) {
    Scratch<uint64_t> one, other;
    uint64_t *words = one.get(rows), *spare = other.get(rows);
    parallel_blocks(rows, 1 << 15, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        words[i] = packing.key(sites + i * columns) << row_bits | static_cast<uint64_t>(i);
    });
    if (sort_words(words, spare, rows, row_bits, packing.bits)) std::swap(words, spare);
    return group(ByWords{words, packing, row_bits}, order_tensor, true, rows, columns);
  }
  const std::vector<int32_t> sorted = sorted_order(sites, rows, columns, packing);
  std::copy(sorted.begin(), sorted.end(), order);
  return group(BySites{sites, order, columns}, order_tensor, false, rows, columns);
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
