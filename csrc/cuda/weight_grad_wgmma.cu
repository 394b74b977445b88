// The weight gradient on Hopper's tensor cores.
//
// The pairs of all taps stand in one list, tap after tap. Every block takes an equal run of it,
// whatever taps it holds: one warpgroup gathers 64 pairs a stage (input rows and gradient rows) into a
// ring in shared memory, the others multiply with the pairs as the contraction (wgmma, both operands
// with their channels contiguous). The sum over a tap's part of the run goes to scratch memory, slot
// block + tap: along the list either the block or the tap rises, so slots are never shared. A second
// kernel adds the parts of each tap in order. No atomics: the same bits every time.
//
// Limits: 2 * pairs * cin * cout operations; pairs * (cin + cout) gathered elements from the L2 cache
// for every tile of channels.
#include "cuda/conv.cuh"
#include "cuda/hopper.cuh"

namespace perception {
namespace {

constexpr int kPairs = 64;            // a stage
constexpr int kBlock = kPairs * 128;  // bytes of 64 pairs by 64 channels

template <class T>
struct Params {
  const T* x;
  const T* grad;
  float* parts;
  const int32_t* in_rows;
  const int32_t* out_rows;
  const int64_t* tap_ptr;
  int cin, cout, num_taps;
  int row_tiles;
};

// Pairs a block, a multiple of a stage.
__host__ __device__ inline int64_t run_length(int64_t pairs, int64_t blocks) {
  const int64_t each = (pairs + blocks - 1) / blocks;
  return (each + kPairs - 1) / kPairs * kPairs;
}

// The stages of a block's run.
struct Walk {
  const int64_t* tap_ptr;
  int64_t at, end, tap_end;
  int tap;

  __device__ Walk(const int64_t* ptr, int taps, int block, int blocks) : tap_ptr(ptr) {
    const int64_t pairs = __ldg(ptr + taps), length = run_length(pairs, blocks);
    at = block * length;
    end = at + length < pairs ? at + length : pairs;
    int low = 0, high = taps;  // the first tap that ends behind `at`
    while (low < high) {
      const int middle = (low + high) / 2;
      if (__ldg(ptr + middle + 1) > at) high = middle; else low = middle + 1;
    }
    tap = low;
    tap_end = at < end ? __ldg(ptr + tap + 1) : 0;
  }
  __device__ bool valid() const { return at < end; }
  __device__ int64_t stop() const { return tap_end < end ? tap_end : end; }
  // To the next stage; true if this one was the last of its tap in this run.
  __device__ bool next() {
    const int64_t last = stop();
    at = at + kPairs < last ? at + kPairs : last;
    if (at < last) return false;
    while (at < end && tap_end <= at) tap_end = __ldg(tap_ptr + ++tap + 1);
    return true;
  }
};

template <int kWidth, int kGroups, int kHeight>
struct Shape {
  static constexpr int kRowBlocks = kGroups * kHeight, kRows = kRowBlocks * 64;
  static constexpr int kColumnBlocks = (kWidth + 63) / 64;
  static constexpr int kStage = (kRowBlocks + kColumnBlocks) * kBlock;
  static constexpr int shared(int stages) { return stages * kStage + 1024 + 16 * stages; }
};

template <class T, int kWidth, int kGroups, int kHeight, int kStages, int kPerSm>
__global__ void __launch_bounds__(128 + 128 * kGroups, kPerSm) weight_grad_kernel(const __grid_constant__ Params<T> p) {
#if defined(PERCEPTION_HOPPER)
  using namespace hopper;
  using S = Shape<kWidth, kGroups, kHeight>;
  extern __shared__ uint8_t memory[];
  const uint32_t ring = (shared_address(memory) + 1023) & ~1023u;
  const uint32_t full = ring + kStages * S::kStage, empty = full + 8 * kStages;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      barrier_init(full + 8 * s, 128);
      barrier_init(empty + 8 * s, 4 * kGroups);
    }
    barrier_init_fence();
  }
  __syncthreads();
  int stage = 0;
  uint32_t phase = 0;
  const auto advance = [&] {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  };
  const int first_row = blockIdx.y % p.row_tiles * S::kRows, first_column = blockIdx.y / p.row_tiles * kWidth;
  Walk walk(p.tap_ptr, p.num_taps, blockIdx.x, gridDim.x);

  if (threadIdx.x < 128) {
    if constexpr (kGroups == 2) fewer_registers<72>();
    // A thread copies 16 bytes of every block of 64 channels of 4 consecutive pairs.
    const int column = threadIdx.x % 8, first = threadIdx.x / 8 * 4;
    uint32_t place[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) place[i] = (first + i) * 128 + ((column ^ ((first + i) & 7)) << 4);
    bool row_inside[S::kRowBlocks], column_inside[S::kColumnBlocks];
#pragma unroll
    for (int block = 0; block < S::kRowBlocks; ++block) row_inside[block] = first_row + block * 64 + column * 8 < p.cin;
#pragma unroll
    for (int block = 0; block < S::kColumnBlocks; ++block)
      column_inside[block] = first_column + block * 64 + column * 8 < p.cout;
    const T* const x = p.x + first_row + column * 8;
    const T* const grad = p.grad + first_column + column * 8;
    int32_t in[4], out[4];
    const auto take = [&] {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int64_t pair = walk.at + first + i;
        const bool there = walk.valid() && pair < walk.stop();
        in[i] = there ? __ldg(p.in_rows + pair) : -1;
        out[i] = there ? __ldg(p.out_rows + pair) : -1;
      }
    };
    take();
    while (walk.valid()) {
      const T *from_x[4], *from_grad[4];
      uint32_t absent[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        absent[i] = in[i] < 0;
        from_x[i] = x + int64_t{in[i]} * p.cin;  // not read where it is absent
        from_grad[i] = grad + int64_t{out[i]} * p.cout;
      }
      walk.next();
      take();  // its loads are under way while this stage is copied
      barrier_wait(empty + 8 * stage, phase ^ 1);
      const uint32_t a = ring + stage * S::kStage, b = a + S::kRowBlocks * kBlock;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int block = 0; block < S::kRowBlocks; ++block)
          if (row_inside[block]) copy16(a + place[i] + block * kBlock, from_x[i] + block * 64, absent[i]);
#pragma unroll
        for (int block = 0; block < S::kColumnBlocks; ++block)
          if (column_inside[block]) copy16(b + place[i] + block * kBlock, from_grad[i] + block * 64, absent[i]);
      }
      copies_arrive(full + 8 * stage);
      advance();
    }
  } else {
    if constexpr (kGroups == 2) more_registers<216>();
    const int group = threadIdx.x / 128 - 1, lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    float sum[kHeight][kWidth / 2];
#pragma unroll
    for (int h = 0; h < kHeight; ++h)
#pragma unroll
      for (int i = 0; i < kWidth / 2; ++i) sum[h][i] = 0.f;
    while (walk.valid()) {
      const int tap = walk.tap;
      const bool last = walk.next();
      barrier_wait(full + 8 * stage, phase);
      fence_async();
      const uint32_t a = ring + stage * S::kStage, b = a + S::kRowBlocks * kBlock;
      const uint64_t b_operand = operand(b, kBlock, 1024);
#pragma unroll
      for (int h = 0; h < kHeight; ++h) pin(sum[h]);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kPairs / 16; ++k)
#pragma unroll
        for (int h = 0; h < kHeight; ++h)
          Wgmma<T, kWidth, 1, 1>::run(sum[h], operand(a + (group * kHeight + h) * kBlock, kBlock, 1024) + 128 * k, b_operand + 128 * k);
      wgmma_commit();
      wgmma_wait<0>();
#pragma unroll
      for (int h = 0; h < kHeight; ++h) pin(sum[h]);
      __syncwarp();  // one lane speaks for all
      if (lane == 0) barrier_arrive(empty + 8 * stage);
      advance();
      if (!last) continue;
      float* part = p.parts + int64_t{static_cast<int>(blockIdx.x) + tap} * p.cin * p.cout;
#pragma unroll
      for (int h = 0; h < kHeight; ++h)
#pragma unroll
        for (int j = 0; j < kWidth / 8; ++j) {
          const int c = first_column + j * 8 + lane % 4 * 2;
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int r = first_row + (group * kHeight + h) * 64 + warp * 16 + half * 8 + lane / 4;
            if (r < p.cin && c < p.cout)
              *reinterpret_cast<float2*>(part + int64_t{r} * p.cout + c) =
                  make_float2(sum[h][4 * j + 2 * half], sum[h][4 * j + 2 * half + 1]);
            sum[h][4 * j + 2 * half] = sum[h][4 * j + 2 * half + 1] = 0.f;
          }
        }
    }
  }
#endif
}

__device__ inline void store4(float* to, float4 v) { *reinterpret_cast<float4*>(to) = v; }
__device__ inline void store4(__half* to, float4 v) {
  const __half2 low = __floats2half2_rn(v.x, v.y), high = __floats2half2_rn(v.z, v.w);
  *reinterpret_cast<uint2*>(to) = make_uint2(reinterpret_cast<const uint32_t&>(low), reinterpret_cast<const uint32_t&>(high));
}
__device__ inline void store4(__nv_bfloat16* to, float4 v) {
  const __nv_bfloat162 low = __floats2bfloat162_rn(v.x, v.y), high = __floats2bfloat162_rn(v.z, v.w);
  *reinterpret_cast<uint2*>(to) = make_uint2(reinterpret_cast<const uint32_t&>(low), reinterpret_cast<const uint32_t&>(high));
}

// dw of tap blockIdx.y: the parts of the blocks whose run met the tap, in order.
template <class T>
__global__ void __launch_bounds__(128) add_parts(const float* parts, const int64_t* tap_ptr, int taps, int64_t matrix, int blocks, T* dw) {
  const int tap = blockIdx.y;
  const int64_t element = (int64_t{blockIdx.x} * 128 + threadIdx.x) * 4;
  if (element >= matrix) return;
  const int64_t length = run_length(__ldg(tap_ptr + taps), blocks), begin = __ldg(tap_ptr + tap), end = __ldg(tap_ptr + tap + 1);
  float4 sum = {0.f, 0.f, 0.f, 0.f};
  if (begin < end) {
    const int first = static_cast<int>(begin / length), last = static_cast<int>((end - 1) / length);
    const float* part = parts + (int64_t{first} + tap) * matrix + element;
#pragma unroll 4
    for (int block = first; block <= last; ++block, part += matrix) {
      const float4 v = *reinterpret_cast<const float4*>(part);
      sum.x += v.x;
      sum.y += v.y;
      sum.z += v.z;
      sum.w += v.w;
    }
  }
  store4(dw + tap * matrix + element, sum);
}

template <class T, int kWidth, int kGroups, int kHeight, int kStages, int kPerSm>
void launch(const WeightGradArgs& args, int multiprocessors) {
  using S = Shape<kWidth, kGroups, kHeight>;
  const int64_t row_tiles = ceil_div(args.cin, S::kRows), column_tiles = ceil_div(args.cout, kWidth);
  const int64_t tiles = row_tiles * column_tiles, matrix = int64_t{args.cin} * args.cout;
  // A run of fewer pairs than this would cost more in parts than it gains in blocks.
  constexpr int64_t kLeastPairs = 1024;
  const int64_t most = multiprocessors * kPerSm / tiles, wanted = ceil_div(args.most_pairs, kLeastPairs);
  const int64_t blocks = most < 1 || wanted < 1 ? 1 : wanted < most ? wanted : most;
  const Tensor parts = empty_like_device(*args.like, {blocks + args.num_taps, matrix}, ScalarType::Float);
  Params<T> p;
  p.x = static_cast<const T*>(args.x);
  p.grad = static_cast<const T*>(args.grad);
  p.parts = static_cast<float*>(parts.data_ptr());
  p.in_rows = args.in_rows;
  p.out_rows = args.out_rows;
  p.tap_ptr = args.tap_ptr;
  p.cin = args.cin;
  p.cout = args.cout;
  p.num_taps = args.num_taps;
  p.row_tiles = static_cast<int>(row_tiles);
  constexpr int shared = S::shared(kStages);
  constexpr auto kernel = weight_grad_kernel<T, kWidth, kGroups, kHeight, kStages, kPerSm>;
  allow_shared<kernel>(shared);
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(tiles));
  kernel<<<grid, 128 + 128 * kGroups, shared, args.stream>>>(p);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  const dim3 elements(static_cast<unsigned>(ceil_div(matrix, 512)), static_cast<unsigned>(args.num_taps));
  const auto add = [&](auto* dw) {
    add_parts<<<elements, 128, 0, args.stream>>>(p.parts, args.tap_ptr, args.num_taps, matrix, static_cast<int>(blocks), dw);
  };
  args.wide ? add(static_cast<float*>(args.dw)) : add(static_cast<T*>(args.dw));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <class T, int kWidth>
void choose_height(const WeightGradArgs& args, int multiprocessors) {
  if (args.cin <= 64) return launch<T, kWidth, 1, 1, 4, 2>(args, multiprocessors);
  if (args.cin <= 128) return launch<T, kWidth, 2, 1, 6, 1>(args, multiprocessors);
  return launch<T, kWidth, 2, 2, 4, 1>(args, multiprocessors);
}

template <class T>
void choose(const WeightGradArgs& args, int multiprocessors) {
  if (args.cout <= 32) return choose_height<T, 32>(args, multiprocessors);
  if (args.cout <= 64) return choose_height<T, 64>(args, multiprocessors);
  if (args.cout % 96 == 0 && args.cout % 128 != 0) return choose_height<T, 96>(args, multiprocessors);
  return choose_height<T, 128>(args, multiprocessors);
}

}  // namespace

bool conv_weight_grad_wgmma(const WeightGradArgs& args) {
  if (args.dtype != ScalarType::BFloat16 && args.dtype != ScalarType::Half) return false;
  if (args.groups != 1 || args.cin % 8 != 0 || args.cout % 8 != 0 || args.num_taps > 65535) return false;
  for (const void* pointer : {args.x, args.grad, static_cast<const void*>(args.dw)})
    if (reinterpret_cast<uintptr_t>(pointer) % 16 != 0) return false;
  if (!hopper::available()) return false;
  const int multiprocessors = device_facts().multiprocessors;
  if (args.dtype == ScalarType::BFloat16)
    choose<__nv_bfloat16>(args, multiprocessors);
  else
    choose<__half>(args, multiprocessors);
  return true;
}

}  // namespace perception
