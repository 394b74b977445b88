// The voxel of every point: floor((p - origin) / voxel_size), in the points' own precision.
// Limit: reads the points once and writes the sites once.
#include "cpu/parallel.h"

#include <cmath>

namespace perception {
namespace {

// The sites of points without batch numbers and bounds; false if some point has no site. Floor by
// conversion: exact inside int32, and a processor's vector instruction everywhere.
template <class T, int kDim>
bool plain_sites(const T* points, const T* size, const T* zero, int64_t begin, int64_t end, int32_t* sites) {
  bool outside = false;
  for (int64_t i = begin; i < end; ++i) {
    int32_t* site = sites + i * (kDim + 1);
    site[0] = 0;
    for (int d = 0; d < kDim; ++d) {
      const T scaled = (points[i * kDim + d] - zero[d]) / size[d];
      const bool fits = scaled >= T(-2147483648.0) && scaled < T(2147483648.0);  // not so for NaN
      const int32_t whole = fits ? static_cast<int32_t>(scaled) : 0;
      outside |= !fits;
      site[d + 1] = whole - (scaled < static_cast<T>(whole));
    }
  }
  return !outside;
}

// info: [points with NaN or infinity, first of them, points outside int32, first of them]
template <class T>
void run(const Tensor& points_tensor, const int64_t* batch, const std::vector<double>& voxel_size,
         const std::vector<double>& origin, const std::vector<double>& bounds, int32_t* sites, int64_t* info) {
  const T* points = points_tensor.const_data_ptr<T>();
  const int64_t rows = points_tensor.size(0), dim = points_tensor.size(1);
  T size[kMaxColumns], zero[kMaxColumns], lo[kMaxColumns], hi[kMaxColumns];
  for (int64_t d = 0; d < dim; ++d) {
    size[d] = static_cast<T>(voxel_size[d]);
    zero[d] = static_cast<T>(origin[d]);
    if (!bounds.empty()) {
      lo[d] = static_cast<T>(bounds[d]);
      hi[d] = static_cast<T>(bounds[dim + d]);
    }
  }
  const bool bounded = !bounds.empty();
  constexpr int64_t kBlock = 1 << 14;
  struct Found { int64_t count = 0, first = -1; };
  std::vector<Found> bad((rows + kBlock - 1) / kBlock), far(bad.size());
  const bool plain = !batch && !bounded;
  parallel_blocks(rows, kBlock, [&](int64_t b, int64_t begin, int64_t end) {
    if (plain && dim == 3 && plain_sites<T, 3>(points, size, zero, begin, end, sites)) return;
    if (plain && dim == 4 && plain_sites<T, 4>(points, size, zero, begin, end, sites)) return;
    for (int64_t i = begin; i < end; ++i) {
      int32_t* site = sites + i * (dim + 1);
      site[0] = batch ? static_cast<int32_t>(batch[i]) : 0;
      bool finite = true, inside = true, fits = true;
      for (int64_t d = 0; d < dim; ++d) {
        const T p = points[i * dim + d];
        finite &= std::isfinite(p);
        if (bounded) inside &= p >= lo[d] && p < hi[d];
        const T v = std::floor((p - zero[d]) / size[d]);
        const bool small = v >= T(-2147483648.0) && v < T(2147483648.0);
        fits &= small;
        site[d + 1] = small ? static_cast<int32_t>(v) : 0;
      }
      if (!finite) {
        if (bad[b].count++ == 0) bad[b].first = i;
      } else if (!inside) {
        site[0] = -1;
      } else if (!fits && far[b].count++ == 0) {
        far[b].first = i;
      }
    }
  });
  info[0] = info[2] = 0;
  info[1] = info[3] = -1;
  for (size_t b = 0; b < bad.size(); ++b) {
    if (bad[b].count && info[0] == 0) info[1] = bad[b].first;
    if (far[b].count && info[2] == 0) info[3] = far[b].first;
    info[0] += bad[b].count;
    info[2] += far[b].count;
  }
}

// A point outside the bounds gets batch -1.
std::tuple<Tensor, Tensor> point_sites(const Tensor& points, const std::optional<Tensor>& batch,
                                       std::vector<double> voxel_size, std::vector<double> origin,
                                       std::vector<double> bounds) {
  STD_TORCH_CHECK(points.dim() == 2 && points.size(1) >= 1 && points.size(1) < kMaxColumns,
                  "point_sites: points must be [N, D] with D = 1..7");
  const int64_t rows = points.size(0), dim = points.size(1);
  STD_TORCH_CHECK(rows <= kMaxRows, "point_sites: more than 2^31 - 1 points");
  STD_TORCH_CHECK(static_cast<int64_t>(voxel_size.size()) == dim && static_cast<int64_t>(origin.size()) == dim &&
                      (bounds.empty() || static_cast<int64_t>(bounds.size()) == 2 * dim),
                  "point_sites: voxel_size and origin need one number an axis, bounds two");
  const Tensor points_c = torch::stable::contiguous(points);
  std::optional<Tensor> batch_c;
  if (batch) {
    STD_TORCH_CHECK(batch->dim() == 1 && batch->size(0) == rows && batch->scalar_type() == ScalarType::Long,
                    "point_sites: batch must be int64 [N]");
    batch_c = torch::stable::contiguous(*batch);
  }
  Tensor sites = empty({rows, dim + 1}, ScalarType::Int), info = empty({4}, ScalarType::Long);
  const int64_t* batch_at = batch_c ? batch_c->const_data_ptr<int64_t>() : nullptr;
  if (points.scalar_type() == ScalarType::Double)
    run<double>(points_c, batch_at, voxel_size, origin, bounds, sites.mutable_data_ptr<int32_t>(),
                info.mutable_data_ptr<int64_t>());
  else if (points.scalar_type() == ScalarType::Float)
    run<float>(points_c, batch_at, voxel_size, origin, bounds, sites.mutable_data_ptr<int32_t>(),
               info.mutable_data_ptr<int64_t>());
  else
    STD_TORCH_CHECK(false, "point_sites: points must be float32 or float64");
  return {sites, info};
}

STABLE_TORCH_LIBRARY_IMPL(perception, CPU, m) { m.impl("point_sites", TORCH_BOX(&point_sites)); }

}  // namespace
}  // namespace perception
