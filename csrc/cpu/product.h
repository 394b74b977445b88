// What the sparse product and its weight gradient share: the map, the shape, rows of any dtype.
#pragma once

#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace perception {

// Pairs by tap, sorted by output row within a tap.
struct Map {
  const int32_t* in;
  const int32_t* out;
  const int64_t* ptr;
  int64_t taps, pairs;

  Map(const std::vector<Tensor>& map, const char* op) {
    STD_TORCH_CHECK(map.size() == 3, op, ": a map is [in_rows, out_rows, tap_ptr]");
    check_rows(map[0], op, "in_rows");
    check_rows(map[1], op, "out_rows");
    check_ptr(map[2], op);
    STD_TORCH_CHECK(map[0].is_contiguous() && map[1].is_contiguous() && map[2].is_contiguous(), op,
                    ": a map's tensors must be contiguous");
    in = map[0].const_data_ptr<int32_t>();
    out = map[1].const_data_ptr<int32_t>();
    ptr = map[2].const_data_ptr<int64_t>();
    taps = map[2].size(0) - 1;
    pairs = map[0].size(0);
    check_parts(map[2], pairs, op);
    STD_TORCH_CHECK(map[1].size(0) == pairs, op, ": in_rows and out_rows differ in length");
  }
};

// Rows come from a map of these very tensors unless somebody mixed plans; then memory is at stake.
inline void check_inside(bool inside, const char* op) {
  STD_TORCH_CHECK(inside, op, ": the map names rows that the features do not have");
}

struct Shape {
  int64_t taps, groups, in, out;  // in and out: channels of one group
  bool depthwise() const { return in == 1 && out == 1 && groups > 1; }
};

inline Shape check_product(const Tensor& x, int64_t taps, int64_t groups, int64_t in_group, int64_t out_channels,
                           const char* op) {
  STD_TORCH_CHECK(x.dim() == 2, op, ": x must be [N, Cin]");
  STD_TORCH_CHECK(groups >= 1 && in_group * groups == x.size(1), op, ": the weight takes ", in_group * groups,
                  " channels and x has ", x.size(1));
  STD_TORCH_CHECK(out_channels % groups == 0, op, ": Cout must be a multiple of groups");
  STD_TORCH_CHECK(in_group >= 1 && out_channels >= 1, op, ": there must be at least one channel");
  return {taps, groups, in_group, out_channels / groups};
}

constexpr int64_t kRun = 256;  // pairs converted at a time

}  // namespace perception
