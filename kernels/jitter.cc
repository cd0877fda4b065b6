#include "kernels/jitter.h"

#include <algorithm>

#include "base/random.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace cartesian {

namespace {

constexpr std::int64_t kWords = 4;  // of one draw

float unit(std::uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24F; }

}  // namespace

void apply_jitter(const Context& context, const Jitter& jitter, const Tensor& x,
                  const Tensor& out) {
  check_cpu(context, "apply_jitter");
  check(x.dtype() == DType::f32 && out.dtype() == DType::f32 && x.shape() == out.shape(),
        "apply_jitter needs float32 in and out of one shape");
  check(jitter.rows.empty() || static_cast<std::int64_t>(jitter.rows.size()) == x.rows(),
        "apply_jitter needs a number for every row");
  const std::int64_t count = x.cols();
  const auto* from = x.data<float>();
  auto* to = out.data<float>();
  const Jitter j = jitter;
  parallel_blocks(context, x.rows(), rows_per_block(count),
                  [=](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t r = begin; r < end; ++r) {
                      const std::int64_t number =
                          j.first_row + (j.rows.empty() ? r : j.rows[static_cast<std::size_t>(r)]);
                      for (std::int64_t c = 0; c < count; c += kWords) {
                        const auto words = philox(j.key, static_cast<std::uint64_t>(number),
                                                  static_cast<std::uint64_t>(c / kWords));
                        for (std::int64_t w = 0; w < std::min(kWords, count - c); ++w) {
                          const float factor =
                              1 + j.epsilon * (2 * unit(words[static_cast<std::size_t>(w)]) - 1);
                          to[r * count + c + w] = from[r * count + c + w] * factor;
                        }
                      }
                    }
                  });
}

}  // namespace cartesian
