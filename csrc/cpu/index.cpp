// The hash index of a set of sites: built once, read by every kernel map of these sites.
// Limit: one random cache line a site to build, one a query to read (prefetched).
#include "cpu/sites.h"

namespace perception {

Index build_index(const Tensor& contiguous) {
  const int32_t* sites = contiguous.const_data_ptr<int32_t>();
  const int64_t rows = contiguous.size(0);
  const int columns = static_cast<int>(contiguous.size(1));
  const Packing packing(site_bounds(sites, rows, columns), columns);
  const bool exact = packing.exact();
  const int64_t capacity = IndexView::capacity_for(rows);
  const int64_t words = IndexView::words(exact, capacity);
  Tensor index = empty({words}, ScalarType::Long);
  int64_t* data = index.mutable_data_ptr<int64_t>();
  int64_t* slots = data + IndexView::kHeader;
  std::fill_n(data, IndexView::kHeader, 0);
  data[0] = exact;
  data[1] = capacity;
  data[2] = columns;
  for (int c = 0; c < columns; ++c) {
    data[4 + c] = packing.lo[c];
    data[12 + c] = packing.range[c];
    data[20 + c] = packing.shift[c];
  }
  parallel_blocks(words - IndexView::kHeader, 1 << 16, [&](int64_t, int64_t begin, int64_t end) {
    std::fill(slots + begin, slots + end, IndexView::kEmpty);
  });
  std::atomic<int64_t> duplicates{0};
  std::atomic<bool> sorted{true};
  const int bucket_shift = IndexView::bucket_shift(capacity);
  parallel_blocks(rows, 1 << 13, [&](int64_t, int64_t begin, int64_t end) {
    int64_t repeated = 0;
    bool in_order = true;
    for (int64_t i = begin; i < end; ++i) {
      const int32_t* site = sites + i * columns;
      if (i > 0) in_order &= std::lexicographical_compare(site - columns, site, site, site + columns);
      if (exact) {
        const int64_t key = static_cast<int64_t>(packing.key(site));
        for (int64_t s = IndexView::home(key, bucket_shift);; ++s) {
          int64_t* slot = slots + 2 * (s & (capacity - 1));
          int64_t seen = IndexView::kEmpty;
          if (__atomic_compare_exchange_n(slot, &seen, key, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
            slot[1] = i;
            break;
          }
          if (seen == key) {
            ++repeated;
            break;
          }
        }
      } else {
        const uint64_t hash = hash_site(site, columns);
        const int64_t entry = (static_cast<int64_t>(IndexView::tag(hash)) << 32) | i;
        for (uint64_t s = hash;; ++s) {
          int64_t* slot = slots + (s & static_cast<uint64_t>(capacity - 1));
          int64_t seen = IndexView::kEmpty;
          if (__atomic_compare_exchange_n(slot, &seen, entry, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) break;
          if (static_cast<uint32_t>(seen >> 32) == IndexView::tag(hash) &&
              std::equal(site, site + columns, sites + int64_t{static_cast<int32_t>(seen)} * columns)) {
            ++repeated;
            break;
          }
        }
      }
    }
    if (repeated) duplicates += repeated;
    if (!in_order) sorted = false;
  });
  return {index, duplicates, sorted};
}

namespace {

// info: [how many rows repeat an earlier site, whether the rows are in strict lexicographic order].
// Sites in strict order repeat nothing and are found without a hash: no table is made for them
// unless it is asked for.
std::tuple<Tensor, Tensor> index_sites(const Tensor& sites, bool even_if_sorted) {
  check_sites(sites, "build_index", "sites");
  const Tensor contiguous = torch::stable::contiguous(sites);
  const bool skip = !even_if_sorted && strictly_sorted(contiguous.const_data_ptr<int32_t>(), sites.size(0),
                                                       static_cast<int>(sites.size(1)));
  const Index index = skip ? Index{empty({0}, ScalarType::Long), 0, true} : build_index(contiguous);
  Tensor info = empty({2}, ScalarType::Long);
  info.mutable_data_ptr<int64_t>()[0] = index.duplicates;
  info.mutable_data_ptr<int64_t>()[1] = index.sorted;
  return {index.table, info};
}

Tensor lookup(const Tensor& index, const Tensor& sites, const Tensor& queries) {
  check_sites(sites, "lookup", "sites");
  check_sites(queries, "lookup", "queries");
  STD_TORCH_CHECK(sites.size(1) == queries.size(1), "lookup: sites have ", sites.size(1) - 1,
                  " axes and queries ", queries.size(1) - 1);
  const Tensor sites_c = torch::stable::contiguous(sites), queries_c = torch::stable::contiguous(queries);
  const IndexView view(index, sites_c, "lookup");
  const int32_t* query = queries_c.const_data_ptr<int32_t>();
  const int64_t rows = queries.size(0), columns = queries.size(1);
  Tensor found = empty({rows}, ScalarType::Int);
  int32_t* out = found.mutable_data_ptr<int32_t>();
  parallel_blocks(rows, 1 << 13, [&](int64_t, int64_t begin, int64_t end) {
    int64_t wide[kMaxColumns];
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t c = 0; c < columns; ++c) wide[c] = query[i * columns + c];
      out[i] = view.find(wide);
    }
  });
  return found;
}

STABLE_TORCH_LIBRARY_IMPL(perception, CPU, m) {
  m.impl("build_index", TORCH_BOX(&index_sites));
  m.impl("lookup", TORCH_BOX(&lookup));
}

}  // namespace
}  // namespace perception
