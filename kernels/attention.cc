#include "kernels/attention.h"

#include <cmath>
#include <limits>

#include "kernels/attention_block.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"
#include "kernels/softmax_row.h"

namespace cartesian {

namespace {

constexpr std::int64_t kBlock = kAttentionBlock;
constexpr std::int64_t kScores = kBlock * kBlock;

struct Sizes {
  std::int64_t sequences;
  std::int64_t length;
  std::int64_t heads;
  std::int64_t head_dim;
  const std::int32_t* first_keys;  ///< or nullptr: see AttentionSequences

  std::int64_t blocks() const { return (length + kBlock - 1) / kBlock; }
  std::int64_t rows(std::int64_t block) const { return std::min(kBlock, length - block * kBlock); }
  /// Floats of a block of rows; its transpose needs no more.
  std::int64_t block_floats() const { return kBlock * pad_to_lanes(head_dim); }
  BlockPair pair(std::int64_t query_block, std::int64_t key_block) const {
    return {query_block == key_block, rows(query_block), head_dim};
  }
  /// Of the query at `row` of `head`'s sequence.
  std::int64_t first_key(std::int64_t head, std::int64_t row) const {
    return first_keys == nullptr ? 0 : first_keys[head / heads * length + row];
  }
  /// The first block of keys that a block of queries attends to: its first query's, since first
  /// keys do not decrease.
  std::int64_t first_block(std::int64_t head, std::int64_t query_block) const {
    return first_key(head, query_block * kBlock) / kBlock;
  }
};

/// Rows of one block of one head of queries (0), keys (1) or values (2).
template <class T>
HeadRows<T> rows_of(T* qkv, const Sizes& s, std::int64_t head, int which, std::int64_t block) {
  const std::int64_t token = head / s.heads * s.length + block * kBlock;
  const std::int64_t stride = 3 * s.heads * s.head_dim;
  return {qkv + token * stride + (which * s.heads + head % s.heads) * s.head_dim, stride};
}

/// The same of the output, which has no queries, keys and values.
template <class T>
HeadRows<T> output_rows(T* out, const Sizes& s, std::int64_t head, std::int64_t block) {
  const std::int64_t token = head / s.heads * s.length + block * kBlock;
  const std::int64_t stride = s.heads * s.head_dim;
  return {out + token * stride + head % s.heads * s.head_dim, stride};
}

void mask_row(float* scores, std::int64_t row, std::int64_t columns, float value) {
  for (std::int64_t c = row + 1; c < columns; ++c) {
    scores[row * kBlock + c] = value;
  }
}

/// Sets the scores of keys that come before each query's first one.
void mask_documents(const Sizes& s, std::int64_t head, std::int64_t query_block,
                    std::int64_t key_block, float* scores) {
  if (s.first_keys == nullptr) {
    return;
  }
  for (std::int64_t r = 0; r < s.rows(query_block); ++r) {
    const std::int64_t before = s.first_key(head, query_block * kBlock + r) - key_block * kBlock;
    std::fill_n(scores + r * kBlock, std::clamp<std::int64_t>(before, 0, kBlock),
                -std::numeric_limits<float>::infinity());
  }
}

/// One thread's memory for forward, in floats.
struct ForwardScratch {
  float* keys;     ///< transposed blocks
  float* values;   ///< blocks of rows
  float* queries;  ///< also rows of keys before they are transposed
  float* out;
  float* scores;
  float* maxima;       ///< of each query's scores so far
  float* sums;         ///< of exp(score - maximum) so far
  float* corrections;  ///< exp(old maximum - maximum)

  static std::int64_t floats(const Sizes& s) {
    return (2 * s.blocks() + 2) * s.block_floats() + kScores + 3 * kBlock;
  }
  ForwardScratch(float* memory, const Sizes& s)
      : keys(memory),
        values(keys + s.blocks() * s.block_floats()),
        queries(values + s.blocks() * s.block_floats()),
        out(queries + s.block_floats()),
        scores(out + s.block_floats()),
        maxima(scores + kScores),
        sums(maxima + kBlock),
        corrections(sums + kBlock) {}
};

/// The online softmax: scores become exp(score - maximum), what was summed so far is rescaled.
void update_softmax(const BlockPair& pair, const ForwardScratch& m) {
  const std::int64_t padded = pair.padded_dim();
  for (std::int64_t r = 0; r < pair.queries; ++r) {
    const std::int64_t columns = pair.columns(r);
    if (pair.diagonal) {
      mask_row(m.scores, r, columns, -std::numeric_limits<float>::infinity());
    }
    const float old = m.maxima[r];
    m.maxima[r] = std::max(old, max_of_row(m.scores + r * kBlock, columns));
    m.corrections[r] = old - m.maxima[r];
  }
  exp_of_row(m.corrections, 0, kBlock, m.corrections);
  for (std::int64_t r = 0; r < pair.queries; ++r) {
    float* row = m.scores + r * kBlock;
    const float correction = m.corrections[r];
    exp_of_row(row, m.maxima[r], pair.columns(r), row);
    m.sums[r] = m.sums[r] * correction + sum_of_row(row, pair.columns(r));
    if (correction != 1.0F) {
      float* out = m.out + r * padded;
#pragma omp simd
      for (std::int64_t d = 0; d < padded; ++d) {
        out[d] *= correction;
      }
    }
  }
}

template <class T>
struct Forward {
  Sizes s;
  const T* qkv;
  T* out;
  float* log_sum_exp;
  float scale;

  void query_block(std::int64_t head, std::int64_t i, const ForwardScratch& m) const {
    pack_rows(rows_of(qkv, s, head, 0, i), s.rows(i), s.head_dim, scale, m.queries);
    std::fill_n(m.out, s.block_floats(), 0.0F);
    // Finite: a query may attend to none of a block's keys, whose scores are then all -infinity.
    std::fill_n(m.maxima, kBlock, std::numeric_limits<float>::lowest());
    std::fill_n(m.sums, kBlock, 0.0F);
    std::fill_n(m.corrections, kBlock, 0.0F);
    for (std::int64_t j = s.first_block(head, i); j <= i; ++j) {
      const BlockPair pair = s.pair(i, j);
      block_scores(pair, m.queries, m.keys + j * s.block_floats(), m.scores);
      mask_documents(s, head, i, j, m.scores);
      update_softmax(pair, m);
      add_over_keys(pair, m.scores, m.values + j * s.block_floats(), m.out);
    }
    const HeadRows<T> to = output_rows(out, s, head, i);
    const std::int64_t padded = pad_to_lanes(s.head_dim);
    for (std::int64_t r = 0; r < s.rows(i); ++r) {
      unpack_rows<T>(m.out + r * padded, 1, s.head_dim, 1.0F / m.sums[r],
                     {to.data + r * to.stride, to.stride});
      log_sum_exp[head * s.length + i * kBlock + r] = m.maxima[r] + std::log(m.sums[r]);
    }
  }

  /// Every `parts`th block of queries from `part` on, so that parts cost about the same.
  void run(std::int64_t head, std::int64_t part, std::int64_t parts,
           const ForwardScratch& m) const {
    std::int64_t packed = 0;
    for (std::int64_t i = part; i < s.blocks(); i += parts) {
      for (packed = std::max(packed, s.first_block(head, i)); packed <= i; ++packed) {
        const std::int64_t at = packed * s.block_floats();
        pack_rows(rows_of(qkv, s, head, 1, packed), s.rows(packed), s.head_dim, 1, m.queries);
        transpose_block(m.queries, s.head_dim, m.keys + at);
        pack_rows(rows_of(qkv, s, head, 2, packed), s.rows(packed), s.head_dim, 1, m.values + at);
      }
      query_block(head, i, m);
    }
  }
};

/// One thread's memory for backward, in floats.
struct BackwardScratch {
  float* queries;  ///< whole head, scaled
  float* douts;    ///< whole head
  float* dqueries;
  float* deltas;  ///< <dout, out> of each query
  float* keys;    ///< one block from here on; also values before they are transposed
  float* keys_transposed;
  float* values_transposed;
  float* dkeys;
  float* dvalues;
  float* probabilities;
  float* dscores;

  static std::int64_t floats(const Sizes& s) {
    return (3 * s.blocks() + 5) * s.block_floats() + s.blocks() * kBlock + 2 * kScores;
  }
  BackwardScratch(float* memory, const Sizes& s)
      : queries(memory),
        douts(queries + s.blocks() * s.block_floats()),
        dqueries(douts + s.blocks() * s.block_floats()),
        deltas(dqueries + s.blocks() * s.block_floats()),
        keys(deltas + s.blocks() * kBlock),
        keys_transposed(keys + s.block_floats()),
        values_transposed(keys_transposed + s.block_floats()),
        dkeys(values_transposed + s.block_floats()),
        dvalues(dkeys + s.block_floats()),
        probabilities(dvalues + s.block_floats()),
        dscores(probabilities + kScores) {}
};

template <class T>
struct Backward {
  Sizes s;
  const T* qkv;
  const T* out;
  const float* log_sum_exp;
  const T* dout;
  T* dqkv;
  float scale;

  void load_queries(std::int64_t head, const BackwardScratch& m) const {
    for (std::int64_t i = 0; i < s.blocks(); ++i) {
      const std::int64_t at = i * s.block_floats();
      pack_rows(rows_of(qkv, s, head, 0, i), s.rows(i), s.head_dim, scale, m.queries + at);
      const HeadRows<const T> gradients = output_rows(dout, s, head, i);
      pack_rows(gradients, s.rows(i), s.head_dim, 1, m.douts + at);
      const HeadRows<const T> outputs = output_rows(out, s, head, i);
      for (std::int64_t r = 0; r < s.rows(i); ++r) {
        const T* gradient = gradients.data + r * gradients.stride;
        const T* output = outputs.data + r * outputs.stride;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t d = 0; d < s.head_dim; ++d) {
          sum += to_float(gradient[d]) * to_float(output[d]);
        }
        m.deltas[i * kBlock + r] = sum;
      }
    }
    std::fill_n(m.dqueries, s.blocks() * s.block_floats(), 0.0F);
  }

  /// From scores and the gradients of the probabilities: probabilities P and the scores' gradients
  /// P (dP - delta).
  void scores_to_gradients(const BlockPair& pair, const float* shifts, const float* deltas,
                           const BackwardScratch& m) const {
    for (std::int64_t r = 0; r < pair.queries; ++r) {
      const std::int64_t columns = pair.columns(r);
      float* p = m.probabilities + r * kBlock;
      float* d = m.dscores + r * kBlock;
      if (pair.diagonal) {
        mask_row(m.probabilities, r, columns, -std::numeric_limits<float>::infinity());
      }
      const float shift = shifts[r];
      const float delta = deltas[r];
#pragma omp simd
      for (std::int64_t c = 0; c < columns; ++c) {
        p[c] = fast_exp(p[c] - shift);
        d[c] = p[c] * (d[c] - delta);
      }
    }
  }

  void key_block(std::int64_t head, std::int64_t j, const BackwardScratch& m) const {
    pack_rows(rows_of(qkv, s, head, 2, j), s.rows(j), s.head_dim, 1, m.keys);
    transpose_block(m.keys, s.head_dim, m.values_transposed);
    pack_rows(rows_of(qkv, s, head, 1, j), s.rows(j), s.head_dim, 1, m.keys);
    transpose_block(m.keys, s.head_dim, m.keys_transposed);
    std::fill_n(m.dkeys, s.block_floats(), 0.0F);
    std::fill_n(m.dvalues, s.block_floats(), 0.0F);
    for (std::int64_t i = j; i < s.blocks() && s.first_block(head, i) <= j; ++i) {
      const BlockPair pair = s.pair(i, j);
      const std::int64_t at = i * s.block_floats();
      block_scores(pair, m.queries + at, m.keys_transposed, m.probabilities);
      mask_documents(s, head, i, j, m.probabilities);
      block_scores(pair, m.douts + at, m.values_transposed, m.dscores);
      scores_to_gradients(pair, log_sum_exp + head * s.length + i * kBlock, m.deltas + i * kBlock,
                          m);
      add_over_queries(pair, m.probabilities, m.douts + at, m.dvalues);
      add_over_queries(pair, m.dscores, m.queries + at, m.dkeys);
      add_over_keys(pair, m.dscores, m.keys, m.dqueries + at);
    }
    unpack_rows(m.dkeys, s.rows(j), s.head_dim, 1, rows_of(dqkv, s, head, 1, j));
    unpack_rows(m.dvalues, s.rows(j), s.head_dim, 1, rows_of(dqkv, s, head, 2, j));
  }

  void run(std::int64_t head, const BackwardScratch& m) const {
    load_queries(head, m);
    for (std::int64_t j = 0; j < s.blocks(); ++j) {
      key_block(head, j, m);
    }
    for (std::int64_t i = 0; i < s.blocks(); ++i) {
      unpack_rows(m.dqueries + i * s.block_floats(), s.rows(i), s.head_dim, scale,
                  rows_of(dqkv, s, head, 0, i));
    }
  }
};

const std::int32_t* check_first_keys(const AttentionSequences& sequences, std::int64_t tokens) {
  if (!sequences.first_keys.defined()) {
    return nullptr;
  }
  check(sequences.first_keys.numel() == tokens, "attention needs a first key for every token");
  const auto* keys = sequences.first_keys.data<std::int32_t>();
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int64_t row = t % sequences.length;
    check(keys[t] >= (row == 0 ? 0 : keys[t - 1]) && keys[t] <= row,
          "first keys do not decrease within a sequence and are not after their queries");
  }
  return keys;
}

Sizes check_sizes(const Tensor& qkv, const AttentionSequences& sequences, const Tensor& out,
                  const Tensor& log_sum_exp) {
  const std::int64_t length = sequences.length;
  check(qkv.shape().rank() == 4 && qkv.dim(1) == 3,
        "attention needs qkv [tokens, 3, heads, head_dim]");
  check(length > 0 && qkv.rows() % length == 0, "attention needs whole sequences");
  check(out.dtype() == qkv.dtype() && out.rows() == qkv.rows() && 3 * out.cols() == qkv.cols(),
        "attention needs out [tokens, heads * head_dim] of qkv's dtype");
  const Sizes s{.sequences = qkv.rows() / length,
                .length = length,
                .heads = qkv.dim(2),
                .head_dim = qkv.dim(3),
                .first_keys = check_first_keys(sequences, qkv.rows())};
  check(log_sum_exp.numel() == s.sequences * s.heads * s.length,
        "attention needs log_sum_exp [sequences, heads, length]");
  return s;
}

float score_scale(const Sizes& s) { return 1.0F / std::sqrt(static_cast<float>(s.head_dim)); }

float* thread_scratch(const Context& context, std::int64_t floats) {
  return context.scratch.tensor(DType::f32, {context.threads, floats}).data<float>();
}

}  // namespace

void attention_forward(const Context& context, const Tensor& qkv,
                       const AttentionSequences& sequences, const Tensor& out,
                       const Tensor& log_sum_exp) {
  check_cpu(context, "attention");
  const Sizes s = check_sizes(qkv, sequences, out, log_sum_exp);
  const std::int64_t heads = s.sequences * s.heads;
  if (heads == 0) {
    return;
  }
  // Heads are split only where there are too few for the threads: each part packs the keys anew.
  const std::int64_t parts = std::clamp<std::int64_t>(3 * context.threads / heads, 1, s.blocks());
  const ArenaScope scope(context.scratch);
  const std::int64_t floats = ForwardScratch::floats(s);
  float* memory = thread_scratch(context, floats);
  dispatch_float(qkv.dtype(), [&]<class T>(T) {
    const Forward<T> op{.s = s,
                        .qkv = qkv.data<T>(),
                        .out = out.data<T>(),
                        .log_sum_exp = log_sum_exp.data<float>(),
                        .scale = score_scale(s)};
    parallel_tasks(context, heads * parts, [&](std::int64_t task, int thread) {
      op.run(task / parts, task % parts, parts, ForwardScratch(memory + thread * floats, s));
    });
  });
}

void attention_backward(const Context& context, const Tensor& qkv,
                        const AttentionSequences& sequences, const Tensor& out,
                        const Tensor& log_sum_exp, const Tensor& dout, const Tensor& dqkv) {
  check_cpu(context, "attention");
  const Sizes s = check_sizes(qkv, sequences, out, log_sum_exp);
  check(dout.dtype() == qkv.dtype() && dout.shape() == out.shape(),
        "attention_backward needs dout like out");
  check(dqkv.dtype() == qkv.dtype() && dqkv.shape() == qkv.shape(),
        "attention_backward needs dqkv like qkv");
  const ArenaScope scope(context.scratch);
  const std::int64_t floats = BackwardScratch::floats(s);
  float* memory = thread_scratch(context, floats);
  dispatch_float(qkv.dtype(), [&]<class T>(T) {
    const Backward<T> op{.s = s,
                         .qkv = qkv.data<T>(),
                         .out = out.data<T>(),
                         .log_sum_exp = log_sum_exp.data<float>(),
                         .dout = dout.data<T>(),
                         .dqkv = dqkv.data<T>(),
                         .scale = score_scale(s)};
    parallel_tasks(context, s.sequences * s.heads, [&](std::int64_t head, int thread) {
      op.run(head, BackwardScratch(memory + thread * floats, s));
    });
  });
}

}  // namespace cartesian
