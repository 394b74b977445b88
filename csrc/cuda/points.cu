// The voxel of every point: floor((p - origin) / voxel_size), in the points' own precision; see
// cpu/points.cpp. What is wrong with points is counted with integer atomics, whose order does not matter.
// Limit: reads the points once and writes the sites once.
#include "cuda/cuda.cuh"

namespace perception {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxAxes = kMaxColumns - 1;

// "None" is -1, the largest number without a sign, so that the first row is a minimum.
__global__ void clear_info(unsigned long long* info) {
  info[0] = info[2] = 0;
  info[1] = info[3] = ~0ull;
}

template <class T>
struct Grid {
  T size[kMaxAxes], zero[kMaxAxes], lo[kMaxAxes], hi[kMaxAxes];
  int dim;
  bool bounded;
};

// Called by whole warps of consecutive rows.
__device__ void note(bool found, int64_t row, unsigned long long* count, unsigned long long* first) {
  const unsigned lanes = __ballot_sync(0xffffffffu, found);
  if (found && __popc(lanes & ((1u << (threadIdx.x % 32)) - 1)) == 0) {  // the first of them
    atomicAdd(count, static_cast<unsigned long long>(__popc(lanes)));
    atomicMin(first, static_cast<unsigned long long>(row));
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    place(const T* __restrict__ points, const int64_t* __restrict__ batch, int64_t rows, Grid<T> grid,
          int32_t* __restrict__ sites, unsigned long long* info) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  bool finite = true, inside = true, fits = true;
  if (i < rows) {
    int32_t* site = sites + i * (grid.dim + 1);
#pragma unroll
    for (int d = 0; d < kMaxAxes; ++d) {
      if (d >= grid.dim) break;
      const T p = points[i * grid.dim + d];
      finite &= isfinite(p) != 0;
      if (grid.bounded) inside &= p >= grid.lo[d] && p < grid.hi[d];
      const T v = floor((p - grid.zero[d]) / grid.size[d]);
      const bool small = v >= T(-2147483648.0) && v < T(2147483648.0);
      fits &= small;
      site[d + 1] = small ? static_cast<int32_t>(v) : 0;
    }
    site[0] = finite && !inside ? -1 : batch ? static_cast<int32_t>(batch[i]) : 0;
  }
  note(!finite, i, info, info + 1);
  note(finite && inside && !fits, i, info + 2, info + 3);
}

template <class T>
void run(const Tensor& points, const int64_t* batch, const std::vector<double>& voxel_size,
         const std::vector<double>& origin, const std::vector<double>& bounds, int32_t* sites, int64_t* info,
         cudaStream_t stream) {
  const int64_t rows = points.size(0), dim = points.size(1);
  Grid<T> grid{};
  grid.dim = static_cast<int>(dim);
  grid.bounded = !bounds.empty();
  for (int64_t d = 0; d < dim; ++d) {
    grid.size[d] = static_cast<T>(voxel_size[d]);
    grid.zero[d] = static_cast<T>(origin[d]);
    if (grid.bounded) {
      grid.lo[d] = static_cast<T>(bounds[d]);
      grid.hi[d] = static_cast<T>(bounds[dim + d]);
    }
  }
  auto* counts = reinterpret_cast<unsigned long long*>(info);
  clear_info<<<1, 1, 0, stream>>>(counts);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  if (rows == 0) return;
  place<T><<<static_cast<unsigned>(ceil_div(rows, kThreads)), kThreads, 0, stream>>>(
      points.const_data_ptr<T>(), batch, rows, grid, sites, counts);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
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
  const Device device(points);
  const Tensor points_c = as_contiguous(points);
  std::optional<Tensor> batch_c;
  if (batch) {
    STD_TORCH_CHECK(batch->dim() == 1 && batch->size(0) == rows && batch->scalar_type() == ScalarType::Long,
                    "point_sites: batch must be int64 [N]");
    check_same_device(points, *batch, "point_sites");
    batch_c = as_contiguous(*batch);
  }
  Tensor sites = empty_like_device(points, {rows, dim + 1}, ScalarType::Int);
  Tensor info = empty_like_device(points, {4}, ScalarType::Long);
  const int64_t* batch_at = batch_c ? batch_c->const_data_ptr<int64_t>() : nullptr;
  if (points.scalar_type() == ScalarType::Double)
    run<double>(points_c, batch_at, voxel_size, origin, bounds, sites.mutable_data_ptr<int32_t>(),
                info.mutable_data_ptr<int64_t>(), device.stream());
  else if (points.scalar_type() == ScalarType::Float)
    run<float>(points_c, batch_at, voxel_size, origin, bounds, sites.mutable_data_ptr<int32_t>(),
               info.mutable_data_ptr<int64_t>(), device.stream());
  else
    STD_TORCH_CHECK(false, "point_sites: points must be float32 or float64");
  return {sites, info};
}

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) { m.impl("point_sites", TORCH_BOX(&point_sites)); }

}  // namespace
}  // namespace perception
