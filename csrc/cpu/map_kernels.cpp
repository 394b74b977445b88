// The walk of runs of taps; CMake compiles this file for processors with and without instructions
// that count bits.
//
// Moving all sites by one displacement keeps their order, so the wanted columns rise with the outputs:
// a cursor a run, no search. Several runs go side by side, for a cursor's steps wait for one another.
// A column answers for up to 64 outputs at once: what both masks have.
#include "cpu/map_kernels.h"

#include "cpu/vectors.h"

namespace perception {
namespace {

inline int32_t rank(uint64_t mask, int bit) { return __builtin_popcountll(mask & ((uint64_t{1} << bit) - 1)); }

// The first column not below `key`.
int64_t lower_bound(const uint64_t* keys, int64_t count, uint64_t key) {
  int64_t at = 0;
  while (count > 0) {
    const int64_t half = count / 2;
    const bool below = keys[at + half] < key;
    at = below ? at + half + 1 : at;
    count = below ? count - half - 1 : half;
  }
  return at;
}

struct Match {
  int32_t output, input;  // columns; the input's is the first of those that the run may want
};

constexpr int kTogether = 8;

// The columns of outputs that meet any of inputs, run by run.
void match(const Columns& inputs, int64_t input_columns, const Columns& outputs, int64_t begin, int64_t end,
           const TapRun* runs, int num_runs, Match (*matches)[kMapBlock], int64_t* found) {
  const uint64_t* const keys = inputs.keys;
  int64_t at[kTogether];
  uint64_t shift[kTogether], span[kTogether];
  for (int r = 0; r < num_runs; ++r) {
    shift[r] = static_cast<uint64_t>(runs[r].shift);
    span[r] = static_cast<uint64_t>(runs[r].span);
    at[r] = lower_bound(keys, input_columns, outputs.keys[begin] + shift[r]);
    found[r] = 0;
  }
  for (int64_t o = begin; o < end; ++o) {
    const uint64_t key = outputs.keys[o];
    for (int r = 0; r < num_runs; ++r) {
      const uint64_t wanted = key + shift[r];
      int64_t here = at[r];
      // Mostly no step or one or two: as numbers, for a branch would be guessed wrong every other time.
      here += keys[here] < wanted;
      here += keys[here] < wanted;
      while (keys[here] < wanted) ++here;
      at[r] = here;
      matches[r][found[r]] = {static_cast<int32_t>(o), static_cast<int32_t>(here)};
      found[r] += keys[here] - wanted <= span[r];
    }
  }
}

// Pairs of the matches of a run, of kTaps taps (0: as many as it has). Whether a tap finds its site is
// a number that is added, not a branch, for it is as good as random.
template <int kTaps>
void emit(const Columns& inputs, const Columns& outputs, const TapRun& run, const Match* matches, int64_t found,
          int64_t room, int32_t* in, int32_t* out, int64_t* counts) {
  const int taps = kTaps ? kTaps : run.taps;
  int64_t fixed[kTaps ? kTaps : 1] = {};
  int64_t* const count = kTaps ? fixed : counts;
  for (int t = 0; t < taps; ++t) count[t] = 0;
  const uint64_t span = static_cast<uint64_t>(run.span);
  for (int64_t m = 0; m < found; ++m) {
    const Match now = matches[m];
    const uint64_t wanted = outputs.keys[now.output] + static_cast<uint64_t>(run.shift);
    uint64_t masks[TapRun::kMaxSpan + 1] = {};
    int32_t starts[TapRun::kMaxSpan + 1] = {};
    for (int64_t i = now.input; inputs.keys[i] - wanted <= span; ++i) {
      masks[inputs.keys[i] - wanted] = inputs.masks[i];
      starts[inputs.keys[i] - wanted] = inputs.starts[i];
    }
    int32_t row = outputs.starts[now.output];
    for (uint64_t mask = outputs.masks[now.output]; mask; mask &= mask - 1, ++row) {
      const int first = __builtin_ctzll(mask);
#pragma GCC unroll 4
      for (int t = 0; t < taps; ++t) {
        const int place = first + run.bit[t], block = run.block[t] + (place >> 6);
        const uint64_t there = masks[block];
        const int64_t n = t * room + count[t];
        out[n] = row;
        in[n] = starts[block] + rank(there, place & 63);
        count[t] += there >> (place & 63) & 1;
      }
    }
  }
  for (int t = 0; t < taps; ++t) counts[t] = count[t];
}

void walk(const Columns& inputs, int64_t input_columns, const Columns& outputs, int64_t begin, int64_t end,
          const TapRun* runs, int num_runs, int64_t room, int32_t* in, int32_t* out, int64_t* counts) {
  Match matches[kTogether][kMapBlock];
  int64_t found[kTogether];
  for (int first = 0; first < num_runs; first += kTogether) {
    const int some = num_runs - first < kTogether ? num_runs - first : kTogether;
    match(inputs, input_columns, outputs, begin, end, runs + first, some, matches, found);
    for (int r = 0; r < some; ++r) {
      const TapRun& run = runs[first + r];
      const auto make = run.taps == 3 ? emit<3> : run.taps == 2 ? emit<2> : run.taps == 1 ? emit<1> : emit<0>;
      make(inputs, outputs, run, matches[r], found[r], room, in, out, counts);
      in += run.taps * room;
      out += run.taps * room;
      counts += run.taps;
    }
  }
}

}  // namespace

const MapKernels& PASTE(map_kernels_, KERNEL_ISA)() {
  static const MapKernels set{&walk};
  return set;
}

}  // namespace perception
