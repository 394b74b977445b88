// Unique sites in lexicographic order. Launches for N <= kMergeMost rows: ranges of the columns, sorted
// runs of packed keys, one to three merges, heads; one synchronisation for the number of groups;
// groups. Nothing but that number comes to the host: the packing stays on the device. More rows cost
// one synchronisation more (CUB wants the number of bits on the host), and so do columns whose ranges
// do not fit a word together with the row number: those are sorted word by word, the last one first.
// Limit: latency of the launches; the traffic is about 100 bytes a row.
#include "cuda/sort.cuh"

#include <cub/device/device_radix_sort.cuh>

namespace perception::sorting {
namespace {

__global__ void __launch_bounds__(kWide)
    survey_kernel(const int32_t* __restrict__ sites, int64_t n, int columns, Ranges ranges, Counters* counters) {
  __shared__ int32_t edge_of_warp[2 * kMaxColumns][kWide / 32];
  int32_t lo[kMaxColumns], hi[kMaxColumns];
#pragma unroll
  for (int c = 0; c < kMaxColumns; ++c) {
    lo[c] = INT32_MAX;
    hi[c] = INT32_MIN;
  }
  for (int64_t i = int64_t{blockIdx.x} * kWide + threadIdx.x; i < n; i += int64_t{kSurveyBlocks} * kWide) {
    const int32_t* row = sites + i * columns;
#pragma unroll
    for (int c = 0; c < kMaxColumns; ++c) {
      if (c < columns) {
        const int32_t v = row[c];
        lo[c] = min(lo[c], v);
        hi[c] = max(hi[c], v);
      }
    }
  }
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int c = 0; c < kMaxColumns; ++c) {
    const int32_t least = __reduce_min_sync(0xffffffffu, lo[c]), most = __reduce_max_sync(0xffffffffu, hi[c]);
    if (lane == 0) {
      edge_of_warp[c][warp] = least;
      edge_of_warp[kMaxColumns + c][warp] = most;
    }
  }
  __syncthreads();
  const int32_t value = edge_of_warp[warp][lane % (kWide / 32)];  // a warp an edge
  const int32_t edge = warp < kMaxColumns ? __reduce_min_sync(0xffffffffu, value) : __reduce_max_sync(0xffffffffu, value);
  if (lane == 0) ranges.edge[warp * kSurveyBlocks + blockIdx.x] = edge;
  if (blockIdx.x == 0 && threadIdx.x == 0) *counters = Counters{};
}

// Tells the host the packing.
__global__ void __launch_bounds__(kWide) report_code(Ranges ranges, int columns, SiteCode* told) {
  __shared__ int32_t edge[2 * kMaxColumns];
  reduce_ranges(ranges, edge);
  if (threadIdx.x == 0) *told = make_code(edge, edge + kMaxColumns, columns);
}

// Every word finds its place among kFan sorted runs: what stands before it in its own run, what is not
// larger in the runs before, what is smaller in the runs behind. The searches of a thread run side by
// side, those of a warp through the same few lines. Nothing asks where the last run ends: it is filled
// up with words larger than any, and so is what comes out, up to `filled` words.
constexpr int kMergeThreads = 256;

// A load that stays where it is written: the compiler moves others down to where the value is needed, so
// that one search would wait for the other.
__device__ inline uint64_t load_now(const uint64_t* from) {
#ifdef __CUDA_ARCH__
  uint64_t value;
  asm volatile("ld.global.nc.u64 %0, [%1];" : "=l"(value) : "l"(from));
  return value;
#else
  return *from;
#endif
}

static_assert(kRun % kMergeThreads == 0);  // the words of a block are of one run

__global__ void __launch_bounds__(kMergeThreads, 4)
    merge_kernel(const uint64_t* __restrict__ in, uint64_t* __restrict__ out, int n, int run, int filled) {
  const int i = blockIdx.x * kMergeThreads + threadIdx.x;
  if (i >= n) {
    if (i < filled) out[i] = ~uint64_t{0};
    return;
  }
  const int first_run = i / run / kFan * kFan, own = i / run - first_run, begin = first_run * run;
  const int runs = min(kFan, (n - begin + run - 1) / run);
  const uint64_t word = in[i];
  int at[kFan];  // where the search in a run stands
#pragma unroll
  for (int f = 0; f < kFan; ++f) at[f] = begin + (f < runs ? f * run : 0);
  for (int step = run / 2; step > 0; step >>= 1) {
    uint64_t probe[kFan];
#pragma unroll
    for (int f = 0; f < kFan; ++f) probe[f] = load_now(in + at[f] + step - 1);
#pragma unroll
    for (int f = 0; f < kFan; ++f) at[f] += probe[f] < word + (f < own) ? step : 0;
  }
  uint64_t probe[kFan];
#pragma unroll
  for (int f = 0; f < kFan; ++f) probe[f] = load_now(in + at[f]);
  int to = begin + i - (begin + own * run);
#pragma unroll
  for (int f = 0; f < kFan; ++f) {
    const int smaller = at[f] + (probe[f] < word + (f < own)) - (begin + f * run);
    to += f < runs && f != own ? smaller : 0;
  }
  out[to] = word;
}

// The length of the runs of the last merge.
int64_t last_run(int64_t n) {
  int64_t run = kRun;
  while (run * kFan < n) run *= kFan;
  return run;
}

}  // namespace

int64_t words_for(int64_t n) { return n <= kMergeMost ? ceil_div(n, last_run(n)) * last_run(n) : n; }

uint64_t* merge_runs(uint64_t* words, uint64_t* other, int64_t n, cudaStream_t stream) {
  for (int64_t run = kRun; run < n; run *= kFan) {
    const int64_t filled = run * kFan < n ? ceil_div(n, run * kFan) * run * kFan : n;
    merge_kernel<<<static_cast<unsigned>(ceil_div(filled, kMergeThreads)), kMergeThreads, 0, stream>>>(
        words, other, static_cast<int>(n), static_cast<int>(run), static_cast<int>(filled));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    std::swap(words, other);
  }
  return words;
}

uint64_t* radix_sort(uint64_t* words, uint64_t* other, int64_t n, int begin_bit, int end_bit, const Tensor& like,
                     cudaStream_t stream) {
  cub::DoubleBuffer<uint64_t> buffer(words, other);
  const int count = static_cast<int>(n);
  end_bit = std::max(end_bit, begin_bit + 1);
  size_t bytes = 0;
  STD_CUDA_CHECK(cub::DeviceRadixSort::SortKeys(nullptr, bytes, buffer, count, begin_bit, end_bit, stream));
  Tensor temporary = empty_like_device(like, {static_cast<int64_t>(bytes)}, ScalarType::Byte);
  STD_CUDA_CHECK(cub::DeviceRadixSort::SortKeys(temporary.mutable_data_ptr(), bytes, buffer, count, begin_bit,
                                                end_bit, stream));
  return buffer.Current();
}

void survey(const int32_t* sites, int64_t n, int columns, const Ranges& ranges, Counters* counters,
            cudaStream_t stream) {
  survey_kernel<<<kSurveyBlocks, kWide, 0, stream>>>(sites, n, columns, ranges, counters);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

namespace {

// A word of whole columns above the number of the entry.
struct SiteWords {
  const int32_t* sites;
  const SiteCode* code;
  int row_bits;

  __device__ bool fits() const { return code->bits + row_bits <= kWordBits; }
  __device__ int begin_bit() const { return row_bits; }
  __device__ int end_bit() const { return row_bits + code->bits; }
  __device__ uint64_t word(int64_t row) const {
    const int32_t* site = sites + row * code->columns;
    uint64_t key = 0;
#pragma unroll
    for (int c = 0; c < kMaxColumns; ++c)
      if (c < code->columns)
        key |= static_cast<uint64_t>(static_cast<uint32_t>(site[c]) - static_cast<uint32_t>(code->lo[c])) << code->shift[c];
    return key << row_bits | static_cast<uint64_t>(row);
  }
};

// The packing made on the device, by every block for itself.
struct SurveyedSites {
  const int32_t* sites;
  Ranges ranges;
  int columns, row_bits;
  SiteCode* told;

  __device__ SiteWords ready() const {
    __shared__ int32_t edge[2 * kMaxColumns];
    __shared__ SiteCode code;
    reduce_ranges(ranges, edge);
    if (threadIdx.x == 0) {
      code = make_code(edge, edge + kMaxColumns, columns);
      if (blockIdx.x == 0) *told = code;
    }
    __syncthreads();
    return {sites, &code, row_bits};
  }
};

// Columns first .. last of the rows in the order so far, from a packing known to the host.
struct Word {
  const int32_t* sites;
  const int32_t* order;  // null: as they stand
  SiteCode code;         // `shift` within this word; `width` 0 outside it
  int first, last, row_bits, bits;

  __host__ __device__ int begin_bit() const { return row_bits; }
  __host__ __device__ int end_bit() const { return row_bits + bits; }
  __device__ bool fits() const { return true; }
  __device__ const Word& ready() const { return *this; }
  __device__ uint64_t word(int64_t i) const {
    const int32_t* site = sites + (order ? int64_t{order[i]} : i) * code.columns;
    uint64_t key = 0;
#pragma unroll
    for (int c = 0; c < kMaxColumns; ++c)
      if (c >= first && c < last)
        key |= static_cast<uint64_t>(static_cast<uint32_t>(site[c]) - static_cast<uint32_t>(code.lo[c])) << code.shift[c];
    return key << row_bits | static_cast<uint64_t>(i);
  }
};

__device__ inline void copy_site(const int32_t* from, int32_t (&to)[kMaxColumns], int columns) {
#pragma unroll
  for (int c = 0; c < kMaxColumns; ++c)
    if (c < columns) to[c] = from[c];
}

// Sorted words that hold whole sites.
struct PackedRows {
  static constexpr bool kHasRows = true;
  const uint64_t* words;
  const int32_t* sites;
  int columns_, row_bits;

  __device__ int columns() const { return columns_; }
  __device__ bool head(int64_t i) const { return i == 0 || (words[i] ^ words[i - 1]) >> row_bits != 0; }
  __device__ int32_t row(int64_t i) const { return static_cast<int32_t>(words[i] & ((uint64_t{1} << row_bits) - 1)); }
  __device__ void read_site(int64_t i, int32_t (&out)[kMaxColumns]) const {
    copy_site(sites + int64_t{row(i)} * columns_, out, columns_);
  }
};

struct OrderedRows {
  static constexpr bool kHasRows = true;
  const int32_t* order;
  const int32_t* sites;
  int columns_;

  __device__ int columns() const { return columns_; }
  __device__ bool head(int64_t i) const {
    if (i == 0) return true;
    const int32_t* a = sites + int64_t{order[i - 1]} * columns_;
    const int32_t* b = sites + int64_t{order[i]} * columns_;
    bool differ = false;
#pragma unroll
    for (int c = 0; c < kMaxColumns; ++c)
      if (c < columns_) differ |= a[c] != b[c];
    return differ;
  }
  __device__ int32_t row(int64_t i) const { return order[i]; }
  __device__ void read_site(int64_t i, int32_t (&out)[kMaxColumns]) const {
    copy_site(sites + int64_t{order[i]} * columns_, out, columns_);
  }
};

__global__ void permute(const uint64_t* __restrict__ words, int row_bits, const int32_t* order, int32_t* out, int64_t n) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const int64_t entry = static_cast<int64_t>(words[i] & ((uint64_t{1} << row_bits) - 1));
  out[i] = order ? order[entry] : static_cast<int32_t>(entry);
}

// Rows in lexicographic order by words of whole columns, the least significant word first.
Tensor sorted_by_words(const Tensor& like, const int32_t* sites, int64_t n, const SiteCode& code, int row_bits,
                       uint64_t* words, uint64_t* other, cudaStream_t stream) {
  Tensor order = empty_like_device(like, {n}, ScalarType::Int), next = empty_like_device(like, {n}, ScalarType::Int);
  const int32_t* so_far = nullptr;
  for (int last = code.columns; last > 0;) {
    Word word{sites, so_far, code, last - 1, last, row_bits, code.width[last - 1]};
    // One column always fits: it has 32 bits and a row number 31.
    while (word.first > 0 && word.bits + code.width[word.first - 1] + row_bits <= kWordBits)
      word.bits += code.width[--word.first];
    for (int c = last - 1, shift = 0; c >= word.first; shift += code.width[c--]) word.code.shift[c] = shift;
    const uint64_t* sorted = sort_words(word, words, other, n, like, stream);
    permute<<<grid_for(n, 256, INT32_MAX), 256, 0, stream>>>(sorted, row_bits, so_far, next.mutable_data_ptr<int32_t>(), n);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    std::swap(order, next);
    so_far = order.const_data_ptr<int32_t>();
    last = word.first;
  }
  return order;
}

}  // namespace

Unique unique(const Tensor& like, const int32_t* sites, int64_t n, int columns, cudaStream_t stream) {
  const Tensor inverse = empty_like_device(like, {n}, ScalarType::Long), order = empty_like_device(like, {n}, ScalarType::Int);
  const auto with_groups = [&](int64_t groups) {
    return Unique{empty_like_device(like, {groups, columns}, ScalarType::Int), inverse, order,
                  empty_like_device(like, {groups + 1}, ScalarType::Long)};
  };
  if (n == 0) {
    Unique none = with_groups(0);
    STD_CUDA_CHECK(cudaMemsetAsync(none.ptr.mutable_data_ptr<int64_t>(), 0, sizeof(int64_t), stream));
    return none;
  }
  const int64_t tiles = ceil_div(n, kHeadTile);
  Scratch scratch(like, Scratch::padded(kRangesBytes) + Scratch::padded(sizeof(Counters)) +
                            Scratch::padded(tiles * sizeof(int32_t)) + 2 * Scratch::padded(words_for(n) * sizeof(uint64_t)));
  const Ranges ranges{scratch.take<int32_t>(kRangesBytes / sizeof(int32_t))};
  Counters* counters = scratch.take<Counters>(1);
  int32_t* before = scratch.take<int32_t>(tiles);
  uint64_t* words = scratch.take<uint64_t>(words_for(n));
  uint64_t* other = scratch.take<uint64_t>(words_for(n));
  const int row_bits = bits_for(n - 1);
  Answer* told = answer();

  survey(sites, n, columns, ranges, counters, stream);
  const auto finish = [&](const auto& entries) {
    Unique out = with_groups(told->found);
    const Groups groups{out.sites.mutable_data_ptr<int32_t>(), out.inverse.mutable_data_ptr<int64_t>(),
                        out.order.mutable_data_ptr<int32_t>(), out.ptr.mutable_data_ptr<int64_t>()};
    start_emitting(entries, n, before, groups, stream);
    return out;
  };
  const auto synchronize = [&] { STD_CUDA_CHECK(cudaStreamSynchronize(stream)); };
  if (n <= kMergeMost) {
    const SurveyedSites source{sites, ranges, columns, row_bits, &told->code};
    const PackedRows rows{sort_by_merging(source, words, other, n, stream), sites, columns, row_bits};
    start_counting(rows, n, before, counters, stream);
    synchronize();
    if (told->code.bits + row_bits <= kWordBits) return finish(rows);
    // What was sorted and counted is not defined, and within bounds.
  } else {
    report_code<<<1, kWide, 0, stream>>>(ranges, columns, &told->code);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    synchronize();
    if (told->code.bits + row_bits <= kWordBits) {
      const Word source{sites, nullptr, told->code, 0, columns, row_bits, told->code.bits};
      const PackedRows rows{sort_words(source, words, other, n, like, stream), sites, columns, row_bits};
      start_counting(rows, n, before, counters, stream);
      synchronize();
      return finish(rows);
    }
  }
  const SiteCode code = told->code;
  const Tensor by_words = sorted_by_words(like, sites, n, code, row_bits, words, other, stream);
  const OrderedRows rows{by_words.const_data_ptr<int32_t>(), sites, columns};
  start_counting(rows, n, before, counters, stream);
  synchronize();
  return finish(rows);
}

namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> unique_sites(const Tensor& sites) {
  check_sites(sites, "unique_sites", "sites");
  const Device device(sites);
  const Tensor contiguous = as_contiguous(sites);
  Unique u = unique(contiguous, contiguous.const_data_ptr<int32_t>(), sites.size(0), static_cast<int>(sites.size(1)),
                    device.stream());
  return {u.sites, u.inverse, u.order, u.ptr};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(perception, CUDA, m) { m.impl("unique_sites", TORCH_BOX(&unique_sites)); }

}  // namespace perception::sorting
