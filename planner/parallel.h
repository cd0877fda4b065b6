#pragma once
// Layers are independent: one at a time on each of several threads.

#include <cstddef>
#include <exception>
#include <vector>

namespace cartesian {

/// Calls work(i) for i below `count`. Of what they throw, the first by index is thrown at the end.
template <class Work>
void for_each_on_threads(std::size_t count, [[maybe_unused]] int threads, const Work& work) {
  std::vector<std::exception_ptr> errors(count);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (std::size_t i = 0; i < count; ++i) {
    try {
      work(i);
    } catch (...) {
      errors[i] = std::current_exception();
    }
  }
  for (const std::exception_ptr& error : errors) {
    if (error) {
      std::rethrow_exception(error);
    }
  }
}

}  // namespace cartesian
