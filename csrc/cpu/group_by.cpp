// Rows sorted by an integer key, stably, with a pointer to each group: the transpose of a map from
// rows to groups. Sums over groups then run in a fixed order, without atomics.
#include "cpu/sites.h"

namespace perception {
namespace {

// Rows with key -1 belong to no group: they stand at the end of `order`, after ptr[groups].
template <class Key>
std::tuple<Tensor, Tensor> group(const Key* keys, int64_t rows, int64_t groups) {
  std::vector<uint64_t> sorted(rows);
  std::vector<int32_t> order(rows);
  std::atomic<bool> outside{false}, in_order{true};
  const auto rank = [groups](Key key) { return static_cast<uint64_t>(key < 0 ? groups : int64_t{key}); };
  parallel_blocks(rows, 1 << 15, [&](int64_t, int64_t begin, int64_t end) {
    bool bad = false, ascending = true;
    for (int64_t i = begin; i < end; ++i) {
      bad |= keys[i] < -1 || keys[i] >= groups;
      ascending &= i == 0 || rank(keys[i - 1]) <= rank(keys[i]);
      sorted[i] = rank(keys[i]);
      order[i] = static_cast<int32_t>(i);
    }
    if (bad) outside = true;
    if (!ascending) in_order = false;
  });
  STD_TORCH_CHECK(!outside, "group_by: a key is outside -1 .. ", groups - 1);
  if (!in_order) radix_sort(sorted, order, bits_for(groups));
  Tensor order_out = empty({rows}, ScalarType::Int), ptr_out = empty({groups + 1}, ScalarType::Long);
  std::copy(order.begin(), order.end(), order_out.mutable_data_ptr<int32_t>());
  int64_t* ptr = ptr_out.mutable_data_ptr<int64_t>();
  int64_t group = 0, i = 0;
  ptr[0] = 0;
  for (; i < rows && sorted[i] < static_cast<uint64_t>(groups); ++i)
    while (group < static_cast<int64_t>(sorted[i])) ptr[++group] = i;
  while (group < groups) ptr[++group] = i;
  return {order_out, ptr_out};
}

std::tuple<Tensor, Tensor> group_by(const Tensor& keys, int64_t groups) {
  STD_TORCH_CHECK(keys.dim() == 1, "group_by: keys must be [N]");
  STD_TORCH_CHECK(groups >= 0 && groups <= kMaxRows && keys.size(0) <= kMaxRows, "group_by: too many rows");
  const Tensor contiguous = torch::stable::contiguous(keys);
  if (keys.scalar_type() == ScalarType::Int) return group(contiguous.const_data_ptr<int32_t>(), keys.size(0), groups);
  STD_TORCH_CHECK(keys.scalar_type() == ScalarType::Long, "group_by: keys must be int32 or int64");
  return group(contiguous.const_data_ptr<int64_t>(), keys.size(0), groups);
}

STABLE_TORCH_LIBRARY_IMPL(perception, CPU, m) { m.impl("group_by", TORCH_BOX(&group_by)); }

}  // namespace
}  // namespace perception
